"""AgentTTS: an agent searches how much of a budget each stage of a pipeline gets, and of which model.

Paper: "AgentTTS: Large Language Model Agent for Test-time Compute-optimal Scaling Strategy in Complex Tasks",
arXiv 2508.00890.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Array, Assignment
from budgeteer.core.plan import F64, whole
from budgeteer.joint.kit import Propose, Space, Trial, searched


def agent_tts(
    loss: Callable[[Array], tuple[float, Array]],
    cost: F64,
    budget: float,
    start: Array,
    *,
    rng: np.random.Generator,
    family: Sequence[int] = (),
    propose: Propose | None = None,
    trials: int = 30,
    batch: int = 5,
) -> Assignment:
    """Try a model a stage with an equal share, then what an agent proposes from what was seen, ``batch`` at a time.

    First trials: for each stage and each model, the most samples of it that one unit of budget buys there (a unit is
    one sample of the dearest model), with one sample of the dearest model at every other stage, or of the cheapest
    where the budget does not pay that. Then the agent sees all trials and proposes the next ones. Without an agent
    (``propose``) the three observations of the paper are rules (:func:`observations`): each stage has a model of its
    own that suits it; more samples help up to a point; what one stage gets changes what is best for the others.
    Proposals that are not affordable are left out; what the agent does not fill is drawn at random. Gradients and
    ``start`` are not used.

    When it helps: few trials can be paid, and stages differ. When not: stages are alike, or the evaluation is so noisy
    that the best trial is the luckiest one; evaluate the result on other questions.

    Args:
        loss, cost, budget, start, rng: see :class:`budgeteer.core.joint.Joint`; groups are stages.
        family: [K] the model of each option; ``()`` = every option is a model of its own.
        propose: the agent.
        trials: evaluations, >= 1.
        batch: proposals that are asked for at once, >= 1.

    Raises:
        InvalidInput: costs, logits, a budget or a loss that cannot be used.

    >>> def wrong(y):  # the second stage needs its large model (options 2, 3), the first one samples of its small one
    ...     return 1 - 0.4 * y[0, 1] - 0.5 * y[1, 2] - 0.4 * y[1, 3], np.zeros((2, 4))
    >>> cost = np.array([[1.0, 2, 4, 8], [1.0, 2, 4, 8]])
    >>> best = agent_tts(wrong, cost, 6.0, cost * 0, rng=np.random.default_rng(0), family=[0, 0, 1, 1], trials=6)
    >>> best.choice.tolist(), best.calls
    ([1, 2], 6)
    """
    table = searched("agent_tts", cost, budget, start)
    n, k = table.shape
    models = np.arange(k) if not len(family) else np.asarray(family, np.int64)
    if models.shape != (k,) or whole("trials", trials) < 1 or whole("batch", batch) < 1:
        raise InvalidInput(
            f"agent_tts(family={family}, trials={trials}, batch={batch}); a model for each of {k} options"
        )
    space, agent, seen = Space(table, models, float(budget)), propose or observations, dict[tuple[int, ...], float]()

    def evaluate(wanted: Sequence[Sequence[int]], most: int) -> int:
        done = 0
        for given in wanted:
            choice = tuple(int(option) for option in given)
            fits = len(choice) == n and all(0 <= option < k for option in choice) and space.of(choice) <= budget
            if done < most and len(seen) < trials and fits and choice not in seen:
                value, _ = loss(np.eye(k)[list(choice)])
                if not np.isfinite(value):
                    raise InvalidInput(f"the loss is {value} for the choice {choice}; return a finite one")
                seen[choice], done = float(value), done + 1
        return done

    evaluate([tuple(table.argmin(axis=1).tolist())], 1)
    evaluate(first_trials(space), trials)
    while len(seen) < trials:
        want = min(batch, trials - len(seen))
        done = evaluate(agent(space, [Trial(c, v) for c, v in seen.items()], want, rng), want)
        if done < want and not evaluate(_random(space, want - done, seen, rng), want - done) and not done:
            break  # nothing affordable is left
    best = min(seen, key=lambda choice: (seen[choice], space.of(choice)))
    choice = np.array(best, np.int64)
    return Assignment(choice, choice, seen[best], len(seen))


def first_trials(space: Space) -> list[tuple[int, ...]]:
    """The trials that come first: for each stage and each model, as many samples of the model at that stage as one unit
    of budget buys (the cost of one sample of the dearest model), and one sample of one model at every other stage.

    Returns:
        Choices [N], one a stage and model; without those that the budget does not pay.
    """
    cost, family = space.cost, space.family
    cheapest = {f: np.where(family == f, cost, np.inf).argmin(axis=1) for f in np.unique(family).tolist()}
    single = np.stack([cost[np.arange(len(cost)), own] for own in cheapest.values()])  # [models, N]
    single[single > space.budget] = -1.0  # not offered, or never affordable
    dearest = np.stack([*cheapest.values()])[single.argmax(axis=0), np.arange(len(cost))]
    trials = []
    for stage, row in enumerate(cost):
        unit = float(row[dearest[stage]])
        for f in cheapest:
            fits = np.flatnonzero((family == f) & (row <= unit))
            if not len(fits):
                continue
            for others in (dearest, cost.argmin(axis=1)):
                choice = others.copy()
                choice[stage] = fits[row[fits].argmax()]
                if space.of(choice.tolist()) <= space.budget:
                    trials.append(tuple(choice.tolist()))
                    break
    return trials


def observations(space: Space, trials: Sequence[Trial], wanted: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The paper's three observations as moves from the three best trials, the best trial first.

    1. Another model at one stage, with its option of the next lower or equal cost.
    2. A step more or fewer samples of the same model at one stage.
    3. A step up at one stage, which a step down at another stage pays for.

    Returns:
        At most ``wanted`` choices that fit the budget and were not tried.
    """
    tried, proposals = {trial.choice for trial in trials}, dict[tuple[int, ...], None]()
    for trial in sorted(trials, key=lambda t: (t.loss, space.of(t.choice)))[:3]:
        near = [c for c in _around(space, trial.choice) if c not in tried and space.of(c) <= space.budget]
        rng.shuffle(near)
        proposals |= dict.fromkeys(sorted(near, key=lambda c: _promise(space, trials, c)))
    return list(proposals)[:wanted]


def _around(space: Space, choice: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The pipelines that one of the three moves makes of a pipeline."""
    cost, family = space.cost, space.family
    moves: list[list[tuple[int, int]]] = []
    steps: dict[int, list[tuple[int, int]]] = {}
    for stage, have in enumerate(choice):
        row = cost[stage]
        for f in np.unique(family).tolist():
            mine = np.flatnonzero(family == f)
            mine = mine[np.argsort(row[mine], kind="stable")]
            if f == family[have]:
                at = int(np.flatnonzero(mine == have)[0])
                steps[stage] = [(stage, int(mine[i])) for i in (at + 1, at - 1) if 0 <= i < len(mine)]
                moves += [[step] for step in steps[stage]]
            else:
                below = mine[row[mine] <= max(row[have], row[mine].min())]
                moves.append([(stage, int(below[-1]))])
    for a, b in itertools.permutations(steps, 2):
        moves += [[up, down] for up in steps[a] for down in steps[b] if cost[up] > cost[a, choice[a]]]
    return [tuple(dict([*enumerate(choice), *move]).values()) for move in moves]


def _promise(space: Space, trials: Sequence[Trial], choice: tuple[int, ...]) -> float:
    """The sum over stages of the smallest loss that was seen with this option, or else with its model; 0 if neither."""
    total = 0.0
    for stage, option in enumerate(choice):
        same = [trial.loss for trial in trials if trial.choice[stage] == option]
        model = [trial.loss for trial in trials if space.family[trial.choice[stage]] == space.family[option]]
        total += min(same or model or [0.0])
    return total


def _random(
    space: Space, wanted: int, seen: dict[tuple[int, ...], float], rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Affordable pipelines that were not tried; in small spaces every one that there is."""
    n, k = space.cost.shape
    if k**n <= 4096:
        every = [c for c in itertools.product(range(k), repeat=n) if c not in seen and space.of(c) <= space.budget]
        return [every[i] for i in rng.permutation(len(every))[:wanted].tolist()]
    drawn: set[tuple[int, ...]] = {tuple(row) for row in rng.integers(0, k, (200 * wanted, n)).tolist()}
    return [c for c in sorted(drawn) if c not in seen and space.of(c) <= space.budget][:wanted]
