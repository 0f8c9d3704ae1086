"""This package accepts, refuses and evaluates the same documents as the real flagd.

Hypothesis makes documents of usual and odd parts; one flagd loads all of them. Between two of them it loads a
document with a name of its own, so each outcome is an event: flagd logs that it refuses a document, or serves
another document than the one in between.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags import document_json, document_text
from pytest_otel_diag.flags.document import FlagdDocument
from tests.support.deadlines import deadline_s
from tests.support.flagd import Flagd

EXAMPLES = int(os.environ.get("OTEL_DIAG_TEST_DOCUMENTS", "60"))
CONTEXTS = ({}, {"who": "x"}, {"who": "y", "targetingKey": "z"})
WHO = {"==": [{"var": "who"}, "x"]}
SWITCH = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
REFUSED = "error setting state"

ODD = st.sampled_from([None, True, False, 0, 5, 1.5, "", "on", "odd", [], ["on"], {}, {"on": True}])
ALL_ON = [["on", 1], ["off", 0]]
"""All shares for one variant: the evaluator library and flagd divide users differently."""
BRANCH = st.sampled_from(["on", "off", None, "odd", True, {"fractional": ALL_ON}])
RULE = st.one_of(
    st.builds(lambda a, b: {"if": [WHO, a, b]}, BRANCH, BRANCH),
    st.builds(lambda a: {"if": [WHO, a]}, BRANCH),
    st.builds(lambda a, b: {"if": [{"!": WHO}, a, {"==": [1, 1]}, b]}, BRANCH, BRANCH),
    st.sampled_from(
        [
            {"$ref": "rule"},
            {"$ref": "gone"},
            {"$ref": "a&b"},
            {"if": [{"$ref": "rule"}, "on", "off"]},
            {"fractional": [{"var": "who"}, *ALL_ON]},
            {"nonsense": [1]},
            {"if": [WHO]},
            {"var": "who"},
            {"/": [1, 0]},
        ]
    ),
)
VARIANTS = st.one_of(
    st.sampled_from(
        [{"on": True, "off": False}, {"on": 1, "off": 0}, {"on": "a", "off": ""}, {"on": {}, "off": {"a": 1}}]
    ),
    st.dictionaries(st.sampled_from(["on", "off", "odd", ""]), ODD, max_size=3),
)
MEMBERS = {
    "state": st.one_of(st.sampled_from(["ENABLED", "DISABLED", "enabled", "ON"]), ODD),
    "variants": st.one_of(VARIANTS, ODD),
    "defaultVariant": st.one_of(st.sampled_from(["on", "off", ""]), ODD),
    "targeting": st.one_of(RULE, ODD),
    "metadata": st.one_of(
        st.sampled_from([{"a": 1}, {"a": [None]}, {"flagSetId": ""}, {"flagSetId": "x"}]), ODD
    ),
    "source": ODD,
    "key": ODD,
    "description": st.one_of(ODD, st.sampled_from(["\ud83d", "ä"])),
}


@st.composite
def flags(draw: st.DrawFn) -> Any:
    """Draw the definition of a flag: a usual one with up to three odd members."""
    entry: dict[str, Any] = dict(SWITCH)
    for name in draw(st.lists(st.sampled_from(list(MEMBERS)), max_size=3, unique=True)):
        entry.pop(name, None)
        spelt = draw(st.sampled_from([name] * 8 + [name.upper(), name.capitalize()]))
        if draw(st.integers(0, 5)):
            entry[spelt] = draw(MEMBERS[name])
    return draw(st.one_of(*[st.just(entry)] * 9, ODD))


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a document without its probe."""
    found = draw(st.dictionaries(st.sampled_from(["a", "b", "c", "", "ä"]), flags(), max_size=3))
    body: dict[str, Any] = {"flags": found}
    if draw(st.booleans()):
        rules = st.dictionaries(st.sampled_from(["rule", "a&b"]), st.one_of(RULE, ODD), max_size=2)
        body[draw(st.sampled_from(["$evaluators", "$Evaluators"]))] = draw(st.one_of(rules, rules, ODD))
    if not draw(st.integers(0, 5)):
        body["metadata"] = draw(MEMBERS["metadata"])
    return body


def with_probe(body: dict[str, Any], nonce: str, form: str) -> bytes:
    """Return the text of the document with a flag that identifies it."""
    probe = {"state": "ENABLED", "variants": {nonce: True}, "defaultVariant": nonce}
    rest = {name: value for name, value in body.items() if name != "flags"}
    found = {**body["flags"], "probe": probe}
    if form == "array":
        keyed = ((key, entry) for key, entry in found.items())
        listed = [{**entry, "key": key} if isinstance(entry, dict) else entry for key, entry in keyed]
        return json.dumps({**rest, "flags": listed}).encode()
    return json.dumps({**rest, "FLAGS" if form == "upper case" else "flags": found}, indent=1).encode()


class Loaded:
    """A flagd that loads one document after the other."""

    def __init__(self, flagd: Flagd, document: Path) -> None:
        self.flagd = flagd
        self.document = document
        self.numbers = count()

    def accepts(self, raw: bytes) -> bool:
        """Return whether flagd accepts the document, and leave it loaded then."""
        between = f"between{next(self.numbers)}"
        self._put(with_probe({"flags": {}}, between, "object"))
        self._wait(lambda: self._probe() == between)
        read = len(self.flagd.said())
        self._put(raw)
        outcome: list[bool] = []

        def decided() -> bool:
            if self._probe() != between:
                outcome.append(True)
            elif REFUSED in self.flagd.said()[read:]:
                outcome.append(False)
            return bool(outcome)

        self._wait(decided)
        return outcome[0]

    def answer(self, key: str, context: dict[str, Any]) -> str:
        """Return the variant that flagd answers, empty without one."""
        variant = self._asked(f"/{urllib.request.quote(key, safe='')}", context).get("variant", "")
        assert isinstance(variant, str)
        return variant

    def _probe(self) -> str:
        return self.answer("probe", {})

    def _put(self, raw: bytes) -> None:
        beside = self.document.with_name("beside")
        beside.write_bytes(raw)
        beside.rename(self.document)

    def _asked(self, path: str, context: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"context": context}).encode()
        address = f"{self.flagd.ofrep}/ofrep/v1/evaluate/flags{path}"
        request = urllib.request.Request(address, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=deadline_s(5)) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        return found

    @staticmethod
    def _wait(happened: Any) -> None:
        until = time.monotonic() + deadline_s(20)
        while not happened():
            assert time.monotonic() < until, "flagd neither accepted nor refused the document"
            time.sleep(0.002)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    folder = tmp_path_factory.mktemp("differences")
    (folder / "flags").mkdir()
    document = folder / "flags" / "demo.flagd.json"
    document.write_bytes(with_probe({"flags": {}}, "first", "object"))
    with Flagd(document, folder / "flagd.log") as flagd:
        yield Loaded(flagd, document)


def assert_same(loaded: Loaded, raw: bytes) -> None:
    """Compare flagd with this package: whether it accepts the document, and what it answers."""
    try:
        ours = FlagdDocument(raw)
    except FlagError as error:
        assert not loaded.accepts(raw), f"flagd accepts {raw!r}, here: {error}"
        return
    assert loaded.accepts(raw), f"flagd refuses {raw!r}"
    for context in CONTEXTS:
        for key in ours.flags:
            try:
                variant = ours.answer(key, context)[0]
            except FlagError:
                variant = ""
            assert loaded.answer(key, context) == variant, (key, context, raw)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example({"flags": {"a": {"variants": {"on": True}, "defaultVariant": "on"}}}, "array")
@example({"flags": {"a": {**SWITCH, "targeting": {"if": [WHO, None, "on"]}}}}, "object")
@example({"flags": {"a": {**SWITCH, "targeting": {"$ref": "gone"}}}, "$evaluators": {"rule": WHO}}, "object")
@example({"flags": {"a": {"state": "DISABLED"}, "b": {"state": "odd", **SWITCH}}}, "object")
@given(bodies(), st.sampled_from(["object", "object", "array", "upper case"]))
def test_generated_documents(loaded: Loaded, body: dict[str, Any], form: str):
    assert_same(loaded, with_probe(body, f"n{next(loaded.numbers)}", form))


def text(top: dict[str, Any] | None = None, **other: Any) -> str:
    body = {"flags": {"other": {**SWITCH, **other}}, **(top or {})}
    return with_probe(body, "on", "object").decode()


TEXTS = {
    "byte order mark": b"\xef\xbb\xbf" + text().encode(),
    "utf-16": text().encode("utf-16"),
    "no utf-8": text(description="?").encode().replace(b'"?"', b'"\xff\xe4"'),
    "too large": text().replace("true", "1e400").encode(),
    "too large and whole": text().replace("true", "9" * 400).encode(),
    "not a number": text().replace("true", "NaN").encode(),
    "a comment": b"// flags\n" + text().encode(),
    "a comma too many": text().replace("}}", "},}").encode(),
    "nothing": b"{}",
    "null": b"null",
    "an array": b"[]",
    "flags null": b'{"flags": null}',
    "flags number": b'{"flags": 5}',
    "flags text": b'{"flags": "x"}',
    "flags twice": b'{"flags": 5, "flags": {}}',
    "flags in two cases": b'{"flags": {}, "Flags": 5}',
    "evaluators null": text({"$evaluators": None}).encode(),
    "evaluators array": text({"$evaluators": []}).encode(),
    "evaluator empty": text({"$evaluators": {"a": {}}}).encode(),
    "evaluator empty with a space": text({"$evaluators": {"a": {}}}).replace("{}", "{ }").encode(),
    "evaluator short": text({"$evaluators": {"a": 12}}).encode(),
    "evaluator true": text({"$evaluators": {"a": True}}).encode(),
    "evaluator with escapes in its name": text({"$evaluators": {'a"}, {b': 1.25}}).encode(),
    "two in an array": b'{"flags": [{"key": "probe", "variants": {"a": 1}, "defaultVariant": "a"}, '
    b'{"key": "probe", "variants": {"b": 1}, "defaultVariant": "b"}]}',
    "array of nulls": b'{"flags": [null]}',
    "array of numbers": b'{"flags": [5]}',
    "half a pair": text(description="\ud83d").encode(),
    "a flag set": text(metadata={"flagSetId": "mine"}).encode(),
    "a flag set without a name": text(metadata={"flagSetId": ""}).encode(),
    "schema number": text({"$schema": 5}).encode(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(loaded: Loaded, name: str):
    assert_same(loaded, TEXTS[name])
    if name not in {"no utf-8", "flags twice"} and loaded.accepts(TEXTS[name]):
        body = document_text.parse(TEXTS[name]).body
        assert json.loads(document_json.write(body, TEXTS[name])) == json.loads(TEXTS[name])
