"""A KV cache with a budget, for any decoder of transformers with the standard cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput, MissingExtra

try:
    from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error

from budgeteer.cache.account import Account
from budgeteer.cache.attend import attach, frequencies_of, listen, updated
from budgeteer.cache.gates import require_trained_on
from budgeteer.cache.known import Known
from budgeteer.cache.layer import BudgetedLayer, Call
from budgeteer.cache.narrow import Going, attach_narrow, narrow
from budgeteer.cache.outcome import fates, precise, require_uniform
from budgeteer.cache.protocol import Groups
from budgeteer.cache.replay import attach_replay
from budgeteer.cache.selecting import Selection, selection
from budgeteer.cache.size import Footprint, capped, parsed, sizes
from budgeteer.cache.storage import held
from budgeteer.models.inside import argument_of


class _Waiting(NamedTuple):
    """A layer whose scores are known, and whose size is not yet."""

    layer: BudgetedLayer
    scores: Tensor
    size: Tensor
    tokens: Tensor


class _Unread(NamedTuple):
    """A layer that chooses when its prompt has been read again, and the call that it chooses after."""

    layer: BudgetedLayer
    call: Call
    mask: Tensor | None
    size: Tensor
    tokens: Tensor


class BudgetedCache(Cache):
    """A cache that drops what a method thinks least worth, down to a budget, and gives the memory back.

    Pass it as ``past_key_values`` (``cache`` in the newest transformers) to ``generate`` or to the model. A prompt, or
    a part of one, goes through the whole attention and is then cut down to the budget; what is generated is added, and
    cut down too where the method chooses while decoding. Positions stay those of the text.

    Args:
        model: a decoder of transformers; its attention is led through :mod:`budgeteer.cache.attend` from then on.
        budget: tokens (``"2k"``, ``"cache:2k"``: entries of each layer and head, on the mean), bytes of the whole cache
            (``"bytes:64m"``), or a share of the tokens so far (``"25%"``) or of those of the prompt (``"prompt:25%"``),
            which does not grow with what is generated.
        method: a score of the registry with its options and its split, such as ``"snapkv:split=pyramid"``.
        seed: of methods that draw at random.

    Raises:
        InvalidInput: a budget below what the method always keeps, a model without the standard cache, or a seed that is
            no whole number from 0 on.
        UnknownName: no such method.
    """

    layers: list[BudgetedLayer]  # type: ignore[assignment]

    def __init__(self, model: Any, budget: Budget | str, method: str | Selection = "snapkv", *, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise InvalidInput(f"seed is {seed!r}; give a whole number, 0 or more")
        self.budget, self.selected = parsed(budget), selection(method)
        if self.budget.amount is not None and self.budget.kind != "bytes":
            self._enough(self.budget.amount)
        if self.selected.rest.renew is not None:
            _retrievable(self.selected)
        windows = windows_of(model)
        require_trained_on(model, self.selected)
        require_uniform(self.selected)
        attach(model, len(windows))
        self._hears = listen(model) if self.selected.score.hidden else None
        if self.selected.score.depth is not None:
            attach_narrow(model, self.selected, windows)
        if self.selected.score.replays:
            if any(window is not None for window in windows):
                raise InvalidInput(
                    f"{self.selected.name} reads a prompt twice, and layers with a sliding window do not see its first "
                    "reading; choose another method for this model"
                )
            attach_replay(model, argument_of(model))
        layers = [BudgetedLayer(i, len(windows), w, self.selected, seed) for i, w in enumerate(windows)]
        super().__init__(layers=list(layers))
        frequencies = frequencies_of(model, windows)
        if frequencies is None and (self.selected.score.rotation or self.selected.rest.rotation):
            raise InvalidInput(
                f"{self.selected.name} needs to know how queries and keys are rotated: one set of frequencies for all "
                "layers, or one for those that slide and one for the others, halves of a head as pairs. "
                f"{type(model).__name__} does not show that; choose another method"
            )
        for layer, own in zip(layers, frequencies or (), strict=frequencies is not None):
            layer.frequencies = own
        self.reset()

    def reset(self) -> None:
        """Forget everything, for another prompt."""
        for layer in self.layers:
            layer.reset()
        self._waiting, self._unread = list[_Waiting](), list[_Unread]()
        self.peak, self.listening, self._due, self._steps = 0, False, False, 0
        self._held = [0] * len(self.layers)
        self._size: Tensor | None = None
        self._prompt: Tensor | None = None
        self.going: Going | None = None
        self._open: int | None = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Add the keys and values of a layer, and return those that its queries may read."""
        if self._open is not None:
            updated.by = None  # else the next call of any model here would take it for its own
            raise InvalidInput(
                f"the attention of layer {self._open} did not go through transformers' attention functions; the cache "
                "was made for another model, or this one cannot have a budget"
            )
        layer = self.layers[layer_idx]
        _fitting(layer, key_states)
        before = held(layer.storage.heads().values()) if layer.storage else 0
        keys, values = layer.update(key_states, value_states)
        self.measure(layer, before)
        self._open, updated.by = layer_idx, (self, layer)
        return keys, values

    def prepare(self, layer: BudgetedLayer, call: Call, mask: Tensor | None) -> None:
        """Before the attention of a layer: refuse what cannot be within the budget, and retrieve what is to be read."""
        self._open = None
        tokens = layer.count(call.valid)
        if not layer.index and not self.listening:
            self._begin(layer, tokens, call.queries.shape[2])
        if layer.cold is not None:
            self._retrieve(layer, call, mask)

    def _begin(self, layer: BudgetedLayer, tokens: Tensor, asked: int) -> None:
        """In the first layer of a call of ``asked`` tokens: how many entries rows may keep, and whether to choose."""
        if self._waiting or any(each.seen + asked != layer.seen for each in self.layers[1:]):
            raise InvalidInput(
                "an earlier call of the model broke off between two layers of this cache (an error, or it was "
                "interrupted), so that they hold different texts; reset() it, and read the text again"
            )
        if self._unread:
            raise InvalidInput(
                f"{self.selected.name} reads a prompt twice, after a call of the model that the cache was made for; "
                "call that model, not a part of it"
            )
        self._steps = 0 if asked > 1 else self._steps + 1
        every = self.selected.score.every
        self._due = asked > 1 or (every > 0 and self._steps % every == 0)
        if asked > 1 or self._prompt is None:
            self._prompt = tokens
        self._size = sizes(self.budget, tokens, self._footprints(layer), self._prompt)
        if self._due:
            short = self._size < tokens
            if bool(short.any()):
                self._enough(int(self._size[short].min()))

    def _retrieve(self, layer: BudgetedLayer, call: Call, mask: Tensor | None) -> None:
        """Choose which entries of cold memory a token reads, in the heads that choose anew."""
        assert self._size is not None
        assert layer.tokens is not None
        new = layer.renewed(call)
        if not bool(new.any()):
            self.measure(layer)
            return
        there = call._replace(queries=call.queries.cpu(), valid=call.valid.cpu())
        cells = layer.cells(there, None if mask is None else mask.cpu(), self._size.cpu())
        scores = self.selected.scores(cells, torch.empty(0))
        newest = torch.arange(scores.shape[-1]) == scores.shape[-1] - 1
        scores = scores.masked_fill(newest & cells.valid, float("inf"))
        groups = Groups((scores,), (cells.size,), (layer.tokens.cpu(),), layer.index, len(self.layers))
        before = layer.bytes()
        layer.retrieve(self.selected.keep(scores, self.selected.split.sizes(groups)[0]), new)
        self.measure(layer, before)

    def choose(self, layer: BudgetedLayer, call: Call, mask: Tensor | None) -> None:
        """After the attention of a layer: keep what the budget leaves."""
        assert self._size is not None
        assert layer.tokens is not None
        score, observed = self.selected.score, layer.watch(call)
        footprint = self._footprint(layer)
        size = capped(self._size.to(layer.tokens.device), footprint)
        tokens = capped(layer.tokens, footprint)
        over = not layer.intact or bool((size < tokens).any())
        if score.depth is not None:
            narrow(self, layer, call, mask, size, self._due and over)
            return
        if self.selected.rest.renew is not None:  # a sliding layer stays whole
            if layer.window is None and self._due and over and layer.cold is None:
                layer.offload()
            layer.slide()
            self.measure(layer)
            return
        if score.observe is not None and self.listening == score.replays:
            layer.remember(layer.cells(call, mask, size))
        if self.listening:
            layer.forget(call)
            self.measure(layer)
        elif self._due and over and score.replays:
            last = call._replace(
                queries=call.queries[:, :, -1:].clone(), valid=call.valid[:, -1:], hidden=None, known=None
            )
            self._unread.append(_Unread(layer, last, mask, size, tokens))
        elif self._due and over:
            self._weigh(layer, observed, mask, size, tokens)
        elif not self.selected.together:
            self._slide(layer)
        if self.selected.together and layer.index == len(self.layers) - 1:
            self._cut()
            for each in self.layers:
                self._slide(each)

    @property
    def unread(self) -> bool:
        """Whether a prompt has to be read a second time before the choice."""
        return bool(self._unread)

    def settle(self) -> None:
        """Choose, now that the prompt has been read a second time."""
        unread, self._unread = self._unread, []
        for each in unread:
            self._weigh(*each)
        self._cut()

    def _weigh(self, layer: BudgetedLayer, call: Call, mask: Tensor | None, size: Tensor, tokens: Tensor) -> None:
        """Score the entries of a layer; drop what has no place, unless the split wants all layers first."""
        precision = self.selected.score.precision if self.selected.by_precision else None
        shared = precision is not None and call.known is None  # by the score and the precision
        cells = layer.cells(call._replace(known=Known()) if shared else call, mask, size)
        scores = self.selected.scores(cells, layer.memory())
        if precision is not None and (call.queries.shape[2] > 1 or layer.precision is None):
            layer.precision = precision(cells)
        self._waiting.append(_Waiting(layer, scores, size, tokens))
        if not self.selected.together:
            self._cut()

    def _cut(self) -> None:
        """Split the places of the layers that wait, and drop what has none."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        first = waiting[0].layer
        alike = [layer.index for layer in self.layers if layer.window == first.window]
        groups = Groups(
            scores=tuple(each.scores for each in waiting),
            size=tuple(each.size for each in waiting),
            tokens=tuple(each.tokens for each in waiting),
            layer=alike.index(first.index),
            layers=len(alike),
        )
        layers = [each.layer for each in waiting]
        full = [self._footprint(e.layer).bytes // e.scores[..., 0].numel() for e in waiting]
        numbers = precise(self.selected, layers, groups.scores, groups.size, full) if self.selected.by_precision else {}
        for each, counts, entry in zip(waiting, self.selected.split.sizes(groups), full, strict=True):
            before, given = each.layer.bytes(), numbers.get(each.layer.index)
            keep, low, codec = fates(self.selected, each.layer, each.scores, counts, each.size, entry, given)
            each.layer.keep(keep, each.scores > float("-inf"), low, codec)
            self.measure(each.layer, before)

    def require(self, budget: Budget | str, tokens: int) -> None:
        """Refuse a budget with which a prompt would be refused, judged by the entries that are held now.

        Args:
            budget: that another cache of this method is to have.
            tokens: of each row of the prompt.

        Raises:
            InvalidInput: it leaves a head fewer entries than the method always keeps.
        """
        given = parsed(budget)
        if (size := int(sizes(given, torch.tensor([tokens]), self._footprints(self.layers[0])))) < tokens:
            self._enough(size, given)

    def _enough(self, size: int, budget: Budget | None = None) -> None:
        if size < (least := self.selected.protected(size)):
            other = ", or a method that protects nothing, such as keydiff" if least > 1 else ""
            raise InvalidInput(
                f"budget {budget or self.budget} leaves {size} tokens a head, and {self.selected.name} always keeps "
                f"{least}; give a larger budget{other}"
            )

    def _footprint(self, layer: BudgetedLayer) -> Footprint:
        assert layer.storage is not None
        columns = layer.storage.heads().values()
        rows, heads = next(iter(columns)).shape[:2]
        entry = sum(column.shape[-1] * column.element_size() for column in columns) + 4  # 4: its slot
        entry += self.selected.rest.codec is not None or self.selected.rest.fitted is not None  # whether it is packed
        return Footprint(rows * heads * entry, None if layer.window is None else layer.window - 1)

    def _footprints(self, first: BudgetedLayer) -> list[Footprint]:
        """Of all layers, which are as wide as the first one."""
        each = self._footprint(first)
        return [each._replace(most=None if la.window is None else la.window - 1) for la in self.layers]

    def _slide(self, layer: BudgetedLayer) -> None:
        if layer.slide():
            self.measure(layer)

    def measure(self, layer: BudgetedLayer, beside: int = 0) -> None:
        """After a layer changed: what all hold, and the most so far, with ``beside`` bytes for a moment."""
        self._held[layer.index] = layer.bytes()
        self.peak = max(self.peak, sum(self._held) + beside)

    def heads(self) -> list[list[float]]:
        """For each layer and head the entries that are held, of those of a full cache, on the mean over rows."""
        found = list[list[float]]()
        for layer in self.layers:
            full = layer.seen if layer.window is None else min(layer.seen, layer.window - 1)
            slots = torch.empty(1, 0, 0) if layer.storage is None else layer.storage.slots(layer.seen)
            found.append(((slots >= 0).sum(-1).double().mean(0) / max(full, 1)).tolist())
        return found

    def account(self) -> Account:
        """What is held now, measured."""
        kept = total = full = 0
        for layer in self.layers:
            if layer.storage is None:
                continue
            columns = layer.storage.heads()
            rows, heads = columns["keys"].shape[:2]
            entries = rows * heads * (layer.seen if layer.window is None else min(layer.seen, layer.window - 1))
            kept, total = kept + layer.entries(), total + entries
            full += entries * sum(columns[n].shape[-1] * columns[n].element_size() for n in ("keys", "values"))
        return Account(
            kept, total, sum(layer.bytes() for layer in self.layers), full, self.peak,
            sum(layer.packed() for layer in self.layers), sum(layer.cold_bytes() for layer in self.layers),
            sum(layer.computed for layer in self.layers),
        )  # fmt: skip


def _fitting(layer: BudgetedLayer, keys: Tensor) -> None:
    """Refuse the entries of a call that cannot stand behind those of a layer.

    Raises:
        InvalidInput: they are of another number of rows, or of another type.
    """
    if layer.storage is None:
        return
    there = layer.storage.heads()["keys"]
    if keys.dtype != there.dtype:
        raise InvalidInput(
            f"the cache holds entries of {there.dtype}, and this call has {keys.dtype}; go on with the model as it "
            "was, or reset() the cache and read the text again"
        )
    if keys.shape[0] != (held_rows := there.shape[0]):
        raise InvalidInput(
            f"the cache holds a batch of {held_rows}, and this call has one of {keys.shape[0]}; go on with the same "
            "rows, or give another batch a cache of its own (or reset() this one)"
        )


def _retrievable(selected: Selection) -> None:
    """Refuse a method that cannot choose from cold memory.

    Raises:
        InvalidInput: its score remembers what was read, or its split wants all layers first.
    """
    if selected.score.observe is not None or selected.split.together:
        raise InvalidInput(
            f"{selected.name}: entries are retrieved before the attention of each layer, by the query of one token; "
            "choose a score that remembers nothing (token-select, adamas, quest, tova) and a split within a layer"
        )


def windows_of(model: Any) -> list[int | None]:
    """The window of each layer, None for one that reads everything."""
    if not hasattr(model, "config"):
        raise InvalidInput(f"{model!r} is no model of transformers; load it, and give the model itself")
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    layers: list[Any] = DynamicCache(config=model.config).layers
    if not layers or not all(type(layer) in plain for layer in layers):
        kinds = sorted({type(layer).__name__ for layer in layers if type(layer) not in plain})
        raise InvalidInput(
            f"{type(model).__name__} has no standard cache ({', '.join(kinds) or 'no layers'}); a budget needs full or "
            "sliding attention in every layer, no state-space, recurrent, shared or latent ones"
        )
    return [layer.sliding_window if layer.is_sliding else None for layer in layers]
