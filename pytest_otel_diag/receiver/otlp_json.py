"""Reads and writes OTLP/JSON, which differs from protobuf's own JSON mapping.

Trace and span ids are hexadecimal where protobuf expects base64, so ids are converted first; protobuf
parses the rest. Unknown fields are ignored.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from pytest_otel_diag.receiver import packages

_IDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_FREE = frozenset({"value", "body"})  # AnyValue: a key called traceId in it is user data


def read(body: bytes, request: Any) -> Any:
    """Parse *body* as a message of class *request*; raises ValueError when it is not OTLP/JSON."""
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("not OTLP/JSON: the document is not an object")
        _to_base64(document)
        return packages.json_format().ParseDict(document, request(), ignore_unknown_fields=True)
    except (packages.json_format().ParseError, TypeError, AttributeError) as error:
        raise ValueError(f"not OTLP/JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("not OTLP/JSON: nested too deeply") from error


def write(message: Any) -> bytes:
    """Return a message as JSON."""
    text: str = packages.json_format().MessageToJson(message, indent=None)
    return text.encode()


def _to_base64(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _to_base64(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _IDS and isinstance(value, str):
                node[key] = _id(key, value)
            elif key not in _FREE:
                _to_base64(value)


def _id(key: str, value: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (ValueError, binascii.Error):
        raise ValueError(f"not OTLP/JSON: {key} {value[:40]!r} is not hexadecimal") from None
