"""A trainer of a toy model on twelve prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from budgeteer.core.plan import F64, I64
from budgeteer.rl import recipes
from budgeteer.rl.asked import Wording
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.trainer import Trainer
from helpers.toys import MARKERS, toy_model

SIZE = 12
PROMPTS = [(0, 5 + i, *([6] * (i % 4))) for i in range(SIZE)]
KEYS = [f"prompt {i}" for i in range(SIZE)]


def spelled(texts: Sequence[str]) -> list[list[int]]:
    """A token a letter."""
    return [[5 + ord(letter) % 15 for letter in text] for text in texts]


WORDING = Wording(
    KEYS,
    lambda texts, of: [[0, *ids] for ids in spelled(texts)],
    spelled,
    [("ab", "c;")[: 1 + i % 2] for i in range(SIZE)],
)
"""What the prompts say, for recipes with a variant."""


def said(rows: Sequence[Sequence[int]]) -> list[str]:
    """What token ids say, for recipes that read texts: now and then a word at which a step of a thinking begins."""
    texts = {MARKERS.think_end: "</think>", 5: " Wait,", 6: " So", 7: "\n"}
    return ["".join(texts.get(token, f" {chr(97 + token)}") for token in row) for row in rows]


def even_sum(index: I64, rows: Sequence[Sequence[int]]) -> F64:
    """Reward 1 when the tokens' sum and the prompt's index agree modulo 2: every prompt gets both rewards."""
    return np.array([float((sum(row) + i) % 2 == 0) for i, row in zip(index.tolist(), rows, strict=True)])


def config(**changes: Any) -> TrainConfig:
    base = TrainConfig(steps=4, prompts=4, group=4, max_tokens=16, lr=1e-2, warmup=2, eval_every=2, device="cpu")
    return dataclasses.replace(base, **changes)


def build(
    recipe: str | Recipe = "grpo",
    *,
    seed_of_model: int = 0,
    reward: Any = even_sum,
    c: TrainConfig | None = None,
    **options: Any,
) -> Trainer:
    options.setdefault("budget", 800)
    options.setdefault("wording", WORDING)
    options.setdefault("decode", said)
    recipe = recipes.get(recipe) if isinstance(recipe, str) else recipe
    return Trainer(recipe, c or config(), toy_model(seed_of_model), PROMPTS, KEYS, reward, MARKERS, **options)
