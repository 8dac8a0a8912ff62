"""The budget notation and the errors."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer import Budget
from budgeteer.errors import BudgetExceeded, InvalidInput, MissingExtra, UnknownName

KINDS = st.sampled_from(["all", "output", "money", "cache_bytes"])


@given(KINDS, st.integers(0, 10**18))
def test_amounts_survive_printing(kind, amount):
    budget = Budget(kind, amount=amount)
    assert Budget.parse(str(budget)) == budget


@given(st.sampled_from(["all", "output"]), st.integers(1, 10**6))
def test_percentages_survive_printing(kind, hundredths):
    budget = Budget(kind, fraction=Fraction(hundredths, 10_000))
    assert Budget.parse(str(budget)) == budget


@given(st.integers(1, 10_000), st.integers(0, 10**15))
def test_a_fraction_rounds_down_exactly(hundredths, reference):
    got = Budget(fraction=Fraction(hundredths, 10_000)).of(reference)
    assert got == hundredths * reference // 10_000
    assert Budget(amount=7).of(reference) == 7


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("500k", "all", 500_000),
        ("output:1.5m", "output", 1_500_000),
        ("1_000", "all", 1000),
        ("1,000", "all", 1000),
        ("$0.000001", "money", 10**6),
        ("$2k", "money", 2000 * 10**12),
        (" 2B ", "all", 2 * 10**9),
        ("0", "all", 0),
        ("cache_bytes:1_000", "cache_bytes", 1000),
    ],
)
def test_notation(text, kind, amount):
    assert Budget.parse(text) == Budget(kind, amount=amount)


@pytest.mark.parametrize(
    "text", ["", "k", "-1", "1.5", "1e6", "$5%", "output:$5", "0%", "5 %%", "1.0001k", "1/2", "ten"]
)
def test_what_is_not_in_the_notation_is_refused_and_shown(text):
    with pytest.raises(InvalidInput):
        Budget.parse(text)


@given(st.text(max_size=12))
def test_parse_returns_a_budget_or_says_why_not(text):
    try:
        budget = Budget.parse(text)
    except InvalidInput:
        return  # any other exception is a fault
    assert Budget.parse(str(budget)) == budget


def test_a_budget_is_an_amount_or_a_fraction():
    for bad in ({}, {"amount": 1, "fraction": Fraction(1)}, {"amount": -1}, {"fraction": Fraction(0)}):
        with pytest.raises(InvalidInput):
            Budget("all", **bad)


def test_errors_say_what_and_what_to_do():
    over = BudgetExceeded(kind="tokens", scope="step", used=900, requested=200, limit=1000, hint="raise --budget")
    assert str(over) == "step budget of 1,000 tokens does not cover 200 more (900 used); raise --budget"
    assert (over.used, over.requested, over.limit) == (900, 200, 1000)
    assert "did you mean 'duet'" in str(UnknownName("recipe", "duett", ["duet", "grpo"]))
    assert "known: duet, grpo" in str(UnknownName("recipe", "zzz", ["grpo", "duet"]))
    assert "pip install 'budgeteer[rl]'" in str(MissingExtra("torch", "rl"))
