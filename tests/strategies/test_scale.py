"""SCALE with several outlines and two systems, on scripted models by hand: one token a character."""

from __future__ import annotations

import asyncio
import json

import pytest

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, UnknownName, UnknownPrice
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import THINK, Chat, Message, contents
from budgeteer.models.model import PREFIX
from budgeteer.solve import Answer, Budgeted, Question, Style, Task
from budgeteer.solve.least import least
from budgeteer.solve.runner import Settings, run
from budgeteer.strategies import scale
from helpers.cli_child import Slow

RAW = Style(lambda q: f"{q}=", lambda rest: rest.strip() or None, close="#", stop=("\n",), answer_tokens=4)
CHAT = Style(
    lambda q: Chat((Message("user", q),), tags=THINK),
    lambda rest: rest.strip() or None,
    close="</think>",
    end=THINK.end,
    answer_tokens=20,
)
PARTS = {"plan": lambda question: ["easy", "hard", "end"], "ask": lambda question, known, part: part}
PARTS |= {"difficulty": lambda question, part: 0.9 if part == "hard" else 0.1}
LISTS = ("one\n2. two\n3. rest\n\n", "uno\n2. due\n3. rest\n\n", "one\n2. two\n3. rest\n\n", "eins\n2. rest\n\n")


def solve(strategy, model, style=RAW, budget=10**6):
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", budget)])
    budgeted = Budgeted(model, Allowance(ledger, "q", {"all": budget}))
    return asyncio.run(strategy.solve(Task(Question("q1", "2+2"), budgeted, style, 7))), budgeted


def planner(number):
    """Writes the four LISTS, rates everything 9 but "due", and chooses list ``number``."""
    lists = iter(LISTS * 9)

    def write(prompt, rng):
        if "List the sub-problems" in prompt:
            return next(lists)
        if prompt.endswith("Number:"):
            return f" {number}\n"
        if prompt.endswith("Rating:"):
            return " 0\n" if "due" in prompt.split("Sub-problem:")[1] else " 9\n"
        return "8\n" if prompt.endswith("#") else "t#6\n"

    return Scripted(write)


@pytest.mark.parametrize(("number", "parts"), [("2", ["uno", "due"]), ("3", ["eins"]), ("7", ["one", "two"]), ("none", ["one", "two"])])  # fmt: skip  # noqa: E501
def test_the_model_chooses_among_different_outlines(number, parts):
    model = planner(number)
    answer, budgeted = solve(scale(0.5, outlines=4, max_tokens=30), model)
    outline, choice, *rest = model.requests
    assert (outline.n, outline.prompt.count("List the sub-problems")) == (4, 1)
    shown = ["List 1:\n- one\n- two\n- rest\n", "List 2:\n- uno\n- due\n- rest\n", "List 3:\n- eins\n- rest\n"]
    assert all(text in choice.prompt for text in shown)  # the third list was drawn twice
    assert "List 4" not in choice.prompt
    rated = [r.prompt.split("Sub-problem: ")[1].split("\n")[0] for r in rest if r.prompt.endswith("Rating:")]
    assert rated == parts
    assert answer.traces == tuple("#8" if part == "due" else "t#6" for part in [*parts, "2+2"])
    assert budgeted.spend.calls == len(model.requests)


def test_equal_outlines_are_not_put_to_the_vote():
    model = planner("1")
    model.write, write = lambda prompt, rng: LISTS[0] if "List the" in prompt else write(prompt, rng), model.write
    solve(scale(0.5, outlines=3, max_tokens=30), model)
    assert not any(request.prompt.endswith("Number:") for request in model.requests)


def test_the_switch_turns_the_thinking_off_for_easy_parts():
    def write(text, rng):
        # an endpoint with the thinking apart writes empty tags itself; a model that runs here does not
        return {"easy": "<think>\n\n</think>\n\n4", "hard": "<think>\nso\n</think>\n\n5", "end": "x</think>6"}[text]

    model = Scripted(write, capabilities=frozenset())
    strategy = scale(0.5, fast="off", max_tokens=60, **PARTS)
    answer, _ = solve(strategy, model, CHAT)
    assert strategy.needs == frozenset()
    assert [(r.prompt.messages[0].content, r.prompt.thinking.on, r.prompt.begun) for r in model.requests] == [
        ("easy", False, ""), ("hard", None, ""), ("end", None, "")
    ]  # fmt: skip
    assert answer.answer == "6"
    bare = Scripted(lambda text, rng: "4" if text == "easy" else "x</think>6", capabilities=frozenset())
    assert solve(strategy, bare, CHAT)[0].traces == ("</think>4", "x</think>6", "x</think>6")
    with pytest.raises(InvalidInput, match="raw text"):
        solve(strategy, Scripted(write))


def test_another_model_answers_easy_parts_from_the_same_budget():
    slow = Scripted(lambda prompt, rng: "thinking#5\n")
    fast = Scripted(lambda prompt, rng: "4\n")
    answer, budgeted = solve(scale(0.5, fast=fast, max_tokens=30, **PARTS), slow)
    assert answer == Answer("5", "done", ("#4", "thinking#5", "thinking#5"))
    assert [r.prompt for r in fast.requests] == ["easy=#"]
    # "easy=#" 6 and "4\n" 2; "hard=" 5 and "end=" 4, "thinking#5\n" 11 each
    assert budgeted.spend.units == {"all": 8 + 16 + 15}
    assert budgeted.spend.calls == 3
    assert budgeted.remaining == {"all": 10**6 - 39}
    in_chat = Scripted(lambda prompt, rng: "Two and two make 4", capabilities=frozenset())
    thinks = Scripted(lambda prompt, rng: "x</think>6", capabilities=frozenset())
    answer, _ = solve(scale(0.5, fast=in_chat, max_tokens=30, **PARTS), thinks, CHAT)
    assert answer.traces == ("</think>Two and two make 4", "x</think>6", "x</think>6")
    assert [contents(r.prompt) for r in in_chat.requests] == [["easy"]]
    assert in_chat.requests[0].prompt.tags is None
    with pytest.raises(InvalidInput, match="does not continue"):
        solve(scale(0.5, fast=in_chat, **PARTS), slow)


def test_the_other_model_answers_when_the_budget_ends_and_never_exceeds_it():
    for budget in (0, 5, 12, 30, 80, 200, 500):
        slow, fast = planner("1"), Scripted(lambda prompt, rng: "4\n")
        answer, budgeted = solve(scale(0.5, fast=fast, outlines=2, max_tokens=30), slow, budget=budget)
        assert budgeted.spend.units["all"] <= budget
        assert answer.answer is not None or answer.stopped_by == "budget"
        if budget == 80:
            assert (answer.answer, answer.stopped_by, slow.requests) == ("4", "budget", [])


def test_a_killed_run_pays_no_answered_call_of_either_model_twice(tmp_path):
    """The second model asks the same text as the first one: their answers are told apart on record."""

    def models(limit):
        calls = []

        def write(name, text):
            def answer(prompt, rng):
                calls.append(name)
                if len(calls) > limit:
                    raise KeyboardInterrupt
                return text

            return Scripted(answer)

        slow, fast = write("slow", "5\n"), write("fast", "4\n")
        fast.name = "other"
        return calls, slow, fast

    def go(slow, fast):
        parts = PARTS | {"ask": lambda question, known, part: "same" if part != "end" else part}
        style = Style(lambda q: f"{q}=", lambda rest: rest.strip() or None, close="", stop=("\n",), answer_tokens=20)
        strategy = scale(0.5, fast=fast, max_tokens=20, **parts)
        settings = Settings(out=tmp_path / "out.jsonl", durable=True, grade=lambda question, answer: 1.0)
        return asyncio.run(run([Question("q1", "2+2")], strategy, slow, style, "1000", settings))

    calls, slow, fast = models(2)
    with pytest.raises(KeyboardInterrupt):
        go(slow, fast)
    assert calls == ["fast", "slow", "slow"]
    calls, slow, fast = models(9)
    (row,) = go(slow, fast).rows
    assert calls == ["slow"]  # the call that was under way
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl.run" / "calls.jsonl").read_text().splitlines()]
    first, second, *_ = [row["call"] for row in lines if "call" in row]
    assert first.rpartition(".")[0] != second.rpartition(".")[0]
    assert row["answer"] == "5"


def test_a_price_that_is_unknown_is_an_error_before_anything_is_asked():
    slow, fast = Scripted(lambda prompt, rng: "a#5\n"), Scripted(lambda prompt, rng: "4\n")
    fast.name = "nobody"

    class Prices:
        def cost(self, usage, model, *more):
            if model == "nobody":
                raise UnknownPrice(model, "a table", "add it")
            return 0

    with pytest.raises(UnknownPrice):
        asyncio.run(run([Question("q", "1")], scale(0.5, fast=fast), slow, RAW, "100", Settings(prices=Prices())))
    assert slow.requests == fast.requests == []


def test_the_smallest_budget_is_found_without_asking_the_other_model():
    slow, fast = planner("1"), Scripted(lambda prompt, rng: "4\n")
    need = asyncio.run(least("all", Question("q", "2+2"), scale(0.5, fast=fast), slow, RAW, {"all": 1}))
    # of last resort the other model is asked "2+2=#" for at most four tokens and more
    assert 5 < (need or 0) < 40
    assert slow.requests == fast.requests == []


def test_bad_arguments():
    with pytest.raises(InvalidInput, match="outlines=0"):
        scale(outlines=0)
    with pytest.raises(UnknownName, match="unknown model"):
        scale(fast="nobody")


def test_two_models_on_the_command_line(monkeypatch, tmp_path, capsys):
    made = {"reasoner": Slow(), "smollm2": Slow()}
    write = made["reasoner"].write
    made["reasoner"].write = lambda prompt, rng: "1. a\n" if prompt.startswith("Question") else write(prompt, rng)
    made["smollm2"].name = "smollm2"
    monkeypatch.setattr("budgeteer.models.load.load_model", lambda name, **options: made[name])
    command = ["solve", "chains:max_steps=2", "--limit", "3", "--strategy", "scale:fast=smollm2", "--budget", "3k"]
    assert cli.main(command) == 0
    assert "questions   3" in capsys.readouterr().err
    assert made["reasoner"].requests
    assert [model.closed for model in made.values()] == [True, True]
    assert PREFIX in scale(0.5).needs
