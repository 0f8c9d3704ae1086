"""What a user gave to this pytest run; standard library and pytest only, as the entry module needs it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_otel_diag.config.declaration import Option
from pytest_otel_diag.config.options import OPTIONS, Resolved, resolve
from pytest_otel_diag.errors import ConfigurationError


def options_of(config: pytest.Config, only: Sequence[Option] = OPTIONS) -> dict[str, Resolved]:
    """Return the options with their sources; raises UsageError that lists every bad value."""
    command_line = {option.ini: config.getoption(option.ini, None) for option in only}
    ini = {option.ini: config.getini(option.ini) for option in only}
    try:
        return resolve(command_line, ini, only=only)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None
