"""Checks of scores, splits and rests of a KV cache: each rule against one that breaks it."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from budgeteer.cache import Rest, Score, Split
from budgeteer.cache.protocol import Codec
from budgeteer.check import CheckFailed, check_rest, check_score, check_split

RNG = torch.Generator().manual_seed(0)


def norm(cells, memory):
    return -cells.keys.float().square().sum(-1)


def spoiling(cells, memory):
    cells.values.zero_()
    return norm(cells, memory)


def overflowing(cells, memory):
    """Finite in single precision, not in half."""
    return norm(cells, memory) if cells.keys.dtype == torch.float32 else norm(cells, memory) / 0


def adding_in_place(cells, memory):
    return memory.add_(1.0)


SCORES = {
    "no Score": norm,
    "0 or more": Score(norm, recent=-1),
    "share from 0 to 1": Score(norm, recent_share=1.5),
    "number of queries to see": Score(norm, window=0),
    "remembers 1 number": Score(norm, remembers=2),
    "without remembers none": Score(norm, lambda cells, memory: memory),
    "split": Score(norm, split="nobody"),
    "rest": Score(norm, rest="nobody"),
    "one number an entry": Score(lambda cells, memory: norm(cells, memory)[:, :1]),
    "not finite": Score(lambda cells, memory: norm(cells, memory) / 0),
    "is not finite": Score(overflowing),
    "keep no state": Score(lambda cells, memory: norm(cells, memory) + torch.rand(1, generator=RNG)),
    "with the other rows": Score(lambda cells, memory: norm(cells, memory) / norm(cells, memory).sum()),
    "where no entry is": Score(lambda cells, memory: norm(cells, memory) - norm(cells, memory).mean(-1, keepdim=True)),
    "the score changed": Score(spoiling),
    "observe changed": Score(norm, adding_in_place, remembers=1),
    "of float32": Score(norm, lambda cells, memory: memory.double(), remembers=1),
    r"observe gave \(3, 2, 40\)": Score(norm, lambda cells, memory: memory[..., 0], remembers=1),
    "depth is above 0 and below 1": Score(norm, depth=1.0),
    "layers of earlier rise to it": Score(norm, depth=0.4, earlier=((0.5, 0.5),)),
    "and their tokens fall": Score(norm, depth=0.4, earlier=((0.1, 0.5), (0.2, 0.6))),
    "of 0 or more a row": Score(norm, precision=lambda cells: -cells.keys.square().sum((1, 2, 3))),
    "precision is one finite number": Score(norm, precision=lambda cells: cells.keys.square().sum((2, 3))),
    "the precision of a row changes": Score(
        norm, precision=lambda cells: cells.keys.square().mean().expand(len(cells.keys))
    ),
    "precision changed": Score(norm, precision=lambda cells: cells.keys.abs_().sum((1, 2, 3))),
}


@pytest.mark.parametrize("rule", SCORES)
def test_check_score_rejects_what_breaks_the_rule(rule: str) -> None:
    with pytest.raises((CheckFailed, LookupError), match=rule):
        check_score(SCORES[rule])


def given(change=lambda sizes: sizes):
    """A split of equal sizes, changed."""

    def sizes(groups):
        return tuple(
            change((scores > float("-inf")).sum(-1).minimum(size[:, None]))
            for scores, size in zip(groups.scores, groups.size, strict=True)
        )

    return Split(sizes)


def erasing(groups):
    groups.scores[0].fill_(0.0)
    return tuple((scores == float("inf")).sum(-1) for scores in groups.scores)


SPLITS = {
    "no Split": erasing,
    "sizes for 0 layers": Split(lambda groups: ()),
    "one int64": given(lambda sizes: sizes.double()),
    "fewer entries than are protected": given(lambda sizes: sizes * 0),
    "more entries than it has": given(lambda sizes: sizes + 40),
    "more than its budget": given(lambda sizes: sizes + (sizes < 30).long()),
    "keeps no state": given(lambda sizes: sizes - torch.randint(0, 2, (1,), generator=RNG) * (sizes > 3)),
    "with the other rows": given(lambda sizes: sizes - (len(sizes) > 1) * (sizes > 3).long()),
    "the split changed": Split(erasing),
}


@pytest.mark.parametrize("rule", SPLITS)
def test_check_split_rejects_what_breaks_the_rule(rule: str) -> None:
    with pytest.raises(CheckFailed, match=rule):
        check_split(SPLITS[rule])


def folded(change):
    """A rest that adds to the values of kept entries what it makes of those that leave."""

    def fold(leaving):
        gone = (leaving.valid & ~leaving.keep)[..., None]
        return leaving.keys, leaving.values + change(leaving, leaving.values * gone)

    return Rest(fold)


def zeroing(leaving):
    leaving.values.zero_()
    return leaving.keys, leaving.values


def codec(**changed):
    """Half precision."""
    return Codec(
        **{
            "encode": lambda keys, values, place: (keys.half(), values.half()),
            "decode": lambda tensors, place: tuple(each.float() for each in tensors),
            "cost": lambda d, e: (2 * (d + e), 0),
            **changed,
        }
    )


RESTS = {
    "no Rest": zeroing,
    "keep shape and type": Rest(lambda leaving: (leaving.keys[..., :1], leaving.values)),
    "keys came back": Rest(lambda leaving: (leaving.keys.double(), leaving.values)),
    "values of a kept entry are not finite": Rest(lambda leaving: (leaving.keys, leaving.values / 0)),
    "keeps no state": folded(lambda leaving, gone: torch.rand(1, generator=RNG)),
    "with the other rows": folded(lambda leaving, gone: gone.mean()),
    "where no entry is": folded(lambda leaving, gone: leaving.values.mean(2, keepdim=True) * gone.any(2, keepdim=True)),
    "nothing left": folded(lambda leaving, gone: 1.0),
    "the rest changed": Rest(zeroing),
    "more than one": Rest(zeroing, codec=codec()),
    "does not come back": Rest(codec=codec(decode=lambda tensors, place: (tensors[0][1:], tensors[1]))),
    "cost says": Rest(codec=codec(cost=lambda d, e: (d + e, 0))),
    "and 256 an entry": Rest(codec=codec(cost=lambda d, e: (4 * (d + e), 0))),
    "change with the other heads": Rest(
        codec=codec(encode=lambda keys, values, place: ((keys - keys.float().mean(0)).half(), values.half()))
    ),
    "one bool a row and head": Rest(renew=lambda asked: asked.steps),
    "who chooses anew changes": Rest(renew=lambda asked: asked.steps >= asked.steps.max()),
}


@pytest.mark.parametrize("rule", RESTS)
def test_check_rest_rejects_what_breaks_the_rule(rule: str) -> None:
    with pytest.raises(CheckFailed, match=rule):
        check_rest(RESTS[rule])


def test_check_rest_accepts_a_mean_and_nothing() -> None:
    check_rest(Rest())
    check_rest(folded(lambda leaving, gone: gone.mean(2, keepdim=True)))
    check_rest(Rest(codec=codec()))
    check_rest(Rest(renew=lambda asked: asked.steps > 2))


def fitted(**changed):
    """Half precision where half of the bytes are given, whatever the share is."""

    def made(layer, shares):
        fine = codec()
        return fine._replace(**{name: change(fine) for name, change in changed.items()})

    return Rest(fitted=made)


FITTED = {
    "more than one of fold": fitted()._replace(codec=codec()),
    "in its shape": fitted(decode=lambda fine: lambda tensors, place: tuple(t[:1].float() for t in tensors)),
    "and .* bytes are taken": fitted(encode=lambda fine: lambda keys, values, place: (keys.clone(), values.clone())),
    "with the other rows": fitted(
        decode=lambda fine: lambda tensors, place: tuple(t.float() * len(place.lengths) for t in tensors)
    ),
}


@pytest.mark.parametrize("rule", FITTED)
def test_check_rest_rejects_what_is_fitted_and_breaks_the_rule(rule: str) -> None:
    check_rest(fitted())
    with pytest.raises(CheckFailed, match=rule):
        check_rest(FITTED[rule])
