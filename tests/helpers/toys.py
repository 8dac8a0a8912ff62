"""Tiny random models and steers that several tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from budgeteer.core.steer import CONTINUE, Action, Need, Rows, Snapshot, Steer
from budgeteer.engine.llama import Llama, LlamaConfig
from budgeteer.models.policy import Markers

MARKERS = Markers(eos=1, think_end=3, answer_end=4)
VOCAB = 24


def toy_model(seed: int = 0, *, vocab: int = VOCAB, hidden: int = 16, layers: int = 2, sharp: float = 20.0) -> Llama:
    """A random Llama with grouped key heads; ``sharp`` scales the logits, so that tokens are not all alike."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    model = Llama(config)
    model.init_weights(seed)
    with torch.no_grad():
        model.embed.mul_(sharp)
    return model


def scripted(decide: Callable[[Snapshot], Any], every: int = 1, seen: list[Rows] | None = None) -> Steer:
    """A steer without state whose decisions are ``decide(snapshot)``, CONTINUE where that is None."""

    def init(rows: Rows) -> tuple[()]:
        if seen is not None:
            seen.append(rows)
        return ()

    def step(state: Any, now: Snapshot) -> Any:
        decisions = decide(now)
        if decisions is None:
            decisions = np.full(len(now.row), CONTINUE)
        return Action(np.asarray(decisions, np.int8)), state

    return Steer(init, step, frozenset({Need.MARKERS, Need.MARGIN}), every)
