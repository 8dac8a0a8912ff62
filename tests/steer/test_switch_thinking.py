"""SwiReasoning: when it switches and what it feeds, by hand; what the cap on switches controls."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.core.steer import CONTINUE, FINISH, Internals, Rows, Snapshot  # noqa: E402
from budgeteer.steer import switch_thinking as switch  # noqa: E402
from budgeteer.strategies import switch_thinking  # noqa: E402
from helpers.insides import ask, reasoner  # noqa: E402

EOS, CLOSE, A, B, NEWLINE, OPEN = range(6)
PIECES = ("", "|", "a", "b", "\n", "^")
INSIDE = Internals(torch.eye(6), PIECES, EOS, lambda text: [PIECES.index(c) for c in text])


def steer(**changes):
    return switch(**{"switches": None, "window": 2, "alpha": 0.75, "beta": 0.5, "opening": "^"} | changes)


def ask_steer(it, state, logits, length, cap=100, closed=-1):
    now = Snapshot.of([length], cap=cap, closed=closed, logits=logits, model=INSIDE, close=lambda i: (CLOSE,))
    return it.step(state, now)


def play(it, shares, cap=100):
    """The trace of a model that says b with the given share, else a: the actions, and each time (latent, switches)."""
    state, actions, closed = it.init(Rows(("a",), np.array([cap]), 0)), [], -1
    for length, share in enumerate(shares):
        p = torch.zeros(1, 6)
        p[0, A], p[0, B] = 1 - share, share
        action, state = ask_steer(it, state, p.log(), length, cap, closed)
        actions.append((action, (bool(state.latent[0]), int(state.count[0]))))
        closed = length + 1 if action.decision[0] == FINISH else closed
    return actions


def test_switches_by_hand():
    """Entropy rises with the share up to 1/2. Latent at 0.5; 0.1 is below: explicit; 0.2 is above 0.1, but after one
    step only; 0.3 after two: latent; 0.05: explicit again."""
    actions = play(steer(), [0.5, 0.1, 0.2, 0.3, 0.05])
    assert [mode for _, mode in actions] == [(True, 0), (False, 1), (False, 1), (True, 1), (False, 2)]


def test_inputs_by_hand():
    actions = play(steer(), [0.5, 0.1, 0.2, 0.3, 0.4])
    fed = [action.embeddings[0].tolist() if action.soft[0] else None for action, _ in actions]
    assert fed[0] == pytest.approx([0, 0, 0.45, 0.45, 0.1, 0])
    t = 1 / 100
    share = 0.5 + 0.5 * t  # beta_t
    assert fed[1] == pytest.approx([0, 1 - share, share * 0.9, share * 0.1, 0, 0])
    assert fed[2] is None
    share = 0.75 + 0.25 * 3 * t  # alpha_t
    assert fed[3] == pytest.approx([0, 0, share * 0.7, share * 0.3, 0, 1 - share])
    assert fed[4] == pytest.approx([0, 0, 0.6, 0.4, 0, 0])  # latent goes on


def test_markers_are_not_taken_latently():
    it = steer()
    action, state = ask_steer(it, it.init(Rows(("a",), np.array([100]), 0)), torch.tensor([[1.0, 0, 2, 1, 0, 0]]), 0)
    assert torch.isneginf(action.logits[0]).tolist() == [True, True, False, False, False, False]
    action, state = ask_steer(it, state, torch.tensor([[0.0, 9, 0, 0, 0, 0]]), 1)  # wants to close: an explicit step
    assert not action.soft[0]
    assert not action.drawn[0]
    assert state.count[0] == 1


def test_the_cap_on_switches_closes_the_thinking():
    actions = play(steer(switches=2), [0.5, 0.1, 0.2, 0.3, 0.05, 0.3, 0.3])
    decisions = [int(action.decision[0]) for action, _ in actions]
    assert decisions == [CONTINUE] * 4 + [FINISH] + [CONTINUE] * 2
    assert not any(action.soft[0] for action, _ in actions[4:])


def test_without_cap_and_with_an_endless_window_it_never_goes_back():
    rng = np.random.default_rng(0)
    actions = play(steer(window=math.inf), rng.uniform(0.01, 0.5, 300), cap=1000)
    latent = [mode[0] for _, mode in actions]
    assert latent == sorted(latent, reverse=True)
    assert not latent[-1]


def test_on_the_reasoner_thinking_is_never_shorter_with_more_switches():
    model = reasoner()
    lengths = []
    for seed in range(6):
        own = []
        for switches in (1, 2, 4, None):
            answer, _ = ask(switch_thinking(switches, window=3), model, output=80, seed=seed)
            own.append(len(answer.traces[0].split("</think>")[0]))
        assert own == sorted(own)
        lengths.append(own)
    assert any(own[0] < own[-1] for own in lengths)  # the cap binds somewhere


def test_bad_settings_are_refused():
    with pytest.raises(InvalidInput, match="switches=0"):
        switch_thinking(0)


def test_symbols_are_fed_as_tokens_and_change_no_mode():
    """a and b are single letters, so each step is an explicit one; a word is not."""
    shares = [0.5, 0.1, 0.2, 0.3, 0.05]
    plain, symbols = play(steer(), shares), play(steer(symbols=True), shares)
    assert [mode for _, mode in symbols] == [mode for _, mode in plain]
    assert any(action.soft[0] for action, _ in plain)
    assert not any(action.soft[0] for action, _ in symbols)
    words = Internals(torch.eye(6), ("", "|", "and", "b", "\n", "^"), EOS, INSIDE.encode)
    p = torch.tensor([[0.0, 0.0, 0.6, 0.4, 0.0, 0.0]])
    it = steer(symbols=True)
    state = it.init(Rows(("a",), np.array([100]), 0))
    for likeliest, soft in ((p, True), (p.flip(0)[:, [0, 1, 3, 2, 4, 5]], False)):
        now = Snapshot.of([0], cap=100, closed=-1, logits=likeliest.log(), model=words, close=lambda i: (CLOSE,))
        action, _ = it.step(state, now)
        assert bool(action.soft[0]) is soft
