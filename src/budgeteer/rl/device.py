"""Where a training computes, and in which numbers."""

from __future__ import annotations

import torch

from budgeteer.core.errors import InvalidInput


def choose_device(name: str) -> torch.device:
    """``"auto"`` = CUDA when there is one.

    Raises:
        InvalidInput: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        float(torch.zeros((), device=device))  # a number that can be read: "meta" has none
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(
            f"device {name!r} is not to be had here ({str(error)[:80]}); use cpu, cuda or auto"
        ) from error
    return device


DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
"""What the forward pass computes in; weights stay float32."""
