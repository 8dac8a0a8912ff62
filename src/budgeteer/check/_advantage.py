"""The rules of advantages and of importance weights."""

from __future__ import annotations

from budgeteer.check._common import CheckFailed
from budgeteer.check._made_up import by_key, made_up
from budgeteer.rl.recipe import AdvantageFn, Importance


def check_advantage(advantage: AdvantageFn, *, seed: int = 0) -> None:
    """Give made-up rollouts their advantages, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the advantage is one finite number per row or per token, aborted rows included; rows are grouped by key:
    neither the order of the rows nor that of the prompts changes the advantage of a row; the rollouts are not changed.

    Args:
        advantage: the advantage to check.
        seed: of the rollouts.
    """
    rollouts, view = made_up(seed)
    by_key("advantage", lambda rows: advantage(rows, view), rollouts, seed)


def check_importance(importance: Importance, *, seed: int = 0) -> None:
    """Weigh made-up rollouts, and raise :class:`CheckFailed` at the first broken rule.

    Rules: those of :func:`check_advantage`; weights are 0 or more; ``needs`` are texts.

    Args:
        importance: the weights to check.
        seed: of the rollouts.
    """
    if not isinstance(importance, Importance):
        raise CheckFailed(f"the factory made {importance!r}, no Importance")
    if isinstance(importance.needs, str) or not all(isinstance(name, str) for name in importance.needs):
        raise CheckFailed(f"needs is {importance.needs!r}; give a tuple of texts")
    rollouts, view = made_up(seed)
    by_key("importance", lambda rows: importance.weigh(rows, view), rollouts, seed)
