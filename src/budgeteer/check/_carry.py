"""The rules of carries, which keep cut rollouts for a later step."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np

from budgeteer.check._common import CheckFailed, same
from budgeteer.check._made_up import made_up
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.plan import CUT
from budgeteer.rl.recipe import Beginnings, Carry

STEPS = 12


def check_carry(carry: Carry, *, seed: int = 0) -> None:
    """Park made-up rollouts for some steps, and raise :class:`CheckFailed` at the first broken rule.

    Rules: parking gives one truth value per row; rows that wait have the keys and tokens of the parked rows; a row that
    was not cut is not parked; rows and beginnings are not changed; no row waits for ever; what waits survives JSON.

    Args:
        carry: the carry to check.
        seed: of the rollouts.
    """
    if not isinstance(carry, Carry):
        raise CheckFailed(f"the factory made {carry!r}, no Carry")
    rollouts, _ = made_up(seed)
    rollouts, waiting = replace(rollouts, cap=rollouts.length + 1), Beginnings.empty()
    for step in range(STEPS):
        given = copy.deepcopy((waiting, rollouts))
        parked, after = carry.park(waiting, rollouts, step)
        parked = np.asarray(parked)
        if parked.shape != (len(rollouts),) or parked.dtype != np.bool_:
            raise CheckFailed(
                f"park gave {parked.dtype} {parked.shape} for {len(rollouts)} rows; give one truth value each"
            )
        if np.any(parked & (rollouts.status != CUT)):
            raise CheckFailed("a row that was not cut is parked; it has nothing to go on with")
        if not same(given, (waiting, rollouts)):
            raise CheckFailed("park changed what it was given; copy before writing")
        rows = np.flatnonzero(parked).tolist()
        kept = [(rollouts.keys[rollouts.group[i]], rollouts.tokens[i, : rollouts.length[i]].tolist()) for i in rows]
        waits = [(key, after.tokens[i, : after.length[i]].tolist()) for i, key in enumerate(after.keys)]
        if sorted(kept) != sorted(waits):
            raise CheckFailed("what waits is not what was parked: keep each row's key and all of its tokens")
        if not same(load_state(Beginnings.empty(), json.loads(json.dumps(dump_state(after)))), after):
            raise CheckFailed("what waits did not survive JSON; give int64 arrays")
        if not len(after):
            return
        # and go on with these alone, cut again and again
        rollouts, waiting = rollouts.take(parked), after
    raise CheckFailed(f"a row that was cut in each of {STEPS} steps still waits; give up rows that are too old")
