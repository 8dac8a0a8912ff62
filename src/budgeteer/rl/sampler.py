"""Batched decoding for ragged groups: a stopped token is a token not computed.

Each prompt is prefilled once and its cache is shared by the rows of its group. All rows write the same cache column
at a step, whatever their length (keys carry their rotary position, so the column is free), hence the cache is a
slice and never a scatter. Rows that end leave the batch; waiting rows take their slots. Each row draws from its own
stream of random numbers, so its tokens do not depend on which other rows are in the batch: stopping one row never
changes another, and an aborted rollout is a prefix of what it would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.errors import InvalidInput
from budgeteer.models.llama import Block, Llama, apply_rope
from budgeteer.models.policy import Markers
from budgeteer.plan import ABORTED, CUT, ENDED, FINISHED, I64, RUNNING
from budgeteer.rl.rollouts import Rollouts
from budgeteer.stopper import ABORT, FINISH, Event, Rows, Stopper

try:
    from budgeteer.models import kernels
except ImportError:  # numba is optional: torch operators compute the same, slower
    kernels = None  # type: ignore[assignment]


class _Decoder:
    """The cache and the forward pass of one token a row, for rows [0, n) of ``slots``."""

    def __init__(self, model: Llama, slots: int, columns: int, compiled: bool) -> None:
        c, device = model.config, model.device
        shape = (slots, c.num_key_value_heads, c.head_dim, columns)
        self.model, self.columns, self.compiled = model, columns, compiled
        self.blocks = [b for b in model.blocks if isinstance(b, Block)]
        self.keys = [torch.zeros(shape, device=device, dtype=model.embed.dtype) for _ in self.blocks]
        self.values = [torch.zeros_like(k) for k in self.keys]
        self.cos: Tensor = model.cos  # type: ignore[assignment]
        self.sin: Tensor = model.sin  # type: ignore[assignment]
        if compiled:
            self._buffers(slots)

    def _buffers(self, slots: int) -> None:
        """What the compiled step writes to, so that it allocates nothing; all views of the weights that it reads."""
        c = self.model.config
        width = c.num_attention_heads * c.head_dim
        sizes = {
            "hidden": c.hidden_size, "normed": c.hidden_size, "attended": width, "gate_up": 2 * c.intermediate_size,
            "qkv": width + 2 * c.num_key_value_heads * c.head_dim, "gated": c.intermediate_size, "logits": c.vocab_size,
        }  # fmt: skip
        self.tensors = {name: torch.empty(slots, size) for name, size in sizes.items()}
        self.arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}
        self.embed_np, self.norm_np = self.model.embed.numpy(), self.model.norm.numpy()
        self.cos_np, self.sin_np = self.cos.numpy(), self.sin.numpy()
        self.caches_np = [(k.numpy(), v.numpy()) for k, v in zip(self.keys, self.values, strict=True)]
        self.norms_np = [(b.norm1.numpy(), b.norm2.numpy()) for b in self.blocks]
        self.turned = [(b.qkv.t(), b.out.t(), b.gate_up.t(), b.down.t()) for b in self.blocks]

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Compute the shared caches of g prompts, right-aligned [g, kv_heads, d, p]; logits after each [g, vocab]."""
        device = self.model.device
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        p = int(lengths.max())
        tokens = torch.zeros(len(prompts), p, dtype=torch.int64)
        for i, prompt in enumerate(prompts):
            tokens[i, : len(prompt)] = torch.tensor(prompt)
        x = F.embedding(tokens.to(device), self.model.embed)
        self.offset = (p - lengths).cpu().numpy()
        shift = (torch.arange(p, device=device) - (p - lengths)[:, None]).clamp_(min=0)[:, None, None, :]
        self.prompt_keys, self.prompt_values = [], []
        for block in self.blocks:
            q, k, v = block.project(x, self.cos[:p], self.sin[:p])
            gqa = block.heads != block.kv_heads
            x = block.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa))
            self.prompt_keys.append(k.transpose(2, 3).take_along_dim(shift, 3).contiguous())
            self.prompt_values.append(v.transpose(2, 3).take_along_dim(shift, 3).contiguous())
        last = x[torch.arange(len(prompts), device=device), lengths - 1]
        if self.compiled:
            self.prompts_np = [
                (k.numpy(), v.numpy()) for k, v in zip(self.prompt_keys, self.prompt_values, strict=True)
            ]
        return self._head(last)

    def _head(self, x: Tensor) -> Tensor:
        return self.model.logits(F.rms_norm(x, (x.shape[-1],), self.model.norm, self.model.config.rms_norm_eps))

    def step(self, token: I64, position: I64, start: I64, group: I64, column: int) -> Tensor:
        """Logits [n, vocab] after feeding token [n] at cache column ``column``.

        Args:
            position: [n] place of the token in its own sequence.
            start: [n] first cache column of the row.
            group: [n] index of the row's prompt among the prefilled ones.
        """
        if self.compiled:
            return self._compiled_step(token, position, start, group, column)
        n, c = len(token), self.model.config
        device = self.model.device
        x = F.embedding(torch.from_numpy(token).to(device), self.model.embed)
        low = int(start.min())
        where, of = torch.from_numpy(position).to(device), torch.from_numpy(group).to(device)
        cos, sin = self.cos[where][:, None], self.sin[where][:, None]
        own = torch.arange(low, column + 1, device=device) >= torch.from_numpy(start).to(device)[:, None]
        width = self.prompt_keys[0].shape[3]
        shared = torch.arange(width, device=device) >= torch.from_numpy(self.offset[group]).to(device)[:, None]
        seen = torch.cat([shared, own], 1)[:, None, None]
        for i, block in enumerate(self.blocks):
            qkv = F.linear(F.rms_norm(x, (c.hidden_size,), block.norm1, c.rms_norm_eps), block.qkv)
            parts = qkv.view(n, block.heads + 2 * block.kv_heads, block.head_dim)
            turned = apply_rope(parts[:, : block.heads + block.kv_heads], cos, sin)
            keys, values = self.keys[i], self.values[i]
            keys[:n, :, :, column] = turned[:, block.heads :].to(keys.dtype)
            values[:n, :, :, column] = parts[:, block.heads + block.kv_heads :].to(keys.dtype)
            # query heads of one key head are folded into the query length
            q = turned[:, : block.heads].reshape(n, block.kv_heads, -1, block.head_dim).to(keys.dtype)
            k = torch.cat([self.prompt_keys[i].to(keys.dtype)[of], keys[:n, :, :, low : column + 1]], 3)
            v = torch.cat([self.prompt_values[i].to(keys.dtype)[of], values[:n, :, :, low : column + 1]], 3)
            attended = F.scaled_dot_product_attention(q, k.transpose(2, 3), v.transpose(2, 3), attn_mask=seen)
            x = block.finish(x[:, None], attended.reshape(n, block.heads, 1, block.head_dim))[:, 0]
        return self._head(x)

    def _compiled_step(self, token: I64, position: I64, start: I64, group: I64, column: int) -> Tensor:
        """The same in place: torch's matrix products, and one kernel for all that lies between two of them."""
        n, eps = len(token), np.float32(self.model.config.rms_norm_eps)
        hidden, normed, qkv, attended, gate_up, gated, logits = (
            self.tensors[name][:n] for name in ("hidden", "normed", "qkv", "attended", "gate_up", "gated", "logits")
        )
        arrays = {name: array[:n] for name, array in self.arrays.items()}
        x, h = arrays["hidden"], arrays["normed"]
        np.take(self.embed_np, token, axis=0, out=x)
        for i, block in enumerate(self.blocks):
            w_qkv, w_out, w_gate_up, w_down = self.turned[i]
            kernels.norm_rows(x, self.norms_np[i][0], eps, h)
            torch.mm(normed, w_qkv, out=qkv)
            kernels.decode_attention(
                arrays["qkv"], self.cos_np, self.sin_np, position, start, column, *self.caches_np[i], group,
                self.offset, *self.prompts_np[i], block.heads, arrays["attended"],
            )  # fmt: skip
            torch.addmm(hidden, attended, w_out, out=hidden)
            kernels.norm_rows(x, self.norms_np[i][1], eps, h)
            torch.mm(normed, w_gate_up, out=gate_up)
            kernels.silu_rows(arrays["gate_up"], arrays["gated"])
            torch.addmm(hidden, gated, w_down, out=hidden)
        kernels.norm_rows(x, self.norm_np, eps, h)
        return torch.mm(normed, self.model.embed.t(), out=logits)

    def move(self, to: I64, source: I64, low: int, column: int) -> None:
        """Copy columns [low, column) of the caches of slots ``source`` to slots ``to``."""
        dst, src = torch.from_numpy(to), torch.from_numpy(source)
        for cache in (*self.keys, *self.values):
            cache[dst, :, :, low:column] = cache[src, :, :, low:column]

    def shift(self, by: int) -> None:
        """Drop the first ``by`` columns, which no row needs any more."""
        for cache in (*self.keys, *self.values):
            cache[..., :-by] = cache[..., by:].clone()


def _draw(
    logits: Tensor, temperature: float, uniform: NDArray[np.float32], compiled: bool
) -> tuple[I64, NDArray[np.float32], NDArray[np.float32]]:
    """(token [n], log-probability [n], margin [n]) by inverse transform of uniform [n]."""
    n = len(uniform)
    if compiled:
        token, logprob, margin = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.float32)
        kernels.sample_rows(logits.numpy(), np.float32(1 / temperature), uniform, token, logprob, margin)
        return token, logprob, margin
    logp = F.log_softmax(logits.float() / temperature, -1)
    p = logp.exp()
    cdf = p.cumsum(-1)
    target = torch.from_numpy(uniform).to(p.device)[:, None] * cdf[:, -1:]
    drawn = (cdf <= target).sum(-1, keepdim=True).clamp_(max=p.shape[-1] - 1)
    top = p.topk(2, -1).values
    chosen = logp.gather(-1, drawn)[:, 0]
    return drawn[:, 0].cpu().numpy(), chosen.cpu().numpy(), (top[:, 0] - top[:, 1]).cpu().numpy()


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
        compiled = kernels is not None and model.device.type == "cpu" and model.embed.dtype == torch.float32

    out_tokens = np.zeros((n, longest), np.int64)
    out_logprob = np.zeros((n, longest), np.float32)
    out_forced = np.zeros((n, longest), np.bool_)
    length = np.zeros(n, np.int64)
    closed, answered = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    status = np.full(n, RUNNING, np.int8)
    uniform = np.random.Generator(np.random.Philox(key=[seed, 0])).random((n, positions), np.float32)[:, :longest]
    state = stopper.init(Rows(tuple(keys[g] for g in group.tolist()), cap, seed)) if stopper else None

    slots = max(1, min(slots, n))
    # room for the longest row, and some more so that the shift below is rare
    decoder = _Decoder(model, slots, longest + 64, compiled)
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
            tok, logprob, gap = _draw(chosen, temperature, np.ascontiguousarray(uniform[new, 0]), compiled)
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
            decoder.shift(by)
            column, start = column - by, start - by
        # an ended row still in the batch attends to its own new column only, and stays in range
        start = np.where(live, start, column)
        logits = decoder.step(token, position, start, local[group[row]], column)
        column, position = column + 1, position + live
        tok, logprob, margin = _draw(logits, temperature, uniform[row, np.minimum(length[row], longest - 1)], compiled)
        if force.any():
            tok = np.where(force, markers.think_end, tok)
            logprob = np.where(force, np.float32(0), logprob)
        token = tok
        record(row[live], tok[live], logprob[live], force[live])
        spent += count

    started = np.arange(n) < waiting
    used_width = int(length.max(initial=1))
    weight = stopper.kept_weight(state) if stopper and stopper.kept_weight else np.ones(n)
    rollouts = Rollouts(
        keys=tuple(keys),
        prompts=tuple(tuple(p) for p in prompts),
        group=group[started],
        tokens=out_tokens[started, :used_width],
        length=length[started],
        logprob=out_logprob[started, :used_width],
        forced=out_forced[started, :used_width],
        status=status[started],
        closed=closed[started],
        answered=answered[started],
        reward=np.zeros(waiting),
        weight=weight[started],
        prefill_tokens=prefill_tokens,
    )
    return rollouts, state
