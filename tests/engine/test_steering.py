"""Actions of several steers on one batch are merged row by row, and the engine does what they say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import budgeteer  # noqa: E402
from budgeteer.core.errors import CheckpointError, InvalidInput  # noqa: E402
from budgeteer.core.plan import ABORTED, CUT, ENDED, FINISHED, RUNNING, Status  # noqa: E402
from budgeteer.core.steer import (  # noqa: E402
    ABORT,
    CONTINUE,
    FINISH,
    STOP,
    Action,
    Internals,
    Need,
    Rows,
    Steer,
    join,
    shared,
    take,
)
from budgeteer.engine.head import load_head  # noqa: E402
from budgeteer.engine.steering import Steering  # noqa: E402
from budgeteer.engine.table import Table, marks_of_text  # noqa: E402
from budgeteer.models.model import Finish, Request, finish_of  # noqa: E402
from budgeteer.models.policy import REASONER, load_policy  # noqa: E402
from budgeteer.models.reasoner import Reasoner  # noqa: E402
from budgeteer.steer import budget_forcing, budget_guidance, mirostat, switch_thinking, truncate  # noqa: E402
from budgeteer.steer.kit import combine  # noqa: E402
from helpers.insides import QUESTION  # noqa: E402
from helpers.toy_reasoner import ToyReasoner  # noqa: E402

INSIDE = Internals(torch.eye(5), ("", "a", "b", "|", "\n"), 0, lambda text: [" ab|\n".index(c) for c in text])
LATE = frozenset({Need.LOGITS})


def of(step, needs=LATE, init=lambda rows: (), **fields):
    return Steer(init, step, frozenset(needs), **fields)


@shared
def shift(by, force=-1, end=False, soft=False):
    """Adds to the logits of even rows; forces, ends and feeds."""

    def step(state, now):
        m = len(now.row)
        even = state[now.row] % 2 == 0
        action = Action(
            np.full(m, STOP if end else CONTINUE, np.int8),
            np.full(m, force),
            now.logits + by,
            even,
            torch.full((m, 5), by) if soft else None,
            even,
        )
        return action, state

    return of(step, {Need.LOGITS, Need.EMBEDDINGS}, lambda rows: np.arange(len(rows.keys)))


def broken_step(state, now):
    raise ValueError("broken on purpose")


BROKEN = of(broken_step)


def steering(*steers, caps=9, close="|"):
    """One row for each steer, or None, in a table, and what steers them."""
    n = len(steers)
    table = Table(n, 20, [marks_of_text(INSIDE, (0,), close, ())], INSIDE.pieces)
    table.reset(np.arange(n), caps, 1.0)
    table.uniform = np.full((n, 20), 0.5, np.float32)
    made = Steering(table, INSIDE, False)
    for i, steer in enumerate(steers):
        if steer is not None:
            made.start(made.join(steer, Rows((str(i),), table.cap[i : i + 1], i)), 0, np.array([i]))
    return made


def step(made, logits, rows=None):
    """A token for all rows that run."""
    rows = np.flatnonzero(made.table.status == RUNNING) if rows is None else rows
    made.before(rows)
    rows = rows[made.table.status[rows] == RUNNING]
    return rows, made.take(rows, logits[: len(rows)].clone(), None)


def test_rows_without_a_steer_are_left_alone_and_nothing_is_written_to():
    logits = torch.tensor([[9.0, 0, 0, 0, 0], [0, 9.0, 0, 0, 0]])
    before = logits.clone()

    def only_b(state, now):
        out = torch.full_like(now.logits, -np.inf)
        out[:, 2] = 0.0
        return Action(logits=out), state

    made = steering(None, of(only_b))
    taken = made.take(np.arange(2), logits, None)
    assert taken.token.tolist() == [0, 2]
    assert taken.soft is None
    assert torch.equal(logits, before)


def test_each_steer_acts_on_its_own_rows():
    made = steering(shift(1.0), shift(2.0, force=2, soft=True), shift(3.0, end=True), None)
    _, taken = step(made, torch.zeros(4, 5))
    assert taken.at.tolist() == [0, 1, 3]
    assert made.table.status.tolist() == [RUNNING, RUNNING, ENDED, RUNNING]
    assert taken.token[1] == 2
    assert made.table.forced[:, 0].tolist() == [False, True, False, False]
    assert taken.soft.tolist() == [False, True, False]
    assert taken.embeddings[1].tolist() == [2.0] * 5


def test_equal_steers_are_asked_once_and_others_at_their_own_pace():
    calls = []

    @shared
    def counting(every):
        def step(state, now):
            calls.append((every, now.length.tolist()))
            return Action(), state

        return of(step, {Need.TOKENS}, every=every)

    made = steering(counting(1), counting(1), counting(2), None)
    for _ in range(3):
        step(made, torch.tensor([[0.0, 9, 0, 0, 0]] * 4))
    assert [lengths for every, lengths in calls if every == 1] == [[0, 0], [1, 1], [2, 2]]
    assert [lengths for every, lengths in calls if every == 2] == [[0], [2]]


def test_an_error_fails_its_own_rows_only():
    made = steering(shift(1.0), BROKEN)
    _, taken = step(made, torch.tensor([[0.0, 9, 0, 0, 0]] * 2))
    assert [(str(error), rows.tolist()) for error, rows in made.failures] == [("broken on purpose", [1])]
    assert taken.at.tolist() == [0]


def decide(decision):
    return of(lambda state, now: (Action(np.full(len(now.row), decision, np.int8)), state), {Need.MARKERS})


def test_decisions_by_hand():
    """FINISH forces the marker where the thinking is open, and ends the row where the answer is complete."""
    made = steering(decide(FINISH), decide(ABORT), decide(STOP), None)
    says_a = torch.tensor([[0.0, 90, 0, 0, 0]] * 4)
    step(made, says_a)
    assert made.table.status.tolist() == [RUNNING, ABORTED, ENDED, RUNNING]
    assert made.table.tokens[[0, 3], 0].tolist() == [3, 1]
    assert made.table.closed.tolist() == [1, -1, -1, -1]
    step(made, says_a)  # closed, and no answer yet
    assert made.table.tokens[0, 1] == 1
    step(made, torch.tensor([[0.0, 0, 0, 0, 90]] * 2))
    assert (made.table.answered[0], made.table.status[0]) == (3, RUNNING)
    step(made, says_a)
    assert (made.table.length[0], made.table.status[0]) == (3, FINISHED)


def test_a_marker_of_several_tokens_is_forced_to_its_end():
    made = steering(decide(FINISH), close="|b|")
    for _ in range(3):
        step(made, torch.tensor([[0.0, 90, 0, 0, 0]]))
    assert made.table.tokens[0, :3].tolist() == [3, 2, 3]
    assert made.table.closed[0] == 3
    step(made, torch.tensor([[0.0, 90, 0, 0, 0]]))
    assert made.table.forced[0, :4].tolist() == [True, True, True, False]


def test_caps_are_lowered_and_never_raised():
    caps = of(
        lambda state, now: (Action(cap=np.array([2, 100])[now.row]), state), {Need.TOKENS}, lambda rows: rows.max_tokens
    )
    table = Table(2, 20, [marks_of_text(INSIDE, (0,), "", ())], INSIDE.pieces)
    table.reset(np.arange(2), 5, 1.0)
    table.uniform = np.full((2, 20), 0.5, np.float32)
    made = Steering(table, INSIDE, False)
    made.start(made.join(caps, Rows(("a", "b"), table.cap, 0)), 0, np.arange(2))
    for _ in range(9):
        step(made, torch.tensor([[0.0, 90, 0, 0, 0]] * 2))
    assert table.length.tolist() == [2, 5]
    assert table.status.tolist() == [CUT, CUT]


def test_states_are_joined_and_taken_apart():
    @dataclass(frozen=True)
    class Two:
        a: np.ndarray
        b: list

    first, second = Two(np.array([1, 2]), ["x", "y"]), Two(np.array([3]), ["z"])
    both = join(first, second)
    assert (both.a.tolist(), both.b) == ([1, 2, 3], ["x", "y", "z"])
    last = take(both, np.array([2]))
    assert (last.a.tolist(), last.b) == ([3], ["z"])
    assert join((), ()) == take((), np.array([0])) == ()
    with pytest.raises(InvalidInput, match="one entry a row"):
        take({"n": 3}, np.array([0]))


def test_rows_that_come_and_go_keep_their_own_state():
    """A steer that counts for each row how often it was asked; requests join and leave in another order."""

    def count(state, now):
        state = state.copy()
        state[now.row] += 1
        return Action(), state

    counting = of(count, {Need.TOKENS}, lambda rows: np.zeros(len(rows.keys), np.int64))
    made = steering(None, None, None)
    tickets = []
    for turn in range(3):
        tickets.append(made.join(counting, Rows(("x", "y"), np.array([9, 9]), turn)))
        made.start(tickets[turn], 1, np.array([turn]))
        made.before(np.arange(turn + 1))
    assert made.leave(tickets[1]).tolist() == [0, 2]
    made.before(np.array([0, 2]))
    assert made.leave(tickets[0]).tolist() == [0, 4]
    made.before(np.array([2]))
    assert made.leave(tickets[2]).tolist() == [0, 3]
    assert not made.groups


def test_two_steers_on_the_same_rows():
    """The first one's force hides the second one's; what each needs is needed by both."""
    both = combine(budget_forcing(2), of(lambda state, now: (Action(force=np.where(now.forced, 4, 1)), state)))
    assert both.needs == {Need.TOKENS, Need.MARKERS, Need.LOGITS}
    made = steering(both)
    for _ in range(4):
        step(made, torch.tensor([[0.0, 0, 90, 0, 0]]))
    assert made.table.tokens[0, :4].tolist() == [1, 1, 3, 1]


def test_fingerprints_tell_weights_apart():
    other = Internals(torch.eye(5) * 2, INSIDE.pieces, 0, INSIDE.encode)
    assert other.fingerprint != INSIDE.fingerprint == Internals(torch.eye(5), (), 0, INSIDE.encode).fingerprint


# The engine's handling of steers, against the plain loop of toy_reasoner

ONE = Request(QUESTION, 40, temperature=0, stop=("\n",), close="</think>")


def steers():
    forcing = budget_forcing(reserve=5)
    return [
        None,
        combine(forcing, budget_guidance(load_head("budget_guidance"), reserve=5)),
        combine(forcing, switch_thinking(3, window=2, alpha=0.9, beta=0.7)),
        combine(forcing, mirostat(0.2)),
        forcing,
        truncate(9),
        budget_forcing(20, minimum=12, wait=";"),
    ]


@pytest.fixture(scope="module")
def engine():
    return Reasoner(slots=8)


def run(model, *requests):
    async def together():
        return await asyncio.gather(*map(model.generate, requests))

    return asyncio.run(together())


@pytest.mark.parametrize("cap", [12, 24, 60])
def test_steers_do_the_same_in_the_engine_as_in_the_plain_loop(engine, cap):
    """Hidden states, forced tokens, logits and fed embeddings, in one batch with each other."""
    requests = [replace(ONE, max_tokens=cap, steer=steer) for steer in steers()]
    toy = ToyReasoner(engine.policy)
    assert run(engine, *requests) == [run(toy, request)[0] for request in requests]


def test_rows_do_not_depend_on_their_neighbours(engine):
    """21 rows of 7 steers over 8 slots: they move and wait, and each says what it says alone."""
    requests = [replace(ONE, temperature=1.0, seed=i, n=3, steer=steer) for i, steer in enumerate(steers())]
    assert run(engine, *requests) == [run(engine, request)[0] for request in requests]


@pytest.mark.parametrize("needs", [{Need.TOKENS}, {Need.LOGITS}])
def test_a_row_that_its_steer_ends_keeps_what_it_has(engine, needs):
    def end(state, now):
        return Action(np.where(now.length == state[now.row], STOP, CONTINUE).astype(np.int8)), state

    steer = of(end, needs, lambda rows: np.array([int(key) for key in rows.keys]))
    response = run(engine, replace(ONE, n=3, steer=steer))[0]
    assert [choice.tokens for choice in response.choices] == [0, 1, 2]
    assert [choice.finish for choice in response.choices] == ["stop"] * 3
    assert [choice.text for choice in response.choices] == ["", "7", "7+"]
    assert response.usage.output == 3


def test_a_token_that_is_excluded_is_never_drawn(engine):
    def only(state, now):
        out = torch.full_like(now.logits, -np.inf)
        out[:, [now.model.encode("0")[0], now.model.encode("1")[0]]] = 0.0
        return Action(logits=out), state

    response = run(engine, replace(ONE, n=8, temperature=1.0, seed=0, steer=of(only)))[0]
    text = "".join(choice.text for choice in response.choices)
    assert set(text) == {"0", "1"}
    assert abs(text.count("1") - len(text) / 2) < 4 * (len(text) / 4) ** 0.5


def test_a_steer_that_raises_fails_its_own_request(engine):
    async def both():
        return await asyncio.gather(
            engine.generate(ONE), engine.generate(replace(ONE, steer=BROKEN)), return_exceptions=True
        )

    fine, failed = asyncio.run(both())
    assert fine.choices[0].text.startswith("7+5=")
    assert isinstance(failed, ValueError)
    assert run(engine, ONE)[0] == fine


def test_a_head_refuses_other_weights():
    head = load_head("budget_guidance")
    with pytest.raises(InvalidInput, match="fingerprint"):
        head.check(INSIDE)


def test_a_head_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="budgeteer heads train"):
        load_head("budget_guidance", tmp_path)


def test_states_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    tokens = torch.tensor([[0, 20, 30, 25, 40, 9]])
    policy = load_policy()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(REASONER, dtype=torch.float32)
    with torch.inference_mode():
        ours = policy.model.states(policy.model.embed[tokens])
        for mine, other in zip(ours, theirs(tokens, output_hidden_states=True).hidden_states, strict=True):
            torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4)


def test_a_stop_text_ends_a_row_in_one_place_for_all_engines():
    table = Table(2, 20, [marks_of_text(INSIDE, (0,), "", ())], INSIDE.pieces)
    table.reset(np.arange(2), 5, 1.0)
    assert table.before_stop(0, "7+5=12\n?8", ("?", "\n")) == "7+5=12"
    assert table.before_stop(1, "7+5=1", ("?", "\n")) == "7+5=1"
    assert table.status.tolist() == [ENDED, RUNNING]
    source = Path(budgeteer.__file__).parent
    readers = {path.name for path in source.rglob("*.py") if "import until" in path.read_text(encoding="utf-8")}
    assert readers == {"table.py"}


def test_a_row_ends_a_choice_as_it_ended_itself():
    ends = {status: finish_of(status) for status in Status}
    assert {status for status, finish in ends.items() if finish == Finish.LENGTH} == {CUT}
    assert {status for status, finish in ends.items() if finish == Finish.ABORTED} == {ABORTED}
    assert set(ends.values()) == {Finish.LENGTH, Finish.STOP, Finish.ABORTED}
