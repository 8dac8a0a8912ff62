"""Recipes with a loss of their own in TRL's trainer, against single rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from budgeteer.adapters.trl.ratios import CLIPPED  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.ratio import Loss, clipped, icepop, truncated  # noqa: E402
from budgeteer.rl.rollouts import per_token  # noqa: E402
from helpers.trl_oracle import SGD, descended, model_of, updates_of  # noqa: E402
from helpers.trl_tiny import DATA, config, even, tiny, trained, weights  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


def masked(new, old, advantage, low=0.95, high=1.05):
    ratio = (new - old).exp()
    return torch.where((ratio >= low) & (ratio <= high), ratio, 0.0) * advantage


def bounded(new, old, advantage, high=1.01):
    return (new.detach() - old).exp().clamp(max=high) * advantage * new


def of_row(new, old, advantage, low=3e-4, high=4e-4):
    ratio = (new - old).mean().detach().exp() * (new - new.detach()).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


@pytest.mark.parametrize(
    ("recipe", "surrogate", "more"),
    [
        (replace(recipes.get("grpo"), loss=Loss(icepop(0.95, 1.05))), masked, {}),
        (replace(recipes.get("grpo"), loss=Loss(truncated(1.01))), bounded, {"loss_type": "grpo"}),
        ("gspo", of_row, {}),
    ],
    ids=["icepop", "truncated", "gspo"],
)
def test_three_updates_of_a_generation_are_the_gradients_computed_row_by_row(
    folder, tmp_path, monkeypatch, recipe, surrogate, more
) -> None:
    """The policy leaves the one that sampled in between, so masks, bounds and clips hold."""
    updates = updates_of(monkeypatch)
    args = config(tmp_path, num_iterations=3, max_steps=3, **SGD | more)
    made = trained(folder, args, recipe=recipe, reward_funcs=even, train_dataset=DATA)
    rows = recipe == "gspo" or "loss_type" in more
    expected, _ = descended(folder, updates, surrogate, 3, rows)
    assert torch.allclose(weights(made), expected, atol=1e-5)
    other, _ = descended(folder, updates, iterations=3, rows=rows)  # PPO's clip
    assert not torch.allclose(weights(made), other, atol=1e-4)
    (row,) = [row for row in made.state.log_history if row.get("step") == 3 and "loss" in row]
    assert row["clip_ratio/region_mean"] == 0


@pytest.mark.parametrize("loss_type", sorted(CLIPPED))
def test_a_clipped_ratio_of_the_recipe_is_trls_own(folder, tmp_path, loss_type) -> None:
    """Whatever a loss is a mean over, in four micro-batches of a generation, learnt from twice."""
    more = {"loss_type": loss_type, "num_iterations": 2, "max_steps": 4, "steps_per_generation": 4}
    args = config(tmp_path, per_device_train_batch_size=2, **SGD | more)
    plain, own = (
        weights(trained(folder, args, recipe=name, reward_funcs=even, train_dataset=DATA))
        for name in ("grpo", replace(recipes.get("grpo"), loss=Loss(clipped(0.2, 0.2))))
    )
    assert torch.allclose(own, plain, atol=1e-6)
    assert not torch.allclose(own, weights_of(folder), atol=1e-4)


def weights_of(folder: Path) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model_of(folder).parameters()])


def test_a_weight_for_each_token_leaves_out_the_first_one(folder, tmp_path, monkeypatch) -> None:
    """AdaCoT's mask, in an advantage of rows and in one of tokens: the loss is the mean over all other tokens."""
    for recipe in ("grpo:token_weight=decision-mask", "tempo:token_weight=decision-mask"):
        updates = updates_of(monkeypatch)
        args = config(tmp_path, max_steps=2, **SGD)
        made = trained(folder, args, recipe=recipe, reward_funcs=even, train_dataset=DATA)
        assert all((update.rollouts.length > 1).any() for update in updates)
        sizes = iter([int((n - 1).sum()) / int(n.sum()) for n in (update.rollouts.length for update in updates)])
        masked = [replace(update, advantage=others(update) / next(sizes)) for update in updates]
        expected, _ = descended(folder, masked)
        assert torch.allclose(weights(made), expected, atol=1e-5)
        assert not torch.allclose(weights(made), descended(folder, updates)[0], atol=1e-4)


def others(update):
    """[n, t] the advantages of all tokens but the first of each row."""
    made = per_token(update.advantage, update.rollouts.tokens).copy()
    made[:, 0] = 0
    return made


def test_dart_learns_from_past_successes_with_its_bounded_ratio(folder, tmp_path, monkeypatch) -> None:
    """Its advantages have the mask of uncertain steps in them; a success of an earlier generation comes again."""
    updates = updates_of(monkeypatch)

    def some(completion_ids, **columns):  # in the first generation alone
        return [float(sum(ids) % 2 == 0 and not updates) for ids in completion_ids]

    args = config(tmp_path, max_steps=4, **SGD)
    made = trained(folder, args, recipe="dart", reward_funcs=some, train_dataset=DATA.select(range(2)))
    expected, ratios = descended(folder, updates, lambda *each: bounded(*each, high=2.0))
    assert torch.allclose(weights(made), expected, atol=1e-5)
    assert any(len(update.rollouts) > len(update.given) for update in updates)
    assert any(abs(ratio - 1) > 1e-3 for ratio in ratios)
    assert any((update.advantage == 0).any() and (update.advantage != 0).any() for update in updates)
