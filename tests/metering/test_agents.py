"""A budget for agents: what the next call may be, tools, parts for sub-agents; numbers worked by hand."""

from __future__ import annotations

import asyncio
import base64
import random
import subprocess
import sys
import threading
import time

import pytest

from budgeteer.core.errors import AllowanceError, BudgetExceeded, InvalidInput, UnknownPrice
from budgeteer.core.usage import Usage
from budgeteer.ledger import Allowance, Limit, MemoryLedger, SqliteLedger, report
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.agents import LAST, AgentBudget
from budgeteer.metering.calling import metered
from budgeteer.metering.estimate import Bounds, worst_case
from budgeteer.metering.results import Room, fitted, size_of
from budgeteer.metering.settlement import Answer

WORDS = Bounds(tokens=lambda text: len(text.split()), overhead=0, max_output=100)


def request(cap=100, text="Hello", tools=True):
    tool = {"type": "function", "function": {"name": "search", "parameters": {}}}
    return {"messages": [{"role": "user", "content": text}], "tools": [tool] if tools else [], "max_tokens": cap}


def used(read, made):
    return lambda _: Answer(Usage(input=read, output=made))


def turn(budget, cap=100, tools=True):
    return next(budget.turns(request(cap), tools=tools))


def test_a_call_has_tools_as_long_as_a_last_answer_fits_after_it():
    # the request: so many tokens of input, and 100 of output; after it, a last answer reads both in two messages (160
    # around each), what it is told, and 256 of results, and has 50 tokens
    read = worst_case(request(), WORDS).input
    needed = (read + 100) + (read + 100 + 2 * 160 + len(LAST) + 256 + 50)
    whole = turn(AgentBudget.parse(str(needed), bounds=WORDS, last=50))
    assert (whole.tools, whole.cap, whole.note, whole.why) == (True, 100, "", "")
    less = turn(AgentBudget.parse(str(needed - 1), bounds=WORDS, last=50))
    assert (less.tools, less.cap, less.note) == (False, 100, LAST)
    assert less.why == f"all: {needed - 1:,} left, {needed:,} needed"


def test_an_agent_that_a_picture_stops_says_so():
    far = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    seen = {"messages": [{"role": "user", "content": [far]}], "max_tokens": 100}
    budget = AgentBudget.parse("20k", bounds=WORDS)
    none = next(budget.turns(seen, tools=False))
    assert "needed; a picture counts as 48,169 tokens, since the size or the model's rule is not known" in none.stopped
    head = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + (1092).to_bytes(4, "big") * 2 + bytes(9) + b"\0\0\x10\0IDAT"
    known = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(head).decode()}"}}
    shown = {"messages": [{"role": "user", "content": [known]}], "max_tokens": 100}
    assert next(budget.turns(shown, tools=False)).planned is None  # of a model that is not named
    assert 1590 < next(budget.turns(shown, tools=False, model="claude-sonnet-4-5")).planned.worst.input < 1700
    small = AgentBudget.parse("20k", bounds=Bounds(tokens=WORDS.tokens, max_output=100, image=2_000))
    assert next(small.turns(seen, tools=False)).planned is not None


def test_a_last_answer_is_as_long_as_what_is_left():
    bare = {"messages": request()["messages"], "note": LAST, "max_tokens": 1}
    read = worst_case(bare, WORDS).input
    for left, cap in ((read + 100, 100), (read + 40, 40), (read + 16, 16)):
        found = turn(AgentBudget.parse(str(left), bounds=WORDS))
        assert (found.tools, found.cap, found.planned.amounts) == (False, cap, {"all": read + cap})
    none = turn(AgentBudget.parse(str(read + 15), bounds=WORDS))  # not worth its prompt
    assert none.planned is None
    assert none.stopped == (
        f"[stopped: the budget does not cover another answer; all: {read + 15} left, {read + 16} needed]"
    )


def test_turns_count_calls_of_the_model_and_the_last_of_them_has_no_tools():
    budget, tools = AgentBudget.parse("100k, turns:3", bounds=WORDS), []
    for _ in range(4):
        budget.answer(request(), lambda t: tools.append(t.tools), lambda text: tools.append(text), tools=True, read=used(10, 5))  # fmt: skip # noqa: E501
    assert tools[:3] == [True, True, False]
    assert "turns: 0 left, 1 needed" in tools[3]
    assert budget.spent == {"all": 3 * 15, "turns": 3}


@pytest.mark.parametrize("seed", range(20))
def test_an_agent_that_never_stops_by_itself_ends_with_an_answer_within_its_budget(seed):
    """Whatever calls use, up to their bound, and tools return."""
    draw = random.Random(seed)
    budget = AgentBudget.parse(str(draw.randint(1_000, 30_000)), bounds=Bounds(overhead=0, max_output=60), last=40)
    messages, ended = [{"role": "user", "content": "go"}], ""
    while not ended:
        body = {**request(60), "messages": messages}

        def send(allowed, body=body):
            asked = body if allowed.tools else {**body, "tools": [], "note": LAST}
            most = worst_case({**asked, "max_tokens": allowed.cap}, Bounds(overhead=0))
            return allowed, Usage(input=draw.randint(1, most.input), output=draw.randint(1, most.output))

        made = budget.answer(body, send, lambda text: (None, text), tools=True, read=lambda found: Answer(found[1]))
        assert made[0] is not None, made[1]  # never without a last answer
        if not made[0].tools:
            ended = "answered"
            continue
        size = draw.choice((0, 10, 500, 100_000))
        result = budget.use("search", lambda size=size: '"' * size)
        messages = [
            *messages,
            {"role": "assistant", "content": "x" * made[1].output},
            {"role": "tool", "content": result},
        ]
    assert budget.allowance.remaining["all"] >= 0


def test_what_a_ledger_above_refuses_becomes_a_shorter_answer_and_then_none():
    ledger = MemoryLedger()
    ledger.open("acme", [Limit("all", 300)])
    ledger.open("acme/run", [Limit("all", 9_000)])
    budget = AgentBudget(Allowance(ledger, "acme/run", {"all": 9_000}), bounds=WORDS)
    caps = []
    found = budget.answer(request(), lambda t: caps.append((t.tools, t.cap)), str, tools=True, read=used(150, 90))
    assert (found, caps) == (None, [(True, 100)])
    found = budget.answer(request(), lambda t: caps.append((t.tools, t.cap)), str, tools=True, read=used(9, 9))
    assert found.startswith("[stopped: the budget does not cover another answer; all: 60 of 300 left")
    assert ledger.snapshot()[1].accounts["acme"].books["all"].held == 0


def test_a_failed_call_is_charged_and_raised():
    budget = AgentBudget.parse("10k", bounds=WORDS)

    def send(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        budget.answer(request(), send, str, tools=True, read=used(1, 1))
    assert budget.spent["all"] == worst_case(request(), WORDS).total

    class Refused(Exception):
        status_code = 429

    planned = budget.metering.plan("", "chat", "m", Usage(input=10, output=5))
    with pytest.raises(Refused):
        metered(budget.metering, planned, lambda: (_ for _ in ()).throw(Refused()), used(1, 1))
    assert budget.spent["all"] == worst_case(request(), WORDS).total  # it did not run


def test_a_request_that_is_refused_costs_nothing_where_tools_are_counted_too():
    class Refused(Exception):
        status_code = 429

    def send(turn):
        raise Refused("too many requests")

    budget = AgentBudget.parse("5k, turns:3, tool:search:2, bytes:900")
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}
    with pytest.raises(Refused, match="too many"):  # as it is, and nothing stays held
        budget.answer(body, send, str, tools=True, read=lambda found: Answer())
    assert set(budget.spent.values()) == {0}


def test_money_needs_prices_and_every_model_a_price():
    with pytest.raises(InvalidInput, match="needs prices"):
        AgentBudget.parse("$1")

    class Prices:
        def worst(self, usage, model, service=""):
            if model != "m":
                raise UnknownPrice(model, "test", "name m")
            return (usage.input + usage.output) * 10**6

        cost = worst

        def first_known(self, models):
            return models[0]

    budget = AgentBudget.parse("$1, tool:search:2", prices=Prices(), bounds=WORDS)
    assert budget.use("search", lambda: "found") == "found"  # a tool costs no tokens
    budget.answer(request(), lambda _: 0, str, tools=True, model="m", read=used(10, 5))
    assert budget.spent == {"money": 15 * 10**6, "tool:search": 1}
    with pytest.raises(UnknownPrice):
        budget.answer(request(), lambda _: 0, str, tools=True, model="other", read=used(10, 5))


def test_tools_have_kinds_of_their_own():
    budget = AgentBudget.parse("10k, tool:search:2, tool:3")
    assert [budget.use(name, lambda: "ok") for name in ("Search", "search", "fetch")] == ["ok"] * 3
    assert budget.use("search", lambda: "ok") == ("[search was not called: tool: 0 of 3 left; go on without it]")
    assert budget.use("other", lambda: "ok").startswith("[other was not called")
    assert budget.spent == {"all": 0, "tool:search": 2, "tool": 3}
    assert str(budget) == "all: 10,000 of 10,000, tool: 0 of 3, tool:search: 0 of 2"


def test_a_tool_that_raises_is_counted_and_one_that_hangs_is_given_up():
    budget = AgentBudget.parse("10k, tool:9", patience=0.05)
    with pytest.raises(ValueError, match="no such thing"):
        budget.use("search", lambda: (_ for _ in ()).throw(ValueError("no such thing")))
    go = threading.Event()
    assert budget.use("search", lambda: go.wait(30)) == "[search gave no answer within 0.05 s; go on without it]"
    go.set()

    async def hangs():
        await asyncio.sleep(30)

    assert asyncio.run(budget.ause("search", hangs)) == "[search gave no answer within 0.05 s; go on without it]"
    assert budget.spent["tool"] == 3
    assert budget.use("search", lambda: "quick") == "quick"


def test_a_result_is_cut_to_what_the_last_answer_can_still_read():
    budget = AgentBudget.parse("2000", bounds=Bounds(overhead=0, max_output=20), last=30)
    sent = request(20)
    budget.answer(sent, lambda _: 0, str, tools=True, read=used(40, 10))
    read = (
        worst_case(sent, Bounds(overhead=0)).input + 4 * 20 + len(LAST) + 3 * 160
    )  # around answer, result and request
    room = (2000 - 50) - 30 - read
    got = budget.use("search", lambda: "word " * 10_000)
    assert size_of(got) == room
    assert got.endswith("[cut: 50,000 characters are more than the budget leaves room for]")
    assert budget.use("search", lambda: "more") == ""  # all of the room is taken
    assert AgentBudget.parse("100k", max_result=50).use("search", lambda: "w" * 999) == "w" * 50


def test_sizes_of_results_are_a_kind_of_their_own():
    budget = AgentBudget.parse("10k, bytes:100, bytes:fetch:30")
    assert budget.use("search", lambda: "x" * 60) == "x" * 60
    assert budget.use("fetch", lambda: b"\xff" * 500) == "[500 bytes that are no text]"[:30]
    assert budget.spent == {"all": 0, "bytes": 88, "bytes:fetch": 28}
    assert budget.use("search", lambda: "y" * 60) == "y" * 12
    assert budget.use("search", lambda: "z").startswith("[search was not called: bytes: 0 of 100 left")


def test_results_of_all_kinds_fit():
    assert fitted({"a": [1, 2]}, Room(99)) == {"a": [1, 2]}
    assert fitted({"a": "x" * 99}, Room(10)) == '{"a": "'  # quotation marks are two bytes inside JSON
    assert fitted(b"text", Room(10)) == "text"
    assert fitted(None, Room(10)) is None
    loop = []
    loop.append(loop)
    assert fitted(loop, Room(10)) is loop
    room = Room(5)
    assert (room.whole("123456"), room.whole("1234"), room.left) == (False, True, 1)


PARTS = {"ask": "2000, tool:search:1"}


def test_a_sub_agent_spends_a_part_and_gives_back_the_rest_however_it_ends():
    budget = AgentBudget.parse("5000, tool:search:3", parts=PARTS, bounds=WORDS)
    seen = []

    def inside():
        seen.append((budget.allowance.path, budget.allowance.remaining))
        budget.answer(request(), lambda _: 0, str, tools=False, read=used(100, 20))
        return budget.use("search", lambda: "found") + budget.use("search", lambda: "never")

    assert budget.use("ask", inside).startswith("found[search was not called: tool:search: 0 of 1 left")
    assert seen == [("agent/ask", {"all": 2000, "tool:search": 1})]
    assert budget.spent == {"all": 120, "tool:search": 1}
    with pytest.raises(ValueError, match="fell over"):
        budget.use("ask", lambda: (_ for _ in ()).throw(ValueError("fell over")))
    assert budget.spent == {"all": 120, "tool:search": 1}

    async def cancelled():
        task = asyncio.ensure_future(budget.ause("ask", lambda: asyncio.sleep(30)))
        await asyncio.sleep(0.01)
        held = budget.spent
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return held

    assert asyncio.run(cancelled()) == {"all": 2120, "tool:search": 2}
    assert budget.spent == {"all": 120, "tool:search": 1}


def test_parts_are_refused_where_they_would_take_the_last_answer():
    budget = AgentBudget.parse("2500", parts={"ask": "1000"}, bounds=WORDS, last=50)
    budget.answer(request(text="word"), lambda _: 0, str, tools=True, read=used(10, 10))
    assert budget.use("ask", lambda: "asked") == "asked"
    needed = worst_case(request(), WORDS).total + len(LAST) + len("asked") + 256 + 50 + 4 * 160  # two results
    budget.allowance.hold({"all": 600})
    left = 2500 - 20 - 600
    assert left < 1000 + needed
    assert budget.use("ask", lambda: "never").startswith(f"[ask was not called: all: {left:,} left, {1000 + needed:,}")


def test_fan_out_in_threads_never_gives_more_than_there_is():
    budget = AgentBudget.parse("10_000".replace("_", ""), parts={"ask": "3000"}, bounds=WORDS)
    gate, found = threading.Barrier(6), []

    def ask():
        gate.wait()
        found.append(budget.use("ask", lambda: time.sleep(0.05) or budget.allowance.remaining["all"]))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(map(str, found))[:3] == ["3000"] * 3
    assert sum(one == 3000 for one in found) == 3
    assert all("was not called" in one for one in found if one != 3000)
    assert budget.spent == {"all": 0}


def test_an_agent_that_calls_itself_is_a_circle():
    budget = AgentBudget.parse("10k", parts={"ask": "50%"})
    depth = []

    def again():
        depth.append(budget.allowance.path)
        return budget.use("ask", again)

    assert "would be a circle" in budget.use("ask", again)
    assert depth == ["agent/ask"]


def test_a_child_that_outlives_its_parent_is_told_to_stop():
    budget = AgentBudget.parse("10k", parts={"ask": "50%"}, bounds=WORDS, patience=0.05)
    go, done, late = threading.Event(), threading.Event(), []

    def inside():
        go.wait(30)  # longer than anybody waits
        late.append(budget.answer(request(), lambda _: "asked", str, tools=True, read=used(1, 1)))
        late.append(budget.use("search", lambda: "searched"))
        done.set()

    assert "gave no answer" in budget.use("ask", inside)
    go.set()
    assert done.wait(30)
    assert late[0].startswith("[stopped: the budget does not cover another answer; all: 0 left")
    assert late[1].startswith("[search was not called: this allowance of 'agent/ask' was closed")
    assert budget.spent == {"all": 0}


def test_a_closed_budget_is_spent():
    with AgentBudget.parse("10k", bounds=WORDS) as budget:
        budget.answer(request(), lambda _: 0, str, tools=False, read=used(10, 5))
    assert budget.answer(request(), lambda _: 0, str, tools=False, read=used(10, 5)).startswith("[stopped")
    with pytest.raises(AllowanceError):
        budget.allowance.hold({"all": 1})


def test_work_in_a_thread_without_the_context_spends_from_the_whole():
    budget, found = AgentBudget.parse("10k", parts={"ask": "1000"}), []

    def inside():
        thread = threading.Thread(target=lambda: found.append(budget.allowance.path))
        thread.start()
        thread.join()

    budget.use("ask", inside)
    assert found == ["agent"]


def test_the_model_is_told_what_is_left():
    budget = AgentBudget.parse("10k, tool:search:3", bounds=WORDS, show=True)
    assert turn(budget).note == "Budget left: all: 10,000, tool:search: 3."


def test_what_the_model_is_told_is_reserved_too():
    told = turn(AgentBudget.parse("10k, tool:search:3", bounds=WORDS, show=True)).planned
    silent = turn(AgentBudget.parse("10k, tool:search:3", bounds=WORDS)).planned
    assert told.amounts["all"] >= silent.amounts["all"] + 6  # "Budget left: all: 10,000, tool:search: 3."
    assert told.worst.output == silent.worst.output


def test_an_answer_that_cannot_be_read_is_charged_and_no_longer_held():
    ledger = MemoryLedger()
    budget = AgentBudget.parse("10k", ledger=ledger, path="run", bounds=WORDS)
    units = turn(budget, tools=False).planned.amounts["all"]

    async def send(_):
        return 0

    def unreadable(_):
        raise KeyError("usage")

    with pytest.raises(KeyError):
        budget.answer(request(), lambda _: 0, str, tools=False, read=unreadable)
    with pytest.raises(KeyError):
        asyncio.run(budget.aanswer(request(), send, str, tools=False, read=unreadable))
    settled = [line.split("\t") for line, _ in ledger.lines() if line.split("\t")[2] == "settled"]
    assert [entry[7] for entry in settled] == [f"all {units}"] * 2


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("50%", {}, "is a share or has a window"),
        ("10k/hour", {}, "is a share or has a window"),
        ("10k", {"parts": {"ask": "5, turns:3"}}, "names turns, which the budget does not have"),
        ("10k, turns:5", {"parts": {"ask": "5"}}, "lacks turns"),
        ("10k, nonsense:5", {}, "nonsense"),
        (
            "10k",
            {"parts": {"agent": "25%"}},
            "booked in the ledger as agent/agent; rename the tool, or give another path=",
        ),
        ("10k", {"parts": {"a/b": "25%"}}, "booked in the ledger as agent/a/b"),
        ("10k", {"parts": {"ask me": "25%"}}, "has the scope 'ask me'; scopes are"),
        ("10k", {"last": -5}, "last is -5"),
        ("10k", {"last": float("nan")}, "last is nan"),
        ("10k", {"max_result": -1}, "max_result is -1"),
        ("10k", {"patience": 0}, "patience is 0; give seconds above 0"),
        ("10k", {"patience": float("nan")}, "patience is nan"),
    ],
)
def test_bad_budgets_are_refused_at_once(text, options, message):
    with pytest.raises(Exception, match=message) as found:
        AgentBudget.parse(text, **options)
    assert isinstance(found.value, InvalidInput | KeyError)


def test_a_call_that_shows_no_cap_needs_one_in_the_bounds():
    budget = AgentBudget.parse("10k", bounds=Bounds())
    with pytest.raises(InvalidInput, match="no cap"):
        next(budget.turns({"messages": []}, tools=True))


def test_what_a_run_spent_before_counts_when_it_goes_on():
    ledger = MemoryLedger()
    first = AgentBudget.parse("1000, turns:9", ledger=ledger, path="acme/run", bounds=WORDS)
    first.answer(request(), lambda _: 0, str, tools=False, read=used(900, 20))
    again = AgentBudget.parse("1000, turns:9", ledger=ledger, path="acme/run", bounds=WORDS)
    assert 0 < again.answer(request(), lambda turn: turn.cap, str, tools=False, read=used(0, 0)) <= 80
    with pytest.raises(BudgetExceeded):
        again.allowance.reserve({"all": 81, "turns": 0}).__enter__()
    assert str(again) == "all: 80 of 1,000, turns: 7 of 9"
    assert again.spent == {"all": 920, "turns": 2}


def test_a_run_that_goes_on_keeps_its_last_answer_of_what_is_left_in_the_ledger():
    """It took the whole budget to be there, and had nothing left for a last answer when the ledger said otherwise."""
    ledger = MemoryLedger()
    first = AgentBudget.parse("1000", ledger=ledger, path="run", bounds=WORDS, last=50)
    first.answer(request(), lambda _: 0, str, tools=False, read=used(700, 100))
    again = AgentBudget.parse("1000", ledger=ledger, path="run", bounds=WORDS, last=50)
    turn = next(again.turns(request(), tools=True))  # a step and a last answer behind it do not fit into 200
    assert not turn.tools
    assert again.answer(request(), lambda turn: turn.cap, str, tools=True, read=used(1, 1)) == turn.cap > 0


def test_a_killed_call_of_a_tool_is_charged_and_the_size_of_its_result_comes_back(tmp_path):
    code = (
        "import os, sys\n"
        "from budgeteer.ledger import SqliteLedger\n"
        "from budgeteer.metering.agents import AgentBudget\n"
        "budget = AgentBudget.parse('5k, tool:search:3, bytes:10k', ledger=SqliteLedger(sys.argv[1]), path='run')\n"
        "budget.use('search', lambda: os._exit(9))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "l.db")]).returncode == 9
    for later, size in ((0, 0), (601_000, 10_000)):  # all that a result could have is held until it counts as abandoned
        with SqliteLedger(tmp_path / "l.db", clock=lambda later=later: wall_clock() + later) as ledger:
            ledger.open("other", [])  # what was abandoned is closed by whoever writes next
            balances = {
                limit["kind"]: limit["left"] for limit in report.balances(ledger.snapshot()[1], "run", wall_clock())
            }
        assert (balances["tool:search"], balances["bytes"]) == (2, size)
