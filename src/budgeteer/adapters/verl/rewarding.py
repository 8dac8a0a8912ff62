"""The rewards of this package as what verl's estimators of advantages are made of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.adapters.verl.rows import KEYS, MANAGER, READERS
from budgeteer.core import registry
from budgeteer.core.column import MOST, column, with_sources
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, ENDED
from budgeteer.rl.reward.protocol import ALWAYS, Columns, Reward

NAME, CAP = "budgeteer_reward", "budgeteer_max_tokens"
"""Keys under ``algorithm``: the reward, and the cap of a response."""


def rewarded(token_level_rewards: Tensor, response_mask: Tensor, index: Any, config: Mapping[str, Any]) -> Tensor:
    """The token-level rewards of the reward that ``algorithm.budgeteer_reward`` names, on the last token of each row.

    What verl gives counts as the verifier's score, its tokens together. Rows without a token in the mask have none.

    Args:
        token_level_rewards: [n, t] of verl.
        response_mask: [n, t] tokens that the policy sampled.
        index: [n] prompts.
        config: verl's ``algorithm``.

    Raises:
        InvalidInput: no cap, or one that a row is longer than, a KL penalty within the rewards, scores outside [0, 1],
            or a reward that reads what nobody gives here.
        UnknownName: no such reward.
    """
    name, cap = str(config[NAME]), config.get(CAP)
    reader = READERS[-1] if READERS else None
    method, sources = _reward(name, reader is not None)
    if cap is None:
        raise InvalidInput(f"{NAME}={name} needs the cap; add +algorithm.{CAP}='${{data.max_response_length}}'")
    if config.get("use_kl_in_reward", False):
        raise InvalidInput(
            f"algorithm.use_kl_in_reward=true with {NAME}={name}: the penalty would count as the verifier's score; "
            "use actor_rollout_ref.actor.use_kl_loss"
        )
    length = response_mask.detach().sum(dim=-1).long().cpu().numpy()
    correct = token_level_rewards.detach().sum(dim=-1).double().cpu().numpy()
    most = _cap(name, cap)
    if length.size and length.max() > most:
        raise InvalidInput(
            f"{CAP}={most} with {NAME}={name}, and a row has {length.max()} tokens; give the cap of a response, "
            "'${data.max_response_length}'"
        )
    rows = np.flatnonzero(length > 0)
    if not np.all((correct[rows] >= 0) & (correct[rows] <= 1)):  # NaN is none of these, either
        raise InvalidInput(
            f"{NAME}={name} reads scores from 0 (wrong) to 1 (right), and verl gave {correct[rows].min():g} to "
            f"{correct[rows].max():g}; let the reward function return 0 to 1"
        )
    _, group = np.unique([str(index[i]) for i in rows.tolist()], return_inverse=True)
    caps, more = np.full(len(rows), most), {}
    if sources and reader is not None:
        if len(KEYS) != len(length):
            raise InvalidInput(f"the reward {name} reads {', '.join(sources)} of rows whose keys verl did not tell")
        more = reader.columns(name, sources, [KEYS[i] for i in rows.tolist()])
    status = np.where(length[rows] >= caps, CUT, ENDED)
    columns = Columns(correct[rows], length[rows], group.reshape(-1), caps, status).completed(method.needs, more)
    state = method.init() if reader is None else reader.state(name, method)
    value = method.score(state, columns)
    if reader is not None:
        reader.states[name] = method.observe(state, columns)
    made = torch.zeros_like(token_level_rewards)
    last = response_mask.shape[-1] - 1 - response_mask.flip(-1).bool().int().argmax(dim=-1)
    at = torch.from_numpy(rows).to(made.device)
    made[at, last[at]] = torch.from_numpy(value).to(made.device, made.dtype)
    return made


def _cap(name: str, given: Any) -> int:
    """The cap of a response, which Hydra gives as a number or as the text of one."""
    try:
        cap = int(given)
    except (TypeError, ValueError, OverflowError):
        cap = 0
    if not 1 <= cap <= MOST:
        raise InvalidInput(
            f"{CAP}={given!r} with {NAME}={name}; give tokens, 1 or more: '${{data.max_response_length}}'"
        )
    return cap


def stateful(config: Mapping[str, Any]) -> str:
    """The name of the reward in verl's ``algorithm`` if it has a state, else ``""``."""
    name = str(config.get(NAME) or "")
    return name if name and not _empty(_reward(name, True)[0].init()) else ""


@cache
def _reward(name: str, managed: bool) -> tuple[Reward, tuple[str, ...]]:
    """The reward of that name, and which columns it reads, or computes what it reads from, beside those always there.

    Args:
        name: of the reward.
        managed: an agent loop manager of ours is there, which can read rows and keep a state.
    """
    made: Reward = registry.part_of("reward", name)
    if made.monitor is not None:
        raise InvalidInput(f"the reward {name} has rollouts of its own, which verl does not sample; leave monitor out")
    sources = tuple(each.name for each in with_sources(made.needs, ()) if each.name not in ALWAYS)
    unknown = [source for source in sources if column(source, "rollouts").make is None]
    for what, there in ((f"reads {', '.join(unknown)}", unknown), ("has a state", not _empty(made.init()))):
        if there and not managed:
            raise InvalidInput(
                f"the reward {name} {what}, which verl tells and keeps for no estimator; set "
                f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={MANAGER}, or choose one that reads lengths "
                "and scores, such as kimi, o1-pruner, alp, shorter-better, cosine, overlong"
            )
    return made, sources


def _empty(state: Any) -> bool:
    """Whether a state holds nothing: ``()``, or in a sum one such for each part."""
    return isinstance(state, tuple) and all(map(_empty, state))
