"""What of a model's weights and cache fits into a memory: the largest batch, the longest context, the share to keep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from budgeteer.cache.size import Footprint
from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_MOST = 2**40
"""Largest context and batch that are looked at."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the memory of a model.

    Attributes:
        parameters: numbers in its weights, those that two layers share once.
        width: numbers that keys and values of one token take in one layer: 2 x key-value heads x width of a head.
        windows: of each layer; None = it reads everything.
    """

    parameters: int
    width: int
    windows: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits.

    Attributes:
        weights: bytes of the weights.
        token: bytes of one token in the cache, all layers, while no window is full.
        free: bytes for caches: the memory without the reserve and the weights.
        full: bytes of the caches of the batch at the whole context.
        batch: sequences of the context whose full caches fit; 0 = not one.
        context: tokens of each sequence of the batch whose full caches fit; 0 = not one token.
        tokens: entries a head that fit, at most the context; what ``cache:N`` would be.
        share: of the context, rounded down to a thousandth; what ``N%`` would be.
    """

    weights: int
    token: int
    free: int
    full: int
    batch: int
    context: int
    tokens: int
    share: Fraction


def size_of(text: str) -> int:
    """Bytes of ``24GB`` (10^9), ``24GiB`` (2^30), ``512M`` or a plain number.

    Raises:
        InvalidInput: the text is no such size, or 0.

    >>> size_of("24GB"), size_of("1GiB"), size_of("1.5k")
    (24000000000, 1073741824, 1500)
    """
    found = _SIZE.fullmatch(text.strip())
    number = Fraction(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2].lower() or " ") if found else 0
    if number < 1:
        raise InvalidInput(f"{text!r} is no size of a memory; write 24GB or 24GiB")
    return int(number)


def shape_of(model: Any, windows: Sequence[int | None]) -> Shape:
    """The shape of a model of transformers, whose weights need not be there (device ``meta``).

    Raises:
        InvalidInput: its configuration does not say its key-value heads.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    if heads is None:
        raise InvalidInput(f"{type(model).__name__}: its configuration has no num_key_value_heads")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(sum(p.numel() for p in model.parameters()), 2 * heads * width, tuple(windows))


def described(path: Path) -> Any:
    """The model of a folder with a ``config.json``, or of such a file, without its weights (device ``meta``).

    Raises:
        InvalidInput: there is none, or transformers does not know the architecture.
    """
    import torch
    import transformers

    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise InvalidInput(f"{path} has no config.json; give the folder of a model, or its config.json")
    try:
        config = transformers.AutoConfig.from_pretrained(file)
        kind = getattr(transformers, (config.architectures or ["none"])[0], None)
        with torch.device("meta"):
            model = _causal(config) if kind is None else kind(config)
    except Exception as error:  # transformers raises whatever its parts raise
        raise InvalidInput(f"{file}: transformers makes no language model of it: {str(error)[:200]}") from error
    model.tie_weights()
    return model


def _causal(config: Any) -> Any:
    """A language model of a configuration that does not name its class."""
    import transformers

    made: Any = transformers.AutoModelForCausalLM
    return made.from_config(config)


def fit(
    shape: Shape,
    memory: int,
    context: int,
    batch: int,
    *,
    bits: int = 16,
    cache_bits: int = 16,
    reserve: Fraction = Fraction(1, 10),
) -> Fit:
    """What fits into a memory beside the weights.

    A sliding layer holds its window at most. What the model computes between its layers is not known here, and what an
    engine takes for itself neither; ``reserve`` is for both.

    Args:
        shape: of the model.
        memory: bytes.
        context: tokens of a sequence, prompt and answer, >= 1.
        batch: sequences at a time, >= 1.
        bits: of a weight; 4 for weights that are quantised so.
        cache_bits: of a number in the cache.
        reserve: share of the memory that is left alone, from 0, below 1.
    """
    layer = Footprint(0, None)
    layers = [layer._replace(bytes=shape.width * cache_bits // 8, most=window) for window in shape.windows]

    def cached(tokens: int) -> int:
        return sum(each.bytes * (tokens if each.most is None else min(tokens, each.most)) for each in layers)

    weights = -(-shape.parameters * bits // 8)
    free = max(int(memory * (1 - reserve)) - weights, 0)
    tokens = largest(lambda count: batch * cached(count) <= free, context)
    endless = None not in shape.windows and batch * cached(_MOST) <= free
    return Fit(
        weights=weights,
        token=cached(1),
        free=free,
        full=batch * cached(context),
        batch=largest(lambda count: count * cached(context) <= free, _MOST),
        context=_MOST if endless else largest(lambda count: batch * cached(count) <= free, _MOST),
        tokens=tokens,
        share=Fraction(1000 * tokens // context, 1000),
    )
