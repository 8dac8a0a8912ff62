"""Tell hosts of the public internet from those of a private network."""

from __future__ import annotations

import ipaddress
import re

_PLAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.[a-z]([a-z0-9-]*[a-z0-9])")
_PRIVATE = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home", ".corp", ".private", ".home.arpa",
            ".svc", ".test", ".invalid", ".nip.io", ".sslip.io", ".xip.io", ".localtest.me")  # fmt: skip
"""Ends of host names that belong to private networks, or that resolve to an address which the name contains."""


def public(host: str) -> bool:
    """Whether a host's name or address is a public one; names are not resolved.

    >>> [public(host) for host in ("example.com", "localhost", "vllm", "10.0.0.1", "0x7f.1", "2130706433", "1.1.1.1")]
    [True, False, False, False, False, False, True]
    """
    host = host.casefold()
    try:
        address = ipaddress.ip_address(host)
        return address.version == 4 and address.is_global and not address.is_multicast  # IPv6 can hold a private IPv4
    except ValueError:
        pass
    return len(host) < 254 and bool(_PLAIN.fullmatch(host)) and not f".{host}".endswith(_PRIVATE)
