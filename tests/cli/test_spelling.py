from pytest_otel_diag.cli.spelling import as_typed


def test_options_get_the_commands_spelling() -> None:
    assert (
        as_typed("give it with --otel-diag-store, or --otel-diag-flags") == "give it with --store, or --flags"
    )


def test_quoted_pytest_commands_are_unchanged() -> None:
    text = "held by: /bin/pytest suites --otel-diag-target=live; wait, or give --otel-diag-lease-wait-s"
    assert (
        as_typed(text) == "held by: /bin/pytest suites --otel-diag-target=live; wait, or give --lease-wait-s"
    )
