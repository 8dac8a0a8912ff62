"""Prompts of which only what is kept goes on behind a middle layer, or behind several, for scores with ``Score.depth``.

A hook before each later decoder layer takes the kept tokens out of what the layer is given: states, positions, mask. So
they save computation, too. A cut holds for all layers: those before it keep the same tokens.
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
        within: [B, m] int64, their indices among the tokens that the layer of the choice was given.
        layer: index of the layer behind the choice, which is the first that they go on to.
        valid: [B, m]; False = one of these others, which nobody reads.
        kept: [B, seen] bool, the slots whose entries stay.
        asked: q, the tokens of the call.
    """

    places: Tensor
    within: Tensor
    layer: int
    valid: Tensor
    kept: Tensor
    asked: int


def whole_layers(depth: float, layers: int) -> int:
    """How many layers read all of a prompt: a share of them, at least 1."""
    return max(round(depth * layers), 1)


def stages(selected: Selection, layers: int) -> dict[int, float | None]:
    """Index of each layer that chooses -> share of the tokens that go on; None = as many as are kept.

    Raises:
        InvalidInput: two choices would be in one layer of so many, or none would be left behind the last one.
    """
    depths = [*selected.score.earlier, (selected.score.depth or 0.0, None)]
    found = {whole_layers(depth, layers) - 1: share for depth, share in depths}
    if len(found) < len(depths):
        raise InvalidInput(
            f"{selected.name}: of {layers} layers, two choices would be in the same one; give depths that are further "
            "apart, or fewer of them"
        )
    return found


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
    stages(selected, len(windows))
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
    if cache is None or cache.going is None or index < min(stages(cache.selected, len(cache.layers))) + 1:
        return None
    going: Going = cache.going
    given = {f"{place}": value for place, value in enumerate(args)} | kwargs
    states = "0" if args else "hidden_states"
    found = {name: _narrowed(value, going) for name, value in given.items() if name != states}
    found[states] = given[states]  # of the tokens that the layer before was given
    if index == going.layer:
        found[states] = found[states].gather(1, going.within[..., None].expand(-1, -1, found[states].shape[2]))
    return tuple(found.pop(f"{place}") for place in range(len(args))), found


def _narrowed(value: Any, going: Going) -> Any:
    """The part of an argument that belongs to the tokens that go on.

    Positions [B or 1, q], rotations [B or 1, q, d] and masks [B or 1, 1, q, n] have one of their own for each token of
    the call.
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
    """After the attention of a layer: choose in those that do, and keep the same in every layer.

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
    if cache.going is not None:
        before = layer.bytes()
        layer.place(cache.going, cache.layers[0].tokens)
        cache.measure(layer, before)
        mask = None  # who came is known, padding is gone
    choices = stages(cache.selected, len(cache.layers))
    if layer.index in choices and (due or cache.going is not None):
        share, tokens = choices[layer.index], cache.layers[0].tokens
        assert tokens is not None
        wanted = size if share is None else size.maximum((share * tokens).long())
        cache.going = _chosen(cache, layer, call, mask, wanted)
        for each in cache.layers[: layer.index + 1]:
            assert each.storage is not None
            slots, before = each.storage.slots(each.seen), each.bytes()
            each.keep(stays(cache.going.kept, slots), slots >= 0)
            cache.measure(each, before)


def _chosen(cache: BudgetedCache, layer: BudgetedLayer, call: Call, mask: Tensor | None, size: Tensor) -> Going:
    cells = layer.cells(layer.watch(call), mask, size)
    scores = cache.selected.scores(cells, layer.memory())
    keep = cache.selected.keep(scores, size[:, None].expand(scores.shape[:2]))[:, 0]
    kept = torch.zeros(len(size), layer.seen + 1, dtype=torch.bool, device=keep.device)
    kept.scatter_(1, cells.slots[:, 0].where(keep, layer.seen), True)
    kept, came = kept[:, :-1], call.queries.shape[2]
    asked = came if cache.going is None else cache.going.asked
    new = kept[:, layer.seen - asked :]
    count = int(new.sum(-1).max())
    index = new.long().argsort(dim=1, stable=True)[:, asked - count :]  # those that go on are last, in order
    within = index
    if cache.going is not None:
        counted = torch.arange(came, device=index.device).expand(len(index), -1)
        within = torch.zeros_like(new, dtype=torch.long).scatter(1, cache.going.places, counted).gather(1, index)
    return Going(index, within, layer.index + 1, new.gather(1, index), kept, asked)


def stays(kept: Tensor, slots: Tensor) -> Tensor:
    """[B, K, n]: whether the entry at each slot is kept; where no entry is, none."""
    rows, heads, count = slots.shape
    return kept.gather(1, slots.clamp(min=0).flatten(1)).reshape(rows, heads, count) & (slots >= 0)
