"""Actions of several hooks on one batch are merged row by row, and the engine does what they say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.core.errors import CheckpointError, InvalidInput  # noqa: E402
from budgeteer.engine.head import load_head  # noqa: E402
from budgeteer.engine.hook import Action, Internals, Row, call_hooks  # noqa: E402
from budgeteer.models.model import Request  # noqa: E402
from budgeteer.models.policy import REASONER, load_policy  # noqa: E402
from budgeteer.models.reasoner import Reasoner  # noqa: E402
from budgeteer.strategies._budget_guidance import Guidance  # noqa: E402
from budgeteer.strategies._mirostat import Mirostat  # noqa: E402
from budgeteer.strategies._switch_thinking import Switch  # noqa: E402
from helpers.insides import QUESTION  # noqa: E402
from helpers.toy_reasoner import ToyReasoner  # noqa: E402

INSIDE = Internals(torch.eye(3), ("a", "b", "c"), 0, lambda text: ["abc".index(c) for c in text])


@dataclass(frozen=True)
class Shift:
    """Adds to the logits of rows that have an even choice; forces, ends and feeds by its fields."""

    by: float
    force: int = -1
    end: bool = False
    soft: bool = False
    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        assert (hidden is not None) == self.hidden
        m = len(rows)
        even = np.array([row.choice % 2 == 0 for row in rows])
        return Action(
            logits=logits + self.by,
            drawn=even,
            force=np.full(m, self.force),
            end=np.full(m, self.end),
            embeddings=torch.full((m, 3), self.by) if self.soft else None,
            soft=even,
        )


@dataclass(frozen=True)
class Broken:
    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        raise ValueError("broken on purpose")


def row(hook, choice=0):
    return Row(Request("p", max_tokens=4, n=8, hook=hook), choice, [0])


def test_rows_without_a_hook_are_left_alone_and_nothing_is_written_to():
    logits = torch.arange(6.0).view(2, 3)
    effect = call_hooks(INSIDE, [row(None), row(Shift(1.0))], logits, None)
    assert effect.logits.tolist() == [[0, 1, 2], [4, 5, 6]]
    assert effect.tempered.tolist() == [False, True]
    assert logits.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_each_hook_acts_on_its_own_rows():
    rows = [row(Shift(1.0), 0), row(Shift(2.0, force=2, soft=True), 0), row(Shift(1.0), 1), row(Shift(3.0, end=True))]
    effect = call_hooks(INSIDE, rows, torch.zeros(4, 3), None)
    assert effect.logits[:, 0].tolist() == [1, 2, 0, 3]
    assert effect.tempered.tolist() == [True, True, False, True]
    assert effect.force.tolist() == [-1, 2, -1, -1]
    assert effect.end.tolist() == [False, False, False, True]
    assert effect.soft.tolist() == [False, True, False, False]
    assert effect.embeddings.tolist()[1] == [2, 2, 2]


def test_equal_hooks_are_called_once():
    calls = []

    @dataclass(frozen=True)
    class Counting:
        hidden: bool = True

        def step(self, inside, rows, logits, hidden):
            calls.append((len(rows), tuple(hidden.shape)))

    call_hooks(INSIDE, [row(Counting()), row(Counting()), row(None)], torch.zeros(3, 3), torch.zeros(3, 2, 5))
    assert calls == [(2, (2, 2, 5))]


def test_an_error_fails_its_own_rows_only():
    effect = call_hooks(INSIDE, [row(Shift(1.0)), row(Broken())], torch.zeros(2, 3), None)
    assert list(effect.failed) == [1]
    assert effect.logits[0].tolist() == [1, 1, 1]


def test_fingerprints_tell_weights_apart():
    other = Internals(torch.eye(3) * 2, INSIDE.pieces, 0, INSIDE.encode)
    assert other.fingerprint != INSIDE.fingerprint == Internals(torch.eye(3), (), 0, INSIDE.encode).fingerprint


# The engine's handling of hooks, against the plain loop of toy_reasoner

ONE = Request(QUESTION, 40, temperature=0, stop=("\n",))


def hooks():
    return [
        None,
        Guidance("</think>", 5, head=load_head("budget_guidance"), min_rate=0, min_mode=0.9),
        Switch("</think>", 5, switches=3, window=2, alpha=0.9, beta=0.7, opening="<think>"),
        Mirostat("</think>", 5, target=0.2, rate=1.0, version=2, temperature=1.0),
    ]


@pytest.fixture(scope="module")
def engine():
    return Reasoner(slots=8)


def run(model, *requests):
    async def together():
        return await asyncio.gather(*map(model.generate, requests))

    return asyncio.run(together())


@pytest.mark.parametrize("cap", [12, 24, 60])
def test_hooks_do_the_same_in_the_engine_as_in_the_plain_loop(engine, cap):
    """Hidden states, forced tokens, logits and fed embeddings, in one batch with each other."""
    requests = [replace(ONE, max_tokens=cap, hook=hook) for hook in hooks()]
    toy = ToyReasoner(engine.policy)
    assert run(engine, *requests) == [run(toy, request)[0] for request in requests]


def test_rows_do_not_depend_on_their_neighbours(engine):
    """12 rows of 4 hooks over 8 slots: they move and wait, and each says what it says alone."""
    requests = [replace(ONE, temperature=1.0, seed=i, n=3, hook=hook) for i, hook in enumerate(hooks())]
    assert run(engine, *requests) == [run(engine, request)[0] for request in requests]


def test_a_row_that_its_hook_ends_keeps_what_it_has(engine):
    @dataclass(frozen=True)
    class End:
        hidden: bool = False

        def step(self, inside, rows, logits, hidden):
            return Action(end=np.array([len(row.tokens) == row.choice for row in rows]))

    response = run(engine, replace(ONE, n=3, hook=End()))[0]
    assert [choice.tokens for choice in response.choices] == [0, 1, 2]
    assert [choice.finish for choice in response.choices] == ["stop"] * 3
    assert [choice.text for choice in response.choices] == ["", "7", "7+"]
    assert response.usage.output == 3


def test_a_token_that_is_excluded_is_never_drawn(engine):
    @dataclass(frozen=True)
    class Only:
        hidden: bool = False

        def step(self, inside, rows, logits, hidden):
            allowed = [inside.encode("0")[0], inside.encode("1")[0]]
            out = torch.full_like(logits, -np.inf)
            out[:, allowed] = 0.0
            return Action(logits=out)

    response = run(engine, replace(ONE, n=8, temperature=1.0, seed=0, hook=Only()))[0]
    text = "".join(choice.text for choice in response.choices)
    assert set(text) == {"0", "1"}
    assert abs(text.count("1") - len(text) / 2) < 4 * (len(text) / 4) ** 0.5


def test_a_hook_that_raises_fails_its_own_request(engine):
    async def both():
        return await asyncio.gather(
            engine.generate(ONE), engine.generate(replace(ONE, hook=Broken())), return_exceptions=True
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
    with pytest.raises(CheckpointError, match="budgeteer lab heads"):
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
