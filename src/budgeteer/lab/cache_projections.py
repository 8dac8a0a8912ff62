"""Training of the projections of a cache (``matryoshka``) on a frozen model, and the search of its heads' ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from budgeteer.cache.attend import attach, updated
from budgeteer.cache.budgeted_cache import windows_of
from budgeteer.cache.gates import fingerprint
from budgeteer.cache.layer import readable
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.projections import Projections, evenly
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.cache_gates import Watch, divergence, parted

STEPS = 8
"""A head loses an eighth of its numbers at a time."""
TEACHER = 0.25
"""Weight of the divergence from the model; the rest is that of the text's own tokens."""
SHARES = (0.5, 0.375, 0.25)
"""Of the numbers of an entry, at which the result is measured."""


class Fitting(NamedTuple):
    """How projections are trained.

    Attributes:
        steps: updates; 0 = principal components only.
        rate: of Adam.
        batch: texts of an update.
        calibration: texts that the ranks are searched on.
        together: heads that are cut at a time in the search, as a share of all.
        seed: of everything random.
    """

    steps: int = 300
    rate: float = 3e-3
    batch: int = 4
    calibration: int = 4
    together: float = 0.125
    seed: int = 0


class Fitted(NamedTuple):
    """Projections, and what was measured on held-out texts.

    Attributes:
        projections: they, with searched cuts.
        components: principal components of the same texts, with even cuts: what they started from.
        measured: what -> number.
    """

    projections: Projections
    components: Projections
    measured: dict[str, float]


def train_projections(model: Any, texts: Tensor, given: Fitting, watch: Watch = lambda how_far: None) -> Fitted:
    """Train orthogonal projections of keys and values with random ranks, and search ranks; the model does not change.

    Args:
        model: a decoder of transformers without sliding layers.
        texts: [n, length] token ids, n >= 5; each fifth is held out.
        given: how.
        watch: is told how far the work is.

    Raises:
        InvalidInput: too few texts, a model with sliding layers, or heads of a width that no eighths make.
    """
    train, held_out = parted(texts)
    windows = windows_of(model)
    if any(window is not None for window in windows):
        raise InvalidInput(
            f"{type(model).__name__} has layers with a sliding window, whose entries are not projected; choose another "
            "method, such as quantise"
        )
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        raise InvalidInput(f"{type(model).__name__} caps its logits, for which projections are not trained")
    attach(model, len(windows))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    device = next(model.parameters()).device
    train, held_out = train.to(device), held_out.to(device)
    components = principal(model, train)
    trained = _trained(model, train, components, given, watch)
    searched = replace(trained, cuts=search(model, trained, train[: given.calibration], given.together, watch))
    watch("judges what was trained on held-out texts")
    measured = {}
    for share in SHARES:
        for name, each in (("components", components), ("trained", searched)):
            measured[f"KL to the model at {share:.1%} of the numbers, {name}"] = lost(model, each, held_out, share)
    return Fitted(searched, components, measured)


def principal(model: Any, texts: Tensor) -> Projections:
    """Means and principal components of the keys and values of each head, by variance, with even cuts."""
    sums: Tensor | None = None
    squares, count = torch.zeros(()), 0
    for text in texts:
        read = Prefill(model, text[None]).read
        columns = [keys for keys, _, _, _ in read], [values for _, values, _, _ in read]
        pairs = [torch.stack([column[0].double().cpu() for column in each]) for each in columns]
        if pairs[0].shape != pairs[1].shape or pairs[0].shape[-1] % STEPS:
            raise InvalidInput(
                f"{type(model).__name__}: keys are {pairs[0].shape[-1]} wide, values {pairs[1].shape[-1]}; projections "
                f"need heads of one width, in {STEPS} parts"
            )
        both = torch.stack(pairs)  # [2, L, K, n, d]
        sums = both.sum(-2) if sums is None else sums + both.sum(-2)
        squares = squares + both.transpose(-1, -2) @ both
        count += both.shape[-2]
    assert sums is not None
    mean = sums / count
    found = torch.linalg.eigh(squares / count - mean[..., :, None] * mean[..., None, :])
    basis = found.eigenvectors.flip(-1)
    cuts = evenly(mean[..., 0].numel(), STEPS)
    return Projections(basis.float().contiguous(), mean.float(), cuts, STEPS, fingerprint(model))


def cayley(free: Tensor) -> Tensor:
    """Orthogonal matrices (I - A / 2)^-1 (I + A / 2) with A = X - X^T, of any X [..., d, d]; X = 0 gives I."""
    skew = (free - free.transpose(-1, -2)) / 2
    one = torch.eye(free.shape[-1], dtype=free.dtype, device=free.device)
    found: Tensor = torch.linalg.solve(one - skew, one + skew)
    return found


def _trained(model: Any, texts: Tensor, start: Projections, given: Fitting, watch: Watch) -> Projections:
    """Train matrices from where they are, each step with ranks at random for each head, keys and values apart."""
    if not given.steps:
        return start
    rng, device = torch.Generator().manual_seed(given.seed), texts.device
    basis, mean = start.basis.to(device), start.mean.to(device).clone().requires_grad_()
    free = torch.zeros_like(basis, requires_grad=True)
    optimiser = torch.optim.Adam([free, mean], lr=given.rate)
    for step in range(given.steps):
        watch(f"update {step + 1} of {given.steps}")
        ids = texts[torch.randint(len(texts), (given.batch,), generator=rng).to(device)]
        steps = torch.randint(1, STEPS + 1, start.basis.shape[:3], generator=rng)
        ranks = (steps * (basis.shape[-1] // STEPS)).to(device)
        with torch.no_grad():
            wanted = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
        with projected(basis @ cayley(free), mean, ranks):
            said = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
        apart = divergence(said, wanted)
        written = functional.nll_loss(said[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss = TEACHER * apart + (1 - TEACHER) * written
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([free, mean], 1.0)
        optimiser.step()
    with torch.no_grad():
        return replace(start, basis=(basis @ cayley(free)).cpu(), mean=mean.detach().cpu())


def search(
    model: Any, given: Projections, texts: Tensor, together: float, watch: Watch = lambda how_far: None
) -> Tensor:
    """Cuts that raise the divergence from the model least, one step of a head's rank at a time.

    Each round measures, for each head whose rank can fall, the divergence with this one cut more, and takes the best
    ``together`` of all heads at once; so until every head is down to its last step. Greedy: what heads lose together is
    not looked at within a round.

    Returns:
        [n] int64 as :attr:`Projections.cuts` has them.
    """
    width = given.basis.shape[-1] // given.steps
    left, found = torch.full((given.units,), given.steps), list[int]()
    with torch.no_grad():
        wanted = model(input_ids=texts, use_cache=False).logits.float().log_softmax(-1)
        cuts = given.units * (given.steps - 1)
        while bool((left > 1).any()):
            worth, units = {}, torch.nonzero(left > 1)[:, 0].tolist()
            for place, unit in enumerate(units):
                watch(f"searches ranks: {len(found)} of {cuts} cuts, tries {place + 1} of {len(units)}")
                left[unit] -= 1
                ranks = (left * width).reshape(given.basis.shape[:3])
                worth[unit] = _apart(model, given, texts, wanted, ranks)
                left[unit] += 1
            best = sorted(worth, key=lambda unit: worth[unit])[: max(int(together * given.units), 1)]
            left[best] -= 1
            found += best
    return torch.tensor(found)


def lost(model: Any, given: Projections, texts: Tensor, share: float) -> float:
    """KL(model || the model with projected keys and values), nats a token, at a share of the numbers."""
    with torch.no_grad():
        wanted = model(input_ids=texts, use_cache=False).logits.float().log_softmax(-1)
        return _apart(model, given, texts, wanted, given.ranks(share))


def _apart(model: Any, given: Projections, texts: Tensor, wanted: Tensor, ranks: Tensor) -> float:
    device = texts.device
    with projected(given.basis.to(device), given.mean.to(device), ranks.to(device)):
        said = model(input_ids=texts, use_cache=False).logits.float().log_softmax(-1)
    return float(divergence(said, wanted))


@contextmanager
def projected(basis: Tensor, mean: Tensor, ranks: Tensor) -> Iterator[None]:
    """Attention over projected keys and values, in calls of a model without a cache; logits are not capped.

    Args:
        basis: [2, L, K, d, d].
        mean: [2, L, K, d].
        ranks: [2, L, K].
    """
    places = torch.arange(basis.shape[-1], device=basis.device)

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, *others: Any
    ) -> Tensor:
        layer, group = module.layer_idx, query.shape[1] // key.shape[1]
        read = []
        for kind, numbers in enumerate((key, value)):
            m, u = mean[kind, layer][:, None], basis[kind, layer]
            kept = places < ranks[kind, layer][:, None]  # [K, d]
            inside = ((numbers.float() - m) @ u) * kept[:, None]
            read.append((m + inside @ u.transpose(-1, -2)).to(numbers.dtype).repeat_interleave(group, dim=1))
        seen = None if mask is None else readable(mask)[..., : key.shape[2]]
        out = functional.scaled_dot_product_attention(
            query, read[0], read[1], attn_mask=seen, is_causal=mask is None, scale=scaling
        )
        return out.transpose(1, 2).contiguous()

    updated.gated = attention
    try:
        yield
    finally:
        updated.gated = None
