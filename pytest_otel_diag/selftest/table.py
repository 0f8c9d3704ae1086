"""Proofs as a table: for a terminal, for the documentation, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.scoring.judge import describe_expected
from pytest_otel_diag.selftest.proof import Phase, Proof

HEADER = ("scenario", "healthy", "faulted", "undone", "paths", "wrong answers refused", "oracle")
BEGIN = "<!-- self-test: begin, written by otel-diag self-test --write -->"
END = "<!-- self-test: end -->"


def row(proof: Proof) -> tuple[str, ...]:
    """Return one line: claims that show in each phase, paths that exist, wrong answers refused."""
    refused = sum(bool(mutation.reasons) for mutation in proof.mutations)
    real = sum(chain is not None for chain in proof.paths.values())
    left = f"{_claims(proof.undone)} (declared)" if proof.residue else _claims(proof.undone)
    return (
        proof.scenario,
        _claims(proof.healthy),
        _claims(proof.faulted),
        left,
        f"{real} of {len(proof.paths)}" if proof.paths else "–",
        f"{refused} of {len(proof.mutations)}",
        "holds" if proof.holds else "BROKEN",
    )


def as_text(proofs: Sequence[Proof]) -> list[str]:
    """Return the lines for a terminal, with the problems below."""
    rows = [HEADER, *map(row, proofs)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in rows
    ]
    for proof in proofs:
        lines += [f"{proof.scenario}: {problem}" for problem in proof.problems]
    broken = sum(not proof.holds for proof in proofs)
    return [*lines, f"{len(proofs)} oracles, {len(proofs) - broken} hold, {broken} broken"]


def as_markdown(proofs: Iterable[Proof]) -> str:
    """Return the table for the documentation."""
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    lines += [f"| {' | '.join(row(proof))} |" for proof in proofs]
    return "\n".join(lines)


def written_into(page: Path, proofs: Iterable[Proof]) -> str:
    """Return the page with the table between its two comments; raises ConfigurationError without these."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigurationError(f"{page} has no place for the table; it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{as_markdown(proofs)}\n\n{END}{after}"


def as_json(proofs: Iterable[Proof]) -> str:
    """Return everything that was measured."""
    return json.dumps([_plain(proof) for proof in proofs], indent=2, ensure_ascii=False)


def _plain(proof: Proof) -> dict[str, Any]:
    phases = {"healthy": proof.healthy, "faulted": proof.faulted, "undone": proof.undone}
    return {
        "scenario": proof.scenario,
        "holds": proof.holds,
        "problems": proof.problems,
        "residue": proof.residue,
        "phases": {name: _measured(phase) for name, phase in phases.items() if phase is not None},
        "paths": [{"expected": path, "real": real} for path, real in proof.paths.items()],
        "wrong_answers": [
            {"answer": mutation.name, "refused": mutation.reasons} for mutation in proof.mutations
        ],
    }


def _measured(phase: Phase) -> list[dict[str, Any]]:
    return [
        {"claim": describe_expected(one.claim), "visible": one.visible, "measured": one.detail}
        for one in phase.measured
    ]


def _claims(phase: Phase | None) -> str:
    if phase is None or not phase.measured:
        return "–"
    return f"{len(phase.visible)} of {len(phase.measured)}"
