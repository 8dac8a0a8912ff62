"""How much each token of a text counts for an encoder's reading of it: GlobEnc or DecompX; or how rare it is.

Paper: "GlobEnc: Quantifying Global Token Attribution by Incorporating the Whole Encoder Layer in Transformers",
arXiv 2205.03286. DecompX is in :mod:`budgeteer.context.decomposition`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from budgeteer.context.decomposition import lengths
from budgeteer.context.fill import Span
from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

RARITY, DECOMPX = "rarity", "decompx:"
_WORD = re.compile(r"\w+")


def attribute_of(method: str, given: str) -> Callable[[list[str]], list[list[Span]]]:
    """The attribution of an option: ``rarity``, or GlobEnc by the folder or name of an encoder of BERT's build, with
    ``decompx:`` before it DecompX.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: there is no such model.
        InvalidInput: the model is of another build.
    """
    if given == RARITY:
        return rarity
    return by_encoder(given.removeprefix(DECOMPX), lengths if given.startswith(DECOMPX) else rollout)


def rarity(texts: list[str]) -> list[list[Span]]:
    """-ln of the share of a word in all texts: an attribution without a model.

    >>> [[round(weight, 2) for _, _, weight in spans] for spans in rarity(["a cat", "a dog"])]
    [[0.69, 1.39], [0.69, 1.39]]
    """
    # places are those of the text as it is: a letter such as İ has two when it is made small
    found = [[(word.span(), word.group().lower()) for word in _WORD.finditer(text)] for text in texts]
    seen = Counter(word for row in found for _, word in row)
    return [[(*span, math.log(seen.total() / seen[word])) for span, word in row] for row in found]


def by_encoder(name: str, shares: Callable[..., Tensor]) -> Callable[[list[str]], list[list[Span]]]:
    """An attribution to the first token's final state, each text by itself, scaled to 0 to 1 within it.

    Args:
        name: folder or name of a BERT, RoBERTa or other encoder of that build, with or without a head.
        shares: :func:`rollout` (GlobEnc) or :func:`budgeteer.context.decomposition.lengths` (DecompX).
    """
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModel.from_pretrained(name, attn_implementation="eager").eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load {name!r} as an encoder: {str(error).splitlines()[0]}") from error
    if not hasattr(getattr(model, "encoder", None), "layer") or not hasattr(model.encoder.layer[0], "attention"):
        raise InvalidInput(f"{name} is a {model.config.model_type}; give an encoder of BERT's build")
    longest = min(model.config.max_position_embeddings - 2, 512)

    def attribute(texts: list[str]) -> list[list[Span]]:
        found = []
        for text in texts:
            encoded = tokenizer(
                text, return_offsets_mapping=True, truncation=True, max_length=longest, return_tensors="pt"
            )
            places = encoded.pop("offset_mapping")[0].tolist()
            with torch.no_grad():
                share = shares(model, **encoded)
            real = [place for place, (begin, end) in enumerate(places) if end > begin]  # special tokens have no text
            weights = share[real]
            spread = float(weights.max() - weights.min()) if real else 0.0
            scaled = ((weights - weights.min()) / spread).tolist() if spread else [1.0] * len(real)
            found.append([(places[place][0], places[place][1], w) for place, w in zip(real, scaled, strict=True)])
        return found

    return attribute


def rollout(model: Any, **encoded: Tensor) -> Tensor:
    """How much of the first token's final state comes from each input token, [T]; they sum to 1.

    Formula: A_l[i, j] = norm of what token j puts into state i of layer l, rows scaled to sum 1; the result is row 0 of
    A_L ... A_1.
    """
    output = model(**encoded, output_attentions=True, output_hidden_states=True)
    total = None
    for layer, attention, state in zip(model.encoder.layer, output.attentions, output.hidden_states[:-1], strict=True):
        norm = norms(layer, attention[0], state[0])
        norm = norm / norm.sum(-1, keepdim=True)
        total = norm if total is None else norm @ total
    if total is None:
        raise InvalidInput("an encoder without layers attributes nothing")
    row: Tensor = total[0]
    return row


def norms(layer: Any, attention: Tensor, state: Tensor) -> Tensor:
    """The norm of what each token puts into each state of a layer, but for a factor of each state's own, [T, T].

    Formula: z[i, j] = sum over heads h of alpha_h[i, j] W_O^h W_V^h x_j + [i = j] x_i, both layer normalisations
    applied without their biases (GlobEnc's N_Enc: what the feed-forward network adds belongs to no token). A layer
    normalisation takes the mean, divides by a deviation and multiplies by weights; the deviations of state i are the
    same for all j and are the factor that is left out. What remains is one linear map P, so that
    |P z[i, j]|^2 = sum over h, k of alpha_h[i, j] alpha_k[i, j] <P m_hj, P m_kj> for m_hj = W_O^h W_V^h x_j, and no
    vector of a pair is ever made.

    Args:
        layer: of a BERT.
        attention: [H, T, T].
        state: [T, d], the layer's input.
    """
    heads, tokens, _ = attention.shape
    inner, outer = layer.attention.self, layer.attention.output
    width = inner.value.weight.shape[0] // heads
    value = (state @ inner.value.weight.T).view(tokens, heads, width).transpose(0, 1)  # [H, T, w]
    out = outer.dense.weight.view(-1, heads, width).permute(1, 2, 0)  # [H, w, d]
    moved = _normed(value @ out, outer, layer.output).transpose(0, 1).double()  # [T, H, d]
    own = _normed(state, outer, layer.output).double()
    by_source = attention.permute(2, 1, 0).double()  # [from j, to i, H]
    square = ((by_source @ (moved @ moved.mT)) * by_source).sum(-1).T
    to_itself = attention.diagonal(dim1=1, dim2=2).T.double()  # [T, H]
    square.diagonal().add_(2 * (to_itself * (moved @ own[..., None])[..., 0]).sum(-1) + own.square().sum(-1))
    return square.clamp(min=0).sqrt()


def _normed(parts: Tensor, *blocks: Any) -> Tensor:
    """Parts of sums, [..., d], after the layer normalisations of some blocks, without deviations and biases."""
    for block in blocks:
        parts = (parts - parts.mean(-1, keepdim=True)) * block.LayerNorm.weight
    return parts
