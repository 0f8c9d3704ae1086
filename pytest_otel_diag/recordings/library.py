"""Finds recordings below a path and opens them; folders of the importable layout are imported first."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pytest_otel_diag.errors import RecordingError, nearest
from pytest_otel_diag.recordings.format.manifest import MANIFEST, RecordingManifest
from pytest_otel_diag.recordings.format.reader import Recording, read_recording
from pytest_otel_diag.recordings.importer import content_key, import_cases
from pytest_otel_diag.recordings.labelled_cases import CASES, is_cases_folder
from pytest_otel_diag.recordings.lock import exclusive


def open_recording(path: Path, cache_dir: Path) -> Recording:
    """Open the recording in a folder; the importable layout is imported into *cache_dir* first.

    The cache is keyed by the content of the folder, so an import runs once, and again when the imported copy
    is damaged. Raises RecordingError.
    """
    if (path / MANIFEST).is_file():
        return read_recording(path)
    if not is_cases_folder(path):
        raise RecordingError(f"{path} is not a recording: it has neither {MANIFEST} nor {CASES}{_hint(path)}")
    key = content_key(path)
    imported = cache_dir / "recordings" / key[:32]
    with exclusive(cache_dir / "recordings" / f"{key[:32]}.lock"):
        recording = _intact(imported)
        if recording is None:
            _remove(imported)
            import_cases(path, imported)
    return recording or read_recording(imported)


def _intact(folder: Path) -> Recording | None:
    """Return the cached recording if all checksums match, else None."""
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


def import_recording(source: Path, destination: Path) -> RecordingManifest:
    """Import a folder as a recording at *destination*, which must not exist; return its manifest.

    Raises RecordingError that says what is wrong with the source.
    """
    if (source / MANIFEST).is_file():
        raise RecordingError(f"{source} is a recording already; use or copy it unchanged")
    if not is_cases_folder(source):
        raise RecordingError(f"{source} cannot be imported: it has no {CASES}{_hint(source)}")
    return import_cases(source, destination)


def find_recordings(path: Path) -> tuple[Path, ...]:
    """Return the folders with a recording: the path itself, or its subfolders sorted by name.

    Raises RecordingError when the path does not exist or has no recording.
    """
    if not path.is_dir():
        raise RecordingError(f"{path} is not a folder{_hint(path)}")
    if _is_recording(path):
        return (path,)
    # killed writers leave hidden folders
    found = tuple(
        folder
        for folder in sorted(path.iterdir())
        if not folder.name.startswith(".") and folder.is_dir() and _is_recording(folder)
    )
    if not found:
        raise RecordingError(
            f"no recording in {path} or directly below it; a recording is a folder with {MANIFEST} or {CASES}"
        )
    return found


def open_recordings(paths: Sequence[Path], cache_dir: Path) -> tuple[Recording, ...]:
    """Open every recording below the paths, equal content once; raises RecordingError."""
    opened = [open_recording(folder, cache_dir) for path in paths for folder in find_recordings(path)]
    return tuple({recording.sha256: recording for recording in opened}.values())


def _is_recording(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or is_cases_folder(folder)


def _hint(path: Path) -> str:
    """Return what to do: the recording beside *path* with the nearest spelling, if any."""
    found = "" if path.exists() else nearest(path.name, _beside(path))
    return found or "; name a folder with a recording"


def _beside(path: Path) -> list[str]:
    try:
        return [sibling.name for sibling in path.parent.iterdir() if _is_recording(sibling)]
    except OSError:  # missing or not readable
        return []
