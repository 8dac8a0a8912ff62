"""What the file declares of an upstream: what it bills and says of it, and when nothing is sent to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from budgeteer.gateway.toml import Table
from budgeteer.ledger.limit import Limit

NEVER, UNKNOWN = "never", "unknown"
LEARNT = "learnt"
"""In place of a number: it is learnt from answers."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """The conduct of an upstream, as the gateway's file declares it.

    Attributes:
        bills_failures: "never": an answer with an error is never billed, so it is charged nothing. "unknown": after a
            time-out or an internal error (408, 500, 502, 504) the request may be billed, and is charged in full. A
            connection that breaks is charged in full either way.
        bills_cost: whether ``usage.cost`` of an answer is what the provider bills, in dollars; it is then charged
            instead of what the prices come to.
        stream_options: whether streams may be asked for their usage (``stream_options``). If not, the upstream gets
            what the client sent, and a stream without a usage is charged by its text, on the safe side.
        breaker: failures in a row after which nothing is sent to the upstream until its back-off ends, and then one
            request at a time until one is answered; 0 = never.
        failure_limits: limits of what failures whose bill is unknown may be charged; when one is reached, nothing is
            sent to the upstream until there is room in its window.
    """

    bills_failures: str = UNKNOWN
    bills_cost: bool = False
    stream_options: bool = True
    breaker: int = 3
    failure_limits: tuple[Limit, ...] = ()


def read_conduct(table: Table, limits: Callable[[Table, str], tuple[Limit, ...]]) -> Conduct:
    """Read the conduct from the table of an upstream.

    Args:
        table: ``[[upstreams]]``.
        limits: reads the limits in a field of a table.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    conduct = Conduct(
        bills_failures=table.text("bills_failures", UNKNOWN, (NEVER, UNKNOWN)),
        bills_cost=table.flag("bills_cost", False),
        stream_options=table.flag("stream_options", True),
        breaker=table.whole("breaker", 3, most=1000),
        failure_limits=limits(table, "failure_limits"),
    )
    for limit in conduct.failure_limits:
        if limit.window is None or limit.amount is None:
            table.fail("failure_limits", f"has {str(limit)!r}; give an amount and a window, such as $2/hour")
    if conduct.failure_limits and conduct.bills_failures == NEVER:
        table.fail("failure_limits", 'limits what bills_failures = "never" never charges; leave one of the two out')
    return conduct


def read_default(table: Table, most: int) -> int | str | None:
    """Read ``default_output`` from the table of a model: at most ``most``, LEARNT, or None if it is missing.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    default = table.whole_or("default_output", LEARNT, least=1)
    if isinstance(default, int) and default > most:
        table.fail("default_output", f"is {default:,}, above max_output, which is {most:,}; lower it")
    return default
