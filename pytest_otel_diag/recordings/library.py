"""Finds recordings under a path: our format, or an importable layout that is imported into a cache."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pytest_otel_diag.errors import RecordingError, nearest
from pytest_otel_diag.recordings.cases import CASES, is_cases_folder
from pytest_otel_diag.recordings.format.manifest import MANIFEST, Manifest
from pytest_otel_diag.recordings.format.reader import Recording, read_recording
from pytest_otel_diag.recordings.importer import content_key, import_cases
from pytest_otel_diag.recordings.lock import exclusive


def open_recording(path: Path, cache_dir: Path) -> Recording:
    """Return the recording in a folder, importing it into *cache_dir* when it is not in our format.

    The cache is keyed by the content of the folder, so an import happens once, and again when the
    imported copy was damaged. Raises RecordingError.
    """
    if (path / MANIFEST).is_file():
        return read_recording(path)
    if not is_cases_folder(path):
        raise RecordingError(f"{path} is no recording: it has neither {MANIFEST} nor {CASES}{_hint(path)}")
    key = content_key(path)
    imported = cache_dir / "recordings" / key[:32]
    with exclusive(cache_dir / "recordings" / f"{key[:32]}.lock"):
        recording = _intact(imported)
        if recording is None:
            _remove(imported)
            import_cases(path, imported)
    return recording or read_recording(imported)


def _intact(folder: Path) -> Recording | None:
    """Return the recording in a folder of the cache when every byte is the one that was written."""
    try:
        recording = read_recording(folder)
        recording.verify()
    except (RecordingError, OSError):
        return None
    return recording


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RecordingError(
            f"{folder} is a damaged copy and cannot be removed ({error.strerror}); remove it by hand, or "
            "give another folder with --otel-diag-cache"
        ) from error


def import_recording(source: Path, destination: Path) -> Manifest:
    """Write an importable folder as a recording at *destination*, which must not exist; return its manifest.

    Raises RecordingError naming what is wrong with the source.
    """
    if (source / MANIFEST).is_file():
        raise RecordingError(f"{source} is in our format already; use it, or copy it, as it is")
    if not is_cases_folder(source):
        raise RecordingError(f"{source} cannot be imported: it has no {CASES}{_hint(source)}")
    return import_cases(source, destination)


def find_recordings(path: Path) -> tuple[Path, ...]:
    """Return the folders with a recording: the path itself, or its sub-folders in order of name.

    Raises RecordingError when there is none, or the path does not exist.
    """
    if not path.is_dir():
        raise RecordingError(f"{path} is not a folder{_hint(path)}")
    if _is_recording(path):
        return (path,)
    # hidden folders are those of writers that were killed
    found = tuple(
        folder
        for folder in sorted(path.iterdir())
        if not folder.name.startswith(".") and folder.is_dir() and _is_recording(folder)
    )
    if not found:
        raise RecordingError(
            f"no recording in {path} or right below it: a recording is a folder with {MANIFEST} or {CASES}"
        )
    return found


def open_recordings(paths: Sequence[Path], cache_dir: Path) -> tuple[Recording, ...]:
    """Open every recording under the paths; the same content is opened once. Raises RecordingError."""
    opened = [open_recording(folder, cache_dir) for path in paths for folder in find_recordings(path)]
    return tuple({recording.sha256: recording for recording in opened}.values())


def _is_recording(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or is_cases_folder(folder)


def _hint(path: Path) -> str:
    """Return the way out: a folder beside *path* that holds a recording and is spelt alike, if any."""
    found = "" if path.exists() else nearest(path.name, _beside(path))
    return found or "; name a folder with a recording"


def _beside(path: Path) -> list[str]:
    try:
        return [sibling.name for sibling in path.parent.iterdir() if _is_recording(sibling)]
    except OSError:  # no such folder, or one that may not be listed
        return []
