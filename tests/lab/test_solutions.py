"""Worked solutions of tasks lead to their answers."""

from __future__ import annotations

import json

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.lab.tasks.chains import Chains
from budgeteer.lab.tasks.files import read
from budgeteer.lab.tasks.gym import Gym
from budgeteer.lab.tasks.worked import SOLUTIONS, steps_of_gcd
from helpers import needs


def test_the_last_step_of_a_chain_gives_its_answer() -> None:
    for item in Chains(size=60, seed=3, max_steps=6).items:
        assert len(item.solution) == int(item.level)
        results = [step.rstrip(";").split("=")[1] for step in item.solution]
        assert results[-1] == item.answer
        for step, before in zip(item.solution[1:], results, strict=False):
            assert step.startswith(before)  # each goes on where the one before ended
        first = item.prompt.removeprefix("Modulo 11, from left to right: ").split()[0]
        assert item.solution[0].startswith(first)


@pytest.mark.parametrize("family", list(SOLUTIONS))
def test_the_steps_of_reasoning_gyms_families_lead_to_its_answers(family) -> None:
    needs.reasoning_gym()

    for item in Gym(family, size=40, seed=2).items:
        if family == "number_filtering":
            kept = [step[:-2] for step in item.solution if step.endswith("y;")]
            assert str(kept) == item.answer
            assert len(item.solution) == len(item.entry["metadata"]["original_numbers"])
        elif family == "gcd":
            last = item.solution[-1]
            assert last.endswith("=0;")
            assert last.partition("%")[2].partition("=")[0] == item.answer
        else:
            assert item.solution[-1].endswith(f"={item.answer};")


def test_a_common_divisor_of_three_numbers() -> None:
    assert steps_of_gcd([12, 18, 4]) == ("18%12=6;", "12%6=0;", "6%4=2;", "4%2=0;")


def test_a_file_gives_solutions_as_lists_or_lines(tmp_path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"question": "1+1", "answer": "2", "solution": given} for given in (["a;", "b;"], "one\ntwo\n", None)]
    path.write_text("\n".join(map(json.dumps, rows)))
    _, items = read(str(path), "question", "answer", None)
    assert [item.solution for item in items] == [("a;", "b;"), ("one\n", "two\n"), ()]
    path.write_text(json.dumps({"question": "1+1", "answer": "2", "solution": [1, 2]}))
    with pytest.raises(InvalidInput, match=r"line 1: field 'solution' holds \[1, 2\]; give a text, or a list"):
        read(str(path), "question", "answer", None)
