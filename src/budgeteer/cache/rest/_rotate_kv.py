"""RotateKV: outliers are spread by a Hadamard rotation before entries are held in 2 bits.

Paper: "RotateKV: Accurate and Robust 2-Bit KV Cache Quantization for LLMs via Outlier-Aware Adaptive Rotations".
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

from budgeteer.cache.kit import turned
from budgeteer.cache.packing import STEP, by_entry, bytes_of, checked, from_entry, hadamard
from budgeteer.cache.protocol import Codec, Place, Rest

CLIP = 0.8
"""Share of a group's range that the steps cover at 2 bits, as in the runs of the official code; at more bits all."""


def rotate_kv(bits: int = 2, full: float = 0.5, group: int = 32) -> Rest:
    """Rotate keys and values so that no channel stands out, and hold the next best entries in few bits.

    Formula: keys are turned back to position 0 (RoPE does not commute with the rotation), multiplied by an orthonormal
    Hadamard matrix, and their channels ordered by mean size over the packed entries of the head, so that channels of
    like size share a group; values are multiplied by a Hadamard matrix. Then each entry is quantised by itself in
    groups of ``group`` channels, as ``quantise`` does it, but that 2 bits cover 0.8 of a group's range: what is rotated
    is nearly normal, and few numbers lie at its ends. Bands of a budget are those of ``quantise``, too.
    Helps when few channels hold most of a key's size, at 2 bits. The paper orders channels by a calibration and rotates
    several heads together; here each head is ordered by what it holds and rotated alone, since heads hold different
    entries. Sinks stay as they are where the score protects them (``streaming-llm``, ``kvzip``, ...).

    Args:
        bits: of a number, 2, 4 or 8.
        full: least share of the budget for entries as they are, 0 to 1.
        group: neighbouring channels that share a step, >= 2.
    """
    checked("rotate-kv", bits, group, full)
    clip = CLIP if bits == 2 else 1.0

    def encode(keys: Tensor, values: Tensor, place: Place) -> tuple[Tensor, ...]:
        assert place.frequencies is not None  # Rest.rotation
        spread = hadamard(turned(keys.float(), -place.slots, place.frequencies))
        heads = _heads(place)
        size = spread.new_zeros(len(place.lengths), keys.shape[1]).index_add_(0, heads, spread.abs())
        order = (size / place.lengths.clamp(min=1)[:, None]).argsort(dim=-1)
        ordered = spread.gather(1, order[heads])
        return (
            order.to(torch.int16),
            *by_entry(ordered, bits, gcd(keys.shape[1], group), clip),
            *by_entry(hadamard(values.float()), bits, gcd(values.shape[1], group), clip),
        )

    def decode(tensors: tuple[Tensor, ...], place: Place) -> tuple[Tensor, Tensor]:
        assert place.frequencies is not None
        order, keys, key_steps, values, value_steps = tensors
        read = from_entry(keys, key_steps, bits, gcd(place.widths[0], group))
        spread = torch.empty_like(read).scatter_(1, order.long()[_heads(place)], read)
        rotated = from_entry(values, value_steps, bits, gcd(place.widths[1], group))
        return turned(hadamard(spread), place.slots, place.frequencies), hadamard(rotated)

    def cost(d: int, e: int) -> tuple[int, int]:
        steps = STEP * (d // gcd(d, group) + e // gcd(e, group))
        return bytes_of(d, bits) + bytes_of(e, bits) + steps, 2 * d

    return Rest(rotation=True, codec=Codec(encode, decode, cost), full=full)


def _heads(place: Place) -> Tensor:
    """[N] int64: the head of each entry."""
    return torch.repeat_interleave(
        torch.arange(len(place.lengths), device=place.slots.device), place.lengths, output_size=len(place.slots)
    )
