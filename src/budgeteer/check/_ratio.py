"""The rules of ratios; needs torch."""

from __future__ import annotations

from budgeteer.check._common import CheckFailed
from budgeteer.core.errors import MissingExtra
from budgeteer.rl.ratio.protocol import Ratio, Tokens

ROWS, LENGTH = 6, 5


def check_ratio(ratio: Ratio, *, seed: int = 0) -> None:
    """Evaluate a surrogate on made-up tokens, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the surrogate is one finite number per token; if the policy is the one that sampled, surrogate and gradient
    of a token are its advantage; the order of the rows does not matter; tokens that were not sampled change no other
    token; the arguments are not changed.

    Args:
        ratio: the ratio to check.
        seed: of the tokens.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "rl") from error
    make = torch.Generator().manual_seed(seed)
    m = ROWS * LENGTH
    old = -torch.rand(m, generator=make)
    logprob = old + 0.05 * torch.randn(m, generator=make)
    row = torch.arange(ROWS).repeat_interleave(LENGTH)
    advantage = torch.randn(ROWS, generator=make)[row]
    sampled = torch.ones(m, dtype=torch.bool)

    unmoved = old.clone().requires_grad_()
    start = ratio(Tokens(unmoved, old, advantage, row, sampled))
    if start.shape != (m,) or not bool(torch.isfinite(start).all()):
        raise CheckFailed(f"the ratio gave {tuple(start.shape)} numbers for {m} tokens; one finite number a token")
    (gradient,) = torch.autograd.grad(start.sum(), unmoved)
    if not torch.allclose(start, advantage, atol=1e-5) or not torch.allclose(gradient, advantage, atol=1e-5):
        raise CheckFailed("where the policy has not moved, surrogate and gradient are not the advantage")
    given = logprob.clone(), old.clone(), advantage.clone()
    surrogate = ratio(Tokens(logprob, old, advantage, row, sampled))
    if not bool(torch.isfinite(surrogate).all()):
        raise CheckFailed("the ratio is not finite; one finite number a token")
    order = (ROWS - 1 - row).argsort(stable=True)
    turned = ratio(Tokens(logprob[order], old[order], advantage[order], (ROWS - 1 - row)[order], sampled))
    if not torch.allclose(turned, surrogate[order], atol=1e-6):
        raise CheckFailed("the ratio changes with the order of the rows; use Tokens.row")
    free = torch.arange(m) % LENGTH < LENGTH - 1
    without = ratio(Tokens(logprob[free], old[free], advantage[free], row[free], sampled[free]))
    filled = ratio(Tokens(logprob, torch.where(free, old, logprob), advantage, row, free))
    if not torch.allclose(filled[free], without, atol=1e-6):
        raise CheckFailed("tokens that nobody sampled change the ratio of others; leave them out by Tokens.sampled")
    if not all(torch.equal(a, b) for a, b in zip(given, (logprob, old, advantage), strict=True)):
        raise CheckFailed("the method changed the tokens it was given; copy before writing")
