"""Nothing here waits for a provider in real time."""

import pytest

from pytest_otel_diag.analyzers.investigator.retries import RetryPolicy

QUICK = RetryPolicy(attempts=4, first_wait_s=0.001, longest_wait_s=5.0)


@pytest.fixture
def quick() -> RetryPolicy:
    """Retries whose waits take no time."""
    return QUICK
