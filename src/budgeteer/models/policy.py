"""A policy that can be sampled: weights, tokenizer and the markers of a trace, from one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgeteer.core.errors import CheckpointError, MissingExtra
from budgeteer.engine.llama import Llama, load

REASONER = Path(__file__).parent / "assets"
"""Folder of the embedded reasoner: made by ``budgeteer lab pretrain``; transformers can load it, too."""


@dataclass(frozen=True, slots=True)
class Markers:
    """Token ids that give a trace its structure.

    Attributes:
        eos: ends the sequence.
        think_end: closes the thinking.
        answer_end: completes the answer after think_end (as end-of-sequence does).
    """

    eos: int
    think_end: int
    answer_end: int


@dataclass(frozen=True, slots=True)
class LlamaPolicy:
    """A model with its tokenizer.

    Attributes:
        model: architecture and weights.
        tokenizer: a ``tokenizers.Tokenizer``.
        markers: token ids of end-of-sequence, end of thinking and end of the answer (a newline).
        bos: token id that begins every prompt.
        folder: that it was loaded from; None = none.
    """

    model: Llama
    tokenizer: Any
    markers: Markers
    bos: int
    folder: Path | None = None

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, with the beginning-of-sequence token."""
        if len(prompts) == 1:  # a batch wakes the tokenizer's threads, which costs more than a prompt
            return [[self.bos, *self.tokenizer.encode(prompts[0]).ids]]
        return [[self.bos, *e.ids] for e in self.tokenizer.encode_batch(list(prompts))]

    def decode(self, completions: Sequence[Sequence[int]]) -> list[str]:
        """Text of each completion (token ids), without end-of-sequence tokens but with the marker of the thinking."""
        rows = [[t for t in row if t != self.markers.eos] for row in completions]
        if len(rows) <= 2:
            return [str(self.tokenizer.decode(row, skip_special_tokens=False)) for row in rows]
        return list(self.tokenizer.decode_batch(rows, skip_special_tokens=False))


def load_policy(folder: Path = REASONER) -> LlamaPolicy:
    """Load the policy from a folder with a Llama whose tokenizer has the token ``</think>``.

    Args:
        folder: with config.json, model.safetensors and tokenizer.json.

    Raises:
        CheckpointError: a file is missing or damaged, or ``</think>`` or a newline is not a single token.
        MissingExtra: tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "rl") from error
    model = load(folder)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"cannot read {folder / 'tokenizer.json'}: {error}") from error
    think_end = tokenizer.token_to_id("</think>")
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    if think_end is None or len(newline) != 1:
        raise CheckpointError(f"the tokenizer in {folder} needs '</think>' and a newline as single tokens")
    config = model.config
    return LlamaPolicy(
        model, tokenizer, Markers(config.eos_token_id, think_end, newline[0]), config.bos_token_id, folder
    )
