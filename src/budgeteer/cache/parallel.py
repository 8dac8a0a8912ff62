"""APE: contexts that were each read by themselves, behind one prefix, are put together without reading them again.

Paper: "APE: Faster and Longer Context-Augmented Generation via Adaptive Parallel Encoding", arXiv 2502.05431.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from budgeteer.core.errors import InvalidInput, MissingExtra

try:
    from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error

from budgeteer.cache.attend import attach, updated
from budgeteer.cache.budgeted_cache import windows_of
from budgeteer.models.inside import argument_of

Pair = tuple[Tensor, Tensor]
"""Keys and values, [B, K, n, d] each."""


class Read(NamedTuple):
    """A context that was read by itself; it may serve many prompts.

    Attributes:
        layers: keys and values of each layer, [1, K, n, d], without those of the prefix.
        tokens: n.
    """

    layers: tuple[Pair, ...]
    tokens: int


def read(model: Any, prefix: Tensor, contexts: Sequence[Tensor]) -> tuple[Read, list[Read]]:
    """Read a prefix, and behind it each context by itself, all from the same position.

    Args:
        model: a decoder of transformers without sliding layers.
        prefix: [1, p] tokens before all contexts, p >= 1: attention sinks, an instruction.
        contexts: [1, n] tokens each, n >= 1.

    Raises:
        InvalidInput: an empty text, several rows, or a model with sliding layers.
    """
    if any(text.dim() != 2 or text.shape[0] != 1 or text.shape[1] < 1 for text in (prefix, *contexts)) or not contexts:
        raise InvalidInput("give a prefix and contexts of [1, tokens], none of them empty")
    if any(window is not None for window in windows_of(model)):
        raise InvalidInput("a sliding layer does not see all contexts; choose a model without sliding layers")
    with torch.no_grad():
        first = DynamicCache(config=model.config)
        model(prefix, **{argument_of(model): first}, logits_to_keep=1)
        found = []
        for text in contexts:
            cache = copy.deepcopy(first)
            model(text, **{argument_of(model): cache}, logits_to_keep=1)
            found.append(_read(cache, prefix.shape[1]))
    return _read(first, 0), found


def _read(cache: Any, start: int) -> Read:
    layers = tuple((layer.keys[:, :, start:].clone(), layer.values[:, :, start:].clone()) for layer in cache.layers)
    return Read(layers, layers[0][0].shape[2])


class ParallelCache(Cache):
    """A cache of a prefix, contexts beside each other, and what comes behind them.

    Formula, for a query: context tokens of all contexts have the output o_c and l_c = log sum of exp(q.k / (T sqrt d)),
    the prefix and what came since o_r and l_r, with T = 1. With w = softmax(S T l_c, l_r) the output is w_c o_c + w_r
    o_r. T < 1 sharpens what contexts are read for, S is how much of the attention they get; with T = S = 1 it is
    attention over all of them. What comes next stands behind the longest context.
    Helps when the same documents come back in many prompts: each is read once, and alone. Their order is lost.
    Sequences of one row; each new token reads everything.

    Args:
        model: as for :func:`read`.
        prefix, contexts: of :func:`read`.
        temperature: T, > 0, up to 1 in the paper.
        scale: S, > 0.
    """

    layers: list[_ParallelLayer]  # type: ignore[assignment]

    def __init__(
        self, model: Any, prefix: Read, contexts: Sequence[Read], *, temperature: float = 1.0, scale: float = 1.0
    ) -> None:
        if not (temperature > 0 and scale > 0 and contexts):
            raise InvalidInput(
                f"temperature={temperature}, scale={scale}, {len(contexts)} contexts; give a temperature and a scale "
                "above 0, and a context or more"
            )
        attach(model, len(prefix.layers))
        begins = prefix.tokens + max(context.tokens for context in contexts)
        super().__init__(
            layers=[
                _ParallelLayer(pair, [each.layers[i] for each in contexts], begins, temperature, scale)
                for i, pair in enumerate(prefix.layers)
            ]
        )

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Add the keys and values of a layer; its attention then reads them from there."""
        pair = self.layers[layer_idx].update(key_states, value_states)
        updated.by = (self, self.layers[layer_idx])
        return pair

    def prompt(self, ids: Tensor) -> Tensor:
        """[1, n] tokens as ``generate`` wants them: behind as many tokens as are held, which are not read again."""
        held = self.get_seq_length()
        return torch.cat([ids[:, :1].expand(-1, held), ids], dim=1)


class _ParallelLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer: a prefix with what came since, and contexts beside each other."""

    is_sliding = is_compileable = is_croppable = False

    def __init__(self, prefix: Pair, contexts: list[Pair], begins: int, temperature: float, scale: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rest, self.begins, self.temperature, self.scale = prefix, begins, temperature, scale
        self.contexts = tuple(torch.cat(parts, dim=2) for parts in zip(*contexts, strict=True))
        self.before, self.is_initialized = prefix[0].shape[2], True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        raise NotImplementedError

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Pair:
        if key_states.shape[0] != 1:
            raise InvalidInput("a parallel cache is of one row; ask one prompt at a time")
        new = (key_states, value_states)
        self.rest = (torch.cat([self.rest[0], new[0]], dim=2), torch.cat([self.rest[1], new[1]], dim=2))
        return new

    def get_seq_length(self) -> int:
        return self.begins + self.rest[0].shape[2] - self.before

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        asked = query_length if isinstance(query_length, int) else query_length.shape[0]  # before transformers 5
        return self.get_seq_length() + asked, 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5

    def attention(self, query: Tensor, scaling: float, softcap: float | None) -> Tensor:
        """[1, q, H, d of values] of the queries [1, H, q, d], which are the last ones that were added."""
        asked = query.shape[2]
        held = self.rest[0].shape[2]
        seen = torch.ones(asked, held, dtype=torch.bool, device=query.device).tril(held - asked)
        ours, of_ours = _attention(query, self.rest, scaling, softcap, seen)
        theirs, of_theirs = _attention(query, self.contexts, scaling / self.temperature, softcap, None)
        share = torch.sigmoid(self.scale * self.temperature * of_theirs - of_ours)[..., None]
        return (share * theirs + (1 - share) * ours).transpose(1, 2).contiguous().to(query.dtype)


def _attention(
    query: Tensor, pair: tuple[Tensor, ...], scaling: float, softcap: float | None, seen: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[1, H, q, d] float32 and the log of the sum of exponentials, [1, H, q]."""
    group = query.shape[1] // pair[0].shape[1]
    keys, values = (each.float().repeat_interleave(group, dim=1) for each in pair)
    logits = (query.float() @ keys.transpose(-1, -2)) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if seen is not None:
        logits = logits.masked_fill(~seen, float("-inf"))
    return logits.softmax(-1) @ values, logits.logsumexp(-1)
