"""How able is a model? A bank calibrated on other models, the next questions to ask, and the scores that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from budgeteer.allocate import Bank, optimal_design
from budgeteer.allocate._optimal_design import inverse, mode
from budgeteer.allocate.kit.calibrate import Calibrated, calibrate
from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ENDED, F64, Items, Outcomes

ALL = "all questions"


@dataclass(frozen=True, slots=True)
class Responses:
    """The answers of m models to n questions, as they stand in a file.

    Attributes:
        models: [m] names.
        keys: [n] of the questions.
        right: [m, n] in [0, 1]; NaN where a question was not asked.
    """

    models: tuple[str, ...]
    keys: tuple[str, ...]
    right: F64


@dataclass(frozen=True, slots=True)
class About:
    """What is known of questions beside the answers: key -> tokens, and key -> name of its group."""

    cost: Mapping[str, float] = field(default_factory=dict)
    group: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """A predicted score: its mean and standard deviation, and how many of its questions were answered."""

    name: str
    questions: int
    answered: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a model.

    Attributes:
        ability: [1 + groups] posterior mode, the general ability first.
        deviation: [1 + groups].
        scores: of all questions, and of each group.
        ask: keys to ask next, in the order of the bank.
        tokens: that these are expected to take.
    """

    ability: F64
    deviation: F64
    scores: tuple[Score, ...]
    ask: tuple[str, ...]
    tokens: float


def responses(path: str) -> Responses:
    """Read a response matrix: one model a row, a field ``model`` for its name, a question in every other field.

    Entries are 1, 0 or a share; an empty one is a question that was not asked. CSV, JSON lines, JSON or Parquet.

    Raises:
        InvalidInput: a row without ``model``, an entry that is no share, or fewer than two models or questions.
    """
    models: list[str] = []
    table: list[dict[str, float]] = []
    keys: dict[str, None] = {}
    for where, fields in rows.read(path):
        named = dict(fields)
        name = named.pop("model", None)
        if name in (None, ""):
            raise InvalidInput(f"{path}, {where}: no field 'model'; the first column names the model")
        models.append(str(name))
        table.append({str(key): _share(entry, path, where, str(key)) for key, entry in named.items()})
        keys |= dict.fromkeys(table[-1])
    if len(models) < 2 or len(keys) < 2:
        raise InvalidInput(f"{path} has {len(models)} models and {len(keys)} questions; calibration needs 2 of each")
    if len(set(models)) < len(models):
        raise InvalidInput(f"{path} has a model twice; give each row another name")
    right = np.array([[row.get(key, math.nan) for key in keys] for row in table])
    asked = ~np.isnan(right).all(0)  # a question that nobody was asked tells nothing
    return Responses(tuple(models), tuple(key for key, kept in zip(keys, asked, strict=True) if kept), right[:, asked])


def about(path: str) -> About:
    """Read what is known of questions: fields ``key``, ``cost`` in tokens, and perhaps ``group``.

    Raises:
        InvalidInput: a row without a key, or a cost that is not above 0.
    """
    cost: dict[str, float] = {}
    group: dict[str, str] = {}
    for where, fields in rows.read(path):
        key = fields.get("key")
        if key in (None, ""):
            raise InvalidInput(f"{path}, {where}: no field 'key'; each row is a question")
        if fields.get("cost") not in (None, ""):
            cost[str(key)] = value = _number(fields["cost"], path, where, "cost")
            if not 0 < value < math.inf:
                raise InvalidInput(f"{path}, {where}: cost is {value:g}; give tokens above 0")
        if fields.get("group") not in (None, ""):
            group[str(key)] = str(fields["group"])
    return About(cost, group)


def answered(path: str) -> dict[str, float]:
    """Read the answers of the model that is estimated: fields ``key`` and ``right``, 1, 0 or a share.

    Raises:
        InvalidInput: a row without one of them, an entry that is no share, or a question twice.
    """
    share_right: dict[str, float] = {}
    for where, fields in rows.read(path):
        key = fields.get("key")
        if key in (None, "") or str(key) in share_right:
            raise InvalidInput(f"{path}, {where}: {'no key' if key in (None, '') else f'{key!r} stands there twice'}")
        share = _share(fields.get("right"), path, where, "right")
        if math.isnan(share):
            raise InvalidInput(f"{path}, {where}: no field 'right'; write 1 or 0")
        share_right[str(key)] = share
    return share_right


def _number(entry: Any, path: str, where: str, name: str) -> float:
    try:
        return float(entry)
    except (TypeError, ValueError):
        raise InvalidInput(f"{path}, {where}: {name} is {entry!r}, no number") from None


def _share(entry: Any, path: str, where: str, name: str) -> float:
    if entry is None or entry == "":
        return math.nan
    value = _number(entry, path, where, name)
    if not 0 <= value <= 1:
        raise InvalidInput(f"{path}, {where}: {name} is {entry!r}; write 1 for right, 0 for wrong, or a share")
    return value


def fitted(known: Responses, questions: About) -> tuple[Bank, Calibrated]:
    """The bank of the questions; with groups only where all questions have one.

    Raises:
        InvalidInput: some questions have a group and others have none.
    """
    without = [key for key in known.keys if key not in questions.group]
    if without and questions.group:
        raise InvalidInput(f"{len(without)} questions have no group, such as {without[0]!r}; give all or none")
    groups = None if without else [questions.group[key] for key in known.keys]
    fit = calibrate(known.right, groups)
    return Bank(known.keys, fit.slope, fit.intercept), fit


def estimate(
    bank: Bank, questions: About, answers: Mapping[str, float], budget: int, *, discount: float = 1.0
) -> Estimate:
    """The ability that the answers show, the scores that it predicts, and the questions to ask next.

    A score is the mean over its questions: an answer where there is one, else the chance of a right one, averaged over
    the normal posterior of the ability; its deviation is that of the chances. The questions to ask are those of
    :func:`budgeteer.allocate.optimal_design` for the scores of all groups: targets are their gradients.

    Args:
        bank: calibrated questions.
        questions: their costs (1 where there is none) and groups.
        answers: key -> right, of the model.
        budget: tokens for the next questions, or their number where there are no costs; 0 = none.
        discount: exponent of the cost.

    Raises:
        InvalidInput: an answer to a question that is not in the bank.
    """
    asked = bank.rows(tuple(answers))
    right = np.array(list(answers.values()), dtype=np.float64)
    d = bank.slope.shape[1]
    theta, precision = mode(bank.slope[asked], bank.intercept[asked], right, np.eye(d))
    v = inverse(precision)
    spread = np.einsum("ni,ij,nj->n", bank.slope, v, bank.slope)
    shrink = 1 / np.sqrt(1 + np.pi / 8 * spread)
    chance = 1 / (1 + np.exp(-shrink * (bank.slope @ theta - bank.intercept)))
    gradient = (shrink * chance * (1 - chance))[:, None] * bank.slope
    chance[asked], gradient[asked] = right, 0.0
    names = [questions.group.get(key, ALL) for key in bank.keys]
    parts = {ALL: np.ones(len(names), np.bool_)}
    parts |= {name: np.array([own == name for own in names]) for name in dict.fromkeys(names)}
    open_ = np.ones(len(names), np.bool_)
    open_[asked] = False
    scores, aims = [], []
    for name, own in parts.items():
        aim = gradient[own].mean(0)
        aims.append(aim)
        deviation = math.sqrt(max(0.0, float(aim @ v @ aim)))
        scores.append(Score(name, int(own.sum()), int((own & ~open_).sum()), float(chance[own].mean()), deviation))
    items = Items(
        tuple(key for key, kept in zip(bank.keys, open_, strict=True) if kept),
        np.array([questions.cost.get(key, 1.0) for key, kept in zip(bank.keys, open_, strict=True) if kept]),
    )
    ask: tuple[str, ...] = ()
    tokens = 0.0
    if budget and len(items):
        # each group counts alike; where there are none, all questions are the one score
        method = optimal_design(bank, np.array(aims[1:] if np.any(aims[1:]) else aims), discount)
        belief = method.init(items)
        if answers:
            status = np.full(len(asked), ENDED, np.int8)
            belief = method.observe(belief, Outcomes(tuple(answers), asked * 0, right, right * 0, status))
        plan = method.allocate(budget, items, belief, rng=np.random.default_rng(0))
        ask = tuple(key for key, n in zip(plan.keys, plan.units.tolist(), strict=True) if n)
        tokens = plan.expected_cost
    return Estimate(theta, np.sqrt(np.diag(v)), tuple(scores), ask, tokens)
