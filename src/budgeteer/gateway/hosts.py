"""Addresses of upstreams, and which hosts are of the public internet and not of a private network."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import check_http, without_password
from budgeteer.gateway.toml import Table

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


def read_address(table: Table, needed: bool) -> tuple[str, SplitResult]:
    """The address of an upstream from its table, as a text and in parts; "" if it is missing and not needed.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    url = (table.text("base_url") if needed else table.text("base_url", "")).rstrip("/")
    if not url and not needed:
        return "", urlsplit("")
    try:
        parts = urlsplit(check_http(url, "an upstream"))
    except InvalidInput as error:
        table.fail("base_url", f"is {without_password(url)!r}: {error}")
    if not parts.hostname or parts.query or parts.fragment:
        table.fail("base_url", f"is {without_password(url)!r}; give http(s)://host[:port]/v1")
    return url, parts
