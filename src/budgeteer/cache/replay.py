"""A second reading of a prompt, for scores that ask what is needed to write it once more (``Score.replays``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from budgeteer.cache.budgeted_cache import BudgetedCache

CHUNK = 2048
"""Tokens that are read again at a time."""

BESIDE = ("pixel_values", "input_features", "input_values")
"""How arguments begin that are read in the places of tokens."""


def replay(model: Any, cache: BudgetedCache, argument: str, given: dict[str, Any]) -> None:
    """Have a model read its last input once more behind what it has read, so that the cache can choose by that.

    A score with a text of its own (``Score.reads``) has that read instead. The score observes the second reading only;
    its own entries are dropped after each chunk of it.

    Args:
        model: as the cache was made for.
        cache: it has read the input, and nothing of it was dropped.
        argument: name of the model's argument for the cache.
        given: the arguments of the call: ``input_ids`` or ``inputs_embeds``, and ``attention_mask`` [B, n] if there is
            padding.

    Raises:
        InvalidInput: no input to read again, pictures or sounds beside it, or a mask of another shape.
    """
    name = next((each for each in ("input_ids", "inputs_embeds") if given.get(each) is not None), None)
    mask: Tensor | None = given.get("attention_mask")
    if name is None or (mask is not None and mask.dim() != 2):
        raise InvalidInput(
            f"{cache.selected.name} reads a prompt twice: give the model input_ids or inputs_embeds, and no mask or "
            "one of [rows, tokens]"
        )
    beside = [each for each, value in given.items() if each.startswith(BESIDE) and value is not None]
    if beside and name == "input_ids":
        raise InvalidInput(
            f"{cache.selected.name} reads a prompt twice, the second time by its tokens alone: give inputs_embeds and "
            f"no pictures or sounds ({', '.join(beside)}), or choose another method"
        )
    whole = given[name]
    again = None if mask is None else mask[:, mask.shape[1] - whole.shape[1] :]
    if text := cache.selected.score.reads:
        name, whole = "input_ids", torch.tensor([text], device=whole.device).expand(whole.shape[0], -1)
        again = None if mask is None else torch.ones_like(whole)
        for layer in cache.layers:
            layer.clear()
    cache.listening = True
    try:
        for start in range(0, whole.shape[1], CHUNK):
            piece = whole[:, start : start + CHUNK]
            call = {name: piece, argument: cache, "use_cache": True, "logits_to_keep": 1}
            if mask is not None and again is not None:
                call["attention_mask"] = joined = torch.cat([mask, again[:, start : start + CHUNK]], dim=1)
                call["position_ids"] = (joined.cumsum(-1) - 1).clamp(min=0)[:, -piece.shape[1] :]
            with torch.no_grad():
                model(**call)
    finally:
        cache.listening = False


def attach_replay(model: Any, argument: str) -> None:
    """After each call of a model, have the prompt read again where its cache waits for that. Twice changes nothing."""
    if getattr(model, "_budgeteer_replays", False):
        return

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = (kwargs[name] for name in (argument, "past_key_values") if kwargs.get(name) is not None)
        cache: Any = next(given, None)
        if getattr(cache, "unread", False) and not cache.listening:
            named = {**({"input_ids": args[0]} if args else {}), **kwargs}
            replay(module, cache, argument, named)
            cache.settle()

    model.register_forward_hook(hook, with_kwargs=True)
    model._budgeteer_replays = True
