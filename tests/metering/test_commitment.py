"""Commitments: honest proofs hold and changed ones do not, counts are bound, chances by simulation, known misses."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.metering.commitment import Commitment, Tree, audit, caught, fitted, holds

D = 24


def trace(m, seed=0, block=8, topic=None):
    """Tokens that scatter around the topic of their block, and blocks that are their means."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(-(-m // block), D)) if topic is None else np.tile(topic, (-(-m // block), 1))
    tokens = topics[np.arange(m) // block] + 0.7 * rng.normal(size=(m, D))
    return np.array([tokens[i : i + block].mean(axis=0) for i in range(0, m, block)]), tokens


@pytest.mark.parametrize("m", [1, 2, 7, 8, 9, 33])
def test_every_leaf_of_an_honest_tree_holds(m):
    tree = Tree(*trace(m), block=8)
    assert all(holds(tree.commitment, tree.prove(i)) for i in range(m))
    with pytest.raises(InvalidInput):
        tree.prove(m)


def test_whatever_is_changed_does_not_hold():
    tree = Tree(*trace(20), block=8)
    good, proof = tree.commitment, tree.prove(13)
    changed = [
        replace(proof, index=12),
        replace(proof, token_vector=(proof.token_vector[0] ^ 1, *proof.token_vector[1:])),
        replace(proof, block_vector=proof.block_vector[::-1]),
        replace(proof, path=proof.path[1:]),
        replace(proof, path=(proof.path[0][::-1], *proof.path[1:])),
        replace(proof, path=("zz", *proof.path[1:])),
        replace(proof, token_vector=(999, *proof.token_vector[1:])),
        replace(proof, token_vector=tuple(part + (0.9 if part >= 0 else -0.9) for part in proof.token_vector)),
        replace(proof, path=None),
        replace(proof, block_vector=None),
    ]
    assert holds(good, proof)
    assert not any(holds(good, one) for one in changed)


def test_one_root_does_not_serve_two_counts():
    """Padding by the last leaf would let 5 tokens be billed as 6 to 8."""
    tree = Tree(*trace(5), block=8)
    for count in (4, 6, 7, 8):
        assert not any(holds(replace(tree.commitment, count=count), tree.prove(i)) for i in range(5))


@pytest.mark.parametrize(("count", "block"), [(-1, 8), (1 << 64, 8), (20, 0)])
def test_a_commitment_that_no_trace_has_is_refused(count, block):
    with pytest.raises(InvalidInput, match="a commitment has 0 or more"):
        Commitment("00", count, block)


def test_the_last_bits_of_floats_do_not_matter():
    blocks, tokens = trace(16)
    other = Tree(blocks.astype(np.float32), 3.0 * tokens.astype(np.float32), block=8)
    assert other.commitment == Tree(blocks, tokens, block=8).commitment


def test_the_chance_to_catch_invented_leaves_by_counting_and_by_simulation():
    sets = list(combinations(range(9), 4))
    assert caught(9, 2, 4) == pytest.approx(np.mean([bool({0, 1} & set(one)) for one in sets]))
    rng = np.random.default_rng(0)
    hits = [(rng.choice(1100, 20, replace=False) < 100).any() for _ in range(4000)]
    assert np.mean(hits) == pytest.approx(caught(1100, 100, 20), abs=0.02)
    assert caught(1100, 100, 20) == pytest.approx(1 - (1 - 100 / 1100) ** 20, abs=0.005)


def heads():
    blocks, tokens = trace(800, seed=5)
    own = np.array([tokens[i : i + 4].mean(axis=0) for i in range(0, 800, 8)])
    mixed = np.random.default_rng(1).permutation(len(own))
    pairs = np.concatenate([own, own]), np.concatenate([blocks, blocks[mixed]])
    return fitted(*pairs, [True] * 100 + (mixed == np.arange(100)).tolist())


def test_a_head_tells_own_tokens_from_those_of_other_blocks():
    head = heads()
    blocks, tokens = trace(400, seed=9)
    own = [head(tokens[8 * i : 8 * i + 4].mean(axis=0), blocks[i]) for i in range(50)]
    other = [head(tokens[8 * i : 8 * i + 4].mean(axis=0), blocks[i - 1]) for i in range(50)]
    auc = np.mean([a > b for a in own for b in other])
    assert auc > 0.95
    assert np.mean(own) > 0.5 > np.mean(other)


def test_audits_accept_the_honest_and_reject_invented_tokens_and_counts():
    head, rng = heads(), np.random.default_rng(2)
    blocks, tokens = trace(160, seed=3)
    honest = Tree(blocks, tokens, block=8)
    found = audit(honest.commitment, honest.prove, rng, head=head)
    assert (found.honest, found.opened) == (True, 32)
    noise = np.random.default_rng(4).normal(size=(160, D))
    invented = Tree(blocks, noise, block=8)
    assert "fit each other" in audit(invented.commitment, invented.prove, rng, head=head).why
    more = replace(honest.commitment, count=200)  # billed, and not in the tree
    assert "does not hold" in audit(more, lambda i: honest.prove(min(i, 159)), rng).why


def test_a_known_miss_reasoning_that_was_copied_passes():
    """The same honest trace twice: the bill doubles, and no leaf shows it."""
    head = heads()
    blocks, tokens = trace(80, seed=6)
    twice = Tree(np.tile(blocks, (2, 1)), np.tile(tokens, (2, 1)), block=8)
    assert audit(twice.commitment, twice.prove, np.random.default_rng(0), blocks=20, head=head).honest


def test_a_block_must_fit_the_answer():
    rng = np.random.default_rng(8)
    topic = rng.normal(size=D)
    blocks, tokens = trace(64, topic=topic)
    others = rng.normal(size=(200, D))
    near = topic + 0.5 * rng.normal(size=(200, D))
    head = fitted(np.tile(topic, (400, 1)), np.concatenate([near, others]), [True] * 200 + [False] * 200)
    tree = Tree(blocks, tokens, block=8)
    assert audit(tree.commitment, tree.prove, rng, answer=topic, answer_head=head).honest
    assert not audit(tree.commitment, tree.prove, rng, answer=-topic, answer_head=head).honest


def test_the_focal_loss_has_its_least_at_the_fit():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(300, D))
    b = a + rng.normal(size=(300, D)) * 1.5
    mixed = np.concatenate([b[:150], b[150:][::-1]])
    match = [True] * 150 + [False] * 150
    head = fitted(a, mixed, match, steps=4000)

    def loss(weight, bias):
        cosine = (a * mixed).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(mixed, axis=1)
        p = 1 / (1 + np.exp(-np.where(match, 1, -1) * (weight * cosine + bias)))
        return float(np.mean(-((1 - p) ** 2) * np.log(p)))

    best = loss(head.weight, head.bias)
    steps = [(0.3, 0), (-0.3, 0), (0, 0.1), (0, -0.1), (0.3, -0.1), (-0.3, 0.1)]
    assert all(best < loss(head.weight + dw, head.bias + db) for dw, db in steps)


def test_wrong_input_is_refused():
    for blocks, tokens, block in ((np.ones((1, 2)), np.zeros((3, 2)), 8), (np.ones((2, 2)), np.ones((3, 2)), 8)):
        with pytest.raises(InvalidInput):
            Tree(blocks, tokens, block=block)
    with pytest.raises(InvalidInput):
        caught(5, 6, 1)
    with pytest.raises(InvalidInput):
        fitted(np.ones((2, 3)), np.ones((2, 3)), [True, True])


@pytest.mark.parametrize("refused", [None, {"index": 0}])
def test_a_provider_that_opens_no_leaf_is_not_honest(refused):
    verdict = audit(Tree(*trace(20), block=8).commitment, lambda index: refused, np.random.default_rng(0))
    assert (verdict.honest, verdict.opened) == (False, 1)
    assert "was not opened" in verdict.why
