-- Relation `selves`: self time of every span, its duration without the union of its children (clipped to
-- it; asynchronous consumers are nobody's children). Every span is its own child of length nothing, so
-- that the groups of the sorted children are the spans in their order.
WITH
    arraySort(arrayConcat(
        arrayMap((s, i) -> (i, s, s), starts, arrayEnumerate(starts)),
        arrayFilter(x -> x.3 > x.2, arrayMap((p, s, e) -> (p, greatest(s, starts[p]), least(e, ends[p])),
            arrayFilter(p -> p > 0, parents),
            arrayFilter((s, p) -> p > 0, starts, parents),
            arrayFilter((e, p) -> p > 0, ends, parents)))
    )) AS children,
    arrayMap(x -> x.1, children) AS owners,
    arrayFilter((i, nth) -> nth = 1, arrayEnumerate(owners), arrayEnumerateUniq(owners)) AS firsts,
    arrayPushBack(arrayPopFront(firsts), length(owners) + 1) AS nexts
SELECT
    win,
    arrayJoin(arrayMap((service, operation, s, e, first, next) -> (service, operation,
        e - s - toInt64(arrayReduce('intervalLengthSum',
            arrayMap(x -> x.2, arraySlice(children, first, next - first)),
            arrayMap(x -> x.3, arraySlice(children, first, next - first))))
    ), services, operations, starts, ends, firsts, nexts)) AS own,
    own.1 AS service,
    own.2 AS operation,
    own.3 AS self_ns
FROM placed
