"""How much each token of a text counts for an encoder's reading of it, by vectors that are carried through all layers.

Paper: "DecompX: Explaining Transformers Decisions by Propagating Token Decomposition", arXiv 2306.02873.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 2**26
"""Numbers of the widest part of a layer that are held at a time."""


def decomposed(model: Any, **encoded: Tensor) -> Tensor:
    """The parts of which the final states of an encoder are the sum, one of each input token, [T, T, d].

    Formula: the state of token i behind the embeddings is its own part. In each layer, with attention weights,
    deviations of the layer normalisations and slopes of the activation as they are in the model,
    part k of the attention's output is sum over heads h, tokens j of alpha_h[i, j] W_O^h W_V^h x_jk, the residual adds
    x_ik, a layer normalisation makes (x_ik - mean) / deviation x weight of it, and an activation f multiplies it by
    f(z_i) / z_i of the whole. A bias b is shared in proportion to |<x_ik, b>| (the paper's "absdot"). So the parts sum
    to the states exactly. They take T times the memory and time of a reading.

    Args:
        model: of BERT's build, without a head, in evaluation.
        encoded: one text, as its tokenizer gives it.
    """
    import torch

    with torch.no_grad():
        output = model(**encoded, output_attentions=True, output_hidden_states=True)
        states = output.hidden_states
        parts = torch.zeros(*states[0].shape[1:2], *states[0].shape[1:])
        own = torch.arange(len(parts))
        parts[own, own] = states[0][0].float()
        for layer, attention in zip(model.encoder.layer, output.attentions, strict=True):
            parts = _through(layer, attention[0].float(), parts)
    return parts


def lengths(model: Any, **encoded: Tensor) -> Tensor:
    """[T] the length of the part of the first token's final state that each input token has, as shares of their sum."""
    if not len(model.encoder.layer):
        raise InvalidInput("an encoder without layers attributes nothing")
    found: Tensor = decomposed(model, **encoded)[0].norm(dim=-1)
    return found / found.sum()


def _through(layer: Any, attention: Tensor, parts: Tensor) -> Tensor:
    """Parts [T, T, d] behind a layer, of those before it; attention is [H, T, T]."""
    import torch

    inner, outer = layer.attention.self, layer.attention.output
    heads, tokens, _ = attention.shape
    values = (parts @ inner.value.weight.T).view(tokens, tokens, heads, -1)
    mixed = torch.einsum("hij,jkhw->ikhw", attention, values).flatten(2) @ outer.dense.weight.T
    bias = outer.dense.weight @ inner.value.bias + outer.dense.bias  # rows of attention sum to 1
    parts = _normalised(_shared(mixed, bias) + parts, outer.LayerNorm)
    rows = max(1, AT_ONCE // (tokens * layer.intermediate.dense.bias.numel()))
    return torch.cat([_fed(layer, parts[at : at + rows]) for at in range(0, tokens, rows)])


def _fed(layer: Any, parts: Tensor) -> Tensor:
    """Parts of some states, [n, T, d], behind the feed-forward network of a layer."""
    import torch

    wide = _shared(parts @ layer.intermediate.dense.weight.T, layer.intermediate.dense.bias)
    whole = wide.sum(1)
    slope = torch.where(whole.abs() < 1e-6, 0.5, layer.intermediate.intermediate_act_fn(whole) / whole)
    out = _shared((wide * slope[:, None]) @ layer.output.dense.weight.T, layer.output.dense.bias)
    return _normalised(out + parts, layer.output.LayerNorm)


def _normalised(parts: Tensor, norm: Any) -> Tensor:
    """Parts whose sum is what a layer normalisation makes of the sum of these."""
    whole = parts.sum(1)
    deviation = (whole.var(-1, unbiased=False) + norm.eps).sqrt()
    centred = parts - parts.mean(-1, keepdim=True)
    return _shared(centred / deviation[:, None, None] * norm.weight, norm.bias)


def _shared(parts: Tensor, bias: Tensor) -> Tensor:
    """Parts with a bias shared among those of each state, by the size of their products with it."""
    products = (parts @ bias).abs()
    total = products.sum(1, keepdim=True)
    share = products / total.where(total > 0, 1.0)
    share = share.where(total > 0, 1 / parts.shape[1])
    return parts + share[..., None] * bias
