"""Plugins of this environment that the runs of tests do without, which start faster for it."""

from __future__ import annotations

NO_HYPOTHESIS = ("-p", "no:hypothesispytest")
"""Its plugin imports all of Hypothesis at the end of each run, which takes as long as pytest's start."""

_OTHERS = ("allure_pytest", "anyio", "asyncio", "html", "xdist")
ALONE = (*NO_HYPOTHESIS, *(part for name in _OTHERS for part in ("-p", f"no:{name}")))
"""None but pytest's own and the plugin under test."""
