"""Quantising: the next best entries stay in 2, 4 or 8 bits.

Papers: "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", arXiv 2402.02750 (keys by channel, values by
token); "ARKV: Adaptive and Resource-Efficient KV Cache Management under Limited Memory Budget for Long-Context
Inference in LLMs", arXiv 2603.08727 (three states under one budget).
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from budgeteer.cache.packing import STEP, by_channel, by_entry, bytes_of, checked, from_channel, from_entry
from budgeteer.cache.protocol import Codec, Place, Rest

if TYPE_CHECKING:
    from torch import Tensor


def quantise(bits: int = 4, full: float = 0.5, group: int = 32) -> Rest:
    """Keep the best entries as they are, the next ones in fewer bits, and drop what has no place then.

    Formula: a number x of a group is code x step + least, with least = min of the group, step = (max - min) /
    (2^bits - 1) and code = round((x - least) / step). A group of keys is one channel of ``group`` entries of a head, a
    group of values is ``group`` channels of one entry. A budget of s entries a head is s x the bytes of an entry: the
    best floor(``full`` s) stay as they are, and so do protected ones; what is left of the bytes goes to the next ones
    in fewer bits. Where all of them fit, more stay as they are. ``full=0`` quantises all but what is protected.
    Helps when many entries matter a little: 4 bits cost a sixth of float32. Each further choice reads and quantises
    anew, so that errors add up where a method chooses at every token.

    Args:
        bits: of a number, 2, 4 or 8.
        full: least share of the budget for entries as they are, 0 to 1.
        group: numbers that share a step, >= 2.
    """
    checked("quantise", bits, group, full)

    def encode(keys: Tensor, values: Tensor, place: Place) -> tuple[Tensor, ...]:
        wide = gcd(values.shape[-1], group)
        return (
            *by_channel(keys.float(), place.lengths, bits, group),
            *by_entry(values.float(), bits, wide),
        )

    def decode(tensors: tuple[Tensor, ...], place: Place) -> tuple[Tensor, Tensor]:
        keys, key_steps, values, value_steps = tensors
        wide = gcd(place.widths[1], group)
        return from_channel(keys, key_steps, place.lengths, bits, group), from_entry(values, value_steps, bits, wide)

    def cost(d: int, e: int) -> tuple[int, int]:
        of_keys = -(-STEP * d // group)
        return bytes_of(d, bits) + bytes_of(e, bits) + of_keys + STEP * (e // gcd(e, group)), STEP * d

    return Rest(codec=Codec(encode, decode, cost, (bits, group)), full=full)
