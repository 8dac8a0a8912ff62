"""How the entries of one layer lie in memory: a rectangle, or heads of their own lengths one behind the other.

Both hold *columns*, tensors by name with one row an entry: keys, values, what a score remembers. ``slots`` says where
an entry stands in its row of tokens, -1 that none is there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Columns = dict[str, Tensor]
"""Name -> [B, K, n, width]."""


class Storage:
    """The entries of a layer: those that were chosen, and behind them those that came since.

    ``chosen`` has the slots of the former, ``since`` counts the latter, whose slots follow each other.
    """

    columns: Columns

    def __init__(self) -> None:
        self.since = 0

    def append(self, new: Columns) -> None:
        """Add entries, [B, K, q, width] of each column, behind the others."""
        raise NotImplementedError

    def whole(self) -> Columns:
        """All entries, [B, K, n, width] of each column; a head with fewer than n has zeros before its first."""
        raise NotImplementedError

    def slots(self, seen: int) -> Tensor:
        """[B, K, n] int64, where ``seen`` tokens went through the layer."""
        raise NotImplementedError

    def replace(self, name: str, column: Tensor) -> None:
        """Set a column, [B, K, n, width]."""
        raise NotImplementedError

    def tensors(self) -> Iterable[Tensor]:
        """What memory is held by."""
        raise NotImplementedError

    def bytes(self) -> int:
        """Bytes of the storages behind the tensors, each counted once."""
        return held(self.tensors())


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    behind = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors)}
    return sum(behind.values())


def _recent(seen: int, since: int, like: Tensor) -> Tensor:
    """[B, K, since] slots of the newest entries."""
    counted = torch.arange(seen - since, seen, device=like.device)
    return counted.expand(*like.shape[:2], since)


class Rectangle(Storage):
    """All heads of all rows hold equally many entries: the layout of transformers' own cache."""

    def __init__(self, columns: Columns, chosen: Tensor | None = None, since: int | None = None) -> None:
        super().__init__()
        self.columns, self.chosen = columns, chosen
        self.since = columns["keys"].shape[2] if since is None else since

    def append(self, new: Columns) -> None:
        self.columns = {name: torch.cat([column, new[name]], dim=2) for name, column in self.columns.items()}
        self.since += new["keys"].shape[2]

    def whole(self) -> Columns:
        return self.columns

    def slots(self, seen: int) -> Tensor:
        since = _recent(seen, self.since, self.columns["keys"])
        return since if self.chosen is None else torch.cat([self.chosen.long(), since], dim=2)

    def replace(self, name: str, column: Tensor) -> None:
        self.columns[name] = column

    def tensors(self) -> Iterable[Tensor]:
        return [*self.columns.values(), *([] if self.chosen is None else [self.chosen])]


class Ragged(Storage):
    """Heads of any lengths one behind the other, [entries, width], and a rectangle of the entries that came since.

    Attention and scores see a rectangle, which is made for one layer at a time and not kept.
    """

    def __init__(self, flat: Columns, chosen: Tensor, lengths: Tensor) -> None:
        """``flat``: [N, width] of each column; ``chosen``: [N] int32; ``lengths``: [B, K] int64, which sum to N."""
        super().__init__()
        self.flat, self.chosen, self.lengths = flat, chosen, lengths
        self.tail = {name: column.new_empty(*lengths.shape, 0, column.shape[-1]) for name, column in flat.items()}

    def append(self, new: Columns) -> None:
        self.tail = {name: torch.cat([column, new[name]], dim=2) for name, column in self.tail.items()}
        self.since += new["keys"].shape[2]

    def _places(self) -> Tensor:
        """[B, K, longest] bool: where the entries of each head stand in a rectangle, at its end."""
        longest = int(self.lengths.max())
        return torch.arange(longest, device=self.lengths.device) >= longest - self.lengths[:, :, None]

    def whole(self) -> Columns:
        places, columns = self._places(), {}
        for name, flat in self.flat.items():
            head = flat.new_zeros(*places.shape, flat.shape[-1])
            head[places] = flat
            columns[name] = torch.cat([head, self.tail[name]], dim=2)
        return columns

    def slots(self, seen: int) -> Tensor:
        places = self._places()
        head = torch.full(places.shape, -1, device=places.device)
        head[places] = self.chosen.long()
        return torch.cat([head, _recent(seen, self.since, head)], dim=2)

    def replace(self, name: str, column: Tensor) -> None:
        places = self._places()
        self.flat[name] = column[:, :, : places.shape[-1]][places]
        self.tail[name] = column[:, :, places.shape[-1] :].clone()

    def tensors(self) -> Iterable[Tensor]:
        return [*self.flat.values(), *self.tail.values(), self.chosen, self.lengths]


def kept(columns: Columns, slots: Tensor, keep: Tensor) -> Storage:
    """New storage of the entries where ``keep`` [B, K, n] is True; nothing of the old one is held on to."""
    lengths = keep.sum(-1)
    chosen = slots[keep].int()
    flat = {name: column[keep] for name, column in columns.items()}
    if bool((lengths == lengths[0, 0]).all()):
        shape = (*lengths.shape, int(lengths[0, 0]))
        return Rectangle({name: c.reshape(*shape, c.shape[-1]) for name, c in flat.items()}, chosen.reshape(shape), 0)
    return Ragged(flat, chosen, lengths)
