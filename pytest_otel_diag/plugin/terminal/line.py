"""The terminal that pytest's reporter writes to, shared with it line by line."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest


class Line:
    """The terminal that pytest's reporter writes to, with the line that the reporter is on."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._descriptor: int | None = None
        with suppress(
            OSError, ValueError, AttributeError
        ):  # no file behind it: sessions in flight stay unseen
            self._descriptor = os.dup(reporter._tw._file.fileno())
        self._interrupted = False

    @property
    def interactive(self) -> bool:
        """Whether the output is a terminal."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        with suppress(OSError, TypeError):
            size = os.get_terminal_size(self._descriptor)  # type: ignore[arg-type]  # None is a TypeError
            if size.columns and size.lines:
                return size.columns, size.lines
        return self._reporter._tw.fullwidth, 24

    @property
    def column(self) -> int:
        """Where pytest left the cursor, from 0."""
        return self._reporter._tw.width_of_current_line

    def raw(self, text: str) -> None:
        """Write while a phase runs, past capture; errors of a closed terminal are ignored."""
        if self._descriptor is None:
            return
        encoding = getattr(self._reporter._tw._file, "encoding", None) or "utf-8"
        data = text.encode(encoding, "replace")
        with suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def interrupt(self, text: str) -> None:
        """Write a whole line while a phase runs; pytest's next output begins a new one."""
        self._reporter.flush()
        self.raw(f"\n{text}" if self.column or self._interrupted else text)
        self._interrupted = True

    def resume(self, nodeid: str) -> None:
        """Let pytest's next letter begin a new line, which names the test's file again, after our lines."""
        if self._interrupted:
            self.begin()
            if self._reporter.showfspath and not self._reporter.showlongtestinfo:
                self._reporter.write_fspath_result(nodeid, "")

    def begin(self) -> None:
        """Let pytest's next output begin a line, if our lines came between."""
        if not self._interrupted:
            return
        self._leave_line()

    def say(self, text: str, **markup: bool) -> None:
        """Write a whole line between phases."""
        tw = self._reporter._tw
        if self._interrupted or self.column:
            self._percentage()
            tw.line()
        tw.write(text, **markup)
        self._leave_line()
        self._reporter.flush()

    def _leave_line(self) -> None:
        """Let pytest begin a line: it does so by itself where it writes names of tests or of files."""
        reporter = self._reporter
        self._interrupted = False
        reporter.currentfspath = -2 if reporter.showlongtestinfo else None  # what it is after a test's word
        if not reporter.showlongtestinfo and not reporter.showfspath:
            reporter._tw.line()

    def _percentage(self) -> None:
        """End a line of letters as pytest does, with the percentage; pytest itself ends the last one."""
        reporter = self._reporter
        fill = getattr(reporter, "_write_progress_information_filling_space", None)
        shown = getattr(reporter, "_show_progress_info", False) and not getattr(
            reporter, "_is_last_item", True
        )
        interrupted = self._interrupted or (reporter.showfspath and reporter.currentfspath is None)
        if fill is not None and shown and not interrupted and not reporter.showlongtestinfo:
            fill()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
