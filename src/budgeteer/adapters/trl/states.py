"""The state of a recipe and its budget in TRL's checkpoints, one file a process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from budgeteer.core.errors import CheckpointError
from budgeteer.rl import checkpoint
from budgeteer.rl.identity import digest, fingerprint
from budgeteer.rl.recipe import Recipe


def identity_of(
    trainer: Any, recipe: Recipe, budget: int | None, step_budget: int | None, problems: Sequence[Any]
) -> dict[str, Any]:
    """What a run has to share with the checkpoint that it goes on from.

    How a generation is cut into batches counts, too: TRL's checkpoint within one holds what is left of it in batches.

    Args:
        trainer: a :class:`~budgeteer.adapters.trl.BudgetedGRPOTrainer`.
        recipe: as it was given.
        budget, step_budget: tokens; None = no limit.
        problems: keys and tokens of the prompts, and whatever else belongs to them.
    """
    return {
        "recipe": recipe.name,
        "parts of the recipe": fingerprint((recipe, recipe.columns())),
        "tokens": budget,
        "tokens of a step": step_budget,
        "prompts of a step": trainer.args.generation_batch_size // trainer.num_generations,
        "rollouts of a prompt": trainer.num_generations,
        "cap of a rollout": trainer.max_completion_length,
        "rollouts of a batch": trainer.args.per_device_train_batch_size,
        "batches of a generation": trainer.args.steps_per_generation,
        "processes": trainer.accelerator.num_processes,
        "problems": digest(json.dumps(problems).encode()),
        "weights": "shared out" if trainer.is_fsdp_enabled else "whole",
    }


def save_state(trainer: Any, folder: Path) -> None:
    """Keep the state, with the rollouts of a generation that is not used up.

    Args:
        trainer: a :class:`~budgeteer.adapters.trl.BudgetedGRPOTrainer`.
        folder: of the checkpoint.
    """
    content = {
        "identity": json.dumps(trainer.identity),
        **trainer.spending.state_dict(),
        "micro-batches": trainer._step,
        "generation": trainer._buffered_inputs if trainer._step % trainer.every else None,
    }
    checkpoint.save(_file(trainer, folder), content)


def require_state(trainer: Any, folder: Path) -> Path:
    """The file of the state in a checkpoint.

    Raises:
        CheckpointError: it has none, or it is of another run.
    """
    path = _file(trainer, folder)
    if not path.exists():
        raise CheckpointError(
            f"{path.parent} has no {path.name}: it was not written by BudgetedGRPOTrainer with as many processes; "
            "resume from a checkpoint of this run"
        )
    checkpoint.same_run(path, trainer.identity)
    return path


def load_state(trainer: Any, folder: Path) -> None:
    """Go on from the state in a checkpoint.

    Raises:
        CheckpointError: it has none, or it is of another run.
    """
    path = require_state(trainer, folder)
    content = torch.load(path, map_location=trainer.accelerator.device, weights_only=True)
    trainer.spending.load_state_dict(content)
    trainer._step, trainer._buffered_inputs = content["micro-batches"], content["generation"]


def _file(trainer: Any, folder: Path) -> Path:
    return folder / f"budgeteer-{trainer.accelerator.process_index}.pt"
