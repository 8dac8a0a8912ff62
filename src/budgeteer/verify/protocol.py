"""The verifier protocol."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Verifier"]

Verifier = Callable[[str | None, str], float]
"""``(answer, reference) -> score`` in [0, 1]; the answer is None where the model gave none."""
