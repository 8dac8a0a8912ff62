"""What a score, a split and a rest of a KV cache are, and what they see.

Shapes: B rows (sequences), H query heads, K key-value heads, n entries of a head, q queries, d width of a head. A
*slot* is the index of a token in its row, padding included. Query head h reads key-value head h // (H / K).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.cache.known import Known


@dataclass(frozen=True, slots=True)
class Cells:
    """The entries of one layer, after its attention, and the queries that read them.

    Attributes:
        keys: [B, K, n, d], rotated to their true positions, in the order of their slots.
        values: [B, K, n, d of values].
        slots: [B, K, n] int64.
        valid: [B, K, n]; False = no entry stands there (padding of the prompt, or of a head with fewer entries).
        queries: [B, H, q, d], rotated: those of the call, or the last :attr:`Score.window`.
        query_slots: [q] int64.
        query_valid: [B, q]; False = padding.
        scaling: factor of the products of queries and keys.
        size: [B] int64, how many entries a head of this layer will keep on the mean.
        layer, layers: index of the layer, and how many there are.
        seed: of random choices.
        softcap: cap of the logits, or None.
        window: of a sliding layer: a query reads this many slots, its own included; None = all.
        output: [H, d of values, D], the part of each head in the layer's output projection; None = unknown.
        frequencies: [r / 2] of the rotation of keys and queries: a pair (i, i + r / 2) turns by position x frequency;
            None = unknown, or not of this kind.
        sink: [H], a learnt logit of each head that every softmax has beside those of the entries; None = it has none.
        hidden: [B, m, D], what the attention of the call was given, of its m newest tokens; None unless
            :attr:`Score.hidden`, and in layers that are asked again later.
        known: sums over all of these queries that other caches of the same prompt share (:func:`.kit.summed`); None =
            nothing is shared.
    """

    keys: Tensor
    values: Tensor
    slots: Tensor
    valid: Tensor
    queries: Tensor
    query_slots: Tensor
    query_valid: Tensor
    scaling: float
    size: Tensor
    layer: int
    layers: int
    seed: int = 0
    softcap: float | None = None
    window: int | None = None
    output: Tensor | None = None
    frequencies: Tensor | None = None
    sink: Tensor | None = None
    hidden: Tensor | None = None
    known: Known | None = None


class Score(NamedTuple):
    """How much each entry is worth, with what it has to remember of earlier calls.

    Attributes:
        score: ``(cells, memory) -> [B, K, n]``, finite; the highest are kept. What it says where ``valid`` is False
            does not matter. Pure; a row's scores do not depend on the other rows.
        observe: ``(cells, memory) -> memory``, [B, K, n, remembers] float32, zero for new entries: what a call adds to
            the statistics of the entries, asked after every call. None = nothing is remembered.
        remembers: numbers an entry that ``observe`` keeps; they count as memory of the cache.
        window: ``score`` sees the last so many queries; None = all those of the call.
        first: so many entries at a row's beginning are always kept (attention sinks).
        recent: so many of the newest entries are always kept.
        recent_share: the newest entries that are always kept, as a share of what a head keeps.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
        split: name of the split that the method's paper has.
        rest: name of what becomes of the rest in the method's paper.
        replays: a prompt is read a second time before the choice, and ``observe`` sees that reading alone; what it says
            of the second reading's own entries is dropped with them.
        reads: with ``replays``, tokens of another text that is read instead, from an empty memory each time; none = the
            prompt.
        rotation: it uses ``Cells.frequencies``; a model without them is refused before anything is computed.
        hidden: ``observe`` uses ``Cells.hidden``.
        depth: share of the layers that read all of a prompt. The last of these chooses for all layers, and behind it
            only what is kept goes on; such a score is the same for all heads. None = every layer reads everything.
        earlier: with ``depth``, choices before the last one: (share of the layers, share of a row's tokens that go on
            behind these layers), both above 0, below 1; layers rise and tokens fall.
        precision: ``(cells) -> [B]``, >= 0, asked after prompts: with a rest that holds entries in fewer bits, how much
            of a layer should stay as it is, against the other layers (:func:`.outcome.states`). All layers are then
            held until the last one was read. None = the same share of each layer, :attr:`Rest.full`.
        fingerprint: of the model that it was trained on (:func:`budgeteer.core.steer.fingerprint_of`); a cache of
            another one is refused. Empty = it is for any model.
    """

    score: Callable[[Cells, Tensor], Tensor]
    observe: Callable[[Cells, Tensor], Tensor] | None = None
    remembers: int = 0
    window: int | None = None
    first: int = 0
    recent: int = 0
    recent_share: float = 0.0
    every: int = 0
    split: str = "uniform"
    rest: str = "drop"
    replays: bool = False
    reads: tuple[int, ...] = ()
    rotation: bool = False
    hidden: bool = False
    depth: float | None = None
    earlier: tuple[tuple[float, float], ...] = ()
    precision: Callable[[Cells], Tensor] | None = None
    fingerprint: str = ""


class Groups(NamedTuple):
    """What a split divides: the entries of one layer, or of all of them.

    Attributes:
        scores: for each layer [B, K, n]: -inf = no entry, +inf = always kept.
        size: for each layer [B] int64: entries that a head of it would keep if all kept equally many.
        tokens: for each layer [B] int64: entries that a head of it would have if nothing had ever been dropped.
        layer: index of the first of these layers among those of its kind: all that read everything, or all that slide.
        layers: how many layers of that kind the model has.
    """

    scores: tuple[Tensor, ...]
    size: tuple[Tensor, ...]
    tokens: tuple[Tensor, ...]
    layer: int
    layers: int


class Split(NamedTuple):
    """How many entries each layer and head keeps.

    Attributes:
        sizes: ``(groups) -> for each layer [B, K] int64``. No head keeps fewer than it must (+inf) or more than it has,
        and a row keeps no more than its size times the heads, summed over the layers. Pure; rows are independent.
        together: False = asked for one layer at a time, as soon as it was read; True = once for all layers, at the end
            of the call. Until then all of them are held.
        fingerprint: of the model that it was measured on, as :class:`Score` has it. Empty = it is for any model.
    """

    sizes: Callable[[Groups], tuple[Tensor, ...]]
    together: bool = False
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Leaving:
    """The entries of one layer when some of them leave.

    Attributes:
        keys, values: [B, K, n, d] and [B, K, n, d of values], as :class:`Cells` has them.
        slots: [B, K, n] int64.
        valid: [B, K, n]; False = no entry stands there.
        keep: [B, K, n]; True = the entry stays.
        frequencies: of the rotation of keys, as :class:`Cells` has them, or None.
    """

    keys: Tensor
    values: Tensor
    slots: Tensor
    valid: Tensor
    keep: Tensor
    frequencies: Tensor | None = None


class Place(NamedTuple):
    """Where entries stand that are held in fewer bits: those of all heads one behind the other.

    Attributes:
        slots: [N] int64.
        lengths: [heads of all rows] int64, which sum to N.
        widths: d of keys, and d of values.
        frequencies: of the rotation of keys, as :class:`Cells` has them, or None.
    """

    slots: Tensor
    lengths: Tensor
    widths: tuple[int, int]
    frequencies: Tensor | None


class Codec(NamedTuple):
    """How entries are held in fewer bits.

    Attributes:
        encode: ``(keys, values, place) -> tensors``, of [N, d] and [N, d of values]: all that is held of them. Pure;
            heads are independent.
        decode: ``(tensors, place) -> (keys, values)`` float32, nearly what was encoded.
        cost: ``(d, d of values) -> (bytes of an entry, bytes of a head beside)``: the most that ``encode`` takes.
        linear: (bits, group) where the tensors are those of ``quantise``: the compiled attention of one query then
            reads them where they lie.
    """

    encode: Callable[[Tensor, Tensor, Place], tuple[Tensor, ...]]
    decode: Callable[[tuple[Tensor, ...], Place], tuple[Tensor, Tensor]]
    cost: Callable[[int, int], tuple[int, int]]
    linear: tuple[int, int] | None = None


class Asked(NamedTuple):
    """A token that is generated, before its attention, in a layer whose entries lie in cold memory.

    Attributes:
        queries: [B, H, d], of this token.
        before: [B, H, d], of the token that each head last chose for.
        steps: [B, K] int64, how many tokens ago that was, >= 1.
        layer: its index.
    """

    queries: Tensor
    before: Tensor
    steps: Tensor
    layer: int


class Rest(NamedTuple):
    """What becomes of the entries that are not kept. At most one of fold, codec, fitted and renew is given.

    Attributes:
        fold: ``(leaving) -> (keys, values)``, of which the kept entries stay, with what they took in. Pure; rows are
            independent. None = the rest is dropped.
        rotation: it uses ``Leaving.frequencies``; a model without them is refused before anything is computed.
        codec: the next best entries stay in fewer bits. A budget is then what it would be in bytes without them.
        full: with ``codec``, the least share of the budget that is for entries as they are.
        fitted: ``(layer, share) -> codec``: all entries but the protected ones stay in this codec, which takes no more
            than a share [B] of the bytes of keys and values in each row, on the mean over the layers.
        renew: ``(asked) -> [B, K]`` bool. All entries stay, in cold memory; after a prompt each generated token reads
            those that were chosen, and the heads that ``renew`` names choose anew, by its query, before its attention.
        fingerprint: of the model that it was trained on, as :class:`Score` has it. Empty = it is for any model.
    """

    fold: Callable[[Leaving], tuple[Tensor, Tensor]] | None = None
    rotation: bool = False
    codec: Codec | None = None
    full: float = 0.0
    fitted: Callable[[int, Tensor], Codec] | None = None
    renew: Callable[[Asked], Tensor] | None = None
    fingerprint: str = ""
