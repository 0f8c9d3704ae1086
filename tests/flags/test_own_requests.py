"""Requests of this package to flag services carry a mark."""

from __future__ import annotations

import re

from pytest_otel_diag.flags.http import HttpClient
from pytest_otel_diag.flags.own_requests import TRACE_ID, headers
from pytest_otel_diag.flags.readers.flagd_grpc import FlagdGrpcReader

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00")


def test_the_trace_context_is_valid_and_not_sampled():
    assert TRACEPARENT.fullmatch(headers()["traceparent"])
    assert headers()["traceparent"].split("-")[1] == TRACE_ID
    assert re.fullmatch(r"pytest-otel-diag/\S+", headers()["user-agent"])


async def test_http_and_grpc_send_it():
    client = HttpClient("http://localhost:1", remedy="")
    sent = client._connected().headers
    assert {key: sent[key] for key in headers()} == dict(headers())
    await client.aclose()
    assert dict(FlagdGrpcReader("localhost:1")._metadata)["traceparent"] == headers()["traceparent"]
