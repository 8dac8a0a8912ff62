"""SwiReasoning: thinking switches between real tokens and mixed embeddings by the entropy of the next token.

Paper: "SwiReasoning: Switch-Thinking in Latent and Explicit for Pareto-Superior Reasoning LLMs", arXiv 2510.05069.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.steer import Action, Internals, Mask, Need, Rows, Snapshot, Steer, Tensor, shared
from budgeteer.steer.kit import decisions, thinking

_SYMBOL = re.compile(r"\d[\d.,]*|[A-Za-z]|\\[A-Za-z]+|[-+*/=<>^_%!|&$(){}\[\]\u00b1\u00b7\u00d7\u00f7\u2200-\u22ff]+")
"""A number, a single letter, a LaTeX command, or operators and brackets."""


@dataclass(frozen=True, slots=True)
class Mode:
    """Where each row is: begun or not, latent or not, its reference entropy in nats, steps since it switched, switches
    to explicit thinking so far."""

    begun: Mask
    latent: Mask
    reference: F64
    dwell: I64
    count: I64


@shared
def switch_thinking(
    switches: int | None = 2,
    *,
    window: float = 512,
    alpha: float = 1.0,
    beta: float = 0.7,
    opening: str = "<think>",
    symbols: bool = False,
) -> Steer:
    """Think in mixed embeddings while the model is unsure of its way, in tokens while it is sure.

    With p_t the next-token distribution, H_t its entropy, E the input embeddings and T the row's cap: a row starts
    latent with reference H = H_0. A latent step feeds ``p_t' E``, an explicit one the drawn token. A latent row goes
    explicit when H_t < H; an explicit one goes latent when H_t > H after at least ``window`` steps; either sets
    H = H_t. The first latent input is 0.9 of the mix and 0.1 of a newline; the first after going latent is
    ``a_t mix + (1 - a_t) E[opening]`` with ``a_t = alpha + (1 - alpha) t / T``; the first after going explicit is
    ``b_t mix + (1 - b_t) E[close]``, alike in ``beta``. When the count of latent-to-explicit switches reaches
    ``switches``, FINISH: under one seed, thinking is never shorter with more switches allowed.

    The official code's lock looks at drawn tokens only, so it closes the thinking more than once. Here a closed row
    stays explicit, and the marker and the end of the sequence are never taken latently (the model would not see them):
    where the likeliest token is one of them, the step is an explicit one. So it is, with ``symbols``, where the
    likeliest token is a symbol of mathematics (the code looks at the drawn one); modes and switches stay as they are.
    A mix is far from what most models were trained on: expect the control, not the accuracy, on models that were never
    shown one.

    Args:
        switches: C_max, >= 1; None = no cap.
        window: W, steps, >= 0.
        alpha, beta: in [0, 1].
        opening: a marker that is one token; other texts are left out of the mix.
        symbols: whether numbers, single letters, operators and LaTeX commands are always fed as tokens.
    """
    if not (0 <= alpha <= 1 and 0 <= beta <= 1 and window >= 0 and (switches is None or switches >= 1)):
        raise InvalidInput(
            f"switches={switches}, window={window}, alpha={alpha}, beta={beta}; give at least 1 switch or None, "
            "a window of 0 or more, alpha and beta in [0, 1]"
        )

    def init(rows: Rows) -> Mode:
        n = len(rows.keys)
        none = np.zeros(n, np.bool_)
        return Mode(none, none.copy(), np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64))

    def step(state: Mode, now: Snapshot) -> tuple[Action, Mode]:
        import torch

        begun, latent, reference = state.begun.copy(), state.latent.copy(), state.reference.copy()
        dwell, count = state.dwell.copy(), state.count.copy()
        probability = torch.log_softmax(now.logits.float(), -1).exp()
        entropy = torch.special.entr(probability).sum(-1).tolist()
        likeliest = now.logits.argmax(-1).tolist()
        # in double precision a row's mix does not depend on the rows beside it
        embed = now.model.embed
        embeddings = (probability.double().to(embed.device) @ embed.double()).to(embed)
        # greedy rows take the argmax, which no division changes
        warm = np.where(now.temperature > 0, now.temperature, 1.0).tolist()
        tempered = now.logits / now.logits.new_tensor(warm)[:, None]
        soft, finish, open_ = np.zeros(len(now.row), np.bool_), np.zeros(len(now.row), np.bool_), thinking(now)
        exact = _symbols(now.model.pieces) if symbols else frozenset[int]()
        for i, row in enumerate(now.row.tolist()):
            marker = now.close(i)
            endings = [token for token in (now.model.eos, *marker[:1]) if token >= 0]
            tempered[i, endings] = -math.inf
            marked, first = likeliest[i] in endings, not begun[row]
            if first:
                begun[row], latent[row], reference[row] = True, open_[i], entropy[i]
            if not open_[i]:
                latent[row] = False
                continue
            dwell[row] += not first
            if latent[row]:
                switched = marked or (not first and entropy[i] < reference[row])
            else:
                switched = entropy[i] > reference[row] and dwell[row] >= window and not marked
            if switched:
                latent[row], reference[row], dwell[row] = not latent[row], entropy[i], 0
                count[row] += not latent[row]
                if not latent[row] and switches is not None and count[row] >= switches:
                    finish[i] = True
                    continue
            share = now.length[i] / now.cap[i]
            if latent[row] and first:
                embeddings[i] = _blend(now.model, embeddings[i], now.model.encode("\n"), 0.9)
            elif latent[row] and switched:
                tokens = now.model.encode(opening)
                embeddings[i] = _blend(now.model, embeddings[i], tokens, alpha + (1 - alpha) * float(share))
            elif switched and not marked:
                embeddings[i] = _blend(now.model, embeddings[i], marker, beta + (1 - beta) * float(share))
            soft[i] = (latent[row] or (switched and not marked)) and likeliest[i] not in exact
        action = Action(decisions(finish), logits=tempered, drawn=soft.copy(), embeddings=embeddings, soft=soft)
        return action, Mode(begun, latent, reference, dwell, count)

    needs = frozenset({Need.TOKENS, Need.MARKERS, Need.TEXT, Need.LOGITS, Need.EMBEDDINGS})
    return Steer(init, step, needs)


@lru_cache(8)
def _symbols(pieces: tuple[str, ...]) -> frozenset[int]:
    """Ids of the tokens that are symbols of mathematics.

    >>> pieces = ("7", " 42", "x", " +", "\\\\frac", "})", "the", " wait", "\\n", "")
    >>> [pieces[i] for i in sorted(_symbols(pieces))]
    ['7', ' 42', 'x', ' +', '\\\\frac', '})']
    """
    return frozenset(i for i, piece in enumerate(pieces) if _SYMBOL.fullmatch(piece.strip()))


def _blend(model: Internals, mix: Tensor, marker: list[int] | tuple[int, ...], share: float) -> Tensor:
    """``share`` of the mix and the rest of the marker's embedding; all of the mix if it is not one token."""
    return mix if len(marker) != 1 else share * mix + (1 - share) * model.embed[marker[0]]
