"""Rollouts of earlier steps in TRL's trainer: learnt from again, with the log-probabilities of who sampled them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402

from budgeteer.adapters.trl.refusals import refuse_recipe, refuse_tools  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.replay import recent  # noqa: E402
from helpers.trl_tiny import DATA, config, tiny, trained, weights  # noqa: E402

AGAIN = replace(recipes.get("grpo"), replay=recent())
STOPPED = "uniform-answer-stop:replay=1"
LR = 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


class Even:
    """A reward that remembers what it was asked, generation by generation: [(prompt, ids, reward)]."""

    __name__ = "even"

    def __init__(self) -> None:
        self.seen: list[list[tuple[str, list[int], float]]] = []

    def __call__(self, prompts, completion_ids, **columns):
        scores = [float(sum(ids) % 2 == 0) for ids in completion_ids]
        self.seen.append(list(zip(prompts, completion_ids, scores, strict=True)))
        return scores


def advantages(rows) -> list[float]:
    """Score minus the mean of the prompt's scores."""
    by_prompt = [[score for other, _, score in rows if other == prompt] for prompt, _, _ in rows]
    return [score - sum(of) / len(of) for (_, _, score), of in zip(rows, by_prompt, strict=True)]


def logprobs(model, tokenizer, prompt: str, ids: list[int]):
    before = tokenizer(prompt)["input_ids"]
    logits = model(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]


def by_hand(folder: Path, steps, loss: str, low: float = 0.2, high: float = 0.2):
    """Weights after these generations, row by row and token by token, and the ratios of the rows that came again."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    again, far = [], []
    for own in steps:
        new = [(row, logprobs(model, tokenizer, *row[:2]).detach()) for row in own]
        rows = [*new, *again]
        tokens, count = sum(len(old) for _, old in rows), len(rows)
        model.zero_grad()
        for i, ((row, old), advantage) in enumerate(zip(rows, advantages([row for row, _ in rows]), strict=True)):
            ratio = (logprobs(model, tokenizer, *row[:2]) - old).exp()
            far += ratio.tolist() if i >= len(new) else []
            objective = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
            weight = {"dapo": 1 / tokens, "grpo": 1 / count / len(old)}[loss]
            (-objective.sum() * weight).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= LR * p.grad
        said = [(row[0], row[2]) for row, _ in new]
        again = [kept for kept in new if {(kept[0][0], 0.0), (kept[0][0], 1.0)} <= {*said}]
    return torch.cat([p.detach().flatten() for p in model.parameters()]), far


def settings(**more):
    given = {"optim": "sgd", "learning_rate": LR, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    return {"scale_rewards": "none", **given, **more}


@pytest.mark.parametrize(
    ("recipe", "prompts", "more"),
    [
        (AGAIN, 12, {}),
        (STOPPED, 2, {"loss_type": "grpo"}),
        pytest.param(STOPPED, 12, {"epsilon_high": 0.4}, marks=pytest.mark.slow),
    ],
)
def test_steps_with_old_rows_are_the_gradient_computed_row_by_row(folder, tmp_path, recipe, prompts, more) -> None:
    """Three steps of SGD against single rows without padding or TRL's loss: each prompt's groups of a step and the one
    before have one mean, and ratios to whoever sampled a token are clipped. With two prompts, the old rows are of the
    prompts that are asked again."""
    even, loss = Even(), more.get("loss_type", "dapo")
    given = {"reward_funcs": even, "train_dataset": DATA.select(range(prompts)), "close": "", "answer": "e"}
    made = trained(folder, config(tmp_path, **settings(**more)), recipe=recipe, **given)
    expected, far = by_hand(folder, even.seen, loss, high=more.get("epsilon_high", 0.2))
    assert torch.allclose(weights(made), expected, atol=1e-5)
    assert any(abs(ratio - 1) > 0.2 for ratio in far)  # some are clipped
    assert any(1e-3 < abs(ratio - 1) < 0.2 for ratio in far)
    without, _ = by_hand(folder, even.seen[:1], loss)
    assert not torch.allclose(weights(made), without, atol=1e-3)


def test_what_comes_again_is_not_on_the_bill_and_is_logged(folder, tmp_path) -> None:
    """The budget counts what was generated; the log's rows are those of this generation, and the old ones have a number
    of their own. The rewards of the old rows are those of all functions, as TRL weighs them."""
    even = Even()
    double = lambda completion_ids, **columns: [2.0 * (sum(ids) % 2 == 0) for ids in completion_ids]  # noqa: E731
    given = {"reward_funcs": [even, double], "verifier": "even", "budget": 400, "close": "", "answer": "e"}
    made = trained(folder, config(tmp_path, max_steps=4, num_iterations=1), recipe=STOPPED, **given)
    progress, rows = made.spending.progress, [row for row in made.state.log_history if "loss" in row]
    assert progress.used == sum(len(ids) for step in even.seen for _, ids, _ in step) <= 400
    assert progress.trained + progress.wasted <= progress.used
    mixed = [sum({s for p, _, s in step if p == prompt} == {0.0, 1.0} for prompt, _, _ in step) for step in even.seen]
    assert [row["budget/replayed"] for row in rows] == [0, *mixed[: len(rows) - 1]]
    assert sum(mixed) > 0
    assert [row["budget/rollouts"] for row in rows] == [len(step) for step in even.seen]
    kept = made.spending.kept
    assert kept.names[0] == "reward"
    assert kept.numbers[:, 0].tolist() == [3.0 * score for score in kept.verified]
    assert len(kept) == mixed[-1]


def test_it_resumes_within_a_generation_with_the_rows_that_wait(folder, tmp_path) -> None:
    settings = {"num_iterations": 2, "steps_per_generation": 3, "max_steps": 5}
    more = {"recipe": "prompt-selection:replay=1", "verifier": "odd", "budget": 700}
    whole = trained(folder, config(tmp_path, save_strategy="steps", save_steps=1, **settings), **more)
    again = trained(folder, config(tmp_path / "b", **settings), **more, resume=str(tmp_path / "checkpoint-4"))
    assert torch.equal(weights(whole), weights(again))
    assert whole.spending.progress.used == again.spending.progress.used
    stored = torch.load(tmp_path / "checkpoint-4" / "budgeteer-0.pt", weights_only=True)
    assert "old_per_token_logps" in stored["generation"][0]
    assert len(whole.spending.kept) > 0


def test_vllm_and_tools_are_refused(tmp_path) -> None:
    args = config(tmp_path)
    refuse_recipe(AGAIN, args)
    args.use_vllm = True
    with pytest.raises(InvalidInput, match="leave out the replay, or generate without vLLM"):
        refuse_recipe(AGAIN, args)
    with pytest.raises(InvalidInput, match="leave out the replay, the carry or the tools"):
        refuse_tools(AGAIN, 1)
