"""One token a row: the caches and the forward pass that the sampler and the embedded reasoner share, and the draw.

Each prompt is prefilled once and its cache is shared by its rows. All rows write the same cache column at a step,
whatever their length (keys carry their rotary position, so the column is free), hence the cache is a slice and never a
scatter.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.plan import I64
from budgeteer.engine.llama import Block, Llama, apply_rope

try:
    from budgeteer.engine import kernels
except ImportError:  # numba is optional: torch operators compute the same, slower
    kernels = None  # type: ignore[assignment]


def compiles(model: Llama) -> bool:
    """Whether the compiled kernels are there and can run this model; if so, they are ready to be called."""
    if kernels is None or model.device.type != "cpu" or model.embed.dtype != torch.float32:
        return False
    kernels.prepare()
    return True


class Decoder:
    """The caches and the forward pass of one token a row, for rows [0, n) of ``slots``.

    Rows read the prompt of their group: either all prompts are there from the start (``prefill``), or they come and go
    (``insert``).
    """

    def __init__(self, model: Llama, slots: int, columns: int, compiled: bool) -> None:
        c, device = model.config, model.device
        shape = (slots, c.num_key_value_heads, c.head_dim, columns)
        self.model, self.columns, self.compiled = model, columns, compiled
        self.blocks = [b for b in model.blocks if isinstance(b, Block)]
        self.keys = [torch.zeros(shape, device=device, dtype=model.embed.dtype) for _ in self.blocks]
        self.values = [torch.zeros_like(k) for k in self.keys]
        self.prompt_keys: list[Tensor] = []
        self.prompt_values: list[Tensor] = []
        self.offset = np.zeros(0, np.int64)
        self.cos: Tensor = model.cos  # type: ignore[assignment]
        self.sin: Tensor = model.sin  # type: ignore[assignment]
        if compiled:
            self._buffers(slots)

    def _buffers(self, slots: int) -> None:
        """What the compiled step writes to, so that it allocates nothing; all views of the weights that it reads."""
        self.tensors = self._scratch(slots)
        self.arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}
        self.embed_np, self.norm_np = self.model.embed.numpy(), self.model.norm.numpy()
        self.cos_np, self.sin_np = self.cos.numpy(), self.sin.numpy()
        self.caches_np = [(k.numpy(), v.numpy()) for k, v in zip(self.keys, self.values, strict=True)]
        self.norms_np = [(b.norm1.numpy(), b.norm2.numpy()) for b in self.blocks]
        self.turned = [(b.qkv.t(), b.out.t(), b.gate_up.t(), b.down.t()) for b in self.blocks]

    def _scratch(self, rows: int) -> dict[str, Tensor]:
        c = self.model.config
        width = c.num_attention_heads * c.head_dim
        sizes = {
            "hidden": c.hidden_size,
            "normed": c.hidden_size,
            "attended": width,
            "gate_up": 2 * c.intermediate_size,
            "qkv": width + 2 * c.num_key_value_heads * c.head_dim,
            "gated": c.intermediate_size,
            "logits": c.vocab_size,
        }
        return {name: torch.empty(rows, size) for name, size in sizes.items()}

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Compute the shared caches of g prompts, right-aligned [g, kv_heads, d, p].

        Returns:
            Logits after each [g, vocab], and states there [g, layers + 1, hidden], see ``step``.
        """
        shared, self.offset, states = self._read(prompts)
        self._share(shared)
        return self._after(states)

    def _after(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and stacked states, from the states of each layer at one position of each prompt."""
        last = states[-1]
        normed = F.rms_norm(last, (last.shape[-1],), self.model.norm, self.model.config.rms_norm_eps)
        return self.model.logits(normed), torch.stack([*states[:-1], normed], 1)

    def insert(self, place: int, prompt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Compute the shared cache of one prompt, as group ``place``, whose former prompt no row needs any more.

        It is computed alone, so that it does not depend on what else arrives.

        Returns:
            Logits after it [1, vocab] and states there [1, layers + 1, hidden], see ``step``.
        """
        self._make_room(place + 1, len(prompt))
        self.offset[place] = self.prompt_keys[0].shape[3] - len(prompt)
        if self.compiled:
            return self._compiled_insert(place, prompt)
        shared, _, states = self._read([prompt])
        for (k, v), keys, values in zip(shared, self.prompt_keys, self.prompt_values, strict=True):
            keys[place, :, :, -len(prompt) :], values[place, :, :, -len(prompt) :] = k[0], v[0]
        return self._after(states)

    def _compiled_insert(self, place: int, prompt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """:meth:`insert` with one kernel for all that lies between two matrix products."""
        tensors, eps = self._scratch(len(prompt)), np.float32(self.model.config.rms_norm_eps)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        x, h, hidden, normed = arrays["hidden"], arrays["normed"], tensors["hidden"], tensors["normed"]
        np.take(self.embed_np, np.asarray(prompt, np.int64), axis=0, out=x)
        states = hidden.new_empty(1, len(self.blocks) + 1, hidden.shape[1])
        for i, block in enumerate(self.blocks):
            w_qkv, w_out, w_gate_up, w_down = self.turned[i]
            states[0, i] = hidden[-1]
            kernels.norm_rows(x, self.norms_np[i][0], eps, h)
            torch.mm(normed, w_qkv, out=tensors["qkv"])
            keys, values = self.prompts_np[i]
            kernels.prefill_attention(
                arrays["qkv"], self.cos_np, self.sin_np, keys[place], values[place], block.heads, arrays["attended"]
            )
            torch.addmm(hidden, tensors["attended"], w_out, out=hidden)
            kernels.norm_rows(x, self.norms_np[i][1], eps, h)
            torch.mm(normed, w_gate_up, out=tensors["gate_up"])
            kernels.silu_rows(arrays["gate_up"], arrays["gated"])
            torch.addmm(hidden, tensors["gated"], w_down, out=hidden)
        kernels.norm_rows(x, self.norm_np, eps, h)
        states[0, -1] = normed[-1]
        return torch.mm(normed[-1:], self.model.embed.t()), states

    def _make_room(self, places: int, width: int) -> None:
        """Let the shared caches hold so many prompts of so many tokens, and keep what is there."""
        held, wide = (self.prompt_keys[0].shape[0], self.prompt_keys[0].shape[3]) if self.prompt_keys else (0, 0)
        if places <= held and width <= wide:
            return
        # doubled, so that growth is rare; no power of two between two dimensions of a head, or they share cache lines
        places = held if places <= held else max(8, 2 * held, places)
        width = wide if width <= wide else -(-max(width, 2 * wide) // 64) * 64 + 16
        c = self.model.config
        shape = (places, c.num_key_value_heads, c.head_dim, width)
        shared = []
        for i in range(len(self.blocks)):
            pair = [torch.zeros(shape, device=self.model.device, dtype=self.model.embed.dtype) for _ in range(2)]
            if held:
                for new, old in zip(pair, (self.prompt_keys[i], self.prompt_values[i]), strict=True):
                    new[:held, ..., -wide:] = old
            shared.append((pair[0], pair[1]))
        offset = np.full(places, width, np.int64)
        offset[:held] = self.offset + (width - wide)
        self.offset = offset
        self._share(shared)

    def _share(self, caches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.prompt_keys, self.prompt_values = [k for k, _ in caches], [v for _, v in caches]
        if self.compiled:
            self.prompts_np = [(k.numpy(), v.numpy()) for k, v in caches]

    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[list[tuple[Tensor, Tensor]], I64, list[Tensor]]:
        """(keys and values of each block, first column of each prompt, states after its last token, not normed)."""
        device = self.model.device
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        p = int(lengths.max())
        tokens = torch.zeros(len(prompts), p, dtype=torch.int64)
        for i, prompt in enumerate(prompts):
            tokens[i, : len(prompt)] = torch.tensor(prompt)
        x = F.embedding(tokens.to(device), self.model.embed)
        shift = (torch.arange(p, device=device) - (p - lengths)[:, None]).clamp_(min=0)[:, None, None, :]

        def aligned(cache: Tensor) -> Tensor:
            turned = cache.transpose(2, 3)
            return (turned.take_along_dim(shift, 3) if len(prompts) > 1 else turned).contiguous()

        last = torch.arange(len(prompts), device=device), lengths - 1
        caches, states = [], [x[last]]
        for block in self.blocks:
            q, k, v = block.project(x, self.cos[:p], self.sin[:p])
            gqa = block.heads != block.kv_heads
            x = block.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa))
            caches.append((aligned(k), aligned(v)))
            states.append(x[last])
        return caches, (p - lengths).cpu().numpy(), states

    def _head(self, x: Tensor) -> Tensor:
        return self.model.logits(F.rms_norm(x, (x.shape[-1],), self.model.norm, self.model.config.rms_norm_eps))

    def step(
        self,
        token: I64,
        position: I64,
        start: I64,
        group: I64,
        column: int,
        states: Tensor | None = None,
        fed: tuple[NDArray[np.bool_], Tensor] | None = None,
    ) -> Tensor:
        """Logits [n, vocab] after feeding token [n] at cache column ``column``.

        Args:
            position: [n] place of the token in its own sequence.
            start: [n] first cache column of the row.
            group: [n] index of the row's prompt among the prefilled ones.
            states: [n, layers + 1, hidden], written if given: the input embedding, then the state after each block,
                the last of them after the final norm (the order of transformers).
            fed: (mask [n], embeddings [n, hidden]) of rows that are fed an embedding instead of their token's.
        """
        if self.compiled:
            return self._compiled_step(token, position, start, group, column, states, fed)
        n, c = len(token), self.model.config
        device = self.model.device
        x = F.embedding(torch.from_numpy(token).to(device), self.model.embed)
        if fed is not None:
            x = torch.where(torch.from_numpy(fed[0]).to(device)[:, None], fed[1].to(x), x)
        low = int(start.min())
        where, of = torch.from_numpy(position).to(device), torch.from_numpy(group).to(device)
        cos, sin = self.cos[where][:, None], self.sin[where][:, None]
        own = torch.arange(low, column + 1, device=device) >= torch.from_numpy(start).to(device)[:, None]
        width = self.prompt_keys[0].shape[3]
        shared = torch.arange(width, device=device) >= torch.from_numpy(self.offset[group]).to(device)[:, None]
        seen = torch.cat([shared, own], 1)[:, None, None]
        for i, block in enumerate(self.blocks):
            if states is not None:
                states[:, i] = x
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
        if states is not None:
            states[:, -1] = F.rms_norm(x, (c.hidden_size,), self.model.norm, c.rms_norm_eps)
        return self._head(x)

    def _compiled_step(
        self,
        token: I64,
        position: I64,
        start: I64,
        group: I64,
        column: int,
        states: Tensor | None,
        fed: tuple[NDArray[np.bool_], Tensor] | None,
    ) -> Tensor:
        """The same in place: torch's matrix products, and one kernel for all that lies between two of them."""
        n, eps = len(token), np.float32(self.model.config.rms_norm_eps)
        hidden, normed, qkv, attended, gate_up, gated, logits = (
            self.tensors[name][:n] for name in ("hidden", "normed", "qkv", "attended", "gate_up", "gated", "logits")
        )
        arrays = {name: array[:n] for name, array in self.arrays.items()}
        x, h = arrays["hidden"], arrays["normed"]
        np.take(self.embed_np, token, axis=0, out=x)
        if fed is not None:
            x[fed[0]] = fed[1].numpy()[fed[0]]
        for i, block in enumerate(self.blocks):
            if states is not None:
                states[:, i] = hidden
            w_qkv, w_out, w_gate_up, w_down = self.turned[i]
            kernels.norm_rows(x, self.norms_np[i][0], eps, h)
            torch.mm(normed, w_qkv, out=qkv)
            kernels.decode_attention(
                arrays["qkv"],
                self.cos_np,
                self.sin_np,
                position,
                start,
                column,
                *self.caches_np[i],
                group,
                self.offset,
                *self.prompts_np[i],
                block.heads,
                arrays["attended"],
            )
            torch.addmm(hidden, attended, w_out, out=hidden)
            kernels.norm_rows(x, self.norms_np[i][1], eps, h)
            torch.mm(normed, w_gate_up, out=gate_up)
            kernels.silu_rows(arrays["gate_up"], arrays["gated"])
            torch.addmm(hidden, gated, w_down, out=hidden)
        kernels.norm_rows(x, self.norm_np, eps, h)
        if states is not None:
            states[:, -1] = normed
        return torch.mm(normed, self.model.embed.t(), out=logits)

    def move(self, to: I64, source: I64, low: int, column: int) -> None:
        """Copy columns [low, column) of the caches of slots ``source`` to slots ``to``."""
        dst, src = torch.from_numpy(to), torch.from_numpy(source)
        for cache in (*self.keys, *self.values):
            cache[dst, :, :, low:column] = cache[src, :, :, low:column]

    def shift(self, by: int, rows: int) -> None:
        """Drop the first ``by`` columns, which none of rows [0, rows) needs any more."""
        for cache in (*self.keys, *self.values):
            cache[:rows, ..., :-by] = cache[:rows, ..., by:].clone()


class _Own(threading.local):
    """A generator for each thread: a new one asks the system for entropy, key or no key, and that can wait for long."""

    def __init__(self) -> None:
        self.generator = np.random.Generator(np.random.Philox(0))


_OWN = _Own()


def streams(seed: int, rows: int, positions: int, longest: int) -> NDArray[np.float32]:
    """Uniform numbers [rows, longest] in [0, 1): those of row r are the same however many rows there are.

    Args:
        seed: >= 0, below 2 ** 64.
        positions: of the model; row r owns so many numbers of the seed's stream.
        longest: no more tokens than this are drawn for a row.
    """
    generator = _OWN.generator
    generator.bit_generator.state = {
        "bit_generator": "Philox",
        # a list of Python integers would be rounded from 2 ** 63 on
        "state": {"counter": np.zeros(4, np.uint64), "key": np.array([seed, 0], np.uint64)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator.random((rows, positions), np.float32)[:, :longest]


def draw(
    logits: Tensor,
    temperature: float | NDArray[np.float64],
    uniform: NDArray[np.float32],
    compiled: bool,
    margins: bool = True,
) -> tuple[I64, NDArray[np.float32], NDArray[np.float32] | None]:
    """(token [n], log-probability [n], margin [n]) by inverse transform of uniform [n]; temperature > 0 or [n].

    The margin is None where it is not asked for and costs.
    """
    n = len(uniform)
    if compiled:
        inverse = np.full(n, 1 / temperature, np.float32)
        token, logprob, margin = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.float32)
        kernels.sample_rows(logits.numpy(), inverse, uniform, token, logprob, margin)
        return token, logprob, margin
    if isinstance(temperature, np.ndarray):
        logp = F.log_softmax(
            logits.float() / torch.from_numpy(temperature).to(logits.device, torch.float32)[:, None], -1
        )
    else:
        logp = F.log_softmax(logits.float() / temperature, -1)
    p = logp.exp()
    cdf = p.cumsum(-1)
    target = torch.from_numpy(uniform).to(p.device)[:, None] * cdf[:, -1:]
    drawn = (cdf <= target).sum(-1, keepdim=True).clamp_(max=p.shape[-1] - 1)
    chosen = logp.gather(-1, drawn)[:, 0]
    token, logprob = drawn[:, 0].cpu().numpy(), chosen.cpu().numpy()
    if not margins:
        return token, logprob, None
    top = p.topk(2, -1).values
    return token, logprob, (top[:, 0] - top[:, 1]).cpu().numpy()
