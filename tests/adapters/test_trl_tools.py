"""TRL's trainer with tools and environments: TRL's own runs bit by bit, and budgets of generated tokens."""

from __future__ import annotations

import json
import math
from functools import partial

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from helpers.trl_tiny import TEMPLATE, config, scripted, tiny, weights  # noqa: E402

DATA = Dataset.from_list([{"prompt": [{"role": "user", "content": f"{a} plus 3?"}], "n": a} for a in range(6)])


def add(a: int, b: int) -> int:
    """
    Adds two numbers.

    Args:
        a: the first.
        b: the second.

    Returns:
        Their sum.
    """
    return a + b


class Game:
    """An environment with a secret, whose reward is how near a guess was."""

    def __init__(self) -> None:
        self.best = 0.0

    def reset(self, n: int = 0, **columns: object) -> str:
        self.secret, self.best = n, 0.0
        return f" Guess number {n % 2}."

    def guess(self, number: int) -> str:
        """
        Guesses the number.

        Args:
            number: the guess.

        Returns:
            Whether it is right.
        """
        self.best = max(self.best, 1 / (1 + abs(number - self.secret)))
        return "right" if number == self.secret else "wrong"

    def get_reward(self) -> float:
        return self.best


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    made = tiny(tmp_path_factory.mktemp("tiny"), positions=2048)
    settings = json.loads((made / "generation_config.json").read_text())
    (made / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": 1017}))
    return made


def called(name: str, **arguments: int) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def short(completion_ids, **columns):
    return [float(sum(ids) % 11) / 11 for ids in completion_ids]


def trainer_of(folder, args, texts, kind=BudgetedGRPOTrainer, **more):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    made = kind(
        str(folder), args=args, train_dataset=DATA, processing_class=tokenizer,
        **{**more, "reward_funcs": list(more.get("reward_funcs", [short]))},  # TRL adds that of an environment to it
    )  # fmt: skip
    made.model.generate = partial(scripted, texts, made.processing_class, made.eos_token_ids[0])
    return made


SAYS = [called("add", a=1, b=2), "It is 5.", called("add", a=1, b="x") + called("none"), "6" * 400, "Well."]
GUESSES = [called("guess", number=1), called("guess", number=3), "No idea."]


@pytest.mark.parametrize(
    ("texts", "more", "settings"),
    [
        (SAYS, {"tools": [add]}, {"max_completion_length": 260}),
        pytest.param(
            GUESSES,
            {"environment_factory": Game, "reward_funcs": []},
            {"max_completion_length": 400, "max_tool_calling_iterations": 2, "loss_type": "grpo"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_grpo_with_tools_and_without_a_budget_is_trls_own(folder, tmp_path, texts, more, settings) -> None:
    """Bit by bit, and the metrics are those of TRL; some rollouts end at the cap within a turn, some behind one."""
    args = partial(config, tmp_path, max_steps=2, **settings)
    theirs = trainer_of(folder, args(), texts, GRPOTrainer, **more)
    theirs.train()
    ours = trainer_of(folder, args(), texts, **more)  # after that: its seed is set here
    ours.train()
    assert torch.equal(weights(theirs), weights(ours))
    assert any(row["tools/call_frequency"] > 0 for row in theirs.state.log_history[:-1])
    for mine, other in zip(ours.state.log_history[:-1], theirs.state.log_history[:-1], strict=True):
        for name in other.keys() - {"step_time"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-6, nan_ok=True), name
    assert ours.spending.progress.used >= sum(
        row["completions/mean_length"] * row["budget/rollouts"] for row in ours.state.log_history if "loss" in row
    )


@pytest.mark.slow
def test_the_budget_is_of_generated_tokens_and_what_tools_say_carries_no_gradient(folder, tmp_path) -> None:
    given, masks = [0], []

    class Watching(BudgetedGRPOTrainer):
        def _compute_loss(self, model, inputs):
            masks.append((inputs["completion_ids"], inputs.get("tool_mask")))
            return super()._compute_loss(model, inputs)

    args = config(tmp_path, max_steps=4, max_completion_length=260)
    made = trainer_of(folder, args, SAYS, Watching, tools=[add], recipe="knapsack", budget=2500)
    plain, pad = made.model.generate, made.processing_class.pad_token_id

    def counting(input_ids, **more):
        out = plain(input_ids, **more)
        given[0] += int((out[:, input_ids.shape[1] :] != pad).sum())
        return out

    made.model.generate = counting
    made.train()
    assert 0 < made.spending.progress.used == given[0] <= 2500
    hidden = [made.processing_class.decode(ids[mask == 0]) for ids, mask in masks if mask is not None]
    learnt = [made.processing_class.decode(ids[mask == 1]) for ids, mask in masks if mask is not None]
    assert any("<tool_response>" in text for text in hidden)
    assert not any("<tool_response>" in text for text in learnt)
    assert all(math.isfinite(row["loss"]) for row in made.state.log_history if "loss" in row)


def test_what_does_not_go_with_tools_is_refused(folder, tmp_path) -> None:
    with pytest.raises(InvalidInput, match="would see one turn of a rollout with tools"):
        trainer_of(folder, config(tmp_path), SAYS, tools=[add], recipe="uniform-answer-stop")
