"""Training of heads: labels by hand, a fit that recovers a known law, and the file they are kept in."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import needs

torch = pytest.importorskip("torch")
needs.reasoning_gym()

from budgeteer.engine.head import load_head, save_head  # noqa: E402
from budgeteer.lab import heads  # noqa: E402
from budgeteer.models.policy import REASONER, load_policy  # noqa: E402


@pytest.fixture(scope="module")
def traces():
    return heads.collect(load_policy(), size=60, rollouts=3, seed=1)


def test_states_are_those_before_each_token(traces):
    policy = load_policy()
    for trace in (0, 77):
        own = traces.trace == trace
        item = traces.items[traces.group[trace]]
        prompt = policy.encode([item.prompt])[0]
        tokens = torch.tensor([[*prompt, *traces.token[own].tolist()]])
        with torch.inference_mode():
            layers = torch.stack(policy.model.states(policy.model.embed[tokens]), 2)[0]
        torch.testing.assert_close(
            traces.states[torch.from_numpy(own)].float(), layers[len(prompt) - 1 : -1], atol=0.02, rtol=0.01
        )
        assert traces.index[own].tolist() == list(range(traces.length[trace]))


def test_the_gamma_head_recovers_lengths():
    """Two kinds of states: after one token 4 are left, after the other 12, give or take."""
    rng, n = np.random.default_rng(0), 4000
    kind = rng.integers(0, 2, n)
    left = np.maximum(1, np.round(np.exp(rng.normal(np.log([4.0, 12.0])[kind], 0.4)))).astype(np.int64)
    states = torch.zeros(n, 1, 4).half()
    head = heads.train_guidance(states, kind, left, **about(2), steps=400, seed=0)
    shape, rate = (torch.nn.functional.softplus(head(states[:1].float())) + 1e-4)[0].split(2)
    mean = np.array([np.log(left[kind == k] + 1).mean() for k in (0, 1)])
    np.testing.assert_allclose((shape / rate).numpy(), mean, rtol=0.05)
    spread = np.array([np.log(left[kind == k] + 1).std() for k in (0, 1)])
    np.testing.assert_allclose((shape.sqrt() / rate).numpy(), spread, rtol=0.3)


def about(vocab):
    return {"vocab": vocab, "fingerprint": "x", "line_ends": ("\n",)}


def test_rare_tokens_share_a_gamma():
    """Token 1 came often, 3 and 6 seldom, the others never; 3 and 6 are as short as 1 is long."""
    rng, n = np.random.default_rng(0), 3000
    token = rng.choice([1, 3, 6], n, p=[0.99, 0.005, 0.005])
    left = np.where(token == 1, 12, 3) + rng.integers(0, 3, n)
    states = torch.zeros(n, 1, 4).half()
    head = heads.train_guidance(states, token, left, **about(8), steps=300, seed=0, often=100)
    shape, rate = (torch.nn.functional.softplus(head(states[:1].float())) + 1e-4)[0].split(8)
    mean = (shape / rate).numpy()
    assert len(set(np.delete(mean, 1).tolist())) == 1
    np.testing.assert_allclose(mean[1], np.log(left[token == 1] + 1).mean(), rtol=0.05)
    np.testing.assert_allclose(mean[0], np.log(left[token != 1] + 1).mean(), rtol=0.15)


def test_the_density_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    shape, rate, ell = (torch.tensor(x).double() for x in ([2.0, 30.0, 0.5], [1.0, 9.0, 3.0], [0.7, 3.1, 0.2]))
    want = stats.gamma.logpdf(ell.numpy(), a=shape.numpy(), scale=1 / rate.numpy())
    np.testing.assert_allclose(heads.log_density(shape, rate, ell).numpy(), want, rtol=1e-9)


def test_training_is_deterministic_and_survives_the_file(traces, tmp_path):
    first, other = (heads.train_introspection(traces, "x", steps=20, seed=0) for _ in range(2))
    save_head(first, tmp_path / "zip_rc.safetensors")
    loaded = load_head("zip_rc", tmp_path)
    assert loaded.settings == {"values": list(heads.VALUES), "lengths": list(heads.LENGTHS)}
    assert loaded.fingerprint == "x"
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, other.weights[name])
        assert torch.equal(tensor.double(), loaded.weights[name])


def test_the_heads_of_the_package_are_small_and_of_its_model():
    names = ("budget_guidance", "zip_rc", "diffadapt_probe")
    assert sum((REASONER / f"{name}.safetensors").stat().st_size for name in names) < 400_000
    assert len({load_head(name).fingerprint for name in names}) == 1


def test_introspection_knows_more_than_nothing(traces):
    """On traces of another seed, predicted values are higher where the answer is right."""
    head = load_head("zip_rc")
    ends = np.flatnonzero(traces.index == traces.length[traces.trace] - 1)
    joint = head(traces.states[torch.from_numpy(ends)]).softmax(-1).numpy().reshape(len(ends), 7, 7)
    value = joint.sum(2) @ np.array(heads.VALUES)
    right = traces.right[traces.trace[ends]] > 0.99
    assert value[right].mean() - value[~right].mean() > 0.15
