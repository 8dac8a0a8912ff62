"""The optimiser of the models that the lab trains from nothing: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from budgeteer.core.errors import Diverged


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz iterations (Keller Jordan et al., 2024), in float32: torch's own
    works in bfloat16, which costs more than the whole backward pass on a CPU without such units."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix; the scale keeps the update's RMS independent of the shape."""
        for group in self.param_groups:
            for w in group["params"]:
                buffer = self.state[w].setdefault("momentum", torch.zeros_like(w))
                buffer.lerp_(w.grad, 1 - group["momentum"])
                x = w.grad.lerp(buffer, group["momentum"])
                tall = x.shape[0] > x.shape[1]
                x = (x.T if tall else x) / (x.norm() + 1e-7)
                for _ in range(5):
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
                scale = max(1.0, w.shape[0] / w.shape[1]) ** 0.5
                w.add_(x.T if tall else x, alpha=-group["lr"] * scale)


class Optimiser:
    """Muon and AdamW on one schedule: linear warm-up over 100 steps, flat, then linear decay to 0 over the last 40 %.

    Args:
        model: its embeddings, with "embed" in their names, and its vectors are AdamW's; other matrices are Muon's.
        lr_muon, lr_adam: the rates of the flat part.
        steps: of the whole training.
    """

    def __init__(self, model: torch.nn.Module, lr_muon: float, lr_adam: float, steps: int) -> None:
        self.steps, self._rates = steps, (lr_muon, lr_adam)
        matrices = [w for name, w in model.named_parameters() if w.ndim == 2 and "embed" not in name]
        others = [w for name, w in model.named_parameters() if w.ndim != 2 or "embed" in name]
        self._muon = Muon(matrices, lr=lr_muon)
        self._adam = torch.optim.AdamW(others, lr=lr_adam, betas=(0.9, 0.95), weight_decay=0.0)

    def update(self, loss: Tensor, step: int) -> None:
        """Follow the gradient of a loss; ``step`` counts from 0.

        Raises:
            Diverged: the loss is not finite.
        """
        if not torch.isfinite(loss):
            raise Diverged(step + 1, f"the loss is {float(loss.detach())}", "Lower lr_muon or lr_adam of the config")
        share = min(1.0, (step + 1) / 100, (self.steps - step) / (0.4 * self.steps))
        both = self._muon, self._adam
        for optimiser, rate in zip(both, self._rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in both:
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of both optimisers, for a checkpoint."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that :meth:`state_dict` returned; other entries of it are ignored."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])
