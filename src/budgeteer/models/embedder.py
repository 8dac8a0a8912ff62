"""Texts as vectors: a sentence encoder of Hugging Face, such as all-MiniLM-L6-v2 or BGE-M3, through transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra
from budgeteer.core.plan import F64

Embed = Callable[[Sequence[str]], F64]
"""Texts [k] -> vectors [k, d]."""
POOLING = "1_Pooling/config.json"
"""Where a sentence-transformers model says how the vectors of its tokens become one."""
MEAN, FIRST = "mean", "cls"


def embedder(name: str, *, pooling: str | None = None, batch: int = 64) -> Embed:
    """A function that embeds texts, each cut at the model's length.

    The vector of a text is the mean of its tokens' last hidden states, or that of the first token, as the model's own
    ``1_Pooling/config.json`` says (sentence-transformers writes it); without one, the mean. Nothing is normalised.

    Args:
        name: a folder, or a name that transformers loads.
        pooling: ``mean`` or ``cls``; None = what the model says.
        batch: texts at once.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: there is no such model.
        InvalidInput: the model pools in another way.
    """
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    if pooling not in (None, MEAN, FIRST):
        raise InvalidInput(f"pooling is {pooling!r}; give 'mean', 'cls' or None")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModel.from_pretrained(name).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load {name!r} as a sentence encoder: {str(error).splitlines()[0]}") from error
    how = pooling or _pooling(name)
    length = min(getattr(model.config, "max_position_embeddings", 512), tokenizer.model_max_length)
    length -= 2 * (model.config.model_type in ("roberta", "xlm-roberta"))  # their positions begin at 2

    def embed(texts: Sequence[str]) -> F64:
        rows: list[F64] = []
        for begin in range(0, len(texts), batch):
            part = list(texts[begin : begin + batch])
            encoded = tokenizer(part, padding=True, truncation=True, max_length=length, return_tensors="pt")
            with torch.no_grad():
                states = model(**encoded).last_hidden_state.double()
            mask = encoded["attention_mask"].double()[..., None]
            first = encoded["attention_mask"].argmax(1)  # the first token that is no padding
            pooled = states[torch.arange(len(part)), first] if how == FIRST else (states * mask).sum(1) / mask.sum(1)
            rows.append(pooled.numpy())
        return np.concatenate(rows) if rows else np.zeros((0, int(model.config.hidden_size)))

    return embed


def _pooling(name: str) -> str:
    """How the model says that it pools."""
    path = Path(name) / POOLING
    if not Path(name).is_dir():
        from transformers.utils.hub import cached_file

        cached = cached_file(
            name, POOLING, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )
        path = Path(cached or "")
    if not path.is_file():
        return MEAN
    said = json.loads(path.read_text(encoding="utf-8"))
    modes = {mode for mode, on in said.items() if mode.startswith("pooling_mode_") and on}
    if modes == {"pooling_mode_mean_tokens"} or not modes:
        return MEAN
    if modes == {"pooling_mode_cls_token"}:
        return FIRST
    raise InvalidInput(f"{name} pools by {', '.join(sorted(modes))}; only mean and cls are known: give pooling=")
