"""verl under a token budget: numbers of rollouts a prompt, and advantages that are right for groups of any size.

Importing this package puts the estimators and the loss into verl's registries, if verl is installed; verl imports it by
itself (entry point ``verl.plugins``). The agent loop manager is ``budgeteer.adapters.verl.manager``.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec

__all__: list[str] = []

if find_spec("verl") is not None:
    try:
        from verl.trainer.ppo import core_algos

        from budgeteer.adapters.verl.estimators import register

        register(core_algos)
    except Exception as error:
        # verl says nothing of a plugin that fails, and then of an unknown estimator only
        logging.getLogger(__name__).warning("verl has no estimators of budgeteer: %s", error)
        raise
