"""Small heads on a frozen model: what they read, and how they are kept beside it.

A head has one of three forms. All of them end in a matrix ``w2`` [d, K] and a vector ``b2`` [K], and predict what
their method (budget guidance, ZIP-RC, DiffAdapt) needs to know.

- ``flat`` (:class:`Head`): one hidden layer on the states of all layers side by side.
- ``layers`` (:class:`budgeteer.engine.layer_head.LayerHead`): attention over the layers.
- ``vocabulary`` (:class:`budgeteer.engine.vocabulary_head.VocabularyHead`): unused vocabulary rows of the model itself,
  so that it is computed with the logits, and also where hidden states cannot be seen.
"""

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
from budgeteer.core.steer import Internals, Need
from budgeteer.engine.kinds import KINDS
from budgeteer.models.policy import REASONER

HEADS = "heads"
"""Name of the folder with the heads of a model, inside the model's own."""


@dataclass(frozen=True, eq=False)
class Head:
    """``gelu(((x - mean) / scale) w1 + b1) w2 + b2`` of the flattened states x of all layers at one position.

    Two heads are equal when they are the same object, so steers that share one are asked together.

    Loaded heads compute in double precision: then a row's result does not depend on which rows are beside it, as the
    order of sums in single precision would have it.

    Attributes:
        weights: ``mean``, ``scale`` [F], ``w1`` [F, d], ``b1`` [d], ``w2`` [d, K], ``b2`` [K]; F = layers * hidden.
            With ``columns`` [M], the result has the columns of [K] that these numbers name: outputs that are shared.
        fingerprint: of the model that it was trained on.
        settings: what its method has to know about it, as JSON data; ``form`` names its form.
    """

    weights: dict[str, Tensor]
    fingerprint: str
    settings: dict[str, Any]

    @property
    def reads(self) -> Need:
        """What of a snapshot it is called with: :attr:`Need.HIDDEN` or :attr:`Need.LOGITS`."""
        return Need.HIDDEN

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the weights that training changes."""
        return ("w1", "b1", "w2", "b2")

    def __call__(self, states: Tensor) -> Tensor:
        """[m, K] (or [m, M]) of states [m, layers, hidden]."""
        out = torch.addmm(self.weights["b2"], self.features(states), self.weights["w2"])
        return self.shared(out)

    def features(self, states: Tensor) -> Tensor:
        """[m, d], the layer before the last.

        Raises:
            InvalidInput: it reads another number of states, so it is the head of another method or model.
        """
        w, x = self.weights, states.flatten(1)
        if x.shape[1] != len(w["mean"]):
            raise other_size(len(w["mean"]), x.shape[1])
        return F.gelu(torch.addmm(w["b1"], (x.to(w["mean"]) - w["mean"]) / w["scale"], w["w1"]))

    def shared(self, out: Tensor) -> Tensor:
        """[m, M] outputs that share columns of [m, K]; as they are if nothing is shared."""
        columns = self.weights.get("columns")
        return out if columns is None else out[:, columns]

    def check(self, inside: Internals) -> None:
        """Refuse a model that the head was not trained on.

        Raises:
            InvalidInput: it was trained on another one.
        """
        if inside.fingerprint != self.fingerprint:
            raise InvalidInput(
                f"the head was trained on a model with fingerprint {self.fingerprint}, this one has "
                f"{inside.fingerprint}; train one for it: budgeteer heads train"
            )


def other_size(reads: int, shown: int) -> InvalidInput:
    """The error of a head that is shown what it does not read."""
    return InvalidInput(
        f"the head reads {reads} numbers at a position, and its method shows it {shown}; give a head that was trained "
        f"for this method and model: budgeteer heads train"
    )


def save_head(head: Head, path: Path) -> None:
    """Write weights, fingerprint and settings to a safetensors file."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in head.weights.items()}
    save_file(tensors, path, metadata={"fingerprint": head.fingerprint, "settings": json.dumps(head.settings)})


def load_head(name: str, folder: Path = REASONER / HEADS) -> Head:
    """The head ``NAME.safetensors`` of a folder, by default of the embedded reasoner's; the same object at every call.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return read_head(folder / f"{name}.safetensors")


def head_of(method: str, given: str) -> Head:
    """What ``head=`` on a command line means for a method.

    Args:
        method: its name, such as ``"zip-rc"``.
        given: a file; a folder of heads, or of a model that has them beside it; ``reasoner``, the embedded reasoner's.

    Raises:
        CheckpointError: the file is missing or damaged, or the folder has no head for this method.
    """
    name = method.replace("-", "_")
    if given == "reasoner":
        return load_head(name)
    path = Path(given)
    if path.is_dir():
        return load_head(name, path / HEADS if (path / HEADS).is_dir() else path)
    return read_head(path)


def own_head(model: Any, name: str) -> Head:
    """The head that lies beside a model.

    Args:
        model: with the attributes ``name`` and ``folder`` (:class:`budgeteer.models.model.Model`).
        name: of the file, without its ending.

    Raises:
        CheckpointError: there is none.
    """
    folder: Path | None = getattr(model, "folder", None)
    kind = KINDS[name]
    if folder is None:
        raise CheckpointError(
            f"{model.name} is no folder on this machine that could have a head beside it; give head=FILE, which "
            f"budgeteer heads train {kind} writes"
        )
    if not (folder / HEADS / f"{name}.safetensors").is_file():
        raise CheckpointError(
            f"{model.name} has no {name}.safetensors in {folder / HEADS}; train it with budgeteer heads train {kind} "
            f"--model ... --questions FILE, or give head=FILE"
        )
    return load_head(name, folder / HEADS)


@lru_cache(maxsize=32)
def read_head(path: Path) -> Head:
    """The head in a file that :func:`save_head` wrote; the same object at every call.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            about = file.metadata()
        settings = json.loads(about["settings"])
        kind, needed = _form(settings)
        missing = needed - tensors.keys()
        if missing:
            raise KeyError(f"it has no {', '.join(sorted(missing))}")
        weights = {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
        return kind(weights, about["fingerprint"], settings)
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read a head in {path}: {error}; make one: budgeteer heads train") from error


def _form(settings: dict[str, Any]) -> tuple[type[Head], set[str]]:
    """The class of a head, and the tensors that its file has to have."""
    from budgeteer.engine.layer_head import LayerHead
    from budgeteer.engine.vocabulary_head import VocabularyHead

    forms: dict[str, tuple[type[Head], set[str]]] = {
        "flat": (Head, {"mean", "scale", "w1", "b1", "w2", "b2"}),
        "layers": (LayerHead, {"cls", "project.weight", "project.bias", "w2", "b2"}),
        "vocabulary": (VocabularyHead, {"b2", "columns"}),
    }
    form = settings.get("form", "flat")
    if form not in forms:
        raise KeyError(f"its form {form!r} is none of {', '.join(forms)}")
    return forms[form]
