"""The budget notation and the errors."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer import Budget
from budgeteer.core import amounts
from budgeteer.core.budget import Budgets, Window
from budgeteer.core.errors import BudgetExceeded, InvalidInput, MissingExtra, UnknownName
from budgeteer.core.usage import BUCKETS

KINDS = st.sampled_from(["all", "output", "money", "cache_bytes", "input*0.1+output", "input/3+output-cached*0.2"])
WINDOWS = st.none() | st.sampled_from(["hour", "day", "month"]).map(Window) | st.builds(
    Window, st.just("rolling"), st.integers(1, 10**7)
)  # fmt: skip
AMOUNTS = st.builds(Budget, KINDS, st.integers(0, 10**18), st.none(), WINDOWS)
FRACTIONS = st.builds(Budget, KINDS, st.none(), st.integers(1, 10**9).map(lambda n: Fraction(n, 10**7)), WINDOWS)


@given(AMOUNTS | FRACTIONS)
def test_budgets_survive_printing(budget):
    assert Budget.parse(str(budget)) == budget


@given(st.lists(AMOUNTS | FRACTIONS, min_size=1, max_size=5, unique_by=lambda b: (b.kind, b.window)))
def test_lists_survive_printing(budgets):
    found = Budgets(budgets)
    assert Budgets.parse(str(found)) == found


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
        ("$1,500.50", "money", 15005 * 10**11),
        ("1,000,000k", "all", 10**9),
        ("$0.000001", "money", 10**6),
        ("$2k", "money", 2000 * 10**12),
        (" 2B ", "all", 2 * 10**9),
        ("0", "all", 0),
        ("cache_bytes:1_000", "cache_bytes", 1000),
        ("(input*0.10) + output:2k", "input*0.1+output", 2000),
    ],
)
def test_notation(text, kind, amount):
    assert Budget.parse(text) == Budget(kind, amount=amount)


@pytest.mark.parametrize(
    "text",
    ["", "k", "-1", "1.5", "1e6", "$5%", "output:$5", "0%", "5 %%", "1.0001k", "1/2", "ten", ":5", "$5/year",
     "$5/", "5/0s", "nan", "inf", "\u0663", "9" * 5000, "input*output:5", "a b:5", "1/day/hour"],
)  # fmt: skip
def test_what_is_not_in_the_notation_is_refused_and_shown(text):
    with pytest.raises(InvalidInput):
        Budget.parse(text)


@pytest.mark.parametrize("parse", [Budget.parse, Budgets.parse])
@pytest.mark.parametrize(
    "text",
    [
        "$0,50",
        "$1,50",
        "1,5k",
        "5,6",
        "1,0000",
        "1000,000",
        "0,500",
        "$1.000,50",
        "output:1,5m/day",
        "1,,000",
        "12,34,567",
    ],
)
def test_a_comma_that_groups_no_thousands_is_refused(parse, text):
    with pytest.raises(InvalidInput, match=r"write \$0\.50|not in the notation"):
        parse(text)


@pytest.mark.parametrize("text", ["1,000", "$1,500", "$0.50", "output:1,500k/day"])
def test_a_list_of_one_is_read_as_one(text):
    assert Budgets.parse(text) == (Budget.parse(text),)


@given(st.text(max_size=12))
def test_parse_returns_a_budget_or_says_why_not(text):
    try:
        budget = Budget.parse(text)
    except InvalidInput:
        return  # any other exception is a fault
    assert Budget.parse(str(budget)) == budget


def test_a_budget_is_an_amount_or_a_fraction():
    for bad in (
        {}, {"amount": 1, "fraction": Fraction(1)}, {"amount": -1}, {"fraction": Fraction(0)}, {"amount": True},
        {"amount": 1.0}, {"amount": float("nan")}, {"fraction": 0.5}, {"fraction": True}, {"amount": 10**41},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            Budget("all", **bad)


@pytest.mark.parametrize(
    ("text", "window"),
    [("$5/hour", Window("hour")), ("$5/DAY", Window("day")), ("output:1m/month", Window("month")),
     ("500k/90s", Window("rolling", 90)), ("500k/7d", Window("rolling", 604_800)),
     ("50%/24h", Window("rolling", 86_400))],
)  # fmt: skip
def test_windows(text, window):
    assert Budget.parse(text).window == window


def test_a_day_of_the_calendar_is_not_the_last_24_hours():
    assert Budget.parse("$5/day") != Budget.parse("$5/1d")
    for bad in (("week", 0), ("rolling", 0), ("day", 3), ("rolling", -1), ("rolling", True)):
        with pytest.raises(InvalidInput):
            Window(*bad)


def test_lists():
    assert Budgets.parse("output:1m,$5/day") == (Budget("output", 10**6), Budget.parse("$5/day"))
    assert Budgets.parse("1,000") == (Budget(amount=1000),)
    assert Budgets.parse("$5, 100k") == (Budget.parse("$5"), Budget.parse("100k"))
    assert len(Budgets.parse("$5/hour, $20/day")) == 2
    for bad in ("$5, $6", "", "$5,", "$5; 100k"):
        with pytest.raises(InvalidInput):
            Budgets.parse(bad)
    with pytest.raises(InvalidInput):
        Budgets(())


def test_errors_say_what_and_what_to_do():
    over = BudgetExceeded(kind="tokens", scope="step", used=900, requested=200, limit=1000, hint="raise it")
    said = "step: 100 tokens left of 1,000, this request may use 200 (900 tokens used, 0 tokens reserved); raise it"
    assert str(over) == said
    money = BudgetExceeded(
        kind="money", scope="acme", used=4_999_000_000_000, requested=9_896_000_001, limit=5 * 10**12, held=10**9,
        window="day",
    )  # fmt: skip
    assert str(money) == "acme: $0.001 left of $5/day, this request may cost $0.0099 ($4.99 used, $0.001 reserved)"
    calls = BudgetExceeded(kind="requests", scope="k", used=60, requested=1, limit=60, window=60)
    assert str(calls) == "k: 0 requests left of 60/60s, this request may use 1 (60 requests used, 0 requests reserved)"


def test_every_bucket_of_tokens_has_a_name_for_people():
    for bucket in BUCKETS:
        assert amounts.noun(bucket) == f"{bucket.replace('_', ' ')} tokens"
    assert amounts.noun("all") == "tokens"


@given(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15))
def test_what_is_shown_of_a_shortage_shows_a_shortage(left, requested):
    """However close they are, less is never shown to be left than there is, nor more requested."""

    def read(text):
        return Fraction(text.replace("$", "").replace(",", ""))

    small, large = min(left, requested), max(left, requested)
    shown = amounts.dollars(small, ROUND_FLOOR), amounts.dollars(large, ROUND_CEILING)
    assert read(shown[0]) * 10**12 <= small
    assert read(shown[1]) * 10**12 >= large
    assert small == large or read(shown[0]) < read(shown[1])


def test_errors_of_names_and_extras_say_what_to_do():
    over = BudgetExceeded(kind="tokens", scope="step", used=900, requested=200, limit=1000)
    assert (over.used, over.requested, over.limit) == (900, 200, 1000)
    assert "did you mean 'duet'" in str(UnknownName("recipe", "duett", ["duet", "grpo"]))
    assert "known: duet, grpo" in str(UnknownName("recipe", "zzz", ["grpo", "duet"]))
    assert "pip install 'budgeteer[rl]'" in str(MissingExtra("torch", "rl"))
