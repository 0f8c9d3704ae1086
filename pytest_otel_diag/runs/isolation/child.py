"""The program of an isolated analyzer: opens it, lets it investigate, and writes down how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.ports import DescribedAnalyzer
from pytest_otel_diag.runs.analyzers import identity_of, open_in_process
from pytest_otel_diag.runs.entry_points import check_analyzer
from pytest_otel_diag.runs.isolation import RESULT
from pytest_otel_diag.runs.isolation.remote import remote_investigation
from pytest_otel_diag.sessions.investigation.answer import as_diagnosis
from pytest_otel_diag.sessions.investigation.closed_line import Ended
from pytest_otel_diag.sessions.investigation.endings import ending_of


def main(job: Mapping[str, Any]) -> None:
    """Do what *job* asks: identify the analyzer, or also let it investigate; then end the process.

    The analyzer's threads do not keep the process from ending.
    """
    folder = os.getcwd()  # noqa: PTH109 - before the analyzer may change it
    sys.argv[:] = [""]
    if "token" in job:
        ended = ending_of(lambda: asyncio.run(_investigated(job["spec"], job["port"], job["token"])))
        result: Mapping[str, Any] = asdict(ended)
    else:
        result = _identified(job["spec"], job["id"])
    temporary = os.path.join(folder, f".{RESULT}")  # noqa: PTH118 - strings need no import
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
        json.dump(result, file, ensure_ascii=False)
    os.replace(temporary, os.path.join(folder, RESULT))  # noqa: PTH105, PTH118
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _investigated(spec: str, port: int, token: str) -> Ended:
    analyzer = _opened(spec)
    try:
        answer = await analyzer.diagnose(remote_investigation(port, token))
        return Ended(answer=as_diagnosis(answer).model_dump_json())
    finally:
        await analyzer.close()


def _identified(spec: str, analyzer_id: str) -> Mapping[str, Any]:
    try:
        return {"identity": identity_of(analyzer_id, _opened(spec)).model_dump(mode="json")}
    except OtelDiagError as error:
        return {"error": str(error)}


def _opened(spec: str) -> DescribedAnalyzer:
    return open_in_process(check_analyzer(spec), Settings())
