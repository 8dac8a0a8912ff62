"""Training of the projections of a cache (``matryoshka``) on a frozen model, and the search of its heads' ranks."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from budgeteer.cache.attend import attach
from budgeteer.cache.budgeted_cache import windows_of
from budgeteer.cache.gates import fingerprint
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.projections import Projections, evenly
from budgeteer.core.errors import InvalidInput
from budgeteer.core.files import replaced
from budgeteer.lab.cache_gates import Watch, divergence, parted
from budgeteer.lab.cache_ranks import Searched, lost, projected, search

STEPS = 8
"""A head loses an eighth of its numbers at a time."""
SAVED = 10
"""Updates behind which the training is kept."""
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


class Progress:
    """What a training has done, in a file beside its result, so that one that was stopped goes on.

    Attributes:
        path: of the file; None = nothing is kept.
        state: what was kept last, name -> tensors, numbers and containers of them.
    """

    def __init__(self, path: Path | None = None, of: str = "") -> None:
        """Read the file, if there is one.

        Args:
            path: of the file.
            of: what is trained, on what and how; another training does not go on with it.

        Raises:
            InvalidInput: the file is of another training, or is none.
        """
        self.path, self.of, self.state = path, of, dict[str, Any]()
        if path is None or not path.exists():
            return
        try:
            found = torch.load(path, weights_only=True)
            other = found.pop("of") != of
        except Exception as error:  # torch and pickle raise whatever their parts raise, with advice that is not ours
            raise InvalidInput(
                f"{path} holds no state of a training that can be read; delete it to begin anew"
            ) from error
        if other:
            raise InvalidInput(
                f"{path} is of a training with other texts, model or settings that was stopped; give those to go on "
                "with it, or delete it to begin anew"
            )
        self.state = found

    def keep(self, **state: Any) -> None:
        """Write what is to be gone on with, in place of what was."""
        self.state = state
        if self.path is not None:
            with replaced(self.path) as part:
                torch.save({**state, "of": self.of}, part)

    def done(self) -> None:
        """Delete the file, once the result is written."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def train_projections(
    model: Any,
    texts: Tensor,
    given: Fitting,
    watch: Watch = lambda how_far: None,
    progress: Progress | None = None,
) -> Fitted:
    """Train orthogonal projections of keys and values with random ranks, and search ranks; the model does not change.

    Args:
        model: a decoder of transformers without sliding layers.
        texts: [n, length] token ids, n >= 5; each fifth is held out.
        given: how.
        watch: is told how far the work is.
        progress: goes on with what it has, and is told what is done.

    Raises:
        InvalidInput: too few texts, a model with sliding layers, or heads of a width that no eighths make.
    """
    progress = progress or Progress()
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
    state = progress.state
    if "cuts" not in state:
        trained = _trained(model, train, components, given, watch, progress)
        begun = Searched([], [-math.inf] * trained.units)
    else:
        trained = replace(components, basis=state["basis"], mean=state["mean"])
        begun = Searched(state["cuts"], state["rises"])
    cuts = search(
        model, trained, train[: given.calibration], given.together, watch, begun=begun,
        keep=lambda far: progress.keep(basis=trained.basis, mean=trained.mean, cuts=far.cuts, rises=far.rises),
    )  # fmt: skip
    searched = replace(trained, cuts=cuts)
    watch("judges what was trained on held-out texts")
    measured = {}
    for share in SHARES:
        for name, each in (("components", components), ("trained", searched)):
            measured[f"KL to the model at {share:.1%} of the numbers, {name}"] = lost(model, each, held_out, share)
    return Fitted(searched, components, measured)


def described(model: Any, texts: Tensor, given: Fitting) -> str:
    """A training in a word: its model, texts and settings."""
    digest = hashlib.sha256(texts.cpu().numpy().tobytes()).hexdigest()[:16]
    return f"{fingerprint(model)} {digest} {tuple(given)}"


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


def _trained(
    model: Any, texts: Tensor, start: Projections, given: Fitting, watch: Watch, progress: Progress
) -> Projections:
    """Train matrices from where they are, each step with ranks at random for each head, keys and values apart."""
    if not given.steps:
        return start
    rng, device = torch.Generator().manual_seed(given.seed), texts.device
    basis, mean = start.basis.to(device), start.mean.to(device).clone().requires_grad_()
    free = torch.zeros_like(basis, requires_grad=True)
    optimiser = torch.optim.Adam([free, mean], lr=given.rate)
    if begun := progress.state:
        with torch.no_grad():
            free.copy_(begun["free"])
            mean.copy_(begun["mean"])
        optimiser.load_state_dict(begun["optimiser"])
        rng.set_state(begun["rng"])
    for step in range(begun.get("steps", 0), given.steps):
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
        if (step + 1) % SAVED == 0:
            progress.keep(
                steps=step + 1, free=free.detach(), mean=mean.detach(), rng=rng.get_state(),
                optimiser=optimiser.state_dict(),
            )  # fmt: skip
    with torch.no_grad():
        return replace(start, basis=(basis @ cayley(free)).cpu(), mean=mean.detach().cpu())
