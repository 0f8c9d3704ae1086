"""This package refuses and accepts the same documents as the real flagd."""

import json
import time
import urllib.request

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags import document_text
from tests.support.flagd import Flagd

TAKEN_S, REFUSED_S = 10.0, 0.5


def text(probe="on", top=None, **other):
    """Return a document with a probe flag, and another flag and members that are unusual."""
    flags = {
        "probe": {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": probe},
        "other": {"state": "ENABLED", "variants": {"on": 1, "off": 0}, "defaultVariant": "off", **other},
    }
    return json.dumps({"flags": flags} | (top or {}))


REFUSED = {
    "byte order mark": b"\xef\xbb\xbf" + text().encode(),
    "utf-16": text().encode("utf-16"),
    "metadata text": text(metadata="x").encode(),
    "document metadata text": text(top={"metadata": "x"}).encode(),
    "source number": text(source=5).encode(),
    "key number": text(key=5).encode(),
    "evaluators list": text(top={"$evaluators": []}).encode(),
    "default false": text(defaultVariant=False).encode(),
    "default zero": text(defaultVariant=0).encode(),
    "default list": text(defaultVariant=[]).encode(),
    "too large": text().replace('"on": 1', '"on": 1e400').encode(),
}
TAKEN = {
    "metadata null": text(metadata=None),
    "metadata nested": text(metadata={"a": [1]}),
    "selector number": text(selector=5),
    "targeting list": text(targeting=[1]),
    "targeting text": text(targeting="on"),
    "targeting bool": text(targeting=True),
    "unknown operator": text(targeting={"nonsense": [1]}),
    "evaluators null": text(top={"$evaluators": None}),
    "evaluators odd": text(top={"$evaluators": {"a": [1]}}),
    "half a pair": text(description="\ud83d"),
    "default null": text(defaultVariant=None),
    "default empty": text(defaultVariant=""),
    "variant null": text(variants={"on": 1, "off": None}),
    "schema number": text(top={"$schema": 5}),
    "flag null": text().replace('"other":', '"z": null, "other":'),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("differences")
    document = folder / "demo.flagd.json"
    document.write_text(text("off"))
    with Flagd(document, folder / "flagd.log") as flagd:
        yield document, flagd


def put(document, raw):
    beside = document.with_name("beside")
    beside.write_bytes(raw)
    beside.rename(document)


def serves(flagd, variant, seconds):
    """Return whether the probe flag answers the variant in time."""
    address = f"{flagd.ofrep}/ofrep/v1/evaluate/flags/probe"
    until = time.monotonic() + seconds
    while True:
        request = urllib.request.Request(address, b"{}", {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            if json.load(answer).get("variant") == variant:
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.02)


@pytest.mark.parametrize("name", [*REFUSED, *TAKEN])
def test_both_agree(running, name):
    document, flagd = running
    put(document, text("off").encode())
    assert serves(flagd, "off", TAKEN_S)
    raw = REFUSED.get(name) or TAKEN[name].encode()
    put(document, raw)
    assert serves(flagd, "on", REFUSED_S if name in REFUSED else TAKEN_S) is (name in TAKEN)
    if name in REFUSED:
        with pytest.raises(FlagError):
            document_text.parse(raw)
    else:
        body = document_text.parse(raw).body
        assert json.loads(document_text.write(body, raw)) == json.loads(raw)
