"""The agent loop: what it charges, what it cuts, and what becomes of tools that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budgeteer.agent import one_prompt, react
from budgeteer.agent.turns import Agent, Limits, Turn, cut
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, LedgerUnavailable
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import Chat, Message, call_of, calls_in
from budgeteer.models.model import CALLS, SEED
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import of
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Strategy, Style, Task
from budgeteer.solve.runner import Settings, run
from budgeteer.solve.tool import Tool

ASKED = Question("q", "2 + 2 =")
RAW = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)
CHAT = Style(lambda text: Chat((Message("user", text),)), RAW.answer, "", answer_tokens=10)
LOOK = call_of("look", '{"at": "it"}')


def tool(function: Any, **options: Any) -> Tool:
    return Tool("look", "Looks.", {"at": {"type": "string"}}, function, **options)


async def says_four(arguments: Mapping[str, Any]) -> str:
    return f"{arguments['at']} is 4"


def writer(*texts: str) -> Any:
    """Writes the texts in turn, the last one again and again; which one follows from the results in the prompt."""

    def write(prompt: str, rng: Any) -> str:
        last = "Answer now" in prompt
        return texts[-1 if last else min(prompt.count("</tool_response>"), len(texts) - 1)]

    return write


def task(model: Any, tools: Sequence[Tool], budget: Mapping[str, int], style: Style = RAW) -> Task:
    ledger = MemoryLedger()
    ledger.open("q", [Limit(kind, units) for kind, units in budget.items()])
    return Task(ASKED, Budgeted(model, Allowance(ledger, "q", dict(budget))), style, 0, tools=tuple(tools))


def solved(asked: Task, **options: Any) -> Answer:
    return asyncio.run(react(**options).solve(asked))


def test_every_token_call_turn_and_byte_is_charged() -> None:
    model = Scripted(writer(LOOK, "4\n"))
    asked = task(model, [tool(says_four)], {"all": 5000, "turns": 9, "tool:look": 9, "tool": 9, "bytes": 900})
    assert solved(asked).answer == "4"
    first, second = model.requests
    assert isinstance(first.prompt, str)
    assert isinstance(second.prompt, str)
    assert second.prompt == f"{first.prompt}{LOOK}\n<tool_response>\nit is 4\n</tool_response>\n"
    tokens = len(first.prompt) + len(LOOK) + len(second.prompt) + len("4\n")
    assert asked.model.spend.units == {"all": tokens, "turns": 2, "tool:look": 1, "tool": 1, "bytes": len("it is 4")}
    assert {kind: 5000 - n for kind, n in asked.model.remaining.items() if kind == "all"} == {"all": tokens}


def test_tools_of_one_turn_run_at_the_same_time_and_answer_in_order() -> None:
    both = asyncio.Event()
    waiting: list[str] = []

    async def wait(arguments: Mapping[str, Any]) -> str:
        waiting.append(arguments["at"])
        if len(waiting) == 2:
            both.set()
        await both.wait()  # would hang if they ran one after the other
        return f"<{arguments['at']}>"

    calls = "\n".join(call_of("look", json.dumps({"at": name})) for name in "ab")
    model = Scripted(lambda prompt, rng: "4\n" if "<a>" in prompt else calls)
    asked = task(model, [tool(wait, patience=5.0)], {"all": 5000, "tool:look": 2})
    assert solved(asked).answer == "4"
    prompt = str(model.requests[1].prompt)
    assert prompt.index("<a>") < prompt.index("<b>")
    assert asked.model.remaining["tool:look"] == 0


def test_a_call_beyond_the_budget_is_not_made_and_the_model_is_told() -> None:
    made: list[Any] = []

    async def look(arguments: Mapping[str, Any]) -> str:
        made.append(arguments)
        return "nothing"

    model = Scripted(writer(LOOK))
    asked = task(model, [tool(look)], {"all": 9000, "tool:look": 2})
    answer = solved(asked, turns=5)
    assert len(made) == 2
    assert "look was not called: its budget is spent" in answer.traces[0]
    assert answer.answer is None  # the last answer is one more call of a tool


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("hangs", "[look gave no answer within 0.02 s; go on without it]"),
        ("raises", "[look failed: ZeroDivisionError: division by zero]"),
        ("binary", "[2 bytes that are no text]"),
        ("nothing", "null"),
        ("object", '{"n": [1, 2]}'),
    ],
)
def test_tools_that_misbehave_are_charged_and_say_so(function: str, said: str) -> None:
    async def look(arguments: Mapping[str, Any]) -> Any:
        if function == "hangs":
            await asyncio.sleep(60)
        if function == "raises":
            return 1 / 0
        return {"binary": b"\xff\xfe", "nothing": None, "object": {"n": [1, 2]}}[function]

    model = Scripted(writer(LOOK, "4\n"))
    asked = task(model, [tool(look, patience=0.02)], {"all": 5000, "tool:look": 3})
    answer = solved(asked)
    assert answer.answer == "4"
    assert said in answer.traces[0]
    assert asked.model.spend.tools == {"look": 1}
    assert asked.model.remaining["tool:look"] == 2


@pytest.mark.parametrize("budget", [600, 700, 900, 1500, 6000])
def test_megabytes_are_cut_to_what_the_last_answer_can_read(budget: int) -> None:
    async def look(arguments: Mapping[str, Any]) -> str:
        return "x" * 3_000_000

    model = Scripted(writer(LOOK, "4\n"))
    asked = task(model, [tool(look)], {"all": budget})
    answer = solved(asked)
    assert answer.answer == "4"
    assert asked.model.remaining["all"] >= 0


def test_results_are_cut_by_bytes_of_the_budget() -> None:
    async def look(arguments: Mapping[str, Any]) -> str:
        return "é" * 500

    model = Scripted(writer(LOOK, "4\n"))
    asked = task(model, [tool(look)], {"all": 9000, "bytes": 101})
    assert solved(asked).answer == "4"
    assert 0 <= asked.model.remaining["bytes"] <= 1
    assert "é" * 50 in str(model.requests[1].prompt)
    assert "é" * 51 not in str(model.requests[1].prompt)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"name": "lok", "arguments": {"at": "it"}}', "there is no tool lok; there are look"),
        ('{"name": "look", "arguments": {"to": "it"}}', "at is missing"),
        ('{"name": "look", "arguments": {"at": 7}}', "at is 7, no string"),
        ('{"name": "look", "arguments": {"at": "it", "n": 1}}', "there is no argument n"),
        ('{"name": "look", "arguments": [1]}', "the arguments are no JSON object"),
        ("look(it)", "the call is no JSON object with a name"),
        ("[" * 100_000, "the call is no JSON object with a name"),
    ],
)
def test_calls_that_cannot_be_made_cost_nothing_and_say_why(written: str, said: str) -> None:
    model = Scripted(writer(f"<tool_call>\n{written[:200]}\n</tool_call>", "4\n"))
    asked = task(model, [tool(says_four)], {"all": 9000, "tool:look": 3})
    answer = solved(asked)
    assert answer.answer == "4"
    assert said in answer.traces[0]
    assert asked.model.remaining["tool:look"] == 3
    assert calls_in(f"<tool_call>{written}</tool_call>")[0].name in ("", "look", "lok")


@pytest.mark.parametrize("budget", range(0, 900, 30))
def test_whatever_the_budget_a_last_answer_is_affordable(budget: int) -> None:
    model = Scripted(lambda prompt, rng: "4\n" if "Answer now" in prompt else LOOK)
    asked = task(model, [tool(says_four)], {"all": budget})
    answer = solved(asked, turns=20)
    assert asked.model.remaining["all"] >= 0
    if model.requests:
        assert answer.answer == "4"


class Native(Scripted):
    """A model that is told of tools in the chat."""

    def __init__(self, write: Any) -> None:
        super().__init__(write, capabilities=frozenset({CALLS, SEED}))


def test_a_model_with_calls_gets_schemas_and_messages_of_tools() -> None:
    model = Native(lambda prompt, rng: "4\n" if "is 4" in prompt else LOOK)
    answer = solved(task(model, [tool(says_four)], {"all": 5000}, CHAT))
    first, second = (request.prompt for request in model.requests)
    assert isinstance(first, Chat)
    assert isinstance(second, Chat)
    assert [json.loads(text)["function"]["name"] for text in first.tools] == ["look"]
    assert "You can call" not in first.messages[0].content
    assert second.messages[1:] == (Message("assistant", LOOK), Message("tool", "it is 4"))
    assert answer.answer == "4"


def test_the_last_answer_of_a_model_with_calls_has_no_tools() -> None:
    model = Native(lambda prompt, rng: "7\n" if "Answer now" in prompt else LOOK)
    answer = solved(task(model, [tool(says_four)], {"all": 5000}, CHAT), turns=2)
    end = model.requests[-1].prompt
    assert isinstance(end, Chat)
    assert end.tools == ()
    assert (answer.answer, answer.stopped_by) == ("7", StoppedBy.CAP)


def test_samples_go_on_until_the_budget_ends_and_the_majority_counts() -> None:
    answers = iter(["5\n", "4\n", "4\n"])
    model = Scripted(lambda prompt, rng: next(answers, "6\n"))
    answer = solved(task(model, [tool(says_four)], {"turns": 4, "all": 90_000}), samples=3)
    assert (answer.answer, answer.candidates) == ("4", ("4", "5"))
    assert len(answer.traces) == 3


def test_prompts_of_a_branch_do_not_touch_the_other() -> None:
    agent = Agent(task(Scripted(writer("4\n")), [tool(says_four)], {"all": 5000}), Limits())
    before = agent.prompt(())
    agent.prompt((Turn(LOOK, results=("it is 4",), note="[note]"),))
    assert agent.prompt(()) == before
    assert str(agent.prompt((Turn("a", results=("b",), note="c"),))).endswith(
        "a\n<tool_response>\nb\n</tool_response>\nc\n"
    )


def test_tools_need_a_name_and_sane_limits() -> None:
    for wrong in ({"cost": -1}, {"patience": 0.0}, {"most": 0}):
        with pytest.raises(InvalidInput, match="look"):
            tool(says_four, **wrong)
    with pytest.raises(InvalidInput, match="name"):
        Tool("a b", "", {}, says_four)
    assert cut("abcdef", 5) == "ab..."


def test_without_tools_the_strategy_is_refused_before_anything_is_spent() -> None:
    model = Scripted(writer("4\n"))
    with pytest.raises(InvalidInput, match="the task has none"):
        asyncio.run(run([ASKED], react(), model, RAW, "1k"))
    assert not model.requests


def test_a_killed_run_pays_for_no_answered_call_of_model_or_tool_twice(tmp_path: Path) -> None:
    here = Path(__file__).resolve()
    code = "from helpers.agent_child import main; main(*sys.argv[2:])"
    code = f"import sys; sys.path.insert(0, sys.argv[1]); {code}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def child(kill: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(here.parents[1]), str(tmp_path), kill]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert child("kill").returncode == 9
    done = child("")
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked.log").read_text().split()
    # the second call of the tool was under way at the kill: it is made again, all that was answered before it is not
    assert asked == ["model", "tool:1", "model", "tool:2", "tool:2", "model"]
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert row["answer"] == "4"
    assert row["correct"] is None
    assert row["tools"] == {"look": 2}
    assert row["units"]["tool:look"] == 3  # the one under way may have been billed
    assert row["calls"] == 3


@pytest.mark.parametrize("budget", [{"all": 4000}, {"all": 90_000, "tool:ask": 7}])
def test_an_agent_that_asks_itself_ends_with_its_budget(budget: dict[str, int]) -> None:
    """Each level is a tool of the one above it, on the same budget; none of them ever answers by itself."""
    depths: list[int] = []

    def level(depth: int) -> Tool:
        async def ask(arguments: Mapping[str, Any]) -> str:
            depths.append(depth)
            below = Task(Question(f"q{depth}", "2 + 2 ="), outer.model, RAW, depth, tools=(level(depth + 1),))
            answer = await react(turns=2, step_tokens=200).solve(below)
            return answer.answer or "nothing"

        return Tool("ask", "Asks a colleague.", {"of": {"type": "string"}}, ask)

    model = Scripted(lambda prompt, rng: "4\n" if "Answer now" in prompt else call_of("ask", '{"of": "it"}'))
    outer = task(model, [level(1)], budget)
    answer = solved(outer, turns=2, step_tokens=200)
    units = outer.model.spend.units
    assert all(units[kind] <= given for kind, given in budget.items())
    assert outer.model.remaining == {kind: given - units[kind] for kind, given in budget.items()}  # nothing stays held
    assert max(depths) >= 2
    assert len(depths) == budget.get("tool:ask", len(depths))
    assert answer.answer == "4" or "tool:ask" not in budget  # with tokens to spare, every level answers


def test_a_tool_whose_ledger_fails_leaves_no_other_tool_running() -> None:
    """Two calls of one turn: the ledger refuses one, and the other is cancelled before that is told."""
    told = []

    async def look(arguments: Mapping[str, Any]) -> str:
        if arguments["at"] == "broken":
            await asyncio.sleep(0)
            raise LedgerUnavailable("the disk is full")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise
        return "never"

    async def use(tool: Tool, arguments: Mapping[str, Any]) -> str:
        return await look(arguments)

    calls = call_of("look", '{"at": "slow"}') + call_of("look", '{"at": "broken"}')
    asked = task(Scripted(writer(calls, "4")), [tool(look)], {"all": 9000})
    asked.model.use = use  # type: ignore[method-assign]

    async def body() -> list[str]:
        with pytest.raises(LedgerUnavailable, match="the disk is full"):
            await asyncio.wait_for(Agent(asked).step(()), 20)
        return [*told]  # before the loop's own end cancels what is left

    assert asyncio.run(body()) == ["cancelled"]


def test_the_price_of_tools_leaves_the_last_answer_affordable() -> None:
    """Two calls a turn at a price of $0.00025: however small the budget, a run that called a tool answers."""
    rates = of({"scripted": Price(Rates(input=Decimal(1), output=Decimal(4)))}, "test")

    async def look(arguments: Mapping[str, Any]) -> str:
        made.append(1)
        return "x"

    def write(prompt: str, rng: Any) -> str:
        return "4\n" if "without calling" in prompt else f"{LOOK}\n{LOOK}"

    calls = set()
    for micro in range(500, 4000, 70):
        made: list[int] = []
        ledger, money = MemoryLedger(), {"money": micro * 10**6}
        ledger.open("q", [Limit("money", money["money"])])
        model = Budgeted(Scripted(write), Allowance(ledger, "q", money), prices=rates)
        task = Task(ASKED, model, RAW, 0, tools=(tool(look, cost=25 * 10**7),))
        answer = asyncio.run(react(turns=9).solve(task))
        assert answer.answer == "4" or not made
        assert model.spend.units["money"] <= money["money"]
        calls.add(len(made))
    assert {0, 1, 2, 3} <= calls  # one of the two alone, too


def test_a_call_that_is_not_made_takes_nothing_from_the_others_of_its_turn() -> None:
    wrong = call_of("look", '{"in": "a"}')
    model = Scripted(writer(f"{wrong}\n{LOOK}", "4\n"))
    asked = task(model, [tool(says_four)], {"all": 5000, "tool:look": 1})
    assert solved(asked).answer == "4"
    last = model.requests[-1].prompt
    assert isinstance(last, str)
    assert "look was not called" in last
    assert "it is 4" in last


@pytest.mark.parametrize("found", ["", " \n"])
def test_a_search_without_a_result_is_charged_and_the_model_reads_that_it_is_empty(found: str) -> None:
    async def look(arguments: Mapping[str, Any]) -> str:
        return found

    model = Scripted(writer(LOOK, "4\n"))
    asked = task(model, [tool(look)], {"all": 5000, "tool:look": 3})
    assert solved(asked).answer == "4"
    assert "<tool_response>\n[look: the result is empty]\n</tool_response>" in str(model.requests[1].prompt)
    assert asked.model.remaining["tool:look"] == 2


def test_an_agent_whose_searches_never_find_anything_ends_within_its_budget() -> None:
    async def look(arguments: Mapping[str, Any]) -> str:
        return ""

    model = Scripted(lambda prompt, rng: "unknown\n" if "Answer now" in prompt else LOOK)
    asked = task(model, [tool(look)], {"all": 9000, "tool:look": 3})
    answer = solved(asked, turns=20)
    assert (answer.answer, asked.model.spend.units["tool:look"]) == ("unknown", 3)
    assert asked.model.remaining["all"] >= 0


async def ends(arguments: Mapping[str, Any]) -> str:
    sys.exit(3)


async def cancels(arguments: Mapping[str, Any]) -> str:
    raise asyncio.CancelledError


async def half(arguments: Mapping[str, Any]) -> str:
    return json.loads('"\\ud800 4 \\ud83d\\ude00"')  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "said"),
    [(ends, "failed: RuntimeError: it wanted to end the program"), (cancels, "it cancelled itself"), (half, "� 4 😀")],
)
def test_a_tool_that_ends_the_program_cancels_itself_or_returns_half_a_character_fails_alone(
    function: Any, said: str
) -> None:
    model = Scripted(writer(LOOK, "4\n"))
    asked = [ASKED, Question("r", "3 + 1 =")]
    settings = Settings(tools=lambda question: [tool(function)])
    done = asyncio.run(run(asked, react(), model, RAW, "5k", settings))
    assert [row["answer"] for row in done.rows] == ["4", "4"]
    assert said in str(model.requests[-1].prompt)


def test_a_tool_that_is_cancelled_is_cancelled() -> None:
    async def go() -> None:
        called = asyncio.create_task(tool(asyncio.sleep, patience=9).call({"at": "it"}))
        slow = asyncio.create_task(Tool("slow", "", {}, lambda arguments: asyncio.sleep(9)).call({}))
        await asyncio.sleep(0.01)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert "failed: TypeError" in await called

    asyncio.run(go())


def test_a_strategy_that_is_cancelled_from_within_is_a_row_and_no_pause() -> None:
    async def solve(task: Task) -> Answer:
        raise asyncio.CancelledError

    done = asyncio.run(run([ASKED], Strategy(solve), Scripted(writer("4\n")), RAW, "5k"))
    assert not done.paused
    assert done.rows[0]["stopped_by"] == "error: what the strategy waited for cancelled itself"


def test_a_tool_without_a_coroutine_and_two_of_one_name_are_faults_of_whoever_made_them() -> None:
    def plain(arguments: Mapping[str, Any]) -> str:
        return "4"

    model = Scripted(writer(LOOK, "4\n"))
    done = asyncio.run(run([ASKED], react(), model, RAW, "5k", Settings(tools=lambda question: [tool(plain)])))
    assert "the tool look returned str, and no coroutine; write async def" in done.rows[0]["stopped_by"]
    with pytest.raises(InvalidInput, match=r"a tool of the task is .*'look'.*; give objects of"):
        task(model, [{"name": "look"}], {"all": 99})  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match="two tools are called 'look'"):
        task(model, [tool(says_four), tool(says_four)], {"all": 99})


@pytest.mark.parametrize("style", [RAW, replace(RAW, close="</think>", answer=lambda text: text.strip() or None)])
@pytest.mark.parametrize("last", [LOOK, LOOK[:30]])
def test_a_call_in_place_of_the_last_answer_is_no_answer(style: Style, last: str) -> None:
    """With thinking it was one: the sign of its end, or a call that was cut."""
    asked = task(Scripted(writer(LOOK, last)), [tool(says_four)], {"all": 9000}, replace(style, answer_tokens=90))
    answer = solved(asked, turns=1)
    assert answer.answer is None
    assert last in answer.traces[0]


@pytest.mark.parametrize("style", [RAW, replace(RAW, close="</think>", answer=lambda text: text.strip() or None)])
def test_one_prompt_takes_no_call_for_an_answer_and_asks_once(style: Style) -> None:
    model = Scripted(lambda prompt, rng: f"</think>{LOOK}" if style.close else LOOK)
    asked = task(model, [tool(says_four, everything="it is 4")], {"all": 9000}, replace(style, answer_tokens=90))
    answer = asyncio.run(one_prompt().solve(asked))
    assert (answer.answer, len(model.requests)) == (None, 1)
    assert LOOK in answer.traces[0]
