"""``python -m pytest_otel_diag.cli``: the command without its script on the path."""

from pytest_otel_diag.cli import main

main()
