"""Where the address of an agent or a model leads."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def on_this_machine(url: str) -> bool:
    """Return whether the host of a URL is ``localhost`` or a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
