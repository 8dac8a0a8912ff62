"""Several candidates of an answer, and the score Pass@k, by hand: one token a character."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

import pytest

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, Question, Style
from budgeteer.solve.runner import Settings, run
from budgeteer.strategies import best_of_majority, best_of_n, direct, self_consistency
from budgeteer.strategies.scorer import programmatic, self_evaluation
from helpers.cli_child import Slow, loader

STYLE = Style(lambda q: f"{q}=", lambda rest: rest.strip() or None, close="#", stop=("\n",), answer_tokens=4)
LONG = programmatic(lambda question, trace: trace.count("a") / 10)
# samples: 5 four times (score 0.1), 4 three times (0.2), 9 twice (0.3), 2 once (0.9)
TEXTS = ("a#5\n", "aa#4\n", "a#5\n", "aaa#9\n", "aa#4\n", "a#5\n", "aaaaaaaaa#2\n", "aa#4\n", "aaa#9\n", "a#5\n")


def go(strategy, reference="9", texts=TEXTS, budget="10000", **more):
    turn = itertools.cycle(texts)
    model = Scripted(lambda prompt, rng: next(turn))
    grade = lambda question, answer: None if reference is None else float(answer == reference)  # noqa: E731
    settings = Settings(grade=grade, **more)
    (row,) = asyncio.run(run([Question("q", "2+2")], strategy, model, STYLE, budget, settings)).rows
    return row


@pytest.mark.parametrize(
    ("strategy", "submitted"),
    [
        (self_consistency(10, max_tokens=16), ["5", "4", "9"]),  # by frequency
        (best_of_n(LONG, 10, max_tokens=16), ["2", "9", "4"]),  # by score
        (best_of_majority(LONG, 10, alpha=0.2, max_tokens=16), ["9", "4", "5"]),  # by score, without the rare 2
        (best_of_majority(LONG, 10, alpha=0.3, max_tokens=16), ["4", "5"]),  # two answers are that frequent: two, not 3
        (best_of_majority(LONG, 10, alpha=0.9, max_tokens=16), ["2", "9", "4"]),  # none is: all of them
        (direct(max_tokens=16), ["5"]),  # one trace has one answer
    ],
)
def test_the_first_k_candidates_are_submitted(strategy, submitted):
    row = go(strategy, pass_at=3)
    assert row["submitted"] == submitted
    assert row["answer"] == submitted[0]
    assert row["correct"] is ("9" in submitted)


def test_k_decides_what_is_right():
    strategy = best_of_majority(LONG, 10, alpha=0.2, max_tokens=16)
    # the candidates are 9, 4, 5
    assert [go(strategy, "5", pass_at=k)["correct"] for k in (1, 2, 3, 4)] == [False, False, True, True]
    assert [go(strategy, "2", pass_at=k)["correct"] for k in (1, 4)] == [False, False]
    assert "submitted" not in go(strategy)
    assert go(strategy, None, pass_at=3)["correct"] is None


def test_frequent_answers_without_a_score_come_last():
    """The judge says yes to 4 and no to 5, and nothing about 9: no word that can be read."""
    texts = itertools.cycle(TEXTS)

    def say(prompt, rng):
        if "correct?" not in prompt:
            return next(texts)
        return " Yes" if "#4" in prompt else " No" if "#5" in prompt else " ..."

    strategy = best_of_majority(self_evaluation(), 10, alpha=0.2, max_tokens=16)
    settings = Settings(pass_at=3)
    (row,) = asyncio.run(run([Question("q", "2+2")], strategy, Scripted(say), STYLE, "100000", settings)).rows
    assert row["submitted"] == ["4", "5", "9"]


def test_without_an_answer_nothing_is_submitted_and_nothing_is_right():
    row = go(self_consistency(3, max_tokens=16), texts=("aaa\n",), pass_at=2)
    assert (row["answer"], row["submitted"], row["correct"]) == (None, [], False)


def test_bad_values():
    with pytest.raises(InvalidInput, match="pass_at is 0"):
        go(self_consistency(2, max_tokens=16), pass_at=0)
    for candidates in (("5", "7"), ("7", "7")):
        with pytest.raises(InvalidInput, match="best first"):
            Answer("7", "done", candidates=candidates)


def test_on_the_command_line(monkeypatch, tmp_path, capsys):
    """Two of three samples are right, so the two most frequent of twelve answers hold the right one."""
    out = tmp_path / "answers.jsonl"
    command = ["solve", "chains:max_steps=2", "--strategy", "self-consistency:n=12,max_tokens=40", "--budget", "2k"]
    command += ["--limit", "8", "--out", str(out), "--style", "reasoner"]
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", loader(Slow()))
    assert cli.main([*command, "--pass-at", "2"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(len(row["submitted"]) <= 2 for row in rows)
    assert "pass@2      100%" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", loader(Slow()))
    assert cli.main(command) == 2
    assert "begun with pass at = '2', not None" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", loader(Slow()))
    command = ["frontier", "self-consistency:n=6,max_tokens=40,direct", "chains:max_steps=2", "--budgets", "500"]
    command += ["--limit", "6", "--seeds", "2", "--pass-at", "2", "--style", "reasoner", "--out", str(tmp_path / "f")]
    assert cli.main(command) == 0
    assert "pass@2" in capsys.readouterr().out.splitlines()[0]
    assert "one of the first 2 candidates" in (tmp_path / "f" / "report.html").read_text()
    numbers = json.loads((tmp_path / "f" / "frontier.json").read_text())
    assert numbers["config"]["pass at"] == 2
