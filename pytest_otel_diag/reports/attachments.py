"""Attachments of a session for other reports such as Allure: pictures, tables, the query."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.reports.blocks import Block
from pytest_otel_diag.reports.pictures import pictures
from pytest_otel_diag.reports.session_tables import (
    evidence,
    expected_and_found,
    injected,
    phases,
    query_answer,
)
from pytest_otel_diag.reports.transcript_page import transcript_text
from pytest_otel_diag.scoring.text import visible

SVG = "image/svg+xml"
TEXT = "text/plain"
CSV = "text/csv"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Attachment:
    """One file: its display name, media type and content."""

    name: str
    media_type: str
    content: str


def attachments(result: SessionResult, transcript: Sequence[TranscriptEntry] = ()) -> tuple[Attachment, ...]:
    """Return the attachments that the session has, most important first.

    Pictures are self-contained SVG documents, tables are CSV with a header, the rest is text.
    """
    found = [Attachment(picture.name, SVG, picture.document()) for picture in pictures(result)]
    tables = (expected_and_found(result), evidence(result), injected(result), phases(result))
    found[1:1] = [Attachment(table.title, CSV, _csv(table)) for table in tables[:1] if table.rows]
    found += [Attachment(table.title, CSV, _csv(table)) for table in tables[1:] if table.rows]
    if result.diagnosis is not None and result.diagnosis.query is not None:
        answer = query_answer(result)
        notes = "".join(f"\n-- {note}" for note in answer.notes)
        found.append(Attachment("diagnostic query", TEXT, f"{result.diagnosis.query.sql}{notes}\n"))
        if answer.rows:
            found.append(Attachment("result of the diagnostic query", CSV, _csv(answer)))
    if result.trace:
        found.append(Attachment("traceback of the analyzer", TEXT, result.trace))
    if transcript:
        found.append(Attachment("transcript", TEXT, transcript_text(transcript)))
    return tuple(replace(one, content=visible(one.content)) for one in found)


def _csv(table: Block) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([_cell(text) for text in row] for row in table.rows)
    return stream.getvalue()


def _cell(text: str) -> str:
    """Return the text of a cell that no spreadsheet takes for a formula."""
    formula = text[:1] in ("=", "+", "-", "@", "\t", "\r") and _NUMBER.fullmatch(text) is None
    return f"'{text}" if formula else text
