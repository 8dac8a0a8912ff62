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
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.column import column
from budgeteer.core.errors import BudgetExceeded, InvalidInput
from budgeteer.core.plan import ABORTED, F64, I64, Items, Plan, require_plan
from budgeteer.rl.asked import RoundRequests, Wording, require_wording, varied
from budgeteer.rl.branch import answers_of, branched
from budgeteer.rl.carry.waiting import joined, not_started
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.history import History, estimates, record
from budgeteer.rl.recipe import Aborted, Beginnings, Pace, Recipe, View, require_columns
from budgeteer.rl.replay import Kept, mixed
from budgeteer.rl.rollouts import Rollouts, per_token
from budgeteer.rl.step import Progress, Step, Update
from budgeteer.rl.surrogate import prompt_features
from budgeteer.rl.thinning import thin


class Control:
    """The decisions of a run of one recipe.

    Args:
        recipe: what to do with the tokens.
        config: what all recipes share.
        prompts: token ids of each training prompt.
        keys: distinct keys of the training prompts.
        budget: hard cap of sampled tokens of the run; None = no cap.
        step_budget: hard cap of sampled tokens of each step; None = no cap of its own. With neither, the allocator of
            a recipe with pace STEP splits in each step what ``config.group`` rollouts a prompt are expected to cost,
            and one with pace RUN takes what it wants.
        offers: what the trainer computes for recipes that need it: ``budgeteer.rl.recipe.ENTROPY``, and names of
            columns of rollouts that it puts into ``Rollouts.more``, such as ``budgeteer.rl.recipe.TEXT``.
        columns: of the training prompts, for rewards: name of a column of rollouts -> one value a prompt.
        wording: the prompts' texts and how texts become tokens, for recipes with a variant.
        bounded: with a budget, too, an allocator of pace STEP splits no more than without one.

    Attributes:
        terms: mean of each named term of the recipe's reward over the rows of the latest step, and of the losses beside
            that of the rollouts, where the trainer measures them.
        spoken: prompts of this step that a variant changed, as token ids -> as texts.
        monitored: [k] indices of the prompts of the reward's monitor.
        watched: tokens that it took in this step.

    Raises:
        InvalidInput: the recipe needs what the trainer does not offer, or more prompts for its reward's monitor than
            there are, or a column has a value that it may not have.
        UnknownName: the reward or ``columns`` name a column that nobody declared.
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
        offers: Collection[str] = (),
        columns: Mapping[str, Any] | None = None,
        wording: Wording | None = None,
        bounded: bool = False,
    ) -> None:
        asked = {*recipe.importance.needs, *(recipe.branch.needs if recipe.branch else ())}
        if missing := sorted(asked - {*offers}):
            raise InvalidInput(
                f"recipe {recipe.name!r} needs {', '.join(missing)} of each token, and this trainer gives "
                f"{', '.join(sorted(offers)) or 'none of it'}; choose a recipe without, or a trainer that has it"
            )
        self.columns = {
            name: column(name, "rollouts").checked("rollouts", values, tuple(keys))
            for name, values in (columns or {}).items()
        }
        if recipe.carry is not None and step_budget is not None and step_budget < config.max_tokens:
            raise InvalidInput(
                f"recipe {recipe.name!r} goes on with rollouts that the end of a step's budget cuts, and {step_budget} "
                f"tokens of a step are less than one rollout of {config.max_tokens}; raise the one or lower the other"
            )
        require_columns(recipe, {*offers, *self.columns})
        require_wording(recipe, wording)
        self.wording = wording
        self.solutions = dict(zip(keys, (wording and wording.solutions) or (), strict=False))
        self.recipe, self.config = recipe, config
        self.budget, self.step_budget, self.bounded = budget, step_budget, bounded
        self.keys = list(keys)
        self.features = prompt_features(prompts)
        self._index = {key: i for i, key in enumerate(self.keys)}
        self.history = History.empty()
        self.state = recipe.allocator.init(Items((), np.zeros(0)))
        self.reward_state = recipe.reward.init() if recipe.reward else ()
        self.stream_state = recipe.stream.init() if recipe.stream else ()
        self.variant_state = recipe.variant.init() if recipe.variant else ()
        self.kl_state = recipe.kl_weight.init() if recipe.kl_weight else ()
        self._written = [wording.write(term.texts) if wording and term.texts else () for term in recipe.beside]
        self.monitored, self.watched = self._monitored(), 0
        self.beginnings = Beginnings.empty()
        self.kept = Kept.empty()
        self._prompts = dict(zip(keys, (tuple(map(int, prompt)) for prompt in prompts), strict=True))
        self._parked_prompts = 0
        self.terms: dict[str, float] = {}
        self.spoken: dict[tuple[int, ...], str] = {}
        self.progress = Progress()
        if unread := recipe.unread():
            warnings.warn(
                f"the variant of recipe {recipe.name!r} gives {', '.join(unread)}, and its reward does not read it, so "
                "that no rollout is paid for doing what it was asked; name one that does (budgeteer methods reward)",
                stacklevel=2,
            )

    def begin(self) -> Step:
        """The next step, of which nothing is sampled yet."""
        self.watched, self.spoken = 0, {}
        return Step(self)

    def _monitored(self) -> I64:
        """The prompts of the reward's monitor."""
        monitor = self.recipe.reward.monitor if self.recipe.reward else None
        if monitor is None:
            return np.zeros(0, np.int64)
        if monitor.prompts > len(self.keys):
            raise InvalidInput(
                f"the reward of recipe {self.recipe.name!r} monitors {monitor.prompts} training prompts, and there are "
                f"{len(self.keys)}; lower its number, such as laser:monitor={len(self.keys)}, or give more prompts"
            )
        return np.random.default_rng((self.config.seed, 6)).permutation(len(self.keys))[: monitor.prompts]

    def watches(self) -> bool:
        """Whether this step begins with a round for the reward's monitor."""
        monitor = self.recipe.reward.monitor if self.recipe.reward else None
        return monitor is not None and self.progress.step % monitor.every == 0

    def watch(self, rollouts: Rollouts, lost: int = 0) -> None:
        """Show the reward the rollouts of its monitor, those that are whole and scored; all are on the bill.

        Args:
            rollouts: verified.
            lost: tokens that were generated and are in none of them.
        """
        reward = self.recipe.reward
        assert reward is not None
        assert reward.monitor is not None
        self.watched = rollouts.used + lost
        self.progress.used += self.watched
        self.progress.prefill += rollouts.prefill_tokens
        rows = rollouts.take(~rollouts.short & ~np.isnan(rollouts.verified))
        if len(rows):
            self.reward_state = reward.monitor.watch(self.reward_state, rows.columns())

    def left(self) -> int | None:
        """Tokens left of the run's budget, None without one."""
        return None if self.budget is None else self.budget - self.progress.used

    def spent(self) -> float:
        """Share of the run that is done: of its steps or of its budget, whichever is more."""
        done = self.progress.step / max(self.config.steps, 1)
        return max(done, self.progress.used / self.budget) if self.budget else done

    def temperature(self) -> float:
        """Of sampling and update in this step."""
        return self.config.temperature * self.recipe.schedules.temperature(self.spent())

    def lr_scale(self) -> float:
        """What the learning rate is multiplied with in this step: warm-up or schedule, whichever is less."""
        return min(1.0, (self.progress.step + 1) / max(self.config.warmup, 1), self.recipe.schedules.lr(self.spent()))

    def view(self, items: Items, plan: Plan) -> View:
        """What the parts of the recipe may look at now."""
        spent = self.spent()
        cap = max(1, math.floor(self.config.max_tokens * self.recipe.schedules.max_tokens(spent)))
        return View(items, plan, self.history, cap, spent, self.solutions)

    def asked(self, picked: I64, view: View, turn: int) -> RoundRequests | None:
        """The requests of a round with a variant, None without one.

        Args:
            picked: indices of the view's prompts.
            turn: number of the round in its step.
        """
        if self.recipe.variant is None or self.wording is None:
            return None
        rng = np.random.default_rng((self.config.seed, self.progress.step, turn, 5))
        variants = self.recipe.variant.vary(self.variant_state, view, rng)
        return varied(variants, view.plan.units, picked, self.wording, self.recipe.name)

    def plan(self, budget: int, items: Items, step: int, turn: int) -> Plan:
        """The allocator's plan of a round, verified: recipes may have the allocators of other packages.

        Raises:
            InvalidInput: the plan breaks a rule of allocators; the message says which.
        """
        rng = np.random.default_rng((self.config.seed, step, turn, 2))
        plan = self.recipe.allocator.allocate(budget, items, self.state, rng=rng)
        return require_plan(plan, items, budget, f"the allocator of recipe {self.recipe.name!r}")

    def check(self) -> None:
        """Refuse a budget that buys no rollout in the first step, before anything is sampled.

        Raises:
            BudgetExceeded: says how many tokens would do something, and how many are usual.
        """
        c, recipe = self.config, self.recipe
        _, _, items = self.candidates()
        share = self.share(items)
        if self.plan(share, items, self.progress.step, 0).units.any():
            return
        of_run = c.steps if self.budget is not None else 1
        pair = self._least(items, 2) * (of_run if recipe.pace == Pace.STEP else 1)
        usual = max(pair, self._full(items) * of_run)
        raise BudgetExceeded(
            kind="tokens",
            scope="step" if self.budget is None else "run",
            used=0,
            requested=self._least(items, 1),
            limit=share,
            hint=f"that buys no rollout; give at least {pair:,} tokens, where a prompt has the second rollout "
            f"that most recipes learn from, or fewer steps; {c.group} rollouts of every prompt take about {usual:,}",
        )

    def _least(self, items: Items, rollouts: int) -> int:
        """Tokens with which the allocator buys so many rollouts of some prompt in the first step."""
        low, high = 0, 1

        def buys(tokens: int) -> bool:
            return bool(self.plan(tokens, items, 0, 0).units.max(initial=0) >= rollouts)

        while not buys(high) and high < 2**40:  # an allocator may buy nothing at any price
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if buys(middle) else (middle, high)
        return high

    def learn(self, rollouts: Rollouts, view: View, lost: int = 0) -> Update:
        """What the step's rollouts teach: the update, and the memory of the recipe's parts.

        The order, which all trainers share: rows that the end of the budget cut short count as aborted, rewards,
        advantages, importance weights, outcomes for history and allocator, masks, selection, thinning. Before all that,
        the recipe's carry takes away what goes on later, and rows without a score (NaN) are dropped as wasted.
        """
        c, recipe = self.config, self.recipe
        unscored, waits = np.isnan(rollouts.verified), np.zeros(len(rollouts), np.bool_)
        if recipe.carry is not None:
            waits, parts = recipe.carry.park(self.beginnings, rollouts, self.progress.step)
            self.beginnings = joined(not_started(self.beginnings, rollouts, self.progress.step), parts)
        parked, lost = int(rollouts.paid[waits].sum()), lost + int(rollouts.paid[unscored & ~waits].sum())
        given = np.flatnonzero(~unscored & ~waits)
        rollouts = rollouts.take(given)
        if recipe.replay is not None:
            again, self.kept = recipe.replay.draw(self.kept, rollouts, self.progress.step)
            rollouts = mixed(rollouts, again, self._prompts)
        # a row that the end of the budget cut short never had its chance: wasted, no gradient, no place in the history
        short = rollouts.short
        rollouts = replace(rollouts, status=np.where(short, ABORTED, rollouts.status).astype(np.int8))
        aborted = rollouts.status == ABORTED
        # what the problems say of themselves is known to the rows from here on: advantages read it as rewards do
        rollouts = replace(rollouts, more={**self._of_problems(rollouts), **rollouts.more})
        if recipe.reward is not None:
            columns = rollouts.columns(recipe.reward.needs)
            rollouts = replace(rollouts, reward=recipe.reward.score(self.reward_state, columns))
            self.terms = recipe.reward.means(self.reward_state, columns)
            self.reward_state = recipe.reward.observe(self.reward_state, columns)
        advantage = recipe.advantage(rollouts, view)
        weighted = _product(advantage, recipe.importance.weigh(rollouts, view))
        loglik = np.where(rollouts.sampled, rollouts.logprob, np.float32(0))
        seen = weighted if recipe.weighted_scores else advantage
        score = seen * loglik.sum(1) if seen.ndim == 1 else (seen * loglik).sum(1)
        seen_first = ~short & ~rollouts.replayed & ~branched(rollouts)
        kept_weight = rollouts.weight[seen_first] if recipe.kept_lengths else None
        # the history is kept in verified rewards: an aborted row is a failure there only if the recipe says so
        outcomes = answers_of(rollouts, rollouts.outcomes(score)).take(seen_first)
        self.history = record(self.history, outcomes, recipe.memory, kept_weight, self._features_of)
        self.state = recipe.allocator.observe(self.state, outcomes)
        if recipe.stream is not None:
            picked = self.places(view.items.keys[self._parked_prompts :])
            taken = picked[: self._taken(view.plan.units[self._parked_prompts :])]
            self.stream_state = recipe.stream.observe(self.stream_state, tuple(self.keys), taken, outcomes)
        masked = short | aborted if recipe.aborted == Aborted.MASK else short
        weighted = np.where(masked if weighted.ndim == 1 else masked[:, None], 0.0, weighted)
        rows = np.arange(len(rollouts))
        if recipe.select is not None:
            rows = recipe.select(rollouts, np.random.default_rng((c.seed, self.progress.step, 3)))
        readings = tuple(
            term.read(rollouts.take(~short), self._prompts, written)
            for term, written in zip(recipe.beside, self._written, strict=True)
        )
        kl_scale = recipe.kl_weight.weigh(self.kl_state, rollouts) if recipe.kl_weight else None
        update = self.chosen(rollouts, weighted, rows)
        if len(rollouts) and not len(update.rows) and np.bincount(rollouts.group).max() == 1:
            warnings.warn(
                f"no prompt of a step had a second rollout, and recipe {recipe.name!r} learns from how those of a "
                "prompt differ, so nothing was learnt; give a larger budget, or fewer steps, prompts or shorter rows",
                stacklevel=2,
            )
        return replace(update, parked=parked, lost=lost, beside=readings, kl_scale=kl_scale, given=given)

    def measured(self, update: Update, kl: F64, beside: Mapping[str, float]) -> None:
        """What the trainer measured while it learnt from an update.

        Args:
            update: the update.
            kl: [n] mean divergence of each row's tokens from the starting policy, NaN where it was not computed.
            beside: name of each term beside the loss of the rollouts -> its mean.
        """
        self.terms = {**self.terms, **beside}
        if self.recipe.kl_weight is not None:
            self.kl_state = self.recipe.kl_weight.observe(self.kl_state, update.rollouts, kl)

    def chosen(self, rollouts: Rollouts, advantage: F64, rows: I64) -> Update:
        """Of ``rows`` those that carry gradient, thinned and in the order of the minibatches. With a KL
        penalty all of them do, for the penalty needs no advantage."""
        c, trained = self.config, np.zeros(len(rollouts), np.bool_)
        scale = self._scale(rollouts.length[rows], rollouts.group[rows], rollouts.tokens.shape[1])
        size = np.abs(advantage[rows])
        if size.ndim == 2:
            size = np.where(rollouts.sampled[rows], size, 0.0).max(axis=1, initial=0.0)
        useful = np.ones(len(rows), np.bool_) if c.kl > 0 else size > 1e-9
        rng = np.random.default_rng((c.seed, self.progress.step, 4))
        share = np.zeros(len(rollouts))
        share[rows] = 1.0
        chosen = share > 0
        if self.recipe.thin is not None:
            kept = thin(_of_rows(advantage[rows]), rollouts.group[rows], self.recipe.thin, rng)
            share[rows] = kept
            useful, scale = useful & (kept > 0), _product(kept, scale)
        rows, scale = rows[useful], scale[useful] * useful.sum()
        trained[rows] = True
        order = rng.permutation(len(rows)) if len(rows) else np.zeros(0, np.int64)
        wasted = (rollouts.status == ABORTED) & ~trained
        return Update(
            rollouts,
            rows[order],
            advantage,
            scale[order],
            trained,
            wasted,
            chosen,
            share,
            lr_scale=self.lr_scale(),
            temperature=self.temperature(),
        )

    def _scale(self, length: I64, group: I64, width: int) -> F64:
        """Weights of the tokens in the loss: [k] of rows, or [k, width] of tokens.

        Raises:
            InvalidInput: the recipe's token weight has another shape.
        """
        scale = self.recipe.token_weight(length, group)
        if scale.shape == length.shape:
            return scale
        longest = int(length.max(initial=0))
        if scale.shape != (len(length), longest):
            raise InvalidInput(
                f"the token weight of recipe {self.recipe.name!r} has shape {scale.shape}; give one weight a row, "
                f"({len(length)},), or one a token, ({len(length)}, {longest}): as many as the longest row has"
            )
        return np.pad(scale, ((0, 0), (0, width - longest)))

    def _of_problems(self, rollouts: Rollouts) -> dict[str, NDArray[Any]]:
        """The columns of the prompts, one value a row."""
        at = self.places(rollouts.keys)[rollouts.group]
        return {name: values[at] for name, values in self.columns.items()}

    def places(self, keys: Sequence[str]) -> I64:
        """[m] where these prompts stand among all."""
        return np.array([self._index[key] for key in keys], np.int64)

    def done(self, view: View, update: Update) -> None:
        """Count the step and its tokens."""
        p, units, rollouts = self.progress, view.plan.units, update.rollouts
        own = ~rollouts.replayed
        p.cursor += self._taken(units[self._parked_prompts :])
        p.planned += view.plan.expected_cost
        p.used += rollouts.used + update.parked + update.lost
        p.wasted += int(rollouts.billed[update.wasted & own].sum()) + update.lost
        p.trained += int(rollouts.billed[update.trained & own].sum())
        p.prefill += rollouts.prefill_tokens
        self._log(view, update)
        p.step += 1

    def state_dict(self) -> dict[str, str]:
        """All that changes, as JSON texts."""
        return {
            "history": json.dumps(dump_state(self.history)),
            "allocator": json.dumps(dump_state(self.state)),
            "reward": json.dumps(dump_state(self.reward_state)),
            "stream": json.dumps(dump_state(self.stream_state)),
            "variant": json.dumps(dump_state(self.variant_state)),
            "kl": json.dumps(dump_state(self.kl_state)),
            "beginnings": json.dumps(dump_state(self.beginnings)),
            "kept": json.dumps(dump_state(self.kept)),
            "progress": json.dumps(asdict(self.progress)),
        }

    def load_state_dict(self, content: Mapping[str, str]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.history = load_state(History.empty(), json.loads(content["history"]))
        self.state = load_state(self.state, json.loads(content["allocator"]))
        self.reward_state = load_state(self.reward_state, json.loads(content["reward"]))
        self.stream_state = load_state(self.stream_state, json.loads(content["stream"]))
        self.variant_state = load_state(self.variant_state, json.loads(content["variant"]))
        self.kl_state = load_state(self.kl_state, json.loads(content["kl"]))
        self.beginnings = load_state(self.beginnings, json.loads(content["beginnings"]))
        self.kept = Kept.read(json.loads(content["kept"]))
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
        return self.features[self.places(keys)]

    def _taken(self, units: I64) -> int:
        """Prompts that the step took from the stream: the batch, or up to the last one that got rollouts."""
        return max(self.config.prompts, int(np.flatnonzero(units).max(initial=-1)) + 1)

    def share(self, items: Items) -> int:
        """Tokens that this step should use, as the allocator's budget."""
        shares = [] if self.step_budget is None else [self.step_budget - self.watched]
        if (own := self.share_of_run()) is not None:
            shares.append(own)
        if (self.bounded or not shares) and self.recipe.pace == Pace.STEP:
            shares.append(self._full(items))
        return min(shares) if shares else 2**62

    def share_of_run(self) -> int | None:
        """Tokens of the run's budget that are this step's; None = the run has none."""
        left = self.left()
        if left is None or self.recipe.pace == Pace.RUN:
            return left
        return left // max(self.config.steps - self.progress.step, 1)

    def _full(self, items: Items) -> int:
        """Tokens that ``config.group`` rollouts a prompt are expected to cost."""
        group, prompts, once = self.config.group, self.config.prompts, items.spend(np.ones(len(items), np.int64))
        full = math.ceil(group * prompts * float(items.cost.mean()))
        # rounding must not take one rollout away from whole groups
        return full + (len(items) == prompts and int(full / once) < group)

    def candidates(self) -> tuple[I64, int, Items]:
        """The step's candidate prompts as indices, how many of them are there to be continued (they come first), and
        all as items with the estimates of the recipe's memory."""
        count = min(self.config.prompts * self.recipe.oversample, len(self.keys))
        if self.recipe.stream is None:
            picked = self._candidates(count)
        else:
            picked = self.recipe.stream.pick(self.stream_state, tuple(self.keys), count, self.config.seed)
        begun = sorted({self._index[key] for key in self.beginnings.keys})
        picked = np.concatenate([np.array(begun, np.int64), picked[~np.isin(picked, begun)]]) if begun else picked
        self._parked_prompts = len(begun)
        return picked, len(begun), self.items_of(picked)

    def items_of(self, picked: I64) -> Items:
        """The prompts of these indices as items with the estimates of the recipe's memory."""
        keys, zeros = tuple(self.keys[i] for i in picked), np.zeros(len(picked), np.int64)
        items = Items(keys, np.full(len(keys), 0.6 * self.config.max_tokens), drawn=zeros, right=zeros)
        return estimates(self.history, items, self.recipe.memory, self.features[picked])

    def _log(self, view: View, update: Update) -> None:
        """One row of the log: tokens, and how many of the prompts that the step took from the stream got n rollouts."""
        p, units, rollouts = self.progress, view.plan.units, update.rollouts
        # what is learnt from again was counted in its own step
        new = ~rollouts.replayed
        whole = new & ~branched(rollouts)
        trained, wasted = update.trained & new, update.wasted & new
        own = units[self._parked_prompts :]
        counts, occurrences = np.unique(own[: self._taken(own)], return_counts=True)
        level: dict[str, list[int]] = {}
        for g, key in enumerate(rollouts.keys):
            rows = (rollouts.group == g) & new
            if rows.any():
                used, lost = (int(rollouts.billed[part].sum()) for part in (rows, rows & wasted))
                level[key] = [used, lost, int((rows & whole).sum())]
        mixed = 0
        for g in range(len(rollouts.keys)):
            r = rollouts.verified[(rollouts.group == g) & whole]
            mixed += int(len(r) > 1 and r.min() != r.max())
        p.steps_log.append(
            {
                "step": p.step,
                "used": rollouts.used + update.parked + update.lost + self.watched,
                "wasted": int(rollouts.billed[wasted].sum()) + update.lost,
                "trained": int(rollouts.billed[trained].sum()),
                "rollouts": int(whole.sum()),
                "mixed": mixed,
                "reward": float(rollouts.reward.mean()) if len(rollouts) else 0.0,
                "terms": dict(self.terms),
                "counts": {str(int(u)): int(n) for u, n in zip(counts, occurrences, strict=True)},
                "by_key": level,
            }
        )
        chosen = np.linspace(0, len(rollouts) - 1, min(6, len(rollouts))).astype(int).tolist()
        stopped = np.flatnonzero(rollouts.status == ABORTED)[:3].tolist()
        shown = [*chosen, *stopped]
        p.traces = [
            {
                "key": rollouts.keys[rollouts.group[i]],
                "tokens": rollouts.tokens[i, : rollouts.length[i]].tolist(),
                "status": int(rollouts.status[i]),
                "reward": float(rollouts.reward[i]),
                **({"asked": text} if (text := self.spoken.get(prompt)) is not None else {}),
            }
            for i, prompt in zip(shown, rollouts.prompts_of(np.array(shown, np.int64)), strict=True)
        ]


def _product(advantage: F64, weight: F64) -> F64:
    """The product of numbers [n] or [n, t], where one may be of rows and the other of tokens."""
    if advantage.ndim == weight.ndim:
        return advantage * weight
    return per_token(advantage, weight) * weight if weight.ndim == 2 else advantage * per_token(weight, advantage)


def _of_rows(advantage: F64) -> F64:
    """[n] advantage of each row: of tokens, their mean."""
    return advantage if advantage.ndim == 1 else advantage.mean(axis=1)
