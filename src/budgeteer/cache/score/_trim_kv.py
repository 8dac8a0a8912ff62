"""TRIM-KV: how long an entry will matter, said by a trained gate when it is made.

Paper: "Cache What Lasts: Token Retention for Memory-Bounded KV Cache in LLMs", arXiv 2512.03324.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from budgeteer.cache.gates import Gates, gates_of
from budgeteer.cache.protocol import Cells, Score

if TYPE_CHECKING:
    from torch import Tensor


def trim_kv(gates: str | Gates = "", recent: int = 0, every: int = 128) -> Score:
    """Keep the entries whose retention has decayed least.

    Formula: score_i = (t - i) log b_i, the logarithm of the retention b_i^(t - i) at the next position t, with
    b_i = sigmoid(gelu(x_i W1 + b1) W2 + b2) in (0, 1), x_i what the layer's attention is given for token i, one number
    a key-value head. ``budgeteer cache train trim-kv`` trains the gates as the paper does: see
    :mod:`budgeteer.lab.gates`. The model's own activation stands in the place of gelu there.
    Helps in long generations, since no attention has to be looked at. Untrained gates keep the newest entries.

    Args:
        gates: their file, or the folder of a model that has them beside it.
        recent: newest entries that are always kept, >= 0.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    net = gates_of("trim-kv", gates)

    def observe(cells: Cells, memory: Tensor) -> Tensor:
        found = net.into(cells, memory)
        new = cells.queries.shape[2]
        found[:, :, -new:] = functional.logsigmoid(found[:, :, -new:])
        return found

    def score(cells: Cells, memory: Tensor) -> Tensor:
        return memory[..., 0] * (cells.query_slots[-1] + 1 - cells.slots)

    return Score(score, observe, remembers=1, recent=recent, every=every, hidden=True, fingerprint=net.fingerprint)
