"""What the last token of a text attends to, in any causal model of Hugging Face's transformers with attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.models.inside import argument_of

__all__ = ["attention_of_last"]


def attention_of_last(model: Any, before: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float32]:
    """[t] attention that the last of ``tokens`` gives each of them, the mean over all layers and heads.

    All tokens but the last are read as the model always reads; only the last one is read with plain ("eager")
    attention, whose weights are those of its row in a plain reading of everything. So memory grows with the length, not
    with its square.

    Args:
        model: a causal language model of transformers.
        before: token ids in front of them.
        tokens: t token ids; 2 or more with those before.

    Raises:
        InvalidInput: the model has no attention over all tokens, or gives no weights.
    """
    ids = torch.tensor([[*before, *tokens]], device=model.device)
    cache = argument_of(model)
    with torch.no_grad(), _evaluated(model):
        read = model(ids[:, :-1], use_cache=True, logits_to_keep=1)
        with _eager(model):
            last = model(ids[:, -1:], **{cache: read[cache]}, use_cache=True, output_attentions=True)
    weights = [layer for layer in last.attentions or () if layer is not None]
    if not weights or any(layer.shape[-1] != ids.shape[1] for layer in weights):
        raise InvalidInput(
            f"{type(model).__name__} does not tell what its last token attends to: it has no attention, or layers that "
            "see a part of the text only; use a model with full attention"
        )
    total = torch.stack([layer[0, :, -1].float().mean(0) for layer in weights]).mean(0)
    made: NDArray[np.float32] = total[len(before) :].cpu().numpy()
    return made


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Within the block the model attends plainly."""
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    """Within the block the model is in evaluation mode, so that nothing is dropped and caches are used."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
