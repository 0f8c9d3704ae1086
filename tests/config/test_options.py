"""Options resolve in the order of precedence, keep their source, and report all bad values at once."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.config.options import OPTIONS, misspelt_variables, resolve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.config.shop_options import SHOP_OPTIONS
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.scenario import Timing

SOURCES = ("command line", "environment", "ini")


@given(st.sets(st.sampled_from(SOURCES)))
def test_precedence_is_command_line_environment_ini_default(given_in: set[str]) -> None:
    values = {"command line": "3", "environment": "4", "ini": "5"}
    resolved = resolve(
        {"otel_diag_repeat": values["command line"]} if "command line" in given_in else {},
        {"otel_diag_repeat": values["ini"]} if "ini" in given_in else {},
        {"OTEL_DIAG_REPEAT": values["environment"]} if "environment" in given_in else {},
    )["repeat"]
    expected = next((source for source in SOURCES if source in given_in), "default")
    assert resolved.source == expected
    assert resolved.value == int(values.get(expected, "1"))


def test_all_bad_values_are_reported_together_with_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(
            {"otel_diag_repeat": "0", "otel_diag_inconclusive": "pas"},
            {"otel_diag_min_top1": "1.5"},
            {"OTEL_DIAG_SEED": "x", "OTEL_DIAG_GATE": "maybe"},
        )
    message = str(caught.value)
    assert "--otel-diag-repeat='0': must be a finite number above 0" in message
    assert "--otel-diag-inconclusive='pas': choose from fail, pass (did you mean 'pass'?)" in message
    assert "otel_diag_min_top1='1.5': must be a ratio between 0 and 1" in message
    assert "OTEL_DIAG_SEED='x': must be a whole number" in message
    assert "OTEL_DIAG_GATE='maybe': choose from true, false" in message


@given(st.floats())
def test_numbers_of_seconds_must_be_finite_and_above_zero(value: float) -> None:
    try:
        resolved = resolve({"otel_diag_observe_s": repr(value)}, {}, {})["observe_s"].value
    except ConfigurationError:
        assert not (value > 0 and math.isfinite(value))
    else:
        assert resolved == value


def test_values_of_legacy_environment_names_are_converted() -> None:
    resolved = resolve({}, {}, {"ANALYSIS_WINDOW_MINUTES": "2", "FEATURE_FLAG_WAIT_TIME": "7"})
    assert resolved["observe_s"].value == 120.0
    assert resolved["observe_s"].spelling == "ANALYSIS_WINDOW_MINUTES"
    assert resolved["impact_timeout_s"].value == 7.0


def test_the_own_environment_name_beats_the_legacy_one() -> None:
    resolved = resolve({}, {}, {"ANALYSIS_WINDOW_MINUTES": "2", "OTEL_DIAG_OBSERVE_S": "5"})
    assert resolved["observe_s"].value == 5.0


def test_option_names_are_unique_in_every_spelling() -> None:
    for spellings in ([o.cli for o in OPTIONS], [o.ini for o in OPTIONS], [o.environment for o in OPTIONS]):
        assert len(set(spellings)) == len(OPTIONS)


def test_settings_hold_the_default_of_every_option() -> None:
    settings = Settings()
    assert [getattr(settings, option.name) for option in OPTIONS] == [option.default for option in OPTIONS]
    assert settings == Settings.of(resolve({}, {}, {}, only=()))


def test_the_default_of_every_option_passes_its_own_parser() -> None:
    for option in (*OPTIONS, *SHOP_OPTIONS):
        if option.default is not None:
            assert option.parse(str(option.default)) == option.default, option.name


def test_settings_override_only_the_timing_that_was_given() -> None:
    settings = Settings.of(resolve({"otel_diag_observe_s": "33"}, {}, {}))
    timing = settings.timing(Timing(baseline_s=7))
    assert (timing.observe_s, timing.baseline_s) == (33.0, 7)
    assert list(settings.not_default()) == ["observe_s"]
    assert settings.budget.queries == 200


def test_cache_folder_follows_setting_then_xdg_then_home(tmp_path) -> None:
    assert Settings(cache=str(tmp_path)).cache_dir({}) == tmp_path
    assert Settings().cache_dir({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "otel-diag"
    assert Settings().cache_dir({}).name == "otel-diag"


def test_gate_flag_reads_booleans() -> None:
    for text, value in (("true", True), ("on", True), ("no", False), ("", False)):
        assert resolve({}, {}, {"OTEL_DIAG_GATE": text})["gate"].value is value


def test_legacy_environment_names_of_session_options() -> None:
    given = {
        "AUTO_CLEANUP_ENABLED": "false",
        "MAX_CONCURRENT_SESSIONS": "3",
        "IMPACT_DETECTION_THRESHOLD": "0.2",
    }
    resolved = resolve({}, {}, given)
    assert resolved["skip_cleanup"].value is True
    assert (resolved["max_sessions"].value, resolved["impact_threshold"].value) == (3, 0.2)
    assert type(resolved["max_sessions"].value) is int
    for says, skips in (("true", False), ("", False), ("no", True)):
        assert resolve({}, {}, {"AUTO_CLEANUP_ENABLED": says})["skip_cleanup"].value is skips
    assert resolve({}, {}, {"OTEL_DIAG_SKIP_CLEANUP": "yes", "AUTO_CLEANUP_ENABLED": "true"})[
        "skip_cleanup"
    ].value
    with pytest.raises(ConfigurationError, match="above 0 and up to 1"):
        resolve({}, {}, {"IMPACT_DETECTION_THRESHOLD": "0"})


def test_a_path_taken_for_the_value_of_an_option_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="choose from none, failed, all; before a path write --otel"):
        resolve({"otel_diag_keep": "tests"}, {}, {})
    assert resolve({"otel_diag_keep": "failed"}, {}, {})["keep"].value == "failed"


def test_a_variable_that_is_nearly_an_option_is_reported() -> None:
    others = {
        "OTEL_DIAG_TARGET": "shop",
        "OTEL_DIAG_FLAGD_PORT": "8013",
        "OTEL_DIAG_DOCKER": "1",
        "HOME": "/",
    }
    assert misspelt_variables(others) == []
    (found,) = misspelt_variables({**others, "OTEL_DIAG_ANALYSER": "agent:diagnose"})
    assert found.startswith("OTEL_DIAG_ANALYSER ")
    assert "did you mean 'OTEL_DIAG_ANALYZER'?" in found
    assert "agent" not in found
