"""C-GRPO by its authors' own code, the package ``trl-cgrpo``, as an arm of ``benchmarks/trl_thinker.py``.

    pip install --no-deps trl-cgrpo==0.2.0       # it asks for TRL below 1.15, and runs with 1.16
    python benchmarks/trl_thinker.py --arms trl-cgrpo@50%

Its trainer, with its score ``aps``, draws 2, 4 and 8 rollouts of a prompt until its answers agree, by thresholds that
it calibrates on problems that are held out. Rollouts are drawn by the decoder of the other arms. It knows no budget:
the training ends before the generation that is likely to pass it, and what calibration draws is on the bill, as its
authors' own count of savings has it not.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl_cgrpo import CGRPOConfig, CGRPOTrainer

from budgeteer.lab.posttrain.problems import Asked, Grader
from rewards_thinker import GROUP, UPDATES
from thinker_pool import Drawer

CALIBRATION = 16
"""Problems that are taken from those of the training; each costs rollouts of a whole group."""


class Counted(CGRPOTrainer):  # type: ignore[misc, unused-ignore]
    """The package's trainer, whose rollouts another decoder draws and whose tokens are counted.

    Attributes:
        used, calibrating: tokens drawn so far, and those of them that were for calibration.
        rollouts, generations: numbers of both.
        before: ``used`` before the last generation.
        budget: of tokens; None = no limit.
    """

    drawer: Drawer
    used = calibrating = rollouts = generations = before = 0
    budget: int | None = None

    def _base_generate(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> tuple[list[list[int]], None]:
        self.drawer.take(self.accelerator.unwrap_model(self.model))
        seed = self.args.seed * 100_003 + self.rollouts
        drawn = [row for row, _ in self.drawer.tokens(prompt_ids, 1.0, seed, self.max_completion_length)]
        self.used, self.rollouts = self.used + sum(map(len, drawn)), self.rollouts + len(drawn)
        return drawn, None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        if self._calibration_due():
            before = self.used
            self.calibrate()
            self.calibrating += self.used - before
        self.before, self.generations = self.used, self.generations + 1
        return super()._generate_and_score_completions(inputs)


class _End(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends the training before a generation that is likely to cost more than what is left, by what the last one did."""

    trainer: Any = None

    def __init__(self, every: int) -> None:
        self.every = every

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        trainer = self.trainer
        due = state.global_step % self.every == 0
        if due and trainer.budget is not None and 2 * trainer.used - trainer.before > trainer.budget:
            control.should_training_stop = True
        return control


def trained(
    seed: int, model: Any, tokenizer: Any, made: Asked, grader: Grader, drawer: Drawer, budget: int | None,
    args: argparse.Namespace,
) -> Counted:  # fmt: skip
    """The package's trainer, when its tokens are spent; arguments as in ``rewards_thinker.trained``."""
    items = {item.key: item for item in made.train}
    rows = [{"key": i.key, "prompt": made.prompt(i), "answer": i.answer} for i in made.train]

    def verified(completion_ids: list[list[int]], key: list[str], **columns: Any) -> list[float]:
        return [grader.score(items[k], ids) for k, ids in zip(key, completion_ids, strict=True)]

    with tempfile.TemporaryDirectory() as out:
        config = CGRPOConfig(
            out, per_device_train_batch_size=args.prompts * GROUP // UPDATES, gradient_accumulation_steps=1,
            steps_per_generation=UPDATES, budget_grid=[2, 4, GROUP], max_completion_length=args.max_tokens,
            max_steps=args.steps * UPDATES, learning_rate=args.lr, lr_scheduler_type="constant", temperature=1.0,
            seed=seed, beta=0.0, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
            save_strategy="no", disable_tqdm=True, chat_template_kwargs=dict(made.template),
            calibration_batch_size=args.prompts,
        )  # fmt: skip
        end = _End(UPDATES)
        trainer = Counted(
            model, verified, config, Dataset.from_list(rows[:CALIBRATION]), answer_extractor=made.style.read,
            train_dataset=Dataset.from_list(rows[CALIBRATION:]), processing_class=tokenizer, callbacks=[end],
        )  # fmt: skip
        trainer.drawer, trainer.budget, end.trainer = drawer, budget, trainer
        trainer.train()
    return trainer
