"""A run on a pseudo terminal, and what a person would have seen on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

PIECE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\s\S])")


def frames(chunks: Sequence[str], columns: int) -> list[str]:
    """Return the whole scroll-back after each chunk; knows what our output and pytest's use."""
    rows: list[list[str]] = [[]]
    row = column = 0
    seen = []
    for chunk in chunks:
        for count, command, char in PIECE.findall(chunk):
            if char == "\n":
                row += 1
            elif char == "\r":
                column = 0
            elif char:
                if column >= columns:
                    row, column = row + 1, 0
                rows += [[] for _ in range(row + 1 - len(rows))]
                rows[row] += " " * (column + 1 - len(rows[row]))
                rows[row][column] = char
                column += 1
            elif command == "A":
                row -= int(count)
            elif command == "G":
                column = int(count) - 1
            elif command in ("J", "K"):
                rows[row] = rows[row][:column]
                del rows[row + 1 if command == "J" else len(rows) :]
            rows += [[] for _ in range(row + 1 - len(rows))]
        seen.append("\n".join("".join(line).rstrip() for line in rows))
    return seen


def run(
    command: Sequence[str], folder: Path, *, columns: int = 100, environment: Mapping[str, str] | None = None
) -> tuple[str, list[str]]:
    """Run the command on a terminal; return its raw output and the frames."""
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(folder)
        for name in ("CI", "NO_COLOR", "PY_COLORS", "COLUMNS", "PYTEST_ADDOPTS"):
            os.environ.pop(name, None)
        os.environ.update({"TERM": "xterm", **(environment or {})})
        os.execvp(command[0], list(command))
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    chunks = []
    while True:
        try:
            data = os.read(descriptor, 1 << 16)
        except OSError:  # how Linux says that the other side is closed
            break
        if not data:
            break
        chunks.append(data.decode("utf-8", "replace"))
    os.waitpid(child, 0)
    os.close(descriptor)
    return "".join(chunks), frames(chunks, columns)
