"""Checks what a diagnosis cites against the telemetry of its session.

:mod:`.citations` collects what is cited, :mod:`.prose` reads figures in texts, :mod:`.facts` asks telemetry
in a few statements, :mod:`.checks` compares, :mod:`.grounded` does all of it. :mod:`.path` holds the queries
against the investigation path of a scenario.
"""
