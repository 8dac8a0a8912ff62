"""The model, the data set and the trainer of a run, from its settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import AutoConfig, PrinterCallback
from trl import GRPOConfig

from budgeteer.adapters.trl import BudgetedGRPOTrainer
from budgeteer.adapters.trl.hints import COLUMN
from budgeteer.adapters.trl.sharded import asks_for_shards
from budgeteer.core.errors import InvalidInput, MissingExtra, UnknownName
from budgeteer.engine.table import ANSWER
from budgeteer.lab.posttrain.problems import Asked, Grader, asked
from budgeteer.lab.posttrain.settings import Lora, Settings
from budgeteer.lab.run import columns_of
from budgeteer.models.inside import ends_of, pieces_of
from budgeteer.models.transformers import pretrained
from budgeteer.rl import recipes
from budgeteer.rl.device import DTYPES, choose_device
from budgeteer.rl.ratio import Loss
from budgeteer.rl.recipe import SOLUTION

SAVE_EVERY = 8
"""Steps between checkpoints; the two last ones are kept, so that one is whole at any time."""


@dataclass(frozen=True, slots=True)
class Built:
    """A run before its first step.

    Attributes:
        trainer: TRL's, with a recipe.
        asked: the problems.
        grader: of completions.
        ends, stored: ids of the tokens that end a sequence, and the type of the weights, as the folder has them.
    """

    trainer: BudgetedGRPOTrainer
    asked: Asked
    grader: Grader
    ends: Any
    stored: Any

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.trainer.accelerator.is_main_process)


def build(settings: Settings, folder: Path, say: Callable[[str], None], save_every: int = SAVE_EVERY) -> Built:
    """Load the model and make the trainer: whatever is wrong and can be seen at once is raised here.

    Args:
        settings: of the run.
        folder: for checkpoints.
        say: is told what the user should know.
        save_every: steps between checkpoints.

    Raises:
        BudgeteerError: of the task, the model, the recipe, the device, or a budget that buys no rollout.
    """
    recipe = recipes.get(settings.recipe)
    hints = recipe.variant is not None and SOLUTION in recipe.variant.needs
    lora = None if settings.lora is None else Lora.parse(settings.lora)
    args = _arguments(settings, folder, save_every)  # before the model, which may take minutes
    if recipe.loss != Loss() or recipe.kl_weight is not None:
        args.use_bias_correction_kl = False  # which such recipes do without
    if lora is not None and asks_for_shards(args):
        raise InvalidInput(
            "--lora does not go with FSDP: what that shares out, gradients and the optimiser's averages, an adapter "
            "hardly has; leave one of them out"
        )
    stored = _stored(settings.model)
    half = args.bf16 and lora is not None  # what an adapter stands on is not changed, so that half of it is enough
    tokenizer, model = pretrained(settings.model, torch.bfloat16 if half else torch.float32)
    if tokenizer.eos_token_id is None:
        raise InvalidInput(f"the tokenizer of {settings.model} has no end of a sequence; set its eos_token")
    if lora is not None:
        _require_modules(lora, model)
    made = asked(settings, tokenizer)
    try:
        args.chat_template_kwargs = dict(made.template)
        ends = model.generation_config.eos_token_id
        grader = Grader(
            made,
            lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
            ends_of(model) | {tokenizer.eos_token_id},
            say,
        )
        if stops := _stops(made, tokenizer, model.get_input_embeddings().num_embeddings, grader.ends):
            model.generation_config.eos_token_id = [*sorted(grader.ends), *stops]
        close, answer = _answers(made)
        trainer = BudgetedGRPOTrainer(
            model,
            _reward(made, grader),
            args,
            _data(made, columns_of(recipe, made.train), hints),
            processing_class=tokenizer,
            peft_config=None if lora is None else _adapter(lora),
            recipe=recipe,
            budget=settings.tokens,
            close=close,
            answer=answer,
        )
    except BaseException:
        made.close()
        raise
    trainer.remove_callback(PrinterCallback)
    return Built(trainer, made, grader, ends, stored)


def _arguments(settings: Settings, folder: Path, save_every: int) -> GRPOConfig:
    device = choose_device(settings.device)
    if settings.device not in ("auto", "cpu", "cuda"):
        raise InvalidInput(
            f"--device is {settings.device}; with hf: give cpu, cuda or auto, and choose a GPU by CUDA_VISIBLE_DEVICES"
        )
    if settings.dtype not in DTYPES:
        raise UnknownName("dtype", settings.dtype, DTYPES)
    gpu = device.type == "cuda"
    half = settings.dtype == "bfloat16" or (settings.dtype == "auto" and gpu)
    if settings.group < 2:
        raise InvalidInput(
            f"--group is {settings.group}; a rollout is compared with others of its prompt: give 2 or more"
        )
    processes = int(os.environ.get("WORLD_SIZE", 1))
    rows, left = divmod(settings.prompts * settings.group, processes)
    if left:
        raise InvalidInput(
            f"--prompts {settings.prompts} times --group {settings.group} rollouts do not divide by {processes} "
            "processes; choose a multiple"
        )
    batch = next(size for size in range(min(settings.batch, rows), 0, -1) if rows % size == 0)
    return GRPOConfig(
        str(folder / "checkpoints"),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=rows // batch,
        num_generations=settings.group,
        max_completion_length=settings.max_tokens,
        max_steps=settings.steps,
        learning_rate=settings.lr,
        lr_scheduler_type="constant",
        beta=settings.kl,
        temperature=1.0,
        seed=settings.seed,
        use_cpu=not gpu,
        bf16=half,
        gradient_checkpointing=gpu if settings.checkpointing is None else settings.checkpointing,
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
    )


def _stored(model: str) -> Any:
    """The type of the weights as they are stored, in which the trained ones are stored, too."""
    try:
        return getattr(AutoConfig.from_pretrained(model), "dtype", None) or torch.float32
    except Exception:  # pretrained says what is wrong
        return torch.float32


def _adapter(lora: Lora) -> Any:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtra("peft", "lora") from error
    targets: Any = lora.targets if lora.targets == "all-linear" else lora.targets.split("+")
    return LoraConfig(
        r=lora.r,
        lora_alpha=cast(Any, lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def _require_modules(lora: Lora, model: Any) -> None:
    """Make sure that the model has the modules that an adapter is for.

    Raises:
        InvalidInput: it has not; the message names those that it has.
    """
    if lora.targets == "all-linear":
        return
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    for target in lora.targets.split("+"):
        if not any(f".{name}".endswith(f".{target}") for name, _ in model.named_modules()):
            known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            raise InvalidInput(f"--lora targets={target}: the model has no such module; it has {known}")


def _data(made: Asked, columns: dict[str, list[Any]], hints: bool) -> Dataset:
    prompts = [made.prompt(item) for item in made.train]
    if hints:
        columns = {**columns, COLUMN: [list(item.solution) for item in made.train]}
    return Dataset.from_dict({**columns, "prompt": prompts, "key": [item.key for item in made.train]})


def _reward(made: Asked, grader: Grader) -> Callable[..., list[float]]:
    items = {item.key: item for item in made.train}

    def verified(completion_ids: list[list[int]], key: list[str], **columns: Any) -> list[float]:
        return [grader.score(items[name], ids) for name, ids in zip(key, completion_ids, strict=True)]

    return verified


def _stops(made: Asked, tokenizer: Any, size: int, ends: frozenset[int]) -> list[int]:
    """Ids of the tokens that hold a stop text of the style: a rollout ends at them, as `solve` ends there."""
    if not made.style.stop:
        return []
    pieces = pieces_of(tokenizer, size, ends)
    return [i for i, piece in enumerate(pieces) if any(stop in piece for stop in made.style.stop)]


def _answers(made: Asked) -> tuple[str, str]:
    r"""What closes the thinking, and the pattern of a complete answer behind it, for recipes that stop there."""
    line = r"\S[^\n]*\n"
    if made.name.partition(":")[0] == "think":
        return made.style.close, rf"{ANSWER}|Answer:[ \t]*{line}"
    return made.style.close, line
