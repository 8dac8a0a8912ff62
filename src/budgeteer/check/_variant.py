"""The rules of variants."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np

from budgeteer.check._common import CheckFailed, same
from budgeteer.check._made_up import made_up
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.column import column
from budgeteer.core.errors import BudgeteerError
from budgeteer.core.plan import Plan
from budgeteer.rl.recipe import SOLUTION, Variant, Variants, View
from budgeteer.rl.rollouts import Rollouts

STEPS, ROUNDS = 4, 2
TEXTS = ("prefix", "suffix", "hint")


def check_variant(variant: Variant, *, seed: int = 0) -> None:
    """Ask for the variants of made-up steps of two rounds, and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``vary`` gives one text a row of the plan, or ``()`` for none, of ``prefix``, ``suffix`` and ``hint``, and
    the columns that ``gives`` names, each declared, with one value a row; a round without rows works; it draws from the
    generator that it is given; ``vary`` and ``observe`` do not change their arguments and have no memory but the state,
    which survives JSON; the order of the rows that ``observe`` sees does not change what is asked next.

    Args:
        variant: the variant to check.
        seed: of what is made up.
    """
    if not isinstance(variant, Variant):
        raise CheckFailed(f"the factory made {variant!r}, no Variant")
    for name, named in (("needs", variant.needs), ("gives", variant.gives)):
        if isinstance(named, str) or not all(isinstance(text, str) for text in named):
            raise CheckFailed(f"{name} is {named!r}; give a tuple of texts")
    if unknown := set(variant.needs) - {SOLUTION}:
        raise CheckFailed(f"needs has {', '.join(sorted(unknown))}; a trainer can give {SOLUTION}")
    state, rng = variant.init(), np.random.default_rng([seed, 17])
    for turn in range(STEPS * ROUNDS):
        rollouts, view = _round(turn, seed)
        given = copy.deepcopy((state, view))
        variants = _varied(variant, state, view, turn)
        back = load_state(variant.init(), json.loads(json.dumps(dump_state(state))))
        if not all(same(variants, _varied(variant, other, view, turn)) for other in (state, back)):
            raise CheckFailed(
                "the same state and generator gave other variants; keep what matters in the state, which survives "
                "JSON, and draw from rng only"
            )
        rollouts = replace(rollouts, more={name: np.asarray(values) for name, values in variants.columns.items()})
        rows = copy.deepcopy(rollouts)
        after, again = (variant.observe(state, rollouts) for _ in range(2))
        if not same(given, (state, view)) or not same(rows, rollouts):
            raise CheckFailed("vary or observe changed what it was given; copy before writing")
        if not same(after, again):
            raise CheckFailed("the same rollouts gave another state: observe keeps no memory")
        turned = variant.observe(state, rollouts.take(rng.permutation(len(rollouts))))
        if not same(_varied(variant, after, view, turn), _varied(variant, turned, view, turn)):
            raise CheckFailed(
                "what is asked next changes with the order of the rows; group by Rollouts.group, never by position"
            )
        state = after


def _round(turn: int, seed: int) -> tuple[Rollouts, View]:
    """Verified rollouts of a round, and the view before it; the third round asks nothing."""
    rollouts, view = made_up(STEPS * ROUNDS * seed + turn)
    units = view.plan.units.copy()
    if turn == 2:
        units[:] = 0
    else:
        units[turn % len(units)] = 0
    step = turn // ROUNDS
    solutions = {key: tuple(f"step {i};" for i in range(1 + 2 * g)) for g, key in enumerate(view.items.keys)}
    plan = Plan(view.items.keys, units, view.items.spend(units))
    view = replace(view, plan=plan, spent=step / STEPS, solutions=solutions)
    return rollouts.take(units[rollouts.group] > 0).at(step), view


def _varied(variant: Variant, state: Any, view: View, turn: int) -> Variants:
    n = int(view.plan.units.sum())
    variants = variant.vary(state, view, np.random.default_rng(turn))
    if not isinstance(variants, Variants):
        raise CheckFailed(f"vary gave {variants!r}; give Variants")
    for name in TEXTS:
        texts = getattr(variants, name)
        if texts != () and (len(texts) != n or not all(isinstance(text, str) for text in texts)):
            raise CheckFailed(f"vary gave {len(texts)} entries of {name} for {n} rows; give one text a row, or ()")
    if set(variants.columns) != set(variant.gives):
        raise CheckFailed(
            f"vary gave the columns {', '.join(variants.columns) or 'none'}, and gives names "
            f"{', '.join(variant.gives) or 'none'}"
        )
    try:
        for name, values in variants.columns.items():
            column(name, "rollouts").checked("rollouts", values, tuple(f"row {i}" for i in range(n)))
    except BudgeteerError as error:
        raise CheckFailed(f"vary's column: {error}") from error
    return variants
