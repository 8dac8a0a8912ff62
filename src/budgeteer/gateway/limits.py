"""Limits as the gateway's file and its keys have them, checked against the kinds of units that are counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.toml import Table
from budgeteer.ledger.limit import Limit


def limits_of(table: Table, name: str, kinds: tuple[str, ...]) -> tuple[Limit, ...]:
    """The limits in a field of a table; fails on a kind that is not counted."""
    limits = table.parsed_all(name, Limit.parse)
    try:
        return check_kinds(limits, kinds)
    except InvalidInput as error:
        table.fail(name, str(error))


def check_kinds(limits: tuple[Limit, ...], kinds: tuple[str, ...]) -> tuple[Limit, ...]:
    """The same limits; raises InvalidInput if one is of a kind that is not counted."""
    for limit in limits:
        if limit.kind not in kinds:
            raise InvalidInput(f"limits {limit.kind!r}, which is not counted; [ledger] kinds has {', '.join(kinds)}")
    return limits


class AnyPrice:
    """Prices that know no model: they let the kind money be checked before price files are read."""

    def cost(self, usage: Any, model: str, service: str = "") -> int:
        raise NotImplementedError

    worst = cost

    def first_known(self, models: Sequence[str]) -> str:
        raise NotImplementedError
