"""TokenSelect: each head votes with its attention, and all read the winners.

Paper: "TokenSelect: Efficient Long-Context Inference and Length Extrapolation for LLMs via Dynamic Token-Level KV Cache
Selection", arXiv 2411.02886.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import attention, behind, of_groups, over_heads
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def token_select(first: int = 16, recent: int = 32, every: int = 0) -> Score:
    """Read what the heads of a layer vote for, the first entries and the newest ones.

    Formula: c = the entries between the ``first`` and the ``recent`` ones. Each query head h has the votes
    v[h, i] = softmax over i in c of scaling q_h.k_i; s_i = the sum over all heads of the layer, the same for all.
    Helps since one head with large logits has no more votes than another. The votes are those of the newest query;
    all entries stay in cold memory (``rest=offload``, the default here). The official code leaves out the scaling,
    and its kernel reads key-value head h mod K for query head h.

    Args:
        first: entries at the beginning that are always read, >= 0.
        recent: newest entries that are always read, >= 1.
        every: 0 = choose after prompts only; k = after every k generated tokens, too. It counts where entries are
            dropped (``rest=drop``); ``offload`` has its own.
    """
    if first < 0 or recent < 1:
        raise InvalidInput(f"token-select: first={first}, recent={recent}; give first >= 0 and recent >= 1")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        ahead = cells.valid.long().cumsum(-1)
        middle = behind(cells, first) & (ahead <= ahead[..., -1:] - recent)
        group = cells.queries.shape[1] // cells.keys.shape[1]
        votes = attention(cells, -1)[:, :, 0] * middle.repeat_interleave(group, dim=1)
        votes = votes / votes.sum(-1, keepdim=True).clamp(min=1e-30)
        return over_heads(cells, of_groups(votes, cells.keys.shape[1]).sum(2)) * cells.keys.shape[1]

    return Score(score, window=1, first=first, recent=recent, every=every, rest="offload")
