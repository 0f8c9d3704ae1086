from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.config.declaration import duration
from pytest_otel_diag.config.options import resolve
from pytest_otel_diag.config.shop_options import SHOP_OPTIONS
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.secret import SecretText

OTEL = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    "OTEL_EXPORTER_OTLP_HEADERS": "a=b",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
}


def values(environment: dict[str, str], **given: object) -> list[object]:
    command_line = {f"otel_diag_{name}": value for name, value in given.items()}
    found = [item.value for item in resolve(command_line, {}, environment, only=SHOP_OPTIONS).values()]
    return [value.reveal() if isinstance(value, SecretText) else value for value in found]


def test_environment_variables_of_otlp_exporters_apply() -> None:
    assert values(OTEL) == ["http://collector:4318", "grpc", "a=b", "gzip", 2.5, ""]


def test_own_names_and_the_command_line_take_precedence() -> None:
    ours = {"OTEL_DIAG_OTLP": "http://mine", "OTEL_DIAG_OTLP_TIMEOUT_S": "3"}
    assert values(OTEL | ours, otlp_protocol="http/protobuf")[:5] == [
        "http://mine",
        "http/protobuf",
        "a=b",
        "gzip",
        3.0,
    ]


def test_defaults_apply_without_any_value() -> None:
    assert values({}) == ["", "http/protobuf", "", "none", 10.0, ""]


@pytest.mark.parametrize("text", ["0", "-1", "inf", "soon"])
def test_an_invalid_timeout_is_reported(text: str) -> None:
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_TIMEOUT"):
        values({"OTEL_EXPORTER_OTLP_TIMEOUT": text})


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s"
    total = hours * 3600 + minutes * 60 + seconds
    if total:
        assert duration(text) == total
    else:
        with pytest.raises(ValueError, match="longer than 0 seconds"):
            duration(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5m", 90), ("90s", 90), (" 2h ", 7200)])
def test_durations_have_several_spellings(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 m", "1d", "-5s", "5m1h"])
def test_an_invalid_duration_is_reported(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time such as"):
        duration(text)
