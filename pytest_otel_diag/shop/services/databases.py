"""Databases of the services: Valkey for the cart, PostgreSQL for the catalog and accounting.

They emit no telemetry; only the client spans of their callers show them. Queries mostly wait; a few are
slow (a checkpoint, a cold page). While a table is locked, readers wait for the lock.
"""

from __future__ import annotations

from typing import Any

from simpy import Event

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.kernel import (
    Call,
    HeapSpec,
    Instance,
    Operation,
    RpcFailure,
    ServiceSpec,
    Steps,
    Tail,
)

VALKEY = "valkey-cart"
DATABASE = "astronomy-db"
SLOW_RATIO = 0.0015
"""Share of database queries that are slow for reasons outside the shop."""


class Tables:
    """State of the database: the lock on the table of products, and the stored orders."""

    __slots__ = ("lock", "orders")

    def __init__(self) -> None:
        self.lock: Event | None = None
        self.orders: set[str] = set()


def _valkey(seconds: float) -> Operation:
    def answer(call: Call, request: Any) -> Steps:  # noqa: ARG001 - a behaviour
        yield from call.work(seconds)

    return Operation(answer, allocates=0)


def _select(seconds: float) -> Operation:
    def answer(call: Call, request: Any) -> Steps:  # noqa: ARG001 - a behaviour
        tables: Tables = call.state
        while tables.lock is not None:
            yield tables.lock
        yield from call.work(seconds)
        if call.instance.rng.random() < SLOW_RATIO:
            yield from call.wait(0.04 + call.instance.rng.expovariate(1 / 0.08))

    return Operation(answer, allocates=0)


def _hold_products(call: Call, seconds: float) -> Steps:
    """Wait for the table of products, then lock it exclusively for *seconds*."""
    tables: Tables = call.state
    while tables.lock is not None:
        yield tables.lock
    tables.lock = Event(call.env)
    try:
        yield from call.wait(seconds)
    finally:
        free, tables.lock = tables.lock, None
        free.succeed()


def _insert_order(seconds: float) -> Operation:
    def answer(call: Call, order_id: str) -> Steps:
        tables: Tables = call.state
        yield from call.work(seconds)
        if call.instance.rng.random() < SLOW_RATIO:
            yield from call.wait(0.04 + call.instance.rng.expovariate(1 / 0.08))
        if order_id in tables.orders:
            raise RpcFailure(
                "23505",
                '23505: duplicate key value violates unique constraint "order_pkey"',
                kind="application",
            )
        tables.orders.add(order_id)

    return Operation(answer, allocates=0)


def _tables(instance: Instance) -> Tables:  # noqa: ARG001 - a factory of state
    return Tables()


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the specs of the databases."""
    speed = blueprint.slowness.get("cart", 1.0)
    reading = 0.0009 * speed
    database = {
        "SELECT product": _select(reading),
        "SELECT products": _select(1.6 * reading),
        "INSERT order": _insert_order(2.2 * reading),
        "LOCK products": Operation(_hold_products, allocates=0),
    }
    keys = {name: _valkey(0.00025 * speed) for name in ("HGET", "HMSET", "EXPIRE")}
    still = HeapSpec()
    return [
        ServiceSpec(VALKEY, keys, workers=64, heap=still, startup_s=0.5, tail=Tail(0.014)),
        ServiceSpec(
            DATABASE, database, workers=100, heap=still, startup_s=2.0, state=_tables, tail=Tail(0.02)
        ),
    ]
