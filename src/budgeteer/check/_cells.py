"""The rules of scores, splits and rests of a KV cache; needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise
from typing import Any

from budgeteer.cache.protocol import Asked, Cells, Codec, Groups, Leaving, Place, Rest, Score, Split
from budgeteer.check._common import CheckFailed
from budgeteer.core import registry
from budgeteer.core.errors import MissingExtra

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise MissingExtra("torch", "hf") from error

ROWS, HEADS, KV_HEADS, TOKENS, WIDTH, MODEL, LAYERS = 3, 4, 2, 40, 8, 12, 4
PADDED = 6
"""Tokens of padding before the first row's first entry."""


def check_score(score: Score, *, seed: int = 0) -> None:
    """Score made-up entries of a cache, and raise :class:`CheckFailed` at the first broken rule.

    Rules: a score gives one finite number an entry, [B, K, n], in half precision too; the same entries get the same
    scores; a row's scores do not depend on other rows, an entry's not on what stands where no entry is; what was given
    is not changed; ``observe`` gives a memory of [B, K, n, remembers] float32 and is there where something is
    remembered; ``precision`` gives one number of 0 or more a row, the same for a row alone; what is protected,
    ``window``, ``every``, ``depth`` and ``earlier`` are in range; ``split`` and ``rest`` name methods of the registry.

    Args:
        score: the score to check.
        seed: of the entries.
    """
    if not isinstance(score, Score):
        raise CheckFailed(f"the factory made {score!r}, no Score")
    if min(score.first, score.recent, score.every) < 0 or not 0 <= score.recent_share <= 1:
        raise CheckFailed("first, recent and every are 0 or more, and recent_share is a share from 0 to 1")
    if score.window is not None and score.window < 1:
        raise CheckFailed(f"Score.window is {score.window}; give the number of queries to see, or None for the call's")
    if (score.observe is None) != (score.remembers == 0):
        raise CheckFailed("a score with observe remembers 1 number an entry or more, one without remembers none")
    choices = [(0.0, 1.0), *score.earlier, (1.0 if score.depth is None else score.depth, 0.0)]
    rise = all(low < high and more > fewer for (low, more), (high, fewer) in pairwise(choices))
    if not rise or (score.depth is None and score.earlier) or score.depth == 1:
        raise CheckFailed("depth is above 0 and below 1; layers of earlier rise to it, and their tokens fall")
    if not isinstance(registry.part_of("split", score.split), Split):
        raise CheckFailed(f"Score.split is {score.split!r}, which makes no Split")
    if not isinstance(registry.part_of("rest", score.rest), Rest):
        raise CheckFailed(f"Score.rest is {score.rest!r}, which makes no Rest")
    cells = _cells(seed, TOKENS if score.window is None else min(score.window, TOKENS))
    whole = _scored(score, cells)
    if not torch.equal(whole, _scored(score, cells)):
        raise CheckFailed("the same entries got other scores; draw from Cells.seed only, and keep no state")
    for row in range(ROWS):
        alone = _scored(score, _rows(cells, slice(row, row + 1)))
        if not torch.allclose(alone, whole[row : row + 1], atol=1e-5, rtol=1e-4):
            raise CheckFailed(
                "the scores of a row change with the other rows; reduce over heads, queries and entries only"
            )
    spoiled = {name: getattr(cells, name).masked_fill(~cells.valid[..., None], 7.0) for name in ("keys", "values")}
    if not torch.allclose(_scored(score, replace(cells, **spoiled)), whole, atol=1e-5, rtol=1e-4):
        raise CheckFailed("scores change with keys or values where no entry is; look at Cells.valid")
    half = {name: getattr(cells, name).bfloat16() for name in ("keys", "values", "queries")}
    _scored(score, replace(cells, **half))
    if score.precision is not None:
        _check_precision(score.precision, cells)


def _check_precision(precision: Callable[[Cells], Tensor], cells: Cells) -> None:
    given = [getattr(cells, f.name) for f in fields(cells) if isinstance(getattr(cells, f.name), Tensor)]
    whole = _unchanged(lambda: precision(cells), given, "precision")
    if whole.shape != (ROWS,) or not bool(torch.isfinite(whole).all()) or bool((whole < 0).any()):
        raise CheckFailed("precision is one finite number of 0 or more a row")
    for row in range(ROWS):
        alone = precision(_rows(cells, slice(row, row + 1)))
        if not torch.allclose(alone, whole[row : row + 1], rtol=1e-4):
            raise CheckFailed("the precision of a row changes with the other rows")


def check_split(split: Split, *, seed: int = 0) -> None:
    """Split made-up budgets over heads, and raise :class:`CheckFailed` at the first broken rule.

    Rules: sizes are whole numbers, [B, K] for each layer that was given; a head keeps all that it must and no more than
    it has; a row keeps no more than its budget, summed over the layers; the same scores give the same sizes; rows do
    not depend on each other; the scores are not changed.

    Args:
        split: the split to check.
        seed: of the scores.
    """
    if not isinstance(split, Split):
        raise CheckFailed(f"the factory made {split!r}, no Split")
    for sizes in ((8, 20, 33), (2, 2, 40), (5, 5, 5)):
        groups = _groups(seed, sizes)
        whole = _sizes(split, groups)
        if not all(torch.equal(a, b) for a, b in zip(whole, _sizes(split, groups), strict=True)):
            raise CheckFailed("the same scores gave other sizes; a split keeps no state and draws nothing")
        for row in range(ROWS):
            only = slice(row, row + 1)
            alone = _sizes(
                split,
                groups._replace(
                    scores=tuple(scores[only] for scores in groups.scores),
                    size=tuple(size[only] for size in groups.size),
                    tokens=tuple(tokens[only] for tokens in groups.tokens),
                ),
            )
            if not all(torch.equal(a, b[only]) for a, b in zip(alone, whole, strict=True)):
                raise CheckFailed("the sizes of a row change with the other rows")


def check_rest(rest: Rest, *, seed: int = 0) -> None:
    """Let made-up entries of a cache leave, and raise :class:`CheckFailed` at the first broken rule.

    Rules: keys and values come back with their shape and type, finite where an entry is kept, in half precision too;
    where nothing leaves nothing changes; the same entries give the same result; a row's result does not depend on other
    rows, nor on what stands where no entry is; what was given is not changed. A codec gives finite numbers of the
    right shape back, the same for a head alone, in the bytes that it names and fewer than those of the entries.
    A codec that is ``fitted`` to shares does so, too, in no more bytes than the shares on the mean over the layers.
    ``renew`` gives [B, K] of bool, by row.

    Args:
        rest: what becomes of the entries.
        seed: of the entries.
    """
    if not isinstance(rest, Rest):
        raise CheckFailed(f"the factory made {rest!r}, no Rest")
    if sum(way is not None for way in (rest.fold, rest.codec, rest.fitted, rest.renew)) > 1:
        raise CheckFailed("more than one of fold, codec, fitted and renew; an entry has one fate")
    if rest.codec is not None:
        _check_codec(rest.codec, seed)
    if rest.fitted is not None:
        _check_fitted(rest.fitted, seed)
    if rest.renew is not None:
        _check_renew(rest.renew, seed)
    if rest.fold is None:
        return
    leaving = _leaving(seed)
    whole = _folded(rest, leaving)
    if not _same(whole, _folded(rest, leaving), 0.0):
        raise CheckFailed("the same entries gave another result; a rest keeps no state and draws nothing")
    for row in range(ROWS):
        one = slice(row, row + 1)
        alone = _folded(rest, _rows(leaving, one))
        if not _same(alone, tuple(column[one] for column in whole), 1e-5):
            raise CheckFailed("the result of a row changes with the other rows")
    spoiled = {name: getattr(leaving, name).masked_fill(~leaving.valid[..., None], 7.0) for name in ("keys", "values")}
    if not _same(_folded(rest, replace(leaving, **spoiled)), whole, 1e-5):
        raise CheckFailed("the result changes with keys or values where no entry is; look at Leaving.valid")
    staying = replace(leaving, keep=leaving.valid)
    kept = tuple(torch.where(leaving.valid[..., None], each, 0) for each in (leaving.keys, leaving.values))
    if not _same(_folded(rest, staying), kept, 0.0):
        raise CheckFailed("nothing left, and kept entries changed")
    half = {name: getattr(leaving, name).bfloat16() for name in ("keys", "values")}
    _folded(rest, replace(leaving, **half))


def _check_codec(codec: Codec, seed: int) -> None:
    rng, lengths, width = torch.Generator().manual_seed(seed), (0, 150, 1, 80), 32
    keys, values = torch.randn(2, sum(lengths), width, generator=rng)
    slots = torch.cat([torch.arange(length) for length in lengths])
    frequencies = 0.3 ** torch.arange(width / 2)
    for pair in ((keys, values), (keys.bfloat16(), values.bfloat16())):
        place = Place(slots, torch.tensor(lengths), (width, width), frequencies)
        given = [*pair, slots]
        tensors = _unchanged(partial(codec.encode, *pair, place), given, "encode")
        read = codec.decode(tensors, place)
        if any(each.shape != keys.shape or not bool(torch.isfinite(each).all()) for each in read):
            raise CheckFailed("what was encoded does not come back in its shape, finite")
        entry, head = codec.cost(width, width)
        taken, most = sum(t.nbytes for t in tensors), sum(lengths) * entry + len(lengths) * head
        if taken > most or entry >= 2 * width * keys.element_size():
            raise CheckFailed(f"encode takes {taken} bytes, cost says {most} at most, and {entry} an entry")
        alone = Place(slots[: lengths[1]], torch.tensor([lengths[1]]), (width, width), frequencies)
        some = codec.decode(codec.encode(pair[0][: lengths[1]], pair[1][: lengths[1]], alone), alone)
        if not all(torch.allclose(a, b[: lengths[1]], atol=1e-4) for a, b in zip(some, read, strict=True)):
            raise CheckFailed("the entries of a head change with the other heads")


def _check_fitted(fitted: Callable[[int, Tensor], Codec], seed: int) -> None:
    rng, lengths = torch.Generator().manual_seed(seed), torch.full((ROWS * KV_HEADS,), TOKENS)
    keys, values = torch.randn(2, int(lengths.sum()), WIDTH, generator=rng)
    slots = torch.arange(TOKENS).repeat(len(lengths))
    place = Place(slots, lengths, (WIDTH, WIDTH), 0.3 ** torch.arange(WIDTH / 2))
    for share in (1.0, 0.5):
        taken, shares = 0, torch.full((ROWS,), share, dtype=torch.float64)
        for layer in range(LAYERS):
            codec = fitted(layer, shares)
            encode = partial(codec.encode, keys, values, place)
            tensors = _unchanged(encode, [keys, values, slots, shares], "encode")
            read = codec.decode(tensors, place)
            if any(each.shape != keys.shape or not bool(torch.isfinite(each).all()) for each in read):
                raise CheckFailed("what was encoded does not come back in its shape, finite")
            taken += sum(tensor.nbytes for tensor in tensors)
            one, alone = lengths[:KV_HEADS], int(lengths[:KV_HEADS].sum())
            first = Place(slots[:alone], one, place.widths, place.frequencies)
            theirs = fitted(layer, shares[:1])
            some = theirs.decode(theirs.encode(keys[:alone], values[:alone], first), first)
            if not all(torch.allclose(a, b[:alone], atol=1e-4) for a, b in zip(some, read, strict=True)):
                raise CheckFailed("the entries of a row change with the other rows")
        if taken > share * LAYERS * (keys.nbytes + values.nbytes):
            raise CheckFailed(f"a share of {share:.0%} of the bytes was given, and {taken} bytes are taken")


def _check_renew(renew: Callable[[Asked], Tensor], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    now, before = torch.randn(2, ROWS, HEADS, WIDTH, generator=rng)
    asked = Asked(now, before, torch.arange(1, 1 + ROWS * KV_HEADS).reshape(ROWS, KV_HEADS), 1)
    whole = _unchanged(lambda: renew(asked), [now, before, asked.steps], "renew")
    if whole.shape != (ROWS, KV_HEADS) or whole.dtype != torch.bool:
        raise CheckFailed(f"renew gave {tuple(whole.shape)} of {whole.dtype}; one bool a row and head")
    for row in range(ROWS):
        one = slice(row, row + 1)
        if not torch.equal(renew(Asked(now[one], before[one], asked.steps[one], 1)), whole[one]):
            raise CheckFailed("who chooses anew changes with the other rows")


def _leaving(seed: int) -> Leaving:
    """Entries of which every head keeps the first four, the last three and some between."""
    cells = _cells(seed, 1)
    drawn = torch.rand(cells.valid.shape, generator=torch.Generator().manual_seed(seed + 1))
    place = cells.valid.long().cumsum(-1)
    keep = cells.valid & ((drawn < 0.3) | (place <= 4) | (place > place[..., -1:] - 3))
    return Leaving(cells.keys, cells.values, cells.slots, cells.valid, keep, cells.frequencies)


def _folded(rest: Rest, leaving: Leaving) -> tuple[Tensor, Tensor]:
    """Keys and values of kept entries, 0 elsewhere."""
    assert rest.fold is not None
    fold = rest.fold
    given = [getattr(leaving, f.name) for f in fields(leaving)]
    found = _unchanged(lambda: fold(leaving), given, "the rest")
    columns = []
    for name, before, after in zip(("keys", "values"), (leaving.keys, leaving.values), found, strict=True):
        if after.shape != before.shape or after.dtype != before.dtype:
            raise CheckFailed(f"{name} came back as {tuple(after.shape)} of {after.dtype}; keep shape and type")
        if not bool(torch.isfinite(after[leaving.keep]).all()):
            raise CheckFailed(f"{name} of a kept entry are not finite")
        columns.append(torch.where(leaving.keep[..., None], after, 0))
    return columns[0], columns[1]


def _same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], tolerance: float) -> bool:
    return all(torch.allclose(a, b, atol=tolerance, rtol=tolerance) for a, b in zip(ours, theirs, strict=True))


def _cells(seed: int, queries: int) -> Cells:
    rng = torch.Generator().manual_seed(seed)
    valid = torch.ones(ROWS, TOKENS, dtype=torch.bool)
    valid[0, :PADDED] = False
    return Cells(
        keys=torch.randn(ROWS, KV_HEADS, TOKENS, WIDTH, generator=rng),
        values=torch.randn(ROWS, KV_HEADS, TOKENS, WIDTH, generator=rng),
        slots=torch.arange(TOKENS).expand(ROWS, KV_HEADS, -1),
        valid=valid[:, None].expand(-1, KV_HEADS, -1),
        queries=torch.randn(ROWS, HEADS, queries, WIDTH, generator=rng),
        query_slots=torch.arange(TOKENS - queries, TOKENS),
        query_valid=valid[:, TOKENS - queries :],
        scaling=WIDTH**-0.5,
        size=torch.full((ROWS,), TOKENS // 2),
        layer=1,
        layers=LAYERS,
        seed=seed,
        output=torch.randn(HEADS, WIDTH, MODEL, generator=rng),
        frequencies=0.3 ** torch.arange(WIDTH / 2),
        hidden=torch.randn(ROWS, queries, MODEL, generator=rng),
    )


def _rows(cells: Any, rows: slice) -> Any:
    """Some rows of :class:`Cells` or :class:`Leaving`; what has none stays."""
    without = ("query_slots", "output", "frequencies")
    tensors: dict[str, Any] = {f.name: getattr(cells, f.name) for f in fields(cells) if f.name not in without}
    some: dict[str, Any] = {name: value[rows] for name, value in tensors.items() if isinstance(value, Tensor)}
    return replace(cells, **some)


def _unchanged(function: Callable[[], Any], given: list[Tensor], what: str) -> Any:
    before = [tensor.clone() for tensor in given]
    result = function()
    if not all(torch.equal(a, b) for a, b in zip(before, given, strict=True)):
        raise CheckFailed(f"{what} changed what it was given; copy before writing")
    return result


def _scored(score: Score, cells: Cells) -> Tensor:
    given = [getattr(cells, f.name) for f in fields(cells) if isinstance(getattr(cells, f.name), Tensor)]
    shape = cells.valid.shape
    memory = torch.zeros(*shape, score.remembers)
    if score.observe is not None:
        observe = score.observe
        memory = _unchanged(lambda: observe(cells, memory), [*given, memory], "observe")
        if memory.shape != (*shape, score.remembers) or memory.dtype != torch.float32:
            raise CheckFailed(
                f"observe gave {tuple(memory.shape)} of {memory.dtype}; the memory is [B, K, n, remembers] of float32"
            )
    scores: Tensor = _unchanged(lambda: score.score(cells, memory), [*given, memory], "the score")
    if scores.shape != shape:
        raise CheckFailed(f"the score gave {tuple(scores.shape)} for entries of {tuple(shape)}; one number an entry")
    if not bool(torch.isfinite(scores[cells.valid]).all()):
        raise CheckFailed("a score is not finite; what is always kept is said by first, recent and recent_share")
    return torch.where(cells.valid, scores.double(), 0.0)


def _groups(seed: int, sizes: tuple[int, ...]) -> Groups:
    """Layers and heads that are unequally concentrated; the last two entries are protected, and a head lacks some."""
    rng, layers = torch.Generator().manual_seed(seed), []
    for layer in range(LAYERS):
        steep = torch.tensor([1.0, 4.0 + layer])[:, None]
        scores = torch.rand(ROWS, KV_HEADS, TOKENS, generator=rng) ** steep
        scores[1, 0, : 4 * layer] = float("-inf")
        scores[..., -2:] = float("inf")
        layers.append(scores)
    size, tokens = torch.tensor(sizes), torch.full((ROWS,), TOKENS)
    return Groups(tuple(layers), (size,) * LAYERS, (tokens,) * LAYERS, 0, LAYERS)


def _sizes(split: Split, groups: Groups) -> tuple[Tensor, ...]:
    """The sizes of all layers: asked for together, or one layer at a time."""
    asked = [groups]
    if not split.together:
        asked = [
            Groups((scores,), (size,), (tokens,), place, groups.layers)
            for place, (scores, size, tokens) in enumerate(zip(*groups[:3], strict=True))
        ]
    sizes_of_all: list[Tensor] = []
    for each in asked:
        given = [*each.scores, *each.size]
        sizes = _unchanged(lambda each=each: split.sizes(each), given, "the split")  # type: ignore[misc]
        if len(sizes) != len(each.scores):
            raise CheckFailed(f"the split gave sizes for {len(sizes)} layers, and {len(each.scores)} were asked for")
        sizes_of_all += sizes
    for scores, sizes in zip(groups.scores, sizes_of_all, strict=True):
        if sizes.shape != scores.shape[:2] or sizes.dtype != torch.int64:
            raise CheckFailed(
                f"sizes are {tuple(sizes.shape)} of {sizes.dtype}; one int64 a row and head, {tuple(scores.shape[:2])}"
            )
        must, has = (scores == float("inf")).sum(-1), (scores > float("-inf")).sum(-1)
        if bool((sizes < must).any()):
            raise CheckFailed("a head keeps fewer entries than are protected (+inf)")
        if bool((sizes > has).any()):
            raise CheckFailed("a head keeps more entries than it has (those above -inf)")
    kept = sum((sizes.sum(-1) for sizes in sizes_of_all[1:]), start=sizes_of_all[0].sum(-1))
    if bool((kept > groups.size[0] * KV_HEADS * LAYERS).any()):
        raise CheckFailed("a row keeps more than its budget: size x heads, summed over the layers")
    return tuple(sizes_of_all)
