"""Keys of model providers in the environment, and the settings that keep their client library quiet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping

from pytest_otel_diag.secret import SecretText, credential

_KEY = re.compile(r"[A-Z0-9_]*(?:API_KEY|ACCESS_KEY|AUTH_TOKEN|SESSION_TOKEN|API_TOKEN|ACCESS_TOKEN)")
_SHORTEST = 12
"""Shorter values are no keys: masking words such as ``none`` would garble texts."""

LITELLM_OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_OFFLINE_MODE": "true"}
"""What keeps litellm from downloading prices and tokenizers."""


def hide_provider_keys(environment: Mapping[str, str] | None = None) -> None:
    """Make the keys of providers credentials of this process, which no text of ours shows."""
    for name, value in (os.environ if environment is None else environment).items():
        if _KEY.fullmatch(name) and len(value) >= _SHORTEST:
            credential(value)


def openai_key(environment: Mapping[str, str] | None = None) -> SecretText | None:
    """Return what OPENAI_API_KEY holds, None where it is not set."""
    key = (os.environ if environment is None else environment).get("OPENAI_API_KEY", "").strip()
    return credential(key) if key else None


def keep_litellm_offline(environment: MutableMapping[str, str] | None = None) -> None:
    """Set what litellm reads when it is imported."""
    (os.environ if environment is None else environment).update(LITELLM_OFFLINE)
