"""One training step, without a model: what to sample, round by round, and what to learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64, I64, Plan, right
from budgeteer.core.steer import Steer
from budgeteer.rl.asked import RoundRequests, continuing
from budgeteer.rl.beside import Reading
from budgeteer.rl.branch import numbered
from budgeteer.rl.recipe import Beginnings, View
from budgeteer.rl.rollouts import Rollouts

if TYPE_CHECKING:
    from budgeteer.rl.control import Control


@dataclass(slots=True)
class Progress:
    """Everything that changes during a run, and therefore everything a checkpoint holds besides weights.

    Attributes:
        step, cursor: steps done; prompts taken from the endless stream of epochs.
        planned: tokens that the plans expected to spend.
        used: sampled tokens, every one of them; ``used = trained + wasted + `` those of complete rows without gradient,
            a monitor's among them.
        trained: tokens of rows that carried gradient, aborted rows included where the recipe trains on them.
        wasted: tokens of rows that were aborted, or cut short by the end of the budget, and carried no gradient.
        prefill: prompt tokens computed.
        seconds: of training, evaluation excluded.
        phases: seconds of allocation, stopping, sampling, training, verifying.
        curve: points of accuracy against tokens and seconds.
        steps_log: one row a step.
        traces: sample rollouts of the last step.
    """

    step: int = 0
    cursor: int = 0
    planned: float = 0.0
    used: int = 0
    trained: int = 0
    wasted: int = 0
    prefill: int = 0
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    steps_log: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a step: what to sample next.

    Attributes:
        picked: [m] indices of the step's prompts.
        view: the prompts as items, and the plan: units and cap of each.
        max_tokens: [k] cap of a rollout of each request.
        steer: ends, forces or bends rows while they run; None = they end by themselves or at the cap.
        budget: hard cap of the tokens of this round; None = none.
        seed: of the sampler.
        temperature: of sampling.
        watched: it is for the reward's monitor: :meth:`Step.add` takes its rollouts, and nothing is learnt from them.
        asked: the requests, where they are more than the prompts: of a variant, or of rows that were begun in earlier
            steps; None = one a prompt, k = m.
    """

    picked: I64
    view: View
    max_tokens: I64
    steer: Steer | None
    budget: int | None
    seed: int
    temperature: float = 1.0
    asked: RoundRequests | None = None
    watched: bool = False

    def requests(self, prompts: Sequence[Sequence[int]]) -> tuple[list[str], list[tuple[int, ...]], I64]:
        """What a sampler is asked for: keys, prompts as token ids, and rollouts of each.

        Args:
            prompts: token ids of all training prompts.
        """
        keys, own = list(self.view.items.keys), [tuple(prompts[i]) for i in self.picked.tolist()]
        return (keys, own, self.view.plan.units) if self.asked is None else self.asked.requests(keys, own)

    def whole(self, sampled: Rollouts) -> Rollouts:
        """What the sampler gave for :meth:`requests`, as whole rollouts of the step's prompts."""
        return sampled if self.asked is None else self.asked.whole(sampled, self.view.items.keys)


@dataclass(frozen=True, slots=True)
class Update:
    """What to learn from a step's rollouts.

    Attributes:
        rollouts: all n rows that were scored, with their rewards; those that the end of the budget cut short count as
            aborted.
        rows: [k] rows that carry gradient, in the order of the minibatches.
        advantage: [n] or [n, t] of all rows, importance weights included, 0 where masked.
        scale: [k] or [k, t] weight of each token of ``rows``; sums over ``minibatches`` parts are means over the part's
            rows.
        trained: [n] whether a row is among ``rows``.
        wasted: [n] aborted or cut short, and without gradient.
        chosen: [n] whether the recipe's selection chose the row; the means of the loss are over these.
        share: [n] how many of the chosen rows a row stands for: 0 = it was left out, 1 where nothing was thinned.
        lr_scale: factor on the learning rate.
        temperature: of sampling, and of the update's probabilities.
        parked: tokens of this step's bill in rows that go on in a later step; these rows are not among ``rollouts``.
        lost: tokens of rows that nobody scored, and those that are in no row; neither are these.
        beside: what each term beside the loss of the rollouts reads.
        kl_scale: [n] factor of the KL penalty of each row; None = 1.
        given: [m] which of the step's rollouts the first m of ``rollouts`` are; behind them are those of earlier steps.
    """

    rollouts: Rollouts
    rows: I64
    advantage: F64
    scale: F64
    trained: NDArray[np.bool_]
    wasted: NDArray[np.bool_]
    chosen: NDArray[np.bool_]
    share: F64
    lr_scale: float = 1.0
    temperature: float = 1.0
    parked: int = 0
    lost: int = 0
    beside: tuple[Reading, ...] = ()
    kl_scale: F64 | None = None
    given: I64 = field(default_factory=lambda: np.zeros(0, np.int64))


class Step:
    """The rounds of one step. :meth:`next` says what to sample, :meth:`add` takes the rollouts."""

    def __init__(self, control: Control) -> None:
        self._control, self._turn = control, 0
        self._picked, self._front, self._items = control.candidates()
        self._share = control.share(self._items)
        self._spent, self._expected = 0, 0.0
        self._parts: list[Rollouts] = []
        self._total = np.zeros(len(self._items), np.int64)
        self._round: Round | None = None
        self._continue = len(control.beginnings) > 0
        self._branching, self._watch = False, control.watches()

    def next(self) -> Round | None:
        """The next round, or None: the allocator wants no more, or the recipe has no further round."""
        own, c, recipe = self._control, self._control.config, self._control.recipe
        self._round = None
        if self._watch:
            self._round = self._watched()
            return self._round
        if self._continue:
            self._round = self._continued()
            return self._round
        if self._turn >= recipe.rounds:
            return self._branches()
        plan = own.plan(max(self._share - self._spent, 0), self._items, own.progress.step, self._turn)
        if not plan.units.sum():
            self._turn = recipe.rounds
            return self._branches()
        view = own.view(self._items, plan)
        caps = np.where(plan.max_tokens > 0, np.minimum(plan.max_tokens, view.max_tokens), view.max_tokens)
        seed = (c.seed * 100_003 + own.progress.step) * 64 + self._turn
        steer, asked = recipe.steer_of(view), own.asked(self._picked, view, self._turn)
        caps = caps if asked is None else caps[asked.of]
        if asked is not None:
            spoken = zip(asked.prompts, asked.spoken, strict=False)  # () = everywhere the prompts' own
            own.spoken |= {prompt: text for prompt, text in spoken if prompt is not None and text is not None}
        self._round = Round(self._picked, view, caps, steer, self._hard(), seed, own.temperature(), asked)
        return self._round

    def _hard(self) -> int | None:
        """Hard cap of the tokens of the next round."""
        own = self._control
        left, caps = own.left(), [] if own.step_budget is None else [own.step_budget - own.watched - self._spent]
        fair = own.share_of_run()
        if own.recipe.carry is not None and own.step_budget is None and fair is not None and not self._watch:
            caps.append(max(fair, own.config.max_tokens) - self._spent)  # what is cut there goes on
        return min(caps + ([] if left is None else [left - self._spent]), default=None)

    def _watched(self) -> Round:
        """The round of the reward's monitor."""
        own, c, reward = self._control, self._control.config, self._control.recipe.reward
        assert reward is not None
        assert reward.monitor is not None
        items = own.items_of(own.monitored)
        units = np.full(len(items), reward.monitor.rollouts)
        view = own.view(items, Plan(items.keys, units, items.spend(units)))
        caps, seed = np.full(len(items), view.max_tokens), (c.seed * 100_003 + own.progress.step) * 64 + 61
        steer = own.recipe.steer_of(view)
        return Round(own.monitored, view, caps, steer, self._hard(), seed, own.temperature(), watched=True)

    def _continued(self) -> Round:
        """The round that continues what earlier steps began."""
        own, c, rows = self._control, self._control.config, self._control.beginnings
        number = {key: i for i, key in enumerate(self._items.keys[: self._front])}
        rows_of = np.array([number[key] for key in rows.keys], np.int64)
        order = np.argsort(rows_of, kind="stable")
        rows = Beginnings(
            tuple(rows.keys[i] for i in order),
            rows.tokens[order],
            rows.length[order],
            rows.version[order],
            rows.logprobs[order],
        )
        items = self._items.take(np.arange(self._front))
        units = np.bincount(rows_of, minlength=self._front).astype(np.int64)
        view = own.view(items, Plan(items.keys, units, items.spend(units)))
        left = np.maximum(view.max_tokens - rows.length, 1)
        seed = (c.seed * 100_003 + own.progress.step) * 64 + 63
        steer = own.recipe.steer_of(view)
        return Round(
            self._picked[: self._front],
            view,
            left,
            steer,
            self._hard(),
            seed,
            own.temperature(),
            continuing(rows, rows_of[order]),
        )

    def _branches(self) -> Round | None:
        """The round of the recipe's branches from the step's rollouts; None without one, and after it."""
        own, c, branch = self._control, self._control.config, self._control.recipe.branch
        if branch is None or self._branching or not self._parts:
            return None
        traces = Rollouts.concatenate(self._parts)
        view = own.view(self._items, Plan(self._items.keys, self._total, 0.0))
        (written,) = own.wording.write([branch.text]) if own.wording and branch.text else ((),)
        asked = branch.requests(traces.take(~traces.short), view.max_tokens, written)
        if not len(asked.of):
            return None
        self._branching = True
        units = np.bincount(asked.of, asked.units, minlength=len(self._items)).astype(np.int64)
        caps, seed = branch.caps(asked, view.max_tokens), (c.seed * 100_003 + own.progress.step) * 64 + 62
        view = own.view(self._items, Plan(self._items.keys, units, float(asked.units @ caps)))
        self._round = Round(self._picked, view, caps, None, self._hard(), seed, own.temperature(), asked)
        return self._round

    def add(self, part: Rollouts, lost: int = 0) -> None:
        """Take the rollouts of the round that :meth:`next` returned last, whole and verified.

        Args:
            part: the rollouts.
            lost: tokens that were generated and are in none of them.
        """
        assert self._round is not None
        if self._round.watched:
            self._watch = False
            self._control.watch(part, lost)
            self._share = self._control.share(self._items)
            return
        part = part.at(self._control.progress.step)
        branch = self._control.recipe.branch
        if branch is not None and not self._branching:
            part = numbered(part, sum(map(len, self._parts)), branch.cuts(self._round.view.max_tokens))
        self._parts.append(part)
        self._spent += part.used + lost
        self._expected += self._round.view.plan.expected_cost
        if self._continue:
            self._continue = False
            self._total[: self._front] += part.counts
            return
        if self._branching:
            return
        own, variant = self._control, self._control.recipe.variant
        if variant is not None:
            own.variant_state = variant.observe(own.variant_state, part.take(~part.short))
        self._total += part.counts
        good = np.bincount(part.group, right(part.verified), minlength=len(self._items)).astype(np.int64)
        drawn, before = self._items.columns["drawn"], self._items.columns["right"]
        self._items = self._items.with_columns(
            drawn=(drawn + part.counts).astype(np.int64), right=(before + good).astype(np.int64)
        )
        self._turn += 1

    def collected(self) -> tuple[Rollouts, View] | None:
        """All rollouts so far, and what the recipe's parts may look at; None if there are none."""
        if not self._parts:
            return None
        plan = Plan(self._items.keys, self._total, self._expected)
        own = self._control
        return Rollouts.concatenate(self._parts), own.view(self._items, plan)
