"""C3PO++ with TRL: rollouts that a step's budget cuts go on in the next generation, and all of them is learnt from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from budgeteer.adapters.trl.refusals import refuse_recipe, refuse_tools  # noqa: E402
from budgeteer.adapters.trl.sampling import Sampling  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.carry import partial_rollouts  # noqa: E402
from budgeteer.rl.rollouts import Role  # noqa: E402
from budgeteer.steer import answered  # noqa: E402
from helpers.trl_oracle import SGD, clipped, descended, logprobs, model_of, updates_of  # noqa: E402
from helpers.trl_tiny import DATA, Watched, config, tiny, trained, weights  # noqa: E402

STEP = 36


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


class Even:
    """A reward that remembers the completions of each call."""

    __name__ = "even"

    def __init__(self) -> None:
        self.seen: list[list[list[int]]] = []

    def __call__(self, completion_ids, **columns):
        self.seen.append(completion_ids)
        return [float(sum(ids) % 2 == 0) for ids in completion_ids]


class Kept(Watched):
    """Keeps the weights of before each update."""

    def _batch(self, *given):
        self.before = [*getattr(self, "before", []), weights(self).clone()]
        return super()._batch(*given)


def inside(new, old, advantage, low=0.5, high=5.0):
    ratio = (new - old).exp()
    return torch.where((ratio >= low) & (ratio <= high), ratio, 0.0) * advantage


@pytest.mark.parametrize(
    ("recipe", "surrogate"),
    [("c3po", inside), (replace(recipes.get("grpo"), carry=partial_rollouts()), clipped)],
    ids=["learnt", "read"],
)
def test_carried_rows_are_learnt_from_with_the_probabilities_of_who_sampled_them(
    folder, tmp_path, monkeypatch, recipe, surrogate
) -> None:
    """Six steps of SGD against single rows; a token's old log-probability is that of the weights of its own step. In
    the second recipe what earlier steps sampled is read alone."""
    updates, generated, rows = updates_of(monkeypatch), [], Sampling.rows
    monkeypatch.setattr(
        Sampling, "rows",
        lambda self, *given: (made := rows(self, *given), generated.append(sum(len(row.tokens) for row in made)))[0],
    )  # fmt: skip
    even = Even()
    args = config(tmp_path, max_steps=6, **SGD)
    made = trained(
        folder, args, kind=Kept, recipe=recipe, reward_funcs=even, train_dataset=DATA, step_budget=STEP, budget=210
    )  # fmt: skip
    expected, ratios = descended(folder, updates, surrogate)
    assert torch.allclose(weights(made), expected, atol=1e-5)
    progress = made.spending.progress
    assert progress.used == sum(generated) <= 210
    assert all(row["used"] <= STEP for row in progress.steps_log)
    carried = [(update, i) for update in updates for i in np.flatnonzero((update.rollouts.role == Role.CARRIED).any(1))]
    assert carried
    model = model_of(folder)
    for update, i in carried:
        rollouts, n = update.rollouts, int(update.rollouts.length[i])
        old = np.flatnonzero(rollouts.role[i] == Role.CARRIED)
        assert old.tolist() == list(range(len(old)))
        beginning = rollouts.tokens[i, : len(old)].tolist()
        assert any(ids == beginning for step in even.seen for ids in step)  # scored when it was cut, and as a whole
        assert any(ids == rollouts.tokens[i, :n].tolist() for step in even.seen for ids in step)
        assert rollouts.sampled[i, old].all() == (recipe == "c3po")
        (prompt,) = rollouts.prompts_of(np.array([i]))
        for version in set(rollouts.version[i, :n].tolist()):
            torch.nn.utils.vector_to_parameters(made.before[version], model.parameters())
            of = (rollouts.version[i, :n] == version) & rollouts.sampled[i, :n]
            with torch.no_grad():
                want = logprobs(model, prompt, rollouts.tokens[i, :n])[torch.from_numpy(of)]
            np.testing.assert_allclose(rollouts.logprob[i, :n][of], want, atol=1e-4)
    assert any(abs(ratio - 1) > 1e-3 for ratio in ratios) == (recipe == "c3po")


def test_a_resumed_run_goes_on_with_the_rows_that_wait(folder, tmp_path) -> None:
    more = {"recipe": "c3po", "reward_funcs": Even(), "train_dataset": DATA, "step_budget": STEP}
    args = {"max_steps": 5, "num_iterations": 1}
    whole = trained(folder, config(tmp_path, save_strategy="steps", save_steps=1, **args), **more)
    files = {n: tmp_path / f"checkpoint-{n}" / "budgeteer-0.pt" for n in range(1, 5)}
    waiting = {n: json.loads(torch.load(file, weights_only=True)["beginnings"]) for n, file in files.items()}
    last = max(n for n, rows in waiting.items() if rows["keys"])
    again = trained(folder, config(tmp_path / "b", **args), resume=str(tmp_path / f"checkpoint-{last}"), **more)
    assert torch.equal(weights(whole), weights(again))
    assert whole.spending.progress.used == again.spending.progress.used


def test_vllm_tools_and_steers_are_refused(tmp_path) -> None:
    args, c3po = config(tmp_path), recipes.get("c3po")
    refuse_recipe(c3po, args)
    with pytest.raises(InvalidInput, match="would not see what rows began with"):
        refuse_recipe(replace(c3po, steer=answered()), args)
    with pytest.raises(InvalidInput, match="the carry or the tools"):
        refuse_tools(c3po, 1)
    args.use_vllm = True
    with pytest.raises(InvalidInput, match="leave out the carry, or generate without vLLM"):
        refuse_recipe(c3po, args)
