"""Another fault that comes on beside the session's own: it says nothing about the analyzer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.flags import Flag, FlagDocument
from pytest_otel_diag.model.session import ImpactReason, Phase, Status, Witness
from pytest_otel_diag.sessions import EngineSettings
from pytest_otel_diag.sessions.faults import not_served
from pytest_otel_diag.sessions.faults.external_changes import ExternalChangeDetector, ExternalChanges
from pytest_otel_diag.sessions.faults.targeting import possible
from pytest_otel_diag.sessions.faults.witness import FlagWitness
from tests.sessions.session_fakes import QUICK, FakeTarget, Watcher, engine, plan, scenario
from tests.support.deadlines import LoopClock


def detector(session, known: FlagDocument, contexts=None) -> ExternalChangeDetector:
    return ExternalChangeDetector(FlagWitness(session, EngineSettings(), contexts), known)


def change_externally(target: FakeTarget, key: str = "adFailure", variant: str = "on") -> None:
    target.flags.state[key] = variant
    target.flags.changed()


@pytest.mark.parametrize(
    "phase", [Phase.BASELINE, Phase.INJECT, Phase.WITNESS, Phase.IMPACT, Phase.INVESTIGATE, Phase.JUDGE]
)
async def test_a_fault_that_another_client_turns_on_in_any_phase_is_named(phase):
    target, watcher = FakeTarget(), Watcher()
    watcher.when[phase] = lambda: change_externally(target)

    result = await engine(target, watcher=watcher).run(plan())

    assert (result.status, result.blame, result.verdict) == (Status.INVALID, None, None)
    assert (
        "EXTERNAL_CHANGE: changed by another client during the session: adFailure=on; stop what"
        in result.reason
    )
    assert target.restored, "the exact document before the session is back"


async def test_an_external_change_invalidates_a_control_too():
    target, watcher = FakeTarget(), Watcher()
    watcher.when[Phase.INVESTIGATE] = lambda: change_externally(target, "loadVUs", "10")

    result = await engine(target, watcher=watcher).run(plan(scenario()))

    assert result.status is Status.INVALID
    assert "loadVUs=10" in result.reason, "a flag without an off variant counts as soon as it changes"


async def test_while_the_analyzer_works_counts_too():
    target = FakeTarget()

    async def analyzer(investigation):
        change_externally(target)
        return Diagnosis(detected=True)

    result = await engine(target, analyzer).run(plan())

    assert result.status is Status.INVALID and "adFailure=on" in result.reason
    assert result.diagnosis is not None and result.verdict is None


async def test_it_is_seen_at_the_next_look_not_only_at_the_end():
    target, watcher = FakeTarget(), Watcher()
    target.telemetry.services["payment"].flag = ""  # nothing to see, so the wait is long
    watcher.when[Phase.IMPACT] = lambda: change_externally(target)

    result = await engine(target, watcher=watcher).run(plan())

    assert result.status is Status.INVALID and "EXTERNAL_CHANGE" in result.reason
    assert not watcher.progress, "the first look already finds it"


async def test_a_flag_of_the_session_that_another_client_changed_is_not_served():
    target, watcher = FakeTarget(), Watcher()
    watcher.when[Phase.IMPACT] = lambda: change_externally(target, "paymentFailure", "10%")

    result = await engine(target, watcher=watcher).run(plan())

    assert result.impact is not None and result.impact.reason is ImpactReason.NOT_SERVED
    assert "changed by another client during the session: paymentFailure=50% (now '10%')" in result.reason


async def test_flags_that_cannot_be_read_for_long_are_an_error_that_says_so():
    target, watcher = FakeTarget(), Watcher()
    watcher.when[Phase.IMPACT] = lambda: (
        target.trouble.raising("flags.document", FlagError("HTTP 500"), times=3) and None
    )

    result = await engine(target, watcher=watcher).run(plan())

    assert result.status is Status.ERROR and target.restored
    assert "another fault may have been turned on: HTTP 500" in result.reason


async def test_one_lost_answer_costs_nothing():
    target, watcher = FakeTarget(), Watcher()
    watcher.when[Phase.IMPACT] = lambda: (
        target.trouble.raising("flags.document", FlagError("HTTP 500"), times=2) and None
    )

    assert (await engine(target, watcher=watcher).run(plan())).status is Status.SCORED


def document(**flags: Flag) -> FlagDocument:
    raw = json.dumps({key: flag.model_dump(mode="json") for key, flag in flags.items()}).encode()
    return FlagDocument(raw=raw, flags=flags)


def flag(key: str, default: str = "off", **fields: object) -> Flag:
    variants = fields.pop("variants", {"off": 0, "on": 1, "high": 2})
    return Flag.model_validate({"key": key, "variants": variants, "default_variant": default, **fields})


VUS = {"variants": {"5": 5, "10": 10}}
RULE = {"if": [{"==": [{"var": "id"}, "P1"]}, "on", "off"]}


@pytest.mark.parametrize(
    ("before", "now", "faults"),
    [
        ({"a": flag("a")}, {"a": flag("a", "on")}, ("a=on",)),
        ({"a": flag("a", "on")}, {"a": flag("a", "high")}, ("a=high",)),
        ({"a": flag("a", "on")}, {"a": flag("a")}, ("a=off",)),
        ({"a": flag("a", "on")}, {"a": flag("a", "on", variants={"off": 0, "on": 9})}, ("a=on",)),
        ({"a": flag("a", "on", enabled=False)}, {"a": flag("a", "on")}, ("a=on",)),
        ({"a": flag("a", "on")}, {}, ("a=(gone)",)),
        ({}, {"a": flag("a", "on")}, ("a=on",)),
        ({"a": flag("a", "5", **VUS)}, {"a": flag("a", "10", **VUS)}, ("a=10",)),
        ({"a": flag("a")}, {"a": flag("a", targeting=RULE)}, ("a=on",)),
        ({"a": flag("a", "5", **VUS)}, {"a": flag("a", "5", **VUS, targeting=RULE)}, ("a=off|on",)),
        # what services get is the same
        ({"a": flag("a")}, {"a": flag("a", variants={"off": 0, "on": 7})}, ()),
        ({"a": flag("a")}, {}, ()),
        ({}, {"a": flag("a")}, ()),
        ({}, {"a": flag("a", "5", **VUS)}, ()),
        ({"a": flag("a")}, {"a": flag("a", enabled=False)}, ()),
        ({"a": flag("a")}, {"a": flag("a", enabled=False, targeting=RULE)}, ()),
    ],
)
async def test_what_counts_is_what_services_get(before, now, faults):
    target = FakeTarget()
    changing = Changing(document(**before), target)
    async with target.open(scenario(), "s") as session:
        changed_session = Session(session, changing)
        detecting = detector(changed_session, document(**before))
        changing.current = document(**now)
        changed = await detecting.check()
        again = await detecting.check()

    assert changed.faults == faults
    assert bool(changed.notes) == (not faults)
    assert not (again.faults or again.notes), "reported once"


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        (flag("a", "on", variants={"off": 0, "on": 1}), ()),
        (flag("a", "off"), ("a=on (now 'off')",)),
        (flag("a", "on", enabled=False), ("a=on (now '(disabled)')",)),
        (None, ("a=on (now '(gone)')",)),
        (flag("a", "off", targeting=RULE), ()),
        (
            flag("a", "off", targeting={"if": [{"==": [{"var": "id"}, "P2"]}, "on", "off"]}),
            ("a=on (now 'off')",),
        ),
    ],
)
async def test_a_flag_of_the_session_is_compared_with_what_the_session_set(now, lost):
    target = FakeTarget()
    changing = Changing(document(a=flag("a"), b=flag("b")), target)
    async with target.open(scenario(), "s") as session:
        detecting = detector(Session(session, changing), changing.current, {"a": {"id": "P1"}})
        changing.current = document(a=flag("a", "on"), b=flag("b"))
        assert await detecting.adopt({"a": "on"}) == ExternalChanges() == await detecting.check()
        left = {"b": flag("b")} if now is None else {"a": now, "b": flag("b")}
        changing.current = document(**left)
        changed = await detecting.check()
        assert changed.lost == lost and not changed.faults


async def test_what_another_client_writes_with_the_session_is_an_external_change():
    target = FakeTarget()
    changing = Changing(document(a=flag("a"), b=flag("b")), target)
    async with target.open(scenario(), "s") as session:
        detecting = detector(Session(session, changing), changing.current)
        changing.current = document(a=flag("a", "on"), b=flag("b", "high"))
        assert (await detecting.adopt({"a": "on"})).faults == ("b=high",)


class Changing:
    """Flags with the document at hand; rules answer by the one condition they have."""

    def __init__(self, current: FlagDocument, target: FakeTarget) -> None:
        self.current = current
        self.target = target

    async def document(self) -> FlagDocument:
        return self.current

    async def served(self, key, context):
        class Answer:
            variant = "off"

        found = self.current.flags[key]
        rule = found.targeting
        if rule is not None:
            ((_, wanted),) = [(name, value) for name, value in [rule["if"][0]["=="]]]
            Answer.variant = rule["if"][1] if context.get("id") == wanted else rule["if"][2]
        return Answer


class Session:
    """An open session with other flags."""

    def __init__(self, session, flags) -> None:
        self.flags = flags
        self.clock = session.clock
        self.normal = session.normal


async def test_other_flags_that_the_undo_left_are_noted():
    target, watcher = FakeTarget(), Watcher()
    whole = target.flags.restore

    async def keeps_the_other(found):
        await whole(found)
        change_externally(target)  # an undo that takes back its own change alone

    watcher.when[Phase.UNDO] = lambda: setattr(target.flags, "restore", keeps_the_other)
    result = await engine(target, watcher=watcher).run(plan())

    assert result.status is Status.SCORED
    assert result.cleanup is not None and result.cleanup.verified
    assert result.notes == ("other flags are not as they were found: adFailure=on",)


async def test_an_undo_whose_last_look_fails_is_proven_all_the_same():
    target, watcher = FakeTarget(), Watcher()
    clock = LoopClock()
    watcher.when[Phase.UNDO] = lambda: target.trouble.at.update({"flags.document": lambda: clock.hang(15.1)})
    settings = replace(QUICK, undo_timeout_s=60)
    result = await engine(target, watcher=watcher, settings=settings).run(plan())
    assert result.cleanup is not None and result.cleanup.verified and result.status is Status.SCORED


@pytest.mark.parametrize(
    ("rule", "served", "expected"),
    [
        (
            RULE,
            "off",
            'its rule decides: {"if":[{"==":[{"var":"id"},"P1"]},"on","off"]}, asked with the context',
        ),
        ({"if": ["x" * 900, "on"]}, "off", "…, asked with the context {}; change the rule"),
    ],
)
async def test_a_rule_that_answers_something_else_is_shown(rule, served, expected):
    target = FakeTarget()
    target.flags.targeting["paymentFailure"] = rule
    target.flags.served_instead["paymentFailure"] = served

    result = await engine(target).run(plan())

    assert result.status is Status.INVALID
    assert result.impact is not None and result.impact.reason is ImpactReason.NOT_SERVED
    assert expected in result.reason and len(result.reason) < 1000
    assert "last answer: 'off'" in result.reason


async def test_a_disabled_flag_is_not_served_before_anything_is_touched():
    target = FakeTarget()
    inner = target.flags.document

    async def off():
        found = await inner()
        flags = {**found.flags}
        flags["paymentFailure"] = flags["paymentFailure"].model_copy(update={"enabled": False})
        return found.model_copy(update={"flags": flags})

    target.flags.document = off
    result = await engine(target).run(plan())
    assert result.status is Status.INVALID
    assert "NOT_SERVED: paymentFailure is DISABLED" in result.reason and "ENABLED" in result.reason
    assert not target.trouble.passed["flags.apply"]


def test_a_reason_for_each_way_in_which_a_flag_is_not_served():
    proof = Witness(flag="a", variant="on", reads=1, confirmed=False, at_ns=0, detail="last answer: 'off'")

    def expected(found, *, unreadable=False):
        return not_served.reason(proof, found, {}, unreadable=unreadable)

    assert "removed the flag from the document" in expected(None)
    assert "DISABLED" in expected(flag("a", enabled=False))
    assert "cannot be read back" in expected(flag("a", "on"), unreadable=True)
    assert "has 'off': another client" in expected(flag("a"))
    assert "another document" in expected(flag("a", "on"))
    assert len(not_served.compact("x" * 5000)) == not_served.RULE_CHARS + 1


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ({"if": [{"starts_with": [{"var": "user"}, "a"]}, "on", "off"]}, {"on", "off"}),
        ({"if": [{"!=": [{"var": "user"}, "a"]}, "off", {"==": [1, 2]}, "off"]}, {"off"}),
        ({"if": [{"and": [{"var": "a"}, {"var": "b"}]}, "on"]}, {"on"}),
        ({"fractional": [{"var": "id"}, ["on", 0], ["off", 100]]}, {"off"}),
        ({"fractional": [["on", 1], ["off", 99]]}, {"on", "off"}),
        ({"var": "variant"}, {"on", "off"}),
        ({"if": [{"var": "a"}, "off", None]}, {"off"}),
    ],
)
def test_the_variants_that_a_rule_may_answer(rule, names):
    assert possible(rule, ["on", "off"]) == names


@pytest.mark.parametrize(("before", "after"), [(False, True), (1, True)])
async def test_another_value_or_type_of_the_variant_off_is_an_external_change(before, after):
    def flags(value):
        flag = Flag(key="adFailure", variants={"on": True, "off": value}, default_variant="off")
        return FlagDocument(raw=repr(value).encode(), flags={"adFailure": flag})

    target = FakeTarget()
    async with target.open(scenario(), "s") as session:
        detecting = detector(session, flags(before))
        changed = await detecting.compare(flags(after))
    assert changed.faults == ("adFailure=off (its value is now true)",)
