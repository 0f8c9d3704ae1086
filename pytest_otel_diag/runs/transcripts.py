"""``<run>/transcripts/<session_id>.jsonl``: what analyzers did, one entry a line, as it happens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.runs.files import LineAppender

FOLDER = "transcripts"
"""Folder of a run with one file for each session that has a transcript."""


def transcript_file(run: Path, session_id: str) -> Path:
    """Return where the transcript of a session is, if it has one."""
    return run / FOLDER / f"{session_id}.jsonl"


@dataclass(frozen=True)
class TranscriptFolder:
    """Appends the transcripts of sessions in the folder *run*; every process of the run may."""

    run: Path

    def __call__(self, session_id: str, entry: TranscriptEntry) -> None:
        """Append one entry: it survives the death of this process once this returns. Raises OSError."""
        file = transcript_file(self.run, session_id)
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = LineAppender(file)
        try:
            lines.append(entry)
        finally:
            lines.close()


def read_transcript(run: Path, session_id: str) -> tuple[TranscriptEntry, ...]:
    """Return the transcript of a session; empty for one without.

    Lines that are no entry are left out, such as one torn by the death of its process.
    """
    try:
        # Split at \n alone: JSON may hold other line separators (U+2028) inside of strings.
        lines = transcript_file(run, session_id).read_bytes().split(b"\n")
    except OSError:
        return ()
    return tuple(entry for line in lines if line.strip() and (entry := _parsed(line)) is not None)


def _parsed(line: bytes) -> TranscriptEntry | None:
    try:
        return TranscriptEntry.model_validate(json.loads(line))
    except ValueError:
        return None
