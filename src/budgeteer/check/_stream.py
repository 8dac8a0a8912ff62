"""The rules of streams of prompts."""

from __future__ import annotations

import copy
import json

import numpy as np

from budgeteer.check._common import CheckFailed, same
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.plan import ABORTED, CUT, ENDED, Outcomes
from budgeteer.rl.recipe import Stream

STEPS = 48


def check_stream(stream: Stream, *, seed: int = 0) -> None:
    """Pick prompts for some steps, and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``pick`` returns as many indices as were asked for, within the keys, none twice; every prompt is picked at
    some time; ``pick`` and ``observe`` do not change their arguments, and have no memory but the state; a state
    survives JSON.

    Args:
        stream: the stream to check.
        seed: of the outcomes and of the stream.
    """
    if not isinstance(stream, Stream):
        raise CheckFailed(f"the factory made {stream!r}, no Stream")
    keys = tuple(f"{name}:{i}" for name, n in (("long", 7), ("short", 5), ("plain", 1)) for i in range(n))
    rng, state = np.random.default_rng([seed, 14]), stream.init()
    came: set[int] = set()
    for turn in range(STEPS):
        count = (4, len(keys), 1, 6)[turn % 4]
        given = copy.deepcopy(state)
        picked, again = (np.asarray(stream.pick(state, keys, count, seed)) for _ in range(2))
        fits = picked.shape == (count,) and picked.dtype.kind in "iu"
        if not fits or not np.all((picked >= 0) & (picked < len(keys))):
            raise CheckFailed(f"pick gave {picked.tolist()} of {len(keys)} prompts; {count} indices were asked for")
        if len(set(picked.tolist())) < count:
            raise CheckFailed(f"pick gave {picked.tolist()}: a prompt twice in one step")
        back = load_state(stream.init(), json.loads(json.dumps(dump_state(state))))
        if not np.array_equal(picked, again) or not np.array_equal(picked, stream.pick(back, keys, count, seed)):
            raise CheckFailed("the same state gave other prompts; draw from seed and state only, which survives JSON")
        taken = picked[: max(1, count - 1)]
        rows = np.repeat(taken, 2)
        status = rng.choice(np.array([ENDED, ABORTED, CUT], np.int8), len(rows))
        outcomes = Outcomes(tuple(keys[i] for i in rows), rows + 1, rows % 2, 0.0 * rows, status)
        after, twice = (stream.observe(state, keys, taken, outcomes) for _ in range(2))
        if not same(given, state):
            raise CheckFailed("pick or observe changed the state it was given; copy before writing")
        if not same(after, twice):
            raise CheckFailed("the same outcomes gave another state: observe keeps no memory")
        if turn % 4 != 1:  # the step that asks for all of them proves nothing
            came |= set(taken.tolist())
        state = after
    if len(came) < len(keys):
        raise CheckFailed(f"prompts {sorted(set(range(len(keys))) - came)} never came in {STEPS} steps")
