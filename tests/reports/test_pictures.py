"""Pictures are well-formed, escaped, within their frame and without overlap for any session."""

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.exhibits import (
    CallLoad,
    ExemplarTrace,
    Exhibits,
    ExhibitSpan,
    ServiceCall,
    ServiceSeries,
    Timeline,
)
from pytest_otel_diag.model.scenario import Disturbance, Expectation, ExpectedRootCause, Fault, Scenario
from pytest_otel_diag.model.session import (
    DisturbanceMoment,
    FlagMoment,
    Impact,
    ImpactReason,
    PhaseRecord,
    SessionWindows,
    Witness,
)
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.reports.attachments import attachments
from pytest_otel_diag.reports.pictures import gantt, graph, pictures, timeline
from pytest_otel_diag.reports.pictures.gantt import rows
from pytest_otel_diag.reports.pictures.intervals import off_ns
from pytest_otel_diag.reports.pictures.layers import layout
from pytest_otel_diag.reports.pictures.svg import Picture, label, num, shape, wide
from tests.reports.documents import BROKEN, NASTY
from tests.scoring.samples import SECOND, cause, control, faulty, session, solved

SVG = "{http://www.w3.org/2000/svg}"
START = 1_700_000_000 * SECOND

names = st.one_of(
    st.sampled_from(
        ["cart", "checkout", "payment", "frontend", "a" * 90, NASTY, BROKEN, "支払いサービス", "\ufffe"]
    ),
    st.text(max_size=30),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.one_of(st.integers(0, 1000), st.integers(0, 2**62))
loads = st.one_of(
    st.none(), st.builds(CallLoad, calls=counts, errors=counts, p50_ms=st.one_of(st.floats(0, 1e5), finite))
)


@st.composite
def timelines(draw):
    buckets = draw(st.integers(1, 20))

    def series(name):
        column = st.lists(counts, min_size=buckets, max_size=buckets)
        p95 = st.lists(st.one_of(st.none(), st.floats(0, 1e4), finite), min_size=buckets, max_size=buckets)
        return ServiceSeries(
            service=name,
            requests=tuple(draw(column)),
            errors=tuple(draw(column)),
            p95_ms=tuple(draw(p95)),
        )

    services = tuple(map(series, draw(st.lists(names, max_size=6, unique=True))))
    bucket_s = draw(st.sampled_from([0.5, 5.0, 3600.0]))
    return Timeline(
        start_ns=START,
        end_ns=START + draw(st.integers(0, round(buckets * bucket_s * 1e9))),
        bucket_s=bucket_s,
        services=services,
    )


@st.composite
def traces(draw):
    size = draw(st.integers(0, 15))
    interval = st.tuples(finite, finite)
    spans = tuple(
        ExhibitSpan(
            parent=draw(st.one_of(st.none(), st.integers(0, size - 1))),
            service=draw(names),
            operation=draw(names),
            kind=draw(st.sampled_from(["", "Server"])),
            start_ms=draw(st.one_of(st.floats(0, 1000), finite)),
            duration_ms=abs(draw(st.one_of(st.floats(0, 1000), finite))),
            error=draw(st.booleans()),
            on_path=draw(st.booleans()),
            critical=tuple(draw(st.lists(interval, max_size=2))),
        )
        for _ in range(size)
    )
    return ExemplarTrace(
        trace_id=draw(names), start_ns=START, choice=draw(names), spans_total=90, spans=spans
    )


exhibits = st.builds(
    Exhibits,
    timeline=st.one_of(st.none(), timelines()),
    calls=st.lists(
        st.builds(ServiceCall, caller=names, callee=names, baseline=loads, incident=loads), max_size=25
    ).map(tuple),
    baseline_s=st.sampled_from([0.0, 60.0]),
    incident_s=st.sampled_from([0.0, 60.0]),
    trace=st.one_of(st.none(), traces()),
    notes=st.lists(names, max_size=2).map(tuple),
)


@st.composite
def sessions(draw):
    """A session around the exhibits, with every kind of mark."""
    written = names.filter(lambda name: name and name.isprintable())  # what a scenario may name
    fault, other = draw(written), draw(written)
    scenario = Scenario(
        id="x",
        faults=(Fault(flag=fault, variant=other),) if draw(st.booleans()) else (),
        expectation=Expectation(
            root_causes=(ExpectedRootCause(service=draw(names)),), red_herrings=(draw(names),)
        ),
    )
    at = st.integers(START - 10**10, START + 10**11)
    begin, end = sorted((draw(at), draw(at)))
    windows = SessionWindows(
        baseline=draw(
            st.sampled_from([None, Window(start_ns=START, end_ns=begin if begin > START else START)])
        ),
        incident=draw(st.sampled_from([None, Window(start_ns=begin, end_ns=end)])),
    )
    return session(
        scenario,
        windows=windows,
        diagnosis=Diagnosis(detected=True, root_causes=(cause(draw(names)), cause(draw(names)))),
        impact=Impact(reason=ImpactReason.VISIBLE, time_to_impact_s=draw(st.one_of(st.none(), finite))),
        witnesses=(Witness(flag=fault, variant=other, reads=3, confirmed=True, at_ns=begin),),
        flag_timeline=tuple(
            FlagMoment(at_ns=when, flag=fault, variant=variant)
            for when, variant in draw(
                st.lists(st.tuples(at, st.sampled_from(["off", other, "2"])), max_size=6)
            )
        ),
        disturbances=(DisturbanceMoment(at_ns=begin, disturbance=Disturbance(kind="gc", service=other)),),
        phases=(PhaseRecord(phase="undo", start_ns=begin, end_ns=end, wall_s=0, outcome="ok"),),
        exhibits=draw(exhibits),
    )


def document(picture):
    return ET.fromstring(picture.document())


def absolute(path):
    """The points of a path that are given in absolute coordinates (relative ones are short strokes)."""
    return [(float(x), float(y)) for x, y in re.findall(r"(?:[MC ]|^)(-?[\d.]+),(-?[\d.]+)", path)]


def places(root):
    """Return the extreme coordinates of shapes and texts."""
    for node in root.iter():
        tag, at = node.tag.removeprefix(SVG), node.attrib
        if tag == "rect":
            x, y = float(at.get("x", 0)), float(at.get("y", 0))
            yield from ((x, y), (x + float(at["width"]), y + float(at["height"])))
        elif tag == "circle":
            yield float(at["cx"]), float(at["cy"])
        elif tag == "path":
            yield from absolute(at["d"])
        elif tag == "text":
            x, length = float(at["x"]), 0.9 * wide("".join(node.itertext()))
            left = {"start": x, "middle": x - length / 2, "end": x - length}[at.get("text-anchor", "start")]
            yield from ((left, float(at["y"])), (left + length, float(at["y"])))


def check(picture):
    source = picture.document()
    root = document(picture)
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title").text.startswith(picture.name)
    numbers = " ".join(v for n in root.iter() for k, v in n.attrib.items() if k not in {"class", "role"})
    assert not re.search(r"\b(?:nan|inf|None)\b", numbers)
    assert not re.search(r"<script|href|url\(|https?://(?!www\.w3\.org/2000/svg)", source)
    _, _, width, height = map(float, root.get("viewBox").split())
    shift = 0.0
    for group in root.iter(f"{SVG}g"):
        found = re.fullmatch(r"translate\(0 ([\d.]+)\)", group.get("transform", ""))
        if found:
            shift = float(found[1])
            assert all(-1 <= x <= width + 1 and y + shift <= height + 1 for x, y in places(group))
            group.clear()
    outside = [(x, y) for x, y in places(root) if not (-1 <= x <= width + 1 and -1 <= y <= height + 1)]
    assert not outside


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example is large: shrinking takes minutes
)
@given(sessions())
def test_pictures_of_any_session_are_valid(one):
    for picture in pictures(one):
        check(picture)
    again = [picture.document() for picture in pictures(one)]
    assert again == [picture.document() for picture in pictures(one)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=60),
    st.lists(st.integers(0, 24), max_size=4),
)
def test_nodes_of_any_graph_do_not_overlap_and_calls_run_between_them(pairs, expected):
    calls = tuple(
        ServiceCall(caller=f"service-{a}", callee=f"service-{b}", incident=CallLoad(calls=9, errors=0))
        for a, b in dict.fromkeys(pairs)
    )
    one = solved("a", exhibits=Exhibits(calls=calls))
    culprits = tuple(ExpectedRootCause(service=f"service-{n}") for n in expected)
    scenario = one.scenario.model_copy(update={"expectation": Expectation(root_causes=culprits)})
    picture = graph(one.model_copy(update={"scenario": scenario}))
    if not calls:
        assert picture is None
        return
    boxes = [
        tuple(float(node.get(key)) for key in ("x", "y", "width", "height"))
        for node in document(picture).iter(f"{SVG}rect")
        if "od-node" in node.get("class", "")
    ]
    drawn = {f"service-{n}" for pair in pairs for n in pair} | {f"service-{n}" for n in expected}
    assert len(boxes) == len(drawn | {c.service for c in one.diagnosis.root_causes[:3]})
    for index, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[index + 1 :]:
            assert x + w < x2 or x2 + w2 < x or y + h < y2 or y2 + h2 < y


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=30))
def test_a_layout_has_every_node_once_and_routes_pass_layer_by_layer(edges):
    nodes = set("abc") | {name for edge in edges for name in edge}
    plan = layout(nodes, edges)
    slots = [slot for layer in plan.layers for slot in layer]
    assert sorted(slot for slot in slots if isinstance(slot, str)) == sorted(nodes)
    assert len(set(slots)) == len(slots)
    level = {slot: index for index, layer in enumerate(plan.layers) for slot in layer}
    assert set(plan.routes) == {(a, b) for a, b in edges if a != b}
    for (caller, callee), route in plan.routes.items():
        assert (route[0], route[-1]) == (caller, callee)
        steps = {level[two] - level[one] for one, two in pairwise(route)}
        assert steps in ({1}, {-1})
    assert layout(nodes, reversed(edges)) == plan


def test_a_layout_without_cycles_runs_from_left_to_right():
    plan = layout("abcd", [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")])
    assert plan.layers[0] == ("a",)
    assert plan.routes["a", "c"] == ("a", ("a", "c", 1), "c")
    assert plan.layers[3] == ("d",)


@given(st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 11)), st.floats(0, 9)), max_size=12))
def test_gantt_rows_have_every_span_once_parents_first(shape_of):
    spans = [
        ExhibitSpan(
            parent=parent if parent is not None and parent < len(shape_of) else None,
            service="s",
            operation="o",
            start_ms=start,
            duration_ms=1,
        )
        for parent, start in shape_of
    ]
    found = rows(spans)
    assert sorted(index for index, _ in found) == list(range(len(spans)))
    place = {index: number for number, (index, _) in enumerate(found)}
    for index, depth in found:
        parent = spans[index].parent
        if depth > 0:
            assert place[parent] < place[index]
            assert dict(found)[parent] == depth - 1


def words_of(picture):
    return [node.text or "" for node in document(picture).iter(f"{SVG}text")]


def tips(picture):
    return " | ".join(node.text or "" for node in document(picture).iter(f"{SVG}title"))


def sample(**fields):
    """A payment failure with its exhibits."""
    healthy = tuple([10] * 20)
    line = ServiceSeries(
        service="payment", requests=healthy, errors=tuple([0] * 10 + [5] * 10), p95_ms=tuple([20.0] * 20)
    )
    calls = (
        ServiceCall(
            caller="frontend",
            callee="checkout",
            baseline=CallLoad(calls=100, errors=0, p50_ms=10),
            incident=CallLoad(calls=100, errors=0, p50_ms=40),
        ),
        ServiceCall(
            caller="checkout",
            callee="payment",
            baseline=CallLoad(calls=100, errors=0, p50_ms=5),
            incident=CallLoad(calls=100, errors=50, p50_ms=5),
        ),
        ServiceCall(caller="checkout", callee="email", baseline=CallLoad(calls=100, errors=0)),
        ServiceCall(caller="checkout", callee="kafka", incident=CallLoad(calls=3, errors=0)),
    )
    spans = (
        ExhibitSpan(
            service="checkout",
            operation="oteldemo.CheckoutService/PlaceOrder",
            start_ms=0,
            duration_ms=100,
            self_ms=60,
            on_path=True,
            critical=((0, 10), (50, 100)),
        ),
        ExhibitSpan(
            parent=0,
            service="payment",
            operation="POST /charge",
            kind="Server",
            start_ms=10,
            duration_ms=40,
            self_ms=40,
            on_path=True,
            critical=((10, 50),),
            error=True,
        ),
    )
    end = START + 100 * SECOND
    kept = Exhibits(
        timeline=Timeline(start_ns=START, end_ns=end, bucket_s=5, services=(line,)),
        calls=calls,
        baseline_s=50,
        incident_s=50,
        trace=ExemplarTrace(
            trace_id="abc", start_ns=START, choice="failed charge", spans_total=9, spans=spans
        ),
    )
    incident = Window(start_ns=START + 50 * SECOND, end_ns=end)
    return solved(
        "a",
        exhibits=kept,
        windows=SessionWindows(
            baseline=Window(start_ns=START, end_ns=START + 40 * SECOND), incident=incident
        ),
        impact=Impact(reason=ImpactReason.VISIBLE, time_to_impact_s=12.4),
        witnesses=(
            Witness(flag="paymentFailure", variant="50%", reads=3, confirmed=True, at_ns=incident.start_ns),
        ),
        phases=(
            PhaseRecord(
                phase="undo", start_ns=end - 9 * SECOND, end_ns=end - 9 * SECOND, wall_s=0.1, outcome="ok"
            ),
        ),
        **fields,
    )


@pytest.mark.parametrize(
    ("moments", "off_s"),
    [
        ([(0, "off"), (50, "50%"), (80, "off"), (95, "off")], 80),  # by its schedule, before the undo
        ([(0, "off"), (50, "50%"), (60, "off"), (70, "50%"), (91, "off")], 91),
        ([(0, "off"), (50, "50%")], None),  # left on
        ([(0, "off")], 91),  # nothing known of its course
    ],
)
def test_a_fault_ends_when_it_was_served_off(moments, off_s):
    timeline_ = tuple(
        FlagMoment(at_ns=START + at * SECOND, flag="paymentFailure", variant=variant)
        for at, variant in moments
    )
    session = sample(flag_timeline=timeline_)
    (undo,) = session.phases
    found = off_ns(session)
    if len(moments) == 1:
        assert found == undo.end_ns
    else:
        assert found == (None if off_s is None else START + off_s * SECOND)


def test_the_timeline_marks_faults_changes_and_impact():
    said = words_of(timeline(sample()))
    for expected in (
        "▼ fault on",
        "▲ fault off",
        "◆ impact seen +12 s",
        "baseline",
        "incident",
        "paymentFailure = 50%",
        "payment (★ expected, named #1)",
        "requests, /s",
        "errors, %",
        "p95, ms",
    ):
        assert expected in said, expected
    assert any(word.startswith("seconds from the fault, 2023-11-14") for word in said)


def test_the_timeline_follows_the_course_of_a_flag():
    course = tuple(
        FlagMoment(at_ns=START + at * SECOND, flag="paymentFailure", variant=variant)
        for at, variant in ((0, "off"), (50, "10%"), (60, "50%"), (70, "off"), (80, "10%"))
    )
    load = DisturbanceMoment(at_ns=START + 55 * SECOND, disturbance=Disturbance(kind="load", factor=2))
    drawn = tips(timeline(sample(flag_timeline=course, disturbances=(load,))))
    assert re.findall(r"paymentFailure = (\S+), \S+T22:\d\d:(\d\d)", drawn) == [
        ("10%", "10"),
        ("50%", "20"),
        ("10%", "40"),
    ]
    assert "load × 2, " in drawn


def test_a_control_has_a_judged_window_and_no_fault():
    one = control("quiet", exhibits=sample().exhibits, windows=sample().windows)
    said = words_of(timeline(one))
    assert "judged window" in said
    assert not any("fault" in word for word in said)


def test_the_scale_does_not_hide_a_small_service():
    few = ServiceSeries(service="few", requests=(1,) * 4, errors=(0,) * 4, p95_ms=(None,) * 4)
    many = ServiceSeries(service="many", requests=(1000,) * 4, errors=(0,) * 4, p95_ms=(None,) * 4)
    kept = Exhibits(
        timeline=Timeline(start_ns=START, end_ns=START + 20 * SECOND, bucket_s=5, services=(few, many))
    )
    said = words_of(timeline(solved("a", exhibits=kept)))
    assert "requests, /s, logarithmic" in said
    assert "0.1" in said
    assert "1000" in said


def test_the_graph_shows_roles_and_changes_of_calls():
    one = sample()
    drawn = graph(one)
    said, shown = words_of(drawn), tips(drawn)
    assert "★ expected, named #1" in said
    assert {"50% fail", "×4", "no calls", "new"} <= set(said)
    assert "checkout → payment; before: 100 calls, 2/s, 0.0% failed, p50 5 ms; incident: 100 calls" in shown
    assert "before: no calls" in shown
    kinds = [node.get("class", "") for node in document(drawn).iter()]
    for kind in ("od-n-hit", "od-e-bad", "od-e-slow", "od-e-gone", "od-e-new", "od-n-named"):
        assert any(kind in found for found in kinds), kind


def test_wrong_names_expected_ones_and_red_herrings_look_different():
    scenario = faulty("a", "email", red_herrings=("kafka",))
    one = sample().model_copy(update={"scenario": scenario})
    kinds = [node.get("class", "") for node in document(graph(one)).iter(f"{SVG}rect")]
    assert {"od-node od-n-expected", "od-node od-n-named", "od-node od-n-herring"} <= set(kinds)
    assert {"★ expected", "named #1", "red herring"} <= set(words_of(graph(one)))


def test_a_large_system_shows_the_relevant_services():
    calls = tuple(
        ServiceCall(caller=f"s{i}", callee=f"s{i + 1}", incident=CallLoad(calls=100 - i, errors=0))
        for i in range(80)
    )
    one = solved("a", exhibits=Exhibits(calls=calls))
    scenario = faulty("a", "s79")
    drawn = graph(one.model_copy(update={"scenario": scenario}))
    said = words_of(drawn)
    assert "s79" in said
    assert "and 31 services more, not shown" in said
    check(drawn)


def test_the_trace_shows_time_path_and_errors():
    drawn = gantt(sample())
    said, shown = words_of(drawn), tips(drawn)
    assert "checkout · PlaceOrder" in said
    assert "★ payment · POST /charge" in said
    assert "100 ms (self 60 ms)" in said
    assert "◆✕" in said
    assert any("2 of 9 spans" in word for word in said)
    assert "checkout · oteldemo.CheckoutService/PlaceOrder, named #3, on the critical path" in shown
    assert "payment · POST /charge, Server, ★ expected, named #1, failed, on the critical path" in shown
    bars = [node for node in document(drawn).iter(f"{SVG}rect") if node.get("height") == "12"]
    assert len(bars) == 3  # the intervals in which own time decides


def test_many_services_share_the_last_colour():
    spans = tuple(
        ExhibitSpan(service=f"s{i}", operation="o", start_ms=i, duration_ms=1500) for i in range(11)
    )
    trace = ExemplarTrace(trace_id="t", start_ns=START, spans_total=11, spans=spans)
    said = words_of(gantt(solved("a", exhibits=Exhibits(trace=trace))))
    assert "5 others" in said
    assert "1.5 s (self 0)" in said


@pytest.mark.parametrize(
    "kept", [None, Exhibits(), Exhibits(timeline=Timeline(start_ns=1, end_ns=1, bucket_s=1))]
)
def test_sessions_without_exhibits_have_no_pictures(kept):
    assert pictures(solved("a", exhibits=kept)) == ()


def test_attachments_are_self_contained_and_named():
    found = attachments(sample(trace="Traceback (most recent call last)\n"))
    assert [one.name for one in found] == [
        "timeline",
        "expected and found",
        "service graph",
        "critical path",
        "injected and witnessed",
        "phases",
        "traceback of the analyzer",
    ]
    for one in found:
        one.content.encode()
        if one.media_type == "image/svg+xml":
            assert "prefers-color-scheme: dark" in ET.fromstring(one.content).find(f"{SVG}style").text
    table = next(one for one in found if one.name == "injected and witnessed").content
    assert table.splitlines()[1].startswith("paymentFailure,50%,at once,3,")


def test_numbers_are_short_and_finite():
    assert [num(v) for v in (1.0, 1.26, -0.04, math.nan, math.inf, -math.inf)] == [
        "1",
        "1.3",
        "0",
        "0",
        "1000000",
        "-1000000",
    ]
    assert shape("a", "<", class_="x", stroke_width=2.0) == '<a class="x" stroke-width="2">&lt;</a>'
    assert label(1, 2, "&", anchor="end") == '<text x="1" y="2" text-anchor="end">&amp;</text>'
    assert Picture("n", "d", 10, 10, shape("g")).inline().startswith('<svg class="od-pic"')
