"""Small heads on the hidden states of a frozen model: what they read, and how they are kept beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.steer import Internals
from budgeteer.models.policy import REASONER

WEIGHTS = frozenset({"mean", "scale", "w1", "b1", "w2", "b2"})
"""Names of the tensors of a head."""


@dataclass(frozen=True, eq=False)
class Head:
    """``gelu(((x - mean) / scale) w1 + b1) w2 + b2`` of the flattened states x of all layers at one position.

    Two heads are equal when they are the same object, so steers that share one are asked together.

    Loaded heads compute in double precision: then a row's result does not depend on which rows are beside it, as the
    order of sums in single precision would have it.

    Attributes:
        weights: ``mean``, ``scale`` [F], ``w1`` [F, d], ``b1`` [d], ``w2`` [d, K], ``b2`` [K]; F = layers * hidden.
        fingerprint: of the model that it was trained on.
        settings: what its method has to know about it, as JSON data.
    """

    weights: dict[str, Tensor]
    fingerprint: str
    settings: dict[str, Any]

    def __call__(self, states: Tensor) -> Tensor:
        """[m, K] of states [m, layers, hidden]."""
        return torch.addmm(self.weights["b2"], self.features(states), self.weights["w2"])

    def features(self, states: Tensor) -> Tensor:
        """[m, d], the layer before the last.

        Raises:
            InvalidInput: it reads another number of states, so it is the head of another method or model.
        """
        w, x = self.weights, states.flatten(1)
        if x.shape[1] != len(w["mean"]):
            raise InvalidInput(
                f"the head reads {len(w['mean'])} numbers at a position, and its method shows it {x.shape[1]}; give a "
                f"head that was trained for this method and model: budgeteer lab heads"
            )
        return F.gelu(torch.addmm(w["b1"], (x.to(w["mean"]) - w["mean"]) / w["scale"], w["w1"]))

    def check(self, inside: Internals) -> None:
        """Refuse a model that the head was not trained on.

        Raises:
            InvalidInput: it was trained on another one.
        """
        if inside.fingerprint != self.fingerprint:
            raise InvalidInput(
                f"the head was trained on a model with fingerprint {self.fingerprint}, this one has "
                f"{inside.fingerprint}; train one for it: budgeteer lab heads"
            )


def save_head(head: Head, path: Path) -> None:
    """Write weights, fingerprint and settings to a safetensors file."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in head.weights.items()}
    save_file(tensors, path, metadata={"fingerprint": head.fingerprint, "settings": json.dumps(head.settings)})


def load_head(name: str, folder: Path = REASONER) -> Head:
    """The head ``NAME.safetensors`` of a model's folder; the same object at every call.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return read_head(folder / f"{name}.safetensors")


def head_of(method: str, given: str) -> Head:
    """What ``head=`` on a command line means for a method: a file, or ``reasoner``, the embedded reasoner's.

    Raises:
        CheckpointError: the file is missing or damaged, or the reasoner has no head for this method.
    """
    return load_head(method.replace("-", "_")) if given == "reasoner" else read_head(Path(given))


@lru_cache(maxsize=32)
def read_head(path: Path) -> Head:
    """The head in a file that :func:`save_head` wrote; the same object at every call.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weights = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118 (not a dict)
            about = file.metadata()
        missing = WEIGHTS - weights.keys()
        if missing:
            raise KeyError(f"it has no {', '.join(sorted(missing))}")
        return Head(weights, about["fingerprint"], json.loads(about["settings"]))
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read a head in {path}: {error}; make one: budgeteer lab heads") from error
