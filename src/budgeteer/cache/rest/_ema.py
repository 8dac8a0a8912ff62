"""An exponential mean in the first entries: what leaves the window goes into the sinks.

Paper: "Reward Forcing: Efficient Streaming Video Generation with Rewarded Distribution Matching Distillation" (its
EMA-Sink).
"""

from __future__ import annotations

from torch import Tensor

from budgeteer.cache.kit import places, turned
from budgeteer.cache.protocol import Leaving, Rest
from budgeteer.core.errors import InvalidInput


def ema(alpha: float = 0.999, sinks: int = 4) -> Rest:
    """Fold each dropped entry into one of the first ones that are kept: sink = alpha sink + (1 - alpha) dropped.

    Formula: an entry that is the t-th of its row goes into the sink t mod ``sinks`` of its head, in the order of slots,
    values as they are, keys after they were turned from their own position to that of the sink (the paper caches keys
    before their rotation). alpha = 1 is ``drop``: StreamingLLM, where the score is ``streaming-llm``.
    Helps a model that was trained with it on a stream of equal frames, where the entries of one place correspond. In
    text they do not, and a mean of unrelated keys means nothing: a baseline there.

    Args:
        alpha: share that a sink keeps, 0 to 1.
        sinks: entries at the beginning that take others in, >= 1; the score should keep as many (``first``).
    """
    if not 0 <= alpha <= 1 or sinks < 1:
        raise InvalidInput(f"ema: alpha={alpha}, sinks={sinks}; give alpha from 0 to 1 and sinks >= 1")

    def fold(leaving: Leaving) -> tuple[Tensor, Tensor]:
        assert leaving.frequencies is not None  # Rest.rotation
        keys, values = leaving.keys.clone(), leaving.values.clone()
        gone = leaving.valid & ~leaving.keep
        sink_of = places(leaving.slots, leaving.valid) % sinks
        place = leaving.keep.long().cumsum(-1) * leaving.keep
        for sink in range(sinks):
            mine = gone & (sink_of == sink)
            at = (place == sink + 1).float().argmax(-1)[..., None]  # [B, K, 1]
            mine = mine & (place == sink + 1).any(-1, keepdim=True)
            count = mine.sum(-1, keepdim=True)
            weight = (1 - alpha) * float(alpha) ** (count - mine.long().cumsum(-1)).double() * mine
            stays = (float(alpha) ** count.double())[..., None]
            steps = leaving.slots.gather(2, at) - leaving.slots
            for column, moved in (
                (keys, turned(leaving.keys.double(), steps, leaving.frequencies)),
                (values, leaving.values),
            ):
                where = at[..., None].expand(-1, -1, 1, column.shape[-1])
                taken = (weight[..., None] * moved.double()).sum(2, keepdim=True)
                column.scatter_(2, where, (stays * column.gather(2, where).double() + taken).to(column.dtype))
        return keys, values

    return Rest(fold, rotation=True)
