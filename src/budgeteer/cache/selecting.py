"""A selection: score, split, what becomes of the rest, and when; read from ``NAME:option=value,split=NAME``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from budgeteer.cache.kit import behind
from budgeteer.cache.protocol import Cells, Rest, Score, Split
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.slots import options_and_slots
from budgeteer.core.spec import parse


class Selection(NamedTuple):
    """What a budgeted cache keeps, and what becomes of the rest.

    Attributes:
        name: as it was given, with every value and slot written in one way, so that equal selections have one name.
        score: how much each entry is worth, and when to choose.
        split: how many entries each layer and head keeps.
        rest: what becomes of the others.
    """

    name: str
    score: Score
    split: Split
    rest: Rest = Rest()

    @property
    def together(self) -> bool:
        """Whether all layers are read before any of them drops something."""
        return self.split.together or self.by_precision

    @property
    def by_precision(self) -> bool:
        """Whether layers differ in how much of them stays as it is."""
        return self.score.precision is not None and self.rest.codec is not None

    def protected(self, size: int) -> int:
        """What a head always keeps when heads keep ``size`` entries on the mean, and at least 1."""
        newest = max(self.score.recent, int(self.score.recent_share * size))
        return max(self.score.first + newest, 1)

    def scores(self, cells: Cells, memory: Tensor) -> Tensor:
        """[B, K, n] float32 or float64: -inf where no entry is, +inf for what is always kept.

        Raises:
            InvalidInput: the score has another shape, or is not finite where an entry is.
        """
        scores = self.score.score(cells, memory)
        if scores.shape != cells.valid.shape:
            raise InvalidInput(
                f"{self.name}: the score has shape {tuple(scores.shape)}, not {tuple(cells.valid.shape)}"
            )
        if not bool((scores.isfinite() | ~cells.valid).all()):
            raise InvalidInput(f"{self.name}: the score is not finite; is the model's attention?")
        ahead = cells.valid.long().cumsum(-1)
        age = ahead[:, :, -1:] - ahead
        newest = (cells.size * self.score.recent_share).long().clamp(min=self.score.recent)[:, None, None]
        always = cells.valid & ((age < newest) | ~behind(cells, self.score.first))
        return scores.masked_fill(~cells.valid, float("-inf")).masked_fill(always, float("inf"))

    def keep(self, scores: Tensor, sizes: Tensor) -> Tensor:
        """[B, K, n] bool: the ``sizes`` [B, K] best entries of each head; ties are won by the earlier one."""
        out = (scores.shape[-1] - sizes).clamp(min=0)
        lowest = scores.topk(min(int(out.max()) + 1, scores.shape[-1]), largest=False).values
        last = lowest.gather(-1, out.clamp(max=lowest.shape[-1] - 1)[:, :, None])  # that has a place
        above, level = scores > last, scores == last
        room = sizes[:, :, None] - above.sum(-1, keepdim=True)
        return (above | (level & (level.cumsum(-1) <= room))) & (scores > float("-inf"))

    def bands(self, scores: Tensor, sizes: Tensor, full: int, low: int, head: int) -> tuple[Tensor, Tensor]:
        """Two numbers of entries, [B, K] each: the best stay as they are, the next ones in fewer bits.

        Both take no more bytes than ``sizes`` entries as they are. As many stay as they are as the rest's share of the
        budget is, and what is protected; more, where all the others fit beside them in fewer bits.

        Args:
            scores: [B, K, n], with infinities as :meth:`scores` has them.
            sizes: [B, K] of the split.
            full, low: bytes of an entry as it is, and in fewer bits.
            head: bytes that a head takes beside its entries in fewer bits.
        """
        if low >= full:  # heads so narrow that steps outweigh what codes save
            return sizes, torch.zeros_like(sizes)
        has, must = (scores > float("-inf")).sum(-1), (scores == float("inf")).sum(-1)
        room = sizes * full
        first = (sizes * self.rest.full).long().maximum(must).minimum(sizes)
        next_ones = ((room - first * full - head) // low).clamp(min=0)
        all_stay = first + next_ones >= has
        most = ((room - head - low * has) // (full - low)).maximum(first)
        first = torch.where(sizes >= has, has, torch.where(all_stay, most, first))
        return first, next_ones.minimum(has - first)


def selection(method: str | Selection) -> Selection:
    """Read ``NAME``, ``NAME:option=value``, ``NAME:split=NAME``, or pass a Selection on.

    Raises:
        UnknownName: no score or split has this name, or it has no such option.
        InvalidInput: a value that an option does not take.

    >>> selection("snapkv:window=16,split=pyramid").score.window
    16
    >>> selection('knorm:split="ada-kv:safe=0.50"').name
    'knorm:split=ada-kv:safe=0.5'
    """
    if isinstance(method, Selection):
        return method
    if not isinstance(method, str):
        raise InvalidInput(f"a cache has no method {method!r}; write it as a text, such as 'snapkv:window=16'")
    spec = parse(method, "score")
    options, slots = options_and_slots(spec, "score")
    score: Score = registry.make("score", spec.name, **options)
    if min(score.first, score.recent, score.every) < 0:
        raise InvalidInput(
            f"{method}: it always keeps {score.first} first and {score.recent} newest entries, and chooses every "
            f"{score.every} tokens; none of these can be negative"
        )
    split, rest = (slots.get(part) or registry.part_of(part, getattr(score, part)) for part in ("split", "rest"))
    given = {slot: str(parse(str(spec.values[slot]), slot).plain()) for slot in slots}
    return Selection(str(spec.plain().given(**given)), score, split, rest)
