-- Relation `selves`: self time of every span, its duration without the union of its children (clipped to
-- it; asynchronous consumers have no parent here). Every span is its own child of length nothing, so
-- that the groups of the sorted children are the spans in their order.
SELECT win, own.1 AS service, own.2 AS operation, own.3 AS self_ns
FROM
(
    SELECT
        win,
        arrayJoin(arrayMap((service, operation, s, e, first, next) -> (service, operation,
            e - s - toInt64(arrayReduce('intervalLengthSum',
                arraySlice(children.2, first, next - first), arraySlice(children.3, first, next - first)))
        ), services, operations, starts, ends, firsts, arrayPushBack(arrayPopFront(firsts), length(children) + 1))) AS own
    FROM
    (
        SELECT
            win, services, operations, starts, ends, children,
            arrayFilter((i, nth) -> nth = 1, arrayEnumerate(children), arrayEnumerateUniq(children.1)) AS firsts
        FROM
        (
            SELECT
                win, services, operations, starts, ends,
                arraySort(arrayConcat(
                    arrayMap((s, i) -> (i, s, s), starts, arrayEnumerate(starts)),
                    arrayFilter(x -> x.3 > x.2, arrayMap((p, s, e) -> (p, greatest(s, starts[p]), least(e, ends[p])),
                        arrayFilter(p -> p > 0, parents),
                        arrayFilter((s, p) -> p > 0, starts, parents),
                        arrayFilter((e, p) -> p > 0, ends, parents)))
                )) AS children
            FROM placed
        )
    )
)
