"""Detects, counts and redacts telemetry that reveals which flag was on.

:mod:`pytest_otel_diag.telemetry.leaks` says what counts as one. Recordings keep these leaks by default, since
real systems emit them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_otel_diag import arrow
from pytest_otel_diag.recordings.format.nested import (
    any_in_row,
    edit_list,
    edit_values,
    inner,
    keep_items,
    keep_keys,
    offsets_from_zero,
    parts_of_map,
)
from pytest_otel_diag.telemetry.leaks import FLAG_KEYS, FLAG_NAMES, FLAG_SERVICES, MASK, TEXTS, flag_texts

_EVENTS = ("Events.Timestamp", "Events.Name", "Events.Attributes")


class Leaks:
    """Finds leaks of *flags* (keys as the system spells them) in record batches.

    ``counts`` is the number of rows by kind: ``flag_service`` (rows of flagd and of calls to it),
    ``flag_metrics``, ``flag_events`` (spans with such an event), ``flag_attributes`` and ``flag_texts`` (rows
    with such an attribute or text). A row may count for several kinds.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        self._text = flag_texts(flags)
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of rows by kind so far."""
        return dict(sorted(self._counts.items()))

    def count(self, batch: Any) -> None:
        """Count the leaks of one batch."""
        for kind, mask in (
            ("flag_service", self._of_service(batch)),
            ("flag_metrics", _matches(batch, "MetricName", FLAG_NAMES)),
            ("flag_events", _with_event(batch)),
            ("flag_attributes", _with_key(batch)),
            ("flag_texts", self._with_text(batch)),
        ):
            rows = arrow.compute().sum(mask).as_py() if mask is not None else 0
            if rows:
                self._counts[kind] += rows

    def redacted(self, batch: Any) -> Any:
        """Return the batch with leaking rows and attributes removed and texts masked, without counting."""
        pa, pc = arrow.arrow(), arrow.compute()
        gone = _either([self._of_service(batch), _matches(batch, "MetricName", FLAG_NAMES)])
        batch = batch.filter(pc.invert(gone)) if gone is not None else batch
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        events = _event_mask(columns.get("Events.Name"))
        for name, column in columns.items():
            kept = column
            if events is not None and name in _EVENTS:
                kept = keep_items(column, pc.invert(events))
            columns[name] = self._masked(name, kept)
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))

    def _of_service(self, batch: Any) -> Any | None:
        pa, pc = arrow.arrow(), arrow.compute()
        own = pc.is_in(batch.column("ServiceName"), value_set=pa.array(FLAG_SERVICES))
        calls = _matches(batch, "SpanName", FLAG_NAMES)
        return own if calls is None else pc.or_(own, calls)

    def _with_text(self, batch: Any) -> Any | None:
        pc = arrow.compute()
        found: list[Any | None] = [_matches(batch, name, self._text) for name in TEXTS]
        for column in _maps(batch):
            offsets, _, values = parts_of_map(column)
            found.append(any_in_row(offsets, pc.match_substring_regex(values, self._text)))
        return _either(found)

    def _masked(self, name: str, column: Any) -> Any:
        types = arrow.arrow().types
        if types.is_map(column.type):
            return edit_values(keep_keys(column, _other_keys), self._mask)
        if types.is_list(column.type) and types.is_map(column.type.value_type):
            return edit_list(column, lambda maps: edit_values(keep_keys(maps, _other_keys), self._mask))
        return self._mask(column) if name in TEXTS else column

    def _mask(self, texts: Any) -> Any:
        return arrow.compute().replace_substring_regex(texts, self._text, MASK)


def _maps(batch: Any) -> list[Any]:
    types = arrow.arrow().types
    return [column for column in batch.columns if types.is_map(column.type)]


def _matches(batch: Any, name: str, pattern: str) -> Any | None:
    index = batch.schema.get_field_index(name)
    return None if index < 0 else arrow.compute().match_substring_regex(batch.column(index), pattern)


def _event_mask(names: Any | None) -> Any | None:
    return None if names is None else arrow.compute().match_substring_regex(inner(names), FLAG_KEYS)


def _with_event(batch: Any) -> Any | None:
    index = batch.schema.get_field_index("Events.Name")
    if index < 0:
        return None
    column = batch.column(index)
    return any_in_row(offsets_from_zero(column), _event_mask(column))


def _with_key(batch: Any) -> Any | None:
    pc = arrow.compute()
    found = []
    for column in _maps(batch):
        offsets, keys, _ = parts_of_map(column)
        found.append(any_in_row(offsets, pc.match_substring_regex(keys, FLAG_KEYS)))
    return _either(found)


def _either(masks: Sequence[Any | None]) -> Any | None:
    result = None
    for mask in masks:
        if mask is not None:
            result = mask if result is None else arrow.compute().or_(result, mask)
    return result


def _other_keys(keys: Any) -> Any:
    pc = arrow.compute()
    return pc.invert(pc.match_substring_regex(keys, FLAG_KEYS))
