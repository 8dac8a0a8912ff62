"""What a model loses when one layer of its cache is cut, for the split ``knapsack``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from budgeteer.cache import BudgetedCache, selection
from budgeteer.cache.budgeted_cache import windows_of
from budgeteer.cache.gates import fingerprint
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.protocol import Groups, Split
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.cache_gates import Watch
from budgeteer.models.inside import argument_of

SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Of the entries of a layer."""


def require_losses(method: str) -> None:
    """Refuse a method of which no losses of layers can be measured.

    Raises:
        InvalidInput: it drops the same tokens in all layers, or keeps all entries and chooses for each token.
    """
    chosen = selection(method)
    if chosen.score.depth is not None or chosen.rest.renew is not None:
        raise InvalidInput(
            f"{method}: losses are those of layers whose entries are dropped after a prompt, each layer by itself; "
            "give a score that does that, such as snapkv"
        )


def losses(
    model: Any,
    texts: Tensor,
    method: str,
    *,
    shares: Sequence[float] = SHARES,
    last: int = 32,
    watch: Watch = lambda how_far: None,
) -> dict[str, Any]:
    """Measure for each layer and share what the end of the texts loses when this layer alone keeps this share.

    Args:
        model: a decoder of transformers.
        texts: [n, length] token ids.
        method: the score that chooses what is kept.
        shares: rising, the last one 1.
        last: tokens at the end of a text whose log-probability counts, >= 1 and below the length.
        watch: is told how far the work is.

    Returns:
        ``shares``, ``losses`` [layers][shares] in nats a token, ``method``, ``texts`` and the model's ``fingerprint``.

    Raises:
        InvalidInput: texts that are no longer than what counts of them, a model with sliding layers, or a method that
            :func:`require_losses` refuses.
    """
    require_losses(method)
    if any(window is not None for window in windows_of(model)):
        raise InvalidInput(
            f"{type(model).__name__} has layers with a sliding window, whose losses are no part of one sum with "
            "those of the others; choose another split, such as layers"
        )
    if not 1 <= last < texts.shape[1]:
        raise InvalidInput(f"texts of {texts.shape[1]} tokens, of which the last {last} count; give longer texts")
    device = next(model.parameters()).device
    layers = len(BudgetedCache(model, "100%", method).layers)
    lost = torch.zeros(layers, len(shares), dtype=torch.float64)
    for number, text in enumerate(texts.to(device)):
        prompt, rest = text[None, :-last], text[None, -last:]
        read = Prefill(model, prompt)
        full = _logprob(model, read.into(BudgetedCache(model, "100%", method)), read, rest)
        for layer in range(layers):
            watch(f"text {number + 1} of {len(texts)}, layer {layer + 1} of {layers}")
            for place, share in enumerate(shares[:-1]):
                chosen = selection(method)._replace(split=_only(layer, share))
                cache = read.into(BudgetedCache(model, f"{prompt.shape[1] - 1}", chosen))
                lost[layer, place] += (full - _logprob(model, cache, read, rest)) / len(texts)
    return {
        "shares": list(shares),
        "losses": lost.tolist(),
        "method": selection(method).name,
        "texts": list(texts.shape),
        "fingerprint": fingerprint(model),
    }


def _only(layer: int, share: float) -> Split:
    """All entries of all layers but one."""

    def sizes(groups: Groups) -> tuple[Tensor, ...]:
        found = []
        for place, (scores, tokens) in enumerate(zip(groups.scores, groups.tokens, strict=True)):
            has, must = (scores > float("-inf")).sum(-1), (scores == float("inf")).sum(-1)
            cut = (tokens * share).long()[:, None].maximum(must).minimum(has)
            found.append(cut if groups.layer + place == layer else has)
        return tuple(found)

    return Split(sizes)


def _logprob(model: Any, cache: BudgetedCache, read: Prefill, rest: Tensor) -> float:
    """Mean log-probability of the tokens behind a prompt, nats a token."""
    with torch.no_grad():
        logits = model(input_ids=rest[:, :-1], **{argument_of(model): cache}).logits[0] if rest.shape[1] > 1 else None
    rows = read.logits if logits is None else torch.cat([read.logits, logits])
    return float(rows.double().log_softmax(-1).gather(1, rest[0][:, None]).mean())
