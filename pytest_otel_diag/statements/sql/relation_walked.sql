-- Relation `walked`: `placed` with the critical path of every root (Zhang et al., CRISP, USENIX ATC 2022).
-- A span counts only inside the intervals of all its ancestors (lefts, rights: that is where clock
-- skew ends up). The walk goes backwards from the end of a span: the child that ends last at or before
-- the cursor is on the path and the cursor moves to its start; ties go to the longer child. What no
-- chosen child covers is the span's own. Spans on a cycle of parents have no root and are on no path.
-- chosen: indices on the path, without roots, by (parent, time downwards); cursors: where each was met.
-- Ancestors are reached by doubling, so `steps` is the logarithm of the number of spans. Every step is a
-- separate subquery because the engine copies an alias into each of its uses.
SELECT
    *,
    arrayFilter((i, cursor) -> cursor >= 0 AND on_path[i] = 1, walk, met) AS chosen,
    arrayFilter((cursor, i) -> cursor >= 0 AND on_path[i] = 1, met, walk) AS cursors
FROM
(
    SELECT
        * EXCEPT (steps, ups, taken),
        arrayMap((on, top) -> toUInt8(on AND parents[top] = 0), arrayFold((acc, step) -> (
            arrayMap(i -> acc.1[i], acc.1),
            arrayMap((on, i) -> toUInt8(on AND acc.2[i]), acc.2, acc.1)
        ), steps, (ups, taken)).2, tops) AS on_path
    FROM
    (
        SELECT
            *,
            arrayMap(x -> x.2, arraySort(arrayConcat(
                arrayMap((i, cursor) -> (i, toUInt8(cursor >= 0)), walk, met),
                arrayMap((i, p) -> (i, toUInt8(p = 0)),
                    arrayFilter((i, p, s, e) -> p = 0 OR e <= s, arrayEnumerate(parents), parents, lefts, rights),
                    arrayFilter((p, s, e) -> p = 0 OR e <= s, parents, lefts, rights))
            ))) AS taken
        FROM
        (
            SELECT
                * EXCEPT (walking),
                walking.4 AS walk,
                arrayFold((acc, p, e, s, last) -> (
                    p,
                    if(-e <= if(p = acc.1, acc.2, last), s, if(p = acc.1, acc.2, last)),
                    arrayPushBack(acc.3, if(-e <= if(p = acc.1, acc.2, last), if(p = acc.1, acc.2, last), -1))
                ), walking.1, walking.2, walking.3, arrayMap(p -> rights[p], walking.1),
                    (toUInt64(0), toInt64(0), emptyArrayInt64())).3 AS met
            FROM
            (
                SELECT
                    * EXCEPT (clipped),
                    clipped.1 AS tops,
                    clipped.2 AS lefts,
                    clipped.3 AS rights,
                    arraySort(arrayFilter(x -> x.1 > 0 AND -x.2 > x.3, arrayMap((p, s, e, i) -> (p, -e, s, i),
                        parents, clipped.2, clipped.3, arrayEnumerate(parents)))) AS walking
                FROM
                (
                    SELECT
                        *,
                        arrayFold((acc, step) -> (
                            arrayMap(i -> acc.1[i], acc.1),
                            arrayMap((s, i) -> greatest(s, acc.2[i]), acc.2, acc.1),
                            arrayMap((e, i) -> least(e, acc.3[i]), acc.3, acc.1)
                        ), steps, (ups, starts, ends)) AS clipped
                    FROM
                    (
                        SELECT
                            *,
                            range(toUInt8(ceil(log2(length(ids) + 1)))) AS steps,
                            arrayMap((p, i) -> if(p = 0, i, p), parents, arrayEnumerate(parents)) AS ups
                        FROM placed
                    )
                )
            )
        )
    )
)
