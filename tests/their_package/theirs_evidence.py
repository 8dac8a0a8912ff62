"""Their uniform spends no more than its budget."""

import numpy as np
from theirs_of_a_test import their_uniform

from budgeteer.core.plan import Items
from budgeteer.lab.evidence import BELOW_ONE, declare, measured

DECLARED = declare("simulation", claims=["share spent"])


def experiments():
    """Share of the budget that is spent, over items of random costs."""
    values = []
    for seed in range(4):
        items = Items(("a", "b"), np.random.default_rng(seed).uniform(3, 9, 2))
        values.append(their_uniform().allocate(100, items, (), rng=np.random.default_rng(0)).expected_cost / 100)
    said = {"claim": "The share of the budget that is spent", "baseline": "all of it", "budget": "100 tokens"}
    return [measured("share spent", values, BELOW_ONE, **said)]
