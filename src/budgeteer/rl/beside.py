"""Losses beside that of the rollouts, on the prompts of a step as they are without any instruction.

A term reads some tokens behind the step's prompts, or in them, and its mean loss times its weight is added to the loss
of the rollouts: the next-token loss of Reinforcement Mid-Training (arXiv 2509.24375), and the loss on the first token
by which Adaptive Deep Reasoning (arXiv 2505.20101) learns to choose between long and short thinking by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64
from budgeteer.rl.reward._adaptive_deep import needed
from budgeteer.rl.reward.counted import DELIBERATE

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.rl.rollouts import Rollouts

__all__ = ["ANY", "Beside", "Reading", "log_odds", "next_token", "switching"]

ANY = -1
"""In the place of a token: any but the other one."""
Prompts = Mapping[str, tuple[int, ...]]
"""Key -> token ids of a prompt, as it is without an instruction."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens whose probability counts in a term: k rows.

    Attributes:
        prompts: k tuples of token ids, one or more each, that are read before them.
        tokens: [k, t], right-padded; at places where :attr:`other` is given it may be :data:`ANY`.
        length: [k] how many of each row, 1 or more.
        other: [k, t] tokens that each is held against, :data:`ANY` among them; None = against nothing.
    """

    prompts: tuple[tuple[int, ...], ...]
    tokens: I64
    length: I64
    other: I64 | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: I64) -> Reading:
        """Some of the rows."""
        return Reading(
            tuple(self.prompts[i] for i in rows.tolist()),
            self.tokens[rows],
            self.length[rows],
            None if self.other is None else self.other[rows],
        )


class Beside(NamedTuple):
    """A term beside the loss of the rollouts.

    Attributes:
        name: in logs.
        weight: of the mean loss of its tokens, 0 or more.
        read: ``(rollouts, prompts, written) -> reading`` once a step, of its verified rollouts, the prompts by key, and
            the token ids of :attr:`texts`.
        loss: ``[m] -> [m]``, of each token's log-probability, or of how far it is above that of the other one.
        texts: within answers, that the trainer's tokenizer has to write.
        needs: columns of the rollouts that ``read`` looks at.
    """

    name: str
    weight: float
    read: Callable[[Rollouts, Prompts, Sequence[Sequence[int]]], Reading]
    loss: Callable[[Tensor], Tensor]
    texts: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def next_token(weight: float = 0.1) -> Beside:
    """The next-token loss on the texts of the step's prompts, each once: ``weight * mean(-log p(token))``.

    RMT has it with weight 0.1 on the tokens of its corpus that no rollout predicts; without it the accuracy of its next
    tokens falls from 46.9 to 33.8 %. Here the text is that of the problems; their answers, which are learnt by
    reinforcement, are not in it. A prompt's first token has nothing before it and does not count.

    Helps to keep a model at its texts while it is trained on few rollouts. When not: prompts that are mostly template.

    Args:
        weight: 0 or more.

    Raises:
        InvalidInput: another weight.
    """
    _refuse(weight)

    def read(rollouts: Rollouts, prompts: Prompts, written: Sequence[Sequence[int]]) -> Reading:
        own = [prompts[key] for key in rollouts.keys if len(prompts[key]) > 1]
        length = np.array([len(prompt) - 1 for prompt in own], np.int64)
        tokens = np.zeros((len(own), int(length.max(initial=0))), np.int64)
        for i, prompt in enumerate(own):
            tokens[i, : length[i]] = prompt[1:]
        return Reading(tuple(prompt[:1] for prompt in own), tokens, length)

    return Beside("next token", weight, read, lambda logprob: -logprob)


def switching(
    long: str = "", short: str = "</think>", weight: float = 0.1, distance: float = 0.0, margin: float = 0.0
) -> Beside:
    """A loss on the token at which long and short thinking part: ``weight * mean(-log sigmoid(z - z' - distance))``.

    z and z' are the logits of the wanted and of the other kind's token, behind the prompt without an instruction and
    what the beginnings of both kinds have in common. The wanted kind is the one that the reward ``adaptive-deep`` pays:
    short, if its right rows are as many as those of the long ones less ``margin``. Prompts that neither kind solves, or
    of which the step has one kind only, say nothing.

    Rollouts are instructed to be of a kind (``variant=both-kinds``) and the model is asked without: the loss carries
    over what they showed. The paper names such a loss; its form could not be seen, and this one is a reading.

    Args:
        long, short: how an answer of each kind begins; one of them may be "", for any other token than that of the
            other kind. In a chat with ``<think>`` tags ``long="<think>\\n"`` and ``short="<think>\\n\\n</think>"``.
        weight: 0 or more; this project's choice.
        distance: that the logits should have, 0 or more.
        margin: as in the reward.

    Raises:
        InvalidInput: a value outside these, or two equal texts.
    """
    _refuse(weight)
    if long == short or not (0 <= distance < math.inf and 0 <= margin <= 1):
        raise InvalidInput(
            f"switching(long={long!r}, short={short!r}, distance={distance}, margin={margin}); give two different "
            "texts, a finite distance of 0 or more, and a margin from 0 to 1"
        )

    def read(rollouts: Rollouts, prompts: Prompts, written: Sequence[Sequence[int]]) -> Reading:
        head, of_long, of_short = parting(*written)
        kind = np.asarray(rollouts.more[DELIBERATE]) > 0
        want = needed(rollouts.verified, kind, rollouts.group, margin)
        found: list[tuple[tuple[int, ...], int, int]] = []
        for g, key in enumerate(rollouts.keys):
            own = rollouts.group == g
            if own.any() and want[own][0] >= 0 and 0 < kind[own].sum() < own.sum():
                pair = (of_long, of_short) if want[own][0] else (of_short, of_long)
                found.append(((*prompts[key], *head), *pair))
        tokens, other = (np.array([row[i] for row in found], np.int64).reshape(-1, 1) for i in (1, 2))
        return Reading(tuple(row[0] for row in found), tokens, np.ones(len(found), np.int64), other)

    def loss(gap: Tensor) -> Tensor:
        from torch.nn.functional import softplus

        return softplus(distance - gap)

    return Beside("switching", weight, read, loss, (long, short), (DELIBERATE,))


def parting(long: Sequence[int], short: Sequence[int]) -> tuple[tuple[int, ...], int, int]:
    """What two beginnings have in common, and the token of each that is not.

    Raises:
        InvalidInput: one is the beginning of the other, so that no token tells them apart, unless it is empty.

    >>> parting([7, 8, 9], [7, 5]), parting([], [4, 5])
    (((7,), 8, 5), ((), -1, 4))
    """
    common = 0
    while common < min(len(long), len(short)) and long[common] == short[common]:
        common += 1
    if common and common == min(len(long), len(short)):
        raise InvalidInput(
            f"the beginnings of long and short answers are the tokens {[*long]} and {[*short]}, one of which begins "
            "with the other, so that none tells them apart; give texts that differ at a token, or leave one empty"
        )
    of_long, of_short = (ids[common] if common < len(ids) else ANY for ids in (long, short))
    return tuple(int(token) for token in short[:common]), int(of_long), int(of_short)


def log_odds(logp: Tensor, token: Tensor, other: Tensor | None) -> Tensor:
    """[m] log-probability of tokens, less that of others where there are any.

    Args:
        logp: [m, v] log-probabilities of all tokens.
        token, other: [m] ids; :data:`ANY` stands for all tokens but the one it is held against.

    >>> import torch
    >>> half = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    >>> [round(log_odds(half, torch.tensor([1]), o).exp().item(), 3) for o in (None, torch.tensor([0]))]
    [0.25, 0.5]
    >>> round(log_odds(half, torch.tensor([-1]), torch.tensor([1])).exp().item(), 3)
    3.0
    """
    import torch

    if other is None:
        return logp.gather(-1, token[:, None])[:, 0]

    def of(wanted: Tensor, against: Tensor) -> Tensor:
        own = logp.gather(-1, wanted.clamp(min=0)[:, None])[:, 0]
        # log(1 - p), which a probability of 1 in single precision must not make infinite
        rest = torch.log1p(-logp.gather(-1, against.clamp(min=0)[:, None])[:, 0].exp().clamp(max=1 - 1e-6))
        return torch.where(wanted == ANY, rest, own)

    return of(token, other) - of(other, token)


def _refuse(weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise InvalidInput(
            f"the weight of a loss beside that of the rollouts is {weight}; give a finite one, 0 or more"
        )
