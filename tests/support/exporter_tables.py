"""Tables as exporters and other writers really made them, filled with calls of payment, all of which fail."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.telemetry import Layout, Store

T0_S = 1_700_000_000
CALLS = 20
WINDOW = Window(start_ns=T0_S * NANOS_PER_SECOND, end_ns=(T0_S + 60) * NANOS_PER_SECOND)
MAP = "Map(LowCardinality(String), String)"
POD = {MAP: "map('k8s.pod.name', 'p-1')", "JSON": """'{"k8s": {"pod": {"name": "p-1"}}}'""",
       "String": """'{"k8s.pod.name": "p-1"}'"""}  # fmt: skip


def make(
    store: Store, database: str, *, attributes: str = MAP, status: str = "Error", kind: str = "Server",
    lacking: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Make the tables without companion; *attributes* is the type of attributes, *lacking* are no columns."""
    with store._engine.connection() as connection:
        layout = Layout()
        connection.command(layout.create_database(database))
        for statement in layout.ddl(database):
            if "slim" in statement or ("metrics_" in statement and "gauge" not in statement):
                continue
            lines = [line for line in statement.splitlines() if line.strip().split(" ")[0] not in lacking]
            text = "\n".join(lines).replace("cityHash64(Attributes), ", "").replace(MAP, attributes)
            connection.command(text if attributes in POD else text.replace("CODEC(ZSTD(1))", ""))
        for values in _rows(attributes, status, kind) if attributes in POD else ():
            kept = {name: value for name, value in values.items() if name not in lacking}
            _insert(connection, database, kept)


def _rows(attributes: str, status: str, kind: str) -> list[Mapping[str, str]]:
    span = {
        "Timestamp": f"toDateTime64({T0_S}, 9) + number",
        "TraceId": "toString(number)",
        "SpanId": "'1'",
        "ParentSpanId": "''",
        "ServiceName": "'frontend'",
        "SpanName": "'GET'",
        "SpanKind": f"'{kind}'",
        "Duration": "1000000",
        "StatusCode": "'Unset'",
        "ResourceAttributes": POD[attributes],
        "SpanAttributes": POD[attributes],
    }
    callee = {"SpanId": "'2'", "ParentSpanId": "'1'", "ServiceName": "'payment'", "StatusCode": f"'{status}'"}
    return [span, {**span, **callee}]


def _insert(connection: object, database: str, values: Mapping[str, str]) -> None:
    columns, selected = ", ".join(values), ", ".join(values.values())
    connection.command(  # type: ignore[attr-defined]  # the engine's private connection
        f"INSERT INTO `{database}`.otel_traces ({columns}) SELECT {selected} FROM numbers({CALLS})"
    )
