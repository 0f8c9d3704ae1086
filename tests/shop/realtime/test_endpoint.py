from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.shop.realtime.endpoint import OtlpEndpoint, parse_headers


@pytest.mark.parametrize(
    ("url", "protocol", "expected", "authority", "secure"),
    [
        ("", "http/protobuf", "http://localhost:4318", "localhost:4318", False),
        ("", "grpc", "http://localhost:4317", "localhost:4317", False),
        ("collector:4317", "grpc", "http://collector:4317", "collector:4317", False),
        ("https://otel.example", "grpc", "https://otel.example", "otel.example:443", True),
        (
            "https://otel.example/otlp/",
            "http/protobuf",
            "https://otel.example/otlp",
            "otel.example:443",
            True,
        ),
        ("http://[::1]:4317", "grpc", "http://[::1]:4317", "[::1]:4317", False),
    ],
)
def test_endpoints_follow_the_syntax_of_exporters(
    url: str, protocol: str, expected: str, authority: str, secure: bool
) -> None:
    endpoint = OtlpEndpoint.parse(url, protocol=protocol)
    assert (endpoint.url, endpoint.authority, endpoint.secure) == (expected, authority, secure)
    assert endpoint.path("logs") == f"{expected}/v1/logs"
    assert str(endpoint) == f"{expected} ({protocol})"


@pytest.mark.parametrize(
    ("url", "protocol", "says"),
    [
        (
            "localhost:4318",
            "http/protobuf",
            "'localhost:4318' is not an address; write http://localhost:4318",
        ),
        ("ftp://collector", "grpc", "or host:port"),
        ("http://collector:none", "http/protobuf", "is not an address"),
        ("http://collector/v1", "grpc", "gRPC has no path; leave out '/v1'"),
        ("http://collector", "http", "protocol 'http': allowed are http/protobuf, grpc"),
    ],
)
def test_an_invalid_endpoint_is_rejected_with_a_remedy(url: str, protocol: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        OtlpEndpoint.parse(url, protocol=protocol)


def test_an_unknown_compression_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="compression 'zstd': allowed are none, gzip"):
        OtlpEndpoint.parse(compression="zstd")


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), st.text(max_size=12), max_size=4)
)
def test_headers_are_decoded(headers: dict[str, str]) -> None:
    text = ",".join(f"{key}={quote(value, safe='')}" for key, value in headers.items())
    assert parse_headers(text) == headers


def test_headers_may_have_spaces_and_capitals() -> None:
    assert parse_headers(" Api-Key = a=b , ,x=%2C ") == {"api-key": "a=b", "x": ","}


def test_a_header_without_a_value_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="entry 2 is not key=value"):
        parse_headers("a=b,secret")
