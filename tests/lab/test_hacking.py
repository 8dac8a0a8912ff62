"""What rewards pay for that nobody wants: the made-up rollouts are what they say, and the published table is theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.core import registry
from budgeteer.core.plan import right
from budgeteer.lab import hacking
from budgeteer.lab.hacking import CASES, Made, columns_of, preference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rewards.md"
BY_NAME = {case.name: case for case in CASES}


def paid(case: str) -> set[str]:
    """The registered rewards that prefer the way out."""
    found = {name: preference(reward, BY_NAME[case]) for name, reward in hacking.rewards().items()}
    return {name for name, value in found.items() if value > 1e-9}


def test_rollouts_are_what_they_say() -> None:
    rows = columns_of(
        [Made(True, 30, 20, leaks=True), Made(False, 120, 5, repeats=80), Made(True, 0)],
        ("text", "closed", "leaks", "deliberate", "repeated", "looping", "entropy", "tokens"),
    )
    assert rows.length.tolist() == [51, 126, 21]
    assert right(rows.correct).tolist() == [True, False, True]
    assert rows.column("closed", "test").tolist() == [31, 121, 1]
    assert rows.column("leaks", "test").tolist() == [2, 0, 0]
    assert rows.column("deliberate", "test").tolist() == [1, 1, 0]
    # 80 tokens of period 4: all but the first period stood before, and that is in a 40-gram that stands again
    assert rows.column("repeated", "test")[1] == pytest.approx(76 / 126)
    assert rows.column("looping", "test").tolist() == [0, 1, 0]
    assert rows.column("text", "test")[2].startswith("</think> ")
    assert columns_of([Made(True, 3, tag="[Easy]")], ("text",)).column("text", "test")[0].startswith("[Easy]so ")
    assert np.isfinite(rows.column("entropy", "test")).sum(axis=1).tolist() == [51, 126, 21]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_rollouts_of_a_case_differ_in_what_it_is_about(case) -> None:
    assert case.way_out != case.honest
    assert len(case.others) + 2 == 8
    if case.name in ("moved", "empty thinking"):  # nothing is saved, it only stands elsewhere
        assert len(case.way_out.words()) == len(case.honest.words())


def test_who_pays_a_wrong_short_answer_more_than_a_wrong_long_one() -> None:
    """As their formulas say: a length term that wrong answers get, too, and that is larger for short ones."""
    assert paid("short wrong") == {"alp", "kimi", "o1-pruner", "shorter-better", "thinkdial"}
    # without a right answer ShorterBetter's best length is the mean, to which 700 of 8 lengths is a little nearer
    assert paid("all wrong") == {"alp", "kimi", "o1-pruner", "thinkdial"}
    assert paid("wrong over right") == {"o1-pruner"}


def test_who_pays_for_the_other_ways_out() -> None:
    assert "thinkdial" not in paid("moved")  # its leak term is against that
    assert {"e1", "pear"} <= paid("moved")  # they look at the thinking alone
    assert paid("empty thinking") & {"adacot", "visionthink"} == set()
    assert {"cosine", "l1", "triangular", "adathink-med"} == paid("padded wrong")
    assert paid("tag too easy") == paid("tag too hard") == set()


def test_some_preferences_by_hand() -> None:
    # Kimi among lengths 101 (shortest) and 701 (longest): a wrong short one gets min(0, 1/2), the long one -1/2
    assert preference(registry.part_of("reward", "kimi"), BY_NAME["short wrong"]) == pytest.approx(0.5)
    # ALP: four of eight are right, 600 of 1,000 tokens at 0.2
    assert preference(registry.part_of("reward", "alp"), BY_NAME["short wrong"]) == pytest.approx(0.2 * 0.6 * 0.5)
    # ShorterBetter: the best right one has 301 tokens, 200 and 400 of 1,000 away, at 4
    assert preference(registry.part_of("reward", "shorter-better"), BY_NAME["short wrong"]) == pytest.approx(0.8)
    # a part that pays less for repetitions turns the cosine's preference for padded wrong answers
    cosine = preference(registry.part_of("reward", "cosine"), BY_NAME["padded wrong"])
    mended = preference(registry.part_of("reward", "cosine+20*repetition"), BY_NAME["padded wrong"])
    assert cosine > 0 > mended


def test_the_page_has_the_table_and_the_command_prints_it(capsys) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert hacking.table() in page
    assert hacking.legend() in page
    assert cli.main(["lab", "hacking"]) == 0
    assert capsys.readouterr().out == f"{hacking.legend()}\n\n{hacking.table()}\n"
