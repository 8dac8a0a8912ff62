"""How entries lie in memory, against lists of what each head holds; which of them are kept, against sorting."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from budgeteer.cache import storage
from budgeteer.cache.selecting import selection
from budgeteer.cache.storage import Ragged, cells_of, kept
from helpers.cells import fields

ROWS, HEADS = 2, 2

Held = dict[tuple[int, int], list[tuple[int, list[float]]]]


def columns(rng: torch.Generator, count: int) -> dict[str, Tensor]:
    widths = {"keys": 3, "values": 2, "memory": 1}
    return {name: torch.randn(ROWS, HEADS, count, width, generator=rng) for name, width in widths.items()}


def listed(of: Ragged, seen: int) -> Held:
    """For each row and head the slot and all numbers of each entry, in order."""
    whole, slots = of.whole(), of.slots(seen)
    return {
        (row, head): [
            (slot, [*whole["keys"][row, head, i], *whole["values"][row, head, i], *whole["memory"][row, head, i]])
            for i, slot in enumerate(slots[row, head].tolist())
            if slot >= 0
        ]
        for row in range(ROWS)
        for head in range(HEADS)
    }


@pytest.mark.skipif(storage.kernels is None, reason="needs numba")
@settings(deadline=None)
@given(st.data())
def test_entries_that_are_dropped_for_new_ones_leave_the_others_as_they_were_in_the_same_memory(
    data: st.DataObject,
) -> None:
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    seen, since = 7, data.draw(st.integers(1, 4))
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, 7), min_size=4, max_size=4))).reshape(ROWS, HEADS)
    slots = torch.arange(seen).expand(ROWS, HEADS, seen)
    of = kept(columns(rng, seen), slots, torch.rand(ROWS, HEADS, seen, generator=rng).argsort(-1) < lengths[..., None])
    of.append(columns(rng, since))
    seen += since
    stay = data.draw(st.integers(0, since - 1))
    there = of.slots(seen) >= 0
    keep = there.clone()
    for row in range(ROWS):
        for head in range(HEADS):  # as many leave as came and do not stay behind
            places = there[row, head].nonzero()[:, 0]
            older = places[: len(places) - stay]
            keep[row, head, older[torch.randperm(len(older), generator=rng)[: since - stay]]] = False
    before, memory = listed(of, seen), {name: column.data_ptr() for name, column in of.flat.items()}

    assert of.close_up(keep, seen)

    flags = {(r, h): keep[r, h][there[r, h]].tolist() for r in range(ROWS) for h in range(HEADS)}
    assert listed(of, seen) == {
        at: [entry for entry, stays in zip(before[at], flags[at], strict=True) if stays] for at in before
    }
    assert {name: column.data_ptr() for name, column in of.flat.items()} == memory
    assert of.since == stay
    assert of.lengths.tolist() == lengths.tolist()


@pytest.mark.skipif(storage.kernels is None, reason="needs numba")
def test_heads_that_keep_fewer_than_they_had_or_unequally_many_more_need_new_memory() -> None:
    rng = torch.Generator().manual_seed(0)
    every = torch.ones(ROWS, HEADS, 5, dtype=torch.bool)
    slots = torch.arange(5).expand(ROWS, HEADS, 5)
    fewer, unequal, old = (torch.ones(ROWS, HEADS, 7, dtype=torch.bool) for _ in range(3))
    fewer[..., :3] = False
    unequal[0, 0, 0] = False
    old[..., -1] = False  # the newest one leaves, and the one before it would stay behind
    for keep in (fewer, unequal, old):
        of = kept(columns(rng, 5), slots, every)
        of.append(columns(rng, 2))
        before = listed(of, 7)
        assert not of.close_up(keep, 7)
        assert listed(of, 7) == before


@given(st.integers(0, 999))
def test_the_best_entries_are_kept_and_ties_are_won_by_the_earlier_one(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 5, (ROWS, HEADS, 9), generator=rng).float()
    scores = drawn.masked_fill(drawn == 0, float("-inf")).masked_fill(drawn == 4, float("inf"))
    sizes = torch.randint(0, 12, (ROWS, HEADS), generator=rng)
    keep = selection("recent").keep(scores, sizes)
    for row in range(ROWS):
        for head in range(HEADS):
            best = sorted(range(9), key=lambda i: (-float(scores[row, head, i]), i))[: int(sizes[row, head])]
            wanted = {i for i in best if scores[row, head, i] > float("-inf")}
            assert set(keep[row, head].nonzero()[:, 0].tolist()) == wanted


def test_keys_and_values_are_laid_side_by_side_when_somebody_looks_and_once() -> None:
    rng, looked = torch.Generator().manual_seed(0), []
    given = fields(rng, 6, 1, 0, 3)

    class Noted(Ragged):
        def column(self, name: str) -> Tensor | None:
            looked.append(name)
            return super().column(name)

    drawn = {name: given.pop(name) for name in ("keys", "values")}
    every = torch.ones(drawn["keys"].shape[:3], dtype=torch.bool)
    of = kept(drawn, given["slots"], every)
    of.__class__ = Noted
    cells = cells_of(of, **given)
    selection("recent").scores(cells, torch.empty(0))
    assert looked == []
    assert torch.equal(cells.keys, drawn["keys"])
    assert cells.keys is cells.keys
    assert looked == ["keys"]
    with pytest.raises(AttributeError, match="nothing"):
        cells.nothing  # noqa: B018  # type: ignore[attr-defined]
