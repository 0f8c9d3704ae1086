"""The LLM investigator: a model that looks for the cause with the tools of an investigation."""

from pytest_otel_diag.analyzers.investigator.loop.investigator import Investigator, InvestigatorSettings

__all__ = ["Investigator", "InvestigatorSettings"]
