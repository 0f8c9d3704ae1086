"""What tests of places of flags share: a document, fast patience, and flagd's answers through a gap."""

import asyncio
import json
from collections.abc import Mapping

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.flagd_document import FlagdDocument
from pytest_otel_diag.flags.keeping import Patience
from pytest_otel_diag.flags.surface import FlagReader
from pytest_otel_diag.model.flags import FlagValue, ServedFlag
from pytest_otel_diag.testing.flag_contract import Targeted

QUICK = Patience(tries=3, kept_s=0.4, poll_s=0.01)
FLAG = "paymentFailure"
TARGETED = Targeted("productCatalogFailure", {"product_id": "OLJCESPC7Z"}, {"product_id": "OTHER"})
SHARED = "dealtOut"


def document() -> bytes:
    """Return the demo's document with one more flag, whose rule deals its variants out."""
    body = json.loads(catalog.demo_document())
    body["flags"][SHARED] = {
        "state": "ENABLED",
        "variants": {"off": 0, "half": 0.5, "all": 1},
        "defaultVariant": "off",
        "targeting": {"fractional": [["off", 50], ["half", 30], ["all", 20]]},
    }
    return json.dumps(body, indent=2).encode()


def switched(raw: bytes, flag: str = FLAG, variant: str = "50%") -> bytes:
    """Return the document with one flag switched."""
    changed = FlagdDocument(raw)
    changed.change(flag, variant)
    return changed.raw


def variant(raw: bytes, flag: str = FLAG) -> str:
    """Return a flag's default variant in the document."""
    return FlagdDocument(raw).flags[flag].default_variant


class ThroughGaps:
    """A reader that asks again for a moment when a flag is gone.

    Some generations of flagd-ui write in place, and flagd may read the file while it is empty.
    """

    def __init__(self, reader: FlagReader, seconds: float = 0.5) -> None:
        self._reader = reader
        self._seconds = seconds
        self.name = reader.name

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        deadline_s = asyncio.get_running_loop().time() + self._seconds
        while True:
            try:
                return await self._reader.served(key, context)
            except FlagError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
            await asyncio.sleep(0.02)

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        return await self._reader.served_all(context)

    async def aclose(self) -> None:
        await self._reader.aclose()
