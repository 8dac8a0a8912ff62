"""Many questions under one budget: what is spent, what is written, what happens when things fail or are broken off."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.check.scripted import ALL, Scripted
from budgeteer.core.errors import InvalidInput, ModelError, UnknownPrice
from budgeteer.core.usage import Usage
from budgeteer.ledger import SqliteLedger
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import INTERNALS, Choice, Finish, Request, Response
from budgeteer.prices import Price, Rates, of
from budgeteer.solve import Answer, Question, Strategy, Style, registered
from budgeteer.solve.lines import Lines
from budgeteer.solve.runner import Pause, Settings, run
from budgeteer.solve.styles import normal
from budgeteer.strategies import best_of_n, elastic
from helpers.strategies import inside, once, together, vote

STYLE = Style(lambda text: f"{text} =", lambda text: text.split("\n")[0].strip() or None, "</think>", normal=normal)
QUESTIONS = [Question(f"q{i}", f"{i} + 1") for i in range(12)]


def right(prompt, rng):
    """Eight characters of thinking at most, then the sum."""
    return "x" * rng.randint(0, 8) + f"</think>{int(prompt.split()[0]) + 1}\n"


def grade(question, answer):
    return float(answer == str(int(question.text.split()[0]) + 1))


def go(strategy, model, budget, **more):
    return asyncio.run(run(QUESTIONS, strategy, model, STYLE, budget, Settings(**more)))


def test_rows_say_what_happened():
    """Prompt "0 + 1 =" is 7 tokens, its answer "</think>1\\n" 10 and the thinking 3: by hand."""
    model = Scripted(lambda prompt, rng: "xxx</think>1\n")
    found = asyncio.run(run(QUESTIONS[:1], once(), model, STYLE, "100", Settings(grade=grade)))
    (row,) = found.rows
    assert row.pop("seconds") >= 0
    assert row == {
        "id": "q0", "answer": "1", "correct": True, "tokens": {"input": 7, "output": 13, "reasoning": 0}, "calls": 1,
        "stopped_by": "done", "units": {"all": 20}, "budget": {"all": 100}, "wasted": {"all": 0}, "estimated": 0,
        "confidence": None,
    }  # fmt: skip
    assert (found.spent, found.limit, found.overshoot, found.paused) == ({"all": 20}, {"all": 100}, {"all": 0}, False)


def test_a_question_gets_its_own_budget():
    found = go(vote(n=50), Scripted(right), "100", grade=grade)
    assert found.limit == {"all": 1200}
    assert all(row["units"]["all"] <= 100 and row["stopped_by"] == "budget" for row in found.rows)
    assert all(row["correct"] for row in found.rows)
    assert found.spent["all"] == sum(row["units"]["all"] for row in found.rows)


def test_a_budget_of_nothing_gives_every_question_a_reason():
    found = go(vote(), Scripted(right), "0", grade=grade)
    assert [(row["answer"], row["stopped_by"], row["calls"]) for row in found.rows] == [(None, "budget", 0)] * 12
    assert all(row["correct"] is False for row in found.rows)


def test_shares_of_a_total_budget_by_hand():
    """One at a time, 1200 over 12: 100, of which 20 are used, then 1180 // 11 = 107, then 1160 // 10 = 116."""
    model = Scripted(lambda prompt, rng: "xxx</think>1\n")
    shares = [row["budget"]["all"] for row in go(once(), model, "1200", per_question=False, concurrency=1).rows]
    left, want = 1200, []
    for i, question in enumerate(QUESTIONS):
        want.append(left // (12 - i))
        left -= len(f"{question.text} =") + 13
    assert shares == want
    assert want[:3] == [100, 107, 116]


def test_shares_do_not_depend_on_who_ends_first():
    class Slow(Scripted):
        async def generate(self, request):
            await asyncio.sleep(rng.random() / 200)
            return await super().generate(request)

    runs = []
    for seed in (1, 2):
        rng = random.Random(seed)
        found = go(vote(n=3), Slow(right), "900", per_question=False, concurrency=3, seed=5)
        runs.append([(row["budget"], row["units"], row["answer"]) for row in found.rows])
    assert runs[0] == runs[1]


def test_weights_split_a_total_budget():
    def weigh(waiting, rows):
        return [3.0 if question.id == "q0" else 1.0 for question in waiting]

    found = go(once(), Scripted(right), "1400", per_question=False, weigh=weigh)
    assert [row["budget"]["all"] for row in found.rows][:2] == [300, 100]
    with pytest.raises(InvalidInput, match="finite weight"):
        go(once(), Scripted(right), "1400", per_question=False, weigh=lambda waiting, rows: [1.0])


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(0, 700),
    concurrency=st.integers(1, 12),
    per_question=st.booleans(),
    seed=st.integers(0, 9),
    fail=st.sampled_from([0.0, 0.3, 1.0]),
    factory=st.sampled_from([once, vote, together]),
)
def test_the_budget_holds(budget, concurrency, per_question, seed, fail, factory):
    model = Faulty(right, seed, fail)
    found = go(factory(), model, str(budget), per_question=per_question, concurrency=concurrency, seed=seed)
    assert len(found.rows) == 12
    assert model.billed <= found.spent["all"] <= found.limit["all"]
    assert found.overshoot == {"all": 0}
    assert all(row["answer"] is not None or row["stopped_by"] for row in found.rows)
    assert sum(row["units"]["all"] for row in found.rows) == found.spent["all"]


class Faulty(Scripted):
    """Fails a share of its calls in every way there is; ``billed`` is what its provider would charge."""

    def __init__(self, write, seed, fail, hang=0.0):
        super().__init__(write)
        self.rng, self.fail, self.hang, self.billed = random.Random(seed), fail, hang, 0

    async def generate(self, request: Request) -> Response:
        draw, kind = self.rng.random(), self.rng.randrange(5)
        await asyncio.sleep(0)
        if draw >= self.fail:
            response = await super().generate(request)
            self.billed += response.usage.input + response.usage.output
            return response
        if kind == 0:
            raise ModelError("429 after all retries", billed=False)
        response = await super().generate(request)
        self.billed += response.usage.input + response.usage.output
        if kind == 1:
            raise ModelError("connection lost", billed=True)
        if kind == 2:
            raise ZeroDivisionError("a bug of the model's own")
        if kind == 3 and self.hang:
            await asyncio.sleep(3600)
        half = Choice(
            response.choices[0].text[:5], None, Finish.CUT
        )  # a cut stream without usage: the worst case is charged
        return Response((half,) * request.n, Usage())


def test_a_faulty_endpoint_under_32_questions_at_once(tmp_path):
    questions = [Question(f"q{i}", f"{i} + 1") for i in range(64)]
    model = Faulty(right, 3, fail=0.5, hang=1.0)
    out = tmp_path / "rows.jsonl"
    found = asyncio.run(
        run(
            questions, vote(n=5), model, STYLE, "5k", Settings(per_question=False, concurrency=32, timeout=0.5, out=out)
        )
    )
    assert model.billed <= found.spent["all"] <= 5000
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(question.id for question in questions)
    assert {row["stopped_by"].split(":")[0] for row in rows} >= {"error"}
    assert any(row["stopped_by"] == "error: no answer within 0.5 s" for row in rows)
    assert any("ZeroDivisionError" in row["stopped_by"] for row in rows)
    with SqliteLedger(out.with_name("rows.jsonl.run") / "ledger.db") as ledger:
        assert ledger.remaining("run")["all"] == 5000 - found.spent["all"]
        ledger.verify()


def test_what_a_strategy_raises_or_returns_is_a_reason():
    async def broken(task):
        raise KeyError("oops")

    async def odd(task):
        return "4"

    for solve, reason in ((broken, "error: KeyError: 'oops'"), (odd, "error: InvalidInput: the strategy returned '4'")):
        found = go(Strategy(solve), Scripted(right), "100")
        assert all(row["stopped_by"].startswith(reason) for row in found.rows)


def test_a_strategy_that_needs_more_is_refused_before_anything_is_asked(monkeypatch):
    from budgeteer.core import registry

    twice = registry.Method("twice", "strategy", "helpers.strategies:vote", "the most frequent answer")
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, twice))
    model = Scripted(right)
    with pytest.raises(InvalidInput, match=r"needs internals, which scripted does not have; these would work: .*twice"):
        go(inside(), model, "100")
    assert model.requests == []


def test_how_the_style_asks_is_refused_before_anything_is_asked(tmp_path):
    class NoChats(Scripted):
        def count(self, prompt):
            if isinstance(prompt, Chat):
                raise InvalidInput("it does not chat")
            return super().count(prompt)

    model, out = NoChats(right), tmp_path / "out.jsonl"
    chats = replace(STYLE, prompt=lambda text: Chat((Message("user", text),)))
    with pytest.raises(InvalidInput, match="does not chat"):
        asyncio.run(run(QUESTIONS, once(), model, chats, "100", Settings(out=out)))
    assert not model.requests
    assert not out.exists()


def test_what_style_and_task_lack_is_refused_before_anything_is_asked():
    chat = replace(STYLE, prompt=lambda text: Chat((Message("user", text),)))
    model = Scripted(right)
    for strategy, style, match in (
        (elastic(), chat, "the style asks in a chat, where scripted cannot: it does not declare 'prefill'"),
        (best_of_n("verifier"), STYLE, "asks a verifier and there is none"),
    ):
        with pytest.raises(InvalidInput, match=match):
            asyncio.run(run(QUESTIONS, strategy, model, style, "100"))
    assert model.requests == []
    found = go(best_of_n("verifier", 4, max_tokens=20), model, "200", check=grade, grade=grade)
    assert all(row["correct"] for row in found.rows)


def test_bad_calls_say_what_to_do():
    for questions, budget, more, match in (
        (QUESTIONS, "50%", {}, "no amount"),
        (QUESTIONS, "5k/day", {}, "no amount"),
        (QUESTIONS, "$1", {}, "needs prices"),
        ([], "1k", {}, "no questions"),
        (QUESTIONS[:1] * 2, "1k", {}, "more than once"),
        (QUESTIONS, "1k", {"concurrency": 0}, "concurrency is 0"),
        (QUESTIONS, "1k", {"timeout": -1.0}, "timeout is -1"),
    ):
        with pytest.raises(InvalidInput, match=match):
            asyncio.run(run(questions, once(), Scripted(right), STYLE, budget, Settings(**more)))


def test_money():
    """7 tokens in at $1 and 10 out at $2 a million are 27 micro-dollars."""
    prices = of({"scripted": Price(Rates(input=1, output=2))})
    model = Scripted(lambda prompt, rng: "</think>1\n")
    found = asyncio.run(run(QUESTIONS[:2], once(), model, STYLE, "$0.001", Settings(prices=prices)))
    assert found.spent == {"money": 2 * 27 * 10**6}
    assert found.rows[0]["cost"] == pytest.approx(27e-6)
    with pytest.raises(UnknownPrice):
        asyncio.run(run(QUESTIONS[:2], once(), model, STYLE, "$0.001", Settings(prices=of({}))))


def test_progress_adds_up():
    seen = []
    found = go(vote(n=2), Scripted(right), "1k", grade=grade, on_row=lambda row, progress: seen.append(progress))
    assert [p.done for p in seen] == list(range(1, 13))
    last = seen[-1]
    assert (last.correct, last.graded, last.answered, last.total) == (12, 12, 12, 12)
    assert last.units == found.spent
    assert last.tokens["input"] + last.tokens["output"] == found.spent["all"]


# the output


def test_a_run_that_is_through_asks_nothing_again(tmp_path):
    out = tmp_path / "rows.jsonl"
    first = go(vote(), Scripted(right), "300", out=out, grade=grade, traces=True)
    model = Scripted(right)
    again = go(vote(), model, "300", out=out, grade=grade, traces=True)
    assert model.requests == []
    assert again.rows == first.rows
    assert again.spent == first.spent
    traces = [json.loads(line) for line in (tmp_path / "rows.jsonl.run" / "traces.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in traces) == sorted(q.id for q in QUESTIONS)
    assert all(len(row["traces"]) == 4 for row in traces)


@pytest.mark.parametrize("inside_process", [False, True])
def test_any_line_may_be_missing_or_torn_and_order_does_not_matter(tmp_path, inside_process):
    capabilities = ALL | ({INTERNALS} if inside_process else frozenset())
    out = tmp_path / "rows.jsonl"
    first = go(vote(), Scripted(right, capabilities=capabilities), "300", out=out)
    lines = out.read_bytes().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    out.write_bytes(b"".join(lines[:7]) + lines[7][:20])
    model = Scripted(right, capabilities=capabilities)
    again = go(vote(), model, "300", out=out)
    want = {row["id"]: (row["answer"], row["units"], row["calls"]) for row in first.rows}
    assert {row["id"]: (row["answer"], row["units"], row["calls"]) for row in again.rows} == want
    assert again.spent == first.spent
    # the endpoint's answers were on record; what runs in this process is run again
    assert len(model.requests) == (4 * 5 if inside_process else 0)
    assert len(out.read_text().splitlines()) == 12


def test_other_settings_are_refused(tmp_path):
    out = tmp_path / "rows.jsonl"
    go(once(), Scripted(right), "300", out=out, about={"strategy": "once"})
    for budget, more, match in (
        ("301", {"about": {"strategy": "once"}}, "budget = '300', not '301'"),
        ("300", {"about": {"strategy": "vote"}}, "strategy = 'once', not 'vote'"),
        ("300", {"about": {"strategy": "once"}, "seed": 1}, "seed"),
    ):
        with pytest.raises(InvalidInput, match=match):
            go(once(), Scripted(right), budget, out=out, **more)


def test_a_line_that_is_none_is_named(tmp_path):
    out = tmp_path / "rows.jsonl"
    go(once(), Scripted(right), "300", out=out)
    whole = out.read_text()
    out.write_text("{broken\n" + whole)
    with pytest.raises(InvalidInput, match="line 1: not a JSON object"):
        go(once(), Scripted(right), "300", out=out)
    out.write_text('{"id": "q3"}\n' + whole)
    with pytest.raises(InvalidInput, match=r"'q3'.*no row of a run"):
        go(once(), Scripted(right), "300", out=out)
    out.write_text('{"id": ["q3"], "units": {}}\n' + whole)
    with pytest.raises(InvalidInput, match="no row of a run"):
        go(once(), Scripted(right), "300", out=out)
    out.write_text(whole.replace('"tokens": {', '"token": {', 1))
    with pytest.raises(InvalidInput, match="'q0' is not of a run"):
        go(once(), Scripted(right), "300", out=out)


def test_what_is_no_output_of_a_run_is_left_as_it_is(tmp_path):
    out = tmp_path / "questions.jsonl"
    out.write_text('{"question": "1 + 1"}\n{"question": "2 + 1"}')  # without an end of line: not a torn one
    before = out.read_bytes()
    with pytest.raises(InvalidInput, match="choose another output"):
        go(once(), Scripted(right), "300", out=out)
    assert out.read_bytes() == before


def test_rows_without_their_ledger_are_refused(tmp_path):
    out = tmp_path / "rows.jsonl"
    go(once(), Scripted(right), "1k", per_question=False, out=out)
    shutil.rmtree(out.with_name("rows.jsonl.run"))
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:2]))
    model = Scripted(right)
    with pytest.raises(InvalidInput, match=r"no .*settings\.json"):
        go(once(), model, "2k", per_question=False, out=out, seed=3)
    assert model.requests == []


@given(rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers(), min_size=1)), cut=st.integers(0, 500))
@settings(max_examples=50, deadline=None)
def test_lines_survive_being_cut_anywhere(tmp_path_factory, rows, cut):
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    file = Lines(path, sync=False)
    for row in rows:
        file.append(row)
    file.close()
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    file = Lines(path, sync=False)
    assert file.earlier == rows[: data.count(b"\n")]
    file.append({"more": 1})
    file.close()
    again = Lines(path, sync=False)
    assert again.earlier == [*rows[: data.count(b"\n")], {"more": 1}]
    again.close()


class Down(Scripted):
    """Refuses every call, or lets it hang."""

    def __init__(self, error=None):
        super().__init__(right)
        self.error = error

    async def generate(self, request):
        self.requests.append(request)
        if self.error is None:
            await asyncio.sleep(60)
        raise self.error


@pytest.mark.parametrize(
    ("down", "more"),
    [(Down(ModelError("no such key", billed=False)), {}), (Down(ModelError("lost", billed=True)), {}),
     (Down(), {"timeout": 0.05})],
)  # fmt: skip
def test_questions_that_failed_are_asked_again_once_their_rows_are_removed(tmp_path, down, more):
    """A call is 7 or 8 tokens in and 60 out: a budget of 200 pays for two of them in full and one that works."""
    out = tmp_path / "rows.jsonl"
    first = go(once(), down, "200", out=out, **more)
    assert all(row["answer"] is None for row in first.rows)
    same = Scripted(right)
    assert go(once(), same, "200", out=out).rows == first.rows
    assert same.requests == []
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:5]))
    model = Scripted(right)
    again = go(once(), model, "200", out=out, grade=grade)
    assert len(model.requests) == 7
    assert sum(row["correct"] is True for row in again.rows) == 7
    assert again.spent["all"] == sum(row["units"]["all"] for row in again.rows) > first.spent["all"]
    assert again.overshoot == {"all": 0}


def test_a_failure_stays_where_it_was_when_a_killed_run_goes_on(tmp_path):
    """The record has failures, so that a later call, whose cap depends on what they were charged, is the same."""
    out = tmp_path / "rows.jsonl"
    model = Faulty(right, 5, fail=0.3)
    first = go(vote(), model, "300", out=out)
    record = out.with_name("rows.jsonl.run") / "calls.jsonl"
    whole = record.read_text()
    assert '"failed"' in whole
    assert '"ended"' in whole
    record.write_text("".join(line for line in whole.splitlines(keepends=True) if '"ended"' not in line))
    out.write_text("")  # as after a kill before the first question's end
    second = Scripted(right)
    again = go(vote(), second, "300", out=out)
    own = [row for row in first.rows if "ZeroDivisionError" not in row["stopped_by"]]  # a bug is not on record
    want = {row["id"]: (row["answer"], row["units"], row["calls"], row["stopped_by"]) for row in own}
    found = {row["id"]: (row["answer"], row["units"], row["calls"], row["stopped_by"]) for row in again.rows}
    assert len(own) >= 6
    assert {name: found[name] for name in want} == want


def test_overshoot_leaves_a_row_and_a_reason(tmp_path):
    class Over(Scripted):
        async def generate(self, request):
            response = await super().generate(request)
            return Response(response.choices, Usage(input=response.usage.input, output=168))

    for more in ({}, {"out": tmp_path / "rows.jsonl"}):
        found = asyncio.run(run(QUESTIONS[:4], once(), Over(right), STYLE, "100", Settings(concurrency=2, **more)))
        assert len(found.rows) == 4
        assert found.overshoot["all"] > 0
        assert found.rows[-1]["stopped_by"] == "budget"


# pauses


class Counting(Scripted):
    """Tells how many calls came to their end, and calls ``on`` at the fifth."""

    def __init__(self, write, on=None):
        super().__init__(write)
        self.on, self.ended = on, []

    async def generate(self, request):
        if self.on is not None and len(self.ended) >= 5:
            self.on()
        await asyncio.sleep(0.01)
        response = await super().generate(request)
        self.ended.append(request)
        return response


def test_a_soft_pause_ends_what_is_under_way(tmp_path):
    pause = Pause()
    out = tmp_path / "rows.jsonl"
    model = Counting(right, pause.soft.set)
    first = go(vote(), model, "300", out=out, pause=pause, concurrency=3)
    assert first.paused
    assert 0 < len(first.rows) <= 6
    assert all(row["answer"] is not None for row in first.rows)
    second = Counting(right)
    done = go(vote(), second, "300", out=out, concurrency=3)
    assert not done.paused
    assert len(model.ended) + len(second.ended) == 4 * 12


def test_a_hard_pause_pays_for_what_is_under_way_and_nothing_twice(tmp_path):
    pause = Pause()
    out = tmp_path / "rows.jsonl"
    model = Counting(right, pause.hard.set)
    first = go(vote(), model, "1k", out=out, pause=pause, concurrency=3)
    assert first.paused
    second = Counting(right)
    done = go(vote(), second, "1k", out=out, concurrency=3)
    assert len(done.rows) == 12
    asked = [(request.prompt, request.seed) for request in model.ended + second.ended]
    assert len(asked) == len(set(asked)) == 4 * 12  # every call was answered once
    assert sum(row["wasted"]["all"] for row in done.rows) > 0  # the calls broken off are paid for
    assert sum(row["units"]["all"] for row in done.rows) == done.spent["all"]
    assert done.overshoot == {"all": 0}


def test_two_processes_do_not_share_an_output(tmp_path):
    out = tmp_path / "rows.jsonl"

    async def both():
        slow = Counting(right)
        first = asyncio.ensure_future(run(QUESTIONS, vote(), slow, STYLE, "300", Settings(out=out)))
        await asyncio.sleep(0.05)
        with pytest.raises(InvalidInput, match="another process"):
            await run(QUESTIONS, vote(), slow, STYLE, "300", Settings(out=out))
        return await first

    assert len(asyncio.run(both()).rows) == 12


def test_streams_are_on_record_too(tmp_path):
    """A stream that the strategy closed early, and one that it read to its end."""
    from contextlib import aclosing

    async def early(task):
        texts = []
        for most in (3, 99):
            read = ""
            async with aclosing(task.model.stream(Request(task.style.prompt(task.question.text), 40, seed=1))) as some:
                async for piece in some:
                    if isinstance(piece, Response):
                        break
                    read += piece.text
                    if len(read) == most:
                        break
            texts.append(read)
        return Answer(texts[0], "done", tuple(texts))

    out = tmp_path / "rows.jsonl"
    model = Scripted(lambda prompt, rng: "123456789")
    first = go(Strategy(early), model, "200", out=out, traces=True)
    assert len(model.requests) == 24
    out.write_text("")
    second = Scripted(lambda prompt, rng: "123456789")
    again = go(Strategy(early), second, "200", out=out, traces=True)
    assert second.requests == []
    assert [(row["answer"], row["units"]) for row in again.rows] == [
        (row["answer"], row["units"]) for row in first.rows
    ]
    assert {row["answer"] for row in again.rows} == {"123"}
    assert again.spent == first.spent


async def each_in_turn(tasks):
    """A strategy for many questions: a sample each, until the common budget is used up."""
    for i, task in enumerate(tasks):
        prompt = task.style.prompt(task.question.text)
        size = task.model.afford(prompt, most=40)
        if not size:
            continue
        response = await task.model.generate(Request(prompt, size, seed=task.seed))
        yield i, Answer(task.style.read(response.choices[0].text), "done")


def test_one_strategy_for_all_questions_together(tmp_path):
    out, model = tmp_path / "rows.jsonl", Scripted(right)
    found = go(each_in_turn, model, "150", per_question=False, out=out, durable=False, grade=grade)
    assert len(found.rows) == 12
    assert found.spent["all"] == sum(row["units"]["all"] for row in found.rows) <= 150
    assert {row["stopped_by"] for row in found.rows} == {"done", "error: the strategy gave no answer"}
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[2:]))
    second = Scripted(right)
    again = go(each_in_turn, second, "150", per_question=False, out=out, durable=False, grade=grade)
    assert {row["id"]: row["answer"] for row in again.rows} == {row["id"]: row["answer"] for row in found.rows}
    assert len(second.requests) == 2
    for more in ({"per_question": True}, {"per_question": False, "out": tmp_path / "x", "durable": True}):
        with pytest.raises(InvalidInput, match="all questions together"):
            go(each_in_turn, model, "150", **more)


def test_a_soft_pause_lets_a_strategy_for_all_questions_end():
    pause, model = Pause(), Counting(right)
    model.on = pause.soft.set
    found = go(each_in_turn, model, "2k", per_question=False, pause=pause)
    assert not found.paused
    assert [row["stopped_by"] for row in found.rows] == ["done"] * 12
    pause, model = Pause(), Counting(right)
    model.on = pause.hard.set
    broken = go(each_in_turn, model, "2k", per_question=False, pause=pause)
    assert broken.paused
    assert 0 < len(broken.rows) < 12


def test_split_answers_all_questions_from_one_budget():
    from budgeteer.strategies import split

    for strategy in (split, registered.build("split:allocator=uniform,show=agreement")):
        found = go(strategy, Scripted(right), "2k", per_question=False, grade=grade)
        assert [row["correct"] for row in found.rows] == [True] * 12
        assert found.spent["all"] == sum(row["units"]["all"] for row in found.rows) <= 2000
