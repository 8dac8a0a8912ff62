"""Where a model computes the answer of a sum: the all-for-one analysis of any causal model of Hugging Face.

Three restrictions are put on the forward pass of prompts such as ``12+34=``:

1. wait: the input of layer ``wait`` is, at every position, the mean over prompts that have the same token there and
   otherwise are drawn anew (context-aware mean ablation). Nothing that a token learnt from others in the layers
   before survives.
2. transfer: in the next ``transfer`` layers only the last token reads from the others, which see themselves and the
   first token alone (attention-based peeking).
3. the rest: the last token, too, sees itself and the first token alone.

The faithfulness of (wait, transfer) is the share of prompts whose next token is still that of the whole model. A large
wait with a short transfer that keeps it says that the computing is done late, and at the last token.

Source: "All for One: LLMs Solve Mental Math at the Last Token With Information Transferred From Other Tokens",
arXiv 2509.09650.
"""

from __future__ import annotations

import contextlib
import itertools
import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.errors import InvalidInput


class Flow(NamedTuple):
    """What is left of a model under restrictions.

    Attributes:
        wait: layers before the means are put in.
        transfer: layers in which the last token reads from the others.
        faithful: share of prompts with the whole model's next token.
    """

    wait: int
    transfer: int
    faithful: float


def prompts_of(template: str, numbers: Sequence[int], count: int, seed: int) -> list[str]:
    """Distinct prompts: the template with numbers in its fields, drawn at random.

    >>> prompts_of("{a}+{b}=", [1, 2], 4, 0)
    ['1+1=', '1+2=', '2+1=', '2+2=']

    Raises:
        InvalidInput: no field, or too few numbers.
    """
    fields = sorted({name for _, name, _, _ in string.Formatter().parse(template) if name})
    if not fields or not numbers or count < 1:
        raise InvalidInput(
            f"the template {template!r} needs fields such as {{a}}, numbers for them and a count above 0"
        )
    if len(numbers) ** len(fields) <= 100_000:
        every = list(itertools.product(numbers, repeat=len(fields)))
        rng = np.random.default_rng(seed)
        chosen = [every[i] for i in sorted(rng.permutation(len(every))[:count].tolist())]
    else:
        rng = np.random.default_rng(seed)
        chosen = sorted({tuple(rng.choice(numbers, len(fields)).tolist()) for _ in range(count)})
    return [template.format(**dict(zip(fields, values, strict=True))) for values in chosen]


def encoded(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """[n, t] token ids.

    Raises:
        InvalidInput: prompts of different lengths, since positions have to mean the same in all of them.
    """
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or lengths[0] < 3:
        raise InvalidInput(
            f"the prompts have {lengths[0]} to {lengths[-1]} tokens; give numbers of one length, such as 10 to 99, so "
            "that all have the same, 3 or more"
        )
    return torch.tensor(rows)


def layers_of(model: Any) -> Any:
    """The decoder layers of a model.

    Raises:
        InvalidInput: they are not where models of transformers have them.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for name in ("layers", "h"):
        if hasattr(decoder, name):
            return getattr(decoder, name)
    raise InvalidInput(f"{type(model).__name__} has no list of decoder layers that is known here (layers, h)")


@torch.no_grad()
def means(model: Any, ids: Tensor, layer: int, batch: int = 256) -> Tensor:
    """[n, t, h] the input of a layer, averaged at every position over the rows that have the same token there.

    The first position has only itself to look at, so its mean is its own state.
    """
    states = torch.cat(
        [
            model(part, output_hidden_states=True, use_cache=False).hidden_states[layer]
            for part in torch.split(ids, batch)
        ]
    )
    out = torch.empty_like(states)
    for position in range(ids.shape[1]):
        _, group = torch.unique(ids[:, position], return_inverse=True)
        total = torch.zeros(int(group.max()) + 1, states.shape[2], dtype=states.dtype).index_add_(
            0, group, states[:, position]
        )
        size = torch.bincount(group).to(states.dtype)
        out[:, position] = (total / size[:, None])[group]
    return out


def allowed(length: int, *, peek: bool) -> Tensor:
    """[t, t] bool: who may be looked at. Everybody sees itself and the first token; the last one sees all if it peeks.

    >>> allowed(3, peek=True).int().tolist(), allowed(3, peek=False).int().tolist()
    ([[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    """
    seen = torch.eye(length, dtype=torch.bool)
    seen[:, 0] = True
    if peek:
        seen[-1] = True
    return seen


@contextlib.contextmanager
def restricted(model: Any, ids: Tensor, states: Tensor, wait: int, transfer: int) -> Iterator[None]:
    """The model with the three restrictions, for a forward pass of these prompts."""
    layers = layers_of(model)
    kind = next(model.parameters()).dtype

    def bias(peek: bool) -> Tensor:
        mask = allowed(ids.shape[1], peek=peek)
        return torch.zeros(mask.shape, dtype=kind).masked_fill(~mask, torch.finfo(kind).min)[None, None]

    def hook(number: int) -> Callable[..., Any]:
        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if number == wait:
                if args:
                    args = (states.to(args[0].dtype), *args[1:])
                else:
                    kwargs = {**kwargs, "hidden_states": states}
            return args, {**kwargs, "attention_mask": bias(number < wait + transfer).expand(len(ids), 1, -1, -1)}

        return before

    hooks = [layers[i].register_forward_pre_hook(hook(i), with_kwargs=True) for i in range(wait, len(layers))]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


@torch.no_grad()
def faithfulness(
    model: Any, ids: Tensor, settings: Sequence[tuple[int, int]], *, background: Tensor | None = None, batch: int = 256
) -> list[Flow]:
    """The faithfulness of every (wait, transfer).

    Args:
        model: a causal model of transformers, on the CPU.
        ids: [n, t] prompts.
        settings: pairs; wait from 0 to the number of layers, less one.
        background: [m, t] prompts that means are taken over; None = ``ids``.
        batch: prompts in one forward pass.

    Raises:
        InvalidInput: a pair out of range.
    """
    depth = len(layers_of(model))
    if any(not (0 <= wait < depth and 0 <= transfer <= depth - wait) for wait, transfer in settings):
        raise InvalidInput(f"wait and transfer are {list(settings)}; the model has {depth} layers")
    every = ids if background is None else torch.cat([ids, background])
    whole = torch.cat([model(part, use_cache=False).logits[:, -1].argmax(-1) for part in torch.split(ids, batch)])
    flows = []
    for wait, pairs in itertools.groupby(sorted(settings), key=lambda pair: pair[0]):
        states = means(model, every, wait, batch)[: len(ids)]
        for _, transfer in pairs:
            same = 0
            for part, own, want in zip(
                torch.split(ids, batch), torch.split(states, batch), torch.split(whole, batch), strict=True
            ):
                with restricted(model, part, own, wait, transfer):
                    logits = model(part, attention_mask=torch.ones_like(part), use_cache=False).logits
                same += int((logits[:, -1].argmax(-1) == want).sum())
            flows.append(Flow(wait, transfer, same / len(ids)))
    return flows


def render(flows: Sequence[Flow]) -> str:
    """A table: a line for each wait, a column for each transfer."""
    by_pair = {(flow.wait, flow.transfer): flow.faithful for flow in flows}
    transfers = sorted({flow.transfer for flow in flows})
    lines = ["wait \\ transfer " + "".join(f"{transfer:>7}" for transfer in transfers)]
    for wait in sorted({flow.wait for flow in flows}):
        cells = [f"{100 * by_pair[wait, t]:>6.1f}%" if (wait, t) in by_pair else f"{'-':>7}" for t in transfers]
        lines.append(f"{wait:>15} " + "".join(cells))
    return "\n".join(lines)
