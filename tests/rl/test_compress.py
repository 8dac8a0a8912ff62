"""TRAAC's compression: steps, scores and evictions by hand and against a slow loop; rounds, gradients and attention."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ENDED
from budgeteer.rl import recipes
from budgeteer.rl.branch import CUT_AT, TRACE, branched, numbered
from budgeteer.rl.compress import (
    ATTENTION,
    CONTROL,
    STEP,
    Compression,
    evicted,
    importance,
    kept,
    pieces_of,
    read,
    steps_in,
    uniformity,
)
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.logprobs import attention_of_last, of_heads, token_logprobs
from budgeteer.rl.rollouts import Role, Rollouts
from helpers.toys import MARKERS, toy_model
from helpers.training import build, config, said

A = np.array


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "want"),
    [
        # phrases may be of several tokens, and the longer one counts: "But wait", not "But" and then "wait"
        (["a", " But", " wait", " b", " Hold", " on", "!", "</think>"], [0, 1, 1, 1, 2, 2, 2, -1]),
        # whole words, as they are written
        (["Sole", " wait", " Nowhere", " b", "</think>"], [0, 0, 0, 0, -1]),
        # a token that holds the end of one step and the beginning of the next belongs to the next
        (["a", ". So b", " c", "</think>"], [0, 1, 1, -1]),
        # the first word begins the first step; the tag before it and a line behind the tag belong to none
        (["<think>", "\n", "So", " a", " Thus", " b", "\n</", "think", ">\n"], [-1, -1, 0, 0, 1, 1, -1, -1, -1]),
        # no word of control: lines. No tag: the last token is the one that closes
        (["a", "\n\n", "b\n", "c", "[end]"], [0, 0, 1, 2, -1]),
        # one line without any: behind semicolons and sentences
        (["9+4", "=13;", "?13", "-2=1", ".5; ", "3", "</think>"], [0, 0, 1, 1, 1, 2, -1]),
        (["</think>"], [-1]),
        ([], []),
    ],
)
def test_where_steps_begin(pieces, want) -> None:
    assert steps_in(pieces).tolist() == want


def test_every_word_of_control_begins_a_step() -> None:
    for word in CONTROL:
        assert steps_in(["a", f" {word}", " b", "</think>"]).tolist() == [0, 1, 1, -1], word


# -- what is left out --------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    step = A([-1, 0, 0, 1, 2, 2, -1])
    scores = importance(A([9.0, 0.2, 0.4, 0.1, 0.0, 0.02, 9.0]), step)
    assert scores.tolist() == pytest.approx([0.3, 0.1, 0.01])
    shares = [0.3 / 0.41, 0.1 / 0.41, 0.01 / 0.41]
    alike = -sum(p * math.log(p) for p in shares) / math.log(3)
    assert uniformity(scores) == pytest.approx(alike)
    assert 0.6 < alike < 0.7
    # three steps at a rate of 1: floor(3 (1 - 0.61)) = 1, the one that counts least; at 3/4 none: floor(0.87)
    assert evicted(scores, 1.0).tolist() == [False, False, True]
    assert not evicted(scores, 0.75).any()
    left = kept(A([9.0, 0.2, 0.4, 0.1, 0.0, 0.02, 9.0]), step, 1.0)
    assert left.tolist() == [True, True, True, True, False, False, True]


def test_at_most_four_fifths_are_left_out_and_the_earlier_of_equals_first() -> None:
    scores = A([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert uniformity(scores) == 0
    assert np.flatnonzero(~evicted(scores, 1.0)).tolist() == [2, 9]
    assert evicted(scores, 0.5).sum() == 5


@pytest.mark.parametrize("scores", [[1.0] * 9, [0.0] * 9, [5.0], [], [math.nan] * 4])
def test_scores_that_say_nothing_leave_all(scores) -> None:
    assert uniformity(A(scores)) == 1
    assert not evicted(A(scores), 1.0).any()


def slow(attention, step, rate):
    """The rule once more in plain Python."""
    members = {}
    for place, number in enumerate(step):
        if number >= 0:
            members.setdefault(number, []).append(place)
    scores = {number: sum(attention[place] for place in places) / len(places) for number, places in members.items()}
    if len(scores) < 2:
        return [True] * len(step)
    shares = [score / sum(scores.values()) for score in scores.values()]
    alike = -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(shares))
    count = 0 if alike > 0.8 else math.floor(len(scores) * min(rate * (1 - alike), 0.8))
    gone = sorted(scores, key=lambda number: (scores[number], number))[:count]
    return [number not in gone for number in step]


def test_the_rule_is_that_of_a_slow_loop_on_random_attention() -> None:
    rng, some = np.random.default_rng(0), 0
    for _ in range(300):
        steps = int(rng.integers(1, 12))
        step = np.repeat(np.arange(steps), rng.integers(1, 6, steps))
        step = np.concatenate([[-1], step, [-1]])
        weight = rng.gamma(0.2, size=steps)  # some steps get most of it
        attention = rng.random(len(step)) * np.where(step < 0, 5.0, weight[np.maximum(step, 0)])
        rate = float(rng.choice([0.25, 0.5, 0.75, 1.0]))
        got = kept(attention, step, rate).tolist()
        assert got == slow(attention.tolist(), step.tolist(), rate)
        some += not all(got)
    assert some > 60


def test_what_counts_is_kept_more_often_than_by_chance() -> None:
    """Traces of which three steps of ten are of use, and scores that say so with noise."""
    rng, useful_kept, share_kept = np.random.default_rng(1), 0.0, 0.0
    for _ in range(400):
        useful = rng.permutation(10) < 3
        out = evicted(rng.gamma(0.5, size=10) * np.where(useful, 12.0, 1.0), 0.75)
        useful_kept += (~out[useful]).mean() / 400
        share_kept += (~out).mean() / 400
    assert share_kept < 0.85  # chance keeps as many of the useful ones
    assert useful_kept > share_kept + 0.1


# -- the round ---------------------------------------------------------------------------------------------------------


def traces(verified=(1.0, 1.0, 0.0, 1.0)) -> Rollouts:
    """Four rollouts of one prompt: thinking of steps 0, 1 (of two tokens), 2, closed at 5, and an answer."""
    tokens = A([[11, 12, 13, 14, 3, 20, 0]] * 4)
    length = np.full(4, 6)
    role = np.where(np.arange(7) < 6, Role.SAMPLED, Role.NONE).astype(np.int8)
    rows = Rollouts(
        ("a",), ((1, 2),), np.zeros(4, int), tokens, length, np.full(4, 9), np.zeros((4, 7), np.float32),
        np.broadcast_to(role, (4, 7)), np.full((4, 7), 2, np.int32), np.full(4, ENDED, np.int8), A([5, 5, 5, -1]),
        length, A(verified), A(verified), np.ones(4), 2,
        more={
            STEP: np.broadcast_to(A([0, 1, 1, 2, -1, 0, 0]), (4, 7)),
            ATTENTION: np.broadcast_to(A([0.9, 0.001, 0.0, 0.01, 5.0, 0, 0], np.float32), (4, 7)),
        },
    )  # fmt: skip
    return numbered(rows, 0, A([9]))


def test_right_traces_that_closed_their_thinking_go_on_without_what_counts_least() -> None:
    asked = Compression((1.0, 1.0, 1.0)).requests(traces(), 9, [])
    # of 3 steps floor(3 * 0.8): two; the wrong trace and the one that never closed have no branch
    assert [head.tolist() for head in asked.heads] == [[11, 3], [11, 3]]
    assert (asked.columns[TRACE].tolist(), asked.columns[CUT_AT].tolist()) == ([0, 1], [0, 0])
    assert [when.tolist() for when in asked.versions] == [[2, 2], [2, 2]]
    assert asked.learnt
    assert Compression().caps(asked, 9).tolist() == [7, 7]


def test_the_rate_is_that_of_the_prompts_difficulty() -> None:
    rates = (0.0, 0.4, 1.0)
    # 3 of 4 are right: medium; floor(3 * 0.4) = 1 step
    assert Compression(rates).requests(traces(), 9, []).heads[0].tolist() == [11, 14, 3]
    assert not len(Compression(rates).requests(traces((1.0,) * 4), 9, []).of)  # easy: nothing is left out
    assert Compression(rates).requests(traces((1.0, 0, 0, 0)), 9, []).heads[0].tolist() == [11, 3]
    for bad in ((1.0, 1.0), (0.5, 0.5, 1.5), (0.5, 0.5, math.nan)):
        with pytest.raises(InvalidInput, match="three shares"):
            Compression(bad)


def test_what_a_steer_forced_is_read_again_and_not_learnt() -> None:
    rows = traces()
    role = rows.role.copy()
    role[:, 4] = Role.FORCED
    asked = Compression((1.0, 1.0, 1.0)).requests(dataclasses.replace(rows, role=role), 9, [])
    assert asked.versions[0].tolist() == [2, -1]


def test_a_step_with_its_round_of_compressed_traces() -> None:
    """Only answers are on the bill; history and allocator see the traces alone; the heads carry gradient."""
    recipe = dataclasses.replace(recipes.get("traac"), branch=Compression((1.0, 1.0, 1.0)))
    t = build(recipe, c=config(prompts=2, group=2, max_tokens=9), budget=None)
    control, model = t.control, t.model
    step = control.begin()
    work = step.next()
    n = int(work.view.plan.units.sum())
    rows = traces((1.0,) * 4).take(A([0, 1, 2, 0])[:n])
    keys = work.view.items.keys
    rows = dataclasses.replace(rows, keys=keys, prompts=((1, 2),) * 2, group=np.repeat([0, 1], work.view.plan.units))
    step.add(dataclasses.replace(rows, more={name: rows.more[name] for name in (STEP, ATTENTION)}))
    work = step.next()
    keys, prompts, units = work.requests([(1, 2)] * 12)
    assert (set(prompts), units.tolist()) == ({(1, 2, 11, 3)}, [1] * n)
    k = len(units)
    tokens = np.full((k, 1), 20)
    answers = Rollouts(
        tuple(keys), tuple(prompts), np.arange(k), tokens, np.ones(k, int), work.max_tokens,
        np.full((k, 1), -1.0, np.float32), np.full((k, 1), Role.SAMPLED, np.int8), np.full((k, 1), -1, np.int32),
        np.full(k, ENDED, np.int8), np.full(k, -1), np.full(k, -1), np.full(k, np.nan), np.full(k, np.nan), np.ones(k),
        0,
    )  # fmt: skip
    part = of_heads(model, work.whole(answers), 1.0, MARKERS)
    assert part.sampled[:, :3].all()
    want, _ = token_logprobs(model, part.prompts_of(A([0])), part.tokens[:1], part.length[:1], 1.0)
    np.testing.assert_allclose(part.logprob[0, :2], want[:2].detach(), atol=1e-6)
    assert part.logprob[0, 2] == -1.0  # what was sampled keeps its own
    assert part.closed.tolist() == [2] * k  # within the head
    blank = {STEP: np.full((k, 3), -1), ATTENTION: np.zeros((k, 3), np.float32)}
    step.add(dataclasses.replace(part, more={**part.more, **blank}).scored(A([1.0, 0.0, 1.0, 0.0])[:k]))
    assert step.next() is None
    rollouts, view = step.collected()
    assert branched(rollouts).sum() == k
    update = control.learn(rollouts, view)
    control.done(view, update)
    assert control.progress.used == 6 * n + k == control.progress.trained
    assert control.history.rollouts.sum() == n
    assert control.reward_state.length.tolist() == [6.0] * n + [3.0] * (k // 2)  # lengths of right rows, branches too
    assert set(control.reward_state.band.tolist()) == {0.0}
    carried = (rollouts.role[update.rows] == Role.CARRIED).any(axis=1)
    assert carried.any()
    before = [p.detach().clone() for p in model.parameters()]
    t._update(update)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_trainer_compresses_by_itself_and_its_bill_holds() -> None:
    """A toy policy that is always right: its rows that closed their thinking are read, and some of them compressed."""
    recipe = dataclasses.replace(recipes.get("traac"), branch=Compression((1.0, 1.0, 1.0)))
    seen = []
    t = build(
        recipe, seed_of_model=3, budget=4000, reward=lambda index, rows: np.ones(len(rows)),
        c=config(steps=6, max_tokens=20),
    )  # fmt: skip
    with torch.no_grad():
        for block in t.model.blocks:
            block.qkv.mul_(6.0)  # attention that tells tokens apart
    learn = t.control.learn
    t.control.learn = lambda rollouts, view, lost=0: (seen.append(rollouts), learn(rollouts, view, lost))[1]
    progress = t.run()
    again = [rows.take(branched(rows)) for rows in seen]
    assert sum(map(len, again)) > 0
    for rows, branch in zip(seen, again, strict=True):
        for i in range(len(branch)):
            trace = int(np.flatnonzero(~branched(rows) & (rows.more[TRACE] == branch.more[TRACE][i]))[0])
            head = int((branch.role[i] == Role.CARRIED).sum())
            whole = rows.tokens[trace, : rows.closed[trace]].tolist()
            left = iter(whole)
            assert all(token in left for token in branch.tokens[i, :head].tolist())  # a subsequence of the thinking
            assert head < len(whole)
            assert branch.closed[i] == head
            assert branch.length[i] <= branch.cap[i] <= 20
    assert progress.used == sum(rows.used for rows in seen) <= 4000
    assert all(rows.billed.sum() == rows.used for rows in seen)  # a head is on the bill of its trace alone
    assert progress.trained + progress.wasted <= progress.used


def test_a_trainer_without_texts_refuses_it() -> None:
    with pytest.raises(InvalidInput, match="needs attention of each token, and this trainer gives entropy"):
        build("traac", decode=None)
    with pytest.raises(InvalidInput, match="needs attention"):
        Control(recipes.get("traac"), TrainConfig(), [(1, 2)], ["a"])


# -- attention ---------------------------------------------------------------------------------------------------------


def test_attention_is_that_of_transformers(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    from budgeteer.engine.llama import save
    from budgeteer.models.attention import attention_of_last as theirs

    model = toy_model(sharp=3.0)
    save(model, tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    loaded.train()
    before, tokens = [0, 5, 6], [7, 8, 9, 5, 3]
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        layers = plain(torch.tensor([before + tokens]), output_attentions=True).attentions
    want = torch.stack([layer[0, :, -1] for layer in layers]).mean(dim=(0, 1))[3:].numpy()
    assert want.sum() < 1
    np.testing.assert_allclose(attention_of_last(model, before, tokens), want, atol=1e-6)
    np.testing.assert_allclose(theirs(loaded, before, tokens), want, atol=1e-6)
    assert loaded.training
    assert loaded.config._attn_implementation == "sdpa"


def test_what_is_read_of_a_rollout() -> None:
    rows = dataclasses.replace(traces(), more={}, closed=A([5, 5, 5, -1]))
    asked = []

    def attend(prompt, tokens):
        asked.append((tuple(prompt), list(tokens)))
        return np.arange(len(tokens)) / 10

    texts = {11: "a", 12: " So", 13: " b", 14: " Thus", 3: "</think>", 20: " 7"}
    part = read(numbered(rows, 0, A([9])), lambda some: ["".join(map(texts.get, row)) for row in some], attend, [8, 8])
    assert asked == [((1, 2), [11, 12, 13, 14, 8, 8, 3])] * 2  # right, and closed
    assert part.more[ATTENTION][0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0, 0, 0])
    assert part.more[STEP][0].tolist() == [0, 1, 1, 2, -1, -1, -1]
    assert (part.more[STEP][2:] == -1).all()


def test_pieces_read_as_behind_the_token_before_them() -> None:
    def decode(rows):  # as tokenizers that drop a blank at the beginning of a text
        return [said([row])[0].lstrip() for row in rows]

    assert pieces_of(decode, [5, 6, 8]) == ["Wait,", " So", " i"]
    assert pieces_of(decode, []) == []
