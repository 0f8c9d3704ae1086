"""Proofs as a table for terminals and documentation, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.scoring.judge import describe_expected
from pytest_otel_diag.scoring.text import count, table
from pytest_otel_diag.selftest.proof import Proof, ProofPhase

HEADER = ("scenario", "healthy", "faulted", "undone", "paths", "wrong answers rejected", "oracle")
BEGIN = "<!-- self-test: begin, written by otel-diag self-test --write -->"
END = "<!-- self-test: end -->"
_WIDTH = 160
"""Columns of the text, wide enough for the longest id of a scenario."""


def row(proof: Proof) -> tuple[str, ...]:
    """Return a row: visible claims per phase, existing paths, rejected wrong answers."""
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
    """Return the lines for a terminal, followed by the problems."""
    lines = table([row(proof) for proof in proofs], header=HEADER, indent=0, width=_WIDTH)
    for proof in proofs:
        lines += [f"{proof.scenario}: {problem}" for problem in proof.problems]
    broken = sum(not proof.holds for proof in proofs)
    return [*lines, f"{count(len(proofs), 'oracle')}, {len(proofs) - broken} hold, {broken} broken"]


def as_markdown(proofs: Iterable[Proof]) -> str:
    """Return the table for the documentation."""
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    lines += [f"| {' | '.join(row(proof))} |" for proof in proofs]
    return "\n".join(lines)


def written_into(page: Path, proofs: Iterable[Proof]) -> str:
    """Return the page with the table between its two markers; raises ConfigurationError without them."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigurationError(f"{page} has no markers for the table; add the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{as_markdown(proofs)}\n\n{END}{after}"


def as_json(proofs: Iterable[Proof]) -> str:
    """Return all measurements."""
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


def _measured(phase: ProofPhase) -> list[dict[str, Any]]:
    return [
        {"claim": describe_expected(one.claim), "visible": one.visible, "measured": one.detail}
        for one in phase.measured
    ]


def _claims(phase: ProofPhase | None) -> str:
    if phase is None or not phase.measured:
        return "–"
    return f"{len(phase.visible)} of {len(phase.measured)}"
