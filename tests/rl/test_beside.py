"""Losses on prompts beside that of the rollouts, and the KL weight by difficulty: by hand, and in the trainer."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import InvalidInput
from budgeteer.rl import recipes
from budgeteer.rl.beside import ANY, Reading, log_odds, next_token, parting, switching
from budgeteer.rl.control import Control
from budgeteer.rl.kl_weight import by_difficulty
from budgeteer.rl.logprobs import backward_beside, completion_logprobs
from budgeteer.rl.reward._adaptive_deep import needed
from budgeteer.rl.variant import both_kinds
from helpers.rollouts import rows_of
from helpers.toys import toy_model
from helpers.training import KEYS, PROMPTS, build, config

A = np.array


def rollouts(verified, long, group):
    """Rows of two tokens of prompts a, b, ...; ``long`` says their kind."""
    made = rows_of([[5, 6]] * len(group))
    names = tuple("abcdef"[: max(group) + 1])
    return dataclasses.replace(
        made, keys=names, group=A(group), verified=A(verified, float), prompts=tuple((0, 9) for _ in names),
        more={"deliberate": A(long)},
    )  # fmt: skip


# -- the next-token loss -----------------------------------------------------------------------------------------------


def test_every_token_of_a_prompt_but_the_first_counts_once() -> None:
    made = rollouts([1, 0, 1], [1, 0, 1], [0, 0, 1])
    read = next_token(0.1).read(made, {"a": (0, 7, 8), "b": (0,)}, ())
    assert read.prompts == ((0,),)  # b has nothing to predict
    assert read.tokens.tolist() == [[7, 8]]
    assert read.length.tolist() == [2]
    assert next_token().loss(torch.tensor([-2.0])).tolist() == [2.0]


def test_the_gradient_is_that_of_the_models_own_cross_entropy() -> None:
    made, model = rollouts([1, 0], [1, 0], [0, 1]), toy_model()
    prompts = {"a": (0, 7, 8, 5), "b": (0, 6)}
    mean = backward_beside(model, next_token(0.5), next_token(0.5).read(made, prompts, ()))
    got = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    losses = []
    for prompt in prompts.values():
        logits = model.logits(model(torch.tensor([prompt[:-1]])))[0]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(prompt[1:]), reduction="sum"))
    (0.5 * sum(losses) / 4).backward()  # four tokens in all
    assert mean == pytest.approx(float(sum(losses).detach()) / 4, rel=1e-5)
    for name, value in model.named_parameters():
        torch.testing.assert_close(got[name], value.grad, rtol=1e-4, atol=1e-6)


# -- the loss on the first token ---------------------------------------------------------------------------------------


def test_the_kind_that_a_prompt_needs() -> None:
    correct, long = A([1.0, 0, 1, 1, 0, 1, 0, 0]), A([1, 1, 0, 0, 1, 0, 1, 0]) > 0
    # a: long 1 of 2, short 2 of 2; b: long 0 of 1, short 1 of 1; c: neither is right
    assert needed(correct, long, A([0, 0, 0, 0, 1, 1, 2, 2]), 0.0).tolist() == [0, 0, 0, 0, 0, 0, -1, -1]
    # long 2 of 2, short 1 of 2: half a point worse
    correct, long = A([1.0, 1, 1, 0]), A([1, 1, 0, 0]) > 0
    assert needed(correct, long, A([0] * 4), 0.0).tolist() == [1] * 4
    assert needed(correct, long, A([0] * 4), 0.5).tolist() == [0] * 4


def test_where_the_two_kinds_part() -> None:
    assert parting([7, 8, 9], [7, 5]) == ((7,), 8, 5)
    assert parting([], [4, 5]) == ((), ANY, 4)  # long is any other beginning
    assert parting([4], []) == ((), 4, ANY)
    for long, short in (([7, 8], [7]), ([7], [7, 8]), ([7], [7])):
        with pytest.raises(InvalidInput, match="none tells them apart"):
            parting(long, short)


def test_the_bare_prompt_is_read_and_the_wanted_token_held_against_the_other() -> None:
    # a needs short, b long, c nothing can be told of, d has long rows only
    made = rollouts([1, 1, 1, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3])
    prompts = {"a": (0, 1), "b": (0, 2), "c": (0, 3), "d": (0, 4)}
    read = switching("x", "y").read(made, prompts, ([7, 8], [7, 5]))
    assert read.prompts == ((0, 1, 7), (0, 2, 7))
    assert read.tokens.tolist() == [[5], [8]]
    assert read.other.tolist() == [[8], [5]]


def test_the_loss_by_hand() -> None:
    logp = torch.log(torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]))
    gap = log_odds(logp, torch.tensor([0, 1]), torch.tensor([1, 0]))
    torch.testing.assert_close(gap, torch.tensor([math.log(2), -math.log(2)]))
    # -log sigmoid(log 2) = log(1 + 1/2); -log sigmoid(-log 2) = log 3; with a distance of log 2: log 2 and log 5
    torch.testing.assert_close(switching().loss(gap), torch.tensor([math.log(1.5), math.log(3)]))
    apart = switching(distance=math.log(2)).loss(gap)
    torch.testing.assert_close(apart, torch.tensor([math.log(2), math.log(5)]))
    rest = log_odds(logp, torch.tensor([ANY, 0]), torch.tensor([0, ANY]))
    torch.testing.assert_close(rest, torch.tensor([math.log(0.4 / 0.6), math.log(0.6 / 0.4)]))


def test_a_sure_model_has_a_finite_loss() -> None:
    logp = torch.log_softmax(torch.tensor([[200.0, 0.0]]), -1).requires_grad_()
    loss = switching().loss(log_odds(logp, torch.tensor([ANY]), torch.tensor([0])))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logp.grad).all()


@pytest.mark.parametrize("wanted", [(8, 5), (ANY, 8), (8, ANY)])
def test_the_loss_moves_the_choice(wanted) -> None:
    model, prompt = toy_model(), (0, 7)
    reading = Reading((prompt,), A([[wanted[0]]]), A([1]), A([[wanted[1]]]))

    def gap() -> float:
        with torch.no_grad():
            logp = completion_logprobs(model, [prompt], A([[1]]), A([1]), 1.0)
            return float(log_odds(logp, torch.tensor([wanted[0]]), torch.tensor([wanted[1]]))[0])

    before, optimiser = gap(), torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        optimiser.zero_grad()
        backward_beside(model, switching(weight=1.0), reading)
        optimiser.step()
    assert gap() > before + 0.5


@pytest.mark.parametrize(
    "made",
    [
        lambda: next_token(-1), lambda: next_token(math.inf), lambda: switching("a", "a"),
        lambda: switching(distance=-1), lambda: switching(margin=2), lambda: switching(weight=math.nan),
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(made) -> None:
    with pytest.raises(InvalidInput, match="give"):
        made()


# -- in a recipe -------------------------------------------------------------------------------------------------------


def test_a_recipe_without_the_kinds_is_refused() -> None:
    grpo = recipes.get("grpo")
    with pytest.raises(InvalidInput, match="reads the column 'deliberate'"):
        dataclasses.replace(grpo, beside=(switching(),))
    made = dataclasses.replace(grpo, variant=both_kinds(), beside=(switching("a", "b"),))
    with pytest.raises(InvalidInput, match="knows tokens only"):
        Control(made, config(), PROMPTS, KEYS, wording=None)


def weights(trainer) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in trainer.model.parameters()])


def test_weight_zero_changes_nothing_and_another_one_does() -> None:
    def run(beside) -> torch.Tensor:
        trainer = build(dataclasses.replace(recipes.get("grpo"), name="x", beside=beside), c=config(minibatches=2))
        trainer.run()
        return weights(trainer)

    plain = run(())
    assert torch.equal(run((next_token(0.0),)), plain)
    assert not torch.equal(run((next_token(0.1),)), plain)


def test_it_is_learnt_where_no_rollout_is() -> None:
    """All rewards are equal, so that GRPO has nothing to learn; the prompts become likelier all the same."""

    def likelihood(trainer) -> float:
        losses = [
            float(completion_logprobs(trainer.model, [p[:1]], A([p[1:]]), A([len(p) - 1]), 1.0).detach()[
                range(len(p) - 1), list(p[1:])
            ].mean())
            for p in PROMPTS
        ]  # fmt: skip
        return float(np.mean(losses))

    recipe = dataclasses.replace(recipes.get("grpo"), beside=(next_token(1.0),))
    trainer = build(recipe, reward=lambda index, rows: np.ones(len(rows)))
    before = likelihood(trainer)
    trainer.run()
    assert likelihood(trainer) > before + 0.1
    assert trainer.progress.steps_log[-1]["terms"]["next token"] > 0


@pytest.mark.parametrize("name", ["rmt", "adaptive-deep:long=ab,short=ac"])
def test_the_papers_recipes_train_and_go_on_as_the_same_run(name, tmp_path) -> None:

    whole, halves = build(name), build(name)
    whole.run()
    halves.run(tmp_path, on_step=lambda p: p.step < 2)
    again = build(name)
    again.run(tmp_path)
    assert again.progress.step == whole.progress.step
    assert torch.equal(weights(again), weights(whole))
    assert ("next token" if name == "rmt" else "switching") in whole.progress.steps_log[-1]["terms"]


# -- the KL weight -----------------------------------------------------------------------------------------------------


def test_the_weights_by_hand() -> None:
    made = rollouts([1, 1, 1, 0, 0, 0], [0] * 6, [0, 0, 1, 1, 2, 2])  # easy, medium, hard
    rule = by_difficulty(easy=0.1, medium=0.1, hard=0.1, keep=0.5, rate=0.5)
    state = rule.init()
    assert rule.weigh(state, made).tolist() == [1.0] * 6
    # easy twice its target: e = 1, mean error 0.5, clipped to 0.2; medium on it; hard half of it: e = -0.5, -0.25
    state = rule.observe(state, made, A([0.3, 0.1, 0.1, 0.1, 0.05, np.nan]))
    assert state.kl.tolist() == pytest.approx([0.2, 0.1, 0.05])
    assert state.error.tolist() == pytest.approx([0.5, 0.0, -0.25])
    assert state.weight.tolist() == pytest.approx([math.exp(0.1), 1.0, math.exp(-0.1)])
    assert rule.weigh(state, made).tolist() == pytest.approx([math.exp(0.1)] * 2 + [1.0] * 2 + [math.exp(-0.1)] * 2)
    # the next step: the mean of easy moves half way to 0.1, so e = 0.5, and the error is (0.5 + 0.5) / 2
    state = rule.observe(state, made, A([0.1, 0.1, np.nan, np.nan, np.nan, np.nan]))
    assert state.kl.tolist() == pytest.approx([0.15, 0.1, 0.05])
    assert state.error[0] == pytest.approx(0.5)
    assert state.weight.tolist() == pytest.approx([math.exp(0.2), 1.0, math.exp(-0.1)])
    assert state.updates == 2
    again = load_state(rule.init(), json.loads(json.dumps(dump_state(state))))
    assert again.weight.tolist() == state.weight.tolist()


def test_weights_stay_within_bounds_and_change_every_few_steps() -> None:
    made = rollouts([1, 1], [0, 0], [0, 0])
    rule = by_difficulty(rate=100.0, keep=0.0, every=3)
    state, seen = rule.init(), []
    for _ in range(6):
        state = rule.observe(state, made, A([5.0, 5.0]))
        seen.append(state.weight[0])
    assert seen == [1.0, 1.0, 100.0, 100.0, 100.0, 100.0]
    with pytest.raises(InvalidInput, match="targets above 0"):
        by_difficulty(easy=0)


def test_the_trainer_holds_rows_by_their_weight_and_tells_what_it_measured() -> None:
    def run(rule) -> tuple[torch.Tensor, object]:
        recipe = dataclasses.replace(recipes.get("grpo"), name="x", kl_weight=rule)
        trainer = build(recipe, c=config(kl=0.5))
        trainer.run()
        return weights(trainer), trainer.control.kl_state

    plain, _ = run(None)
    held, state = run(by_difficulty(rate=0.0))  # factors stay 1
    assert torch.equal(plain, held)
    assert state.updates == 4
    assert np.nanmax(state.kl) > 0
    moved, _ = run(by_difficulty(easy=1e-6, medium=1e-6, hard=1e-6, keep=0.0, rate=5.0))
    assert not torch.equal(plain, moved)
