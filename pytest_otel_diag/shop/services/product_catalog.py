"""product-catalog (Go): lists and gets products, from PostgreSQL since 2.2, before from memory.

productCatalogFailure: 3.x evaluates the flag for every product and its targeting rule selects one; 2.x
evaluates it only for one product. productCatalogLockContention (3.1): a goroutine repeatedly locks the
table of products for half a minute.
"""

from __future__ import annotations

from typing import Any

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.data import BY_ID, PRODUCT_IDS
from pytest_otel_diag.shop.demo.payloads import fields
from pytest_otel_diag.shop.demo.releases import DemoRelease
from pytest_otel_diag.shop.emission.instruments import SECONDS_BOUNDS, MetricShape
from pytest_otel_diag.shop.kernel import (
    Call,
    Instance,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanShape,
    Steps,
)
from pytest_otel_diag.shop.records import AttributeValue, Instrument, Scope
from pytest_otel_diag.shop.services import flagd
from pytest_otel_diag.shop.services.databases import DATABASE

SERVICE = "oteldemo.ProductCatalogService"
GET = f"{SERVICE}/GetProduct"
LIST = f"{SERVICE}/ListProducts"
FAILING = "OLJCESPC7Z"
FAILURE = "Error: Product Catalog Fail Feature Flag Enabled"
QUERY = "sql.conn.query"
"""Name that the database library gives its spans."""
LOCK_S = 30.0
CHECK_EVERY_S = 10.0
"""Period at which the locking goroutine evaluates its flag."""

_LOGGER = Scope("product-catalog", "")
_SQL = Scope("github.com/XSAM/otelsql", "0.41.0")
_DURATION = MetricShape(Instrument("db.client.operation.duration", "histogram", "s"), _SQL, SECONDS_BOUNDS)
_QUERIES = {
    "SELECT product": "SELECT p.id, p.name, p.description, p.picture, p.price_currency_code, p.price_units, "
    "p.price_nanos, p.categories FROM catalog.products p WHERE p.id = $1",
    "SELECT products": "SELECT p.id, p.name, p.description, p.picture, p.price_currency_code, p.price_units, "
    "p.price_nanos, p.categories FROM catalog.products p ORDER BY p.id",
    "LOCK products": "LOCK TABLE catalog.products IN ACCESS EXCLUSIVE MODE",
}


def _query(operation: str, *, modern: bool) -> SpanShape:
    attributes: dict[str, AttributeValue] = {
        "db.system.name": "postgresql",
        "db.query.text": _QUERIES[operation],
        "server.address": DATABASE,
    }
    if not modern:
        return SpanShape(QUERY, "Client", _SQL, {**attributes, "server.port": 5432})
    # the collector of 3.x names spans of databases after the server
    series = (
        ("db.operation.name", QUERY),
        ("db.system.name", "postgresql"),
        ("server.address", DATABASE),
    )
    return SpanShape(
        DATABASE,
        "Client",
        _SQL,
        {**attributes, "original_span_name": QUERY},
        duration=_DURATION,
        duration_series=series,
        failed_series=lambda _: (*series, ("error.type", "*errors.errorString")),
    )


def _contention(instance: Instance) -> Steps:
    world = instance.world
    yield world.sleep(CHECK_EVERY_S * instance.rng.random())
    while True:
        call = Call.root(instance)
        if (yield from call.flag("productCatalogLockContention", False)):
            call.log("INFO", "lock contention scenario active", scope=_LOGGER)
            yield from call.request(DATABASE, "LOCK products", LOCK_S)
        yield world.sleep(CHECK_EVERY_S)


def _fails(release: DemoRelease) -> Any:
    """Return the generator function that evaluates whether a product fails."""

    def targeted(call: Call, product: str) -> Steps:
        return (yield from call.flag("productCatalogFailure", False, {"product_id": product}))

    def single(call: Call, product: str) -> Steps:
        if product != FAILING:
            return False
        return (yield from call.flag("productCatalogFailure", False))

    return targeted if release.modern else single


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the product catalog."""
    release = blueprint.release
    id_key, name_key = release.attribute("product.id"), release.attribute("product.name")
    count_key = release.attribute("product.count")
    get_cost, list_cost = blueprint.cpu("product-catalog", 0.25), blueprint.cpu("product-catalog", 0.6)
    stored, fails = release.catalog_db, _fails(release)
    products = len(PRODUCT_IDS)
    loaded = "Found {} products from database" if blueprint.modern else "Loaded {} products"
    loaded = loaded.format(products)

    def client(target: str, operation: str) -> SpanShape | None:
        return _query(operation, modern=blueprint.modern) if target == DATABASE else None

    def get_product(call: Call, product: str) -> Steps:
        call.set(**{id_key: product})
        if (yield from fails(call, product)):
            call.event(FAILURE)
            raise RpcFailure("INTERNAL", FAILURE)
        found = BY_ID.get(product)
        if stored:
            try:
                yield from call.request(DATABASE, "SELECT product")
            except RpcFailure:
                found = None  # the service's code reports every error of the query as a missing product
        yield from call.work(get_cost)
        if found is None:
            message = f"Product Not Found: {product}"
            call.event(message)
            call.fail(message)
            raise RpcFailure("NOT_FOUND", message)
        call.event("Product Found")
        call.set(**{name_key: found.name})
        call.log("INFO", "Product Found", scope=_LOGGER, **fields({name_key: found.name, id_key: product}))
        return found

    def list_products(call: Call, request: Any) -> Steps:  # noqa: ARG001 - a behaviour
        if stored:
            try:
                yield from call.request(DATABASE, "SELECT products")
            except RpcFailure as failure:
                raise RpcFailure("INTERNAL", f"failed to load products: {failure.message}") from None
            call.log("INFO", loaded, scope=_LOGGER, products=products)
        yield from call.work(list_cost)
        call.set(**{count_key: products})
        return PRODUCT_IDS

    rpc = blueprint.rpc("go")
    server = rpc.server(GET)
    loops = (
        (flagd.listen(blueprint), _contention)
        if "productCatalogLockContention" in release.flags
        else (flagd.listen(blueprint),)
    )
    remote = "flagd" if blueprint.modern else ""
    return [
        blueprint.spec(
            "product-catalog",
            operations={
                GET: Operation(get_product, server, allocates=24_000),
                LIST: Operation(list_products, rpc.server(LIST), allocates=60_000),
            },
            client=client,
            flags=blueprint.flag_client(hook=True, remote=remote, operation=flagd.detached_rpc_method),
            loops=loops,
        )
    ]
