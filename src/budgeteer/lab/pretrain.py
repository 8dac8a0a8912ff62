"""Builds the embedded reasoner from nothing: tokenizer, then supervised training on imperfect traces.

Deterministic in its seed: the examples of a chunk are a function of (seed, chunk), so a resumed run continues the
same stream. A checkpoint is written every ``SAVE_EVERY`` steps to ``state.pt`` beside the model.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.errors import CheckpointError
from budgeteer.engine.llama import Llama, LlamaConfig, save
from budgeteer.lab.optimiser import Optimiser
from budgeteer.lab.tasks.base import THINK_END
from budgeteer.lab.traces import Style, example
from budgeteer.rl import checkpoint

CHUNK, SAVE_EVERY = 4096, 500
SPECIAL = ["<bos>", "<eos>", "<pad>", "<unk>", THINK_END]


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """Size and schedule of the embedded reasoner.

    Attributes:
        steps, batch: optimiser steps and sequences a step.
        max_new: completions are cut after so many tokens, as the sampler will.
        prompt_weight: loss weight of prompt tokens (completion tokens: 1), so that prompts have a likelihood.
    """

    steps: int = 5000
    batch: int = 64
    seed: int = 0
    max_new: int = 96
    lr_muon: float = 0.02
    lr_adam: float = 3e-3
    prompt_weight: float = 0.05
    hidden_size: int = 64
    layers: int = 3
    intermediate_size: int = 176
    style: Style = field(default_factory=Style)


def build_tokenizer(seed: int) -> Any:
    """Train the tokenizer: words whole, digits one by one, printable ASCII as the alphabet."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = random.Random(f"tokenizer-{seed}")
    texts = [text for _ in range(3000) for text in example(rng, Style())]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    pattern = Regex(r"\d| ?[A-Za-z]+|\n| ?[^A-Za-z0-9\s]| ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    tokenizer.decoder = decoders.Fuse()
    alphabet = sorted(set(string.printable) - set("\t\r\x0b\x0c"))
    trainer = trainers.BpeTrainer(
        vocab_size=256, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the files that ``AutoTokenizer`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "additional_special_tokens": [THINK_END],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "padding_side": "left",
        "chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": True, "temperature": 1.0})
        + "\n"
    )


def _chunk(config: PretrainConfig, tokenizer: Any, index: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of chunk ``index``: (tokens [b, t], loss weights [b, t - 1])."""
    rng = random.Random(f"pretrain-{config.seed}-{index}")
    pairs = [example(rng, config.style) for _ in range(CHUNK)]
    prompts = tokenizer.encode_batch([p for p, _ in pairs])
    completions = tokenizer.encode_batch([c for _, c in pairs])
    rows = [(p.ids, c.ids[: config.max_new]) for p, c in zip(prompts, completions, strict=True)]
    rows.sort(key=lambda r: len(r[0]) + len(r[1]))
    batches = []
    for start in range(0, CHUNK, config.batch):
        part = rows[start : start + config.batch]
        width = max(len(p) + len(c) for p, c in part) + 1
        tokens = torch.full((len(part), width), 2)
        weight = torch.zeros(len(part), width - 1)
        for i, (p, c) in enumerate(part):
            tokens[i, : 1 + len(p) + len(c)] = torch.tensor([0, *p, *c])
            weight[i, : len(p)] = config.prompt_weight
            weight[i, len(p) : len(p) + len(c)] = 1
        batches.append((tokens, weight))
    rng.shuffle(batches)
    return batches


def batches(config: PretrainConfig, tokenizer: Any, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches from step ``first`` on, without end: (tokens [b, t], loss weights [b, t - 1])."""
    per = CHUNK // config.batch
    chunk = first // per
    batches = _chunk(config, tokenizer, chunk)[first % per :]
    while True:
        yield from batches
        chunk += 1
        batches = _chunk(config, tokenizer, chunk)


def pretrain(config: PretrainConfig, folder: Path, progress: Callable[[int, float], None]) -> Llama:
    """Train the reasoner and write it to ``folder``; continues from ``folder/state.pt`` when it is there.

    Args:
        config: size and schedule.
        folder: gets config, weights, tokenizer and, while training, ``state.pt``.
        progress: called with (steps done, loss) every 20 steps.

    Raises:
        CheckpointError: ``state.pt`` is of another config or cannot be read.
        Diverged: the loss is not finite.
    """
    tokenizer = build_tokenizer(config.seed)
    write_tokenizer(tokenizer, folder)
    model = Llama(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
    )
    model.init_weights(config.seed)
    optimiser = Optimiser(model, config.lr_muon, config.lr_adam, config.steps)
    state_file, first = folder / "state.pt", 0
    if state_file.exists():
        try:
            state = torch.load(state_file, weights_only=True)
            if state["config"] != repr(config):
                raise CheckpointError(f"{state_file} is of another config; delete it to start afresh")
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state)
            first = int(state["step"])
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"cannot read {state_file} ({error}); delete it to start afresh") from error
    for step, (tokens, weight) in enumerate(batches(config, tokenizer, first), first):
        if step >= config.steps:
            break
        logits = model.logits(model(tokens[:, :-1]))
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        loss = (losses * weight.flatten()).sum() / weight.sum()
        optimiser.update(loss, step)
        if (step + 1) % 20 == 0:
            progress(step + 1, float(loss.detach()))
        if (step + 1) % SAVE_EVERY == 0:
            content = {"config": repr(config), "step": step + 1, "model": model.state_dict()}
            checkpoint.save(state_file, {**content, **optimiser.state_dict()})
    save(model, folder)
    state_file.unlink(missing_ok=True)
    return model
