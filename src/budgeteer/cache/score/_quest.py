"""Quest: pages by the most that a key inside their bounds could be worth.

Papers: "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", arXiv 2406.10774; "FlexiCache:
Leveraging Temporal Stability of Attention Heads for Efficient KV Cache Management", arXiv 2511.00868 (ranks pages so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from budgeteer.cache.kit import of_groups, places
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def quest(page: int = 16, recent: int = 1, every: int = 0) -> Score:
    """Read the pages that could hold what the query reads most.

    Formula: a page is ``page`` neighbouring slots, from the row's first entry on. With min_j and max_j of its keys,
    channel by channel, u = sum over j of max(q_j min_j, q_j max_j) is the most that q.k can be inside; s_i = the
    largest u of its page over the query heads of a group. Entries of one page are worth the same, and the last page
    that has a place may have it in part.
    Helps since two vectors a page say enough to pass most pages by. All entries stay in cold memory (``rest=offload``,
    the default here). Bounds are made anew at each choice here; kernels hold them.

    Args:
        page: slots of a page, >= 1.
        recent: newest entries that are always read, >= 1.
        every: 0 = choose after prompts only; k = after every k generated tokens, too. It counts where entries are
            dropped (``rest=drop``); ``offload`` has its own.
    """
    if page < 1 or recent < 1:
        raise InvalidInput(f"quest: page={page}, recent={recent}; give both >= 1")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        keys, query = cells.keys.float(), of_groups(cells.queries[:, :, -1].float(), cells.keys.shape[1])
        of = places(cells.slots, cells.valid) // page
        pages = int(cells.query_slots[-1]) // page + 1
        where = of[..., None].expand_as(keys)
        bounds = []
        for sign in (1.0, -1.0):  # the largest of keys, and of their negatives
            most = keys.new_full((*keys.shape[:2], pages, keys.shape[-1]), float("-inf"))
            signed = (sign * keys).masked_fill(~cells.valid[..., None], float("-inf"))
            bounds.append(sign * most.scatter_reduce(2, where, signed, "amax"))
        high, low = (bound.masked_fill(bound.isinf(), 0.0)[:, :, None] for bound in bounds)
        worth = torch.maximum(query[:, :, :, None] * high, query[:, :, :, None] * low).sum(-1).amax(2)
        return worth.gather(2, of)

    return Score(score, window=1, recent=recent, every=every, rest="offload")
