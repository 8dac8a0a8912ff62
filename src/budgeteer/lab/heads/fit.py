"""Fit a head of any form to a loss, and say how it does on held-out questions beside a constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.errors import Diverged, InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.steer import Mask
from budgeteer.engine.head import Head
from budgeteer.engine.kinds import FORMS
from budgeteer.engine.layer_head import LayerHead, initial
from budgeteer.engine.vocabulary_head import LinearHead
from budgeteer.lab.stats import Paired, paired

BATCH = 2048
LOOKS = 30
"""How often the loss on positions that are set aside is looked at."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a head is made of.

    Attributes:
        name: one of FORMS.
        width: of the hidden layer, or of the encoder; a vocabulary row has none.
        depth: blocks of the encoder over the layers.
    """

    name: str = "flat"
    width: int = 64
    depth: int = 12

    @property
    def heads(self) -> int:
        """Attention heads of the encoder, of 64 numbers each as in BERT; one where it is narrower."""
        return max(1, self.width // 64)

    @property
    def rate(self) -> float:
        """Learning rate: the official code's 1e-4 at a width of 768 for the encoder, more for a narrower one, and most
        for the linear form."""
        return {"layers": 1e-4 * 768 / self.width, "vocabulary": 1e-2}.get(self.name, 3e-3)

    def start(
        self, states: Tensor, outputs: int, generator: torch.Generator, fingerprint: str, settings: dict[str, Any]
    ) -> Head:
        """A head before training.

        Args:
            states: [N, layers, hidden] that it will be trained on, for their mean and scale.
            outputs: K.
            generator: of the random numbers.
            fingerprint: of the model.
            settings: what the head's method has to know.

        Raises:
            InvalidInput: no such form, or a width that the attention heads cannot share.
        """
        if self.name not in FORMS:
            raise InvalidInput(f"a head of form {self.name!r}; choose {', '.join(FORMS)}")
        if self.name == "layers":
            if self.width % self.heads:
                raise InvalidInput(f"a width of {self.width} cannot be shared by {self.heads} heads; give 64 or 768")
            weights = initial(self.width, states.shape[-1], self.depth, outputs, generator)
            return LayerHead(weights, fingerprint, {**settings, "form": "layers", **self._size()})
        shown = states[:, -1] if self.name == "vocabulary" else states.flatten(1)
        x = shown.float()
        inputs = x.shape[1]
        moments = {"mean": x.mean(0), "scale": x.std(0) + 1e-3}
        if self.name == "vocabulary":
            last = {"w2": torch.zeros(inputs, outputs), "b2": torch.zeros(outputs)}
            return LinearHead(moments | last, fingerprint, dict(settings))
        weights = {
            "w1": torch.randn(inputs, self.width, generator=generator) / inputs**0.5,
            "b1": torch.zeros(self.width),
            "w2": torch.randn(self.width, outputs, generator=generator) * 0.1 / self.width**0.5,
            "b2": torch.zeros(outputs),
        }
        return Head(moments | weights, fingerprint, dict(settings))

    def _size(self) -> dict[str, int]:
        return {"blocks": self.depth, "heads": self.heads}


FLAT = Form()


def fit(
    head: Head,
    states: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    seed: int,
    batch: int = BATCH,
    rate: float = 3e-3,
    aside: Mask | None = None,
) -> Head:
    """AdamW on ``loss(features [b, d], index [b])``, the learning rate warmed up over 5 % and down to 0.

    With positions aside, the weights that are kept are those of the smallest loss on them, which is looked at LOOKS
    times: traces of few questions are soon learnt by heart.

    Args:
        head: its weights that training changes are trained in place.
        states: [N, layers, hidden].
        loss: mean over the positions of a batch; reads the last layer from the head itself.
        steps, batch: number of updates, and positions of each.
        seed: of the batches.
        rate: highest learning rate.
        aside: [N] positions that are not trained on.

    Raises:
        Diverged: the loss is not finite.
    """
    own = torch.arange(len(states)) if aside is None else torch.from_numpy(np.flatnonzero(~aside))
    others = None if aside is None or not aside.any() else torch.from_numpy(np.flatnonzero(aside))
    best = float("inf")
    kept: dict[str, Tensor] = {}
    trained = [head.weights[name].requires_grad_(True) for name in head.trained]
    optimiser = torch.optim.AdamW(trained, lr=rate)

    def look() -> None:
        nonlocal best, kept
        if others is None:
            return
        with torch.no_grad():
            now = float(loss(head.features(states[others].float()), others))
        if now < best:
            best, kept = now, {name: head.weights[name].detach().clone() for name in head.trained}

    for step, drawn in enumerate(_batches(len(own), batch, steps, seed)):
        if step % max(1, steps // LOOKS) == 0:
            look()
        chosen = own[drawn]
        share = min(1.0, (step + 1) / (0.05 * steps), 2 * (steps - step) / steps)
        optimiser.param_groups[0]["lr"] = rate * share
        value = loss(head.features(states[chosen].float()), chosen)
        if not torch.isfinite(value):
            advice = "Look at the states of the model, which have to be finite"
            raise Diverged(step + 1, f"the loss is {float(value.detach())}", advice)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    look()
    for weight in trained:
        weight.requires_grad_(False)
    head.weights.update(kept)
    return head


def _batches(n: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.randint(n, (min(batch, n),), generator=generator)


def outputs_of(head: Head, states: Tensor, part: int = 4096) -> Tensor:
    """[N, M] what a head says of many states, a part at a time."""
    with torch.inference_mode():
        return torch.cat([head(piece.float()) for piece in torch.split(states, part)])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How a head does on held-out questions.

    Attributes:
        what: the loss, in words; smaller is better.
        head, constant: mean loss of the head, and of the best constant of the questions that it was trained on.
        difference: head less constant, paired by question, with its 95 % interval.
    """

    what: str
    head: float
    constant: float
    difference: Paired

    def __str__(self) -> str:
        d = self.difference
        interval = f"[{d.low:+.4f}, {d.high:+.4f}]" if d.n > 1 else "(no interval: give more questions)"
        return (
            f"{self.what} on {d.n} held-out questions: {self.head:.4f}, a constant {self.constant:.4f}, "
            f"difference {d.mean:+.4f} {interval}"
        )


def held(what: str, head: F64, constant: F64, question: I64) -> HeldOut:
    """Losses [N] of a head and of a constant at positions of these questions [N], as means of each question."""
    g = int(question.max()) + 1
    count = np.bincount(question, minlength=g)
    some = count > 0
    mine, theirs = (np.bincount(question, loss, g)[some] / count[some] for loss in (head, constant))
    return HeldOut(what, float(mine.mean()), float(theirs.mean()), paired(mine, theirs))
