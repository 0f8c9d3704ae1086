"""The tree of a SELECT as the engine's analyzer builds it, read from ``EXPLAIN QUERY TREE``.

``run_passes = 0`` shows the tree before names are resolved: nothing of the statement has been evaluated, and
every function, table and name that it can reach is there, also inside column transformers, lambdas, frames
and fillings. A line of an unknown shape refuses the statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pytest_otel_diag.errors import QueryRejected

_KINDS = (
    "QUERY|UNION|LIST|CONSTANT|FUNCTION|IDENTIFIER|MATCHER|LAMBDA|WINDOW|SORT|INTERPOLATE|JOIN|CROSS JOIN|"
    "CROSS_JOIN|ARRAY_JOIN|TABLE_FUNCTION|ARGUMENTS|ARGUMENT|APPLY COLUMN TRANSFORMER|"
    "REPLACE COLUMN TRANSFORMER|EXCEPT COLUMN TRANSFORMER"
)
_HEADINGS = (
    "WITH|PROJECTION|JOIN TREE|PREWHERE|WHERE|GROUP BY|HAVING|WINDOW|QUALIFY|ORDER BY|INTERPOLATE|"
    "LIMIT BY LIMIT|LIMIT BY OFFSET|LIMIT BY|LIMIT|OFFSET|ARGUMENTS|PARAMETERS|PARTITION BY|"
    "FRAME BEGIN OFFSET|FRAME END OFFSET|FILL FROM|FILL TO|FILL STEP|FILL STALENESS|INTERPOLATE_EXPRESSION|"
    "QUERIES|TABLE EXPRESSION|LEFT TABLE EXPRESSION|RIGHT TABLE EXPRESSION|JOIN EXPRESSIONS?|"
    r"REPLACEMENTS \d+"
)
_NODE = re.compile(rf"(?P<kind>{_KINDS}) id: (?P<id>\d+)(?:, (?P<rest>.*))?")
_HEADING = re.compile(rf"(?:{_HEADINGS}) ?|EXPRESSION(?: .*)?|REPLACEMENT NAME .* EXPRESSION")
_SETTINGS = re.compile(r"SETTINGS\b")
_CONSTANT = re.compile(
    r"(?:alias: (?P<alias>.*?), )?constant_value: (?P<constant_value>.*), constant_value_type: .*"
)
_ATTRIBUTE = re.compile(r"(?:^|, )(\w[\w ]*?) ?: ((?:(?!, \w[\w ]*: ).)*)")
_MARKS = re.compile(r", stream$")


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree: its kind, its attributes, and the heading under which its parent holds it."""

    kind: str
    attributes: dict[str, str] = field(default_factory=dict)
    heading: str = ""
    children: list[Node] = field(default_factory=list)

    def get(self, attribute: str) -> str:
        """Return an attribute, empty where the node has none."""
        return self.attributes.get(attribute, "")

    def walk(self) -> Iterator[Node]:
        """Yield the node and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def under(self, heading: str) -> list[Node]:
        """Return the members of the list that the node holds under the heading."""
        lists = [child for child in self.children if child.heading == heading]
        return [member for one in lists for member in one.children]


def parsed(lines: Sequence[str]) -> Node:
    """Return the root of a tree; raises QueryRejected for a line that is not understood."""
    root: Node | None = None
    path: list[tuple[int, Node | str]] = []
    for line in lines:
        text = line.lstrip(" ")
        if not text:
            continue
        depth = len(line) - len(text)
        while path and path[-1][0] >= depth:
            path.pop()
        entry = _entry(text, path)
        if isinstance(entry, Node):
            parent = next((one for _, one in reversed(path) if isinstance(one, Node)), None)
            if parent is not None:
                parent.children.append(entry)
            elif root is None:
                root = entry
            else:
                raise _not_understood(text)
        path.append((depth, entry))
    if root is None:
        raise _not_understood("an empty tree")
    return root


def _entry(text: str, path: Sequence[tuple[int, Node | str]]) -> Node | str:
    """Return a node, or a heading."""
    match = _NODE.fullmatch(text)
    if match:
        above = path[-1][1] if path else ""
        heading = above if isinstance(above, str) else ""
        return Node(match["kind"], _attributes(match["kind"], match["rest"] or ""), heading)
    if _SETTINGS.match(text):
        raise QueryRejected("SETTINGS are not allowed here; leave them out, limits come from QueryLimits")
    if _HEADING.fullmatch(text):
        return text.strip()
    raise _not_understood(text)


def _attributes(kind: str, rest: str) -> dict[str, str]:
    if kind == "CONSTANT":
        match = _CONSTANT.fullmatch(rest)
        if match is None:
            raise _not_understood(f"{kind} {rest}")
        return {name: value for name, value in match.groupdict().items() if value is not None}
    return dict(_ATTRIBUTE.findall(_MARKS.sub("", rest)))


def _not_understood(text: str) -> QueryRejected:
    return QueryRejected(
        f"the statement cannot be checked: {text[:120]!r} in its tree is not understood; write it in "
        "plain SELECTs"
    )
