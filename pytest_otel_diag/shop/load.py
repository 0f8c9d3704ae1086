"""What the demo's load generator does: tasks with their weights, think times, quantities."""

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
"""Weight of every task; the same under Locust and k6. They sum to 29."""

REVIEW_WEIGHTS = {"get_product_reviews": 3, "ask_product_ai_assistant": 1}
"""What release 2.2 has on top."""

THINK_S = (1.0, 10.0)
"""A user waits so long between two tasks, uniformly."""

QUANTITIES = (1, 2, 3, 4, 5, 10)
SEVERAL = (2, 3, 4)
"""How many products a checkout of several has."""

BROWSER_WAIT_S = 2.0
"""The browser stays so long on its last page, for its traces to be exported."""

CLOSE_MU, CLOSE_SIGMA, CLOSE_MOST_S = math.log(0.15), 0.9, 3.0
"""Closing the page and its browser takes so many seconds, the logarithm being normal."""


def choose(rng: random.Random, weights: dict[str, int]) -> str:
    """Return a task at random by weight."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def think_s(rng: random.Random) -> float:
    """Return how long a user waits before the next task."""
    return rng.uniform(*THINK_S)


def browser_stay_s(rng: random.Random) -> float:
    """Return how long a browser user's last page is open, closing included."""
    return BROWSER_WAIT_S + min(CLOSE_MOST_S, rng.lognormvariate(CLOSE_MU, CLOSE_SIGMA))
