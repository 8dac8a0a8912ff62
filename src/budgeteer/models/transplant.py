"""A model with another tokenizer, without training: its embeddings become mixtures of those that the model has.

Paper: "Achieving Tokenizer Flexibility in Language Models through Heuristic Adaptation and Supertoken Learning"
(TokenAdapt), arXiv 2505.09738. Formulas after its code; its body was not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.models.embedder import Embed

WAYS = ("tokenadapt", "pieces", "mean", "random")
"""How a token is embedded that the model does not have. ``pieces`` is the mean of its pieces in the old tokenizer
(ReTok), ``mean`` that of all tokens, ``random`` a normal draw with the table's mean and deviation."""
_BROKEN = "\ufffd"
"""How a decoder shows bytes that are no whole character."""


class Mixture(NamedTuple):
    """What a token's embedding is made of.

    Attributes:
        ids: tokens of the old tokenizer, [n].
        weights: of their embeddings, [n]; they sum to 1.
    """

    ids: I64
    weights: F64


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of TokenAdapt.

    Attributes:
        temperature: of the weights, above 0; the lower, the more the best piece or neighbour counts.
        neighbours: nearest old tokens of a new one, 1 or more.
        weight: of the neighbours, 0 to 1; the rest is that of the pieces.
        threshold: cosine below which a neighbour does not count.
    """

    temperature: float = 0.3
    neighbours: int = 3
    weight: float = 0.3
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.neighbours >= 1 and 0 <= self.weight <= 1):
            raise InvalidInput(
                f"temperature={self.temperature}, neighbours={self.neighbours}, weight={self.weight}; give a "
                "temperature above 0, neighbours from 1, and a weight from 0 to 1"
            )


class Report(NamedTuple):
    """Where the embeddings of a new vocabulary come from.

    Attributes:
        tokens: of the new tokenizer.
        copied: tokens that the old one has, too.
        mixed: mixtures of old ones.
        left: the others, such as parts of characters, and all that are not copied by ``mean`` and ``random``.
    """

    tokens: int
    copied: int
    mixed: int
    left: int


def local(similarity: F64, share: F64, temperature: float) -> F64:
    """Weights of a token's pieces, [n]: g = softmax((softmax(similarity) + share) / (2 temperature)).

    Args:
        similarity: cosines of the token's text with its pieces, [n].
        share: characters of each piece over those of the token, [n].
        temperature: above 0.

    >>> local(np.array([0.9, 0.1]), np.array([0.75, 0.25]), 0.3).round(4).tolist()
    [0.8125, 0.1875]
    """
    return _softmax((_softmax(similarity) + share) / 2 / temperature)


def near(similarity: F64, temperature: float, threshold: float = 0.0) -> F64:
    """Weights of neighbours, [n]: softmax(similarity / temperature), 0 below the threshold; all 0 if none reaches it.

    >>> near(np.array([0.9, 0.6, -0.1]), 0.3).round(4).tolist()
    [0.7311, 0.2689, 0.0]
    """
    weights = _softmax(similarity / temperature) * (similarity >= threshold)
    total = weights.sum()
    found: F64 = weights / total if total else weights
    return found


def shared(old: Any, new: Any) -> dict[int, int]:
    """Token of the new tokenizer -> the token of the old one that is the same.

    Tokens are the same if their texts are; parts of a character, which have no text, if their spellings are. The
    begin, end, padding and unknown token of the new tokenizer are those of the old one, whatever they are called.

    Args:
        old, new: tokenizers of transformers.
    """
    before, after = _texts(old), _texts(new)
    spelt_before, spelt_after = (t.convert_ids_to_tokens(list(range(len(t)))) for t in (old, new))
    by_text = {text: number for number, text in reversed([*enumerate(before)]) if text and _BROKEN not in text}
    by_spelling = {spelt: number for number, spelt in enumerate(spelt_before) if _BROKEN in before[number]}
    found = {}
    for number, text in enumerate(after):
        same = by_spelling.get(spelt_after[number]) if _BROKEN in text else by_text.get(text)
        if same is not None:
            found[number] = same
    for role in ("unk", "pad", "bos", "eos"):
        mine, theirs = (getattr(tokenizer, f"{role}_token_id") for tokenizer in (new, old))
        if mine is not None and theirs is not None:
            found.setdefault(mine, theirs)
    return found


def mixtures(
    old: Any, new: Any, way: str = "tokenadapt", embed: Embed | None = None, settings: Settings | None = None
) -> dict[int, Mixture]:
    """What the embeddings of those new tokens are made of that the old tokenizer has not.

    By TokenAdapt (1 - weight) of a token's pieces in the old tokenizer, weighed by :func:`local`, and weight of the old
    tokens whose texts are nearest, weighed by :func:`near`; where there is only one of the two, that one alone. Without
    an encoder pieces are weighed by their lengths, and there are no neighbours.

    Args:
        old, new: tokenizers of transformers.
        way: one of :data:`WAYS`.
        embed: texts -> vectors, such as those of a sentence encoder.
        settings: of TokenAdapt.

    Returns:
        Token of the new tokenizer -> its mixture; without tokens that have no text, and empty for ``mean`` and
        ``random``.
    """
    settings = settings or Settings()
    if way in ("mean", "random"):
        return {}
    before, after, same = _texts(old), _texts(new), shared(old, new)
    rest = [number for number, text in enumerate(after) if number not in same and text and _BROKEN not in text]
    if not rest:
        return {}
    pieces = old([after[number] for number in rest], add_special_tokens=False)["input_ids"]
    if way == "pieces":
        parts = [np.full(len(ids), 1 / max(1, len(ids))) for ids in pieces]
        return {number: Mixture(np.array(ids), w) for number, ids, w in zip(rest, pieces, parts, strict=True) if len(w)}
    spread = None if embed is None else _unit_vectors(embed, before, [after[number] for number in rest])
    found = {}
    for place, (number, ids) in enumerate(zip(rest, pieces, strict=True)):
        share = np.array([len(before[piece]) for piece in ids]) / len(after[number])
        alike = np.zeros(len(ids)) if spread is None else (spread.old[ids] @ spread.new[place]).astype(np.float64)
        mine = local(alike, share, settings.temperature) if ids else np.zeros(0)
        beside, theirs = (np.zeros(0, np.int64), np.zeros(0)) if spread is None else spread.near(place, settings)
        part = settings.weight if theirs.any() else 0.0
        weights = np.concatenate([mine * (1 - part), theirs * part]) if ids else theirs
        numbers = np.concatenate([np.array(ids, np.int64), beside])
        if weights.any():
            found[number] = Mixture(numbers[weights > 0], weights[weights > 0])
    return found


def transplant(
    model: Any,
    old: Any,
    new: Any,
    way: str = "tokenadapt",
    embed: Embed | None = None,
    settings: Settings | None = None,
    seed: int = 0,
) -> Report:
    """Give a model another tokenizer. Both change in place.

    The special tokens of the old tokenizer and its chat template come along, so that a chat model stays one. Input and
    output embeddings, tied or not, get the same mixtures. Differences from the official code: tokens of which nothing
    is known get the mean of the table instead of a random draw, texts are compared instead of spellings, and the
    vocabulary is not padded.

    Args:
        model: a causal model of transformers.
        old: its tokenizer.
        new: the tokenizer that it gets.
        way: one of :data:`WAYS`.
        embed: texts -> vectors, for ``tokenadapt``.
        settings: of ``tokenadapt``.
        seed: of ``random``.

    Raises:
        InvalidInput: no such way, or the new tokenizer is empty.
    """
    import torch

    if way not in WAYS:
        raise InvalidInput(f"{way!r} is no way to embed new tokens; there are {', '.join(WAYS)}")
    if not len(new):
        raise InvalidInput("the new tokenizer has no token")
    own = shared(old, new)  # before its begin, end and padding become those of the old one
    adopt(old, new)
    same = shared(old, new) | own
    mixed = {token: mixture for token, mixture in mixtures(old, new, way, embed, settings).items() if token not in same}
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    untied = last is not None and last.weight.data_ptr() != first.weight.data_ptr()
    with torch.no_grad():
        tables = [
            _filled(layer.weight.float(), len(new), same, mixed, seed if way == "random" else None)
            for layer in ([first, last] if untied else [first])
        ]
        model.resize_token_embeddings(len(new), mean_resizing=False)
        model.get_input_embeddings().weight.copy_(tables[0])
        if untied:
            model.get_output_embeddings().weight.copy_(tables[1])
    for config in (model.config, model.generation_config):
        for role in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if config is not None:
                setattr(config, role, getattr(new, role))
    return Report(len(new), len(same), len(mixed), len(new) - len(same) - len(mixed))


def adopt(old: Any, new: Any) -> None:
    """Give a tokenizer the special tokens of another, with their roles, and its chat template."""
    from tokenizers import AddedToken

    new.add_tokens([AddedToken(token, special=True, normalized=False) for token in old.all_special_tokens])
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if (token := getattr(old, role)) is not None:
            setattr(new, role, token)
    if old.chat_template is not None:
        new.chat_template = old.chat_template


class _Vectors(NamedTuple):
    """Unit vectors of the old tokens, [old, d], and of the new ones that are looked for, [new, d]."""

    old: NDArray[np.float32]
    new: NDArray[np.float32]

    def near(self, place: int, settings: Settings) -> tuple[I64, F64]:
        """The old tokens that are nearest to a new one, with their weights."""
        cosines = self.old @ self.new[place]
        most = min(settings.neighbours, len(cosines))
        ids = np.argpartition(-cosines, most - 1)[:most].astype(np.int64)
        return ids, near(cosines[ids].astype(np.float64), settings.temperature, settings.threshold)


def _unit_vectors(embed: Embed, old: Sequence[str], new: Sequence[str]) -> _Vectors:
    """Each text is embedded once, without blanks at its ends; what has no text has a vector of zeros."""
    texts = sorted({text.strip() for text in (*old, *new)} - {""}, key=lambda text: (len(text), text))
    found = np.asarray(embed(texts), np.float32)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    unit = np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)
    row = {text: number for number, text in enumerate(texts)}
    table = np.vstack([unit, np.zeros((1, unit.shape[1]), np.float32)])
    of_old, of_new = (table[[row.get(text.strip(), len(texts)) for text in some]] for some in (old, new))
    of_old[[_BROKEN in text for text in old]] = 0
    return _Vectors(of_old, of_new)


def _filled(
    table: Tensor, size: int, same: Mapping[int, int], mixed: Mapping[int, Mixture], seed: int | None
) -> Tensor:
    """The embeddings of a new vocabulary, [size, d]; a seed: draws instead of the mean for what is not known."""
    import torch

    if seed is None:
        filled = table.mean(0).repeat(size, 1)
    else:
        made = torch.Generator().manual_seed(seed)
        filled = torch.randn(size, table.shape[1], generator=made) * table.std() + table.mean()
    filled[list(same)] = table[list(same.values())]
    for number, mixture in mixed.items():
        filled[number] = torch.from_numpy(mixture.weights).float() @ table[torch.from_numpy(mixture.ids)]
    return filled


def _texts(tokenizer: Any) -> list[str]:
    """The text of each token, with its blanks; a part of a character has a replacement character in it."""
    spelt = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [
        token.replace("\u2581", " ") if token and "\u2581" in token else tokenizer.decode([number])
        for number, token in enumerate(spelt)
    ]


def _softmax(values: F64) -> F64:
    raised = np.exp(values - values.max())
    found: F64 = raised / raised.sum()
    return found
