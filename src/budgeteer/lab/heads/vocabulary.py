"""Write heads into a copy of a model: rows of its output matrix that belong to no token.

Paper: "Zero-Overhead Introspection for Adaptive Test-Time Compute", arXiv 2512.01457. Its code trains the whole model,
or, as here, the rows alone with all else frozen (``train_ziprc_head_only.py``): the model says what it said before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.steer import fingerprint_of
from budgeteer.engine.head import HEADS, save_head
from budgeteer.engine.vocabulary_head import LinearHead, VocabularyHead

TOLERANCE = 0.05
"""Largest difference between a head and what the written model computes, relative to the spread of the former."""


def write_into(model: Any, heads: Mapping[str, LinearHead], folder: Path) -> dict[str, VocabularyHead]:
    """Save a copy of a transformers model, with heads in unused rows of its vocabulary, and the heads beside it.

    Rows behind the last token are used, and added where there are too few. The input embeddings of these rows, which
    nobody feeds, are set to the same numbers, so that the copy has a fingerprint of its own also where input and output
    matrices are two. Generation is told never to draw them (``suppress_tokens``).

    Args:
        model: a :class:`budgeteer.models.transformers.Transformers`; its weights are changed, so make a new one.
        heads: name of the file -> trained head.
        folder: of the copy.

    Raises:
        InvalidInput: the model does more to its logits than to multiply a matrix, so no row can be a head.
        CheckpointError: the folder cannot be written.
    """
    net = model.model
    used = max(model.tokenizer.get_vocab().values()) + 1
    matrices = {name: head.rows() for name, head in heads.items()}
    needed = sum(len(rows) for rows, _ in matrices.values())
    if used + needed > net.get_input_embeddings().num_embeddings:
        net.resize_token_embeddings(used + needed, mean_resizing=False)
    output, embedding = net.get_output_embeddings(), net.get_input_embeddings()
    made: dict[str, VocabularyHead] = {}
    first = used
    with torch.no_grad():
        for name, (rows, bias) in matrices.items():
            own = slice(first, first + len(rows))
            for matrix in {id(m): m for m in (output.weight, embedding.weight)}.values():
                matrix[own] = rows.to(matrix)
            if getattr(output, "bias", None) is not None:
                output.bias[own] = 0.0
            columns = heads[name].weights.get("columns", torch.arange(len(rows)))
            settings = {**heads[name].settings, "form": "vocabulary", "slots": first}
            made[name] = VocabularyHead({"b2": bias, "columns": columns}, "", settings)
            first += len(rows)
    net.generation_config.suppress_tokens = list(range(used, first))
    _try(net, {name: (*matrices[name], made[name]) for name in heads})
    folder.mkdir(parents=True, exist_ok=True)
    try:
        net.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise CheckpointError(f"cannot write the model with its heads to {folder}: {error}") from error
    with torch.inference_mode():
        embed = embedding(torch.arange(embedding.num_embeddings, device=net.device)).float().cpu()
    fingerprint = fingerprint_of(embed)
    made = {name: VocabularyHead(head.weights, fingerprint, head.settings) for name, head in made.items()}
    for name, head in made.items():
        save_head(head, folder / HEADS / f"{name}.safetensors")
    return made


def _try(net: Any, heads: Mapping[str, tuple[torch.Tensor, torch.Tensor, VocabularyHead]]) -> None:
    """Compare what the rows compute inside the model with what they should, on a few tokens.

    Raises:
        InvalidInput: they differ: the model caps or scales its logits.
    """
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, min(1000, _first_row(heads)), (1, 24)))
    with torch.inference_mode():
        out = net(input_ids=tokens.to(net.device), output_hidden_states=True)
    logits, state = out.logits[0].float().cpu(), out.hidden_states[-1][0].float().cpu()
    for name, (rows, bias, head) in heads.items():
        want = state @ rows.float().T + bias
        got = logits[:, head.settings["slots"] : head.settings["slots"] + len(rows)] + bias
        if float((got - want).abs().max()) > TOLERANCE * float(want.std() + 1):
            raise InvalidInput(
                f"the logits of this model are not its output matrix times its last state (it caps or scales them), so "
                f"the head {name} cannot be rows of its vocabulary; train it in another form"
            )


def _first_row(heads: Mapping[str, tuple[torch.Tensor, torch.Tensor, VocabularyHead]]) -> int:
    """The first row of the heads: all tokens are below it."""
    return min(int(head.settings["slots"]) for _, _, head in heads.values())
