"""Orthogonal projections of a model's keys and values, and the order in which heads lose numbers.

They belong to the model that they were trained on (``budgeteer cache train matryoshka``), and lie beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from budgeteer.cache.gates import GATES
from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra
from budgeteer.core.files import replaced

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise MissingExtra("torch", "hf") from error

NAME = "matryoshka"
"""Of the method, and of its file."""


@dataclass(frozen=True, eq=False)
class Projections:
    """An orthogonal matrix and a mean for the keys and for the values of each head.

    With U the first r columns of a matrix and m the mean, x is held as (x - m) U, r numbers, and read as m + (x - m) U
    U^T. Keys are those behind RoPE.

    Attributes:
        basis: [2, L, K, d, d] float32, columns by worth, for keys and values of L layers with K key-value heads.
        mean: [2, L, K, d] float32.
        cuts: [n] int64, the head of :attr:`units` that loses d / ``steps`` numbers next, from full rank on.
        steps: how many times a head could lose so many.
        fingerprint: of the model that they were trained on; empty = any.
    """

    basis: Tensor
    mean: Tensor
    cuts: Tensor
    steps: int
    fingerprint: str = ""

    @property
    def units(self) -> int:
        """2 L K: keys of all heads of all layers, head by head, and then values."""
        return self.basis[..., 0, 0].numel()

    def ranks(self, share: float) -> Tensor:
        """[2, L, K] int64: numbers of each head with which a share of all is not exceeded.

        Raises:
            InvalidInput: a smaller share than the cuts reach.
        """
        count = math.ceil((1 - share) * self.units * self.steps - 1e-9)
        if count > len(self.cuts):
            least = 1 - len(self.cuts) / (self.units * self.steps)
            raise InvalidInput(
                f"{NAME}: {share:.1%} of the numbers of an entry are left, and these projections reach {least:.1%}; "
                "give a larger budget: slots and protected entries take their part of it"
            )
        lost = torch.bincount(self.cuts[: max(count, 0)], minlength=self.units).reshape(self.basis.shape[:3])
        return (self.steps - lost) * (self.basis.shape[-1] // self.steps)


def evenly(units: int, steps: int) -> Tensor:
    """Cuts that all heads take in turn, down to one step each."""
    return torch.arange(units).repeat(steps - 1)


def save_projections(given: Projections, path: Path) -> None:
    """Write matrices, means and cuts to a safetensors file."""
    from safetensors.torch import save_file

    tensors = {name: getattr(given, name).detach().contiguous() for name in ("basis", "mean", "cuts")}
    with replaced(path) as part:  # what is stopped while it writes leaves no half of a file
        save_file(tensors, part, metadata={"kind": NAME, "steps": str(given.steps), "fingerprint": given.fingerprint})


def projections_of(given: str | Projections) -> Projections:
    """What ``projections=`` on a command line means.

    Args:
        given: the projections themselves, their file, or the folder of a model that has them beside it.

    Raises:
        InvalidInput: none are given.
        CheckpointError: the file is missing or damaged.
    """
    if isinstance(given, Projections):
        return given
    if not given:
        raise InvalidInput(
            f"{NAME} needs projections that were trained on the model: give projections=FILE; budgeteer cache train "
            f"{NAME} MODEL --texts FILE makes them"
        )
    path = Path(given)
    path = path / GATES / f"{NAME}.safetensors" if path.is_dir() else path
    return _read(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(8)
def _read(path: Path, changed: int) -> Projections:
    """The projections of a file, read anew when it has ``changed``."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            basis, mean, cuts = (file.get_tensor(name) for name in ("basis", "mean", "cuts"))
            about = file.metadata()
        steps = int(about["steps"])
        if about["kind"] != NAME or basis.dim() != 5 or basis.shape[:-1] != mean.shape or len(basis) != 2:
            raise ValueError("its tensors do not fit together")
        units = basis[..., 0, 0].numel()
        if steps < 2 or basis.shape[-1] % steps or not bool(((cuts >= 0) & (cuts < units)).all()):
            raise ValueError("its cuts are of other heads")
        if int(torch.bincount(cuts, minlength=units).max()) >= steps:
            raise ValueError("a head loses all its numbers")
        return Projections(basis, mean, cuts, steps, about["fingerprint"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"cannot read projections in {path}: {error}; make them: budgeteer cache train {NAME}"
        ) from error
