"""One layer of a budgeted cache: its entries, the mask of its attention, and what is kept after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from budgeteer.cache.known import Known
from budgeteer.cache.narrow import Going, stays
from budgeteer.cache.protocol import Asked, Cells, Codec, Leaving
from budgeteer.cache.selecting import Selection
from budgeteer.cache.storage import Columns, Ragged, Rectangle, Storage, cells_of, held, kept, kept_and_packed
from budgeteer.core.errors import InvalidInput


class Call(NamedTuple):
    """The queries of one call of the model, and what turns them into attention.

    Attributes:
        queries: [B, H, q, d].
        valid: [B, q]; False = padding.
        scaling, softcap: of the logits.
        output: function that gives [H, d of values, D] of the output projection, or None.
        hidden: [B, q, D], what the attention was given; None where it takes something else.
        sink: [H], learnt logits, as :class:`Cells` has them, or None.
        known: what other caches of the same prompt share, as :class:`Cells` has it, or None.
    """

    queries: Tensor
    valid: Tensor
    scaling: float
    softcap: float | None
    output: Callable[[], Tensor | None]
    hidden: Tensor | None = None
    sink: Tensor | None = None
    known: Known | None = None


class BudgetedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """The entries of one layer.

    Until something is dropped it holds what transformers' own layer would hold, and the model's own mask is used, so
    that attention is the same to the bit.

    Attributes:
        seen: tokens that went through the layer, padding included.
        tokens: [B], those that are no padding; None before the first call.
        intact: nothing was dropped but what a sliding window left behind.
        cold: all entries, in the memory of the CPU, where a method retrieves; ``storage`` then has the chosen ones.
        asked: with ``cold``: [B, H, d] queries that each head last chose for, and [B, K] how many tokens ago.
        computed: entries that it was given, of all rows and heads.
        precision: [B] of its last prompt, where the score has one (:attr:`.protocol.Score.precision`).
    """

    is_compileable = False
    is_croppable = False

    def __init__(self, index: int, layers: int, window: int | None, selected: Selection, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.index, self.layers, self.window, self.selected, self.seed = index, layers, window, selected, seed
        self.is_sliding = window is not None
        self.frequencies: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.storage: Storage | None = None
        self.seen, self.intact, self.is_initialized = 0, True, False
        self.tokens: Tensor | None = None
        self.watched: tuple[Tensor, Tensor] | None = None
        self.cold: Storage | None = None
        self.asked: tuple[Tensor, Tensor] | None = None
        self.precision: Tensor | None = None
        self.computed = 0

    # what transformers asks of a layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add the entries of a call.

        Returns:
            [B, K, n, d] of all that its queries may read, or, once something was dropped, of the new ones: the
            attention then takes the others from the storage.
        """
        new: Columns = {"keys": key_states, "values": value_states}
        if self.selected.score.remembers:
            shape = (*key_states.shape[:3], self.selected.score.remembers)
            new["memory"] = torch.zeros(shape, dtype=torch.float32, device=key_states.device)
        if self.storage is None:
            # a copy, since the values of some models are a part of a larger tensor
            self.storage = Rectangle({name: torch.cat([c[:, :, :0], c], dim=2) for name, c in new.items()})
            self.is_initialized = True
        else:
            if self.cold is not None:
                self._add_cold(new)
            self.storage.append(new)
        self.seen += key_states.shape[2]
        self.computed += key_states[..., 0].numel()
        return self.read() if self.intact else (key_states, value_states)

    def read(self) -> tuple[Tensor, Tensor]:
        """[B, K, n, d] keys and values of all entries."""
        assert self.storage is not None
        whole = self.storage.whole()
        return whole["keys"], whole["values"]

    def get_seq_length(self) -> int:
        """Tokens seen, so that the next one gets its true position, whatever was dropped."""
        return self.seen

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """Length and offset of the mask as if nothing had been dropped; :meth:`mask` takes the columns it needs."""
        asked = query_length if isinstance(query_length, int) else query_length.shape[0]  # before transformers 5
        if not asked:  # here, since the attention of a model fails on it before its cache is updated
            raise InvalidInput("the model was called with an empty text; give it a token or more")
        offset = 0 if self.window is None else max(self.seen - self.window + 1, 0)
        return self.seen - offset + asked, offset

    def get_max_length(self) -> int:
        return -1 if self.window is None else self.window

    get_max_cache_shape = get_max_length  # its name before transformers 5

    def _refused(self, what: str, *args: Any, **kwargs: Any) -> Any:
        raise InvalidInput(
            f"a budgeted cache cannot be {what}, since entries that were dropped do not come back; generate with "
            "num_beams=1 and without an assistant model or prompt lookup, or without a budget"
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._refused("reordered for beam search")

    def crop(self, *args: Any, **kwargs: Any) -> None:
        self._refused("cut back, as assisted decoding does")

    def activate_past_recording(self) -> None:
        self._refused("cut back, as assisted decoding does")

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._refused("repeated")

    def batch_select_indices(self, indices: Tensor) -> None:
        self._refused("taken apart by rows")

    # attention

    def mask(self, given: Tensor | None, asked: int, heads: int, additive: torch.dtype | None) -> Tensor | None:
        """The mask of a call's attention over the entries that are held.

        Args:
            given: the model's own mask, [B or 1, 1, q, length of :meth:`get_mask_sizes`]; None = everything is read.
            asked: q, the queries of the call, whose entries are already held.
            heads: H.
            additive: dtype of a mask that is added to logits, None for one of bool.

        Returns:
            [B, H, q, n], or None where every query reads every entry.
        """
        assert self.storage is not None
        slots = self.storage.slots(self.seen)
        old = slots[..., : slots.shape[-1] - asked]
        queries = torch.arange(self.seen - asked, self.seen, device=slots.device)
        allowed = (old >= 0)[:, :, None, :].expand(-1, -1, asked, -1)
        if self.window is not None:
            allowed = allowed & (queries[:, None] - old[:, :, None, :] < self.window)
        if given is None and asked == 1 and bool(allowed.all()):
            return None
        shape = (*slots.shape[:2], asked, asked)
        new = allowed.new_ones(asked, asked).tril() if given is None else readable(given)[..., -asked:]
        allowed = torch.cat([allowed, new.expand(shape)], dim=-1).repeat_interleave(heads // slots.shape[1], dim=1)
        if additive is None:
            return allowed
        least = torch.finfo(additive).min
        return torch.zeros(allowed.shape, dtype=additive, device=allowed.device).masked_fill(~allowed, least)

    # what is kept

    def count(self, valid: Tensor) -> Tensor:
        """Add a call's tokens, [B, q], and return the [B] tokens of each row so far."""
        before = 0 if self.tokens is None else self.tokens
        self.tokens = before + valid.sum(-1)
        return self.tokens

    def cells(self, call: Call, mask: Tensor | None, size: Tensor) -> Cells:
        """What a score sees after a call; the queries are those of the call."""
        storage = self.storage if self.cold is None else self.cold
        assert storage is not None
        slots, asked = storage.slots(self.seen), call.queries.shape[2]
        valid = slots >= 0
        if self.window is not None:
            valid &= slots > self.seen - self.window  # what the next token can read
        if mask is not None:
            known = readable(mask).any(dim=2)[:, 0].expand(slots.shape[0], -1)  # padding is read by nobody
            offset = self.seen - known.shape[-1]
            inside = (slots - offset).clamp(min=0)
            valid &= known.gather(1, inside.flatten(1)).reshape(slots.shape) | (slots < offset)
        return cells_of(
            storage,
            slots=slots,
            valid=valid,
            queries=call.queries,
            query_slots=torch.arange(self.seen - asked, self.seen, device=slots.device),
            query_valid=call.valid,
            scaling=call.scaling,
            size=size,
            layer=self.index,
            layers=self.layers,
            seed=self.seed,
            softcap=call.softcap,
            window=self.window,
            output=call.output(),
            frequencies=self.frequencies,
            sink=call.sink,
            hidden=call.hidden if self.selected.score.hidden else None,
            known=call.known,
        )

    def remember(self, cells: Cells) -> None:
        """Add what a call's queries read to the memory of the entries."""
        assert self.storage is not None
        if self.selected.score.hidden and cells.hidden is None:
            raise InvalidInput(
                f"{self.selected.name} looks at what the attention of a layer is given, and this model's attention "
                "takes no hidden_states; choose another method"
            )
        if self.selected.score.observe is not None:
            self.storage.replace("memory", self.selected.score.observe(cells, self.memory()))

    def clear(self) -> None:
        """Empty the memory of all entries."""
        if self.storage is not None:
            self.storage.replace("memory", torch.zeros_like(self.memory()))

    def forget(self, call: Call) -> None:
        """Drop the entries of a call, the newest ones, as if it had not been."""
        assert self.storage is not None
        assert self.tokens is not None
        asked = call.valid.shape[1]
        self.storage.forget(asked)
        self.computed -= call.queries.shape[0] * self.storage.heads()["keys"].shape[1] * asked
        self.seen, self.tokens = self.seen - asked, self.tokens - call.valid.sum(-1)

    def memory(self) -> Tensor:
        """[B, K, n, remembers] float32: what the score remembers of each entry; empty where it remembers nothing."""
        assert self.storage is not None
        column = self.storage.column("memory")
        return torch.empty(0) if column is None else column

    def watch(self, call: Call) -> Call:
        """The last queries that the score wants to see; held between calls only where it chooses while decoding."""
        window = self.selected.score.window
        if window is None:
            return call
        queries, valid = call.queries, call.valid
        if self.watched is not None:
            queries = torch.cat([self.watched[0], queries], dim=2)
            valid = torch.cat([self.watched[1], valid], dim=1)
        queries, valid = queries[:, :, -window:], valid[:, -window:]
        if self.selected.score.every and window > 1:
            self.watched = queries.clone(), valid.clone()
        return call._replace(queries=queries, valid=valid, known=None)

    def keep(self, keep: Tensor, valid: Tensor, low: Tensor | None = None, codec: Codec | None = None) -> None:
        """Hold the entries where ``keep`` [B, K, n] is True, and no others, which go where the method says.

        Args:
            keep: entries that stay as they are.
            valid: entries that are there.
            low: entries that stay in fewer bits.
            codec: of these.
        """
        assert self.storage is not None
        if bool(keep.all()):
            return
        fold = self.selected.rest.fold
        if low is None and fold is None and isinstance(self.storage, Ragged) and self.storage.close_up(keep, self.seen):
            return
        whole, slots, self.intact = self.storage.whole(), self.storage.slots(self.seen), False
        if low is not None and codec is not None:
            self.storage = kept_and_packed(whole, slots, keep, low, codec, self.frequencies)
            return
        if fold is not None:
            keys, values = fold(Leaving(whole["keys"], whole["values"], slots, valid, keep, self.frequencies))
            whole = {**whole, "keys": keys, "values": values}
        self.storage = kept(whole, slots, keep)

    def place(self, going: Going, tokens: Tensor | None) -> None:
        """After a call of which only some tokens came: give these their slots, and hold what is kept.

        Args:
            going: which tokens came, and what is kept.
            tokens: [B] of each row so far.
        """
        assert self.storage is not None
        whole, slots, count = self.storage.whole(), self.storage.slots(self.seen), going.places.shape[1]
        self.seen, self.tokens = going.kept.shape[1], tokens
        new = (going.places + self.seen - going.asked).where(going.valid, -1)
        slots = torch.cat([slots[..., :-count], new[:, None].expand(-1, slots.shape[1], -1)], dim=2)
        self.storage, self.intact = kept(whole, slots, stays(going.kept, slots)), False

    # cold memory

    def offload(self) -> None:
        """Move all entries to cold memory; nothing is chosen until a token is generated."""
        assert self.storage is not None
        whole, slots = self.storage.whole(), self.storage.slots(self.seen)
        self.storage = kept(whole, slots, torch.zeros_like(slots, dtype=torch.bool))
        self.cold, self.asked, self.intact = Rectangle({name: c.cpu() for name, c in whole.items()}), None, False

    def _add_cold(self, new: Columns) -> None:
        """Add what a call brought; of several tokens all entries are read, from where they came."""
        assert self.cold is not None
        if new["keys"].shape[2] == 1:
            self.cold.append({name: column.cpu() for name, column in new.items()})
        else:
            device = new["keys"].device
            self.storage = Rectangle({name: column.to(device) for name, column in self.cold.whole().items()})
            self.cold, self.asked, self.intact = None, None, True

    def renewed(self, call: Call) -> Tensor:
        """[B, K]: the heads that choose anew for the query of a call."""
        assert self.cold is not None
        assert self.selected.rest.renew is not None
        query = call.queries[:, :, 0]
        rows, heads = self.cold.heads()["keys"].shape[:2]
        if self.asked is None:
            self.asked = query.clone(), torch.zeros(rows, heads, dtype=torch.long, device=query.device)
            return torch.ones(rows, heads, dtype=torch.bool, device=query.device)
        before, steps = self.asked[0], self.asked[1] + 1
        new = self.selected.rest.renew(Asked(query, before, steps, self.index))
        each = new.repeat_interleave(query.shape[1] // heads, dim=1)
        self.asked = torch.where(each[..., None], query, before), steps.masked_fill(new, 0)
        return new

    def retrieve(self, keep: Tensor, new: Tensor) -> None:
        """Hold the entries of ``keep`` [B, K, n] in heads that are ``new`` [B, K], in others those held before."""
        assert self.cold is not None
        assert self.storage is not None
        device, chosen = new.device, torch.where(new.cpu()[..., None], keep, self.read_slots())
        whole, slots = self.cold.whole(), self.cold.slots(self.seen)
        hot = kept({name: column[:, :, :-1] for name, column in whole.items()}, slots[..., :-1], chosen[..., :-1])
        hot = Ragged(
            {name: c.to(device) for name, c in hot.flat.items()}, hot.chosen.to(device), hot.lengths.to(device)
        )
        hot.append({name: column[:, :, -1:].to(device) for name, column in whole.items()})
        self.storage = hot

    def slide(self) -> bool:
        """Drop what a sliding window has left behind; whether there was any."""
        if self.window is None or self.storage is None:
            return False
        if self.intact:
            if self.storage.since < self.window:
                return False
            last = {name: column[:, :, 1 - self.window :].clone() for name, column in self.storage.heads().items()}
            self.storage = Rectangle(last)
            return True
        slots = self.storage.slots(self.seen)
        inside = slots > self.seen - self.window
        if bool((inside == (slots >= 0)).all()):
            return False
        if not (isinstance(self.storage, Ragged) and self.storage.close_up(inside, self.seen)):
            self.storage = kept(self.storage.whole(), slots, inside)
        return True

    def bytes(self) -> int:
        """Bytes that are held between calls."""
        return held([*(self.storage.tensors() if self.storage else ()), *(self.watched or ())])

    def entries(self) -> int:
        """Entries that are held, of all rows and heads."""
        return 0 if self.storage is None else int((self.storage.slots(self.seen) >= 0).sum())

    def read_slots(self) -> Tensor:
        """[B, K, seen] bool, on the CPU: the slots whose entries ``storage`` holds."""
        assert self.storage is not None
        slots = self.storage.slots(self.seen).cpu()
        found = torch.zeros(*slots.shape[:2], self.seen + 1, dtype=torch.bool)
        return found.scatter_(2, slots.where(slots >= 0, self.seen), True)[..., : self.seen]

    def cold_bytes(self) -> int:
        """Bytes of what lies in cold memory."""
        return 0 if self.cold is None else self.cold.bytes()

    def packed(self) -> int:
        """Entries that are held in fewer bits."""
        return int(self.storage.packed.low.sum()) if isinstance(self.storage, Ragged) and self.storage.packed else 0


def readable(mask: Tensor) -> Tensor:
    """A mask of bool, or one that is added to logits, as bool."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
