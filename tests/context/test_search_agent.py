"""CARROT's configuration agent: its loss by hand, its slopes, what it learns, and the search that it steers."""

from __future__ import annotations

import numpy as np
import pytest

from budgeteer.context import carrot
from budgeteer.context.encode import cosine, words
from budgeteer.context.protocol import counter
from budgeteer.context.search_agent import (
    SearchAgent,
    Setting,
    Training,
    _forward,
    _layers,
    configure_of,
    configured,
    loss,
    save,
    trained,
)
from budgeteer.core import registry
from budgeteer.core.errors import CheckpointError, InvalidInput

SETTINGS = [
    Setting(rerank, explore, iterations, frugality)
    for rerank in ("left", "right")
    for explore, iterations, frugality in ((2.0, 10, 0.0), (4.0, 50, 1.0))
]


def world(n: int, seed: int):
    """Vectors whose first number says which reranker is best, and whose second says which numbers are."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6))
    best = 2 * (vectors[:, 0] > 0) + (vectors[:, 1] > 0)
    return vectors, np.eye(4)[best], best


def picked(agent: SearchAgent, vectors) -> np.ndarray:
    return np.array([2 * (one.rerank == "right") + (one.iterations > 30) for one in agent.settings(vectors)])


def test_loss_by_hand() -> None:
    # one input, one hidden number (as it is, if above 0), two logits (0 and the hidden number) and three numbers of 0.5
    layers = [(np.array([[1.0]]), np.zeros(1)), (np.array([[0.0, 1, 0, 0, 0]]), np.array([0.0, 0, 0.5, 0.5, 0.5]))]
    wanted = np.array([[0.5, 0.5, 0.5], [0.5, 1.0, 0.5]])
    numbers = 0.5**2 / 6
    cross = -(np.log(1 / (1 + np.e)) + np.log(1 / (1 + np.exp(1.4)))) / 2  # best is the first one, of logit 0
    same = loss(layers, np.array([[1.0], [1.4]]), np.array([0, 0]), wanted, 1.0)[0]
    assert same == pytest.approx(0.4**2 + cross + numbers)
    cross = -(np.log(1 / (1 + np.e)) + np.log(np.exp(1.4) / (1 + np.exp(1.4)))) / 2
    other = loss(layers, np.array([[1.0], [1.4]]), np.array([0, 1]), wanted, 1.0)[0]
    assert other == pytest.approx(0.6**2 + cross + numbers)
    far = loss(layers, np.array([[1.0], [2.5]]), np.array([0, 1]), wanted, 1.0)[0]
    cross = -(np.log(1 / (1 + np.e)) + np.log(np.exp(2.5) / (1 + np.exp(2.5)))) / 2
    assert far == pytest.approx(cross + numbers)  # further apart than the margin: nothing more to gain


def test_slopes_are_those_of_differences() -> None:
    rng = np.random.default_rng(0)
    layers = _layers(rng, (4, 7, 5, 2 + 3))
    vectors, kinds, wanted = rng.normal(size=(6, 4)), np.array([0, 1, 1, 0, 0, 1]), rng.random((6, 3))
    slopes = loss(layers, vectors, kinds, wanted, 1.0)[1]
    for place, layer in enumerate(layers):
        for part, values in enumerate(layer):
            for at in list(np.ndindex(values.shape))[::3]:
                before = values[at]
                ends = []
                for step in (1e-6, -1e-6):
                    values[at] = before + step
                    ends.append(loss(layers, vectors, kinds, wanted, 1.0)[0])
                values[at] = before
                assert slopes[place][part][at] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def test_slopes_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    layers = _layers(rng, (4, 6, 3 + 3))
    vectors, kinds, wanted = rng.normal(size=(8, 4)), np.array([0, 1, 2, 0, 0, 2, 2, 1]), rng.random((8, 3))
    own = [[torch.tensor(part, requires_grad=True) for part in layer] for layer in layers]
    hidden = torch.relu(torch.tensor(vectors) @ own[0][0] + own[0][1])
    out = hidden @ own[1][0] + own[1][1]
    apart = torch.nn.functional.pairwise_distance(hidden[:4], hidden[4:], eps=0.0)
    label = torch.tensor((kinds[:4] != kinds[4:]).astype(float))
    contrast = torch.mean((1 - label) * apart**2 + label * torch.clamp(1 - apart, min=0.0) ** 2)
    cross = torch.nn.functional.cross_entropy(out[:, :3], torch.tensor(kinds))
    total = contrast + cross + torch.nn.functional.mse_loss(out[:, 3:], torch.tensor(wanted))
    total.backward()
    value, slopes = loss(layers, vectors, kinds, wanted, 1.0)
    assert value == pytest.approx(total.item())
    for layer, slope in zip(own, slopes, strict=True):
        for part, found in zip(layer, slope, strict=True):
            np.testing.assert_allclose(part.grad.numpy(), found, atol=1e-12)


def test_it_learns_what_vectors_say_and_nothing_of_shuffled_ones() -> None:
    vectors, scores, _ = world(200, 0)
    new, _, best = world(200, 1)
    agent = trained(vectors, scores, SETTINGS, seed=0)
    assert (picked(agent, new) == best).mean() > 0.75  # by chance a quarter
    blind = trained(vectors[np.random.default_rng(2).permutation(200)], scores, SETTINGS, seed=0)
    assert (picked(blind, new) == best).mean() < 0.4
    same = trained(vectors, scores, SETTINGS, seed=0)
    assert all(
        (a == b).all()
        for one, two in zip(agent.layers, same.layers, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_equal_scores_take_the_best_setting_of_all_then_the_first_and_numbers_stay_in_their_range() -> None:
    vectors, _, _ = world(40, 0)
    agent = trained(vectors, np.ones((40, 4)), SETTINGS, Training(epochs=40))
    for setting in agent.settings(100 * vectors):
        assert setting.rerank == "left"
        assert 2 <= setting.explore <= 4
        assert 10 <= setting.iterations <= 50
        assert 0 <= setting.frugality <= 1
    # three of four questions say nothing; the others are better with the second setting
    scores = np.ones((40, 2))
    scores[::4, 0] = 0
    few = trained(vectors, scores, [SETTINGS[0], SETTINGS[-1]], Training(epochs=40))
    assert {setting.rerank for setting in few.settings(vectors)} == {SETTINGS[-1].rerank} != {SETTINGS[0].rerank}
    one = trained(vectors, np.ones((40, 1)), SETTINGS[:1], Training(epochs=2))
    assert set(one.settings(vectors)) == {SETTINGS[0]}


def test_the_search_asks_the_reranker_that_the_agent_names() -> None:
    asked: list[str] = []

    def rerank_by(name: str):
        def rerank(question, texts):
            asked.append(name)
            return cosine(words)(question, texts)

        return rerank

    vectors, scores, _ = world(200, 0)
    agent = trained(vectors, scores, SETTINGS)
    said = {"Which cat?": 2.0, "Which dog?": -2.0}

    def encode(texts):
        return np.array([[said[text], -2.0, 0, 0, 0, 0] for text in texts])

    configure = configured(agent, encode, {"left": rerank_by("left"), "right": rerank_by("right")})
    find = carrot(rerank_by("given"), configure=configure)
    for question, name in (("Which cat?", "right"), ("Which dog?", "left")):
        asked.clear()
        talk = [{"role": "user", "content": text} for text in ("The cat is big.", "It rains.", question)]
        find(talk, 50, counter(lambda text: len(text.split())))
        assert set(asked) == {name}
        assert len(asked) < 15  # 10 iterations, and the pieces alone


def test_saved_and_read(tmp_path) -> None:
    vectors = np.random.default_rng(0).normal(size=(8, 5))
    settings = [Setting("words", 2.0, 10), Setting("words", 3.0, 20)]
    agent = trained(vectors, np.eye(2)[[0, 1] * 4], settings, Training(epochs=1))
    path = tmp_path / "agent.json"
    with pytest.raises(InvalidInput, match="another width for each text"):
        save(agent, "words", path)
    save(agent, str(tmp_path / "encoder"), path)
    path.write_text(path.read_text().replace(str(tmp_path / "encoder"), "words"))  # an encoder that is at hand
    configure = configure_of("carrot", str(path))
    assert configure is not None
    with pytest.raises(InvalidInput, match=r"this agent takes \[n, 5\]"):
        configure("a question of more or fewer words than five")
    assert configure_of("carrot", "none") is None
    assert registry.part_of("reducer", f"carrot:rerank=words,configure={path}")
    with pytest.raises(CheckpointError, match="holds no agent"):
        registry.part_of("reducer", f"carrot:rerank=words,configure={tmp_path / 'none.json'}")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"layers": [], "least": [], "most": []}'])
def test_a_file_that_holds_none(tmp_path, text: str) -> None:
    path = tmp_path / "agent.json"
    with pytest.raises(CheckpointError, match="holds no agent"):
        configure_of("carrot", str(path))
    path.write_text(text)
    with pytest.raises(CheckpointError, match="holds no agent"):
        configure_of("carrot", str(path))


def test_bad_input_says_what_to_give() -> None:
    vectors, scores, _ = world(10, 0)
    with pytest.raises(InvalidInput, match="a score a question and setting"):
        trained(vectors, scores[:, :3], SETTINGS)
    with pytest.raises(InvalidInput, match="a score a question and setting"):
        trained(vectors[:0], scores[:0], SETTINGS)
    with pytest.raises(InvalidInput, match="only questions that were scored"):
        trained(vectors, np.where(scores > 0, np.nan, 0), SETTINGS)
    with pytest.raises(InvalidInput, match="iterations from 1"):
        Setting("words", iterations=0)
    with pytest.raises(InvalidInput, match="epochs and a batch from 1"):
        Training(batch=0)
    agent = trained(vectors, scores, SETTINGS, Training(epochs=1))
    with pytest.raises(InvalidInput, match="give right, too"):
        configured(agent, words, {"left": cosine(words)})
    with pytest.raises(InvalidInput, match=r"\[n, 6\]"):
        agent.settings(vectors[:, :5])
    assert _forward(agent.layers, vectors)[-1].shape == (10, 2 + 3)


def test_vectors_that_are_no_numbers_choose_no_setting():
    rng = np.random.default_rng(0)
    agent = trained(rng.normal(size=(8, 4)), rng.random((8, 2)), [Setting("a"), Setting("b")])
    with pytest.raises(InvalidInput, match="not finite"):
        agent.settings(np.full((1, 4), np.nan))
