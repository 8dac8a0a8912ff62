"""Skips tests that need what is not installed."""

from __future__ import annotations

import pytest

from budgeteer.core.errors import MissingExtra
from budgeteer.lab.tasks import gym


def reasoning_gym() -> None:
    """reasoning-gym; ``importorskip`` would skip where only pycosat is missing, which is not needed."""
    try:
        gym.reasoning_gym()
    except MissingExtra as error:
        pytest.skip(str(error), allow_module_level=True)
