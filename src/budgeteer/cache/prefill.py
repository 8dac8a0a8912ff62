"""One prefill for many caches: a prompt is read once, and each method then chooses from what was read."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from budgeteer.cache.attend import listen, updated
from budgeteer.cache.budgeted_cache import BudgetedCache
from budgeteer.cache.known import Known
from budgeteer.cache.layer import BudgetedLayer, Call
from budgeteer.cache.replay import replay
from budgeteer.core.errors import InvalidInput
from budgeteer.models.inside import argument_of


class Prefill(BudgetedCache):
    """A full cache that records what each layer read, so that :meth:`into` can fill budgeted caches from it.

    A filled cache is, to the bit, the one that reads the prompt itself in one call. Queries, keys, values
    and inputs of the attention of all layers are held, which is more than a full cache, and so are the sums over all
    queries that scores asked for (:func:`.kit.summed`): they are the same for all budgets, and for several scores.

    Args:
        model: as for a :class:`BudgetedCache`; the caches have to be of the same model.
        ids: [B, q] tokens of the prompt.
        attention_mask: [B, q], 0 = padding; None = there is none.

    Attributes:
        saved: seconds of sums and of a second reading that the last :meth:`into` took over from an earlier one.

    Raises:
        InvalidInput: tokens or a mask of another shape, or tokens that are no whole numbers.
    """

    def __init__(self, model: Any, ids: Tensor, attention_mask: Tensor | None = None) -> None:
        _require_tokens(ids, attention_mask)
        self.read: list[tuple[Tensor, Tensor, Call, Tensor | None]] = []
        self.saved, self._known = 0.0, Known()
        self._model, self._heard = model, dict[Any, tuple[list[Tensor], float]]()
        self._given: dict[str, Any] = {"input_ids": ids, "attention_mask": attention_mask}
        super().__init__(model, "100%", "recent")
        self._hears = listen(model)  # for scores that look at what the attention is given
        self.logits = self._through(self)

    def _through(self, cache: BudgetedCache) -> Tensor:
        """[B, vocabulary] logits after the prompt, which the model reads with a cache."""
        given: dict[str, Any] = {**self._given, argument_of(self._model): cache}
        if (mask := self._given["attention_mask"]) is not None:
            given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            logits: Tensor = self._model(**given, logits_to_keep=1).logits
        return logits[:, -1]

    def choose(self, layer: BudgetedLayer, call: Call, mask: Tensor | None) -> None:
        """Record what a layer read, before a sliding one lets go of it."""
        assert layer.storage is not None
        whole = layer.storage.whole()
        self.read.append((whole["keys"], whole["values"], call._replace(known=self._known), mask))
        super().choose(layer, call, mask)

    def into(self, cache: BudgetedCache) -> BudgetedCache:
        """Fill an empty cache as if the prompt went through it, and return it.

        With a score by which tokens end in a middle layer (``Score.depth``) the model reads the prompt once more.

        Raises:
            InvalidInput: the cache is not empty, or has other layers than this model.
        """
        if seen := cache.get_seq_length():
            raise InvalidInput(f"the cache has seen {seen} tokens; give an empty one, or reset() it first")
        if (given := [layer.window for layer in cache.layers]) != (own := [layer.window for layer in self.layers]):
            raise InvalidInput(
                f"a cache of {len(given)} layers with the windows {given} is of another model than this prompt, whose "
                f"{len(own)} layers have {own}"
            )
        self.saved = 0.0
        self._known.begin()
        if cache.selected.score.depth is not None:
            self._through(cache)
            return cache
        with torch.no_grad():
            for index, (keys, values, call, mask) in enumerate(self.read):
                cache.update(keys, values, index)
                updated.by = None
                cache.prepare(cache.layers[index], call, mask)
                cache.choose(cache.layers[index], call, mask)
        self.saved = self._known.saved
        if cache.unread:
            self._replay(cache)
        return cache

    def _replay(self, cache: BudgetedCache) -> None:
        for layer, memory in zip(cache.layers, self.heard(cache), strict=True):
            assert layer.storage is not None
            layer.storage.replace("memory", memory)
        cache.settle()

    def heard(self, cache: BudgetedCache) -> list[Tensor]:
        """What the score of a cache remembers of each layer's entries, [B, K, n, remembers].

        A score that reads a prompt twice does so once for all budgets and splits.

        Args:
            cache: filled with this prompt, of which nothing was dropped.
        """
        heard = cache.selected.score.observe, cache.selected.score.reads
        if heard in self._heard:
            self.saved += self._heard[heard][1]
        else:
            began = time.perf_counter()
            replay(self._model, cache, argument_of(self._model), self._given)
            memories = [layer.memory().clone() for layer in cache.layers]
            if memories[0].is_cuda:
                torch.cuda.synchronize(memories[0].device)
            self._heard[heard] = memories, time.perf_counter() - began
        return self._heard[heard][0]


def _require_tokens(ids: Any, mask: Any) -> None:
    """Raises:
    InvalidInput: no [B, q] of whole numbers, or a mask of another shape.
    """
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64) or not ids.numel():
        given = f"{tuple(ids.shape)} of {ids.dtype}" if isinstance(ids, Tensor) else f"a {type(ids).__name__}"
        raise InvalidInput(
            f"ids is {given}; give the tokens of the prompts as a tensor [batch, length] of whole numbers: one prompt "
            "is ids[None], and a tokenizer gives it with return_tensors='pt'"
        )
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != ids.shape):
        given = f"{tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise InvalidInput(f"attention_mask is {given} and ids {tuple(ids.shape)}; give one of the same shape, or None")
