"""Generated traces that look like a shop's: 15 services, 5 to 30 spans a trace, 600 seconds.

Forty request types, each a fixed tree of server, client and internal spans (some serial, some parallel,
some with an asynchronous consumer that outlives its producer); lognormal self times with rare spikes.
From second 300 on ``pricing`` is 2.5 times slower and 4 % of ``inventory``'s spans fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

START_NS = 1_700_000_000_000_000_000
LENGTH_S = 600
FAULT_AT_S = 300
CHUNK_SPANS = 500_000
TEMPLATES = 40
SERVICES = (
    "frontend", "checkout", "cart", "catalog", "pricing", "inventory", "payment", "shipping", "email",
    "currency", "recommendation", "ad", "quote", "fraud", "accounting",
)  # fmt: skip
_RESOURCE = ("service.name", "k8s.pod.name", "k8s.namespace.name", "telemetry.sdk.language", "host.name")
_ATTRIBUTES = ("http.route", "http.method", "http.status_code", "net.peer.name", "thread.id", "user.id")


@dataclass(frozen=True)
class Node:
    """A span of a request type: where it hangs, whose it is, and its median self time."""

    parent: int
    service: int
    operation: str
    kind: str
    self_ms: float
    parallel: bool


def request_types(rng: np.random.Generator) -> list[list[Node]]:
    """Return the trees; nodes come after their parents."""
    return [_tree(number, rng) for number in range(TEMPLATES)]


def _tree(number: int, rng: np.random.Generator) -> list[Node]:
    size = int(rng.integers(5, 31))
    nodes = [Node(-1, 0, f"GET /page/{number}", "Server", 2.0, False)]
    while len(nodes) < size:
        parent = int(rng.integers(0, len(nodes)))
        above = nodes[parent]
        own = float(rng.uniform(0.3, 4.0))
        if above.kind == "Client":
            service = int(rng.integers(1, len(SERVICES)))
            nodes.append(
                Node(parent, service, f"{SERVICES[service]}.Handle{service % 4}", "Server", own, False)
            )
        elif above.kind == "Producer":
            nodes.append(Node(parent, len(SERVICES) - 1, "orders process", "Consumer", own * 5, False))
        else:
            kind = str(rng.choice(["Client", "Client", "Internal", "Producer"], p=[0.4, 0.3, 0.25, 0.05]))
            nodes.append(
                Node(
                    parent,
                    above.service,
                    f"{kind.lower()} step {len(nodes) % 7}",
                    kind,
                    own,
                    rng.random() < 0.3,
                )
            )
    return nodes


def chunks(spans: int, seed: int = 1) -> Iterator[pa.Table]:
    """Yield tables of ``otel_traces`` with about *spans* spans in all."""
    rng = np.random.default_rng(seed)
    types = request_types(rng)
    mean = sum(len(tree) for tree in types) / len(types)
    while spans > 0:
        size = min(spans, CHUNK_SPANS)
        requests = max(1, round(size / mean / len(types)))
        yield pa.concat_tables([_requests(tree, requests, rng) for tree in types])
        spans -= size


def _requests(tree: list[Node], count: int, rng: np.random.Generator) -> pa.Table:
    """Return *count* requests of one type, node by node as columns over all requests."""
    begin_s = rng.uniform(0, LENGTH_S, count)
    late = begin_s >= FAULT_AT_S
    own = [_self_ns(node, late, rng) for node in tree]
    starts, lengths = _schedule(tree, own, START_NS + (begin_s * 1e9).astype(np.int64))
    failing = [
        late & (rng.random(count) < 0.04) if SERVICES[n.service] == "inventory" else None for n in tree
    ]
    return pa.concat_tables([
        _column(tree, index, starts[index], lengths[index], failing[index], ids)
        for ids in [_ids(count, len(tree), rng)]
        for index in range(len(tree))
    ])  # fmt: skip


def _self_ns(node: Node, late: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values = rng.lognormal(np.log(node.self_ms * 1e6), 0.4, len(late))
    spikes = rng.random(len(late)) < 0.002
    values[spikes] *= rng.uniform(20, 300, int(spikes.sum()))
    if SERVICES[node.service] == "pricing" and node.kind != "Client":
        values[late] *= 2.5
    return values.astype(np.int64)


def _schedule(
    tree: list[Node], own: list[np.ndarray], begin_ns: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return starts and durations: children within their parent, one after the other or side by side."""
    children: list[list[int]] = [
        [i for i, node in enumerate(tree) if node.parent == p] for p in range(len(tree))
    ]
    lengths = list(own)
    for index in reversed(range(len(tree))):
        waited = [lengths[c] for c in children[index] if tree[c].kind != "Consumer"]
        if waited:
            inside = np.max(waited, axis=0) if tree[index].parallel else np.sum(waited, axis=0)
            lengths[index] = own[index] + inside
    starts = [begin_ns] * len(tree)
    for index in range(len(tree)):
        step = own[index] // (len(children[index]) + 1)
        cursor = starts[index] + step
        for child in children[index]:
            starts[child] = cursor
            if not tree[index].parallel and tree[child].kind != "Consumer":
                cursor = cursor + lengths[child] + step
    return starts, lengths


def _ids(count: int, nodes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return trace ids (count) and span ids (nodes × count) as hexadecimal text."""
    traces = rng.bytes(16 * count).hex()
    spans = rng.bytes(8 * count * nodes).hex()
    return (
        np.array([traces[i : i + 32] for i in range(0, len(traces), 32)], dtype=object),
        np.array([spans[i : i + 16] for i in range(0, len(spans), 16)], dtype=object).reshape(nodes, count),
    )


def _column(
    tree: list[Node], index: int, starts: np.ndarray, lengths: np.ndarray, failing: np.ndarray | None,
    ids: tuple[np.ndarray, np.ndarray],
) -> pa.Table:  # fmt: skip
    """Return the rows of one node over all requests."""
    node, count = tree[index], len(starts)
    service = SERVICES[node.service]
    parents = ids[1][node.parent] if node.parent >= 0 else np.full(count, "", dtype=object)
    status = np.where(failing, "Error", "Unset") if failing is not None else np.full(count, "Unset")
    resource = (service, f"{service}-0", "shop", "go", f"node-{node.service % 3}")
    users = np.char.add("user-", (starts % 20_000).astype(str))
    attributes = [f"/{service}", "GET", "200", service, str(node.service), None]
    return pa.table({
        "Timestamp": pa.array(starts, pa.timestamp("ns", "UTC")),
        "TraceId": pa.array(ids[0], pa.string()),
        "SpanId": pa.array(ids[1][index], pa.string()),
        "ParentSpanId": pa.array(parents, pa.string()),
        "SpanName": pa.array([node.operation] * count, pa.string()),
        "SpanKind": pa.array([node.kind] * count, pa.string()),
        "ServiceName": pa.array([service] * count, pa.string()),
        "Duration": pa.array(lengths, pa.int64()),
        "StatusCode": pa.array(status, pa.string()),
        "ResourceAttributes": _maps(_RESOURCE, list(resource), count),
        "SpanAttributes": _maps(_ATTRIBUTES, attributes, count, users),
    })  # fmt: skip


def _maps(
    keys: tuple[str, ...], values: list[str | None], count: int, varying: np.ndarray | None = None
) -> pa.MapArray:
    """Return *count* maps of the same keys; the value None is taken from *varying*."""
    flat = np.tile(np.array(values, dtype=object), count)
    if varying is not None:
        flat[values.index(None) :: len(values)] = varying
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * len(keys))
    return pa.MapArray.from_arrays(offsets, pa.array(list(keys) * count), pa.array(flat, pa.string()))
