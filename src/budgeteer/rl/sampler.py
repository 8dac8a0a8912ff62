"""Batched decoding for ragged groups: a stopped token is a token not computed.

Rows that end leave the batch; waiting rows take their slots. Each row draws from its own stream of random numbers, so
its tokens do not depend on which other rows are in the batch: stopping one row never changes another, and an aborted
rollout is a prefix of what it would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ABORTED, CUT, ENDED, FINISHED, I64, RUNNING
from budgeteer.core.stopper import ABORT, FINISH, Event, Rows, Stopper
from budgeteer.engine.decoder import Decoder, compiles, draw, streams
from budgeteer.engine.llama import Llama
from budgeteer.models.policy import Markers
from budgeteer.rl.rollouts import Role, Rollouts


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
    stopper: Stopper | None = None,
    budget: int | None = None,
    slots: int = 256,
    compiled: bool | None = None,
) -> tuple[Rollouts, object]:
    """Sample ``units[i]`` rollouts of prompt i.

    Args:
        model: policy; its device decides where the work is done.
        keys: g distinct prompt keys.
        prompts: g non-empty prompts as token ids.
        units: [g] rollouts of each prompt, >= 0.
        max_tokens: cap of sampled tokens a row, one for all or [g].
        markers: ids of the structural tokens.
        seed: row r draws from the stream (seed, r), whatever else is in the batch.
        temperature: > 0; log-probabilities are of the tempered distribution.
        stopper: asked every ``stopper.every`` steps.
        budget: no more than this many tokens are sampled in all; rows still running then are CUT, and rows that
            had not started are not part of the result.
        slots: rows decoded at once.
        compiled: use the compiled kernels; None = when they are there and the model is float32 on the CPU.

    Returns:
        The rollouts, unscored, and the stopper's final state (None without one).

    Raises:
        InvalidInput: shapes that do not fit, an empty prompt, or a sequence longer than the model's positions.
    """
    if len(prompts) != len(keys) or len(units) != len(keys):
        raise InvalidInput(
            f"{len(keys)} keys, {len(prompts)} prompts and {len(units)} units; give one of each a prompt"
        )
    if not temperature > 0:
        raise InvalidInput(f"temperature is {temperature}; give a value > 0")
    if any(len(p) == 0 for p in prompts):
        raise InvalidInput("a prompt has no tokens; start it with the beginning-of-sequence token")
    active = np.flatnonzero(np.asarray(units) > 0)
    chosen_groups = active.tolist()
    group = np.repeat(np.arange(len(keys)), units)
    n = len(group)
    caps = np.broadcast_to(np.asarray(max_tokens, np.int64), (len(keys),))
    if n and int(caps[active].min()) < 1:
        raise InvalidInput("max_tokens is below 1 for a prompt with units; give at least 1, or give it no units")
    cap = caps[group]
    longest = int(cap.max(initial=1))
    width = max((len(prompts[g]) for g in chosen_groups), default=1)
    positions = model.config.max_position_embeddings
    if width + longest > positions:
        raise InvalidInput(
            f"prompt {width} + max_tokens {longest} exceeds the model's {positions} positions; lower one"
        )
    if compiled is None:
        compiled = compiles(model)

    out_tokens = np.zeros((n, longest), np.int64)
    out_logprob = np.zeros((n, longest), np.float32)
    out_forced = np.zeros((n, longest), np.bool_)
    length = np.zeros(n, np.int64)
    closed, answered = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    status = np.full(n, RUNNING, np.int8)
    uniform = streams(seed, n, positions, longest)
    state = stopper.init(Rows(tuple(keys[g] for g in group.tolist()), cap, seed)) if stopper else None

    slots = max(1, min(slots, n))
    # room for the longest row, and some more so that the shift below is rare
    decoder = Decoder(model, slots, longest + 64, compiled)
    local = np.zeros(len(keys), np.int64)
    local[active] = np.arange(len(active))
    spent = prefill_tokens = 0
    if n:
        first_logits = decoder.prefill([prompts[g] for g in chosen_groups])
        prefill_tokens = sum(len(prompts[g]) for g in chosen_groups)
    prompt_length = np.array([len(p) for p in prompts], np.int64)

    row = np.empty(0, np.int64)  # row of each slot in use
    token, position, start = row.copy(), row.copy(), row.copy()
    margin = np.empty(0, np.float32)
    column, waiting, steps, asked = 0, 0, 0, -1

    def record(rows: I64, tok: I64, logprob: NDArray[np.float32], forced: NDArray[np.bool_]) -> None:
        at = length[rows]
        out_tokens[rows, at], out_logprob[rows, at], out_forced[rows, at] = tok, logprob, forced
        length[rows] = at + 1
        ended, was_closed = tok == markers.eos, closed[rows] >= 0
        complete = was_closed & (answered[rows] < 0) & (ended | (tok == markers.answer_end))
        answered[rows[complete]] = at[complete] + 1
        newly = (tok == markers.think_end) & ~was_closed
        closed[rows[newly]] = at[newly] + 1
        status[rows[ended]] = ENDED
        status[rows[~ended & (at + 1 >= cap[rows])]] = CUT

    while True:
        live = status[row] == RUNNING
        count = int(live.sum())
        free = slots - count
        room = n - waiting if budget is None else min(n - waiting, budget - spent - count)
        admit = room > 0 and (free * 8 >= slots or 0 < room <= free)
        if admit or (len(row) - count) * 8 > len(row):
            # fill the holes of ended rows with the last running ones, so that the batch is slots [0, count)
            holes, movers = np.flatnonzero(~live[:count]), count + np.flatnonzero(live[count:])
            if len(holes):
                decoder.move(holes, movers, int(start[movers].min()), column)
            for a in (row, token, position, start, margin):
                a[holes] = a[movers]
            row, token, position = row[:count], token[:count], position[:count]
            start, margin, live = start[:count], margin[:count], np.ones(count, np.bool_)
        if admit:
            new = np.arange(waiting, waiting + min(free, room))
            waiting += len(new)
            chosen = first_logits[torch.from_numpy(local[group[new]]).to(first_logits.device)]
            tok, logprob, gap = draw(chosen, temperature, np.ascontiguousarray(uniform[new, 0]), compiled)
            record(new, tok, logprob, np.zeros(len(new), np.bool_))
            spent += len(new)
            row, token, margin = np.concatenate([row, new]), np.concatenate([token, tok]), np.concatenate([margin, gap])
            position = np.concatenate([position, prompt_length[group[new]]])
            start = np.concatenate([start, np.full(len(new), column)])
            continue
        if count == 0:
            break
        if budget is not None and spent + count > budget:
            status[row[live]] = CUT
            break
        force = np.zeros(len(row), np.bool_)
        if stopper is not None and steps % stopper.every == 0 and asked != steps:
            asked, rows, gap = steps, row[live], margin[live]
            event = Event(rows, length[rows], closed[rows], answered[rows], partial(np.asarray, gap))
            decisions, state = stopper.step(state, event)
            finish = decisions == FINISH
            status[rows[decisions == ABORT]] = ABORTED
            status[rows[finish & (answered[rows] >= 0)]] = FINISHED
            force[np.flatnonzero(live)[finish & (closed[rows] < 0)]] = True
            live = status[row] == RUNNING
            count = int(live.sum())
            if count == 0:
                continue
        steps += 1
        if column == decoder.columns:
            by = int(start[live].min())
            decoder.shift(by, len(row))
            column, start = column - by, start - by
        # an ended row still in the batch attends to its own new column only, and stays in range
        start = np.where(live, start, column)
        logits = decoder.step(token, position, start, local[group[row]], column)
        column, position = column + 1, position + live
        tok, logprob, margin = draw(logits, temperature, uniform[row, np.minimum(length[row], longest - 1)], compiled)
        if force.any():
            tok = np.where(force, markers.think_end, tok)
            logprob = np.where(force, np.float32(0), logprob)
        token = tok
        record(row[live], tok[live], logprob[live], force[live])
        spent += count

    started = np.arange(n) < waiting
    used_width = int(length.max(initial=1))
    within = np.arange(used_width) < length[started][:, None]
    role = np.where(within, np.where(out_forced[started, :used_width], Role.FORCED, Role.SAMPLED), Role.NONE)
    role = role.astype(np.int8)
    weight = stopper.kept_weight(state) if stopper and stopper.kept_weight else np.ones(n)
    rollouts = Rollouts(
        keys=tuple(keys),
        prompts=tuple(tuple(p) for p in prompts),
        group=group[started],
        tokens=out_tokens[started, :used_width],
        length=length[started],
        cap=cap[started],
        logprob=np.where(role == Role.SAMPLED, out_logprob[started, :used_width], np.float32(np.nan)),
        role=role,
        version=np.full(role.shape, -1, np.int32),
        status=status[started],
        closed=closed[started],
        answered=answered[started],
        verified=np.full(waiting, np.nan),
        reward=np.full(waiting, np.nan),
        weight=weight[started],
        prefill_tokens=prefill_tokens,
    )
    return rollouts, state
