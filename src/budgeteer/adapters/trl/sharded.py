"""Weights that are shared out among processes (FSDP2), whole in each of them while rollouts are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM

from budgeteer.core.errors import InvalidInput


def asks_for_shards(args: Any) -> bool:
    """Whether a ``GRPOConfig``, or ``accelerate launch`` by its environment variables, asks for FSDP."""
    return bool(getattr(args, "fsdp", None) or parse_flag_from_env("ACCELERATE_USE_FSDP"))


def refuse_shards(trainer: Any) -> None:
    """Refuse what was asked for as FSDP and is not FSDP2, or does not go with it.

    Args:
        trainer: TRL's, which has made its accelerator.

    Raises:
        InvalidInput: says what to set instead.
    """
    if not asks_for_shards(trainer.args):
        return
    if not trainer.is_fsdp_enabled:
        raise InvalidInput(
            "FSDP was asked for, and accelerate shards nothing here: it does so for several processes with a GPU each; "
            "leave it out"
        )
    version = trainer.accelerator.state.fsdp_plugin.fsdp_version
    if version != 2:
        raise InvalidInput(f"FSDP version {version} was asked for, and this trainer knows version 2: --fsdp_version 2")
    if trainer.use_vllm:
        raise InvalidInput("BudgetedGRPOTrainer does not offer FSDP with use_vllm; leave one of them out")


@contextmanager
def whole(trainer: Any) -> Iterator[None]:
    """Within the block each process has all weights of the model, so that it may run it as often as its rows need.

    Under FSDP every forward pass is a pass of all processes, and rollouts have as many passes as tokens, which differ.
    The weights are gathered once, in the type in which they compute; gradients and the optimiser's averages stay shared
    out. Without FSDP nothing is done.

    Args:
        trainer: TRL's, whose model may be sharded.
    """
    parts = [module for module in trainer.model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(bool(_after_forward(trainer)), recurse=False)


def gathered(trainer: Any) -> Any:
    """A model with all weights, on the main process; None where they are not shared out, or in another process.

    Args:
        trainer: TRL's. All processes have to call this.
    """
    if not trainer.is_fsdp_enabled:
        return None
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.accelerator.is_main_process:
        return None
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(trainer.model.config)  # type: ignore[no-untyped-call, unused-ignore]
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.generation_config = trainer.model.generation_config
    return model


def _after_forward(trainer: Any) -> Any:
    """Whether the weights of a layer are shared out again between its forward and its backward pass."""
    return trainer.accelerator.state.fsdp_plugin.reshard_after_forward
