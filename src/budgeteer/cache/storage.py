"""How the entries of one layer lie in memory: a rectangle until some are dropped, then heads one behind the other.

Both hold *columns*, tensors by name with one row an entry: keys, values, what a score remembers. ``slots`` says where
an entry stands in its row of tokens, -1 that none is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from budgeteer.cache.protocol import Cells, Codec, Place

try:
    from budgeteer.cache import kernels
except ImportError:  # without numba
    kernels = None  # type: ignore[assignment]

Columns = dict[str, Tensor]
"""Name -> [B, K, n, width]."""


class Storage:
    """The entries of a layer: those that were chosen, and behind them those that came since.

    ``since`` counts the latter, whose slots follow each other.
    """

    def __init__(self) -> None:
        self.since = 0

    def append(self, new: Columns) -> None:
        """Add entries, [B, K, q, width] of each column, behind the others."""
        raise NotImplementedError

    def whole(self) -> Columns:
        """All entries, [B, K, n, width] of each column; a head with fewer than n has zeros before its first."""
        raise NotImplementedError

    def column(self, name: str) -> Tensor | None:
        """One column of :meth:`whole`, None where there is none of this name."""
        raise NotImplementedError

    def slots(self, seen: int) -> Tensor:
        """[B, K, n] int64, where ``seen`` tokens went through the layer."""
        raise NotImplementedError

    def replace(self, name: str, column: Tensor) -> None:
        """Set a column, [B, K, n, width]."""
        raise NotImplementedError

    def forget(self, count: int) -> None:
        """Drop the newest ``count`` entries, none of which was chosen."""
        raise NotImplementedError

    def heads(self) -> dict[str, Tensor]:
        """[B, K, entries that came since, width] of each column: rows, heads, widths and types without the rest."""
        raise NotImplementedError

    def tensors(self) -> Iterable[Tensor]:
        """What memory is held by."""
        raise NotImplementedError

    def bytes(self) -> int:
        """Bytes of the storages behind the tensors, each counted once."""
        return held(self.tensors())


class _Unread(Cells):
    """Cells whose keys and values are laid side by side when a score first looks at them, and never for some scores."""

    __slots__ = ("storage",)

    def __getattr__(self, name: str) -> Any:
        if name not in ("keys", "values"):
            raise AttributeError(name)
        object.__setattr__(self, name, self.storage.column(name))
        return getattr(self, name)


def cells_of(storage: Storage, **fields: Any) -> Cells:
    """What a score sees of a layer's entries; ``fields`` are all others of :class:`Cells`.

    To be read before the storage changes.
    """
    cells = _Unread(keys=None, values=None, **fields)  # type: ignore[arg-type]
    object.__setattr__(cells, "storage", storage)
    for name in ("keys", "values"):
        object.__delattr__(cells, name)
    return cells


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    behind = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors)}
    return sum(behind.values())


def _recent(seen: int, since: int, like: Tensor) -> Tensor:
    """[B, K, since] slots of the newest entries."""
    counted = torch.arange(seen - since, seen, device=like.device)
    return counted.expand(*like.shape[:2], since)


def _without(columns: Columns, count: int) -> Columns:
    """Columns without their last entries; the memory behind these is freed."""
    return {name: column[:, :, : column.shape[2] - count].clone() for name, column in columns.items()}


def _bytes(rows: Tensor) -> Any:
    """The bytes of [..., width] as an array of numpy; what is written there is written in a contiguous tensor."""
    return rows.contiguous().view(torch.uint8).numpy()


class Rectangle(Storage):
    """All heads of all rows hold all entries that came: the layout of transformers' own cache."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.columns = columns
        self.since = columns["keys"].shape[2]

    def append(self, new: Columns) -> None:
        self.columns = {name: torch.cat([column, new[name]], dim=2) for name, column in self.columns.items()}
        self.since += new["keys"].shape[2]

    def whole(self) -> Columns:
        return self.columns

    def column(self, name: str) -> Tensor | None:
        return self.columns.get(name)

    def slots(self, seen: int) -> Tensor:
        return _recent(seen, self.since, self.columns["keys"])

    def replace(self, name: str, column: Tensor) -> None:
        self.columns[name] = column

    def forget(self, count: int) -> None:
        self.columns = _without(self.columns, count)
        self.since -= count

    def heads(self) -> dict[str, Tensor]:
        return self.columns

    def tensors(self) -> Iterable[Tensor]:
        return self.columns.values()


class Packed(NamedTuple):
    """The entries of a :class:`Ragged` that are held in fewer bits.

    Attributes:
        low: [N] bool; True = packed.
        lengths: [B x K] int64, packed entries of each head.
        tensors: all that the codec holds of them.
        codec, frequencies: what they are read with.
    """

    low: Tensor
    lengths: Tensor
    tensors: tuple[Tensor, ...]
    codec: Codec
    frequencies: Tensor | None


class Ragged(Storage):
    """Heads of any lengths one behind the other, [entries, width], and a rectangle of the entries that came since.

    A token that is decoded appends to the second part only, so that what was chosen is never copied. The compiled
    attention of one query reads both parts where they lie; everything else sees a rectangle, which is made for one
    layer at a time and not kept.
    """

    def __init__(self, flat: Columns, chosen: Tensor, lengths: Tensor, packed: Packed | None = None) -> None:
        """``flat``: [N, width] of each column; ``chosen``: [N] int32; ``lengths``: [B, K] int64, which sum to N.

        Keys and values of entries that are ``packed`` are not in ``flat``.
        """
        super().__init__()
        self.flat, self.chosen, self.lengths, self.packed = flat, chosen, lengths, packed
        self.tail = {name: column.new_empty(*lengths.shape, 0, column.shape[-1]) for name, column in flat.items()}
        self.longest = int(lengths.max())
        self.even = bool((lengths == self.longest).all())
        self.ends = (lengths.flatten() - (0 if packed is None else packed.lengths)).cumsum(0)
        """[B x K] int64, where the keys and values of each head end in ``flat``."""

    def append(self, new: Columns) -> None:
        self.tail = {name: torch.cat([column, new[name]], dim=2) for name, column in self.tail.items()}
        self.since += new["keys"].shape[2]

    def _rectangle(self, flat: Tensor, nothing: float) -> Tensor:
        """[B, K, longest, ...] of [N, ...]: the entries of each head at its end, and ``nothing`` before them."""
        shape = (*self.lengths.shape, self.longest, *flat.shape[1:])
        if self.even:
            return flat.reshape(shape)
        head = flat.new_full(shape, nothing)
        head[self._places()] = flat
        return head

    def _places(self) -> Tensor:
        """[B, K, longest] bool: where the entries of each head stand in a rectangle."""
        counted = torch.arange(self.longest, device=self.lengths.device)
        return counted >= self.longest - self.lengths[:, :, None]

    def _unpacked(self) -> Columns:
        """[N, width] of each column, packed entries read."""
        if self.packed is None:
            return self.flat
        low, lengths, tensors, codec, frequencies = self.packed
        widths = self.flat["keys"].shape[1], self.flat["values"].shape[1]
        read = codec.decode(tensors, Place(self.chosen[low].long(), lengths, widths, frequencies))
        flat = dict(self.flat)
        for name, column in zip(("keys", "values"), read, strict=True):
            flat[name] = column.new_empty(low.shape[0], column.shape[1], dtype=self.flat[name].dtype)
            flat[name][~low], flat[name][low] = self.flat[name], column.to(flat[name].dtype)
        return flat

    def whole(self) -> Columns:
        return {name: self._with_tail(name, column) for name, column in self._unpacked().items()}

    def column(self, name: str) -> Tensor | None:
        flat = self.flat if self.packed is None or name not in ("keys", "values") else self._unpacked()
        return self._with_tail(name, flat[name]) if name in flat else None

    def _with_tail(self, name: str, flat: Tensor) -> Tensor:
        return torch.cat([self._rectangle(flat, 0), self.tail[name]], dim=2)

    def slots(self, seen: int) -> Tensor:
        head = self._rectangle(self.chosen.long(), -1)
        return torch.cat([head, _recent(seen, self.since, head)], dim=2)

    def replace(self, name: str, column: Tensor) -> None:
        head = column[:, :, : self.longest]
        self.flat[name] = head.flatten(0, 2) if self.even else head[self._places()]
        self.tail[name] = column[:, :, self.longest :].clone()

    def forget(self, count: int) -> None:
        self.tail = _without(self.tail, count)
        self.since -= count

    def close_up(self, keep: Tensor, seen: int) -> bool:
        """Hold the entries where ``keep`` [B, K, n] is True, and no others: where they lie, without new memory.

        They move up into the places of those that were chosen, and all that are kept beyond these stay behind. That is
        for heads which keep at least as many as were chosen before, as where one is dropped for each token that comes,
        and of what came since the newest; on the CPU, with numba (extra ``fast``).

        Returns:
            Whether it could; if not, nothing is changed.
        """
        if kernels is None or self.packed is not None or keep.device.type != "cpu":
            return False
        more = keep.sum(-1) - self.lengths
        stay = int(more.min())
        gone = self.since - stay  # of the tail, or from before it
        if stay < 0 or bool((more != stay).any()) or not bool(keep[:, :, keep.shape[2] - stay :].all()):
            return False
        if not all(column.is_contiguous() for column in self.flat.values()):
            return False
        rows = keep[:, :, : keep.shape[2] - stay].flatten(0, 1).contiguous().numpy()
        slots = _recent(seen, self.since, self.lengths)[..., None].int()
        kernels.follow_torch()
        for flat, tail in [*((f, self.tail[name]) for name, f in self.flat.items()), (self.chosen[:, None], slots)]:
            kernels.close_up(_bytes(flat), _bytes(tail[:, :, :gone].flatten(0, 1)), self.ends.numpy(), rows)
        self.tail, self.since = {name: column[:, :, gone:].clone() for name, column in self.tail.items()}, stay
        return True

    def heads(self) -> dict[str, Tensor]:
        return self.tail

    def tensors(self) -> Iterable[Tensor]:
        packed = () if self.packed is None else (self.packed.low, self.packed.lengths, *self.packed.tensors)
        return [*self.flat.values(), *self.tail.values(), self.chosen, self.lengths, self.ends, *packed]


def kept(columns: Columns, slots: Tensor, keep: Tensor) -> Ragged:
    """New storage of the entries where ``keep`` [B, K, n] is True; nothing of the old one is held on to."""
    return Ragged({name: column[keep] for name, column in columns.items()}, slots[keep].int(), keep.sum(-1))


def kept_and_packed(
    columns: Columns, slots: Tensor, keep: Tensor, low: Tensor, codec: Codec, frequencies: Tensor | None
) -> Ragged:
    """:func:`kept`, with the entries where ``low`` [B, K, n] is True, too, in fewer bits."""
    both = keep | low
    keys, values, lengths = columns["keys"][low], columns["values"][low], low.sum(-1).flatten()
    place = Place(slots[low], lengths, (keys.shape[1], values.shape[1]), frequencies)
    packed = Packed(low[both], lengths, codec.encode(keys, values, place), codec, frequencies)
    flat = {name: column[keep if name in ("keys", "values") else both] for name, column in columns.items()}
    return Ragged(flat, slots[both].int(), both.sum(-1), packed)
