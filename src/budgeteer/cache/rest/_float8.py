"""8-bit floats: the next best entries stay with a quarter or a half of their bytes, one scale an entry.

Paper: "ARKV: Adaptive and Resource-Efficient KV Cache Management under Limited Memory Budget for Long-Context Inference
in LLMs", arXiv 2603.08727 (its third state; engines hold whole caches so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.protocol import Codec, Place, Rest
from budgeteer.core.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from torch import Tensor

try:
    import torch
except ImportError as error:
    raise MissingExtra("torch", "hf") from error

HIGHEST = 448.0
"""The largest number of the format e4m3: a sign, 4 bits of exponent and 3 of mantissa, no infinities."""
SCALE = 4
"""Bytes of the scale of a vector."""


def float8(full: float = 0.5) -> Rest:
    """Keep the best entries as they are, the next ones as 8-bit floats, and drop what has no place then.

    Formula: a key or value x of a head is held as x / s in e4m3, the nearest of its numbers, with s = max |x| / 448 (1
    where all of it is 0). The error of a number is at most a sixteenth of it, or s / 1024 where it is small.
    The budget is divided as by ``quantise``: the best floor(``full`` s) entries stay as they are, the rest of the bytes
    is for the next ones.
    Helps where numbers of a vector differ much in size, which integers with one step lose; ``quantise:bits=8`` with its
    steps for 32 numbers is nearer where they do not. ARKV's code has one scale a token for all heads and rows, which
    would make rows depend on each other.

    Args:
        full: least share of the budget for entries as they are, 0 to 1.
    """
    if not 0 <= full <= 1:
        raise InvalidInput(f"float8: full={full}; give a share from 0 to 1")
    return Rest(codec=Codec(_encode, _decode, lambda d, e: (d + e + 2 * SCALE, 0)), full=full)


def _encode(keys: Tensor, values: Tensor, place: Place) -> tuple[Tensor, ...]:
    return (*_held(keys.float()), *_held(values.float()))


def _held(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """[N, w] in e4m3, and [N] float32 scales."""
    most = numbers.abs().amax(-1)
    scale = torch.where(most > 0, most / HIGHEST, 1.0)
    return (numbers / scale[:, None]).clamp(-HIGHEST, HIGHEST).to(torch.float8_e4m3fn), scale


def _decode(tensors: tuple[Tensor, ...], place: Place) -> tuple[Tensor, Tensor]:
    keys, of_keys, values, of_values = tensors
    return keys.float() * of_keys[:, None], values.float() * of_values[:, None]
