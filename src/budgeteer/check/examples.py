"""Arguments for methods whose factories need more than numbers: what :attr:`budgeteer.core.method.Method.arguments`
names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from budgeteer.allocate import Bank

ITEMS = tuple(f"item{i:02d}" for i in range(12))
"""Keys of the items of :func:`budgeteer.check.check_allocator`."""


def optimal_design() -> dict[str, Any]:
    """A bank of those items, with some slopes and difficulties."""
    turn = np.arange(float(len(ITEMS)))
    return {"bank": Bank(ITEMS, np.stack([1 + turn % 3, np.sin(turn)], 1), np.cos(turn))}


def _head(outputs: int, layers: int, settings: dict[str, Any]) -> Any:
    """A random head on the states of the model of :func:`budgeteer.check.check_steer`."""
    import torch

    from budgeteer.check._steer import PIECES
    from budgeteer.core.steer import Internals
    from budgeteer.engine.head import Head

    width, inside = len(PIECES), Internals(torch.eye(len(PIECES)), PIECES, 0, list)  # type: ignore[arg-type]
    random = torch.Generator().manual_seed(0)
    shapes = {"w1": (layers * width, 4), "b1": (4,), "w2": (4, outputs), "b2": (outputs,)}
    weights = {name: torch.randn(shape, generator=random).double() for name, shape in shapes.items()}
    plain = {"mean": torch.zeros(layers * width).double(), "scale": torch.ones(layers * width).double()}
    return Head(weights | plain, inside.fingerprint, settings)


def guidance() -> dict[str, Any]:
    """A head that predicts a Gamma of the remaining length for each of the 24 tokens."""
    return {"head": _head(48, 3, {"vocab": 24, "line_ends": ["\n"]}), "reserve": 5}


def probe() -> dict[str, Any]:
    """A head with three classes on the last layer."""
    return {"head": _head(3, 1, {}), "reserve": 5}


def samples() -> dict[str, Any]:
    """A head that predicts value and remaining length of a sample."""
    return {"head": _head(6, 3, {"values": [0.0, 1.0], "lengths": [0, 8, 16]})}


def _gates(kind: str) -> dict[str, Any]:
    """Random gates for the layers of the entries of :func:`budgeteer.check.check_score`."""
    from budgeteer.cache.gates import untrained
    from budgeteer.check._cells import KV_HEADS, LAYERS, MODEL

    return {"gates": untrained(kind, (LAYERS, MODEL, KV_HEADS), 4, 0.0, "", 0)}


def kvzap() -> dict[str, Any]:
    """Gates that guess the scores of kvzip."""
    return _gates("kvzap")


def trim_kv() -> dict[str, Any]:
    """Gates that say how long an entry lasts."""
    return _gates("trim-kv")


def losses() -> dict[str, Any]:
    """Losses of the layers of :func:`budgeteer.check.check_split`, in any shape."""
    return {"losses": {"shares": [0.1, 0.3, 1.0], "losses": [[3, 1, 0], [1, 1, 0], [9, 0.5, 0.6], [2, 2.5, 0]]}}


def sizes() -> dict[str, Any]:
    """Sizes of the layers of :func:`budgeteer.check.check_split` at two budgets."""
    return {"sizes": {"shares": [0.2, 0.5], "sizes": [[0.05, 0.2], [0.1, 0.4], [0.2, 0.5], [0.45, 0.9]]}}


def projections() -> dict[str, Any]:
    """Projections of the layers of :func:`budgeteer.check.check_rest`, with any matrices."""
    import torch

    from budgeteer.cache.projections import Projections, evenly
    from budgeteer.check._cells import KV_HEADS, LAYERS, WIDTH

    rng = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(2, LAYERS, KV_HEADS, WIDTH, WIDTH, generator=rng)).Q
    mean = torch.randn(2, LAYERS, KV_HEADS, WIDTH, generator=rng)
    return {"projections": Projections(basis, mean, evenly(2 * LAYERS * KV_HEADS, 4), 4)}


def programmatic() -> dict[str, Any]:
    """A function that likes short traces."""
    return {"check": lambda question, trace: 1 / (1 + len(trace))}


def rewards() -> dict[str, Any]:
    """A reward model that likes short steps."""

    async def rate(question: str, traces: Sequence[Sequence[str]]) -> list[list[float] | None]:
        return [[1 / (1 + len(step)) for step in steps] for steps in traces]

    return {"model": rate}


def encode() -> dict[str, Any]:
    """An encoder that counts words."""
    from budgeteer.context.encode import words

    return {"encode": words}


def rerank() -> dict[str, Any]:
    """A reranker that compares counted words."""
    from budgeteer.context.encode import cosine, words

    return {"rerank": cosine(words)}


def tiers() -> dict[str, Any]:
    """An encoder and a reranker of counted words, of which the middle tier is taken."""
    return {**encode(), **rerank(), "router": "mid"}


def surprise() -> dict[str, Any]:
    """A surprise that grows with the length of a word."""
    return {"surprise": lambda text: [(w.start(), w.end(), float(len(w.group()))) for w in re.finditer(r"\S+", text)]}


def attribute() -> dict[str, Any]:
    """An attribution by how rare a word is."""
    from budgeteer.context.attribution import rarity

    return {"attribute": rarity}


def summarise() -> dict[str, Any]:
    """A summary of first sentences."""
    from budgeteer.context._summary import first_sentences

    return {"summarise": first_sentences}


def router_file() -> dict[str, Any]:
    """A router in a file, for the gateway of :func:`budgeteer.check.check_policy`; it is gone when the process ends."""
    import atexit
    import shutil
    import tempfile
    from pathlib import Path

    from budgeteer.route.saved import fitted, save
    from budgeteer.route.table import Table

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    prompts = [" ".join(map(str, np.random.default_rng(n).integers(0, 9, 8))) for n in range(24)]
    hard = np.array([float("7" in prompt) for prompt in prompts])
    score, cost = np.stack([1 - hard, np.ones(24)], axis=1), np.tile([1.0, 4.0], (24, 1))
    table = Table(("small", "large"), score, cost, np.full((24, 2), np.nan), {"prompt": tuple(prompts)})
    save(fitted("classifier:penalty=0.1", table, 2.5), folder / "router.json")
    return {"file": str(folder / "router.json")}


def second_model() -> dict[str, Any]:
    """A model that takes every second step and always fails, so that all answers are the model's own."""
    from budgeteer.check._toy import ToyModel
    from budgeteer.check.scripted import ALL

    return {"large": ToyModel(ALL, fail=1.0), "policy": lambda x: round(10 * x[1]) % 2 == 0}
