"""The embedded reasoner as a Model: shared batches change no text, count every token and let go at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from contextlib import aclosing

import numpy as np
import pytest
import torch

from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.engine import steering
from budgeteer.engine.decoder import Decoder, draw
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models import reasoner as engine
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import LOGPROBS, PREFIX, SEED, Chunk, Finish, Request, Response
from budgeteer.models.policy import LlamaPolicy, load_policy
from budgeteer.models.reasoner import Reasoner
from budgeteer.rl.sampler import sample
from budgeteer.solve import Budgeted
from helpers.toys import toy_model

QUESTIONS = [f"Find the Greatest Common Divisor (GCD) of these numbers: [{a}, {b}]" for a, b in
             ((12, 18), (35, 21), (64, 48), (9, 27), (14, 49), (30, 42), (8, 20), (55, 33))]  # fmt: skip
POLICY = load_policy()


def run(body, slots: int = 256, policy: LlamaPolicy = POLICY):
    """What ``body(model)`` returns, in a loop of its own."""

    async def whole():
        model = Reasoner(policy, slots)
        try:
            return await body(model)
        finally:
            await model.aclose()

    return asyncio.run(whole())


def ask(*requests: Request, **options) -> list[Response]:
    async def body(model):
        return await asyncio.gather(*(model.generate(r) for r in requests))

    return run(body, **options)


async def pieces_of(model, request: Request) -> tuple[list[Chunk], Response]:
    found = [piece async for piece in model.stream(request)]
    return found[:-1], found[-1]


def mixed() -> list[Request]:
    """Other temperatures, caps, stop texts and numbers of choices side by side."""
    return [
        Request(
            q, max_tokens=(64, 5, 90)[k % 3], n=1 + k % 4, temperature=(1.0, 0.0, 0.7, 1.3)[k % 4], seed=k,
            stop=((), ("</think>",), ("1", "\n"))[k % 3], logprobs=k % 2 == 0,
        )
        for k, q in enumerate(QUESTIONS * 2)
    ]  # fmt: skip


# -- the texts --------------------------------------------------------------------------------------------------------


def test_choices_are_the_rows_of_the_sampler() -> None:
    (got,) = ask(Request(QUESTIONS[0], 96, n=7, seed=11, logprobs=True))
    want, _ = sample(
        POLICY.model, ["q"], POLICY.encode(QUESTIONS[:1]), np.array([7]), max_tokens=96, markers=POLICY.markers, seed=11
    )
    rows = [row[:n].tolist() for row, n in zip(want.tokens, want.length, strict=True)]
    assert [c.text for c in got.choices] == POLICY.decode(rows)
    assert [c.tokens for c in got.choices] == [len(row) for row in rows]
    for choice, logprob in zip(got.choices, want.logprob, strict=True):
        np.testing.assert_allclose(choice.logprobs, logprob[: choice.tokens], atol=1e-4)
    assert got.usage.input == len(POLICY.encode(QUESTIONS[:1])[0])
    assert got.usage.output == want.used


@pytest.mark.parametrize("slots", [1, 6, 256])
def test_company_changes_no_bit(slots: int) -> None:
    requests = mixed()

    async def one_by_one(model):
        return [await model.generate(r) for r in requests]

    assert ask(*requests, slots=slots) == run(one_by_one)


def test_a_row_that_joins_late_and_rows_that_leave_change_no_bit() -> None:
    first, late, left = Request(QUESTIONS[0], 96, n=9, seed=1), Request(QUESTIONS[1], 96, n=9, seed=2), mixed()[2]

    async def body(model):
        tasks = [asyncio.create_task(model.generate(first))]
        leaving = asyncio.create_task(model.generate(left))
        async for _ in model.stream(Request(QUESTIONS[2], 3, seed=3)):
            pass
        leaving.cancel()
        tasks.append(asyncio.create_task(model.generate(late)))
        return await asyncio.gather(*tasks)

    assert run(body) == [*ask(first), *ask(late)]


def test_another_seed_is_another_text_and_none_is_random() -> None:
    texts = [r.choices[0].text for r in ask(*(Request(QUESTIONS[0], 60, seed=s) for s in (1, 2, 3, None, None, None)))]
    assert len(set(texts)) > 3


def test_greedy_is_the_argmax_at_every_token() -> None:
    (got,) = ask(Request(QUESTIONS[3], 40, temperature=0.0, logprobs=True, seed=5))
    (row,) = POLICY.encode(QUESTIONS[3:4])
    for _ in range(got.choices[0].tokens):
        with torch.no_grad():
            logits = POLICY.model.logits(POLICY.model(torch.tensor([row])))[0, -1]
        row.append(int(logits.argmax()))
    assert POLICY.decode([row[-got.choices[0].tokens :]]) == [got.choices[0].text]


def test_log_probabilities_are_those_of_the_model_at_any_temperature() -> None:
    (got,) = ask(Request(QUESTIONS[4], 30, temperature=1.7, logprobs=True, seed=5))
    prompt, tokens = POLICY.encode(QUESTIONS[4:5])[0], POLICY.encode([got.choices[0].text])[0][1:]
    if got.choices[0].finish == Finish.STOP:
        tokens.append(POLICY.markers.eos)
    with torch.no_grad():
        logits = POLICY.model.logits(POLICY.model(torch.tensor([[*prompt, *tokens]])))[0]
    want = logits[len(prompt) - 1 : -1].log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)]
    np.testing.assert_allclose(got.choices[0].logprobs, want.numpy(), atol=2e-4)


def test_a_prompt_that_ends_inside_a_trace_is_continued() -> None:
    (whole,) = ask(Request(QUESTIONS[0], 96, temperature=0.0))
    text = whole.choices[0].text
    cut = text.index("</think>") + len("</think>")
    (rest,) = ask(Request(QUESTIONS[0] + text[:cut], 96, temperature=0.0))
    assert rest.choices[0].text == text[cut:]


# -- how choices end --------------------------------------------------------------------------------------------------


def test_a_stop_text_ends_a_choice_and_is_not_part_of_it() -> None:
    plain, stopped = ask(*(Request(QUESTIONS[5], 96, n=20, seed=4, stop=stop) for stop in ((), (";</th", "1;"))))
    ended = 0
    for a, b in zip(plain.choices, stopped.choices, strict=True):
        at = min((i for stop in (";</think>", "1;") if (i := a.text.find(stop)) >= 0), default=-1)
        assert b.text == (a.text if at < 0 else a.text[:at])
        ended += at >= 0
        assert b.tokens <= a.tokens
    assert ended > 10


def test_the_cap_ends_a_choice() -> None:
    (got,) = ask(Request(QUESTIONS[5], 4, n=30, seed=4))
    assert {c.finish for c in got.choices} <= {Finish.LENGTH, Finish.STOP}
    assert [c.tokens for c in got.choices if c.finish == Finish.LENGTH]
    assert all(c.tokens == 4 for c in got.choices if c.finish == Finish.LENGTH)
    assert got.usage.output == sum(c.tokens for c in got.choices)


def test_chunks_are_a_token_each_and_join_to_the_choices() -> None:
    async def body(model):
        return await asyncio.gather(*(pieces_of(model, r) for r in mixed()))

    for request, (chunks, response), want in zip(mixed(), run(body), ask(*mixed()), strict=True):
        assert response == want
        for i in range(request.n):
            mine = [c for c in chunks if c.choice == i]
            assert sum(c.tokens for c in mine) == len(mine) == response.choices[i].tokens
            assert "".join(c.text for c in mine) == response.choices[i].text


def test_the_end_of_the_positions_is_reached_and_not_passed() -> None:
    config = POLICY.model.config
    room = config.max_position_embeddings - len(POLICY.encode(QUESTIONS[:1])[0])
    (got,) = ask(Request(QUESTIONS[0], room, seed=0, temperature=50.0, n=3))
    assert max(c.tokens for c in got.choices) <= room
    with pytest.raises(InvalidInput, match="exceeds the 512 positions"):
        ask(Request(QUESTIONS[0], room + 1))


def test_old_columns_are_dropped_under_rows_that_live_on() -> None:
    """Hot rows seldom end: enough of them, starting at other times, to pass the last column several times."""
    policy = LlamaPolicy(toy_model(), POLICY.tokenizer, POLICY.markers, POLICY.bos)
    prompts = ["\n" * k for k in range(1, 9)]
    requests = [Request(p, 100 - 7 * (k % 8), n=3, seed=k, temperature=5.0) for k, p in enumerate(prompts * 5)]
    fed = []
    original = Decoder.shift

    def counted(self, by, rows):
        fed.append(by)
        return original(self, by, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "shift", counted)
        crowd = ask(*requests, slots=16, policy=policy)
    assert fed
    assert crowd == [r for request in requests for r in ask(request, policy=policy)]


# -- cancelling, failing, closing -------------------------------------------------------------------------------------


def test_a_closed_stream_and_a_cancelled_call_free_their_rows(monkeypatch) -> None:
    steps: list[int] = []
    original = Decoder.step

    def counted(self, token, position, start, group, column, *rest):
        steps.append(int((start < column).sum()))
        time.sleep(0.001)
        return original(self, token, position, start, group, column, *rest)

    monkeypatch.setattr(Decoder, "step", counted)

    async def body(model):
        endless = Request(QUESTIONS[0], 300, n=50, seed=1, temperature=30.0)
        async with aclosing(model.stream(endless)) as pieces:
            async for _ in pieces:
                break
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.generate(endless), 0.02)
        before = -1
        while before != len(steps):  # until nothing runs any more
            before = len(steps)
            await asyncio.sleep(0.1)
        assert before < 300  # steps of either request, had it run to its end
        await model.generate(Request(QUESTIONS[1], 20, seed=1))
        return steps[before:]

    after = run(body)
    assert max(steps) > 40  # the whole request was in the batch
    assert max(after) == 1


def test_what_is_asked_for_and_not_there_is_a_clear_error() -> None:
    model = Reasoner(POLICY)
    assert model.capabilities >= {PREFIX, LOGPROBS, SEED}
    with pytest.raises(InvalidInput, match="not as messages"):
        ask(Request(Chat((Message("user", "Hi"),)), 5))
    with pytest.raises(InvalidInput, match="stop text is empty"):
        ask(Request("Hi", 5, stop=("",)))
    with pytest.raises(InvalidInput, match="slots"):
        Reasoner(POLICY, 0)


def test_a_failure_of_the_engine_fails_its_requests_and_the_next_ones_work(monkeypatch) -> None:
    async def body(model):
        good = await model.generate(Request(QUESTIONS[0], 9, seed=1))
        with monkeypatch.context() as patch:
            patch.setattr(steering, "draw", lambda *args: 1 / 0)
            calls = (model.generate(Request(q, 9, seed=1)) for q in QUESTIONS[:3])
            failed = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in failed] == [ModelError] * 3
        assert failed[0].billed
        assert await model.generate(Request(QUESTIONS[0], 9, seed=1)) == good

    assert steering.draw is draw
    run(body)


def test_closing_fails_what_runs_and_refuses_what_comes() -> None:
    async def body(model):
        task = asyncio.create_task(model.generate(Request(QUESTIONS[0], 400, n=64, seed=1, temperature=30.0)))
        await asyncio.sleep(0.02)
        await model.aclose()
        with pytest.raises(ModelError, match="closed while"):
            await task
        with pytest.raises(ModelError, match="is closed"):
            await model.generate(Request(QUESTIONS[0], 4))
        assert not [t for t in threading.enumerate() if t is model._thread]

    run(body)


def test_an_idle_thread_ends_and_the_next_request_starts_another(monkeypatch) -> None:
    monkeypatch.setattr(engine, "_IDLE", 0.01)

    async def body(model):
        first = await model.generate(Request(QUESTIONS[0], 9, seed=1))
        while model._thread is not None:
            await asyncio.sleep(0.01)
        assert await model.generate(Request(QUESTIONS[0], 9, seed=1)) == first

    run(body)


def test_one_model_serves_several_loops() -> None:
    model = Reasoner(POLICY)
    request, found = Request(QUESTIONS[0], 30, n=4, seed=1), []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(model.generate(request)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(model.aclose())
    assert len(found) == 4
    assert len({r.choices for r in found}) == 1


# -- behind a budget --------------------------------------------------------------------------------------------------


def test_all_that_is_sampled_is_charged() -> None:
    async def body(model):
        ledger = MemoryLedger()
        ledger.open("q", [Limit("all", 9000)])
        budgeted = Budgeted(model, Allowance(ledger, "q", {"all": 9000}))
        responses = await asyncio.gather(*(budgeted.generate(r) for r in mixed()))
        used = sum(r.usage.total for r in responses)
        assert budgeted.remaining == {"all": 9000 - used}
        assert budgeted.spend.estimated == 0

    run(body)


@pytest.mark.parametrize(("low", "high"), [(2**63 + 11, 2**63 + 12), (-1, -2)])
def test_seeds_of_any_size_are_told_apart(low: int, high: int) -> None:
    one, other, again = ask(*(Request(QUESTIONS[0], 60, n=3, seed=s) for s in (low, high, low)))
    assert one == again
    assert one != other


def test_it_decodes_alone_and_leaves_other_threads_their_own():
    script = """
import asyncio, sys, threading
import torch
from budgeteer.models.model import Request
from budgeteer.models.reasoner import Reasoner
from budgeteer.models.requests import Requests

torch.set_num_threads(3)
seen, step = [], Requests.step

def watched(batch):
    seen.append(torch.get_num_threads())
    step(batch)

Requests.step = watched
model = Reasoner(slots=4)
asyncio.run(model.generate(Request("Modulo 11, from left to right: 3 + 4 =", 9, seed=1)))
new = threading.Thread(target=lambda: seen.append(-torch.get_num_threads()))
new.start()
new.join()
print(sorted(set(seen)), torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[-3, 1] 3\n", done.stderr
