"""Compose files, collector configurations and Helm values of ``docker/``: shape, pins, result of merging.

Nothing is started. A strict model of the keys in use reads compose files (an unknown key is a mistake); the
configurations are merged as the collector documents it, over layers shaped like the demo's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

DOCKER = Path(__file__).parents[2] / "docker"
FILES = sorted(DOCKER.rglob("compose*.yaml"))
COLLECTOR = sorted(DOCKER.rglob("otelcol-*.yml"))

Duration = Annotated[str, StringConstraints(pattern=r"^\d+(ms|s|m|h)$")]
LocalPort = Annotated[str, StringConstraints(pattern=r"^127\.0\.0\.1:\$\{OTEL_DIAG_[A-Z_]+:-\d+\}:\d+$")]
Pinned = Annotated[str, StringConstraints(pattern=r"^[\w./-]+:v?\d+\.[\d.]*\d$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Health(_Strict):
    test: Annotated[list[str], Field(min_length=2)]
    interval: Duration
    timeout: Duration
    retries: Annotated[int, Field(gt=0)]
    start_period: Duration


class _Limit(_Strict):
    soft: int
    hard: int


class _Dependency(_Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class _Service(_Strict):
    """A service of the overlay, or (without an image) an addition to one of the demo's."""

    image: Pinned | None = None
    restart: Literal["unless-stopped", "always", "no", "on-failure"] | None = None
    environment: dict[str, str] | list[str] = {}
    ports: list[LocalPort] = []
    volumes: list[str] = []
    ulimits: dict[str, _Limit] = {}
    healthcheck: _Health | None = None
    depends_on: dict[str, _Dependency] = {}
    extra_hosts: list[str] = []


class _Compose(_Strict):
    name: str = ""
    services: Annotated[dict[str, _Service], Field(min_length=1)]
    volumes: dict[str, dict[str, str]] = {}


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _named(path: Path) -> str:
    return path.relative_to(DOCKER).as_posix()


@pytest.mark.parametrize("file", FILES, ids=_named)
def test_compose_files_are_what_compose_takes(file: Path) -> None:
    compose = _Compose.model_validate(_read(file))
    own = {name: service for name, service in compose.services.items() if service.image is not None}
    for name, service in own.items():
        assert service.healthcheck, f"{name} has no health check"
        assert service.restart, f"{name} does not come back"
        kept = [volume.partition(":")[0] for volume in service.volumes]
        assert set(kept) <= compose.volumes.keys(), f"{name} names a volume that nobody makes"
        assert kept, f"{name} forgets everything with its container"
    for name, service in compose.services.items():
        assert service.depends_on.keys() <= compose.services.keys() - {name}
        healthy = [other for other, what in service.depends_on.items() if what.condition == "service_healthy"]
        assert all(own[other].healthcheck for other in healthy)


@pytest.mark.parametrize("file", FILES, ids=_named)
def test_passwords_are_asked_for_and_never_written(file: Path) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        if "PASSWORD" in line and not line.lstrip().startswith("#"):
            assert re.search(r"\$\{OTEL_DIAG_\w+_PASSWORD:\?", line), line


def test_there_is_a_server_to_start() -> None:
    assert any("clickhouse" in file.parent.name for file in FILES)


@pytest.mark.parametrize("release", ["2.2", "3.0"])
@pytest.mark.parametrize("kind", ["clickhouse", "receiver"])
def test_overlays_patch_the_demo(release: str, kind: str) -> None:
    services = _Compose.model_validate(_read(DOCKER / f"demo-{release}/compose.{kind}.yaml")).services
    collector = services["otel-collector"]
    (mount,) = collector.volumes
    source, target, mode = mount.rsplit(":", 2)
    assert (target, mode) == ("/etc/otelcol-config-extras.yml", "ro"), "the demo's last configuration"
    wanted = re.sub(r"\$\{OTEL_DIAG_DOCKER:\?[^}]*\}", str(DOCKER), source)
    assert Path(wanted).is_file(), "the mounted file exists"
    assert [port.rsplit(":", 1)[1] for port in services["flagd"].ports] == ["8013", "8016"]
    given = {entry.partition("=")[0] for entry in collector.environment}
    used = set(re.findall(r"\$\{env:(\w+)\}", Path(wanted).read_text(encoding="utf-8")))
    assert used == given, "the collector gets every variable that its configuration reads"
    if kind == "receiver":
        assert collector.extra_hosts == ["host.docker.internal:host-gateway"]
    lines = (DOCKER / f"demo-{release}/demo.env").read_text(encoding="utf-8").splitlines()
    assert f"DEMO_VERSION={release}.0" in lines


def merged(layers: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge configurations as the collector does: maps are merged, everything else is replaced."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            result[key] = merged([old, value]) if both else value  # type: ignore[list-item]  # both are maps
    return result


def _pipeline(receivers: str, processors: str, exporters: str) -> dict[str, list[str]]:
    return {
        "receivers": receivers.split(),
        "processors": processors.split(),
        "exporters": exporters.split(),
    }


def _layer(
    receivers: str = "",
    processors: str = "",
    exporters: str = "",
    connectors: str = "",
    **pipelines: Mapping[str, list[str]],
) -> dict[str, Any]:
    """Return a configuration with the named components, all of them empty."""
    names = {
        "receivers": receivers,
        "processors": processors,
        "exporters": exporters,
        "connectors": connectors,
    }
    layer: dict[str, Any] = {key: dict.fromkeys(text.split()) for key, text in names.items() if text}
    return {**layer, "service": {"pipelines": pipelines}}


# Component ids and pipelines of the demo's own configurations at these releases.
CORE_3 = _layer(
    receivers="otlp http_check/frontend-proxy nginx docker_stats redis postgresql prometheus/ad host_metrics",
    processors=(
        "resource_detection memory_limiter transform/sanitize_spans transform/sanitize_logs "
        "gen_ai_normalizer transform/redact_sensitive_data"
    ),
    exporters="debug",
    connectors="span_metrics",
    traces=_pipeline(
        "otlp",
        "resource_detection memory_limiter transform/sanitize_spans gen_ai_normalizer "
        "transform/redact_sensitive_data",
        "debug span_metrics",
    ),
    metrics=_pipeline(
        "docker_stats http_check/frontend-proxy host_metrics nginx otlp redis postgresql prometheus/ad "
        "span_metrics",
        "resource_detection memory_limiter",
        "debug",
    ),
    logs=_pipeline("otlp", "resource_detection memory_limiter transform/sanitize_logs", "debug"),
)
_FULL_RECEIVERS = (
    "docker_stats http_check/frontend-proxy host_metrics nginx otlp redis postgresql span_metrics "
    "kafkametrics"
)
FULL_3 = _layer(
    receivers="kafkametrics",
    metrics={"receivers": _FULL_RECEIVERS.split()},
)
OBSERVABILITY_3 = _layer(
    exporters="otlp_grpc/jaeger otlp_http/prometheus opensearch",
    traces={"exporters": ["debug", "otlp_grpc/jaeger", "span_metrics"]},
    metrics={"exporters": ["debug", "otlp_http/prometheus"]},
    logs={"exporters": ["debug", "opensearch"]},
)
CORE_2 = _layer(
    receivers="otlp httpcheck/frontend-proxy nginx docker_stats postgresql redis hostmetrics",
    processors="memory_limiter resourcedetection transform",
    exporters="debug otlp otlphttp/prometheus opensearch",
    connectors="spanmetrics",
    traces=_pipeline("otlp", "resourcedetection memory_limiter transform", "otlp debug spanmetrics"),
    metrics=_pipeline(
        "docker_stats httpcheck/frontend-proxy hostmetrics nginx otlp redis spanmetrics",
        "resourcedetection memory_limiter",
        "otlphttp/prometheus debug",
    ),
    logs=_pipeline("otlp", "resourcedetection memory_limiter", "opensearch debug"),
)
CHART = merged([CORE_3, OBSERVABILITY_3])

CASES = {
    "demo-3.0/otelcol-clickhouse.yml": ([CORE_3, FULL_3, OBSERVABILITY_3], "clickhouse"),
    "demo-3.0/otelcol-receiver.yml": ([CORE_3, FULL_3], "otlp_http/otel_diag"),
    "demo-2.2/otelcol-clickhouse.yml": ([CORE_2], "clickhouse"),
    "demo-2.2/otelcol-receiver.yml": ([CORE_2], "otlphttp/otel_diag"),
}


def test_every_configuration_is_checked() -> None:
    assert sorted(CASES) == [_named(path) for path in COLLECTOR]


def _check(upstream: Mapping[str, Any], overlay: Mapping[str, Any], exporter: str) -> None:
    """Check that every pipeline keeps its parts, gets *exporter*, and names only what is defined."""
    before = upstream["service"]["pipelines"]
    result = merged([upstream, overlay])
    after = result["service"]["pipelines"]
    assert after.keys() == before.keys(), "no pipeline is added or lost"
    assert exporter not in {name for pipe in before.values() for name in pipe["exporters"]}
    for name, pipe in after.items():
        assert sorted(pipe["exporters"]) == sorted([*before[name]["exporters"], exporter]), name
        assert pipe["receivers"] == before[name]["receivers"], name
        assert pipe["processors"] == before[name]["processors"], name
        assert set(pipe["exporters"]) <= {*result["exporters"], *result["connectors"]}, name
        assert set(pipe["receivers"]) <= {*result["receivers"], *result["connectors"]}, name
        assert set(pipe["processors"]) <= result["processors"].keys(), name
    made = result["exporters"][exporter]
    assert made["sending_queue"]["batch"]["flush_timeout"], "rows are sent in batches, after a short time"
    assert overlay.keys() == {"exporters", "service"}
    assert overlay["exporters"].keys() == {exporter}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_demo_keeps_its_exporters(name: str) -> None:
    layers, exporter = CASES[name]
    _check(merged(layers), _read(DOCKER / name), exporter)


def test_lists_are_replaced_and_maps_merged() -> None:
    layers = [{"a": {"x": [1, 2], "y": None}, "b": 1}, {"a": {"x": [3]}}, {"a": {"y": {"z": 1}}, "b": None}]
    assert merged(layers) == {"a": {"x": [3], "y": {"z": 1}}, "b": None}


@pytest.mark.parametrize("spoilt", ["exporters", "receivers"])
def test_a_configuration_that_forgets_something_is_found(spoilt: str) -> None:
    overlay = _read(DOCKER / "demo-3.0/otelcol-clickhouse.yml")
    overlay["service"]["pipelines"]["metrics"][spoilt] = ["clickhouse"]
    with pytest.raises(AssertionError):
        _check(merged([CORE_3, FULL_3, OBSERVABILITY_3]), overlay, "clickhouse")


class _SecretKey(_Strict):
    name: str
    key: str


class _ValueFrom(_Strict):
    secretKeyRef: _SecretKey  # noqa: N815 - Kubernetes' spelling


class _Env(_Strict):
    name: str
    valueFrom: _ValueFrom  # noqa: N815 - Kubernetes' spelling


class _CollectorChart(_Strict):
    extraEnvs: list[_Env]  # noqa: N815 - the chart's spelling
    config: dict[str, Any]


class _Port(_Strict):
    name: str
    value: int


class _Component(_Strict):
    ports: list[_Port]


class _Values(BaseModel):
    """The keys of the chart that are set; the chart's schema refuses others."""

    model_config = ConfigDict(extra="forbid", strict=True)
    collector: _CollectorChart = Field(alias="opentelemetry-collector")
    components: dict[Literal["flagd"], _Component]


def test_helm_values_have_the_shape_of_the_chart() -> None:
    path = DOCKER / "helm/values.yaml"
    values = _Values.model_validate(_read(path))
    _check(CHART, values.collector.config, "clickhouse")
    used = set(re.findall(r"\$\{env:(\w+)\}", path.read_text(encoding="utf-8")))
    assert used == {env.name for env in values.collector.extraEnvs}
    assert [(port.name, port.value) for port in values.components["flagd"].ports] == [
        ("rpc", 8013),
        ("ofrep", 8016),
    ]


def test_the_readme_names_every_file_and_says_what_was_not_done() -> None:
    text = (DOCKER / "README.md").read_text(encoding="utf-8")
    for path in (*FILES, *COLLECTOR, DOCKER / "helm/values.yaml"):
        release = path.parent.name.removeprefix("demo-")
        assert path.name in text, path
        assert path.parent.name in text or "demo-$DEMO" in text, release
    assert "**Nothing was started.**" in text
