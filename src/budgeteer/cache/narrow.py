"""Prompts of which only what is kept goes on behind a middle layer, for scores with ``Score.depth``.

A hook before each later decoder layer takes the kept tokens out of what the layer is given: states, positions, mask. So
they save computation, too. The cut holds for all layers: those before it keep the same tokens.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from budgeteer.cache.budgeted_cache import BudgetedCache
    from budgeteer.cache.layer import BudgetedLayer, Call
    from budgeteer.cache.selecting import Selection


class Going(NamedTuple):
    """The tokens of a call that go on, and what all layers keep.

    Attributes:
        places: [B, m] int64, their indices in the call, in order; rows with fewer than m begin with others.
        valid: [B, m]; False = one of these others, which nobody reads.
        kept: [B, seen] bool, the slots whose entries stay.
        asked: q, the tokens of the call.
    """

    places: Tensor
    valid: Tensor
    kept: Tensor
    asked: int


def whole_layers(depth: float, layers: int) -> int:
    """How many layers read all of a prompt: a share of them, at least 1."""
    return max(round(depth * layers), 1)


def attach_narrow(model: Any, selected: Selection, windows: list[int | None]) -> None:
    """Let later layers of a model see what is kept only, in calls whose cache says so. Twice changes nothing.

    Raises:
        InvalidInput: another split or rest than uniform and drop, or a model with sliding layers.
    """
    if selected.split != registry.part_of("split", "uniform") or selected.rest != registry.part_of("rest", "drop"):
        raise InvalidInput(
            f"{selected.name}: the tokens that go on are the same for all layers and heads, and the others are "
            "dropped; leave out split and rest"
        )
    if any(window is not None for window in windows):
        raise InvalidInput(
            f"{selected.name} keeps the same tokens in all layers, and layers with a sliding window hold other ones; "
            "choose another method for this model"
        )
    if getattr(model, "_budgeteer_narrows", False):
        return
    for module in model.modules():
        for child in module.children():
            if "Attention" in type(child).__name__ and isinstance(getattr(child, "layer_idx", None), int):
                module.register_forward_pre_hook(partial(_hook, child.layer_idx), with_kwargs=True)
    model._budgeteer_narrows = True


def _hook(
    index: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    caches = (value for value in (*args, *kwargs.values()) if hasattr(value, "going"))
    cache = next(caches, None)
    if cache is None or cache.going is None or index < whole_layers(cache.selected.score.depth, len(cache.layers)):
        return None
    narrowed = partial(_narrowed, going=cache.going)
    return tuple(map(narrowed, args)), {name: narrowed(value) for name, value in kwargs.items()}


def _narrowed(value: Any, going: Going) -> Any:
    """The part of an argument that belongs to the tokens that go on.

    States [B, q, D], positions [B or 1, q], rotations [B or 1, q, d] and masks [B or 1, 1, q, n] have one of their own
    for each token of the call; states that were narrowed before have not.
    """
    if isinstance(value, tuple):
        return tuple(_narrowed(each, going) for each in value)
    if not isinstance(value, Tensor) or value.dim() < 2:
        return value
    index, rows = going.places, going.places.shape[0]
    if value.dim() == 4 and value.shape[2] == going.asked:
        value = value.expand(rows, -1, -1, -1)
        value = value.gather(2, index[:, None, :, None].expand(-1, value.shape[1], -1, value.shape[3]))
        before = value.shape[3] - going.asked
        new = value[..., before:].gather(3, index[:, None, None].expand(-1, value.shape[1], value.shape[2], -1))
        nobody = False if value.dtype == torch.bool else torch.finfo(value.dtype).min
        new = new.masked_fill(~going.valid[:, None, None], nobody)
        return torch.cat([value[..., :before], new], dim=3)
    if value.dim() < 4 and value.shape[1] == going.asked:
        value = value.expand(rows, *value.shape[1:])
        place = index.reshape(*index.shape, *(1,) * (value.dim() - 2))
        return value.gather(1, place.expand(-1, -1, *value.shape[2:]))
    return value


def narrow(
    cache: BudgetedCache, layer: BudgetedLayer, call: Call, mask: Tensor | None, size: Tensor, due: bool
) -> None:
    """After the attention of a layer: choose in the last one that reads all, and keep the same in every layer.

    Args:
        cache: that the layer is of.
        layer: that was updated.
        call: its queries.
        mask: of the model.
        size: [B] entries that a head keeps.
        due: whether to choose.
    """
    if layer.index == 0:
        cache.going = None
    whole = whole_layers(cache.selected.score.depth or 0.0, len(cache.layers))
    if layer.index == whole - 1 and due:
        cache.going = _chosen(cache, layer, call, mask, size)
        for each in cache.layers[:whole]:
            assert each.storage is not None
            slots, before = each.storage.slots(each.seen), each.bytes()
            each.keep(stays(cache.going.kept, slots), slots >= 0)
            cache.measure(each, before)
    elif layer.index >= whole and cache.going is not None:
        before = layer.bytes()
        layer.place(cache.going, cache.layers[0].tokens)
        cache.measure(layer, before)


def _chosen(cache: BudgetedCache, layer: BudgetedLayer, call: Call, mask: Tensor | None, size: Tensor) -> Going:
    cells = layer.cells(layer.watch(call), mask, size)
    scores = cache.selected.scores(cells, layer.memory())
    keep = cache.selected.keep(scores, size[:, None].expand(scores.shape[:2]))[:, 0]
    kept = torch.zeros(len(size), layer.seen + 1, dtype=torch.bool, device=keep.device)
    kept.scatter_(1, cells.slots[:, 0].where(keep, layer.seen), True)
    kept, asked = kept[:, :-1], call.queries.shape[2]
    new = kept[:, layer.seen - asked :]
    count = int(new.sum(-1).max())
    index = new.long().argsort(dim=1, stable=True)[:, asked - count :]  # those that go on are last, in order
    return Going(index, new.gather(1, index), kept, asked)


def stays(kept: Tensor, slots: Tensor) -> Tensor:
    """[B, K, n]: whether the entry at each slot is kept; where no entry is, none."""
    rows, heads, count = slots.shape
    return kept.gather(1, slots.clamp(min=0).flatten(1)).reshape(rows, heads, count) & (slots >= 0)
