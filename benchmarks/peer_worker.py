"""Runs in the peers' own environment: times published methods on the windows it is given.

``python peer_worker.py TASKS.json`` prints one JSON object a line. It imports nothing of this project.
RCAEval's modules are loaded from their files, because importing its package pulls in the dependencies of
all its methods (torch, causal-learn, ...), which the two methods timed here do not use.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")


def method(name: str):  # noqa: ANN201 - a function of a package that has no types
    """Return RCAEval's function *name* and the version of the package."""
    for file in importlib.metadata.files("RCAEval") or []:
        if str(file).endswith(f"RCAEval/e2e/{name}.py"):
            spec = importlib.util.spec_from_file_location(f"rcaeval_{name}", file.locate())
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return getattr(module, name)
    raise ImportError(f"RCAEval has no module e2e/{name}.py")


def inside(times: pd.Series, windows: list[list[int]]) -> np.ndarray:
    """Whether each time (ns) lies in one of the windows."""
    values = times.to_numpy()
    return np.any([(values >= start) & (values < end) for start, end in windows], axis=0)


def run_baro(metrics: pd.DataFrame, task: dict) -> tuple[float, list[str]]:
    """Return seconds and services by rank; columns are ``<service>_<metric>``, quiet rows come first."""
    quiet = metrics[inside(metrics["time"], task["quiet"])]
    late = metrics[inside(metrics["time"], [task["incident"]])]
    frame = pd.concat([quiet, late]).ffill().fillna(0.0)
    started = time.perf_counter()
    ranks = method("baro")(frame, anomalies=[len(quiet)])["ranks"]
    seconds = time.perf_counter() - started
    return seconds, list(dict.fromkeys(column.rpartition("_")[0] for column in ranks))


def run_tracerca(spans: pd.DataFrame, task: dict) -> tuple[float, list[str]]:
    """Return seconds and services by rank. Time is replaced by 0 (quiet) and 2 (incident), cut at 1."""
    quiet = spans[inside(spans["start_ns"], task["quiet"])]
    late = spans[inside(spans["start_ns"], [task["incident"]])]
    known = set(zip(quiet["serviceName"], quiet["methodName"], strict=True))
    seen = [pair in known for pair in zip(late["serviceName"], late["methodName"], strict=True)]
    frame = pd.concat([quiet.assign(startTime=-(2**62)), late[seen].assign(startTime=2**61)])
    started = time.perf_counter()
    ranks = method("tracerca")(frame.reset_index(drop=True), inject_time=0)["ranks"]
    seconds = time.perf_counter() - started
    owners = dict(zip(frame["serviceName"] + "_" + frame["methodName"], frame["serviceName"], strict=True))
    return seconds, list(dict.fromkeys(owners[operation] for operation in ranks))


def main() -> None:
    """Time both methods on every task; a method that fails is reported, not skipped."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    metrics, spans = pd.read_parquet(job["metrics"]), pd.read_parquet(job["spans"])
    for task in job["tasks"]:
        for name, run, data in (("baro", run_baro, metrics), ("tracerca", run_tracerca, spans)):
            line = {"id": task["id"], "method": name, "version": importlib.metadata.version("RCAEval")}
            try:
                line["seconds"], line["ranks"] = run(data, task)
            except Exception as error:
                line["error"] = f"{type(error).__name__}: {error}"
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
