"""Flags in a file that only the tests watch."""

from itertools import count

from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.flags.surfaces.file import FileSurface
from pytest_otel_diag.model.flags import ServedFlag


class FileReader:
    """Evaluates the file itself, like a flagd that reads it for every request."""

    name = "the file"

    def __init__(self, path):
        self._path = path

    async def served(self, key, context):
        variant, value = FlagdDocument(self._path.read_bytes()).answer(key, context)
        return ServedFlag(key=key, variant=variant, value=value, at_ns=0)

    async def served_all(self, context):
        keys = FlagdDocument(self._path.read_bytes()).flags
        return {key: await self.served(key, context) for key in keys if key not in {"asleep", "broken"}}

    async def aclose(self):
        pass


def file_flags(path):
    ticks = count(1)
    return SurfaceFlags(FileSurface(path, settle_s=0.2), FileReader(path), now=lambda: next(ticks))


def folder_of(path):
    return sorted(entry.name for entry in path.parent.iterdir())


async def put(path, raw):
    surface = FileSurface(path)
    await surface.write(raw, expected=await surface.read())
