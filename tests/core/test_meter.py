"""Meters: formulas against Python's own arithmetic in fractions, worst cases against brute force."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer import Usage
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.meter import BUCKETS, Money, Tokens, canonical, exact, meter, meters

WEIGHTS = st.builds(Fraction, st.integers(1, 999), st.integers(1, 60))


@pytest.mark.parametrize(
    ("text", "kind", "units"),
    [
        ("all", "all", 130),
        ("input", "input", 100),
        ("output", "output", 30),
        ("cached", "cached", 40),
        ("input*0.1+output", "input*0.1+output", 40),
        ("(input*0.1) + output", "input*0.1+output", 40),
        ("0.101*input", "input*0.101", 11),
        ("input - cached + output", "input+output-cached", 90),
        ("(input-cached*0.9)/3+2*(output+reasoning)", "input/3+output*2+reasoning*2-cached*0.3", 112),
        ("all/7", "input/7+output/7", 19),
        ("input*2/3", "input*2/3", 67),
    ],
)
def test_by_hand(text, kind, units):
    usage = Usage(input=100, output=30, cached=40, reasoning=15)
    found = Tokens.parse(text)
    assert (found.kind, found(usage)) == (kind, units)
    assert Tokens.parse(found.kind)(usage) == units


@given(st.dictionaries(st.sampled_from(["input", "output", "cached", "reasoning"]), WEIGHTS, min_size=1), st.data())
def test_formulas_are_exact_and_rounded_up(weights, data):
    text = "+".join(f"{name}*{w.numerator}/{w.denominator}" for name, w in weights.items())
    read, made = data.draw(st.integers(0, 10**9)), data.draw(st.integers(0, 10**9))
    usage = Usage(input=read, output=made, cached=data.draw(st.integers(0, read)), reasoning=made // 2)
    found = Tokens.parse(text)
    assert found(usage) == math.ceil(sum(w * getattr(usage, name) for name, w in weights.items()))
    assert canonical(found.kind) == found.kind
    assert Tokens.parse(found.kind).weights == found.weights


@given(st.dictionaries(st.sampled_from(BUCKETS), st.integers(-3, 3), min_size=1))
def test_worst_is_the_largest_over_all_parts(weights):
    text = "0*input" + "".join(f"{'-' if w < 0 else '+'}{name}*{abs(w)}" for name, w in weights.items())
    try:
        found = Tokens.parse(text)
    except InvalidInput:
        negative = True
    else:
        negative = False
    most, least = 0, 0
    grid = range(3)
    for cached, written, long, audio in itertools.product(grid, repeat=4):
        for reasoning, audio_output in itertools.product(grid, repeat=2):
            try:
                usage = Usage(input=2, output=2, cached=cached, written=written, written_long=long, audio_input=audio,
                              reasoning=reasoning, audio_output=audio_output)  # fmt: skip
            except InvalidInput:
                continue
            units = sum(w * getattr(usage, name) for name, w in weights.items())
            most, least = max(most, units), min(least, units)
    if negative:
        # also refused: a form that is 0, and one whose input or output alone can be negative
        separate = min(_least(weights, "input"), _least(weights, "output"))
        assert separate < 0 or not any(weights.values())
        return
    assert least >= 0
    assert found.worst(Usage(input=2, output=2)) == most


def _least(weights, whole):
    inputs = ("input", "cached", "written", "written_long", "audio_input")
    mine = {n: w for n, w in weights.items() if (n in inputs) == (whole == "input")}
    found = []
    for values in itertools.product(range(3), repeat=4):
        parts = (
            dict(zip(("cached", "written", "written_long", "audio_input"), values, strict=True))
            if whole == "input"
            else {"reasoning": values[0], "audio_output": values[1]}
        )
        try:
            usage = Usage(input=2, output=2, **parts)
        except InvalidInput:
            continue
        found.append(sum(w * (getattr(usage, n) or 0) for n, w in mine.items()))
    return min(found)


@pytest.mark.parametrize(
    "bad",
    ["", "input*output", "1/input", "input/0", "5", "input+5", "output-input", "input+", "(input", "input)", "2 input",
     "input**2", "-input", "input*1e3", "inp\u00fct", "cached-written", "input-input", "input*" * 60 + "1"],
)  # fmt: skip
def test_what_is_not_a_meter_is_refused(bad):
    with pytest.raises(InvalidInput):
        Tokens.parse(bad)


@given(st.text("inputo*+-/().0123456789 ", max_size=30))
def test_parse_answers_or_says_why_not(text):
    try:
        found = Tokens.parse(text)
    except (InvalidInput, UnknownName):
        return
    assert Tokens.parse(found.kind).weights == found.weights


def test_unknown_names_and_usage():
    with pytest.raises(UnknownName, match="did you mean 'output'"):
        meter("outputs")
    with pytest.raises(InvalidInput, match=r"output of .* is unknown"):
        meter("all")(Usage(input=3))
    assert meter("input")(Usage(input=3)) == 3
    assert meter("output+reasoning")(Usage(input=3, output=4)) == 4  # a part nobody reported
    assert meter("output+reasoning").worst(Usage(input=3, output=4)) == 8


def test_money_goes_through_prices():
    class Prices:
        def cost(self, usage, model, service=""):
            return len(model) + usage.total

        def worst(self, usage, model, service=""):
            return 2 * self.cost(usage, model)

    money, output = meters(["money", "output", "money"], Prices())
    assert isinstance(money, Money)
    assert (money.kind, output.kind) == ("money", "output")
    assert (money(Usage(input=1, output=2), "abc"), money.worst(Usage(input=1, output=2), "abc")) == (6, 12)
    with pytest.raises(InvalidInput, match="needs prices"):
        meter("money")


@given(st.integers(0, 10**12), st.integers(0, 12), st.integers(0, 12))
def test_exact_decimals(numerator, twos, fives):
    number = Fraction(numerator, 2**twos * 5**fives)
    assert Fraction(exact(number)) == number
    assert exact(Fraction(1, 3)) is None
