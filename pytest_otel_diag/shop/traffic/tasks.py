"""Tasks of the demo's load generator with their weights, think times and quantities."""

from __future__ import annotations

import math
import random

WEIGHTS = {
    "index": 1,
    "browse_product": 10,
    "get_recommendations": 3,
    "get_ads": 3,
    "view_cart": 3,
    "add_to_cart": 2,
    "checkout": 1,
    "checkout_multi": 1,
    "flood_home": 5,
}
"""Weight of each task, the same under Locust and k6; the sum is 29."""

REVIEW_WEIGHTS = {"get_product_reviews": 3, "ask_product_ai_assistant": 1}
"""Additional tasks of release 2.2."""

THINK_S = (1.0, 10.0)
"""Bounds of the uniform wait between two tasks."""

QUANTITIES = (1, 2, 3, 4, 5, 10)
SEVERAL = (2, 3, 4)
"""Numbers of products of a multi-item checkout."""

BROWSER_WAIT_S = 2.0
"""How long the browser stays on its last page so that its traces are exported."""

CLOSE_MU, CLOSE_SIGMA, CLOSE_MOST_S = math.log(0.15), 0.9, 3.0
"""Parameters of the log-normal time, in seconds, to close the page and its browser."""


def choose(rng: random.Random, weights: dict[str, int]) -> str:
    """Draw a task by weight."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def think_s(rng: random.Random) -> float:
    """Draw the wait before the next task, in seconds."""
    return rng.uniform(*THINK_S)


def browser_stay_s(rng: random.Random) -> float:
    """Draw how long a browser user keeps the last page open, in seconds, with the time to close it."""
    return BROWSER_WAIT_S + min(CLOSE_MOST_S, rng.lognormvariate(CLOSE_MU, CLOSE_SIGMA))
