"""The bounds of a model, as the gateway's file gives them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from budgeteer.core.errors import BudgeteerError
from budgeteer.gateway.toml import Table
from budgeteer.metering.estimate import Bounds
from budgeteer.metering.tokenizer import load


def bounds_of(table: Table, dialect: str, outside: bool) -> Bounds:
    """The bounds in a table ``[[upstreams.models]]``; a tokenizer is loaded here, so that no request waits for it.

    Args:
        table: of the model.
        dialect: of its upstream.
        outside: whether that is a provider outside; servers inside often give a model of their own a provider's name.
    """
    tokenizer = table.text("tokenizer", None)
    try:
        tokens = None if tokenizer is None else load(tokenizer, Path(table.file).parent)
    except BudgeteerError as error:
        table.fail("tokenizer", f"is {tokenizer!r}: {error}")
    return Bounds(
        tokens=tokens,
        margin=Fraction(str(table.number("margin", 1, least=1, most=100))),
        tools_margin=Fraction(str(table.number("tools_margin", 1 if dialect == "openai" else 2, least=1, most=100))),
        overhead=table.whole("overhead", 256),
        image=table.whole("image", 48_169),
        measured=outside,
        max_input=table.whole("max_input", None, least=1),
        max_output=table.whole("max_output", 4096, least=1),
        hidden_reasoning=table.whole("hidden_reasoning", 0),
    )
