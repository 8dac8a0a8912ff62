"""Auxiliary-loss-free load balancing: a bias an expert that decides who is chosen, never how much they count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, whole
from budgeteer.core.router import Router


@dataclass(frozen=True, slots=True)
class Bias:
    """The bias of every expert [E], mean 0, and the updates so far."""

    bias: F64
    updates: int


def load_balance(
    chosen: int, rate: float = 0.001, rule: Literal["sign", "proportional"] = "sign", decay: float = 0.0
) -> Router:
    """Token t goes to the K experts with the largest ``score_tk + bias_k``; their weights are the raw scores.

    After a step, with loads A_k and their mean L: ``b_k += u sign(L - A_k)`` (sign) or ``b_k += u (L - A_k) / L``
    (proportional), with ``u = rate / updates^decay``; then the mean is taken off, since a constant changes nothing.
    It is one sub-gradient step on the dual of "maximise the summed score, every expert gets L tokens", with prices
    -b: a token only ever moves to an expert with less load than the one it leaves (proportional), so the same rule
    balances requests over servers or rollouts over workers.

    When it helps: many small decisions with a slowly changing skew, and an auxiliary loss would disturb what the
    scores are learnt for. When not: one batch must be balanced exactly (solve the assignment); the rate is large
    against the gaps between scores: a constant one ends in a cycle of about its own size (``decay`` = 1 ends it when
    the stream does not drift).

    Papers: "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", arXiv 2408.15664; as primal-dual
    method arXiv 2512.03915.

    Args:
        chosen: K experts a token, >= 1.
        rate: u, in units of score, > 0.
        rule: ``"sign"`` as DeepSeek-V3 has it, or ``"proportional"``.
        decay: exponent in [0, 1] by which the rate falls with the updates.

    >>> router = load_balance(1, rate=0.2)
    >>> scores = np.array([[0.9, 0.1], [0.8, 0.6], [0.7, 0.2]])
    >>> state = router.init(2)
    >>> router.route(state, scores)[0].ravel()
    array([0, 0, 0])
    >>> state = router.observe(state, np.array([3, 0]))
    >>> router.route(state, scores)  # the second token moves; its weight is its score, without the bias
    (array([[0],
           [1],
           [0]]), array([[0.9],
           [0.6],
           [0.7]]))
    """
    if whole("chosen", chosen) < 1 or not 0 < rate < np.inf or not 0 <= decay <= 1:
        raise InvalidInput(f"load_balance(chosen={chosen}, rate={rate}, decay={decay}); need >= 1, > 0, in [0, 1]")
    if rule not in ("sign", "proportional"):
        raise InvalidInput(f"load_balance(rule={rule!r}); the rules are 'sign' and 'proportional'")

    def init(experts: int) -> Bias:
        if experts < chosen:
            raise InvalidInput(f"load_balance chooses {chosen} of {experts} experts; give at least as many")
        return Bias(np.zeros(experts), 0)

    def route(state: Bias, scores: F64) -> tuple[I64, F64]:
        if scores.ndim != 2 or scores.shape[1] != len(state.bias):
            raise InvalidInput(f"scores of shape {scores.shape} for {len(state.bias)} experts; give [tokens, experts]")
        if not np.all(np.isfinite(scores)):
            raise InvalidInput("load_balance got scores that are not finite; shut out an expert by one far below 0")
        top = np.argsort(-(scores + state.bias), axis=1, kind="stable")[:, :chosen]
        return top, np.take_along_axis(scores, top, axis=1)

    def observe(state: Bias, load: F64 | I64) -> Bias:
        if np.shape(load) != state.bias.shape:
            raise InvalidInput(f"loads of shape {np.shape(load)} for {len(state.bias)} experts")
        if not np.all(np.isfinite(load) & (np.asarray(load) >= 0)):
            raise InvalidInput(f"load_balance got loads {np.asarray(load).tolist()}; they are finite counts, 0 or more")
        mean = float(np.mean(load))
        if mean <= 0:
            return state  # nothing was routed, so nothing is known
        missing = mean - np.asarray(load, dtype=np.float64)
        step = rate / (state.updates + 1) ** decay
        moved = state.bias + step * (np.sign(missing) if rule == "sign" else missing / mean)
        return Bias(moved - moved.mean(), state.updates + 1)

    return Router(init, route, observe)
