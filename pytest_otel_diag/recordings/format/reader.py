"""Reads a recording: manifest with migrations, checksums, files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.files import read_regular
from pytest_otel_diag.recordings.format.layout import BY_NAME
from pytest_otel_diag.recordings.format.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    RecordedFile,
    RecordingManifest,
)
from pytest_otel_diag.recordings.format.writer import sha256_of

Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

_LONGEST_BYTES = 64 * 1024 * 1024
MIGRATIONS: Mapping[int, Migration] = {}
"""Schema version → function that migrates a document to the next version; version 1 is the first."""


@dataclass(frozen=True)
class Recording:
    """A recording on disk; ``sha256`` identifies the manifest and, through it, all files."""

    folder: Path
    manifest: RecordingManifest
    sha256: str

    def path(self, file: RecordedFile) -> Path:
        """Return the path of a file."""
        return self.folder / file.name

    def verify(self) -> None:
        """Check all files; raises RecordingError for the first that is missing or changed."""
        for file in self.manifest.files:
            path = self.path(file)
            if not path.is_file():
                raise RecordingError(f"{path} is missing; the recording is incomplete, copy it again")
            found = sha256_of(path)
            if found != file.sha256:
                raise RecordingError(
                    f"{path} has SHA-256 {found}, {MANIFEST} says {file.sha256}; "
                    "the file was changed or damaged, copy the recording again"
                )


def read_recording(folder: Path) -> Recording:
    """Read ``recording.json`` of a folder; raises RecordingError that names the invalid field."""
    path = folder / MANIFEST
    try:
        raw = read_regular(path, limit_bytes=_LONGEST_BYTES, follow=True)
    except OSError as error:
        raise RecordingError(
            f"{path} cannot be read ({error.strerror}); a recording is a folder with {MANIFEST}"
        ) from error
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path} is not JSON ({error}); copy the recording again") from error
    if not isinstance(document, dict):
        raise RecordingError(f"{path} holds a {type(document).__name__}, must be an object")
    try:
        manifest = RecordingManifest.model_validate_json(json.dumps(migrate(document, str(path))))
    except ValidationError as error:
        raise RecordingError(f"{path}: {_mistakes(error)}") from error
    except (RecursionError, OverflowError) as error:
        raise RecordingError(f"{path} holds values beyond all bounds ({error}); copy it again") from error
    foreign = [file.name for file in manifest.files if file.name not in BY_NAME]
    if foreign:
        raise RecordingError(f"{path} lists {', '.join(foreign)}; choose from {', '.join(BY_NAME)}")
    return Recording(folder, manifest, hashlib.sha256(raw).hexdigest())


def migrate(
    document: dict[str, Any],
    where: str,
    *,
    newest: int = SCHEMA_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> dict[str, Any]:
    """Migrate the document to the newest schema version; raises RecordingError for an unknown version."""
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RecordingError(
            f"{where}: schema_version is {version!r}, must be a whole number from 1 to {newest}"
        )
    if version > newest:
        raise RecordingError(
            f"{where}: schema_version {version} is newer than {newest}, the newest this release reads; "
            "upgrade pytest-otel-diag"
        )
    for step in range(version, newest):
        document = migrations[step](document)
    return document


def _mistakes(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg']}"
        for item in error.errors()
    )
