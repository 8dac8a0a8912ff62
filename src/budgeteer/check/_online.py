"""The rules of decisions on a stream."""

from __future__ import annotations

import copy
import json
import math

import numpy as np

from budgeteer.check._common import CheckFailed, refuses, same
from budgeteer.core import errors
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.online import Online


def check_online(online: Online, *, resources: int = 1, seed: int = 0) -> None:
    """Run a method on random streams of menus and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``init`` has the whole budget in ``left``; an option is -1 or an index of the menu; what it costs comes off
    ``left``, and nothing else does; no executed option costs more than what was left; a worthless request is refused;
    a step leaves the state it was given untouched and has no other memory; a state survives JSON; ``observe`` books the
    difference between planned and actual; values and costs that are NaN or infinite are refused with InvalidInput.

    Args:
        online: the method to check, with budgets in the hundreds.
        resources: m of its budgets.
        seed: of the streams.
    """
    rng = np.random.default_rng([seed, 4])
    state = online.init()
    for t in range(400):
        value = rng.gamma(1.0, 1.0, 3)
        cost = rng.integers(0, 12, (3, resources))
        if t % 10 == 0:
            value[:] = 0.0
        menu = value.tolist(), cost.tolist()
        before = copy.deepcopy(state)
        option, after = online.step(state, *menu)
        if not same(state, before):
            raise CheckFailed("step changed the state it was given; return a new one")
        back = load_state(online.init(), json.loads(json.dumps(dump_state(state))))
        if not same(back, state) or online.step(back, *menu) != (option, after):
            raise CheckFailed("the same state and menu gave another step, or the state did not survive JSON")
        if option not in (-1, 0, 1, 2):
            raise CheckFailed(f"step chose option {option} of a menu of 3; -1 is none")
        if option >= 0 and value[option] <= 0:
            raise CheckFailed("step bought an option without value")
        taken = np.zeros(resources) if option < 0 else cost[option]
        if not np.allclose(np.subtract(state.left, taken), after.left) or np.any(taken > np.array(state.left)):
            raise CheckFailed(f"option {option} costs {taken.tolist()}: left went from {state.left} to {after.left}")
        state = after
    for bad in (math.nan, math.inf):
        rule = f"a value of {bad} or a cost of {bad} on a menu"
        refuses(errors.InvalidInput, rule, online.step, state, [bad, 1.0], [[1.0] * resources] * 2)
        refuses(errors.InvalidInput, rule, online.step, state, [1.0, 1.0], [[bad] * resources] * 2)
    more = online.observe(state, [1.0] * resources, [3.0] * resources)
    if not np.allclose(np.subtract(state.left, 2.0), more.left):
        raise CheckFailed("observe did not take the difference between actual and planned off what is left")
