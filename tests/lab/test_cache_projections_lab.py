"""Training of a cache's projections: components and Cayley against numpy, what attention reads, the command."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer import cli
from budgeteer.cache import BudgetedCache
from budgeteer.cache.projections import projections_of
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.cache_projections import Fitting, Progress, cayley, described, principal, train_projections
from budgeteer.lab.cache_ranks import lost, projected, search

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip


def llama(**changes):
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **changes})).eval()
    for name, weight in made.named_parameters():
        weight.data *= 6 if any(part in name for part in ("q_proj", "k_proj", "v_proj", "o_proj", "lm_head")) else 1
    BudgetedCache(made, "100%", "recent")  # leads its attention through ours
    return made


def texts(count: int, length: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 64, (count, length), generator=torch.Generator().manual_seed(seed))


def test_principal_components_are_those_of_numpy() -> None:
    made, given = llama(), texts(3)
    found = principal(made, given)
    with torch.no_grad():
        caches = [made(text[None], past_key_values=transformers.DynamicCache()).past_key_values for text in given]
    for kind, name in enumerate(("keys", "values")):
        rows = torch.cat([getattr(cache.layers[1], name)[0, 1] for cache in caches]).double().numpy()
        np.testing.assert_allclose(found.mean[kind, 1, 1].numpy(), rows.mean(0), atol=1e-5)
        basis, variance = found.basis[kind, 1, 1].double().numpy(), np.cov(rows.T, bias=True)
        spread = np.diag(basis.T @ variance @ basis)
        np.testing.assert_allclose(spread, np.linalg.eigvalsh(variance)[::-1], atol=1e-4, rtol=1e-3)
        np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-5)


def test_cayley_gives_orthogonal_matrices() -> None:
    free = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = cayley(free)
    eye = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(found @ found.transpose(-1, -2), eye.expand(3, -1, -1))
    skew = (free - free.transpose(-1, -2)).numpy()
    wanted = np.linalg.inv(np.eye(6) - skew / 2) @ (np.eye(6) + skew / 2)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-10)
    assert torch.equal(cayley(0 * free), eye.expand(3, -1, -1))


def test_training_reads_what_a_cache_of_these_ranks_holds() -> None:
    """The last token's logits of projected attention are those of a cache whose earlier entries are projected."""
    made, text = llama(), texts(1, 20)
    given = principal(made, texts(3))
    with torch.no_grad():
        with projected(given.basis, given.mean, given.ranks(1.0)):
            torch.testing.assert_close(made(text, use_cache=False).logits, made(text).logits, atol=1e-3, rtol=1e-3)
        ranks = given.ranks(0.5)
        with projected(given.basis, given.mean, ranks):
            found = made(text, use_cache=False).logits[0, -1]
        cache = transformers.DynamicCache()
        made(text, past_key_values=cache)
        layer = cache.layers[0]
        for kind, name in enumerate(("keys", "values")):
            for head in range(2):
                m, u = given.mean[kind, 0, head], given.basis[kind, 0, head][:, : ranks[kind, 0, head]]
                getattr(layer, name)[0, head] = m + (getattr(layer, name)[0, head] - m) @ u @ u.T
        hidden = made.model.embed_tokens(text)
        rotary = made.model.rotary_emb(hidden, torch.arange(20)[None])
        block = made.model.layers[0]
        seen = []
        handle = block.self_attn.o_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        with projected(given.basis, given.mean, ranks):
            block(hidden, position_embeddings=rotary)
        handle.remove()
        query = block.self_attn.q_proj(block.input_layernorm(hidden)).view(1, 20, 4, 8).transpose(1, 2)
        query = transformers.models.llama.modeling_llama.apply_rotary_pos_emb(query, query, *rotary)[0]
        for h in range(4):
            read = torch.softmax(query[0, h, -1] @ layer.keys[0, h // 2].T / 8**0.5, -1)
            torch.testing.assert_close(
                seen[0][0, -1].view(4, 8)[h], read @ layer.values[0, h // 2], atol=1e-4, rtol=1e-4
            )
    assert torch.isfinite(found).all()


def test_the_search_cuts_first_what_costs_least() -> None:
    """A head whose values are nearly constant loses its numbers for nothing, those of its keys, too."""
    made = llama()
    with torch.no_grad():
        made.model.layers[1].self_attn.v_proj.weight[8:] *= 1e-4
    given, some = principal(made, texts(4)), texts(2, seed=1)
    cuts = search(made, given, some, 0.0)
    assert len(cuts) == given.units * 7
    assert torch.bincount(cuts).tolist() == [7] * given.units
    assert sorted(cuts[:14].tolist()) == [3] * 7 + [7] * 7  # keys and values of layer 1, head 1
    even = lost(made, given, some, 0.5)
    assert lost(made, type(given)(given.basis, given.mean, cuts, given.steps), some, 0.5) < 0.8 * even
    assert len(search(made, given, some, 0.5)) == given.units * 7


def test_trained_projections_move_the_model_less_than_components() -> None:
    made = llama()
    before = {name: weight.clone() for name, weight in made.state_dict().items()}
    done = train_projections(made, texts(20), Fitting(steps=40, rate=1e-2, together=0.5))
    for share in ("50.0%", "25.0%"):
        name = f"KL to the model at {share} of the numbers"
        assert done.measured[f"{name}, trained"] < 0.9 * done.measured[f"{name}, components"]
    basis = done.projections.basis
    torch.testing.assert_close(basis @ basis.transpose(-1, -2), torch.eye(8).expand_as(basis), atol=1e-4, rtol=0)
    assert all(torch.equal(weight, before[name]) for name, weight in made.state_dict().items())
    with pytest.raises(InvalidInput, match="give 5 or more"):
        train_projections(made, texts(4), Fitting())
    with pytest.raises(InvalidInput, match="in 8 parts"):
        train_projections(llama(head_dim=12), texts(5), Fitting(steps=0))


def test_the_command_writes_what_a_cache_takes(tmp_path, capsys, monkeypatch) -> None:
    made = llama(num_hidden_layers=1)
    monkeypatch.setattr(
        "budgeteer.lab.cache_eval.opened",
        lambda spec, device, **asked: (made, lambda text, first: [3 + ord(c) % 60 for c in text]),
    )
    (tmp_path / "texts").write_text("to be held in fewer numbers " * 12)
    out = tmp_path / "made"
    command = ["cache", "train", "matryoshka", "thinker", "--texts", str(tmp_path / "texts"), "--out", str(out)]
    with monkeypatch.context() as terminal:
        terminal.setattr(sys.stderr, "isatty", lambda: True)
        assert cli.main([*command, "--length", "24", "--steps", "2"]) == 0
    said, progress = capsys.readouterr()
    assert "update 2 of 2" in progress
    assert "searches ranks: 0 of 28 cuts, try 4 of this round" in progress  # 4 heads of 8 parts
    assert "KL to the model at 50.0% of the numbers, trained: " in said
    assert f"use it as recent:every=0,rest=matryoshka:projections={out}" in said
    assert projections_of(str(out)).basis.shape == (2, 1, 2, 8, 8)
    cache = BudgetedCache(made, "60%", f"recent:every=0,rest=matryoshka:projections={out}")
    with torch.no_grad():
        made(texts(1, 40), past_key_values=cache)
    assert cache.account().packed == cache.account().total


def test_a_try_computes_from_the_layer_of_its_head_on(monkeypatch) -> None:
    """The search finds the same where each try runs the whole model."""
    made = llama(num_hidden_layers=3)
    given, some = principal(made, texts(4)), texts(2, seed=1)
    found = search(made, given, some, 0.25)
    asked = []
    hook = made.model.layers[0].self_attn.register_forward_hook(lambda *_: asked.append(1))
    again = search(made, given, some, 0.25)
    inner = len(asked)
    monkeypatch.setattr("budgeteer.lab.cache_ranks._from_layer", lambda blocks, outputs: nullcontext())
    assert torch.equal(search(made, given, some, 0.25), again)
    hook.remove()
    assert torch.equal(found, again)
    assert inner < 0.6 * (len(asked) - inner)  # a third of the heads, and once a round, begin at the first layer


def test_the_search_is_the_greedy_one_where_rises_never_fall(monkeypatch) -> None:
    """Of losses that are convex sums by head, lazily and with every head in every round, a cut at a time."""
    made = llama()
    given = principal(made, texts(3))
    scale = torch.rand(given.units, generator=torch.Generator().manual_seed(2)).tolist()
    tried = []

    def apart(model, given, texts, wanted, ranks):
        tried.append(1)
        lost = 8 - ranks.flatten()  # a step is one number here
        return sum(scale[unit] * int(less) ** 2 for unit, less in enumerate(lost.tolist()))

    monkeypatch.setattr("budgeteer.lab.cache_ranks._apart", apart)
    found = search(made, given, texts(1), 0.0).tolist()
    wanted, everywhere = list[int](), 0
    while len(wanted) < 7 * given.units:
        rises = {u: scale[u] * (2 * wanted.count(u) + 1) for u in range(given.units) if wanted.count(u) < 7}
        everywhere += len(rises) + 1
        wanted.append(min(rises, key=lambda unit: rises[unit]))
    assert found == wanted
    assert len(tried) < 0.6 * everywhere


@pytest.mark.parametrize("stop", ["update 17 of 25", "searches ranks: 16 of 56"])
def test_a_training_that_was_stopped_goes_on(tmp_path, stop) -> None:
    made, rows, given = llama(), texts(10), Fitting(steps=25, together=0.25)
    whole = train_projections(made, rows, given)
    path, said = tmp_path / "made.partial", []

    def killed(how_far: str) -> None:
        said.append(how_far)
        if stop in how_far:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_projections(made, rows, given, killed, Progress(path, described(made, rows, given)))
    first = len(said)
    progress = Progress(path, described(made, rows, given))
    done = train_projections(made, rows, given, said.append, progress)
    assert "update 1 of 25" not in said[first:]
    for name in ("basis", "mean", "cuts"):
        assert torch.equal(getattr(done.projections, name), getattr(whole.projections, name))
    with pytest.raises(InvalidInput, match="of a training with other texts, model or settings"):
        Progress(path, described(made, texts(10, seed=1), given))
    progress.done()
    assert not path.exists()
    path.write_bytes(b"no state")
    with pytest.raises(InvalidInput, match="no state of a training that can be read; delete it"):
        Progress(path, "")
