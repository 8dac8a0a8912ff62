"""What the trainer refuses when it is made, so that nothing that was asked for is silently left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import parse_flag_from_env
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import ProcessorMixin
from trl.trainer.utils import is_async_callable

from budgeteer.adapters.trl.ratios import CLIPPED, refuse_loss
from budgeteer.adapters.trl.sampling import OFFERED, OFFERED_BY_VLLM
from budgeteer.adapters.trl.update import TOKEN_MEANS
from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import require_offered
from budgeteer.models.hub import require_there
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.fork import Fork
from budgeteer.rl.history import Std
from budgeteer.rl.ratio import Loss
from budgeteer.rl.recipe import ENTROPY, SOLUTION, Recipe, Schedules, View
from budgeteer.rl.weight import prompt_mean, token_mean

_POINTS = np.linspace(0, 1, 41).tolist()


_OTHER_ROWS = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "stop_strings": None,
    "max_new_tokens": None,
    "max_time": None,
    "prompt_lookup_num_tokens": None,
    "return_dict_in_generate": None,
}
"""Settings of ``generate`` that give other rows than those asked for, or in another form, or end rows without telling
why -> no such."""


def refuse_arguments(given: Mapping[str, Any], recipe: Any, answer: Any, close: Any) -> None:
    """Refuse arguments of ``GRPOTrainer`` that would be ignored, and our own that are none.

    Args:
        given: name -> value of the arguments of ``GRPOTrainer`` that were given.
        recipe, answer, close: of :class:`budgeteer.adapters.trl.BudgetedGRPOTrainer`.

    Raises:
        InvalidInput: says what is not offered.
    """
    refuse_own(recipe, answer, close)
    args = given.get("args")
    asked = {
        "rollout_func": given.get("rollout_func"),
        "use_transformers_continuous_batching": getattr(args, "use_transformers_continuous_batching", False),
        # `accelerate launch` asks for these by environment variables, of which the arguments do not know
        "deepspeed": getattr(args, "deepspeed", None) or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"),
    }
    if refused := [name for name, value in asked.items() if value]:
        raise InvalidInput(
            f"BudgetedGRPOTrainer does not offer {', '.join(refused)}: rollouts are made by transformers' generate or "
            "by vLLM, with a whole model on each process; leave it out, set FSDP instead, or train with TRL's own "
            "GRPOTrainer"
        )
    own = getattr(args, "generation_kwargs", None) or {}
    if others := [name for name, none in _OTHER_ROWS.items() if (own.get(name) or none) != none]:
        raise InvalidInput(
            f"generation_kwargs has {', '.join(others)}, and here a rollout is one sequence, drawn token by token: it "
            "ends at its end of sequence, at its cap or where the recipe's steer ends it; leave that out"
        )
    if getattr(args, "use_vllm", False):
        _refuse_of_vllm(args)
    if args is not None and args.max_completion_length is None:
        raise InvalidInput("max_completion_length is None, and a budget has to know the cap of a rollout; set it")
    if isinstance(model := given.get("model"), str) and (Path(model).is_absolute() or Path(model).exists()):
        require_there(Path(model))  # other names are transformers' to resolve, with whatever cache it was told of
    refuse_data(given.get("train_dataset"))
    if isinstance(given.get("processing_class"), ProcessorMixin):
        raise InvalidInput("BudgetedGRPOTrainer trains on texts; pass the tokenizer instead of a processor of images")


def refuse_own(recipe: Any, answer: Any, close: Any) -> None:
    """Refuse what is no recipe, and the texts that :func:`refuse_texts` refuses."""
    if not isinstance(recipe, str | Recipe):
        raise InvalidInput(f"recipe={recipe!r:.60}; give a recipe or its name, such as 'duet'")
    refuse_texts(answer, close)


def refuse_texts(answer: Any, close: Any) -> None:
    """Refuse what is no pattern of an answer, or no text that closes the thinking."""
    if not isinstance(answer, str) or not answer:
        raise InvalidInput(
            f"answer={answer!r:.60}; give the regular expression of a complete answer, such as '</answer>', or leave "
            "it out"
        )
    if close is not None and not isinstance(close, str):
        raise InvalidInput(
            f"close={close!r:.60}; give the text that closes the thinking, '' where there is none, or leave it out"
        )


def refuse_data(data: Any) -> None:
    """Refuse a data set without rows, or without a number of rows."""
    if isinstance(data, Dataset) and not len(data):
        raise InvalidInput("the data set is empty; give one with a row for each prompt")
    if isinstance(data, IterableDataset):
        raise InvalidInput(
            "a recipe needs a data set with a length, since it chooses among its prompts; this one is an "
            "IterableDataset: load it without streaming"
        )


def refuse_functions(functions: Sequence[Any]) -> None:
    """Refuse reward functions that a worker of rollouts cannot call as they are, or none of them."""
    if not functions:
        raise InvalidInput("reward_funcs is empty; give a function that says how right a completion is")
    for function in functions:
        if not callable(function) or isinstance(function, nn.Module):
            raise InvalidInput(f"the reward function {function!r:.60} is none; give functions, and call a model in one")
        if is_async_callable(function):
            raise InvalidInput("a reward function is a coroutine function, which is not awaited here; give others")


def _refuse_of_vllm(args: Any) -> None:
    changed = [name for name in ("generation_kwargs", "vllm_structured_outputs_regex") if getattr(args, name)]
    if changed:
        raise InvalidInput(
            f"with vLLM, a rollout is several requests, each of which would begin {' and '.join(changed)} anew; leave "
            "that out, or train with TRL's own GRPOTrainer"
        )
    if args.vllm_mode == "colocate" and args.vllm_tensor_parallel_size > 1:
        raise InvalidInput(
            f"with vllm_tensor_parallel_size={args.vllm_tensor_parallel_size} all processes of a group must ask for as "
            "many rollouts, and here their numbers differ; set it to 1, or use vllm_mode='server', whose own "
            "--tensor-parallel-size may be any"
        )


def refuse_recipe(recipe: Recipe, args: Any) -> None:
    """Refuse a recipe with parts that TRL decides or that this trainer lacks, and settings that a recipe would ignore.

    Args:
        recipe: to train with.
        args: the ``GRPOConfig``.

    Raises:
        InvalidInput: says what to set instead.
    """
    name = f"recipe {recipe.name!r}"
    shared = {
        "learns from rollouts of earlier steps again; leave out the replay": recipe.replay,
        "goes on with rollouts of earlier steps; leave out the carry": recipe.carry,
        "learns from what branches share with rollouts; leave out the fork": isinstance(recipe.branch, Fork),
    }
    for what, there in shared.items():
        if there and args.use_vllm:
            raise InvalidInput(
                f"{name} {what}, or generate without vLLM: with use_vllm TRL corrects for what vLLM and the model of "
                "this step say of each token"
            )
    refuse_loss(recipe, args)
    default, own = Schedules(), recipe.schedules
    if any(own.temperature(x) != 1 for x in _POINTS):
        raise InvalidInput(f"{name} changes the temperature over the run, and TRL's is fixed; choose another recipe")
    if any(own.lr(x) != default.lr(x) for x in _POINTS):
        raise InvalidInput(f"{name} has a schedule of the learning rate; set TRL's lr_scheduler_type instead")
    if recipe.token_weight not in (token_mean, prompt_mean) and args.loss_type not in TOKEN_MEANS:
        fits = " or ".join(sorted(TOKEN_MEANS if recipe.loss == Loss() else TOKEN_MEANS & CLIPPED))
        raise InvalidInput(
            f"{name} weighs tokens by itself, and loss_type={args.loss_type!r} does so, too; set it to {fits}"
        )
    if recipe.advantage is not grpo_advantage and (args.scale_rewards, args.multi_objective_aggregation) != (
        "group", "sum_then_normalize",
    ):  # fmt: skip
        raise InvalidInput(
            f"{name} has an advantage of its own; leave scale_rewards and multi_objective_aggregation at their defaults"
        )
    if recipe.steer is None:
        return
    if recipe.carry is not None:
        raise InvalidInput(
            f"{name} has a carry and a steer, which would not see what rows began with; choose one of them"
        )
    if recipe.variant is not None and SOLUTION in recipe.variant.needs:
        raise InvalidInput(f"{name} has hints and a steer, which would not see the hints; choose one of them")
    plain = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0, "generation_kwargs": None}
    changed = [key for key, value in plain.items() if (getattr(args, key) or None) != (value or None)]
    if changed:
        raise InvalidInput(
            f"{name} has a steer, which draws from the model's own distribution; leave {', '.join(changed)} at the "
            "default"
        )


def refuse_for_worker(recipe: Recipe) -> None:
    """Refuse parts of a recipe that a worker of ``AsyncGRPOTrainer`` does not have."""
    lacks = {
        "has a loss of its own, and AsyncGRPOTrainer's is its own": recipe.loss != Loss(),
        "has a loss beside that of the rollouts, which AsyncGRPOTrainer has not": recipe.beside,
        "weighs the KL penalty row by row, and AsyncGRPOTrainer has none": recipe.kl_weight,
        "has a variant, with which AsyncGRPOTrainer's rollouts are not asked": recipe.variant,
        "goes on with rollouts in later steps, which this worker does not": recipe.carry,
        "goes on from rollouts that it cuts, which this worker does not": recipe.branch,
        "learns from rollouts of earlier steps again, which this worker does not hand over twice": recipe.replay,
    }
    for what, there in lacks.items():
        if there:
            raise InvalidInput(
                f"recipe {recipe.name!r} {what}; choose another recipe, or train with BudgetedGRPOTrainer"
            )


def refuse_tools(recipe: Recipe, processes: int) -> None:
    """Refuse what does not go with tools or environments."""
    if recipe.steer is not None:
        raise InvalidInput(
            f"recipe {recipe.name!r} has a steer, which would see one turn of a rollout with tools; choose one without"
        )
    if recipe.variant is not None or recipe.branch is not None:
        raise InvalidInput(
            f"recipe {recipe.name!r} has texts of its own, around prompts or in what rollouts go on from, which those "
            "with tools do not have; choose another recipe, or leave out the tools"
        )
    if recipe.replay is not None or recipe.carry is not None:
        raise InvalidInput(
            f"recipe {recipe.name!r} learns from rollouts of earlier steps, and of rollouts with tools no "
            "log-probabilities are kept; leave out the replay, the carry or the tools"
        )
    read = {column.name for column in recipe.columns()} & {"closed", "answered"}
    measured = recipe.memory.std == Std.SCORE or recipe.kl_weight is not None
    if read or ENTROPY in recipe.needs or measured:
        raise InvalidInput(
            f"recipe {recipe.name!r} reads what is not computed of rollouts with tools (entropies, log-probabilities, "
            "or where thinking and answer end); choose one without"
        )
    if processes > 1:
        raise InvalidInput(f"tools and environments live in one process, and there are {processes}; train with one")


def refuse_steer(recipe: Recipe, view: View, vllm: bool) -> None:
    """Refuse a steer that needs what training with TRL, or with its ``use_vllm``, does not offer."""
    if (steer := recipe.steer_of(view)) is not None:
        offered, engine = (OFFERED_BY_VLLM, "vLLM in training with TRL") if vllm else (OFFERED, "training with TRL")
        require_offered(steer, offered, engine)


def refuse_tokenizer(tokenizer: Any) -> None:
    """Refuse a tokenizer without an end of a sequence, without which no rollout could end."""
    if tokenizer.eos_token_id is None:
        raise InvalidInput("the tokenizer has no end of a sequence; set its eos_token and pass that tokenizer")


def refuse_prompts(
    prompts: list[list[int]], most: int, positions: int | None, keys: Sequence[Any] | None = None
) -> None:
    """Refuse prompts that are empty, or that leave no room for a completion.

    Args:
        prompts: token ids.
        most: ``max_completion_length``.
        positions: of the model; None = it does not say.
        keys: of the prompts, for the error; None = they have none.

    Raises:
        InvalidInput: names the row of the data set.
    """

    def place(row: int) -> str:
        return f"row {row} of the data set" + ("" if keys is None else f" (key {keys[row]!r})")

    length = np.array([len(ids) for ids in prompts], np.int64)
    if not length.all():
        raise InvalidInput(f"the prompt in {place(int(np.argmin(length)))} has no tokens; drop it")
    if positions and int(length.max()) + most > positions:
        row = int(np.argmax(length))
        raise InvalidInput(
            f"the prompt in {place(row)} has {length[row]:,} tokens, and with "
            f"max_completion_length={most:,} that exceeds the model's {positions:,} positions (with vLLM, its "
            "max_model_len); drop long prompts or lower max_completion_length (--max-tokens of `budgeteer train`)"
        )
