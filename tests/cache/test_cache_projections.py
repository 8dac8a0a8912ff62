"""Entries in fewer numbers: projections by numbers, ranks of a budget, what is held, and training on a small model."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache, Selection, selection
from budgeteer.cache.projections import Projections, evenly, projections_of, save_projections
from budgeteer.cache.protocol import Place
from budgeteer.cache.rest import matryoshka
from budgeteer.core.errors import CheckpointError, InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
LAYERS, KV_HEADS, WIDTH, STEPS = 3, 2, 8, 4
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": KV_HEADS, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def model(**changes):
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **changes})).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return made


def ids(tokens: int = 60, rows: int = 2, seed: int = 0):
    return torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def projections(seed: int = 0, cuts=None) -> Projections:
    rng = torch.Generator().manual_seed(seed)
    shape = (2, LAYERS, KV_HEADS, WIDTH)
    basis = torch.linalg.qr(torch.randn(*shape, WIDTH, generator=rng)).Q
    units = 2 * LAYERS * KV_HEADS
    return Projections(basis, torch.randn(shape, generator=rng), evenly(units, STEPS) if cuts is None else cuts, STEPS)


def projecting(given: Projections) -> Selection:
    """A method that holds all entries in these projections."""
    return selection("recent:every=0")._replace(rest=matryoshka(given))


def test_ranks_are_what_the_first_cuts_leave() -> None:
    cuts = torch.tensor([0, 0, 11, 0, 5, 11])  # the keys of layer 0, head 0; the values of layer 2, head 1; ...
    given = projections(cuts=cuts)
    assert torch.equal(given.ranks(1.0), torch.full((2, LAYERS, KV_HEADS), 8))
    ranks = given.ranks(1 - 4 / 48)  # four cuts of twelve heads with four steps of two numbers
    assert ranks[0, 0].tolist() == [2, 8]
    assert ranks[1, 2].tolist() == [8, 6]
    assert int(ranks.sum()) == 12 * 8 - 4 * 2
    assert torch.equal(given.ranks(0.91), given.ranks(1 - 5 / 48))  # 4.32 cuts: never more than the share
    with pytest.raises(InvalidInput, match=r"reach 87.5%"):
        given.ranks(0.8)


def by_numbers(x: list[float], mean: list[float], basis: list[list[float]], rank: int) -> list[float]:
    """m + sum over the first columns u of ((x - m).u) u."""
    away = [a - b for a, b in zip(x, mean, strict=True)]
    out = list(mean)
    for c in range(rank):
        column = [row[c] for row in basis]
        inside = sum(a * b for a, b in zip(away, column, strict=True))
        out = [o + inside * u for o, u in zip(out, column, strict=True)]
    return out


def test_an_entry_is_read_as_its_projection() -> None:
    given, rng = projections(1, torch.tensor([0, 0, 7, 1, 10])), torch.Generator().manual_seed(5)
    lengths = torch.tensor([2, 0, 3, 1])  # two rows of two heads
    keys, values = torch.randn(2, 6, WIDTH, generator=rng)
    place = Place(torch.arange(6), lengths, (WIDTH, WIDTH), None)
    codec = matryoshka(given).fitted(0, torch.tensor([43.0 / 48, 1.0], dtype=torch.float64))
    tensors = codec.encode(keys, values, place)
    ranks = [[4, 6, 8, 8], [8, 6, 8, 8]]  # in the first row keys of layer 0 lost three steps, values one
    assert [t.numel() for t in tensors] == [
        sum(n * r for n, r in zip(lengths.tolist(), of, strict=True)) for of in ranks
    ]
    found = codec.decode(tensors, place)
    heads = [0, 0, 2, 2, 2, 3]
    for kind, (numbers, read) in enumerate(zip((keys, values), found, strict=True)):
        for i, head in enumerate(heads):
            mean, basis = given.mean[kind, 0, head % 2].tolist(), given.basis[kind, 0, head % 2].tolist()
            wanted = by_numbers(numbers[i].tolist(), mean, basis, ranks[kind][head])
            assert read[i].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("budget", ["60%", "cache:30"])
def test_no_entry_is_dropped_and_the_bytes_are_those_of_the_budget(budget: str) -> None:
    made, text = model(), ids()
    given = projections()
    cache = BudgetedCache(made, budget, projecting(given))
    with torch.no_grad():
        made(text, past_key_values=cache)
        account = cache.account()
        room = {"60%": 36, "cache:30": 30}[budget] * 2 * KV_HEADS * LAYERS * (2 * WIDTH * 4 + 5)
        assert account.kept == account.packed == account.total == 2 * KV_HEADS * LAYERS * 60
        assert room * 0.9 < account.bytes <= room
        # what is read is the projection of what was there
        full = transformers.DynamicCache()
        made(text, past_key_values=full)
        shares = [part for layer in cache.layers for part in layer.storage.packed.tensors]
        rank = sum(t.numel() for t in shares) / (account.total * 2 * WIDTH)
        ranks = given.ranks(rank)
        for kind, name in enumerate(("keys", "values")):
            for index, layer in enumerate(cache.layers):
                for head in range(KV_HEADS):
                    m, u = given.mean[kind, index, head], given.basis[kind, index, head][:, : ranks[kind, index, head]]
                    was = getattr(full.layers[index], name)[:, head]
                    torch.testing.assert_close(
                        layer.storage.whole()[name][:, head], m + (was - m) @ u @ u.T, atol=1e-4, rtol=1e-4
                    )
        made(torch.tensor([[5], [6]]), past_key_values=cache)  # and it goes on
    assert cache.account().kept == 2 * KV_HEADS * LAYERS * 61


def test_a_full_budget_projects_nothing_and_a_second_choice_loses_nothing() -> None:
    made, text = model(), ids()
    selected = projecting(projections())
    with torch.no_grad():
        cache = BudgetedCache(made, "100%", selected)
        assert torch.equal(made(text, past_key_values=cache).logits, made(text).logits)
        cache = BudgetedCache(made, "60%", selected)
        made(text, past_key_values=cache)
        before = cache.layers[0].storage.whole()["keys"][:, :, :60].clone()
        made(ids(3, seed=1), past_key_values=cache)  # a further turn: projected once more, at the same share
        after = cache.layers[0].storage.whole()["keys"][:, :, :60]
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_is_refused(tmp_path) -> None:
    made = model()
    with pytest.raises(InvalidInput, match="budgeteer cache train"):
        matryoshka()
    with pytest.raises(CheckpointError, match="cannot read projections"):
        matryoshka(str(tmp_path / "nothing"))
    (tmp_path / "broken").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot read projections"):
        matryoshka(str(tmp_path / "broken"))
    file = tmp_path / "gates" / "matryoshka.safetensors"
    save_projections(projections(), file)
    found = projections_of(str(tmp_path))
    assert torch.equal(found.basis, projections().basis)
    assert (found.steps, len(found.cuts)) == (STEPS, 36)
    for cuts in (torch.tensor([0, 99]), torch.tensor([0, 0, 0, 0])):
        save_projections(projections(cuts=cuts), tmp_path / f"{len(cuts)}")
        with pytest.raises(CheckpointError, match=r"its cuts are of other heads|loses all its numbers"):
            matryoshka(str(tmp_path / f"{len(cuts)}"))
    rest = matryoshka(projections())
    for method, change, match in (
        ("recent:every=0,split=ada-kv", {}, "give split=uniform"),
        ("recent:every=0", {"num_key_value_heads": 4}, "this model has others"),
        ("recent:every=0", {"num_hidden_layers": 4}, "projections of 3 layers"),
    ):
        other = model(**change)
        with pytest.raises(InvalidInput, match=match), torch.no_grad():  # noqa: PT012
            selected = selection(method)._replace(rest=rest)
            other(ids(), past_key_values=BudgetedCache(other, "60%", selected))
    with pytest.raises(InvalidInput, match="give a larger budget"), torch.no_grad():
        made(ids(), past_key_values=BudgetedCache(made, "20%", projecting(projections())))
    trained = matryoshka(replace(projections(), fingerprint="another"))
    with pytest.raises(InvalidInput, match="was trained on a model with fingerprint another"):
        BudgetedCache(made, "60%", selection("recent")._replace(rest=trained))
