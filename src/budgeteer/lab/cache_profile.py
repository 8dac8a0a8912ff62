"""Sizes of layers or heads found offline on texts, for the split ``profile``: by the attention they hold, or by
sensitivity."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import DynamicCache

from budgeteer.cache import BudgetedCache, selection
from budgeteer.cache.budgeted_cache import windows_of
from budgeteer.cache.gates import fingerprint
from budgeteer.cache.kit import of_groups, read_in_all
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.protocol import Groups
from budgeteer.cache.selecting import Selection
from budgeteer.cache.split._profile import fitted
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.cache_gates import Watch
from budgeteer.models.inside import argument_of

SHARES = (0.0625, 0.125, 0.1875, 0.25, 0.375, 0.5, 0.75)
"""Of all entries, at which sizes are found."""
WINDOW = 100
"""Tokens whose keys are compared as one vector."""


def require_length(method: str, tokens: int) -> None:
    """Refuse texts of so few tokens that the least share leaves no more than what a method always keeps.

    Raises:
        InvalidInput: it does.
    """
    if int(SHARES[0] * tokens) <= (always := selection(method).protected(tokens)):
        raise InvalidInput(
            f"texts of {tokens} tokens, of which {SHARES[0]:.2%} are no more than the {always} that are always kept; "
            f"give a --length of {int((always + 1) / SHARES[0])} or more"
        )


def prefix_sizes(model: Any, texts: Tensor, watch: Watch = lambda how_far: None) -> dict[str, Any]:
    """PrefixKV's offline sizes: the mean over texts of the shares that layers get from the split ``prefix``.

    Args:
        model: a decoder of transformers without sliding layers.
        texts: [n, length] token ids.
        watch: is told how far the work is.

    Returns:
        What the split reads: ``shares``, ``sizes`` [layers][shares], ``method``, ``texts``, ``fingerprint``.

    Raises:
        InvalidInput: texts so short that the least share leaves no more than what is always kept, or sliding layers.
    """
    _require_no_window(model)
    selected, tokens = selection("prefix-kv"), texts.shape[1]
    require_length("prefix-kv", tokens)
    found = list[list[list[float]]]()
    for place, text in enumerate(texts.to(next(model.parameters()).device)):
        read = Prefill(model, text[None])
        cache = read.into(BudgetedCache(model, "100%", selected))
        counts = torch.tensor([tokens], device=text.device)
        scores = tuple(
            selected.scores(layer.cells(call, mask, counts), layer.memory())
            for layer, (_, _, call, mask) in zip(cache.layers, read.read, strict=True)
        )
        found.append([])
        for share in SHARES:
            sizes = (counts * share).long()
            groups = Groups(scores, (sizes,) * len(scores), (counts,) * len(scores), 0, len(scores))
            found[-1].append([int(layer[0, 0]) / tokens for layer in selected.split.sizes(groups)])
        watch(f"{place + 1} of {len(texts)} texts")
    return _written(model, np.mean(found, axis=0), "prefix-kv", texts)


def head_sizes(model: Any, texts: Tensor, watch: Watch = lambda how_far: None) -> dict[str, Any]:
    """TCA-Attention's sizes of heads: the mean over texts of the shares with which all heads hold as much attention.

    Formula: with a_i = the mean over the queries that can read entry i, and over the query heads of its head, of what
    they read of it, and C(n) = the share of the sum of a that the first n entries of the head hold, in the order in
    which ``tca-attention`` takes them in: n(k) = the least n with C(n) >= t for each head k, and one t for all such
    that the sizes sum to the budget. The paper fixes t (0.9) and lets the budget follow; the sum of a that it
    compares with t is read as a share here, since it is not one of itself.

    Args:
        model: a decoder of transformers without sliding layers.
        texts: [n, length] token ids.
        watch: is told how far the work is.

    Returns:
        As :func:`prefix_sizes`, with sizes [layers][heads][shares], and ``held`` [shares], the mean t.

    Raises:
        InvalidInput: texts so short that the least share leaves no more than what is always kept, or sliding layers.
    """
    _require_no_window(model)
    selected = selection("tca-attention")
    require_length("tca-attention", texts.shape[1])
    found, held = list[list[NDArray[np.float64]]](), list[list[float]]()
    for place, text in enumerate(texts.to(next(model.parameters()).device)):
        before = np.stack(_held_before(model, selected, text))
        order = np.argsort(before.flatten(), kind="stable")
        found.append([])
        held.append([])
        for share in SHARES:
            places = order[: int(share * len(text)) * before.shape[0] * before.shape[1]]
            counts = np.bincount(places // len(text), minlength=before.shape[0] * before.shape[1])
            found[-1].append(counts.reshape(before.shape[:2]) / len(text))
            held[-1].append(float(before.flatten()[places[-1]]))
        watch(f"{place + 1} of {len(texts)} texts")
    sizes = np.mean(found, axis=0)
    return {
        **_written(model, sizes.reshape(len(SHARES), -1), "tca-attention", texts),
        "sizes": np.moveaxis(sizes, 0, -1).tolist(),
        "held": np.mean(held, axis=0).tolist(),
    }


def _held_before(model: Any, selected: Selection, text: Tensor) -> list[NDArray[np.float64]]:
    """For each layer [heads, n]: the share of attention that the entries before the n-th one hold, in a score's order;
    below 0 for those that are always kept."""
    read = Prefill(model, text[None])
    cache = read.into(BudgetedCache(model, "100%", selected))
    count, seen = torch.tensor([len(text)]), torch.arange(len(text), 0, -1, device=text.device)
    found = []
    for layer, (_, _, call, mask) in zip(cache.layers, read.read, strict=True):
        cells = layer.cells(call, mask, count.to(text.device))
        kv_heads = cells.keys.shape[1]
        attention = (of_groups(read_in_all(cells), kv_heads).mean(2) / seen)[0].double()
        scores = selected.scores(layer.cells(layer.watch(call), mask, count.to(text.device)), layer.memory())[0]
        order = scores.argsort(dim=-1, descending=True, stable=True)
        shares = attention.gather(-1, order) / attention.sum(-1, keepdim=True)
        before = (shares.cumsum(-1) - shares).masked_fill(scores.gather(-1, order).isinf(), -1.0)
        found.append(before.cpu().numpy())
    return found


def sensitivity_sizes(model: Any, texts: Tensor, power: float, watch: Watch = lambda how_far: None) -> dict[str, Any]:
    """EpiCache's sizes: layers whose keys change most when text is read in blocks get most.

    Formula: with c_l the mean :func:`similarity` of layer l, w_l = (1 - (c_l - min c) / (max c - min c)) ** power, or 1
    where all are equal; layer l keeps r L w_l / sum of w of its entries, at least r / 4 and at most all, where r is
    the share of the budget. The paper's code raises sizes to a quarter of the budget and so exceeds it; here the
    others give that up (:func:`.fitted`).

    Args:
        model: a decoder of transformers without sliding layers.
        texts: [n, length] token ids.
        power: how much sensitive layers are preferred, >= 0; 0 = all are equal.
        watch: is told how far the work is.

    Returns:
        As :func:`prefix_sizes`, with ``similarity`` of each layer and ``power``.

    Raises:
        InvalidInput: a power below 0, texts below 8 tokens, or sliding layers.
    """
    _require_no_window(model)
    if not (power >= 0 and texts.shape[1] >= 8):
        raise InvalidInput(f"power={power}, texts of {texts.shape[1]} tokens; give a power >= 0 and 8 tokens or more")
    found = []
    for place, text in enumerate(texts.to(next(model.parameters()).device)):
        found.append(similarity(model, text))
        watch(f"{place + 1} of {len(texts)} texts")
    alike = np.mean(found, axis=0)
    width = float(np.ptp(alike))
    weights = (1 - (alike - alike.min()) / width) ** power if width else np.ones(len(alike))
    total = len(alike) * np.array(SHARES)
    sizes = [fitted(all_ * weights / weights.sum(), all_ / len(alike) / 4, 1.0, all_) for all_ in total]
    return {**_written(model, np.array(sizes), "epi-cache", texts), "similarity": alike.tolist(), "power": power}


def similarity(model: Any, text: Tensor) -> list[float]:
    """How much the keys of each layer stay as they are when a text is read in blocks.

    The text [n] is read twice, once as usual, and once so that a token sees its own block of n / 4 tokens, the last
    half of the block before, and the first tokens of the text, a 32nd of a block. Keys of :data:`WINDOW` tokens of a
    head are one vector each; the cosine of both readings' is averaged over heads and windows. The paper has
    blocks of 4,096 tokens.

    Returns:
        [layers].
    """
    name, n = argument_of(model), len(text)
    both = []
    for mask in (None, blockwise(n, max(n // 4, 2)).to(text.device)):
        cache: Any = DynamicCache(config=model.config)
        given = {} if mask is None else {"attention_mask": _additive(mask, model.dtype)}
        with torch.no_grad():
            model(input_ids=text[None], **{name: cache}, use_cache=True, logits_to_keep=1, **given)
        both.append([layer.keys[0].float() for layer in cache.layers])
    found = []
    for one, other in zip(*both, strict=True):
        parts = zip(one.split(WINDOW, dim=1), other.split(WINDOW, dim=1), strict=True)
        alike = [functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1) for a, b in parts]
        found.append(float(torch.stack(alike).mean()))
    return found


def blockwise(tokens: int, block: int) -> Tensor:
    """[q, n] bool: what a token sees in blocks, as :func:`similarity` says."""
    place = torch.arange(tokens)
    start = place // block * block
    mine = (place >= (start - block // 2)[:, None]) | (place < block // 32)
    return mine & (place <= place[:, None])


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, 1, q, n], 0 where a token sees another one, and the least number elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)[
        None, None
    ]


def _written(model: Any, sizes: NDArray[np.float64], method: str, texts: Tensor) -> dict[str, Any]:
    """The file of sizes [shares, layers]; the shares are the means that these have."""
    return {
        "shares": sizes.mean(1).tolist(),
        "sizes": sizes.T.tolist(),
        "method": method,
        "texts": list(texts.shape),
        "fingerprint": fingerprint(model),
    }


def _require_no_window(model: Any) -> None:
    if any(window is not None for window in windows_of(model)):
        raise InvalidInput(
            f"{type(model).__name__} has layers with a sliding window, which never hold more than that; choose another "
            "split, such as layers"
        )
