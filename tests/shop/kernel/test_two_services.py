"""The example: two services, their spans and logs."""

from __future__ import annotations

from tests.shop.kernel.tiny_world import START_NS, ask, run, two_services


def test_a_request_goes_through_both_services_and_leaves_linked_spans() -> None:
    made = two_services()
    replies = ask(made, 10, 0.5)
    run(made, 30)
    batch = made.recorder.take(made.now_ns, made.now_ns)

    assert replies == list(range(1, 11))
    assert made.counters.requests_begun == made.counters.requests_ended == 20
    assert len(batch.spans) == 40
    assert len(batch.logs) == 10
    spans = {span.span_id: span for span in batch.spans}
    for span in batch.spans:
        if span.parent_id:
            parent = spans[span.parent_id]
            assert parent.trace_id == span.trace_id
    chain = ["user", "front", "front", "back"]
    leaf = next(span for span in batch.spans if span.resource.service == "back")
    names = []
    while True:
        names.append(leaf.resource.service)
        if not leaf.parent_id:
            break
        leaf = spans[leaf.parent_id]
    assert names == chain[::-1]
    assert all(span.start_ns > START_NS - 10**8 for span in batch.spans)
