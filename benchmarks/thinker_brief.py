"""The embedded thinking model trained to think briefly, on right traces of its own: what other trainings begin from.

The model writes traces of its training problems at low effort, and learns those that are right, by TRL's SFTTrainer, as
answers to the prompt of high effort. ``budgeteer data brief:effort=low`` is the command for any model. Here the traces
of all problems are drawn in batches with a seed each, so that the committed rows can be had again; the command draws
every problem by a seed of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from budgeteer.lab import results
from budgeteer.lab.posttrain.problems import Asked, Grader, asked
from budgeteer.lab.posttrain.settings import Settings
from budgeteer.models.thinker import FILES, THINKER
from thinker_pool import Drawer

PROBLEMS, TOGETHER = 7900, 96
"""Before the seed of the problems; rows that are drawn at once."""
HIGH, LOW = "think:effort=high", "think:effort=low"
BRIEF: dict[str, Any] = {"problems": 96, "brief": 3, "epochs": 2, "sft_lr": 5e-4, "batch": 8}
"""Problems of those not held out, traces of each at low effort, and how the model is trained on the right ones."""


def drawn_with(
    drawer: Drawer, prompts: Sequence[Sequence[int]], cap: int, seed: int, temperature: float = 1.0
) -> list[list[int]]:
    """Token ids of a completion of each prompt."""
    return [tokens for tokens, _ in drawer.tokens(prompts, temperature, seed, cap)]


def problems(seed: int, tokenizer: Any, args: argparse.Namespace, style: str) -> Asked:
    """The problems of a seed, and how the model is asked them."""
    return asked(
        Settings(
            str(THINKER), "grpo", "", None, "thinking", PROBLEMS + seed, args.train, args.heldout,
            style=style,
        ),
        tokenizer,
    )  # fmt: skip


class Brief(NamedTuple):
    """The model that was trained to think briefly: its folder, and the tokens that its traces took, input too."""

    folder: Path
    drawn: int


def brief(seed: int, folder: Path, args: argparse.Namespace) -> Brief:
    """The model of a seed, from ``folder`` or made now.

    Args:
        seed: of the problems, the draws and the training.
        folder: of what is made for this seed.
        args: with ``train``, ``heldout`` and ``max_tokens``, and what :data:`BRIEF` has.
    """
    out, note = folder / "short", folder / "short.json"
    if not note.exists():
        results.write_text(json.dumps(_made(seed, out, args)), note)
    return Brief(out, json.loads(note.read_text())["drawn"])


def _made(seed: int, out: Path, args: argparse.Namespace) -> dict[str, int]:
    tokenizer: Any = AutoTokenizer.from_pretrained(THINKER)
    made, drawer = problems(seed, tokenizer, args, LOW), Drawer(THINKER, torch.float32)
    grader = Grader(made, lambda ids: str(tokenizer.decode(ids)), frozenset({drawer.end}), print)
    items = [item for item in made.train[: args.problems] for _ in range(args.brief)]
    texts = [
        tokenizer.apply_chat_template(made.prompt(i), tokenize=False, add_generation_prompt=True, **made.template)
        for i in items
    ]
    prompts = [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    rows: list[list[int]] = []
    for first in range(0, len(prompts), TOGETHER):
        rows += drawn_with(drawer, prompts[first : first + TOGETHER], args.max_tokens, 40_000 + seed + first)
    made.close()
    high = {"reasoning_effort": "high"}
    examples = [
        {
            "prompt": made.prompt(item), "chat_template_kwargs": high,
            "completion": [{"role": "assistant", "content": grader.text(row)}],
        }
        for item, row in zip(items, rows, strict=True)
        if row[-1] == drawer.end and grader.score(item, row) > 0.5
    ]  # fmt: skip
    trainer = trained(
        SFTTrainer, SFTConfig, THINKER, examples, tokenizer, seed, args, lr=args.sft_lr, epochs=args.epochs
    )
    shutil.rmtree(out, ignore_errors=True)
    trainer.model.save_pretrained(out)
    for name in FILES:
        if name not in ("config.json", "model.safetensors"):
            shutil.copyfile(THINKER / name, out / name)
    return {"drawn": sum(map(len, prompts)) + sum(map(len, rows)), "examples": len(examples)}


def trained(
    trainer: Any, settings: Any, folder: Path, examples: Sequence[Mapping[str, Any]], tokenizer: Any, seed: int,
    args: argparse.Namespace, *, lr: float, epochs: int = 0, steps: int = -1, **more: Any,
) -> Any:  # fmt: skip
    """TRL's trainer of a model, when it is through."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as out:
        config = settings(
            out, per_device_train_batch_size=args.batch, gradient_accumulation_steps=1, learning_rate=lr,
            num_train_epochs=epochs or 1, max_steps=steps, lr_scheduler_type="linear", max_length=None, seed=seed,
            use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no",
            disable_tqdm=True, logging_steps=10, **more,
        )  # fmt: skip
        made = trainer(model, args=config, train_dataset=Dataset.from_list(list(examples)), processing_class=tokenizer)
        made.train()
    return made
