"""Several caches of one text are read as one batch, a row each, so that the model's weights are read once for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from budgeteer.cache.attend import updated
from budgeteer.cache.budgeted_cache import BudgetedCache
from budgeteer.cache.layer import BudgetedLayer
from budgeteer.cache.replay import replay
from budgeteer.core.errors import InvalidInput
from budgeteer.models.inside import argument_of


class Together(Cache):
    """Caches that have read equally many tokens, as the rows of a batch.

    Every layer's projections are computed for all rows at once, attention and the choice for each row by its own cache:
    what each of them holds and gives is what it would hold and give alone, to the rounding of sums.

    Args:
        model: that the caches were made for.
        caches: of one row each, at least one; without methods that cut the prompt itself (``Score.depth``).

    Raises:
        InvalidInput: caches that have seen different numbers of tokens, or of such a method.
    """

    layers: list[_Rows]  # type: ignore[assignment]

    def __init__(self, model: Any, caches: Sequence[BudgetedCache]) -> None:
        seen = sorted({cache.get_seq_length() for cache in caches})
        if len(seen) != 1:
            raise InvalidInput(f"caches that have seen {seen} tokens are no rows of one batch; give caches of one text")
        if cut := [cache.selected.name for cache in caches if cache.selected.score.depth is not None]:
            raise InvalidInput(f"{cut[0]} leaves tokens out while the model runs; read its cache by itself")
        self.model, self.caches = model, tuple(caches)
        super().__init__(layers=[_Rows([each.layers[i] for each in caches]) for i in range(len(caches[0].layers))])

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Add the keys and values of a layer, each row to its own cache."""
        layer = self.layers[layer_idx]
        layer.read = [
            cache.update(key_states[row : row + 1], value_states[row : row + 1], layer_idx)
            for row, cache in enumerate(self.caches)
        ]
        updated.by = (self, layer)
        return key_states, value_states

    def read(self, ids: Sequence[int]) -> Tensor:
        """Have the model read tokens behind what each cache holds.

        Returns:
            [caches, tokens, vocabulary] logits.
        """
        name, device = argument_of(self.model), next(self.model.parameters()).device
        row = torch.tensor([list(ids)], device=device)
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=row.expand(len(self.caches), -1), **{name: self}).logits
        for cache in self.caches:
            if cache.unread:
                replay(self.model, cache, name, {"input_ids": row})
                cache.settle()
        return logits


class _Rows(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer of all caches."""

    is_compileable = is_croppable = False

    def __init__(self, rows: list[BudgetedLayer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.read = rows, list[tuple[Tensor, Tensor]]()
        self.is_sliding, self.is_initialized = rows[0].is_sliding, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        raise NotImplementedError

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError  # Together does it, with the caches that the rows are of

    def get_seq_length(self) -> int:
        return self.rows[0].get_seq_length()

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        return self.rows[0].get_mask_sizes(query_length)

    def get_max_length(self) -> int:
        return self.rows[0].get_max_length()

    get_max_cache_shape = get_max_length  # its name before transformers 5
