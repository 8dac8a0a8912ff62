"""What decides a training run of a model of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.spec import parse
from budgeteer.rl.identity import digest

_EDGE = 1 << 20
"""Bytes at each end of a file of weights that are in its fingerprint: reading all of them takes minutes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides a run, beside the contents of its model and its problems.

    Attributes:
        model: a folder, or a name that transformers can resolve.
        recipe, budget: names as on the command line; ``tokens`` is the budget as a number, None = no cap.
        task: the problems; ``task_seed`` of the problems and of their split.
        train, heldout: problems of each part; ``train=None`` = all others.
        steps, prompts, group, max_tokens: steps, prompts a step, rollouts a prompt on average, tokens of one rollout.
        lr, kl: learning rate, weight of the KL penalty.
        seed: of everything random.
        style: how the model is asked; None = what fits the model and the task.
        lora: as in ``r=16,alpha=32``; None = all weights are trained.
        batch: rollouts that are in memory at once while the model learns.
        device, dtype: as in TrainConfig; bfloat16 is mixed precision.
        checkpointing: recompute activations instead of keeping them; None = on a GPU.
    """

    model: str
    recipe: str
    budget: str
    tokens: int | None
    task: str
    task_seed: int = 0
    train: int | None = None
    heldout: int = 100
    steps: int = 100
    prompts: int = 8
    group: int = 8
    max_tokens: int = 512
    lr: float = 1e-6
    kl: float = 0.0
    seed: int = 0
    style: str | None = None
    lora: str | None = None
    batch: int = 4
    device: str = "auto"
    dtype: str = "auto"
    checkpointing: bool | None = None

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"{self.recipe}@{self.budget}-seed{self.seed}".replace("/", "_").replace(":", "_")

    def identity(self, problems: str, style: str) -> dict[str, Any]:
        """All settings and contents that decide the result.

        Args:
            problems: fingerprint of the problems and their verifier.
            style: name of the style that is used.
        """
        return {**asdict(self), "style": style, "problems": problems, "weights of the model": weights_of(self.model)}


class Lora(NamedTuple):
    """A low-rank adapter.

    Attributes:
        r, alpha: rank, and the scale of what it adds.
        dropout: of its input.
        targets: names of modules, joined by ``+``, or ``all-linear``.
    """

    r: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: str = "all-linear"

    @classmethod
    def parse(cls, text: str) -> Lora:
        """Read ``r=16,alpha=32,dropout=0.05,targets=q_proj+v_proj``; ``alpha`` is twice ``r`` unless it is given.

        Raises:
            InvalidInput: a value that is no number, or out of its range.
            UnknownName: no such option.

        >>> Lora.parse("r=8")
        Lora(r=8, alpha=16, dropout=0.0, targets='all-linear')
        """
        given: Mapping[str, Any] = parse(f"lora:{text}", "--lora").values if text.strip() else {}
        for name in given:
            if name not in cls._fields:
                raise UnknownName("option of --lora", name, cls._fields)
        made = cls(**given)
        rank = isinstance(made.r, int) and not isinstance(made.r, bool) and 1 <= made.r <= 4096
        if not rank:
            raise InvalidInput(f"--lora {text!r}: r is {made.r}; give a whole number from 1 to 4096")
        made = made._replace(alpha=2 * made.r if made.alpha is None else made.alpha)
        for name, low, high in (("alpha", 0, 10_000), ("dropout", 0, 0.99)):
            value = getattr(made, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidInput(f"--lora {text!r}: {name} is {value}; give a number from {low} to {high:,}")
        if not isinstance(made.targets, str) or not made.targets:
            raise InvalidInput(f"--lora {text!r}: targets is {made.targets}; give names of modules joined by +")
        return made


def weights_of(model: str) -> str:
    """A fingerprint of a model's folder: configuration, and names, sizes and both ends of the files of weights.

    Args:
        model: a folder, or a name, of which nothing can be read here.
    """
    folder = Path(model)
    contents = [model.encode()] if not folder.is_dir() else []
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*config.json")):
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_EDGE)
            file.seek(max(size - _EDGE, 0))
            contents += [f"{path.name} {size}".encode(), head, file.read(_EDGE)]
    return digest(*contents)
