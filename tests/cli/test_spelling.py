from pytest_otel_diag.cli.spelling import as_typed


def test_options_are_named_as_the_command_has_them() -> None:
    assert (
        as_typed("give it with --otel-diag-store, or --otel-diag-flags") == "give it with --store, or --flags"
    )


def test_what_somebody_typed_for_pytest_stays() -> None:
    text = "held by: /bin/pytest suites --otel-diag-target=live; wait, or give --otel-diag-lease-wait-s"
    assert (
        as_typed(text) == "held by: /bin/pytest suites --otel-diag-target=live; wait, or give --lease-wait-s"
    )
