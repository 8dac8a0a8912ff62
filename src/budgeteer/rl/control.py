"""One step's decisions, without a model: which prompts, how many rollouts of each, and what is learnt from them.

A trainer samples what a :class:`Round` asks for, scores it, and applies the :class:`Update`. All random numbers are
functions of (seed, step, purpose), and all that changes is in ``state_dict``, so a run that is killed and resumed from
its last checkpoint is the same run. NumPy only.

    step = control.begin()
    while (work := step.next()) is not None:
        step.add(verify(sample(work)))
    if (collected := step.collected()) is not None:
        rollouts, view = collected
        update = control.learn(rollouts, view)
        apply(update)
        control.done(view, update)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import BudgetExceeded
from budgeteer.core.plan import ABORTED, CUT, F64, I64, Items, Plan, right
from budgeteer.core.stopper import Stopper
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.history import History, estimates, record
from budgeteer.rl.recipe import Recipe, View
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.surrogate import prompt_features
from budgeteer.rl.weight import thin


@dataclass(slots=True)
class Progress:
    """Everything that changes during a run, and therefore everything a checkpoint holds besides weights.

    Attributes:
        step, cursor: steps done; prompts taken from the endless stream of epochs.
        planned: tokens that the plans expected to spend.
        used: sampled tokens, every one of them; ``used = trained + wasted + `` those of complete rows without gradient.
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
    """What is to be sampled next.

    Attributes:
        picked: [m] indices of the step's prompts.
        view: the prompts as items, and the plan: units and cap of each.
        max_tokens: [m] cap of a rollout.
        stopper: ends rows while they run; None = they end by themselves or at the cap.
        budget: hard cap of the tokens of this round; None = none.
        seed: of the sampler.
    """

    picked: I64
    view: View
    max_tokens: I64
    stopper: Stopper | None
    budget: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class Update:
    """What to learn from a step's rollouts.

    Attributes:
        rollouts: all n rows, with their rewards; those that the end of the budget cut short count as aborted.
        rows: [k] rows that carry gradient, in the order of the minibatches.
        advantage: [n] of all rows, importance weights included, 0 where masked.
        scale: [k] weight of each token of ``rows``; sums over ``minibatches`` parts are means over the part's rows.
        trained: [n] whether a row is among ``rows``.
        wasted: [n] aborted or cut short, and without gradient.
    """

    rollouts: Rollouts
    rows: I64
    advantage: F64
    scale: F64
    trained: NDArray[np.bool_]
    wasted: NDArray[np.bool_]


class Step:
    """The rounds of one step. :meth:`next` says what to sample, :meth:`add` takes what came of it."""

    def __init__(self, control: Control) -> None:
        self._control, self._turn = control, 0
        self._picked, self._items = control._items()
        self._share = control._share(self._items)
        self._spent, self._expected = 0, 0.0
        self._parts: list[Rollouts] = []
        self._total = np.zeros(len(self._items), np.int64)
        self._round: Round | None = None

    def next(self) -> Round | None:
        """The next round, or None: the allocator wants no more, or the recipe has no further round."""
        own, c, recipe = self._control, self._control.config, self._control.recipe
        self._round = None
        if self._turn >= recipe.rounds:
            return None
        rng = np.random.default_rng((c.seed, own.progress.step, self._turn, 2))
        plan = recipe.allocator.allocate(max(self._share - self._spent, 0), self._items, own.state, rng=rng)
        if not plan.units.sum():
            self._turn = recipe.rounds
            return None
        view = View(self._items, plan, own.history, c.max_tokens)
        left, caps = own.left(), [] if own.step_budget is None else [own.step_budget - self._spent]
        hard = min(caps + ([] if left is None else [left - self._spent]), default=None)
        caps_of_rows = np.where(plan.max_tokens > 0, np.minimum(plan.max_tokens, c.max_tokens), c.max_tokens)
        seed = (c.seed * 100_003 + own.progress.step) * 64 + self._turn
        stopper = recipe.stopper(view) if recipe.stopper else None
        self._round = Round(self._picked, view, caps_of_rows, stopper, hard, seed)
        return self._round

    def add(self, part: Rollouts) -> None:
        """Take the rollouts of the round that :meth:`next` returned last, verified."""
        assert self._round is not None
        self._parts.append(part)
        self._spent += part.used
        self._expected += self._round.view.plan.expected_cost
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
        return Rollouts.concatenate(self._parts), View(self._items, plan, own.history, own.config.max_tokens)


class Control:
    """The decisions of a run of one recipe.

    Args:
        recipe: what to do with the tokens.
        config: what all recipes share.
        prompts: token ids of each training prompt.
        keys: distinct keys of the training prompts.
        budget: hard cap of sampled tokens of the run; None = no cap.
        step_budget: hard cap of sampled tokens of each step; None = no cap of its own. With neither, the allocator of
            a recipe with pace "step" splits in each step what ``config.group`` rollouts a prompt are expected to cost,
            and one with pace "run" takes what it wants.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: TrainConfig,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        *,
        budget: int | None = None,
        step_budget: int | None = None,
    ) -> None:
        self.recipe, self.config = recipe, config
        self.budget, self.step_budget = budget, step_budget
        self.keys = list(keys)
        self.features = prompt_features(prompts)
        self._index = {key: i for i, key in enumerate(self.keys)}
        self.history = History.empty()
        self.state = recipe.allocator.init(Items((), np.zeros(0)))
        self.reward_state = recipe.reward.init() if recipe.reward else ()
        self.progress = Progress()

    def begin(self) -> Step:
        """The next step, of which nothing is sampled yet."""
        return Step(self)

    def left(self) -> int | None:
        """Tokens left of the run's budget, None without one."""
        return None if self.budget is None else self.budget - self.progress.used

    def check(self) -> None:
        """Refuse a budget that buys no rollout in the first step, before anything is sampled.

        Raises:
            BudgetExceeded: says how many tokens would do.
        """
        c, recipe = self.config, self.recipe
        _, items = self._items()
        share = self._share(items)
        rng = np.random.default_rng((c.seed, self.progress.step, 0, 2))
        if recipe.allocator.allocate(share, items, self.state, rng=rng).units.any():
            return
        needed = self._least(items)
        total = needed * (c.steps if recipe.pace == "step" and self.budget is not None else 1)
        raise BudgetExceeded(
            kind="tokens", scope="step" if self.budget is None else "run", used=0, requested=needed, limit=share,
            hint=f"that buys no rollout; give at least {total:,} tokens or fewer steps",
        )  # fmt: skip

    def _least(self, items: Items) -> int:
        """Tokens with which the allocator buys something in the first step."""
        c = self.config
        low, high = 0, 1

        def buys(tokens: int) -> bool:
            rng = np.random.default_rng((c.seed, 0, 0, 2))
            return bool(self.recipe.allocator.allocate(tokens, items, self.state, rng=rng).units.any())

        while not buys(high) and high < 2**40:  # an allocator may buy nothing at any price
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if buys(middle) else (middle, high)
        return high

    def learn(self, rollouts: Rollouts, view: View) -> Update:
        """What the step's rollouts teach: the update, and the memory of the recipe's parts.

        The order, which all trainers share: rows that the end of the budget cut short count as aborted, rewards,
        advantages, importance weights, outcomes for history and allocator, masks, selection, thinning.
        """
        c, recipe = self.config, self.recipe
        # a row that the end of the budget cut short never had its chance: wasted, no gradient, no place in the history
        short = (rollouts.status == CUT) & (rollouts.length < rollouts.cap)
        rollouts = replace(rollouts, status=np.where(short, ABORTED, rollouts.status).astype(np.int8))
        aborted = rollouts.status == ABORTED
        if recipe.reward is not None:
            columns = rollouts.columns()
            rollouts = replace(rollouts, reward=recipe.reward.score(self.reward_state, columns))
            self.reward_state = recipe.reward.observe(self.reward_state, columns)
        advantage = recipe.advantage(rollouts, view)
        weighted = advantage * recipe.row_weight(rollouts, view)
        loglik = (rollouts.logprob * (np.arange(rollouts.tokens.shape[1]) < rollouts.length[:, None])).sum(1)
        seen = weighted if recipe.weighted_scores else advantage
        kept_weight = rollouts.weight[~short] if recipe.kept_lengths else None
        # the history is kept in verified rewards: an aborted row is a failure there only if the recipe says so
        outcomes = rollouts.outcomes(seen * loglik).take(~short)
        self.history = record(self.history, outcomes, recipe.memory, kept_weight, self._features_of)
        self.state = recipe.allocator.observe(self.state, outcomes)
        if recipe.aborted == "mask":
            weighted = np.where(aborted, 0.0, weighted)
        weighted = np.where(short, 0.0, weighted)
        rows = np.arange(len(rollouts))
        if recipe.select is not None:
            rows = recipe.select(rollouts, np.random.default_rng((c.seed, self.progress.step, 3)))
        return self.chosen(rollouts, weighted, rows)

    def chosen(self, rollouts: Rollouts, advantage: F64, rows: I64) -> Update:
        """Of ``rows`` those that carry gradient, thinned and in the order of the minibatches. With a KL
        penalty all of them do, for the penalty needs no advantage."""
        c, trained = self.config, np.zeros(len(rollouts), np.bool_)
        scale = self.recipe.token_weight(rollouts.length[rows], rollouts.group[rows])
        useful = np.ones(len(rows), np.bool_) if c.kl > 0 else np.abs(advantage[rows]) > 1e-9
        rng = np.random.default_rng((c.seed, self.progress.step, 4))
        if self.recipe.thin is not None:
            kept = thin(advantage[rows], rollouts.group[rows], self.recipe.thin, rng)
            useful, scale = useful & (kept > 0), scale * kept
        rows, scale = rows[useful], scale[useful] * useful.sum()
        trained[rows] = True
        order = rng.permutation(len(rows)) if len(rows) else np.zeros(0, np.int64)
        return Update(rollouts, rows[order], advantage, scale[order], trained, (rollouts.status == ABORTED) & ~trained)

    def done(self, view: View, update: Update) -> None:
        """Count the step and its tokens."""
        p, units, rollouts = self.progress, view.plan.units, update.rollouts
        p.cursor += self._taken(units)
        p.planned += view.plan.expected_cost
        p.used += rollouts.used
        p.wasted += int(rollouts.length[update.wasted].sum())
        p.trained += int(rollouts.length[update.trained].sum())
        p.prefill += rollouts.prefill_tokens
        self._log(view, update)
        p.step += 1

    def state_dict(self) -> dict[str, str]:
        """All that changes, as JSON texts."""
        return {
            "history": json.dumps(dump_state(self.history)),
            "allocator": json.dumps(dump_state(self.state)),
            "reward": json.dumps(dump_state(self.reward_state)),
            "progress": json.dumps(asdict(self.progress)),
        }

    def load_state_dict(self, content: Mapping[str, str]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.history = load_state(History.empty(), json.loads(content["history"]))
        self.state = load_state(self.state, json.loads(content["allocator"]))
        self.reward_state = load_state(self.reward_state, json.loads(content["reward"]))
        self.progress = Progress(**json.loads(content["progress"]))

    def _candidates(self, count: int) -> I64:
        """The next ``count`` distinct prompts of the endless stream of shuffled epochs."""
        size = len(self.keys)
        epoch, offset = divmod(self.progress.cursor, size)
        # two epochs, from the offset on, hold every prompt
        orders = [np.random.default_rng((self.config.seed, epoch + i, 1)).permutation(size) for i in (0, 1)]
        ahead = np.concatenate(orders)[offset:]
        _, first = np.unique(ahead, return_index=True)
        return ahead[np.sort(first)[:count]]

    def _features_of(self, keys: Sequence[str]) -> F64:
        """[m, d] features of m prompts."""
        return self.features[[self._index[key] for key in keys]]

    def _taken(self, units: I64) -> int:
        """Prompts that the step took from the stream: the batch, or up to the last one that got rollouts."""
        return max(self.config.prompts, int(np.flatnonzero(units).max(initial=-1)) + 1)

    def _share(self, items: Items) -> int:
        """Tokens that this step should use, as the allocator's budget."""
        left = self.left()
        shares = [] if self.step_budget is None else [self.step_budget]
        if left is not None:
            steps_left = max(self.config.steps - self.progress.step, 1)
            shares.append(left // steps_left if self.recipe.pace == "step" else left)
        if not shares and self.recipe.pace == "step":
            return math.ceil(self.config.group * self.config.prompts * float(items.cost.mean()))
        return min(shares) if shares else 2**62

    def _items(self) -> tuple[I64, Items]:
        """The step's candidate prompts, as indices and as items with the estimates of the recipe's memory."""
        picked = self._candidates(self.config.prompts * self.recipe.oversample)
        keys, zeros = tuple(self.keys[i] for i in picked), np.zeros(len(picked), np.int64)
        items = Items(keys, np.full(len(keys), 0.6 * self.config.max_tokens), drawn=zeros, right=zeros)
        return picked, estimates(self.history, items, self.recipe.memory, self.features[picked])

    def _log(self, view: View, update: Update) -> None:
        """One row of the log: tokens, and how many of the prompts that the step took from the stream got n rollouts."""
        p, units, rollouts = self.progress, view.plan.units, update.rollouts
        trained, wasted = update.trained, update.wasted
        counts, occurrences = np.unique(units[: self._taken(units)], return_counts=True)
        level: dict[str, list[int]] = {}
        for g, key in enumerate(rollouts.keys):
            rows = rollouts.group == g
            if rows.any():
                used, lost = (int(rollouts.length[part].sum()) for part in (rows, rows & wasted))
                level[key] = [used, lost, int(rows.sum())]
        mixed = 0
        for g in range(len(rollouts.keys)):
            r = rollouts.verified[rollouts.group == g]
            mixed += int(len(r) > 1 and r.min() != r.max())
        p.steps_log.append({
            "step": p.step,
            "used": rollouts.used,
            "wasted": int(rollouts.length[wasted].sum()),
            "trained": int(rollouts.length[trained].sum()),
            "rollouts": len(rollouts),
            "mixed": mixed,
            "reward": float(rollouts.reward.mean()) if len(rollouts) else 0.0,
            "counts": {str(int(u)): int(n) for u, n in zip(counts, occurrences, strict=True)},
            "by_key": level,
        })  # fmt: skip
        chosen = np.linspace(0, len(rollouts) - 1, min(6, len(rollouts))).astype(int).tolist()
        stopped = np.flatnonzero(rollouts.status == ABORTED)[:3].tolist()
        p.traces = [
            {
                "key": rollouts.keys[rollouts.group[i]],
                "tokens": rollouts.tokens[i, : rollouts.length[i]].tolist(),
                "status": int(rollouts.status[i]),
                "reward": float(rollouts.reward[i]),
            }
            for i in [*chosen, *stopped]
        ]
