"""Trains the thinking model from nothing: tokenizer, then supervised training on its conversations.

The architecture is Qwen3's, plain transformers. Deterministic in its seed (with one thread): the conversations of a
chunk are a function of (seed, chunk), so a resumed run continues the same stream to the bit. A checkpoint is written
every ``SAVE_EVERY`` steps to ``state.pt`` beside the model.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.errors import CheckpointError, MissingExtra
from budgeteer.lab.optimiser import Optimiser
from budgeteer.lab.thinker.conversations import conversations
from budgeteer.lab.thinker.tokens import (
    CONTROL,
    LONGEST,
    EncodedConversation,
    Encoder,
    build_tokenizer,
    render,
    write_tokenizer,
)
from budgeteer.rl import checkpoint

CHUNK, SAVE_EVERY, TELL_EVERY = 2048, 100, 20


@dataclass(frozen=True, slots=True)
class ThinkerConfig:
    """Size and schedule of the thinking model.

    Attributes:
        steps: optimiser steps.
        tokens: of a batch, padding included; its conversations are of similar length.
        prompt_weight: loss weight of tokens that the assistant does not say (its own: 1).
        texts: conversations that the tokenizer is trained on.
    """

    steps: int = 7200
    tokens: int = 4096
    seed: int = 0
    lr_muon: float = 0.02
    lr_adam: float = 3e-3
    prompt_weight: float = 0.03
    hidden_size: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 384
    texts: int = 6000


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands.

    Attributes:
        step, steps: done, and of all.
        loss: of the last batch, a said token.
        speed: tokens a second since the last report, padding left out.
        seconds_left: at the speed since the last report.
    """

    step: int
    steps: int
    loss: float
    speed: float
    seconds_left: float


Batch = tuple[Tensor, Tensor]
"""(tokens [b, t], loss weights [b, t - 1])."""


def build_model(config: ThinkerConfig, vocabulary: int, end: int, pad: int) -> Any:
    """An untrained ``Qwen3ForCausalLM``."""
    try:
        from transformers import Qwen3Config, Qwen3ForCausalLM
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    torch.manual_seed(config.seed)
    shape = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=32,
        max_position_embeddings=2 * LONGEST,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    return Qwen3ForCausalLM(shape)


def collate(rows: list[EncodedConversation], prompt_weight: float, pad: int) -> Batch:
    """Rows padded on the right."""
    width = max(len(row.ids) for row in rows)
    tokens = torch.full((len(rows), width), pad)
    weight = torch.zeros(len(rows), width - 1)
    for i, row in enumerate(rows):
        tokens[i, : len(row.ids)] = torch.tensor(row.ids)
        said = torch.tensor(row.said[1:], dtype=torch.float32)
        weight[i, : len(row.ids) - 1] = said + prompt_weight * (1 - said)
    return tokens, weight


def _chunk(config: ThinkerConfig, encoder: Encoder, pad: int, index: int) -> list[Batch]:
    """Batches of chunk ``index``: conversations of similar length together, in random order."""
    rows = encoder.rows(list(conversations(config.seed, index * CHUNK, CHUNK)))
    rows.sort(key=lambda row: len(row.ids))
    groups: list[list[EncodedConversation]] = [[]]
    for row in rows:
        if (len(groups[-1]) + 1) * len(row.ids) > config.tokens and groups[-1]:
            groups.append([])
        groups[-1].append(row)
    random.Random(f"thinker order {config.seed} {index}").shuffle(groups)
    return [collate(group, config.prompt_weight, pad) for group in groups]


def _batches(
    config: ThinkerConfig, encoder: Encoder, pad: int, chunk: int, at: int
) -> Iterator[tuple[Batch, int, int]]:
    """(batch, chunk and place in it of the next batch) from a place on."""
    while True:
        batches = _chunk(config, encoder, pad, chunk)
        for i in range(at, len(batches)):
            yield batches[i], *((chunk, i + 1) if i + 1 < len(batches) else (chunk + 1, 0))
        chunk, at = chunk + 1, 0


def identity(config: ThinkerConfig, tokenizer: Any) -> str:
    """What a checkpoint belongs to: the config, the tokenizer and the conversations, as 16 hexadecimal digits."""
    sample = [render(chat) for chat in conversations(config.seed, 0, 200)]
    return hashlib.sha256(json.dumps([repr(config), tokenizer.to_str(), sample]).encode()).hexdigest()[:16]


def pretrain(config: ThinkerConfig, folder: Path, progress: Callable[[Progress], None]) -> Any:
    """Train the thinking model and write it to ``folder`` in bfloat16; continues from ``folder/state.pt``.

    Args:
        config: size and schedule.
        folder: gets config, weights, tokenizer and, while training, ``state.pt``.
        progress: called every ``TELL_EVERY`` steps.

    Returns:
        The model, a ``Qwen3ForCausalLM``.

    Raises:
        CheckpointError: ``state.pt`` is of another config, tokenizer or data, or cannot be read.
        Diverged: the loss is not finite.
        MissingExtra: without transformers.
    """
    tokenizer = build_tokenizer(config.seed, texts=config.texts)
    write_tokenizer(tokenizer, folder)
    pad, end = tokenizer.token_to_id(CONTROL[0]), tokenizer.token_to_id(CONTROL[2])
    model, encoder = build_model(config, tokenizer.get_vocab_size(), end, pad), Encoder(tokenizer)
    model.train()
    mine = identity(config, tokenizer)
    optimiser = Optimiser(model, config.lr_muon, config.lr_adam, config.steps)
    state_file, first, chunk, at = folder / "state.pt", 0, 0, 0
    if state_file.exists():
        state = _read(state_file, mine)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state)
        first, chunk, at = state["step"], state["chunk"], state["at"]
    stream = _batches(config, encoder, pad, chunk, at)
    begin, told, seen = time.monotonic(), first, 0
    for step in range(first, config.steps):
        (tokens, weight), chunk, at = next(stream)
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        said = (weight == 1).flatten()
        loss = (losses * weight.flatten()).sum() / weight.sum()
        optimiser.update(loss, step)
        seen += int((weight > 0).sum())
        if (step + 1) % TELL_EVERY == 0:
            seconds = time.monotonic() - begin
            left = (config.steps - step - 1) * seconds / (step + 1 - told)
            progress(Progress(step + 1, config.steps, float(losses.detach()[said].mean()), seen / seconds, left))
            begin, told, seen = time.monotonic(), step + 1, 0
        if (step + 1) % SAVE_EVERY == 0:
            place = {"identity": mine, "step": step + 1, "chunk": chunk, "at": at}
            checkpoint.save(state_file, {**place, "model": model.state_dict(), **optimiser.state_dict()})
    model.eval()
    model.to(torch.bfloat16).save_pretrained(folder)
    state_file.unlink(missing_ok=True)
    return model


def _read(file: Path, mine: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
        identity = state["identity"]
    except Exception as error:
        raise CheckpointError(f"cannot read {file} ({error}); delete it to start afresh") from error
    if identity != mine:
        raise CheckpointError(
            f"{file} is of run {identity}, not {mine}: another config, tokenizer or data; delete it to start afresh"
        )
    return state
