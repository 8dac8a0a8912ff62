"""Numbers in 2, 4 or 8 bits: groups with a least value and a step each, codes packed into bytes."""

from __future__ import annotations

import math

from budgeteer.core.errors import InvalidInput, MissingExtra

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise MissingExtra("torch", "hf") from error

BITS = (2, 4, 8)
STEP = 4
"""Bytes of a group's least value and step, both in half precision."""


def checked(name: str, bits: int, group: int, full: float) -> None:
    """Refuse options that cannot be.

    Raises:
        InvalidInput: bits are none of :data:`BITS`, a group has fewer than 2 numbers, or a share is out of range.
    """
    if bits not in BITS or group < 2 or not 0 <= full <= 1:
        raise InvalidInput(
            f"{name}: bits={bits}, group={group}, full={full}; give 2, 4 or 8 bits, a group >= 2, full from 0 to 1"
        )


def packed(codes: Tensor, bits: int) -> Tensor:
    """[N, w] codes below 2^bits as [N, ceil(w bits / 8)] bytes, the first code in the lowest bits."""
    each = 8 // bits
    codes = torch.nn.functional.pad(codes.to(torch.uint8), (0, -codes.shape[1] % each))
    parts = codes.reshape(codes.shape[0], codes.shape[1] // each, each)
    return sum((parts[..., i] << (i * bits) for i in range(1, each)), start=parts[..., 0]).contiguous()


def unpacked(packs: Tensor, bits: int, width: int) -> Tensor:
    """[N, width] codes of :func:`packed`."""
    parts = torch.stack([(packs >> (i * bits)) & (2**bits - 1) for i in range(8 // bits)], dim=-1)
    return parts.flatten(1)[:, :width]


def bytes_of(width: int, bits: int) -> int:
    """Bytes of the codes of ``width`` numbers."""
    return -(-width * bits // 8)


def steps_of(least: Tensor, most: Tensor, bits: int) -> Tensor:
    """[..., 2] float16, the least value and the step of groups: step = (most - least) / (2^bits - 1)."""
    low = least.half()
    step = ((most - low.float()) / (2**bits - 1)).clamp(min=1e-7)
    return torch.stack([low, step.half()], dim=-1)


def coded(numbers: Tensor, steps: Tensor, bits: int) -> Tensor:
    """round((x - least) / step), with the least value and the step of the group of each number, [..., 2]."""
    least, step = steps.float().unbind(-1)
    return ((numbers - least) / step.clamp(min=1e-7)).round().clamp(0, 2**bits - 1)


def by_entry(numbers: Tensor, bits: int, group: int, clip: float = 1.0) -> tuple[Tensor, Tensor]:
    """Quantise each row of [N, w] in groups of ``group`` neighbouring numbers: bytes, and [N, w / group, 2] float16.

    Steps cover ``clip`` of the range of each group, about its middle; what lies beyond becomes the nearest end.
    """
    parts = numbers.reshape(numbers.shape[0], numbers.shape[1] // group, group)
    least, most = parts.amin(-1), parts.amax(-1)
    beyond = (most - least) * (1 - clip) / 2
    steps = steps_of(least + beyond, most - beyond, bits)
    return packed(coded(parts, steps[:, :, None], bits).flatten(1), bits), steps


def from_entry(packs: Tensor, steps: Tensor, bits: int, group: int) -> Tensor:
    """[N, w] float32 of :func:`by_entry`."""
    codes = unpacked(packs, bits, steps.shape[1] * group).float()
    least, step = steps.float()[:, :, None].unbind(-1)
    return (codes.reshape(*steps.shape[:2], group) * step + least).flatten(1)


def groups(lengths: Tensor, group: int) -> Tensor:
    """[N] int64, for entries of heads one behind the other: which group of ``group`` entries of its head each is in."""
    total = int(lengths.sum())
    heads = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths, output_size=total)
    within = torch.arange(total, device=lengths.device) - (lengths.cumsum(0) - lengths)[heads]
    each = (lengths + group - 1) // group
    return (each.cumsum(0) - each)[heads] + within // group


def by_channel(numbers: Tensor, lengths: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Quantise each column of [N, w] in groups of ``group`` entries of a head: bytes, and [groups, w, 2] float16."""
    place = groups(lengths, group)
    count = int(((lengths + group - 1) // group).sum())
    where, like = place[:, None].expand_as(numbers), numbers.new_zeros(count, numbers.shape[1])
    least = like.scatter_reduce(0, where, numbers, "amin", include_self=False)
    most = like.scatter_reduce(0, where, numbers, "amax", include_self=False)
    steps = steps_of(least, most, bits)
    return packed(coded(numbers, steps[place], bits), bits), steps


def from_channel(packs: Tensor, steps: Tensor, lengths: Tensor, bits: int, group: int) -> Tensor:
    """[N, w] float32 of :func:`by_channel`."""
    of = steps[groups(lengths, group)].float()
    return unpacked(packs, bits, steps.shape[1]).float() * of[..., 1] + of[..., 0]


def hadamard(numbers: Tensor) -> Tensor:
    """The last dimension times the orthonormal Walsh-Hadamard matrix, in blocks of its largest power of 2.

    A second time gives the numbers back.
    """
    width = numbers.shape[-1]
    block = width & -width
    found, half = numbers.reshape(-1, block), 1
    while half < block:
        pairs = found.reshape(-1, block // (2 * half), 2, half)
        found = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], dim=2).reshape(
            -1, block
        )
        half *= 2
    return found.reshape(numbers.shape) / math.sqrt(block)
