"""Columns that are declared once, and what everything does with a new one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from budgeteer.allocate import itemfile, proportional, water_filling
from budgeteer.cli import main
from budgeteer.core.budget import Budget
from budgeteer.core.column import Column, column, declare
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.meter import meter
from budgeteer.core.plan import ENDED, Items, Outcomes
from budgeteer.core.usage import Usage

AGE = declare(Column("age_in_tests", "days since the prompt was written", "ask its author", most=365, unknown=True))
COINS = declare(Column("coins_in_tests", "coins that the unit paid", whole=True), "outcomes")


def test_a_new_column_is_kept_selected_and_read() -> None:
    items = Items(("a", "b", "c"), [1, 2, 3], age_in_tests=[3, None, 9])
    assert items.take(np.array([2, 0])).columns[AGE].tolist() == [9.0, 3.0]
    assert np.isnan(items.column(AGE, "a test")[1])
    assert items.with_columns(age_in_tests=None, std=[1, 1, 1]).columns.keys() == {"cost", "std"}
    assert Items((), columns=items.take(np.zeros(0, np.int64)).columns).columns.keys() == {"cost", AGE}


def test_a_missing_column_says_who_wants_it_and_where_it_comes_from() -> None:
    items = Items(("a",), [1], std=[2])
    with pytest.raises(InvalidInput, match=r"a test needs the column 'age_in_tests' of Items \(days .*ask its auth"):
        items.column(AGE, "a test")
    method = water_filling()
    with pytest.raises(
        InvalidInput, match=r"water-filling needs the column 'scale' .* have only: (std, cost|cost, std)\. To add"
    ):
        method.allocate(5, items, method.init(items), rng=np.random.default_rng(0))
    with pytest.raises(UnknownName, match="did you mean 'age_in_tests'"):
        Items(("a",), [1], age_in_test=[1])
    with pytest.raises(InvalidInput, match=r"Items.age_in_tests is 400.0 for 'a'; it is a number from 0 to 365, or"):
        Items(("a",), [1], age_in_tests=[400])
    with pytest.raises(InvalidInput, match="declared a second time"):
        declare(Column(AGE, "something else"))


def test_outcomes_take_new_columns_too() -> None:
    rows = Outcomes(("a", "b"), [5, 6], [1.0, 0.0], [np.nan, 1.0], [ENDED, ENDED], coins_in_tests=[7, 8])
    assert rows.take(np.array([False, True])).columns[COINS].tolist() == [8]
    with pytest.raises(InvalidInput, match=r"Outcomes.tokens has shape \(1,\), expected \(2,\)"):
        Outcomes(("a", "b"), [5], [1.0, 0.0], [0.0, 1.0], [ENDED, ENDED])


def test_columns_of_rollouts_may_be_texts_or_have_an_entry_a_token() -> None:
    words = Column("words_in_tests", "what it says", text=True)
    bits = Column("bits_in_tests", "bits of each token", most=8, unknown=True, per_token=True)
    assert words.checked("rollouts", ["a", ""], ("p", "q")).tolist() == ["a", ""]
    assert words.checked("rollouts", [], ()).shape == (0,)
    assert words.allowed() == "a text"
    given = bits.checked("rollouts", [[1, np.nan], [2, 8]], ("p", "q"))
    assert given.shape == (2, 2)
    for column_, values, said in (
        (words, ["a"], "words_in_tests has 1 texts for 2 keys"),
        (words, ["a", 7], "words_in_tests is 7 for 'q'; it is a text: what it says"),
        (bits, [1, 2], r"has shape \(2,\), expected \(2, t\): one value a token of each row"),
        (bits, [[1, 2], [3, 9]], r"bits_in_tests is 9.0 for 'q'; it is a number from 0 to 8, or null"),
    ):
        with pytest.raises(InvalidInput, match=said):
            column_.checked("rollouts", values, ("p", "q"))
    whole = Column("whole_in_tests", "a count", per_token=True)
    with pytest.raises(InvalidInput, match="whole_in_tests is not finite for 'q'"):
        whole.checked("rollouts", [[1.0, 2.0], [3.0, np.nan]], ("p", "q"))
    for column_, said in (
        (words, "only columns of rollouts may"),
        (Column("made_in_tests", "made", make=len), "only columns of rollouts may"),
    ):
        with pytest.raises(InvalidInput, match=said):
            declare(column_)
    with pytest.raises(InvalidInput, match="has needs and no make"):
        declare(Column("made_in_tests", "made", needs=("length",)), "rollouts")
    with pytest.raises(UnknownName, match="'length'"):
        declare(Column("made_in_tests", "made", needs=("lenght",), make=len), "rollouts")


def test_files_and_the_command_line_take_it(capsys, monkeypatch, tmp_path) -> None:
    lines = ['{"key": "a", "cost": 1, "age_in_tests": 30}', '{"key": "b", "cost": 1, "age_in_tests": 10}']
    assert itemfile.from_jsonl(lines).columns[AGE].tolist() == [30.0, 10.0]
    assert np.isnan(itemfile.from_jsonl([lines[0].replace("30", "null")]).columns[AGE][0])
    with pytest.raises(InvalidInput, match=r"line 1: age_in_tests is -1; it is a number from 0 to 365"):
        itemfile.from_jsonl([lines[0].replace("30", "-1")])
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(lines))
    assert main(["allocate", str(file), "--method", f"proportional:by={AGE}", "--budget", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"] == {"a": 3, "b": 1}
    assert main(["allocate", str(file), "--method", "uniform", "--budget", "4", "--explain"]) == 0
    assert "for age_in_tests 30" in capsys.readouterr().out
    with pytest.raises(UnknownName, match="age_in_tests"):
        proportional("age_in_test")
    assert column(AGE).meaning.startswith("days")


@pytest.mark.parametrize(
    "kind", ["cache", "bits", "tiles", "turns", "tool", "tool:search", "bytes", "bytes:search", "joules"]
)
def test_what_a_budget_parses_can_be_metered(kind) -> None:
    budget = Budget.parse(f"{kind}:512")
    assert (budget.kind, budget.amount) == (kind, 512)
    measure = meter(budget.kind)
    assert measure.kind == kind
    assert measure(Usage(output=9, counts={kind: 3, "other": 4})) == measure.worst(Usage(counts={kind: 3})) == 3
    with pytest.raises(InvalidInput, match=f"{kind} cannot be measured: nobody counted it"):
        measure(Usage(input=5, output=9))


def test_counts_are_added_where_both_sides_know_them() -> None:
    total = Usage(output=1, counts={"turns": 2, "bits": 1}) + Usage(output=2, counts={"turns": 3})
    assert total == Usage(output=3, counts={"turns": 5})
    assert hash(total) == hash(Usage(output=3, counts={"turns": 5}))
    with pytest.raises(InvalidInput, match="turns"):
        Usage(counts={"turns": -1})


def test_kinds_that_nothing_meters_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownName, match=r"known: .*cache.*joules.*money.*output"):
        meter("qqqqq")
    with pytest.raises(InvalidInput, match="takes no argument"):
        meter("turns:two")
