"""A training recipe is a composition of parts; each part is a small protocol, and may have a state of its own.

Parts with a state are pure functions over it (``init``, and what gives the next one); the states of all parts are in
the run's checkpoint, so that a run that is killed goes on as the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from budgeteer.core.allocator import Allocator
from budgeteer.core.column import Column, with_sources
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Items, Outcomes, Plan
from budgeteer.core.schedule import Schedule, constant, flat_then_linear
from budgeteer.core.steer import Steer
from budgeteer.core.words import one_of
from budgeteer.rl.beside import Beside
from budgeteer.rl.branch import Branch
from budgeteer.rl.compress import Compression
from budgeteer.rl.fork import Fork
from budgeteer.rl.history import History, Memory
from budgeteer.rl.kl_weight import KLWeight
from budgeteer.rl.ratio.protocol import Loss
from budgeteer.rl.replay import Replay
from budgeteer.rl.reward.protocol import ALWAYS, Reward
from budgeteer.rl.rollouts import OF_SAMPLER, Rollouts
from budgeteer.rl.weight import token_mean

ENTROPY = "entropy"
"""What a part may need: ``Rollouts.entropy``."""
TEXT = "text"
"""What a reward may need: what the model wrote, the column ``text`` of ``Rollouts.more``."""
OFFSETS = "offsets"
"""What a reward may need: where each token ends in the text, the column ``offsets`` of ``Rollouts.more``."""
SOLUTION = "solution"
"""What a variant may need: a worked solution of every prompt, :attr:`View.solutions`."""


@dataclass(frozen=True, slots=True)
class View:
    """What the parts of a recipe may look at in a step.

    Attributes:
        items: the step's prompts with the estimates of the recipe's memory.
        plan: units of each prompt (zeros before allocation).
        history: everything seen before this step.
        max_tokens: hard cap of a rollout.
        spent: share of the run that is done, 0 to 1: of its steps or of its budget, whichever is more.
        solutions: key -> steps of a worked solution, for variants that need :data:`SOLUTION`.
    """

    items: Items
    plan: Plan
    history: History
    max_tokens: int
    spent: float = 0.0
    solutions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


AdvantageFn = Callable[[Rollouts, View], F64]
"""(rollouts, view) -> [n] or [n, t] advantages, aborted rows included."""
TokenWeightFn = Callable[[I64, I64], F64]
"""(length [n], group [n]) -> weights in the loss, 0 or more: [n], one for all tokens of a row, or [n, t], one a token,
with t the largest length; what stands behind the end of a row does not count."""
SteerFn = Callable[[View], Steer]
"""view of the step -> the steer of its rollouts."""
SelectFn = Callable[[Rollouts, np.random.Generator], I64]
"""(rollouts, rng) -> indices of the rows that enter the update."""


class Importance(NamedTuple):
    """Weights that multiply the advantages: of rows that were kept by chance, or of the tokens that count.

    Attributes:
        weigh: ``(rollouts, view) -> [n] or [n, t]`` weights, 0 or more.
        needs: what the rollouts must have, such as :data:`ENTROPY`; refused before the first token where the trainer
            cannot give it.
    """

    weigh: Callable[[Rollouts, View], F64]
    needs: tuple[str, ...] = ()


class Stream(NamedTuple):
    """Which prompts come next.

    Attributes:
        init: ``() -> state``.
        pick: ``(state, keys, count, seed) -> [count]`` distinct indices into the keys of all training prompts. The
            seed is that of the run: the same in every step.
        observe: ``(state, keys, taken, outcomes) -> state``, once a step; ``taken`` are the indices that the step used
            of those that were picked.
    """

    init: Callable[[], Any]
    pick: Callable[[Any, tuple[str, ...], int, int], I64]
    observe: Callable[[Any, tuple[str, ...], I64, Outcomes], Any]


@dataclass(frozen=True, slots=True)
class Beginnings:
    """Rollouts that were begun in earlier steps and are to be continued: m rows.

    Attributes:
        keys: m prompt keys (they may repeat).
        tokens: [m, t] the tokens so far, right-padded; length: [m] how many.
        version: [m, t] when each was sampled (:attr:`budgeteer.rl.rollouts.Rollouts.version`).
        logprob: [m, t] log-probability of each token under the policy that sampled it, where the token is to be trained
            on once its row ends; NaN = it is only read, as all are where this is None.
    """

    keys: tuple[str, ...]
    tokens: I64
    length: I64
    version: I64
    logprob: F64 | None = None

    def __post_init__(self) -> None:
        if self.logprob is None:
            object.__setattr__(self, "logprob", np.full(self.tokens.shape, np.nan))
        if not self.keys:  # JSON does not tell how wide nothing is
            for name, kind in (("tokens", np.int64), ("version", np.int64), ("logprob", np.float64)):
                object.__setattr__(self, name, np.zeros((0, 0), kind))

    @staticmethod
    def empty() -> Beginnings:
        """None."""
        return Beginnings((), np.zeros((0, 0), np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.int64))

    @property
    def logprobs(self) -> F64:
        """[m, t]: :attr:`logprob`, which is never None once this is made."""
        assert self.logprob is not None
        return self.logprob

    def __len__(self) -> int:
        return len(self.keys)


class Carry(NamedTuple):
    """Rollouts that go on in a later step. The state is the beginnings that wait.

    Attributes:
        park: ``(beginnings, rollouts, step) -> (parked [n] bool, beginnings)``: which of the step's rows are not
            learnt from now but kept, and how they wait for the next step. ``beginnings`` are those that the step was to
            continue: their rows are among the rollouts, but for those that its budget did not reach, which wait on.
            ``step`` = steps done. Rows without a score are among the rollouts, too.
    """

    park: Callable[[Beginnings, Rollouts, int], tuple[Any, Beginnings]]


@dataclass(frozen=True, slots=True)
class Variants:
    """What n rows are asked with besides their prompts. The rows are those of a view's plan: ``plan.units[0]`` of its
    first item, then those of the next one. ``()`` = no text for any row.

    Attributes:
        prefix, suffix: n texts before and behind the text of the prompt.
        hint: n texts at the head of the answer, such as the first part of a solution, which the rollout continues. They
            carry no gradient and are not on the bill: they are computed with the prompt.
        columns: of rollouts, name -> [n], for rewards and for ``observe``.
    """

    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    hint: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)


def _nothing() -> Any:
    return ()


def _same(state: Any, rollouts: Rollouts) -> Any:
    return state


class Variant(NamedTuple):
    """What rollouts are asked with besides their prompts.

    Attributes:
        vary: ``(state, view, rng) -> Variants`` of the rows of ``view.plan``; once a round.
        init: ``() -> state``, which survives JSON.
        observe: ``(state, rollouts) -> state``, once a round, with its verified rows, the variant's own columns in
            ``Rollouts.more`` and the step in ``version``; rows that the end of a budget cut short are left out.
        needs: what the trainer must give, such as :data:`SOLUTION`; refused before the first token where it cannot.
        gives: names of the columns that it gives.
    """

    vary: Callable[[Any, View, np.random.Generator], Variants]
    init: Callable[[], Any] = _nothing
    observe: Callable[[Any, Rollouts], Any] = _same
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedules:
    """Factors of the run's settings over the share of the run that is done (:attr:`View.spent`).

    Attributes:
        temperature: times ``TrainConfig.temperature``, for sampling and update.
        max_tokens: times ``TrainConfig.max_tokens``, rounded down, at least 1.
        lr: times ``TrainConfig.lr``, beside the warm-up.
    """

    temperature: Schedule = field(default_factory=lambda: constant(1.0))
    max_tokens: Schedule = field(default_factory=lambda: constant(1.0))
    lr: Schedule = field(default_factory=lambda: flat_then_linear(0.75, 0.1))


def _ones(rollouts: Rollouts, view: View) -> F64:
    return np.ones(len(rollouts))


NO_IMPORTANCE = Importance(_ones)
"""Weight 1 for every row."""


class Aborted(StrEnum):
    """What is learnt from a rollout that the steer aborted."""

    MASK = "mask"
    """Its row carries no gradient but that of a KL penalty."""
    FAILURE = "failure"
    """It is a rollout with reward 0."""


class Pace(StrEnum):
    """How a run's budget is spread over its steps."""

    STEP = "step"
    """Every step to come has an equal share of what is left."""
    RUN = "run"
    """A step takes what its allocator wants, and the run ends when the budget does."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to spend a step's tokens and to learn from them.

    Attributes:
        name: as on the command line.
        allocator: units per prompt; called ``rounds`` times a step with what is left of the budget.
        advantage, token_weight: see the types above.
        importance: weights of rows or tokens that multiply the advantages.
        reward: what advantages are made of; None = the verifier's score.
        loss: what the update maximises.
        steer: one for all steps, or a function of a step's view that makes it; None = rollouts end by themselves or at
            the cap.
        stream: which prompts come next; None = epochs in random order.
        carry: which rollouts go on in a later step; None = none.
        variant: what rollouts are asked with besides their prompts; None = nothing.
        schedules: of temperature, cap and learning rate.
        replay: which rollouts of earlier steps are learnt from again; None = none.
        branch: answers from rollouts whose thinking is cut or compressed, or further rollouts from the middle of
            others, after the rounds of a step; None = none.
        beside: losses on the prompts beside that of the rollouts.
        kl_weight: what ``TrainConfig.kl`` is multiplied with, row by row; None = 1.
        memory: how earlier steps become estimates.
        select: which rows enter the update; None = all.
        thin: the larger side of a group trains on at most this many times the rows of the smaller one, reweighted;
            None = all rows train.
        aborted: what is learnt from aborted rollouts.
        weighted_scores: the history's scores use the advantages after importance weights (as DUET's code does).
        kept_lengths: weights of gate-kept rows count in length quantiles.
        rounds: allocation rounds a step.
        oversample: candidate prompts a step, in multiples of the batch.
        pace: how the budget is spread over the steps.

    ``aborted`` and ``pace`` take the words of their members, too, such as ``"failure"``.

    Raises:
        InvalidInput: another word, or parts that do not go together: a carry with a variant, a replay with a variant or
            a reward, a branch with a variant, a carry or a replay.
    """

    name: str
    allocator: Allocator
    advantage: AdvantageFn
    steer: Steer | SteerFn | None = None
    importance: Importance = NO_IMPORTANCE
    token_weight: TokenWeightFn = token_mean
    memory: Memory = field(default_factory=Memory)
    select: SelectFn | None = None
    thin: float | None = None
    aborted: Aborted = Aborted.MASK
    weighted_scores: bool = False
    kept_lengths: bool = False
    rounds: int = 1
    oversample: int = 1
    pace: Pace = Pace.STEP
    reward: Reward | None = None
    loss: Loss = field(default_factory=Loss)
    stream: Stream | None = None
    carry: Carry | None = None
    variant: Variant | None = None
    schedules: Schedules = field(default_factory=Schedules)
    replay: Replay | None = None
    branch: Branch | Compression | Fork | None = None
    beside: tuple[Beside, ...] = ()
    kl_weight: KLWeight | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "aborted", one_of(Aborted, self.aborted, f"aborted of recipe {self.name!r}"))
        object.__setattr__(self, "pace", one_of(Pace, self.pace, f"pace of recipe {self.name!r}"))
        if self.carry is not None and self.variant is not None:
            raise InvalidInput(
                f"recipe {self.name!r} has a carry and a variant; a rollout that goes on in a later step would not be "
                "asked as it was, so leave one of them out"
            )
        if self.branch is not None and (self.variant is not None or self.carry is not None or self.replay is not None):
            raise InvalidInput(
                f"recipe {self.name!r} branches its rollouts, which goes with no variant, carry or replay; leave "
                "them out"
            )
        given = self.variant.gives if self.variant else ()
        for term in self.beside:
            if missing := [name for name in term.needs if name not in given]:
                raise InvalidInput(
                    f"recipe {self.name!r} has the loss {term.name!r}, which reads the column {missing[0]!r}; give it "
                    "a variant that says it, such as both-kinds"
                )
        if self.replay is not None and (self.variant is not None or self.reward is not None):
            raise InvalidInput(
                f"recipe {self.name!r} has a replay and a variant or a reward of its own; a rollout of an earlier step "
                "is kept with the verifier's score and its prompt alone, so leave one of them out"
            )

    def unread(self) -> tuple[str, ...]:
        """Columns that the variant gives and that neither the reward, nor a loss, nor the variant itself reads."""
        if self.variant is None or self.variant.observe is not _same:
            return ()
        read = {*self.needs, *(name for term in self.beside for name in term.needs)}
        return tuple(name for name in self.variant.gives if name not in read)

    def steer_of(self, view: View) -> Steer | None:
        """The steer of a step's rollouts."""
        return self.steer if self.steer is None or isinstance(self.steer, Steer) else self.steer(view)

    @property
    def needs(self) -> tuple[str, ...]:
        """What the parts look at beside the sampler's rollouts, such as :data:`ENTROPY` or a column of a reward."""
        of_branch = self.branch.needs if self.branch else ()
        names = [*self.importance.needs, *of_branch, *(column.name for column in self.columns())]
        return tuple(dict.fromkeys(names))

    def columns(self, given: Collection[str] = ()) -> tuple[Column, ...]:
        """The columns of rollouts that the reward reads, and those that they are computed from.

        Args:
            given: columns that somebody gives, so that they need not be computed.
        """
        return with_sources(self.reward.needs, given) if self.reward else ()


def require_columns(recipe: Recipe, given: Collection[str]) -> None:
    """Refuse a recipe whose reward reads a column that nobody gives.

    Args:
        given: names of the columns that the trainer and the prompts give beside those of the sampler's rollouts.

    Raises:
        InvalidInput: names the column, what it holds, and how it is given.
        UnknownName: the reward names a column that nobody declared.
    """
    there = {*ALWAYS, *OF_SAMPLER, *given, *(recipe.variant.gives if recipe.variant else ())}
    for source in recipe.columns(there):
        if source.name not in there and source.make is None:
            raise InvalidInput(
                f"the reward of recipe {recipe.name!r} reads the column {source.name!r} of rollouts "
                f"({source.meaning}), and nobody gives it here; {source.source}"
            )
