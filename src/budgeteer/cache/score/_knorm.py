"""Knorm: keys of a small norm.

Paper: "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", arXiv 2406.11430.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.protocol import Cells, Score

if TYPE_CHECKING:
    from torch import Tensor


def knorm() -> Score:
    """Keep the entries whose keys have the smallest norm.

    Formula: score_i = -||k_i||_2.
    Helps when no attention is to be computed for the choice: it reads the keys only. Nothing is protected.
    """
    return Score(_score)


def _score(cells: Cells, memory: Tensor) -> Tensor:
    import torch

    norms: Tensor = torch.linalg.vector_norm(cells.keys.float(), dim=-1)
    return -norms
