"""Small nets beside a model, one a layer, that judge an entry when it is made, by what its layer's attention was given.

They belong to the model that they were trained on (``budgeteer cache train``), and lie beside it in ``gates/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgeteer.cache.protocol import Cells
from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra
from budgeteer.core.files import replaced
from budgeteer.core.steer import fingerprint_of

try:
    import torch
    from torch import Tensor
    from torch.nn import functional
except ImportError as error:
    raise MissingExtra("torch", "hf") from error

if TYPE_CHECKING:
    from budgeteer.cache.selecting import Selection

GATES = "gates"
"""Name of the folder with the gates of a model, inside the model's own."""
WEIGHTS = ("w1", "b1", "w2", "b2")


@dataclass(frozen=True, eq=False)
class Gates:
    """``gelu(x w1 + b1) w2 + b2`` for each layer.

    Attributes:
        weights: ``w1`` [L, D, d], ``b1`` [L, d], ``w2`` [L, d, K], ``b2`` [L, K] for L layers, states of width D, a
            hidden layer of width d and K key-value heads.
        kind: name of the score that they are for.
        fingerprint: of the model that they were trained on.
    """

    weights: dict[str, Tensor]
    kind: str
    fingerprint: str

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        """[B, K, q] of what the attention of a layer was given, [B, q, D].

        Raises:
            InvalidInput: states of another width, or a layer that they do not have.
        """
        layers, width, _ = self.weights["w1"].shape
        if layer >= layers or hidden.shape[-1] != width:
            raise InvalidInput(
                f"{self.kind}: the gates are for {layers} layers of width {width}, and this is layer {layer} of width "
                f"{hidden.shape[-1]}; give those of this model"
            )
        w1, b1, w2, b2 = (self.weights[name][layer].to(hidden.device) for name in WEIGHTS)
        inside = functional.gelu(hidden.to(w1.dtype) @ w1 + b1)
        return (inside @ w2 + b2).transpose(1, 2)

    def into(self, cells: Cells, memory: Tensor) -> Tensor:
        """A memory of one number an entry, with what the gates say of the new entries."""
        assert cells.hidden is not None  # Score.hidden
        memory = memory.clone()
        memory[:, :, -cells.hidden.shape[1] :, 0] = self(cells.layer, cells.hidden.float())
        return memory


def fingerprint(model: Any) -> str:
    """Of a model of transformers, as heads have it; computed once for its weights."""
    embed = model.get_input_embeddings().weight
    known = getattr(model, "_budgeteer_fingerprint", None)
    if known is None or known[0] != (embed.data_ptr(), embed._version):
        known = (embed.data_ptr(), embed._version), fingerprint_of(embed.float())
        model._budgeteer_fingerprint = known
    return str(known[1])


def require_trained_on(model: Any, selected: Selection) -> None:
    """Refuse a score or a rest that was trained on another model, or a split that was measured on one.

    Raises:
        InvalidInput: it was.
    """
    for trained in filter(None, (part.fingerprint for part in (selected.score, selected.split, selected.rest))):
        if trained != (found := fingerprint(model)):
            raise InvalidInput(
                f"{selected.name} was trained on a model with fingerprint {trained}, this one has {found}; train it "
                "for this model: budgeteer cache train"
            )


def save_gates(gates: Gates, path: Path) -> None:
    """Write weights, kind and fingerprint to a safetensors file."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().contiguous() for name, tensor in gates.weights.items()}
    with replaced(path) as part:  # what is stopped while it writes leaves no half of a file
        save_file(tensors, part, metadata={"kind": gates.kind, "fingerprint": gates.fingerprint})


def gates_of(kind: str, given: str | Gates) -> Gates:
    """What ``gates=`` on a command line means for a score.

    Args:
        kind: name of the score.
        given: the gates themselves, their file, or the folder of a model that has them beside it.

    Raises:
        InvalidInput: none are given, or those of another score.
        CheckpointError: the file is missing or damaged.
    """
    if not given:
        raise InvalidInput(
            f"{kind} needs gates that were trained on the model: give gates=FILE, as in {kind}:gates=FILE; budgeteer "
            f"cache train {kind} MODEL --texts FILE makes them"
        )
    if isinstance(given, str):
        path = Path(given)
        path = path / GATES / f"{kind}.safetensors" if path.is_dir() else path
        given = _read(path, path.stat().st_mtime_ns if path.exists() else 0)
    if given.kind != kind:
        raise InvalidInput(f"{kind}: these gates are those of {given.kind}; give gates that were trained for {kind}")
    return given


@lru_cache(8)
def _read(path: Path, changed: int) -> Gates:
    """The gates of a file, read anew when it has ``changed``."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weights, about = {name: file.get_tensor(name) for name in WEIGHTS}, file.metadata()
        layers, width, inside = weights["w1"].shape
        heads = weights["b2"].shape[1]
        shapes = ((layers, width, inside), (layers, inside), (layers, inside, heads), (layers, heads))
        if any(weights[name].shape != shape for name, shape in zip(WEIGHTS, shapes, strict=True)):
            raise ValueError("its weights do not fit together")
        return Gates(weights, about["kind"], about["fingerprint"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"cannot read gates in {path}: {error}; make them: budgeteer cache train kvzap (or trim-kv)"
        ) from error


def untrained(kind: str, shape: tuple[int, int, int], inside: int, bias: float, fingerprint: str, seed: int) -> Gates:
    """Gates that say nearly the same of every entry.

    Args:
        kind: name of the score that they are for.
        shape: layers, width of the states, key-value heads.
        inside: width of the hidden layer.
        bias: what they say, nearly.
        fingerprint: of the model.
        seed: of the weights.
    """
    layers, width, heads = shape
    rng = torch.Generator().manual_seed(seed)
    return Gates(
        {
            "w1": torch.randn(layers, width, inside, generator=rng) * width**-0.5,
            "b1": torch.zeros(layers, inside),
            "w2": torch.randn(layers, inside, heads, generator=rng) * 0.02,
            "b2": torch.full((layers, heads), bias),
        },
        kind,
        fingerprint,
    )
