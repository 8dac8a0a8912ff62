"""What ``AsyncGRPOTrainer`` is told of a :class:`BudgetedRolloutWorker`: its state in checkpoints, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.rl import checkpoint

if TYPE_CHECKING:
    from budgeteer.adapters.trl.async_worker import BudgetedRolloutWorker


def _needed(args: Any) -> int:
    """Rollouts of an optimiser step."""
    return int(args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size)


def _state_of(args: Any, state: Any) -> Path:
    """The file with the worker's state in the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "budgeteer-worker.pt"


class End(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends the training when there are no more rollouts for a step, and keeps the worker's state in checkpoints."""

    def __init__(self, worker: BudgetedRolloutWorker) -> None:
        self.worker = worker

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Refuse settings with which the training would not end, or would throw rollouts away.

        Raises:
            InvalidInput: says what to set.
        """
        buffer, needed = self.worker.rollout_buffer, _needed(args)
        step = buffer.maxsize
        if args.token_budget is None or args.token_budget > 0:
            raise InvalidInput(
                f"token_budget={args.token_budget}: a micro-batch would be full when the next rollout does not fit, "
                "and the last one would wait for it for ever; set token_budget=0 in AsyncGRPOConfig"
            )
        buffer.maxsize = max(step, needed)  # it can hold an optimiser step
        versions = -(-(buffer.maxsize + step) // (needed * args.weight_sync_steps))  # those that wait, and a step
        if versions > args.max_staleness:
            raise InvalidInput(
                f"a rollout may be learnt from {versions} versions of the weights after it was begun, and with "
                f"max_staleness={args.max_staleness} TRL would throw such rollouts away; set max_staleness={versions}, "
                f"or let an optimiser step have more than {needed} rollouts"
            )
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Wait for the rollouts of the next step, and end if there will be too few; a fault of the worker is raised."""
        worker, buffer, needed = self.worker, self.worker.rollout_buffer, _needed(args)
        over = [False]
        if state.is_world_process_zero:  # the others have no rollouts
            while buffer.qsize() < needed and not worker.ended.wait(0.05):
                pass
            over = [worker.ended.is_set() and buffer.qsize() < needed]
            if over[0] and worker.error is not None:
                raise worker.error
        if args.world_size > 1:
            broadcast_object_list(over)
        control.should_training_stop |= over[0]
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Write the recipe's state and the bill into the checkpoint."""
        if state.is_world_process_zero:
            checkpoint.save(_state_of(args, state), self.worker.state_dict())
        return control

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Go on with them where the training is resumed; TRL starts the worker after this.

        Raises:
            CheckpointError: the checkpoint has none, or it is of another run.
        """
        if state.global_step == 0 or not state.is_world_process_zero:
            return control
        path = _state_of(args, state)
        if not path.exists():
            raise CheckpointError(
                f"there is no {path}: resume from a checkpoint in {args.output_dir} that was written with "
                "worker.callback()"
            )
        checkpoint.same_run(path, self.worker.identity)
        self.worker.spending.load_state_dict(torch.load(path, weights_only=True))
        return control
