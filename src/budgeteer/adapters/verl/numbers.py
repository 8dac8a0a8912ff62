"""How many rollouts each prompt of a step gets, without a trainer: plans, what came of them, and the run's tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.adapters.verl.multiple import to_multiple
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import BudgetExceeded
from budgeteer.core.plan import F64, I64, Items, Outcomes, require_plan
from budgeteer.rl.history import History, estimates, record
from budgeteer.rl.recipe import Pace, Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is told.

    Attributes:
        recipe: whose allocator, memory and pace are used.
        steps: of the run.
        group: rollouts a prompt of the trainer's own.
        cap: most tokens of a rollout.
        multiple: of which the rollouts of a step are one.
        least: rollouts of a prompt that gets any.
        budget: tokens of the run; None = no limit.
        step_budget: tokens of each step; None = no limit of its own.
        worst_case: plan with ``cap`` tokens a rollout instead of what it is expected to take, so that no budget can be
            exceeded.
        low, high: rewards of a wrong and a right rollout; others count in proportion, outside of these as the nearer.
        seed: of allocators that draw.
    """

    recipe: Recipe
    steps: int
    group: int
    cap: int
    multiple: int = 1
    least: int = 2
    budget: int | None = None
    step_budget: int | None = None
    worst_case: bool = False
    low: float = 0.0
    high: float = 1.0
    seed: int = 0


@dataclass(slots=True)
class Spent:
    """Tokens and steps of a run so far.

    Attributes:
        step: steps planned.
        planned: tokens that the plans expected.
        used: tokens that the rollouts had.
        rollouts: of all plans.
    """

    step: int = 0
    planned: float = 0.0
    used: int = 0
    rollouts: int = 0


class Numbers:
    """Rollouts of each prompt, step by step: :meth:`plan`, then :meth:`observe` what came of them.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.history = History.empty()
        self.state = settings.recipe.allocator.init(Items((), np.zeros(0)))
        self.spent = Spent()

    def plan(self, keys: Sequence[str]) -> I64:
        """[n] rollouts of the step's prompts: none, or at least ``least``; their sum is a multiple of ``multiple``.

        Args:
            keys: n distinct keys of prompts.

        Raises:
            BudgetExceeded: what is left buys no step; says how many tokens it takes.
            InvalidInput: the allocator's plan breaks a rule.
        """
        s, done = self.settings, self.spent
        n = len(keys)
        zeros = np.zeros(n, np.int64)
        items = estimates(
            self.history, Items(tuple(keys), np.full(n, 0.6 * s.cap), drawn=zeros, right=zeros), s.recipe.memory
        )
        if s.worst_case:
            items = items.with_columns(cost=np.full(n, float(s.cap)))
        share = self._affordable(items)
        rng = np.random.default_rng((s.seed, done.step, 2))
        made = s.recipe.allocator.allocate(share, items, self.state, rng=rng)
        wanted = require_plan(made, items, share, f"the allocator of recipe {s.recipe.name!r}").units
        units = to_multiple(wanted, items.cost, share, s.multiple, s.least)
        if not units.any():  # the plan is below one multiple: as many as the trainer cannot do without
            units = to_multiple(self._smallest(items.cost), items.cost, share, s.multiple, s.least)
        done.step += 1
        done.planned += float(units @ items.cost)
        done.rollouts += int(units.sum())
        return units

    def _affordable(self, items: Items) -> int:
        """The step's share, raised to what the smallest step takes.

        Raises:
            BudgetExceeded: that is not left.
        """
        s, used = self.settings, 0 if self.settings.budget is None else self.spent.used
        needed, share, left = self._least(items.cost), self._share(items), self._left()
        least = f"a step takes {needed:,} tokens at least ({s.multiple} rollouts)"
        if needed > left:
            raise BudgetExceeded(
                kind="tokens", scope="step" if s.budget is None else "run", used=used, requested=needed,
                limit=used + left, hint=f"{least}; give more, or a lower multiple",
            )  # fmt: skip
        if share < needed and self.spent.step == 0:
            logger.warning(
                "%s by the first guess of lengths, and its share of the budget is %d; unless responses are shorter, "
                "the run ends early: give more tokens, fewer steps, or a lower budgeteer.multiple",
                least, share,
            )  # fmt: skip
        return max(share, needed)

    def _left(self) -> int:
        """Tokens that this step may take at most."""
        s = self.settings
        caps = [] if s.budget is None else [s.budget - self.spent.used]
        return min([*caps, *([] if s.step_budget is None else [s.step_budget])], default=2**62)

    def _share(self, items: Items) -> int:
        """Tokens that this step should take: an equal share of what is left, at most what the trainer's own groups are
        expected to cost."""
        s = self.settings
        shares = [int(np.ceil(s.group * float(items.cost.sum()))), self._left()]
        if s.budget is not None and s.recipe.pace == Pace.STEP:
            shares.append((s.budget - self.spent.used) // max(s.steps - self.spent.step, 1))
        return max(min(shares), 0)

    def _smallest(self, cost: F64) -> I64:
        """[n] the cheapest numbers that make one multiple."""
        s, n = self.settings, len(cost)
        total = -(-s.least // s.multiple) * s.multiple
        group = max(s.least, -(-total // n))
        chosen = np.argsort(cost, kind="stable")[: total // group]
        units = np.zeros(n, np.int64)
        units[chosen] = group
        units[chosen[0]] += total - int(units.sum())
        return units

    def _least(self, cost: F64) -> int:
        """Tokens without which there is no step."""
        return int(np.ceil(self._smallest(cost) @ cost))

    def observe(self, keys: Sequence[str], reward: F64, tokens: I64, score: F64, status: NDArray[np.int8]) -> None:
        """Learn what the rollouts of a step did.

        Args:
            keys: [m] of each rollout's prompt.
            reward: [m] as the trainer has them.
            tokens: [m] that the policy sampled.
            score: [m] advantage times log-likelihood, NaN = unknown.
            status: [m] how each ended, a :class:`budgeteer.core.plan.Status`.
        """
        s = self.settings
        right = np.clip((np.asarray(reward, np.float64) - s.low) / (s.high - s.low), 0.0, 1.0)
        outcomes = Outcomes(tuple(keys), tokens, right, score, status)
        self.history = record(self.history, outcomes, s.recipe.memory)
        self.state = s.recipe.allocator.observe(self.state, outcomes)
        self.spent.used += int(np.sum(tokens))

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as JSON values."""
        return {
            "history": dump_state(self.history),
            "allocator": dump_state(self.state),
            "spent": {name: getattr(self.spent, name) for name in Spent.__slots__},
        }

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, before or after JSON."""
        content = json.loads(json.dumps(content))
        self.history = load_state(History.empty(), content["history"])
        self.state = load_state(self.state, content["allocator"])
        self.spent = Spent(**content["spent"])
