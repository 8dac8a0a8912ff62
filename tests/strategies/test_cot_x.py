"""Segments, importance and shortening of traces, and reasoning that is handed to another model."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.solve import Answer, Budgeted, Question, Style, Task
from budgeteer.solve.registered import build
from budgeteer.strategies import cot_x
from budgeteer.strategies._cot_x import reasoning, traces_of
from budgeteer.strategies.kit.digest import digest, importance, segments, shortened, without_answer

STYLE = Style(lambda text: text + "\n", lambda text: text.strip() or None, "</think>", stop=("\n",), answer_tokens=9)
TRACE = "The sky is blue. The box weighs 7 kg. Birds sing. Two boxes weigh 7+7=14 kg. So the answer is 14."
ASKED = "How many kg do two boxes weigh?"


def words(text: str) -> int:
    return len(text.split())


def test_what_was_said_about_the_question_matters_most() -> None:
    parts = without_answer(segments(TRACE))
    scores = importance(parts, ASKED)
    assert scores.sum() == pytest.approx(1)
    assert {parts[i] for i in np.argsort(-scores)[:2]} == {"Two boxes weigh 7+7=14 kg.", "The box weighs 7 kg."}


def test_importance_is_the_fixed_point_of_its_equation() -> None:
    parts = ["a b", "b c", "c d", "x"]
    scores = importance(parts, "a d", damping=0.6)
    # cosines with idf ln(1 + 4/df): a, d, x in one part, b and c in two
    idf = {"a": np.log(5), "b": np.log(3), "c": np.log(3), "d": np.log(5), "x": np.log(5)}
    vector = np.array([[idf[w] if w in part.split() else 0 for w in "abcdx"] for part in [*parts, "a d"]])
    vector /= np.linalg.norm(vector, axis=1)[:, None]
    alike = vector[:4] @ vector[:4].T * (1 - np.eye(4))
    carried = np.full((4, 4), 0.25)
    carried[:3] = alike[:3] / alike[:3].sum(axis=1)[:, None]
    back = vector[:4] @ vector[4] + 1e-3
    back /= back.sum()
    exact = np.linalg.solve(np.eye(4) - 0.6 * carried.T, 0.4 * back)
    assert scores == pytest.approx(exact / exact.sum(), abs=1e-9)


def test_importance_of_given_vectors_is_the_fixed_point_of_its_equation() -> None:
    """Cosines: a and b 0.6, b and c 0.8, a and c 0; to the question 1, 0.6 and, below 0, none."""
    known = {"a": [2.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 5.0], "q": [1.0, 0.0]}
    scores = importance("abc", "q", damping=0.5, embed=lambda texts: np.array([known[text] for text in texts]))
    carried = np.array([[0, 1, 0], [0.6 / 1.4, 0, 0.8 / 1.4], [0, 1, 0]])
    back = np.array([1.0, 0.6, 0.0]) + 1e-3
    exact = np.linalg.solve(np.eye(3) - 0.5 * carried.T, 0.5 * back / back.sum())
    assert scores == pytest.approx(exact / exact.sum(), abs=1e-9)
    against = importance("ab", "q", embed=lambda texts: np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]))
    assert (against > 0).all()
    assert against[0] > against[1]


@pytest.mark.parametrize("budget", [0, 1, 5, 9, 14, 40])
def test_the_knapsack_keeps_the_most_importance_of_all_sets(budget: int) -> None:
    rng = np.random.default_rng(budget)
    scores, cost = rng.random(8), rng.integers(1, 9, 8).tolist()
    kept = shortened(["x"] * 8, scores, cost, budget)
    every = [s for n in range(9) for s in itertools.combinations(range(8), n) if sum(cost[i] for i in s) <= budget]
    assert scores[kept].sum() == pytest.approx(max(scores[list(s)].sum() for s in every))
    assert sum(cost[i] for i in kept) <= budget
    assert kept == sorted(kept)


def test_truncation_keeps_the_beginning_or_the_end() -> None:
    cost = [2, 3, 4]
    assert shortened("abc", np.ones(3), cost, 5, "first") == [0, 1]
    assert shortened("abc", np.ones(3), cost, 5, "last") == [2]
    assert shortened("abc", np.ones(3), cost, 9, "last") == [0, 1, 2]


def test_a_digest_is_in_order_within_its_budget_and_without_the_answer() -> None:
    assert digest(TRACE, ASKED, 100, words) == TRACE.removesuffix(" So the answer is 14.")
    assert digest(TRACE, ASKED, 10, words) == "The box weighs 7 kg. Two boxes weigh 7+7=14 kg."
    assert digest("3-7=7;7*2=3;", "3 - 7 * 2", 99, words) == "3-7=7;7*2=3;"
    assert digest("a=1\nb=2\n", "b", 99, words) == "a=1\nb=2"
    assert digest("", ASKED, 10, words) == ""


def solve(strategy: object, known: bool = True) -> tuple[Answer, Scripted]:
    def write(prompt: str, rng: object) -> str:
        if prompt.endswith("Text:"):
            return " One box is 7 kg, so 7+7=14 kg.\n\nMore?"
        tail = prompt.rpartition("\n")[2]
        if "</think>" in tail:
            return ("14" if "7+7=14" in tail else "0") + "\n"
        return "The box weighs 7 kg. Two boxes weigh 7+7=14 kg.</think>14\n" if not tail else " Yes.</think>"

    model = Scripted(write, characters=False)
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", 500)])
    question = Question("q1" if known else "q2", ASKED)
    task = Task(question, Budgeted(model, Allowance(ledger, "q", {"all": 500})), STYLE, 1)
    return asyncio.run(strategy.solve(task)), model  # type: ignore[attr-defined]


def test_the_model_reads_what_was_kept_and_answers() -> None:
    known = {"q1": f"<think>\n{TRACE}\n</think>\n\n14"}
    answer, model = solve(cot_x(known, tokens=10))
    assert answer.answer == "14"
    assert [str(r.prompt) for r in model.requests] == [
        ASKED + "\nThe box weighs 7 kg. Two boxes weigh 7+7=14 kg.</think>"
    ]
    assert solve(cot_x(known, tokens=10, keep="first"))[0].answer == "0"
    _, model = solve(cot_x(known, tokens=10, more=5))
    assert [r.max_tokens for r in model.requests] == [5, 9]
    assert str(model.requests[1].prompt).endswith("7+7=14 kg. Yes.</think>")


def test_what_was_kept_is_written_anew_if_that_fits() -> None:
    known = {"q1": f"<think>\n{TRACE}\n</think>\n\n14"}
    answer, model = solve(cot_x(known, tokens=10, rewrite=20))
    assert answer.traces == ("One box is 7 kg, so 7+7=14 kg.</think>14",)
    assert [r.max_tokens for r in model.requests] == [20, 9]
    assert "Notes: The box weighs 7 kg. Two boxes weigh 7+7=14 kg.\n" in str(model.requests[0].prompt)
    cut, _ = solve(cot_x(known, tokens=10, rewrite=3))
    assert cut.traces == ("The box weighs 7 kg. Two boxes weigh 7+7=14 kg.</think>14",)
    nothing, model = solve(cot_x(known, tokens=0, rewrite=20))
    assert (nothing.answer, len(model.requests)) == ("0", 1)


def test_likeness_by_a_sentence_encoder_chooses_what_is_kept() -> None:
    def birds(texts: object) -> np.ndarray:
        return np.array([[1.0, 0.0] if "Birds" in text or "How" in text else [0.0, 1.0] for text in texts])  # type: ignore[attr-defined]

    answer, _ = solve(cot_x({"q1": TRACE}, tokens=2, embed=birds))
    assert answer.traces == ("Birds sing.</think>0",)


def test_a_question_without_a_trace_is_thought_about_first() -> None:
    answer, model = solve(cot_x({"q1": TRACE}, tokens=10, source_tokens=40), known=False)
    assert answer.answer == "14"
    assert [r.max_tokens for r in model.requests] == [40, 9]


def test_traces_are_read_from_the_file_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    rows = [{"id": "q1", "traces": [TRACE, "x"]}, {"id": "q3", "traces": []}, {"id": "q4", "traces": ["a\u2028b"]}]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert traces_of("cot-x", str(path)) == {"q1": TRACE, "q4": "a\u2028b"}
    assert traces_of("cot-x", "none") == {}
    assert solve(build(f"cot-x:traces={path},tokens=10"))[0].answer == "14"
    for text in ("", '{"id": 1}\n', "no json\n"):
        path.write_text(text)
        if text:
            with pytest.raises(CheckpointError, match="--traces"):
                traces_of("cot-x", str(path))
    with pytest.raises(CheckpointError, match="--traces"):
        traces_of("cot-x", str(tmp_path / "none.jsonl"))


def test_numbers_out_of_range_and_tags() -> None:
    for bad in ({"tokens": -1}, {"more": -1}, {"source_tokens": 0}, {"keep": "best"}, {"rewrite": -1}):
        with pytest.raises(InvalidInput, match="cot_x"):
            cot_x(**bad)  # type: ignore[arg-type]
    assert reasoning("a b <end> c", "<end>") == "a b"
    assert reasoning("just thoughts", "</think>") == "just thoughts"
