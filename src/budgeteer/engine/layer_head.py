"""A head with attention over the layers of the model, as in the official code of budget guidance.

Paper: "Steering LLM Thinking with Budget Guidance", arXiv 2506.13752.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.engine.head import Head, other_size

EPSILON = 1e-12
"""Of the layer norms, as BERT has it."""


class LayerHead(Head):
    """A BERT encoder without positions over [CLS, states of the layers]; linear maps of what it makes of CLS.

    The sequence of the attention is the depth of the model: the input embedding and the state after each block, all at
    one position of the text. All of them and a learned vector CLS are projected to width d, go through blocks of
    attention and a feed-forward network of width 4 d (each followed by a layer norm of the sum, GELU), and CLS is read.
    The official code has no positions and no norm before the first block, d = 768 and 12 blocks of 12 heads. It trains
    with BERT's dropout of 0.1; here there is none.

    Its weights are ``cls`` [h], ``project.weight`` [d, h], ``project.bias`` [d], ``w2`` [d, K], ``b2`` [K] (0), and of
    block i ``i.qkv``, ``i.out``, ``i.up``, ``i.down``, ``i.norm1``, ``i.norm2``, each with ``.weight`` and ``.bias``.
    Its settings name the number of ``blocks`` and of attention ``heads``.
    """

    @property
    def trained(self) -> tuple[str, ...]:
        """All but the bias of the last maps, which have none in the official code."""
        return tuple(name for name in self.weights if name not in ("b2", "columns"))

    def features(self, states: Tensor) -> Tensor:
        """[m, d] what the encoder makes of CLS.

        Raises:
            InvalidInput: the states have another width, so it is the head of another model.
        """
        w = self.weights
        if states.shape[-1] != len(w["cls"]):
            raise other_size(len(w["cls"]), states.shape[-1])
        cls = w["cls"].expand(len(states), 1, -1)
        x = F.linear(torch.cat([cls, states.to(cls)], 1), w["project.weight"], w["project.bias"])
        for block in range(self.settings["blocks"]):
            x = self._block(x, f"{block}.")
        return x[:, 0]

    def _block(self, x: Tensor, name: str) -> Tensor:
        rows, places, width = x.shape
        heads = self.settings["heads"]
        qkv = self._map(x, f"{name}qkv").view(rows, places, 3, heads, width // heads)
        mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = self._norm(x + self._map(mixed.transpose(1, 2).reshape(rows, places, width), f"{name}out"), f"{name}norm1")
        inner = F.gelu(self._map(x, f"{name}up"))
        return self._norm(x + self._map(inner, f"{name}down"), f"{name}norm2")

    def _map(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], EPSILON)


def initial(width: int, hidden: int, blocks: int, outputs: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights before training, as BERT has them: matrices of standard deviation 0.02, biases and CLS of 0.

    Args:
        width: d.
        hidden: h, width of the model's states.
        blocks: of the encoder.
        outputs: K.
        generator: of the random numbers.
    """

    def matrix(rows: int, columns: int) -> Tensor:
        return 0.02 * torch.randn(rows, columns, generator=generator)

    weights = {"cls": torch.zeros(hidden), "project.weight": matrix(width, hidden), "project.bias": torch.zeros(width)}
    for block in range(blocks):
        for name, rows, columns in (("qkv", 3, 1), ("out", 1, 1), ("up", 4, 1), ("down", 1, 4)):
            weights[f"{block}.{name}.weight"] = matrix(rows * width, columns * width)
            weights[f"{block}.{name}.bias"] = torch.zeros(rows * width)
        for name in ("norm1", "norm2"):
            weights[f"{block}.{name}.weight"], weights[f"{block}.{name}.bias"] = torch.ones(width), torch.zeros(width)
    return weights | {"w2": matrix(width, outputs), "b2": torch.zeros(outputs)}
