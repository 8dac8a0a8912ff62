"""KVzap: what KVzip would say, guessed by a small net when an entry is made.

Paper: "KVzap: Fast, Adaptive, and Faithful KV Cache Pruning", arXiv 2601.07891.
"""

from __future__ import annotations

from budgeteer.cache.gates import Gates, gates_of
from budgeteer.cache.protocol import Score


def kvzap(gates: str | Gates = "", sinks: int = 4, every: int = 0) -> Score:
    """Keep what a net, trained on this model, thinks will be read when the context is written once more.

    Formula: score_i = gelu(x_i W1 + b1) W2 + b2, x_i what the layer's attention is given for token i, one number a
    key-value head. ``budgeteer cache train kvzap`` fits it to the logarithm of the scores of ``kvzip``; the paper fits
    those of its KVzip+, which also count how far a value moves the output.
    Helps where ``kvzip`` does, without its second reading; an entry is judged once and for all, so that it also chooses
    while decoding. The paper drops what is below a threshold, in each
    head as much as there is; here heads of all layers compete for the budget (``split=layers``, the default).

    Args:
        gates: their file, or the folder of a model that has them beside it.
        sinks: entries at the beginning that are always kept, >= 0.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    net = gates_of("kvzap", gates)
    return Score(
        lambda cells, memory: memory[..., 0], net.into, remembers=1, first=sinks, every=every, split="layers",
        hidden=True, fingerprint=net.fingerprint,
    )  # fmt: skip
