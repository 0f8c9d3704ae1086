"""The LLM investigator: a model that looks for the cause with the tools of an investigation."""
