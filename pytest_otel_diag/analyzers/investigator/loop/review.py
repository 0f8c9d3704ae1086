"""Looks at an answer before it is accepted: its shape, and whether its diagnostic query is evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_otel_diag.analyzers.agents.answers import diagnosis_from
from pytest_otel_diag.analyzers.investigator.loop.diagnostic_query import REPAIRS, problem_with_query
from pytest_otel_diag.analyzers.investigator.prompts import Prompts
from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Telemetry

SHAPE_REPAIRS = 1
"""How often the model may correct an answer that is no diagnosis."""


class Unfinished(Exception):
    """The model's turn is no answer; the text says why, for the model."""


class Repair(Unfinished):
    """The answer is not accepted yet; the text says what to correct."""


class Reviewer:
    """Reviews the answers of one attempt, and counts their repairs.

    ``standing`` is the last diagnosis that was read, without the query that the model was asked to repair.
    """

    def __init__(self, telemetry: Telemetry, prompts: Prompts) -> None:
        self._telemetry = telemetry
        self._prompts = prompts
        self.standing: Diagnosis | None = None
        self._shape_repairs = 0
        self._query_repairs = 0

    async def review(self, answer: Mapping[str, Any], *, last: bool) -> tuple[Diagnosis, str]:
        """Return the diagnosis in an answer, and a remark about what was left out of it.

        Raises Repair while the model may repair it. An answer that is no diagnosis raises Unfinished in the
        *last* turn, which has no repairs, and AnalyzerError after its repair.
        """
        try:
            diagnosis = diagnosis_from(answer)
        except AnalyzerError as error:
            if last:
                raise Unfinished(str(error)) from error
            if self._shape_repairs >= SHAPE_REPAIRS:
                raise
            self._shape_repairs += 1
            raise Repair(f"the diagnosis is not accepted yet: {error}") from error
        try:
            problem = await problem_with_query(diagnosis, self._telemetry)
        except BudgetExceeded as error:
            problem, last = f"it was not run, because {error}", True
        if not problem:
            return diagnosis, ""
        without = diagnosis.model_copy(update={"query": None})
        # A model that writes no query when it is asked for one is not asked again.
        most = REPAIRS if diagnosis.query is not None else 1
        if last or self._query_repairs >= most:
            remark = f"the diagnosis has no diagnostic query: {problem}"
            return without, remark
        self._query_repairs += 1
        self.standing = without
        raise Repair(self._prompts.render("query_problem", problem=problem))
