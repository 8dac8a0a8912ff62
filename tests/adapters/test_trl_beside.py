"""Losses beside that of the rollouts, and the KL penalty by difficulty, in TRL's trainer against single rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402

from budgeteer.adapters.trl.beside import refuse_beside  # noqa: E402
from budgeteer.adapters.trl.ratios import refuse_loss  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.beside import ANY, next_token  # noqa: E402
from budgeteer.rl.kl_weight import by_difficulty  # noqa: E402
from budgeteer.rl.replay import recent  # noqa: E402
from helpers.trl_oracle import SGD, descended, logprobs, model_of, updates_of  # noqa: E402
from helpers.trl_tiny import DATA, config, even, tiny, trained, weights  # noqa: E402

HELD = replace(recipes.get("grpo"), kl_weight=by_difficulty(1e-4, 0.05, 5.0, keep=0.5, rate=2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


def all_logprobs(model, ids):
    """[v] of the token behind these."""
    return model(torch.tensor([[*ids]])).logits[0, -1].log_softmax(-1)


def test_the_next_token_loss_is_the_mean_over_the_tokens_of_the_prompts(folder, tmp_path, monkeypatch) -> None:
    updates = updates_of(monkeypatch)
    recipe = replace(recipes.get("grpo"), beside=(next_token(0.5),))
    made = trained(folder, config(tmp_path, **SGD), recipe=recipe, reward_funcs=even, train_dataset=DATA)

    def mean(model, update):
        own = [(prompt[:1], prompt[1:]) for prompt in update.rollouts.prompts]
        return -0.5 * torch.cat([logprobs(model, *each) for each in own]).mean()

    expected, _ = descended(folder, updates, beside=mean)
    assert torch.allclose(weights(made), expected, atol=1e-5)
    assert not torch.allclose(weights(made), descended(folder, updates)[0], atol=1e-3)
    first = next(row for row in made.state.log_history if "loss" in row)
    with torch.no_grad():
        assert first["beside/next token"] == pytest.approx(2 * float(mean(model_of(folder), updates[0])), rel=1e-3)


def test_the_loss_on_the_first_token_reads_bare_prompts(folder, tmp_path, monkeypatch) -> None:
    """The recipe with all of its parts: kinds are asked for, and the choice is learnt without being asked."""
    updates = updates_of(monkeypatch)
    made = trained(
        folder, config(tmp_path, **SGD), recipe="adaptive-deep:weight=0.5", reward_funcs=even, train_dataset=DATA
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    short = tokenizer("</think>", add_special_tokens=False)["input_ids"][0]
    bare = {tuple(tokenizer(prompt)["input_ids"]) for prompt in DATA["prompt"]}

    def mean(model, update):
        (reading,) = update.beside
        losses = []
        for prompt, token in zip(reading.prompts, reading.tokens[:, 0].tolist(), strict=True):
            assert prompt in bare
            assert token in (short, ANY)
            p = all_logprobs(model, prompt)[short].exp()
            odds = torch.log(p) - torch.log1p(-p)
            losses.append(torch.nn.functional.softplus(-odds if token == short else odds))
        return 0.5 * sum(losses) / len(losses) if losses else torch.zeros(())

    assert any(len(update.beside[0]) for update in updates)
    expected, _ = descended(folder, updates, beside=mean)
    assert torch.allclose(weights(made), expected, atol=1e-5)
    assert not torch.allclose(weights(made), descended(folder, updates)[0], atol=1e-3)


@pytest.mark.parametrize("iterations", [1, 2])
def test_each_row_is_held_to_the_start_by_its_own_weight(folder, tmp_path, monkeypatch, iterations) -> None:
    """Factors of easy, medium and hard prompts part from the second step on, by divergences computed here."""
    updates, beta = updates_of(monkeypatch), 0.5
    args = config(
        tmp_path, beta=beta, use_bias_correction_kl=False, num_iterations=iterations, max_steps=3 * iterations, **SGD
    )
    made = trained(folder, args, recipe=HELD, reward_funcs=even, train_dataset=DATA)
    start, part = model_of(folder), HELD.kl_weight
    state, divergences = part.init(), []

    def penalty(model, update, i):
        """[t] of the tokens of row i."""
        (prompt,) = update.rollouts.prompts_of(np.array([i]))
        tokens = update.rollouts.tokens[i, : update.rollouts.length[i]]
        with torch.no_grad():
            gap = logprobs(start, prompt, tokens)
        gap = gap - logprobs(model, prompt, tokens)
        return gap.exp() - gap - 1

    def held(model, update):
        nonlocal state
        n = len(update.rollouts)
        if not divergences or divergences[-1][0] is not update:
            np.testing.assert_allclose(update.kl_scale, part.weigh(state, update.rollouts), rtol=1e-3)
            with torch.no_grad():
                kl = np.array([float(penalty(model, update, i).mean()) for i in range(n)])
            state = part.observe(state, update.rollouts, kl)
            divergences.append((update, kl))
        each = [penalty(model, update, i).sum() * float(update.kl_scale[i]) for i in range(n)]
        return beta * sum(each) / int(update.rollouts.length.sum())

    expected, _ = descended(folder, updates, beside=held, iterations=iterations)
    assert torch.allclose(weights(made), expected, atol=1e-5)
    assert len({round(float(x), 6) for update in updates for x in update.kl_scale}) > 1
    np.testing.assert_allclose(made.spending.kl_state.weight, state.weight, rtol=1e-3)


def test_a_resumed_run_goes_on_within_a_generation(folder, tmp_path) -> None:
    recipe = replace(HELD, beside=(next_token(0.5),))
    settings = {"beta": 0.5, "use_bias_correction_kl": False, "num_iterations": 2, "max_steps": 5}
    more = {"recipe": recipe, "reward_funcs": even, "train_dataset": DATA}
    whole = trained(folder, config(tmp_path, save_strategy="steps", save_steps=1, **settings), **more)
    again = trained(folder, config(tmp_path / "b", **settings), resume=str(tmp_path / "checkpoint-3"), **more)
    assert torch.equal(weights(whole), weights(again))
    assert again.spending.kl_state.weight.tolist() == whole.spending.kl_state.weight.tolist()
    assert np.isfinite(whole.spending.kl_state.kl).any()


def test_ares_runs_with_its_branches_reward_and_penalty(folder, tmp_path, monkeypatch) -> None:
    updates = updates_of(monkeypatch)
    args = config(tmp_path, beta=0.1, use_bias_correction_kl=False)
    made = trained(folder, args, recipe="ares:window=1", reward_funcs=even, train_dataset=DATA, budget=400)
    assert made.spending.progress.used <= 400
    assert made.spending.kl_state.updates == len(updates)
    assert all(np.isfinite(row["loss"]) for row in made.state.log_history if "loss" in row)


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        (HELD, {"loss_type": "cispo"}, "another one of bnpo"),
        (HELD, {"importance_sampling_level": "sequence"}, "leave that at the default"),
        (HELD, {"use_bias_correction_kl": True}, "set use_bias_correction_kl=False"),
        (replace(HELD, replay=recent()), {}, "leave one out"),
    ],
)
def test_what_the_penalty_does_not_go_with_is_refused(tmp_path, recipe, settings, message) -> None:
    given = {"beta": 0.1, "use_bias_correction_kl": False, **settings}
    with pytest.raises(InvalidInput, match=message):
        refuse_loss(recipe, config(tmp_path, **given))
    refuse_loss(recipe, config(tmp_path, **given | {"beta": 0.0}))  # a weight of nothing


def test_losses_beside_are_refused_for_several_processes() -> None:
    recipe = replace(recipes.get("grpo"), beside=(next_token(),))
    refuse_beside(recipe, 1)
    with pytest.raises(InvalidInput, match="there are 2, train with one"):
        refuse_beside(recipe, 2)
