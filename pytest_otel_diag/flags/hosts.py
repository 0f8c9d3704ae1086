"""Recognises addresses of this machine, so that two spellings of one address compare equal."""

from __future__ import annotations

import ipaddress
import socket

_KNOWN = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def is_here(host: str) -> bool:
    """Return whether *host*, in lower case and without a final dot, is this machine.

    Names are compared with the machine's own names and never resolved: that may be slow, and the answer may
    differ between processes.
    """
    address = _address(host)
    if address is None:
        own = socket.gethostname().lower().rstrip(".")
        return host in {own, own.partition(".")[0], *_KNOWN} or host.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified or _bindable(str(address))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not host or host.strip("0123456789abcdefx."):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001
    except OSError:
        return None


def _bindable(address: str) -> bool:
    """Return whether the address belongs to this machine, since a socket binds to no other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
