"""The rules of steers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.check._common import CheckFailed, same
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.steer import LATE, Action, Decision, Internals, Need, Rows, Snapshot, State, Steer, join, take

LONGEST = 240
PIECES = ("", "|", "\n", "^", *"abcdefghijklmnopqrst")
"""Tokens of the simulated rows; the first one ends the sequence, the second one closes the thinking."""


def check_steer(
    steer: Steer, *, rows: Sequence[int] = (0, 1, 33), seed: int = 0, model: Internals | None = None, layers: int = 2
) -> None:
    """Run a steer over simulated rows and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``every`` >= 1, and ``needs`` are known; an action has one entry per row of the snapshot, of the right type:
    decisions of :class:`Decision` as int8, tokens and rows that exist, a finite logit in each row that draws from its
    logits, caps >= 0; a steer without the need changes no logits and feeds no embedding; the same rows and snapshots
    give the same actions; a step leaves the state that it was given untouched; no rows and empty snapshots work;
    states are columns: rows decide the same in a state that was joined with others' and that others were taken out
    of; ``kept_weight`` gives one finite weight >= 0 per row, ``report`` one note per row.

    Args:
        steer: the steer to check.
        rows: how many rows it is run on, one run after the other; four rows have one key.
        seed: of the simulated rows.
        model: facts of a model, for steers that are bound to one; None = one of 24 tokens.
        layers: of that model, for the shape of hidden states.
    """
    if not isinstance(steer, Steer):
        raise CheckFailed(f"the factory made {steer!r}, no Steer")
    if steer.every < 1:
        raise CheckFailed(f"Steer.every is {steer.every}; ask after 1 or more tokens")
    if not steer.needs <= frozenset(Need):
        raise CheckFailed(f"Steer.needs has {sorted(map(str, steer.needs - frozenset(Need)))}; take members of Need")
    world = _World(steer, model or _model(steer), layers, seed)
    for n in rows:
        first, second = world.run(n), world.run(n)
        if not same(first, second):
            raise CheckFailed("the same rows, seed and snapshots gave different decisions; draw from Rows.seed only")
    world.columns(max(rows))


def _model(steer: Steer) -> Internals:
    embed = None
    if not steer.needs.isdisjoint(LATE):
        import torch

        embed = torch.eye(len(PIECES))
    return Internals(embed, PIECES, 0, lambda text: [PIECES.index(c) for c in text if c in PIECES])


class _Plan(NamedTuple):
    """What simulated rows do unless they are steered: caps, where they close and answer, tokens, and margins."""

    rows: Rows
    closes: I64
    answers: I64
    tokens: I64
    margins: NDArray[np.float32]


class _World:
    """Simulated rows of a steer."""

    def __init__(self, steer: Steer, model: Internals, layers: int, seed: int) -> None:
        self.steer, self.model, self.layers, self.seed = steer, model, layers, seed

    def plan(self, n: int, turn: int = 0) -> _Plan:
        """Rows that sample up to LONGEST tokens; half of them close and then answer."""
        rng = np.random.default_rng([self.seed, n, turn])
        rows = Rows(tuple(f"item{i // 4}" for i in range(n)), rng.integers(60, LONGEST, n), self.seed)
        closes = np.where(rng.random(n) < 0.5, rng.integers(10, 120, n), 10**6)
        answers = closes + rng.integers(1, 40, n)
        tokens = rng.integers(2, len(self.model.pieces), (n, LONGEST + 1))
        return _Plan(rows, closes, answers, tokens, rng.random((n, LONGEST + 1)).astype(np.float32))

    def run(self, n: int) -> list[Any]:
        """Actions of all askings of n rows, as plain data."""
        plan, steer, actions = self.plan(n), self.steer, list[Any]()
        state, running = steer.init(plan.rows), np.arange(n)
        for length in range(0, LONGEST + 1, steer.every):
            running = running[plan.rows.max_tokens[running] > length]
            action, after = self.ask(state, plan, running, running, length, n)
            actions.append(_data(action))
            state = after
            if action.decision is not None:
                running = running[action.decision == Decision.CONTINUE]
        self._weights(state, n)
        return actions

    def ask(self, state: State, plan: _Plan, where: I64, running: I64, length: int, size: int) -> tuple[Action, State]:
        """One asking about the rows ``running`` of the plan, which are ``where`` in the state of ``size`` rows."""
        steer, before = self.steer, copy.deepcopy(state)
        snapshot = self.snapshot(plan, where, running, length, size)
        result: Any = steer.step(state, snapshot)
        if not same(state, before):
            raise CheckFailed("step changed the state it was given; copy before writing")
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], Action):
            raise CheckFailed(f"step returned {type(result).__name__}; return (Action, state)")
        self._look(result[0], snapshot)
        return result[0], result[1]

    def snapshot(self, plan: _Plan, where: I64, running: I64, length: int, size: int) -> Snapshot:
        m, needs = len(running), self.steer.needs

        def reached(at: I64) -> I64:
            return np.where(at[running] <= length, at[running], -1)

        logits = hidden = None
        if self.steer.late:
            import torch

            # a function of the row and its length, however many rows are asked about
            each = [torch.Generator().manual_seed(int(1000 * row + length)) for row in running.tolist()]
            vocab, width = self.model.embed.shape
            shapes = {"logits": (vocab,), "hidden": (self.layers + 1, width)}
            made = {
                name: torch.stack([torch.randn(shape, generator=g) for g in each]) if m else torch.zeros((0, *shape))
                for name, shape in shapes.items()
            }
            logits = 3 * made["logits"]
            hidden = made["hidden"] if Need.HIDDEN in needs else None
        marker = tuple(self.model.encode("|")) or (1,)
        last = np.where(length, plan.tokens[running, max(length - 1, 0)], -1)
        margin = partial(_read, plan.margins, running, length)
        return Snapshot.of(
            np.full(m, length),
            row=where,
            cap=plan.rows.max_tokens[running],
            closed=reached(plan.closes),
            answered=reached(plan.answers),
            last=last,
            group=np.zeros(size, np.int64),
            **({"margin": margin} if Need.MARGIN in needs else {}),
            tokens=lambda i: plan.tokens[running[i], :length],
            close=lambda i: marker,
            model=self.model,
            logits=logits,
            hidden=hidden,
        )

    def _look(self, action: Action, now: Snapshot) -> None:
        """The rules of one action."""
        m, vocab = len(now.row), len(self.model.pieces)
        decision = action.decision
        if decision is not None:
            if decision.dtype != np.int8 or decision.shape != (m,):
                given = f"{decision.dtype} of shape {decision.shape}"
                raise CheckFailed(f"the decisions are {given}, expected int8 of shape ({m},): one decision a row")
            if not np.all(np.isin(decision, list(Decision))):
                raise CheckFailed(f"the decisions are {sorted(set(decision.tolist()))}; take members of Decision")
        for name, least, most in (("force", -1, vocab - 1), ("cap", 0, None)):
            values = getattr(action, name)
            if values is not None and (
                values.shape != (m,)
                or values.dtype.kind not in "iu"
                or np.any(values < least)
                or (most is not None and np.any(values > most))
            ):
                raise CheckFailed(f"Action.{name} is {values.tolist()}; one whole number >= {least} for {m} rows")
        self._tensor("logits", action.logits, "drawn", action.drawn, Need.LOGITS, (m, vocab))
        self._tensor("embeddings", action.embeddings, "soft", action.soft, Need.EMBEDDINGS, (m, *self._width()))
        if action.logits is not None:
            used = np.ones(m, np.bool_) if action.drawn is None else action.drawn
            finite = action.logits.isfinite().any(1).numpy() & ~action.logits.isnan().any(1).numpy()
            if np.any(used & ~finite):
                raise CheckFailed("Action.logits excludes every token of a row that draws from it; leave one finite")

    def _width(self) -> tuple[int, ...]:
        return (self.model.embed.shape[1],) if self.model.embed is not None else ()

    def _tensor(self, name: str, values: Any, mask_name: str, mask: Any, need: Need, shape: tuple[int, ...]) -> None:
        if values is None:
            return
        if need not in self.steer.needs:
            raise CheckFailed(f"the action has {name}, and Need.{need.name} is not among its needs")
        if tuple(values.shape) != shape:
            raise CheckFailed(f"Action.{name} has shape {tuple(values.shape)}, expected {shape}")
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != shape[:1]):
            raise CheckFailed(f"Action.{mask_name} is {mask.dtype} of shape {mask.shape}, expected bool {shape[:1]}")

    def _weights(self, state: State, n: int) -> None:
        """One weight and one note a row."""
        if self.steer.kept_weight is not None:
            weight: F64 = self.steer.kept_weight(state)
            if weight.shape != (n,) or not np.all(np.isfinite(weight)) or np.any(weight < 0):
                raise CheckFailed(
                    f"kept_weight returned shape {weight.shape}; it gives one finite weight >= 0 for {n} rows"
                )
        if self.steer.report is not None and len(self.steer.report(state)) != n:
            raise CheckFailed(f"report returned {len(self.steer.report(state))} notes for {n} rows")

    def columns(self, n: int) -> None:
        """The state is columns: rows joined with others, and left alone by them, get the same actions."""
        plan, other = self.plan(n), self.plan(n + 1, 1)
        alone, both = self.steer.init(plan.rows), self.steer.init(other.rows)
        try:
            both = join(both, alone)
        except (InvalidInput, TypeError, ValueError) as error:
            raise CheckFailed(f"the state is no columns with one entry a row: {error}") from error
        offset, size = n + 1, 2 * n + 1
        for turn in range(4):
            length = turn * self.steer.every
            if turn == 2:
                both, offset, size = take(both, np.arange(n + 1, 2 * n + 1)), 0, n
            rows = np.arange(n)
            action, alone = self.ask(alone, plan, rows, rows, length, n)
            joined, both = self.ask(both, plan, rows + offset, rows, length, size)
            if not same(_data(action), _data(joined)):
                raise CheckFailed(
                    "rows decide otherwise when the state was joined with that of other rows, or these were taken out; "
                    "make the state of columns with one entry a row, and look rows up by Snapshot.row"
                )


def _data(action: Action) -> list[Any]:
    """An action as arrays."""
    parts: tuple[Any, ...] = (
        action.decision,
        action.force,
        action.logits,
        action.drawn,
        action.embeddings,
        action.soft,
        action.cap,
    )
    return [part.numpy() if hasattr(part, "numpy") else part for part in parts]


def _read(margins: NDArray[np.float32], running: I64, length: int) -> NDArray[np.float32]:
    margin: NDArray[np.float32] = margins[running, length]
    return margin
