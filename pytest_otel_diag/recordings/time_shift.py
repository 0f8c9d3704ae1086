"""Shifts a recording in time by one constant.

Spans with their events, logs, metric points with their start times and exemplars, and all instants of the
manifest shift by the same number of nanoseconds; distances, order and durations are unchanged. The shift is a
whole number of seconds, since releases of the exporter store metric times in whole seconds. Ids, links, and
times in texts and attributes of applications are unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pytest_otel_diag import arrow
from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, iso
from pytest_otel_diag.recordings.format.manifest import RecordingManifest
from pytest_otel_diag.recordings.format.nested import edit_list

ANONYMOUS_NS: Nanos = 946_684_800 * NANOS_PER_SECOND
"""Start of recordings with anonymised times: 2000-01-01T00:00:00Z."""

_FIRST_NS = 0
_LAST_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Shift:
    """The wanted start of a recording; with ``secret`` its notes do not state the distance."""

    wanted_ns: Nanos
    secret: bool = False


def instant_of(text: str) -> Nanos:
    """Return the instant of an ISO 8601 text, UTC by default; raises RecordingError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecordingError(
            f"{text!r} is not an instant ({error}); write it as 2026-01-31T08:00:00Z"
        ) from error
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = aware - datetime.fromtimestamp(0, tz=UTC)
    return (since.days * 86_400 + since.seconds) * NANOS_PER_SECOND + since.microseconds * 1_000


def step_to(start_ns: Nanos, wanted_ns: Nanos) -> int:
    """Return the shift from *start_ns* to *wanted_ns* in nanoseconds, a multiple of a second."""
    return (wanted_ns // NANOS_PER_SECOND - start_ns // NANOS_PER_SECOND) * NANOS_PER_SECOND


def shifted_batch(batch: Any, step_ns: int) -> Any:
    """Return the record batch with all timestamps, also within lists, shifted by *step_ns*.

    A time of 0 means "not set" in OpenTelemetry and is unchanged. Raises RecordingError for times outside the
    years 1970 to 2262.
    """
    pa = arrow.arrow()
    if not step_ns:
        return batch
    columns = [_shifted(column, step_ns) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _shifted(column: Any, step_ns: int) -> Any:
    types = arrow.arrow().types
    if types.is_timestamp(column.type):
        return _moved(column, step_ns)
    if types.is_list(column.type) and types.is_timestamp(column.type.value_type):
        return edit_list(column, lambda values: _moved(values, step_ns))
    return column


def _moved(column: Any, step_ns: int) -> Any:
    pa, pc = arrow.arrow(), arrow.compute()
    exact = pa.timestamp("ns", column.type.tz)
    ticks = column.cast(exact).cast(pa.int64())
    unset = pc.equal(ticks, pa.scalar(0, pa.int64()))
    try:
        later = pc.add_checked(ticks, pa.scalar(step_ns, pa.int64()))
    except (pa.ArrowInvalid, OverflowError) as error:
        raise _out_of_range(step_ns) from error
    least = pc.min(later).as_py()
    if least is not None and least < _FIRST_NS and pc.min(pc.if_else(unset, 0, later)).as_py() < _FIRST_NS:
        raise _out_of_range(step_ns)
    return pc.if_else(unset, ticks, later).cast(exact)


def _out_of_range(step_ns: int) -> RecordingError:
    return RecordingError(
        f"a shift by {step_ns / NANOS_PER_SECOND:.0f} s moves telemetry out of the years 1970 to 2262; "
        "choose an instant within them"
    )


def shifted_manifest(manifest: RecordingManifest, step_ns: int) -> RecordingManifest:
    """Return the manifest with all instants shifted; raises RecordingError outside 1970 to 2262."""
    dumped = manifest.model_dump()
    for name in ("start_ns", "end_ns"):
        moved = dumped[name] + step_ns
        if dumped[name] and not _FIRST_NS <= moved <= _LAST_NS:
            raise _out_of_range(step_ns)
    return RecordingManifest.model_validate(_instants(dumped, step_ns))


def _instants(value: Any, step_ns: int) -> Any:
    """Return the dumped value with all instants (integer fields named *_ns) shifted."""
    if isinstance(value, Mapping):
        return {
            name: inside + step_ns
            if str(name).endswith("_ns") and isinstance(inside, int)
            else _instants(inside, step_ns)
            for name, inside in value.items()
        }
    if isinstance(value, tuple | list):
        return tuple(_instants(inside, step_ns) for inside in value)
    return value


def note_of(step_ns: int, *, secret: bool) -> str:
    """Return the note of a shifted recording; with *secret* it does not state the distance."""
    if secret:
        return f"all times were shifted by one constant so that they start at {iso(ANONYMOUS_NS)}"
    return f"all times were shifted by {step_ns // NANOS_PER_SECOND} s"
