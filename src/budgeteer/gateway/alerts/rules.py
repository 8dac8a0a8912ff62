"""The configuration of alerts: who gets a message, and at which shares of which limits.

```
[[alerts]]
name = "spending"
shares = [0.5, 0.8, 1.0]                        # of a limit
accounts = ["acme", "acme/*"]                   # * is any scope, ** any number of them
kinds = ["money"]                               # those of [ledger], unless it says otherwise
webhook = { url = "http://ops.example/alerts" } # or url_env
slack = { url_env = "SLACK_WEBHOOK_URL" }

[alerts.email]
host = "smtp.example.com"
user = "budgeteer"
password_env = "SMTP_PASSWORD"
from = "budgeteer@example.com"
to = ["platform@example.com"]
```
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from fractions import Fraction

from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import check_http
from budgeteer.gateway.toml import Table

SHARES = (0.5, 0.8, 1.0)
_NAME = re.compile(r"[\w.-]{1,64}")
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
"""How a connection to a mail server is secured, and the port that is usual for it."""


@dataclass(frozen=True, slots=True)
class Post:
    """An address that JSON is posted to; ``name`` is "webhook" or "slack", which differ in the JSON."""

    name: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail server and the addresses that it delivers to.

    Attributes:
        security: "starttls", "tls" or "none".
        user, password: "" for a server without authentication.
        sender, to: e-mail addresses.
    """

    host: str
    port: int
    security: str
    user: str
    password: str = field(repr=False)
    sender: str
    to: tuple[str, ...]
    name: str = "email"


Channel = Post | Mail


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[alerts]]``.

    Attributes:
        name: of the rule.
        shares: of a limit, in rising order, each above 0 and at most 1.
        accounts: patterns for the paths of accounts, see :func:`fits`.
        kinds: kinds of the limits that are watched.
        channels: where each alert is sent.
    """

    name: str
    shares: tuple[Fraction, ...]
    accounts: tuple[str, ...]
    kinds: frozenset[str]
    channels: tuple[Channel, ...]

    def covers(self, path: str) -> bool:
        """Whether the account at a path is watched."""
        return any(fits(glob, path) for glob in self.accounts)


def rules_of(
    tables: Iterable[Table], env: Mapping[str, str], usual: tuple[str, ...], possible: tuple[str, ...]
) -> tuple[Rule, ...]:
    """Read the rules of a file.

    Args:
        tables: the tables ``[[alerts]]``.
        env: environment variables, where the secrets are.
        usual: kinds of a rule that names none.
        possible: kinds that a rule may name.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    rules: list[Rule] = []
    for table in tables:
        rule = _rule(table, env, usual, possible)
        if any(rule.name == other.name for other in rules):
            table.fail("name", f"is {rule.name!r}, as that of another one; give each of [[alerts]] a name of its own")
        rules.append(rule)
    return tuple(rules)


def _rule(table: Table, env: Mapping[str, str], usual: tuple[str, ...], possible: tuple[str, ...]) -> Rule:
    name = table.text("name")
    if not _NAME.fullmatch(name):
        table.fail("name", f"is {name!r}; give up to 64 letters, digits or . _ -")
    shares = table.numbers("shares", SHARES)
    if not shares or not all(0 < part <= 1 for part in shares) or list(shares) != sorted(set(shares)):
        table.fail("shares", f"is {list(shares)}; give rising shares of a limit above 0 and up to 1, such as {SHARES}")
    kinds = table.texts("kinds", usual)
    if not kinds or (unknown := [kind for kind in kinds if kind not in possible]):
        what = f"has {unknown[0]!r}, which is not counted, or not spent" if kinds else "is empty"
        table.fail("kinds", f"{what}; choose of {', '.join(possible)}")
    accounts = table.texts("accounts", ("**",))
    if not accounts or not all(accounts):
        table.fail("accounts", 'is empty; give paths such as "acme", "acme/*" or "**" (all)')
    channels: list[Channel] = []
    for channel in ("webhook", "slack", "email"):  # asked for in any case, so that their names are known
        given = table.table(channel)
        if channel in table.data:
            channels.append(_mail(given, env) if channel == "email" else Post(channel, _url(given, env)))
    table.done()
    if not channels:
        table.fail(
            None,
            "has nowhere to send alerts; give webhook = { url = ... }, slack = { url_env = ... } or [alerts.email]",
        )
    exact = tuple(Fraction(str(share)) for share in shares)
    return Rule(name, exact, accounts, frozenset(kinds), tuple(channels))


def fits(glob: str, path: str) -> bool:
    """Whether a path matches a pattern: ``*``, ``?`` and ``[...]`` within a scope, ``**`` for any number of scopes.

    >>> [fits("acme/*", path) for path in ("acme", "acme/ann", "acme/ann/user:bob")]
    [False, True, False]
    >>> [fits("acme/**", path) for path in ("acme", "acme/ann", "acme/ann/user:bob", "acme2")]
    [True, True, True, False]
    """
    return _fits(tuple(glob.split("/")), tuple(path.split("/")))


def _fits(globs: tuple[str, ...], scopes: tuple[str, ...]) -> bool:
    if not globs:
        return not scopes
    if globs[0] == "**":
        return any(_fits(globs[1:], scopes[n:]) for n in range(len(scopes) + 1))
    return bool(scopes) and fnmatch.fnmatchcase(scopes[0], globs[0]) and _fits(globs[1:], scopes[1:])


def _url(table: Table, env: Mapping[str, str]) -> str:
    """The address in ``url``, or, since it may be a secret, in the environment variable that ``url_env`` names."""
    variable = table.text("url_env", None)
    plain = table.text("url", None)
    if (variable is None) == (plain is None):
        table.fail(None, "needs url or url_env, one of the two")
    url = plain if variable is None else _secret(table, "url_env", variable, env)
    try:
        check_http(url, "an alert")
    except InvalidInput:  # its text has the address, which may be a secret
        where = f"is {url!r}" if variable is None else f"names {variable}, whose value cannot be used"
        table.fail("url" if variable is None else "url_env", f"{where}; give http(s)://HOST[:PORT]/PATH")
    table.done()
    return str(url)


def _secret(table: Table, name: str, variable: str, env: Mapping[str, str]) -> str:
    value = env.get(variable, "")
    if not value:
        table.fail(name, f"names {variable}, which is not set in the environment")
    return value


def _is_address(text: str) -> bool:
    """Whether a text is an address that can stand in a header, perhaps with a name before it."""
    message = EmailMessage()
    try:
        message["To"] = text
        addresses = message["To"].addresses
    except (ValueError, IndexError, AttributeError):  # the parser's, on what it cannot read
        return False
    return (
        text.isprintable() and len(addresses) == 1 and all(address.username and address.domain for address in addresses)
    )


def _mail(table: Table, env: Mapping[str, str]) -> Mail:
    security = table.text("security", "starttls", tuple(_PORTS))
    user, variable = table.text("user", ""), table.text("password_env", "")
    if bool(user) != bool(variable):
        table.fail("password_env" if user else "user", "is missing; give user and password_env, or neither")
    if user and security == "none":
        table.fail("security", "is none, which would send the password in plain text; take starttls or tls")
    to, sender = table.texts("to"), table.text("from")
    for name, addresses in (("from", (sender,)), ("to", to)):
        if not addresses or not all(map(_is_address, addresses)):
            table.fail(name, f"is {sender if name == 'from' else list(to)!r}; give addresses such as ops@example.com")
    host, password = table.text("host"), _secret(table, "password_env", variable, env) if variable else ""
    if not user.isascii():
        table.fail("user", f"is {user!r}; only ASCII can be sent")
    if not password.isascii():
        table.fail("password_env", f"names {variable}, whose value has other characters than ASCII and cannot be sent")
    mail = Mail(host, table.whole("port", _PORTS[security], least=1, most=65_535), security, user, password, sender, to)
    table.done()
    return mail
