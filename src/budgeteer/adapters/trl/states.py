"""The state of a recipe and its budget in TRL's checkpoints, one file a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from budgeteer.core.errors import CheckpointError
from budgeteer.rl import checkpoint


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
