"""MatryoshkaKV: all entries stay, and each is held in fewer numbers, in a basis that was trained for that.

Paper: "MatryoshkaKV: Adaptive KV Compression via Trainable Orthogonal Projection".
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from budgeteer.cache.projections import NAME, Projections, projections_of
from budgeteer.cache.protocol import Codec, Place, Rest
from budgeteer.core.errors import InvalidInput


def matryoshka(projections: str | Projections = "") -> Rest:
    """Hold every entry in the first numbers of a trained orthogonal basis, as many as the budget has bytes for.

    Formula: a key behind RoPE, or a value, x of a head is held as (x - m) U[:, :r] and read as m + (x - m) U[:, :r]
    U[:, :r]^T. The rank r of each layer and head, of keys and values apart, is what is left after the first cuts of an
    order that was searched greedily: as many cuts as bring the mean rank down to the share of the bytes.
    Helps where no entry can be spared, since none is dropped, and below what quantisation reaches together with it. It
    saves memory, not time: entries are read back for one layer at a time. Score and split do not matter, except that
    what a score protects stays as it is; use ``recent:every=0``, and the split ``uniform``.
    Bases and cuts are those of ``budgeteer cache train matryoshka``. In the paper prompts are read in the projected
    form, too; here they are read as they are, and then projected.

    Args:
        projections: their file, or the folder of a model that has them beside it.
    """
    given = projections_of(projections)
    return Rest(fitted=partial(_codec, given), fingerprint=given.fingerprint)


def _codec(given: Projections, layer: int, shares: Tensor) -> Codec:
    """Keys and values of a layer in as many numbers as a share [B] of the bytes of each row allows."""
    _, layers, heads, width = given.mean.shape
    if layer >= layers:
        raise InvalidInput(
            f"{NAME}: projections of {layers} layers, and this is layer {layer}; train them for the model"
        )
    ranks = torch.stack([given.ranks(share)[:, layer] for share in shares.tolist()], dim=1)  # [2, B, K]
    each = ranks.flatten(1).tolist()

    def bases(kind: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Mean and basis of each head of each row."""
        mean, basis = given.mean[kind, layer].to(device), given.basis[kind, layer].to(device)
        return [(mean[i % heads], basis[i % heads][:, :rank]) for i, rank in enumerate(each[kind])]

    def encode(keys: Tensor, values: Tensor, place: Place) -> tuple[Tensor, ...]:
        if place.widths != (width, width) or len(place.lengths) != len(each[0]):
            raise InvalidInput(
                f"{NAME}: projections of {heads} heads of width {width}, and this model has others; train them for it"
            )
        held = []
        for kind, numbers in enumerate((keys, values)):
            parts = torch.split(numbers, place.lengths.tolist())
            projected = [
                (part.float() - m) @ u for part, (m, u) in zip(parts, bases(kind, numbers.device), strict=True)
            ]
            held.append(torch.cat([part.flatten() for part in projected]).to(numbers.dtype))
        return tuple(held)

    def decode(tensors: tuple[Tensor, ...], place: Place) -> tuple[Tensor, Tensor]:
        read = []
        for kind, numbers in enumerate(tensors):
            lengths = place.lengths.tolist()
            counts = [n * rank for n, rank in zip(lengths, each[kind], strict=True)]
            parts = torch.split(numbers.float(), counts)
            of = zip(parts, lengths, bases(kind, numbers.device), strict=True)
            read.append(torch.cat([m + part.reshape(n, -1 if n else u.shape[1]) @ u.T for part, n, (m, u) in of]))
        return read[0], read[1]

    def cost(d: int, e: int) -> tuple[int, int]:
        return 4 * int(ranks.sum(0).max()), 0

    return Codec(encode, decode, cost)
