"""What steers are told about a model of transformers: its ends, its embeddings, the texts of its tokens."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from budgeteer.core.steer import Internals
from budgeteer.engine.table import Marks, marks_of_text


def ends_of(model: Any) -> frozenset[int]:
    """Ids of the tokens that end a sequence of a transformers model."""
    ends = model.generation_config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def never_of(model: Any) -> tuple[int, ...]:
    """Ids of the tokens that a transformers model says are never drawn, such as a head in its vocabulary rows."""
    return tuple(getattr(model.generation_config, "suppress_tokens", None) or ())


def positions_of(model: Any, cap: int) -> int:
    """How many numbers of a seed's random stream each row owns: one for each position, at least ``cap``."""
    return max(int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 0), cap)


def argument_of(model: Any) -> str:
    """The name of a model's argument for its cache: ``cache`` in the newest transformers, else ``past_key_values``."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def internals(model: Any, tokenizer: Any, ends: frozenset[int]) -> Internals:
    """What steers are told about a model of transformers. Slow for a large vocabulary: every token is decoded.

    Args:
        model: a causal language model.
        tokenizer: the model's.
        ends: ids of the tokens that end a sequence.
    """
    with torch.inference_mode():
        layer = model.get_input_embeddings()
        # the output of the layer, since some layers scale their weights
        embed = layer(torch.arange(layer.num_embeddings, device=model.device)).float().cpu()
    return internals_of_text(tokenizer, ends, embed, never_of(model))


def internals_of_text(tokenizer: Any, ends: Collection[int], embed: Tensor, never: tuple[int, ...] = ()) -> Internals:
    """What steers are told about texts and tokens.

    Args:
        tokenizer: the model's.
        ends: ids of the tokens that end a sequence.
        embed: [V, h]; h may be 0 where no steer reads embeddings.
        never: ids of the tokens that are never drawn.
    """
    # without an end of sequence there is nothing that a steer could mistake for it
    return Internals(
        embed,
        pieces_of(tokenizer, len(embed), ends),
        min(ends, default=-1),
        lambda content: list(tokenizer(content, add_special_tokens=False)["input_ids"]),
        never,
    )


def inside_of(tokenizer: Any, vocabulary: int, ends: Sequence[int], close: str, answer: str) -> tuple[Internals, Marks]:
    """What is known of a model by its tokenizer alone, and what its tokens mean; every token is decoded for it.

    Args:
        tokenizer: the model's.
        vocabulary: rows of the model's embedding.
        ends: ids of the tokens that end a sequence.
        close: text that closes the thinking, ``""`` = there is none.
        answer: regular expression of a complete answer.
    """
    inside = internals_of_text(tokenizer, ends, torch.zeros(vocabulary, 0))
    return inside, marks_of_text(inside, ends, close, (), answer)


def pieces_of(tokenizer: Any, size: int, ends: Collection[int]) -> tuple[str, ...]:
    """The text of each of ``size`` token ids; ``""`` for those that end a sequence."""
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]

    def text(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=False))

    # as they read after a newline, since some tokenizers drop a space at the beginning
    before = len(text(newline))
    return tuple("" if i in ends else text([*newline, i])[before:] for i in range(size))
