"""The FlagController over a surface and a reader.

A served value that equals the document's gets the document's type, since the protocols blur ``1`` and
``1.0``. Any other value is returned as it was served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_otel_diag.errors import FlagError, LostUpdate, RestoreFailed
from pytest_otel_diag.flags import document_text
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.flags.readers.answers import UnknownFlag, UnnamedAnswer
from pytest_otel_diag.flags.surface import FlagAddress, FlagReader, Surface
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.secret import SecretText

RESTORE_ATTEMPTS = 5


class SurfaceFlags:
    """FlagController that writes to *surface* and evaluates with *reader*; closing it closes both.

    ``now`` returns UTC nanoseconds and dates the answers.
    """

    def __init__(self, surface: Surface, reader: FlagReader, *, now: Callable[[], Nanos]) -> None:
        self.surface = surface
        self.reader = reader
        self._now = now
        self._flags: Mapping[str, Flag] = {}

    @property
    def name(self) -> str:
        """The name that errors and tables show."""
        return f"{self.surface.name}, served by {self.reader.name}"

    @property
    def identity(self) -> str:
        """The same text in every process that reaches these flags."""
        return self.surface.identity

    @property
    def access(self) -> FlagAddress:
        """What opens the same flags in another process."""
        return FlagAddress(control=SecretText(self.surface.control), served=SecretText(self.reader.address))

    async def document(self) -> FlagDocument:
        """Return the stored document, exactly; raises FlagError for one that flagd would refuse or lose."""
        raw = await self.surface.read()
        text = document_text.parse(raw, self.surface.name)
        self._flags = dict(text.flags)
        return FlagDocument(raw=raw, flags=self._flags, unusable=dict(text.unusable))

    async def apply(self, change: FlagChange) -> None:
        """Set one flag; raises FlagError for an unknown flag or variant, then nothing has changed.

        Raises LostUpdate when another client wrote in between. Returns once the document is stored; services
        may see it later, so verify with :meth:`served`.
        """
        raw = await self.surface.read()
        document = FlagdDocument(raw, source=self.surface.name)
        document.change(change.key, change.variant, change.context)
        self._flags = document.flags
        # Also without a change: a system that missed an earlier write loads the document now.
        await self.surface.write(document.raw, expected=raw)

    async def restore(self, document: FlagDocument) -> None:
        """Write the document byte for byte and read it back; raises RestoreFailed.

        Overwrites external changes: a restore means this document and no other.
        """
        try:
            self._flags = document_text.parse(document.raw, "the document to restore").flags
            for _ in range(RESTORE_ATTEMPTS):
                try:
                    await self._put(document.raw)
                    break
                except LostUpdate as error:
                    lost = error
            else:
                raise lost
            found = await self.surface.read()
        except FlagError as error:
            raise RestoreFailed(
                f"{self.surface.name} cannot be restored: {error}; restore the document that was read before "
                "the first change"
            ) from error
        if not self.surface.same(found, document.raw):
            raise RestoreFailed(
                f"{self.surface.name} was restored but reads back differently ({len(found)} bytes instead of "
                f"{len(document.raw)}): another client writes it; stop that and run: otel-diag heal"
            )

    async def _put(self, raw: bytes) -> None:
        try:
            current = await self.surface.read()
            document_text.parse(current, self.surface.name)
        except FlagError:  # damaged or gone
            await self.surface.overwrite(raw)
            return
        await self.surface.write(raw, expected=current)

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag; raises FlagError (unknown flag, no answer)."""
        try:
            return self._typed(await self.reader.served(key, context))
        except UnnamedAnswer as error:
            return self._typed(self._named(key, error))
        except UnknownFlag as error:
            if key not in self._flags:
                raise
            raise UnknownFlag(
                f"{error}. {self.surface.name} has it: the reader has not loaded the document yet, or reads "
                "another one"
            ) from error

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Evaluate every flag; flags without a value are left out."""
        answers = await self.reader.served_all(context)
        return {key: self._typed(answer) for key, answer in answers.items()}

    async def aclose(self) -> None:
        """Close the connections of both."""
        try:
            await self.surface.aclose()
        finally:
            await self.reader.aclose()

    def _named(self, key: str, answer: UnnamedAnswer) -> ServedFlag:
        """Return the answer as the only variant with its value; raises *answer* where there is none."""
        flag, value = self._flags.get(key), answer.value
        variants = {} if flag is None else flag.variants
        names = [name for name, found in variants.items() if _same(found, value)]
        if len(names) != 1:
            raise answer
        return ServedFlag(key=key, variant=names[0], value=value, at_ns=self._now())

    def _typed(self, answer: ServedFlag) -> ServedFlag:
        value, flag = answer.value, self._flags.get(answer.key)
        written = None if flag is None else flag.variants.get(answer.variant)
        if written is not None and _same(written, value):
            value = written
        return answer.model_copy(update={"value": value, "at_ns": self._now()})


def _same(one: object, other: object) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other
