"""An update without the padding of its batch: a rollout that was cut costs less to learn from, too.

TRL pads all completions of a generation to the longest and computes the padding. Here a forward pass has the columns in
which one of its rows has a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOTrainer

Read = tuple[Tensor, Tensor | None, Tensor | None]
"""Log-probabilities [n, t], entropies [n, t] or None, and the loss of a model's routers or None."""


class WithoutPadding(GRPOTrainer):  # type: ignore[misc, unused-ignore]
    """TRL's trainer, which reads the log-probabilities of a batch without its padding.

    Attributes:
        trims: False = as TRL does, to the bit.
        rows_of_pass: rows of like length that share a pass; None = as TRL has it, all where gradients are needed. Where
            the lengths of a batch differ much, more passes are less work.
    """

    trims = True
    rows_of_pass: int | None = None

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int,
        batch_size: int | None = None, **more: Any,
    ) -> Read:  # fmt: skip
        read = super()._get_per_token_logps_and_entropies
        images = any(value is not None and not isinstance(value, bool) for value in more.values())
        if images or not self.trims:
            made: Read = read(model, input_ids, attention_mask, logits_to_keep, batch_size, **more)
            return made
        size = self.rows_of_pass or batch_size

        def alone(ids: Tensor, mask: Tensor, width: int) -> Read:
            part: Read = read(model, ids, mask, width, **more)
            return part

        return trimmed(alone, input_ids, attention_mask, logits_to_keep, size)


def trimmed(
    read: Callable[[Tensor, Tensor, int], Read], ids: Tensor, mask: Tensor, width: int, size: int | None
) -> Read:
    """What ``read`` gives, up to rounding; 0 in columns where all rows of a pass have padding.

    Args:
        read: of ids, mask and the number of their columns that are completions.
        ids, mask: [n, p + t] prompts, padded on the left, and completions, padded on the right.
        width: t.
        size: rows of a pass, which are of like length; None = all.
    """
    order = mask[:, -width:].sum(-1).argsort(stable=True)
    parts = [_pass(read, ids[rows], mask[rows], width) for rows in torch.split(order, size or len(ids))]
    entropy = [part[1] for part in parts if part[1] is not None]
    routers = [part[2] for part in parts if part[2] is not None]
    back = order.argsort()
    return (
        torch.cat([part[0] for part in parts])[back],
        torch.cat(entropy)[back] if entropy else None,
        torch.stack(routers).mean() if routers else None,
    )


def _pass(read: Callable[[Tensor, Tensor, int], Read], ids: Tensor, mask: Tensor, width: int) -> Read:
    prompt = ids.shape[1] - width
    used = mask.any(0).nonzero().flatten().tolist() or [prompt]
    # a column of each stays: no row has a token there, or none of the completion, where rows only fill a batch up
    first, end = min(used[0], max(prompt - 1, 0)), max(used[-1], prompt) + 1
    within, behind = slice(first, end), ids.shape[1] - end
    logprob, entropy, routers = read(ids[:, within], mask[:, within], width - behind)
    return pad(logprob, (0, behind)), None if entropy is None else pad(entropy, (0, behind)), routers
