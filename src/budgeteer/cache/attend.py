"""The way into a model: its attention goes through :func:`attend`, which knows the cache that was just updated.

``attach(model)`` gives the model's attention modules a copy of their configuration that names this implementation. The
model's own configuration, its masks and whoever reads it stay as they are, and a call without a budgeted cache goes on
to the implementation that the model had. Nothing is replaced for other models.
"""

from __future__ import annotations

import copy
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from budgeteer.cache.layer import BudgetedLayer, Call, readable
from budgeteer.cache.storage import Ragged, held
from budgeteer.core.errors import InvalidInput

try:
    from budgeteer.cache import kernels
except ImportError:  # without numba
    kernels = None  # type: ignore[assignment]
try:
    from budgeteer.cache import gpu
except ImportError:  # without Triton
    gpu = None  # type: ignore[assignment]

NAME = "budgeteer"
"""Of the attention implementation."""
OFFERED = ("eager", "sdpa")
"""Implementations that take a mask of their own for each head, which unequal heads need."""
_PROJECTIONS = ("o_proj", "dense", "out_proj")

updated = threading.local()
"""In one thread: ``updated.by`` = (cache, layer) between the update of a layer and its attention, and
``updated.hidden`` = what the layer's attention was given, if somebody listens. ``updated.gated`` = attention of calls
without a cache."""


def attach(model: Any, layers: int) -> None:
    """Lead the attention of a model's ``layers`` layers through :func:`attend`. A second call changes nothing.

    Raises:
        InvalidInput: its attention modules cannot be told, or its attention implementation takes no such masks.
    """
    found = attentions(model)
    if sorted(module.layer_idx for module in found) != list(range(layers)):
        raise InvalidInput(
            f"{type(model).__name__}: a budgeted cache needs one attention module with layer_idx a layer, found "
            f"{len(found)} in {layers} layers; models with shared, cross or state-space layers are not supported"
        )
    copies: dict[int, Any] = {}
    for module in found:
        own = _original(module)
        if own._attn_implementation not in OFFERED:
            raise InvalidInput(
                f"attention {own._attn_implementation!r} cannot read heads of unequal lengths; load the model with "
                "attn_implementation='sdpa', or call model.set_attn_implementation('sdpa')"
            )
        if module.config is own:
            if id(own) not in copies:
                copies[id(own)] = copy.copy(own)
                copies[id(own)]._attn_implementation_internal = NAME
                copies[id(own)].budgeteer_original = own
            module.config = copies[id(own)]


def attentions(model: Any) -> list[Any]:
    """A model's attention modules that belong to a layer."""
    return [module for module in model.modules() if "Attention" in type(module).__name__ and _is_layer(module)]


class Listening:
    """Hooks that note what each attention of a model is given, for as long as somebody holds this.

    A hook makes every call of a module slower, so that only those ask for it who look (:func:`listen`).
    """

    def __init__(self, model: Any) -> None:
        handles = [module.register_forward_pre_hook(_note, with_kwargs=True) for module in attentions(model)]
        weakref.finalize(self, _remove, handles)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # a copy of a cache listens, too


_listening: weakref.WeakKeyDictionary[Any, weakref.ref[Listening]] = weakref.WeakKeyDictionary()
"""Model -> what listens to it."""


def listen(model: Any) -> Listening:
    """Have ``updated.hidden`` noted in a model's calls, for as long as the result is held."""
    known = _listening.get(model)
    found = known() if known is not None else None
    if found is None:
        found = Listening(model)
        _listening[model] = weakref.ref(found)
    return found


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Note what an attention module is given, for scores that look at it."""
    updated.hidden = args[0] if args else kwargs.get("hidden_states")


def frequencies_of(model: Any, windows: Sequence[int | None]) -> list[Tensor] | None:
    """For each layer [r / 2] of the rotation of queries and keys, as :class:`Cells` have it; None = of another kind.

    Asked of the rotary embeddings themselves: one set of frequencies for all layers, or one for those that slide and
    one for the others, which do not change with the length of the text; halves of a head as pairs.

    Args:
        model: a decoder of transformers.
        windows: of each layer, None = it reads everything.
    """
    rotary = {
        name: m for name, m in model.named_modules() if any("inv_freq" in n for n, _ in m.named_buffers(recurse=False))
    }
    first = next(iter(rotary.values()), None)
    halves = None if first is None else getattr(sys.modules[type(first).__module__], "rotate_half", None)
    if first is None or halves is None or halves(torch.arange(4.0)).tolist() != [-2.0, -3.0, 0.0, 1.0]:
        return None
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"] * len(windows)
    if len(rotary) == 1 and isinstance(getattr(first, "inv_freq", None), Tensor):
        sources = [(first, "")] * len(windows)
    elif len(rotary) == 1:
        sources = [(first, f"{kind}_") for kind in kinds]
    elif sorted(name.rpartition(".")[2] for name in rotary) == [
        "rotary_emb",
        "rotary_emb_local",
    ]:  # before transformers 5
        named = {name.rpartition(".")[2]: module for name, module in rotary.items()}
        sources = [(named["rotary_emb" if window is None else "rotary_emb_local"], "") for window in windows]
    else:
        return None
    found = [_frequencies(module, prefix) for module, prefix in sources]
    known = [each for each in found if each is not None]
    return known if len(known) == len(windows) else None


def _frequencies(rotary: Any, prefix: str) -> Tensor | None:
    """[r / 2] of a rotary embedding, of one kind of layers; None where they change with the length of the text."""
    given = getattr(rotary, "rope_type", "default")
    kind = given.get(prefix.removesuffix("_")) if isinstance(given, dict) else given
    found = getattr(rotary, f"{prefix}inv_freq", None)
    return found if isinstance(found, Tensor) and kind in ("default", "linear", "llama3", "yarn") else None


def _is_layer(module: nn.Module) -> bool:
    return isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "config")


def _original(module: Any) -> Any:
    return getattr(module.config, "budgeteer_original", module.config)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The attention of one layer, and then the choice of what is kept of it."""
    name = _original(module)._attn_implementation
    if name == "eager":
        base: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    else:
        base = ALL_ATTENTION_FUNCTIONS[name]
    by, hidden = getattr(updated, "by", None), getattr(updated, "hidden", None)
    updated.hidden = None
    if by is None and (gated := getattr(updated, "gated", None)) is not None:  # gates in training
        if kwargs.get("s_aux") is not None:
            raise InvalidInput(
                f"{type(module).__name__} adds a learnt logit to each softmax, with which no gates are trained here; "
                "train them for another model, or choose a score without gates"
            )
        scaling, softcap = kwargs.get("scaling") or query.shape[-1] ** -0.5, kwargs.get("softcap")
        return gated(module, query, key, value, attention_mask, scaling, softcap, hidden), None
    if by is None:
        return base(module, query, key, value, attention_mask, *args, **kwargs)  # type: ignore[no-any-return]
    (cache, layer), updated.by = by, None
    if (own := getattr(layer, "attention", None)) is not None:  # a cache with an attention of its own
        if kwargs.get("s_aux") is not None:
            raise InvalidInput(
                f"{type(module).__name__} adds a learnt logit to each softmax, which this cache's own attention lacks; "
                "take another model, or read the texts one behind the other"
            )
        return own(query, kwargs.get("scaling") or query.shape[-1] ** -0.5, kwargs.get("softcap")), None
    if (rows := getattr(layer, "rows", None)) is not None:  # a cache for each row
        found = []
        for row, (one, each, pair) in enumerate(zip(cache.caches, rows, layer.read, strict=True)):
            updated.by, updated.hidden = (one, each), None if hidden is None else hidden[row : row + 1]
            mask = attention_mask if attention_mask is None or len(attention_mask) == 1 else attention_mask[row, None]
            found.append(attend(module, query[row : row + 1], *pair, mask, *args, **kwargs)[0])
        return torch.cat(found), None
    if layer.index != module.layer_idx:
        raise InvalidInput(f"layer {module.layer_idx} attends after the cache of layer {layer.index} was updated")
    if name not in OFFERED:
        raise InvalidInput(f"attention was set to {name!r} behind a budgeted cache; use one of {', '.join(OFFERED)}")
    asked = query.shape[2]
    call = Call(
        query.detach(),
        _valid(attention_mask, query.shape[0], asked, query.device),
        kwargs.get("scaling") or query.shape[-1] ** -0.5,
        kwargs.get("softcap"),
        lambda: _output(module, query.shape[1], value.shape[-1]),
        None if hidden is None else hidden.detach(),
        None if (sink := kwargs.get("s_aux")) is None else sink.detach(),
    )
    with torch.no_grad():
        cache.prepare(layer, call, attention_mask)
        result, mask = None, attention_mask
        if not layer.intact:
            if name == "sdpa" and not module.training and call.sink is None:
                result = decoded(layer, call)
            if result is None:
                key, value = layer.read()
                cache.measure(layer, held([key, value]))
                mask = layer.mask(attention_mask, asked, query.shape[1], query.dtype if name == "eager" else None)
    if result is None:
        result = base(module, query, key, value, mask, *args, **kwargs)
    with torch.no_grad():
        cache.choose(layer, call, attention_mask)
    return result


def decoded(layer: BudgetedLayer, call: Call) -> tuple[Tensor, None] | None:
    """Attention of one query a row over heads of any lengths, compiled; None where that is not for this call.

    It is for float32 on the CPU, with numba (extra ``fast``), and for a GPU, with Triton, in a layer that reads
    everything it holds.
    """
    queries, storage = call.queries, layer.storage
    one = queries.shape[2] == 1 and bool(call.valid.all()) and layer.window is None and call.softcap is None
    if not (one and isinstance(storage, Ragged)):
        return None
    if storage.packed is None and gpu is not None and gpu.takes(queries):
        return gpu.decode(queries[:, :, 0], storage, call.scaling)[:, None], None
    if kernels is None or queries.device.type != "cpu" or queries.dtype != torch.float32:
        return None
    flat, tail, packed = storage.flat, storage.tail, storage.packed
    out = queries.new_empty(*queries.shape[:2], flat["values"].shape[-1])
    there = (
        queries[:, :, 0].contiguous().numpy(), flat["keys"].numpy(), flat["values"].numpy(), storage.ends.numpy(),
        tail["keys"].numpy(), tail["values"].numpy(),
    )  # fmt: skip
    if packed is None:
        kernels.follow_torch()
        kernels.decode(*there, call.scaling, out.numpy())
        return out[:, None], None
    if packed.codec.linear is None:
        return None
    bits, together = packed.codec.linear
    codes_k, steps_k, codes_v, steps_v = packed.tensors
    if steps_v.shape[1] == 0 or codes_v.shape[1] % steps_v.shape[1] or 8 // bits * codes_v.shape[1] != out.shape[-1]:
        return None  # groups of channels that end within a byte
    kernels.follow_torch()
    kernels.decode_packed(
        *there, codes_k.numpy(), steps_k.float().numpy(), codes_v.numpy(), steps_v.float().numpy(),
        packed.lengths.cumsum(0).numpy(), bits, together, call.scaling, out.numpy(),
    )  # fmt: skip
    return out[:, None], None


def _valid(mask: Tensor | None, rows: int, asked: int, device: torch.device) -> Tensor:
    """[B, q]: the queries that are no padding: those that read themselves."""
    if mask is None:
        return torch.ones(rows, asked, dtype=torch.bool, device=device)
    own = readable(mask[:, 0, :, -asked:])
    return own.diagonal(dim1=-2, dim2=-1).expand(rows, asked)


def _output(module: Any, heads: int, width: int) -> Tensor | None:
    """[H, d of values, D]: the output projection, where it is a Linear of a known name."""
    for name in _PROJECTIONS:
        weight = getattr(getattr(module, name, None), "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 2 and weight.shape[1] == heads * width:
            return weight.detach().T.reshape(heads, width, -1)
    return None


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
