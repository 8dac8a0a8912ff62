"""Batched decoding for ragged groups: a stopped token is a token not computed.

Rows that end leave the batch; waiting rows take their slots. Each row draws from its own stream of random numbers, so
its tokens do not depend on which other rows are in the batch: stopping one row never changes another, and an aborted
rollout is a prefix of what it would have been.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, F64, I64
from budgeteer.core.steer import Internals, Need, Rows, State, Steer, require_offered
from budgeteer.engine.decoder import compiles, streams
from budgeteer.engine.llama import Llama
from budgeteer.engine.loop import Batch
from budgeteer.engine.table import Table, marks_of_tokens
from budgeteer.models.policy import Markers
from budgeteer.rl.rollouts import Role, Rollouts

OFFERED = frozenset({Need.TOKENS, Need.MARKERS, Need.MARGIN, Need.LOGITS, Need.HIDDEN})
"""What a steer may need in training. There is no tokenizer here, and a token whose successor was drawn after another
input than its embedding has no probability to learn from."""


@torch.inference_mode()
def sample(
    model: Llama,
    keys: Sequence[str],
    prompts: Sequence[Sequence[int]],
    units: I64,
    *,
    max_tokens: int | I64,
    markers: Markers,
    seed: int,
    temperature: float = 1.0,
    steer: Steer | None = None,
    budget: int | None = None,
    slots: int = 256,
    compiled: bool | None = None,
) -> tuple[Rollouts, State]:
    """Sample ``units[i]`` rollouts of prompt i.

    Args:
        model: policy; its device decides where the work is done.
        keys: g distinct prompt keys.
        prompts: g non-empty prompts as token ids.
        units: [g] rollouts of each prompt, >= 0.
        max_tokens: cap of sampled tokens a row, one for all or [g].
        markers: ids of the structural tokens.
        seed: row r draws from the stream (seed, r), whatever else is in the batch.
        temperature: > 0; log-probabilities are of the distribution that a token was drawn from.
        steer: ends, forces or bends rows while they run; None = they end by themselves or at the cap.
        budget: no more than this many tokens are sampled in all; rows still running then are CUT, and rows that
            had not started are not part of the result.
        slots: rows decoded at once.
        compiled: use the compiled kernels; None = when they are there and the model is float32 on the CPU.

    Returns:
        The rollouts, unscored, and the steer's final state (``()`` without one).

    Raises:
        InvalidInput: shapes that do not fit, an empty prompt, a sequence longer than the model's positions, or a steer
            that needs what training does not offer.
    """
    groups = _groups(model, keys, prompts, units, max_tokens, temperature)
    if steer is not None:
        require_offered(steer, OFFERED, "training")
    compiled = compiles(model) if compiled is None else compiled
    group = np.repeat(np.arange(len(keys)), units)
    cap = np.broadcast_to(np.asarray(max_tokens, np.int64), (len(keys),))[group]
    n, longest = len(group), int(cap.max(initial=1))
    vocab, positions = model.config.vocab_size, model.config.max_position_embeddings

    table = Table(n, longest, [marks_of_tokens(vocab, markers.eos, markers.think_end, markers.answer_end)])
    every = np.arange(n)
    table.reset(every, cap, temperature)
    table.uniform = streams(seed, n, positions, longest)
    inside = Internals(model.embed.detach(), (), markers.eos, _no_text)
    slots = max(1, min(slots, n))
    # room for the longest row, and some more so that a shift of the cache is rare
    batch = Batch(model, slots, longest + 64, table, inside, compiled=compiled)
    ticket = None
    if steer is not None:
        ticket = batch.steering.join(steer, Rows(tuple(keys[g] for g in group.tolist()), cap, seed), group)
        batch.steering.start(ticket, 0, every)

    prompt_length, local = np.array([len(p) for p in prompts], np.int64), np.zeros(len(keys), np.int64)
    local[groups] = np.arange(len(groups))
    waiting = spent = 0
    if n:
        logits, states = batch.decoder.prefill([prompts[g] for g in groups.tolist()])
    while True:
        count = int(np.count_nonzero(batch.live))
        room = n - waiting if budget is None else min(n - waiting, budget - spent - count)
        free = slots - count
        if room > 0 and (free * 8 >= slots or room <= free):
            batch.close_up(always=True)
            new = np.arange(waiting, waiting + min(free, room))
            waiting += len(new)
            prompt = local[group[new]]
            where = torch.from_numpy(prompt).to(logits.device)
            turn = batch.admit(new, prompt_length[group[new]], prompt, logits[where], states[where])
        elif count == 0:
            break
        elif budget is not None and spent + count > budget:
            table.status[batch.record[batch.live.nonzero()[0]]] = CUT
            break
        else:
            turn = batch.step()
        spent += len(turn.taken)
        for error, _ in batch.steering.failures:
            raise error
    state = ticket.group.state if ticket else ()
    weight = steer.kept_weight(state) if steer and steer.kept_weight else np.ones(n)
    prefilled = sum(len(prompts[g]) for g in groups.tolist())
    return _rollouts(table, keys, prompts, group[:waiting], weight[:waiting], prefilled), state


def _groups(
    model: Llama,
    keys: Sequence[str],
    prompts: Sequence[Sequence[int]],
    units: I64,
    max_tokens: int | I64,
    temperature: float,
) -> I64:
    """Indices of the prompts that have units.

    Raises:
        InvalidInput: as :func:`sample`.
    """
    if len(prompts) != len(keys) or len(units) != len(keys):
        raise InvalidInput(
            f"{len(keys)} keys, {len(prompts)} prompts and {len(units)} units; give one of each a prompt"
        )
    if not temperature > 0:
        raise InvalidInput(f"temperature is {temperature}; give a value > 0")
    if any(len(p) == 0 for p in prompts):
        raise InvalidInput("a prompt has no tokens; start it with the beginning-of-sequence token")
    groups = np.flatnonzero(np.asarray(units) > 0)
    caps = np.broadcast_to(np.asarray(max_tokens, np.int64), (len(keys),))[groups]
    if len(groups) and int(caps.min()) < 1:
        raise InvalidInput("max_tokens is below 1 for a prompt with units; give at least 1, or give it no units")
    width, longest = max((len(prompts[g]) for g in groups.tolist()), default=1), int(caps.max(initial=1))
    positions = model.config.max_position_embeddings
    if width + longest > positions:
        raise InvalidInput(
            f"prompt {width} + max_tokens {longest} exceeds the model's {positions} positions; lower one"
        )
    return groups


def _rollouts(
    table: Table,
    keys: Sequence[str],
    prompts: Sequence[Sequence[int]],
    group: I64,
    weight: F64,
    prefilled: int,
) -> Rollouts:
    """The first rows of the table, which were started, as rollouts."""
    n, width = len(group), int(table.length.max(initial=1))
    within = np.arange(width) < table.length[:n, None]
    role = np.where(within, np.where(table.forced[:n, :width], Role.FORCED, Role.SAMPLED), Role.NONE).astype(np.int8)
    return Rollouts(
        keys=tuple(keys),
        prompts=tuple(tuple(p) for p in prompts),
        group=group,
        tokens=table.tokens[:n, :width],
        length=table.length[:n],
        cap=table.cap[:n],
        logprob=np.where(role == Role.SAMPLED, table.logprob[:n, :width], np.float32(np.nan)),
        role=role,
        version=np.full(role.shape, -1, np.int32),
        status=table.status[:n],
        closed=table.closed[:n],
        answered=table.answered[:n],
        verified=np.full(n, np.nan),
        reward=np.full(n, np.nan),
        weight=weight,
        prefill_tokens=prefilled,
    )


def _no_text(text: str) -> list[int]:
    raise InvalidInput(f"a steer asked for the tokens of {text!r} without naming Need.TEXT, which training lacks")
