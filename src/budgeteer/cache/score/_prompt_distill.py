"""PromptDistill: from a middle layer on, only the tokens that the prompt's last query is drawn to go on.

Paper: "PromptDistill: Query-based Selective Token Retention in Intermediate Layers for Efficient Large Language Model
Inference".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from budgeteer.cache.kit import of_groups, over_heads, smoothed
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def prompt_distill(depth: float = 0.4, kernel: int = 5, earlier: Sequence[Sequence[float]] = ()) -> Score:
    """Let only the kept tokens of a prompt go on behind a middle layer, and keep the same ones in all layers.

    Formula: in the last of the first ``depth`` x layers, s_i = mean over query heads of scaling q.k_i, with q of the
    prompt's last token, then the mean over the ``kernel`` entries around i that are there. The budget says how many
    tokens go on, the last one among them; states, positions and mask of the others are left out of all later layers.
    Helps a long prompt that ends with its question: of the later layers the dropped tokens cost no computation either.
    With a share s kept, a prompt costs about ``depth`` + (1 - ``depth``) s of what it costs else, and less attention.
    With ``earlier``, layers before that choose, too, in the same way: behind the first e_i x layers, the larger of the
    budget and floor(t_i x tokens) go on, and the next choice is among these. So prompts cost less still, where the
    first layers can tell what is not needed at all.
    A question that comes after the choice is not helped. Logits of a prompt are those of the kept tokens. The paper's
    code pools logits over what is beyond the prompt as zeros; here only entries that are there count.

    Args:
        depth: share of the layers that read the whole prompt, above 0, below 1; the paper has 14 of 32 for Llama 3.1.
        kernel: entries that are smoothed over, odd; 1 = none.
        earlier: (e_i, t_i) of each earlier choice, such as ``earlier=[[0.2, 0.5]]``; e_i rise and stay below ``depth``,
            t_i fall, all of them above 0 and below 1.
    """
    if not 0 < depth < 1 or kernel < 1 or kernel % 2 == 0:
        raise InvalidInput(
            f"prompt-distill: depth={depth}, kernel={kernel}; give a depth above 0, below 1, and an odd kernel"
        )

    pairs = [tuple(pair) for pair in earlier if len(pair) == 2]
    choices = [(0.0, 1.0), *pairs, (depth, 0.0)]
    in_order = all(e < later and tokens > fewer for (e, tokens), (later, fewer) in pairwise(choices))
    if len(pairs) < len(earlier) or not in_order:
        raise InvalidInput(
            f"prompt-distill: earlier={earlier}; give pairs of layers and tokens, shares above 0 and below 1, of which "
            f"layers rise and stay below depth={depth} and tokens fall"
        )

    def score(cells: Cells, memory: Tensor) -> Tensor:
        query = of_groups(cells.queries[:, :, -1].float(), cells.keys.shape[1]).mean(2)
        logits = (query[:, :, None] * cells.keys.float()).sum(-1) * cells.scaling
        drawn = over_heads(cells, logits).masked_fill(~cells.valid, 0.0)
        return smoothed(drawn, kernel) / smoothed(cells.valid.float(), kernel).clamp(min=1e-6)

    return Score(score, window=1, recent=1, depth=depth, earlier=tuple((e, t) for e, t in pairs))
