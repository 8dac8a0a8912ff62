"""Training of heads: labels by hand, fits that recover a known law in every form, and the file they are kept in."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.core.errors import CheckpointError, InvalidInput  # noqa: E402
from budgeteer.engine.head import HEADS, Head, load_head, read_head, save_head  # noqa: E402
from budgeteer.engine.layer_head import LayerHead, initial  # noqa: E402
from budgeteer.engine.vocabulary_head import LinearHead, VocabularyHead  # noqa: E402
from budgeteer.lab.heads import difficulty, guidance, introspection  # noqa: E402
from budgeteer.lab.heads.fit import Form, fit, held, outputs_of  # noqa: E402
from budgeteer.lab.heads.traces import UNKNOWN, Traces  # noqa: E402
from budgeteer.models.policy import REASONER  # noqa: E402

FORMS = (Form("flat", 16), Form("layers", 16, 1), Form("vocabulary"))
EACH_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def about(vocab):
    return {"vocab": vocab, "fingerprint": "x", "line_ends": ("\n",)}


def gammas(head, states, vocab):
    return (torch.nn.functional.softplus(head(states)) + guidance.LEAST).split(vocab, 1)


@EACH_FORM
def test_the_gamma_head_recovers_lengths(form) -> None:
    """Two kinds of tokens: after one of them 4 are left, after the other 12, give or take."""
    rng, n = np.random.default_rng(0), 2000
    kind = rng.integers(0, 2, n)
    left = np.maximum(1, np.round(np.exp(rng.normal(np.log([4.0, 12.0])[kind], 0.4)))).astype(np.int64)
    states = torch.ones(n, 2, 4).half()
    head = guidance.train_guidance(states, kind, left, **about(2), steps=150, seed=0, batch=250, form=form)
    shape, rate = (part[0] for part in gammas(head, states[:1].float(), 2))
    mean = np.array([np.log(left[kind == k] + 1).mean() for k in (0, 1)])
    np.testing.assert_allclose((shape / rate).numpy(), mean, rtol=0.07)


def test_the_gamma_head_recovers_the_spread() -> None:
    rng, n = np.random.default_rng(0), 4000
    left = np.maximum(1, np.round(np.exp(rng.normal(np.log(8.0), 0.4, n)))).astype(np.int64)
    states, token = torch.zeros(n, 1, 4).half(), np.zeros(n, np.int64)
    head = guidance.train_guidance(states, token, left, **about(1), steps=150, seed=0, batch=500)
    shape, rate = gammas(head, states[:1].float(), 1)
    np.testing.assert_allclose((shape.sqrt() / rate).numpy(), np.log(left + 1).std(), rtol=0.3)


def test_rare_tokens_share_a_gamma() -> None:
    """Token 1 came often, 3 and 6 seldom, the others never; 3 and 6 are as short as 1 is long."""
    rng, n = np.random.default_rng(0), 3000
    token = rng.choice([1, 3, 6], n, p=[0.99, 0.005, 0.005])
    left = np.where(token == 1, 12, 3) + rng.integers(0, 3, n)
    states = torch.zeros(n, 1, 4).half()
    head = guidance.train_guidance(states, token, left, **about(8), steps=200, seed=0, batch=1000, often=100)
    shape, rate = gammas(head, states[:1].float(), 8)
    mean = (shape / rate)[0].numpy()
    assert head.weights["w2"].shape[1] == 4  # two Gammas, of two numbers each
    assert len(set(np.delete(mean, 1).tolist())) == 1
    np.testing.assert_allclose(mean[1], np.log(left[token == 1] + 1).mean(), rtol=0.05)
    np.testing.assert_allclose(mean[0], np.log(left[token != 1] + 1).mean(), rtol=0.15)


def test_vocabulary_rows_are_kept_for_the_most_frequent_tokens(monkeypatch) -> None:
    monkeypatch.setattr(guidance, "ROWS", 3)
    token = np.array([5] * 9 + [2] * 8 + [7] * 7 + [1] * 6)
    states = torch.zeros(30, 1, 4).half()
    left = np.arange(30) + 1
    head = guidance.train_guidance(states, token, left, **about(8), steps=1, seed=0, form=Form("vocabulary"))
    assert head.weights["columns"].tolist() == [2, 2, 0, 2, 2, 1, 2, 2, 5, 5, 3, 5, 5, 4, 5, 5]


def test_the_densities_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    shape, rate, ell = (torch.tensor(x).double() for x in ([2.0, 30.0, 0.5], [1.0, 9.0, 3.0], [0.7, 3.1, 0.2]))
    want = stats.gamma.logpdf(ell.numpy(), a=shape.numpy(), scale=1 / rate.numpy())
    np.testing.assert_allclose(guidance.log_density(shape, rate, ell).numpy(), want, rtol=1e-9)
    for true in (0.3, 2.0, 80.0):
        ell = np.random.default_rng(0).gamma(true, 0.5, 500)
        k, _, scale = stats.gamma.fit(ell, floc=0)
        np.testing.assert_allclose(guidance.likeliest(torch.from_numpy(ell)), (k, 1 / scale), rtol=1e-5)
    assert guidance.likeliest(torch.full((3,), 2.0)) == (1e6, 5e5)


def test_the_layer_encoder_is_the_one_of_transformers() -> None:
    """The official code takes the encoder of transformers' BERT as it is."""
    transformers = pytest.importorskip("transformers")
    width, hidden, blocks, heads = 24, 10, 2, 3
    weights = initial(width, hidden, blocks, 5, torch.Generator().manual_seed(0))
    weights = {name: w + 0.1 * torch.randn_like(w) for name, w in weights.items()}
    ours = LayerHead(weights, "x", {"blocks": blocks, "heads": heads})
    config = transformers.BertConfig(
        hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, intermediate_size=4 * width
    )
    encoder = transformers.BertModel(config).eval().encoder
    names = {"out": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense"}
    names |= {"norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}
    theirs = {}
    for i in range(blocks):
        for end in ("weight", "bias"):
            for k, part in enumerate(("query", "key", "value")):
                theirs[f"layer.{i}.attention.self.{part}.{end}"] = weights[f"{i}.qkv.{end}"].chunk(3)[k]
            theirs |= {f"layer.{i}.{their}.{end}": weights[f"{i}.{own}.{end}"] for own, their in names.items()}
    encoder.load_state_dict(theirs)
    states = torch.randn(4, 3, hidden)
    tokens = torch.cat([weights["cls"].expand(4, 1, -1), states], 1)
    with torch.inference_mode():
        projected = torch.nn.functional.linear(tokens, weights["project.weight"], weights["project.bias"])
        want = encoder(projected).last_hidden_state[:, 0]
    torch.testing.assert_close(ours.features(states), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(states), want @ weights["w2"] + weights["b2"], atol=1e-5, rtol=1e-5)


def test_a_linear_head_as_rows_of_a_matrix() -> None:
    """Mean 1, scale 2, w2 = 3, b2 = 4: a state of 7 gives (7 - 1) / 2 * 3 + 4 = 13 = 7 * 1.5 + 2.5."""
    one = torch.ones(1)
    head = LinearHead({"mean": one, "scale": 2 * one, "w2": 3 * torch.ones(1, 1), "b2": 4 * one}, "x", {})
    assert head(torch.tensor([[[99.0], [7.0]]])).tolist() == [[13.0]]  # the last layer alone
    rows, bias = head.rows()
    assert (rows.tolist(), bias.tolist()) == ([[1.5]], [2.5])


def test_a_head_in_the_vocabulary_reads_its_rows() -> None:
    columns = torch.tensor([1, 0, 1])
    head = VocabularyHead({"b2": torch.tensor([0.5, 0.0]), "columns": columns}, "x", {"slots": 2})
    assert head(torch.tensor([[9.0, 9.0, 1.0, 2.0, 9.0]])).tolist() == [[2.0, 1.5, 2.0]]
    with pytest.raises(InvalidInput, match="excluded before it could read them"):
        head(torch.tensor([[9.0, 9.0, -torch.inf, 2.0]]))
    with pytest.raises(InvalidInput, match="the head reads 4 numbers at a position, and its method shows it 3"):
        head(torch.zeros(1, 3))


# traces of a law that is known


def traces_of(questions=40, rollouts=4, informative=True, seed=0):
    """Questions are easy or hard, which the states tell or not: easy ones are right, short and sure."""
    rng, group, right, length, entropy, rows = np.random.default_rng(seed), [], [], [], [], []
    for g in range(questions):
        hard = g % 2
        for _ in range(rollouts):
            trace, n = len(group), int(rng.integers(4, 8) + 12 * hard)
            group.append(g)
            right.append(float(not hard))
            length.append(n)
            entropy.append(0.2 + hard + 0.1 * rng.random())
            sight = hard if informative else rng.integers(0, 2)
            rows += [(trace, t, [sight, t / 8, 1.0], t % 3 if t < n - 1 else UNKNOWN) for t in range(n)]
    states = torch.tensor([row[2] for row in rows])[:, None, :].repeat(1, 2, 1).half()
    trace, index, token = (np.array([row[k] for row in rows]) for k in (0, 1, 3))
    names = tuple(map(str, range(questions)))
    columns = (np.array(group), np.array(length), np.array(length), np.array(right), np.array(entropy))
    return Traces(names, *columns, trace, index, states, token)


def trained(kind, ours, form):
    if kind == "guidance":
        at, left = ours.thinking()
        states = ours.states[torch.from_numpy(at)]
        return guidance.train_guidance(
            states, ours.token[at], left, **about(3), steps=150, seed=0, batch=256, form=form
        )
    if kind == "zip-rc":
        return introspection.train_introspection(ours, "x", lengths=(0, 4, 8, 16), steps=150, seed=0, form=form)
    return difficulty.train_difficulty(ours, "x", steps=150, seed=0, form=form.name)


MEASURES = {
    "guidance": guidance.held_guidance,
    "zip-rc": introspection.held_introspection,
    "difficulty": difficulty.held_difficulty,
}


@EACH_FORM
@pytest.mark.parametrize("kind", MEASURES)
def test_a_head_beats_a_constant_on_held_out_questions(kind, form) -> None:
    if kind == "difficulty" and form.name == "layers":
        pytest.skip("difficulty is read from one layer")
    ours, other = traces_of().split()
    result = MEASURES[kind](trained(kind, ours, form), ours, other)
    assert result.difference.n == 8
    assert result.difference.high < 0, str(result)


@pytest.mark.parametrize("kind", ["zip-rc", "difficulty"])
def test_a_head_that_is_shown_nothing_does_not(kind) -> None:
    """Control: states that say nothing of the question's kind; the position is still there for remaining lengths."""
    ours, other = traces_of(informative=False).split()
    lost = MEASURES[kind](trained(kind, ours, FORMS[2]), ours, other).difference.mean
    ours, other = traces_of().split()
    assert lost > MEASURES[kind](trained(kind, ours, FORMS[2]), ours, other).difference.mean + 0.1


def test_thinking_positions_by_hand() -> None:
    """One trace of 5 tokens that closed at 3, one of 2 that did not; the second's last token is not known."""
    states = torch.zeros(7, 1, 1)
    one = np.array([0, 0])
    closed, token = np.array([3, 2]), np.array([4, 5, 6, 7, UNKNOWN, 8, UNKNOWN])
    trace, index = np.array([0] * 5 + [1] * 2), np.array([0, 1, 2, 3, 4, 0, 1])
    both = Traces(("q",), one, np.array([5, 2]), closed, np.zeros(2), np.zeros(2), trace, index, states, token)
    inside, left = both.thinking()
    assert np.flatnonzero(inside).tolist() == [0, 1, 2, 5]
    assert left.tolist() == [3, 2, 1, 2]


def test_a_split_is_by_question() -> None:
    whole = traces_of(questions=10)
    ours, other = whole.split(share=0.3, seed=4)
    assert len(other.questions) == 3
    assert sorted((*ours.questions, *other.questions)) == sorted(whole.questions)
    for part in (ours, other):
        for trace in range(len(part.length)):
            assert part.index[part.trace == trace].tolist() == list(range(part.length[trace]))
            of = whole.questions.index(part.questions[part.group[trace]])
            assert part.length[trace] in whole.length[whole.group == of]
    with pytest.raises(InvalidInput, match="cannot be split"):
        traces_of(questions=1).split()


def test_labels_of_zip_rc_by_hand() -> None:
    """A first round that says sigmoid(x): the value of each trace is the mean over its last 16 positions."""
    identity = {"mean": torch.zeros(1), "scale": torch.ones(1), "w2": torch.ones(1, 1), "b2": torch.zeros(1)}
    first = LinearHead(identity, "x", {})
    sure = float(torch.tensor(0.9).logit())
    x = torch.tensor([-9.0] * 4 + [sure] * 16 + [0.0])
    trace, index = np.array([0] * 20 + [1]), np.array([*range(20), 0])
    both = Traces(
        ("q",), np.zeros(2, int), np.array([20, 1]), np.zeros(2), np.zeros(2), np.zeros(2), trace, index,
        x[:, None, None], np.zeros(21, int),
    )  # fmt: skip
    got = introspection.labels(first, both, (0, 4, 8, 16))
    # 0.9 is nearest to 5/6, 0.5 is 3/6; remaining 20 .. 1 and 1
    left = [3] * 5 + [2] * 8 + [1] * 4 + [0] * 3
    assert got.tolist() == [5 * 4 + b for b in left] + [3 * 4 + 0]


def test_one_held_out_question_has_no_interval() -> None:
    result = held("loss", np.array([2.0, 1.0]), np.array([1.0, 1.0]), np.array([0, 0]))

    assert str(result) == (
        "loss on 1 held-out questions: 1.5000, a constant 1.0000, difference +0.5000 (no interval: give more questions)"
    )


def test_losses_are_means_of_questions() -> None:
    result = held("loss", np.array([1.0, 3.0, 5.0]), np.array([2.0, 2.0, 9.0]), np.array([0, 0, 2]))
    assert (result.head, result.constant, result.difference.mean, result.difference.n) == (3.5, 5.5, -2.0, 2)
    assert str(result).startswith("loss on 2 held-out questions: 3.5000, a constant 5.5000, difference -2.0000 [")


def test_positions_set_aside_stop_a_training_that_learns_by_heart() -> None:
    """Random labels of random states: with the positions aside the loss on other ones stays near that of a constant."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(200, 1, 40, generator=generator)
    label = torch.randint(2, (200,), generator=generator)
    lost = {}
    for stopped in (False, True):
        head = Form("flat", 32).start(states, 2, torch.Generator().manual_seed(1), "x", {})

        def loss(features, chosen, head=head):
            return torch.nn.functional.cross_entropy(features @ head.weights["w2"] + head.weights["b2"], label[chosen])

        aside = np.arange(200) % 4 == 0 if stopped else None
        fit(head, states, loss, steps=60, seed=0, batch=100, aside=aside)
        other = torch.randn(400, 1, 40, generator=torch.Generator().manual_seed(2))
        lost[stopped] = float(torch.nn.functional.cross_entropy(head(other), torch.arange(400) % 2))
    assert lost[True] < lost[False]
    assert lost[True] < 0.85  # log 2 = 0.69


# files


@EACH_FORM
def test_training_is_deterministic_and_survives_the_file(form, tmp_path) -> None:
    ours, _ = traces_of(questions=6).split()
    head, other = (
        introspection.train_introspection(ours, "x", lengths=(0, 4), steps=6, seed=0, form=form).head for _ in range(2)
    )
    path = tmp_path / "zip_rc.safetensors"
    if form.name == "vocabulary":  # kept as what reads the rows, not as what was trained
        settings = {**head.settings, "form": form.name, "slots": 1}
        biases = (h.rows()[1] for h in (head, other))
        head, other = (VocabularyHead({"b2": bias, "columns": torch.arange(14)}, "x", settings) for bias in biases)
    save_head(head, path)
    loaded = load_head("zip_rc", tmp_path)
    assert type(loaded) is type(head)
    assert loaded.fingerprint == "x"
    assert loaded.settings["values"] == list(introspection.VALUES)
    for name, tensor in head.weights.items():
        assert torch.equal(tensor, other.weights[name])
        assert torch.equal(tensor.double(), loaded.weights[name].double())
    shown = torch.randn(9, 15) if form.name == "vocabulary" else ours.states[:9].float()
    torch.testing.assert_close(loaded(shown), outputs_of(head, shown).double(), atol=1e-4, rtol=1e-4)
    assert read_head(path) is loaded


def test_damaged_files_are_refused(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    save_head(Head({"w1": torch.ones(1)}, "x", {}), path)
    with pytest.raises(CheckpointError, match=r"it has no b1, b2, mean, scale, w2.*budgeteer heads train"):
        read_head(path)
    other = tmp_path / "b.safetensors"
    save_head(Head({"w1": torch.ones(1)}, "x", {"form": "round"}), other)
    with pytest.raises(CheckpointError, match="its form 'round' is none of flat, layers, vocabulary"):
        read_head(other)
    with pytest.raises(InvalidInput, match="a width of 200 cannot be shared by 3 heads"):
        Form("layers", 200).start(torch.zeros(1, 1, 1), 1, torch.Generator(), "x", {})


def test_the_heads_of_the_package_are_small_and_of_its_model() -> None:
    names = ("budget_guidance", "zip_rc", "diffadapt_probe")
    assert sum((REASONER / HEADS / f"{name}.safetensors").stat().st_size for name in names) < 400_000
    assert len({load_head(name).fingerprint for name in names}) == 1
