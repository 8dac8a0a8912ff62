"""Training of the gates of a cache (``kvzap``, ``trim-kv``) on a frozen model, measured on texts that were held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from budgeteer.cache import BudgetedCache
from budgeteer.cache.attend import attach, listen, updated
from budgeteer.cache.budgeted_cache import windows_of
from budgeteer.cache.gates import WEIGHTS, Gates, fingerprint, untrained
from budgeteer.cache.kit import of_groups
from budgeteer.cache.layer import readable
from budgeteer.cache.plan import shape_of
from budgeteer.cache.prefill import Prefill
from budgeteer.core.errors import InvalidInput

LEAST = 1e-6
"""Scores of kvzip below this count as this, since their logarithm is fitted."""
BATCH = 256
"""Tokens of an update of kvzap's gates."""
EVERY = 5
"""Each so many-th text is held out."""
SHORTEST = 8
"""Tokens of a text, at least: the first 4 are always kept by most scores, so that there is nothing to learn of less."""
_TAKES_NONE = "{}: its attention takes no hidden_states, which gates look at"


class Training(NamedTuple):
    """How gates are trained.

    Attributes:
        steps: updates.
        inside: width of their hidden layer.
        rate: of Adam.
        keep: trim-kv: entries a head that may be alive at a time, on the mean.
        capacity: trim-kv: weight of what is alive beyond that.
        seed: of everything random.
    """

    steps: int = 300
    inside: int = 64
    rate: float = 3e-3
    keep: int = 64
    capacity: float = 1.0
    seed: int = 0


class Trained(NamedTuple):
    """Gates, and what was measured on held-out texts.

    Attributes:
        gates: they.
        measured: what -> number.
    """

    gates: Gates
    measured: dict[str, float]


def texts_of(path: Path, encode: Callable[[str, bool], list[int]], length: int, limit: int) -> Tensor:
    """[n, length] token ids: the first texts of a file, one behind the other; no more of it is read than they need.

    Args:
        path: UTF-8 text.
        encode: ``(text, first) -> ids``, as :func:`budgeteer.lab.cache_eval.opened` gives it.
        length: tokens of a text, at least :data:`SHORTEST`.
        limit: texts, at most.

    Raises:
        InvalidInput: texts that are too short, a file that cannot be read, or fewer than 5 texts in it.
    """
    if length < SHORTEST:
        raise InvalidInput(f"texts of {length} tokens are too short to learn from; give {SHORTEST} tokens or more")
    wanted, text, ids = length * limit, "", list[int]()
    try:
        with path.open(encoding="utf-8") as file:
            while len(ids) <= wanted and (more := file.read(max(8 * wanted, len(text)))):
                text += more
                ids = encode(text, True)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}; give a file of UTF-8 text") from error
    if (count := min(len(ids) // length, limit)) < EVERY:
        raise InvalidInput(
            f"{path} has {len(ids):,} tokens, which make {count} texts of {length}, {limit} at most; give {EVERY} or "
            "more, by a longer file, a smaller --length or a larger --limit"
        )
    return torch.tensor(ids[: count * length]).reshape(count, length)


def parted(texts: Tensor) -> tuple[Tensor, Tensor]:
    """Texts to train on, and each fifth, which is held out.

    Raises:
        InvalidInput: fewer than 5 texts.
    """
    if len(texts) < EVERY:
        raise InvalidInput(f"{len(texts)} texts are too few to train on and to hold some out; give {EVERY} or more")
    held = torch.arange(len(texts)) % EVERY == EVERY - 1
    return texts[~held], texts[held]


def divergence(said: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || said), nats a token, of log-probabilities [..., vocabulary]."""
    return functional.kl_div(said, wanted, log_target=True, reduction="none").sum(-1).mean()


Watch = Callable[[str], None]
"""Is told how far a training is."""


def train_gates(kind: str, model: Any, texts: Tensor, given: Training, watch: Watch = lambda said: None) -> Trained:
    """Train the gates of a score; the model does not change.

    Args:
        kind: ``kvzap`` or ``trim-kv``.
        model: a decoder of transformers.
        texts: [n, length] token ids, n >= 5.
        given: how.
        watch: is told after each text that is read, and after each update.

    Raises:
        InvalidInput: too few texts, or a model whose cache is not the standard one.
    """
    seen, held = parted(texts)
    layers = windows_of(model)
    attach(model, len(layers))
    train = {"kvzap": _kvzap, "trim-kv": _trim}[kind]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return train(model, seen, held, given, watch)


def _start(kind: str, model: Any, bias: float, given: Training) -> Gates:
    shape = shape_of(model, windows_of(model))
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    sizes = len(shape.windows), int(config.hidden_size), shape.width // (2 * width)
    return untrained(kind, sizes, given.inside, bias, fingerprint(model), given.seed)


def _optimised(gates: Gates, given: Training, loss: Callable[[], Tensor], watch: Watch) -> None:
    """Train the weights of gates in place; ``loss`` is asked for each update."""
    weights = [gates.weights[name].requires_grad_() for name in WEIGHTS]
    optimiser = torch.optim.Adam(weights, lr=given.rate)
    for step in range(given.steps):
        optimiser.zero_grad()
        found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        watch(f"update {step + 1} of {given.steps}: loss {float(found.detach()):.3f}")
    for weight in weights:
        weight.requires_grad_(False)


# kvzap: a regression


def _kvzap(model: Any, texts: Tensor, held: Tensor, given: Training, watch: Watch) -> Trained:
    """Fit what kvzip says of an entry: mean squared error of the logarithm."""
    states, wanted = _collected(model, texts, watch)  # [L, N, D], [L, N, K]
    mean, scale = states.mean(1, keepdim=True), states.std(1, keepdim=True).clamp(min=1e-6)
    gates, rng = _start("kvzap", model, 0.0, given), torch.Generator().manual_seed(given.seed)
    gates.weights["b2"] = wanted.mean(1)

    def loss() -> Tensor:
        some = torch.randint(states.shape[1], (BATCH,), generator=rng)
        return functional.mse_loss(_all(gates, (states[:, some] - mean) / scale), wanted[:, some])

    _optimised(gates, given, loss, watch)
    w1 = gates.weights["w1"] / scale.transpose(1, 2)  # the gates see states as they are
    gates.weights.update(w1=w1, b1=gates.weights["b1"] - (mean @ w1)[:, 0])
    states, wanted = _collected(model, held, watch)
    apart = (_all(gates, states) - wanted).square().mean(1)
    explained = 1 - apart / wanted.var(1, correction=0).clamp(min=1e-12)
    return Trained(gates, {"variance explained": float(explained.mean()), "least of a head": float(explained.min())})


def _all(gates: Gates, states: Tensor) -> Tensor:
    """[L, N, K] of [L, N, D]: each layer's states through its gates."""
    w1, b1, w2, b2 = (gates.weights[name] for name in WEIGHTS)
    return functional.gelu(states @ w1 + b1[:, None]) @ w2 + b2[:, None]


def _collected(model: Any, texts: Tensor, watch: Watch) -> tuple[Tensor, Tensor]:
    """What the attention of each layer is given, [L, N, D], and the logarithm of kvzip's scores, [L, N, K]."""
    states, scores = [], []
    for place, text in enumerate(texts):
        watch(f"reads text {place + 1} of {len(texts)} twice")
        read = Prefill(model, text[None].to(next(model.parameters()).device))
        heard = read.heard(read.into(BudgetedCache(model, "100%", "kvzip")))
        given = [call.hidden for _, _, call, _ in read.read]
        if any(hidden is None for hidden in given):
            raise InvalidInput(_TAKES_NONE.format(type(model).__name__))
        states.append(torch.stack([hidden[0].float().cpu() for hidden in given if hidden is not None]))
        scores.append(torch.stack([memory[0, :, :, 0].T.cpu() for memory in heard]))
    return torch.cat(states, 1), torch.cat(scores, 1).clamp(min=LEAST).log()


# trim-kv: a distillation


def _trim(model: Any, texts: Tensor, held: Tensor, given: Training, watch: Watch) -> Trained:
    """Distil the model into itself with gated attention: KL and cross-entropy, and what is alive beyond the budget."""
    gates = _start("trim-kv", model, math.log(texts.shape[1]), given)  # a half-life of two thirds of a text
    device, rng = next(model.parameters()).device, torch.Generator().manual_seed(given.seed)
    before = _judged(model, gates, held)

    def loss() -> Tensor:
        ids = texts[int(torch.randint(len(texts), (1,), generator=rng))][None].to(device)
        apart, written, over, _ = _gated(model, gates, ids, given.keep)
        return apart + written + given.capacity * over

    _optimised(gates, given, loss, watch)
    after = _judged(model, gates, held)
    names = "KL to the model, nats a token", "share of a text that is alive"
    measured = {f"{name}, {when}": number for when, found in (("untrained", before), ("trained", after))
                for name, number in zip(names, found, strict=True)}  # fmt: skip
    return Trained(gates, measured)


def _judged(model: Any, gates: Gates, texts: Tensor) -> tuple[float, float]:
    """The mean divergence of gated attention, and the mean share of the earlier entries that is alive."""
    device = next(model.parameters()).device
    with torch.no_grad():
        found = [_gated(model, gates, text[None].to(device), 0) for text in texts]
    mean = torch.tensor([[float(apart), float(alive)] for apart, _, _, alive in found]).mean(0)
    return float(mean[0]), float(mean[1])


def _gated(model: Any, gates: Gates, ids: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a text [1, T]: KL(model || gated) and cross-entropy of the gated, nats a token; and of the retentions at each
    position: what is alive beyond ``keep`` entries a head, over T, and the mean share that is alive."""
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    with gated(model, gates) as retained:
        logits = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    apart = divergence(logits, plain)
    written = functional.nll_loss(logits[0, :-1], ids[0, 1:])
    alive, length = torch.stack(retained), ids.shape[1]  # [L, B, K, T]
    seen = torch.arange(1, length + 1, device=ids.device)
    return apart, written, (alive - keep).clamp(min=0).mean() / length, (alive / seen).mean()


@contextmanager
def gated(model: Any, gates: Gates) -> Iterator[list[Tensor]]:
    """Attention in which every entry fades: calls of a model without a cache go through :func:`retention`.

    Args:
        model: whose attention is led through :mod:`budgeteer.cache.attend`.
        gates: that say how fast.

    Yields:
        For each layer of a call [B, K, T], the sum of the retentions of the entries at each position.
    """
    alive: list[Tensor] = []

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float,
        softcap: float | None, hidden: Tensor | None,
    ) -> Tensor:  # fmt: skip
        if hidden is None:
            raise InvalidInput(_TAKES_NONE.format(type(module).__name__))
        said = functional.logsigmoid(gates(module.layer_idx, hidden.float()))
        out, sums = retention(query, key, value, said, mask, scaling, softcap)
        alive.append(sums)
        return out

    updated.gated, listening = attention, listen(model)
    try:
        yield alive
    finally:
        updated.gated = None
        del listening


def retention(
    query: Tensor, key: Tensor, value: Tensor, said: Tensor, mask: Tensor | None, scaling: float,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Retention-gated attention: o_t = sum over i <= t of softmax over i of (b_i^(t - i) f(c q_t.k_i)) v_i.

    f is the model's own cap of its logits, f(x) = s tanh(x / s), or nothing. What fades is the capped logit, so that
    b = 1 is the model's attention.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d].
        said: [B, K, T], log b_i <= 0.
        mask: of the model, of bool or added to the logits; None = every earlier entry is read.
        scaling: c.
        softcap: s, or None.

    Returns:
        [B, T, H, d], and [B, K, T]: for each t the sum over i <= t of b_i^(t - i).
    """
    length, kv_heads = query.shape[2], key.shape[1]
    ages = torch.arange(length, device=query.device)[:, None] - torch.arange(length, device=query.device)
    kept = torch.exp(ages.clamp(min=0) * said[:, :, None].float()).masked_fill(ages < 0, 0.0)  # [B, K, T, T]
    logits = of_groups(query, kv_heads).float() @ key.float().transpose(-1, -2)[:, :, None] * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits * kept[:, :, None]
    seen = (ages >= 0) if mask is None else readable(mask)[:, :, None, :, :length]
    read = torch.softmax(logits.masked_fill(~seen, float("-inf")), dim=-1).to(value.dtype)
    out = (read @ value[:, :, None]).flatten(1, 2)  # [B, H, T, d]
    return out.transpose(1, 2).contiguous(), kept.sum(-1)
