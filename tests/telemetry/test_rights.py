"""Which rights of a store's user are more than sessions need."""

from __future__ import annotations

import pytest

from pytest_otel_diag.telemetry.rights import excess

NEEDED = [
    "GRANT SELECT ON otel.* TO otel_diag",
    "GRANT SHOW TABLES, SELECT(name, database) ON system.tables TO otel_diag",
    "GRANT SELECT, INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP DATABASE, DROP TABLE, DROP VIEW "
    "ON `otel\\_diag\\_view\\_`*.* TO otel_diag",
    "GRANT TABLE ENGINE ON Memory TO otel_diag",
]


def test_a_user_of_its_own_has_no_more_than_is_needed():
    assert excess(NEEDED, "otel") == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("GRANT SELECT, INSERT ON otel.* TO x", ["INSERT ON otel.*"]),
        ("GRANT SELECT ON *.* TO x WITH GRANT OPTION", ["SELECT ON *.*"]),
        ("GRANT SELECT ON billing.invoices TO x", ["SELECT ON billing.invoices"]),
        ("GRANT READ, WRITE ON URL TO x", ["READ ON URL", "WRITE ON URL"]),
        ("GRANT FILE, REMOTE ON *.* TO x", ["FILE ON *.*", "REMOTE ON *.*"]),
        ("GRANT admin TO x", ["GRANT admin TO x"]),
    ],
)
def test_what_is_more_is_named(line, found):
    assert excess([*NEEDED, line], "otel") == found


def test_the_engine_lists_the_grants_of_its_user(store):
    listed = excess(store.grants(), "otel")
    assert "FILE ON *.*" in listed and not [right for right in listed if "URL" in right or "REMOTE" in right]
