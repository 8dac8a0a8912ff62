"""Traces of the embedded thinking model, drawn once, for benchmarks that replay them.

    python benchmarks/thinker_pool.py --pool FOLDER [--questions 300] [--seeds 5] [--samples 32] [--temperature 1]

For every question one greedy trace with each of ``GREEDY`` and ``samples`` traces for each seed, in a chat, up to the
end of the turn or ``CAP`` tokens. A file for each batch of questions and seed: a run that is stopped goes on, and a
second one with ``--first`` helps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.lab import questions
from budgeteer.lab.questions import QuestionSet
from budgeteer.lab.results import write_text
from budgeteer.models.thinker import THINKER

CAP, TOGETHER, SHRINK = 400, 20, 0.85
"""Most tokens of a trace; questions of a batch; share of rows that still run below which a batch is made smaller."""
QUESTIONS_SEED = 77
"""Of the questions."""
GREEDY: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, low effort": {"reasoning_effort": "low"},
    "greedy, no thinking": {"enable_thinking": False},
}
"""Options of the chat template of each greedy trace."""


class Trace(NamedTuple):
    """One trace: its text, number of tokens, mean log-probability, and whether it ended before the cap."""

    text: str
    tokens: int
    logprob: float
    ended: bool


def questions_of(n: int, *, seed: int = QUESTIONS_SEED) -> QuestionSet:
    """Held-out questions; those of the usual seed are what ``benchmarks/think.py`` asks, and not among the others."""
    usual = questions.load("thinking", limit=n, seed=QUESTIONS_SEED)
    if seed == QUESTIONS_SEED:
        return usual
    known = {question.text for question in usual.questions}
    drawn = questions.load("thinking", limit=2 * n, seed=seed)
    return replace(drawn, questions=tuple(each for each in drawn.questions if each.text not in known)[:n])


class Drawer:
    """The model (Qwen3), decoded in batches that shrink as rows end: several times the tokens a second of
    ``generate``, on one thread.

    Args:
        folder: of the model.
        dtype: of its arithmetic.
    """

    def __init__(self, folder: Path = THINKER, dtype: torch.dtype = torch.bfloat16) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.config, self.dtype = model.config, dtype
        self.end, self.pad = model.config.eos_token_id, self.tokenizer.pad_token_id
        self.take(model)
        half = torch.arange(0, model.config.head_dim, 2) / model.config.head_dim
        self.frequencies = 1.0 / model.config.rope_parameters["rope_theta"] ** half

    @torch.no_grad()
    def take(self, model: Any) -> None:
        """Decode with the weights that another model of this size and type has now."""
        self.embedding, self.norm = model.model.embed_tokens.weight, model.model.norm.weight
        self.layers = [_layer(layer) for layer in model.model.layers]

    def prompt(self, question: str, **options: Any) -> list[int]:
        """Token ids of a chat that asks a question."""
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True, **options
        )
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def draw(self, prompts: Sequence[Sequence[int]], temperature: float, seed: int = 0, cap: int = CAP) -> list[Trace]:
        """A trace for each prompt, sampled at a temperature; at 0 it has the likeliest tokens."""
        traces = []
        for tokens, total in self.tokens(prompts, temperature, seed, cap):
            ended = tokens[-1] == self.end
            text = self.tokenizer.decode(tokens[:-1] if ended else tokens)
            traces.append(Trace(text, len(tokens), total / len(tokens), ended))
        return traces

    @torch.inference_mode()
    def tokens(
        self, prompts: Sequence[Sequence[int]], temperature: float, seed: int, cap: int
    ) -> list[tuple[list[int], float]]:
        """The tokens of each trace, the one that ends it included, and the sum of their log-probabilities, which are
        those of the model's own distribution whatever temperature they are drawn at."""
        generator = torch.Generator().manual_seed(seed)
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        seen = torch.zeros(len(prompts), width + cap, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen[row, width - len(prompt) :] = True
        at = (seen[:, :width].cumsum(1) - 1).clamp(min=0)
        live, shape = torch.arange(len(prompts)), (len(prompts), self.config.num_key_value_heads, width + cap)
        cache = [torch.zeros(2, *shape, self.config.head_dim, dtype=self.dtype) for _ in self.layers]
        written, chance = torch.full((len(prompts), cap), -1), torch.zeros(len(prompts))
        going = torch.ones(len(prompts), dtype=torch.bool)
        for step in range(cap):
            logp = self.logits(ids, at, seen, cache, width + step).log_softmax(-1)
            if temperature > 0:
                reached = torch.rand(len(live), 1, generator=generator)
                drawn = logp if temperature == 1 else (logp / temperature).log_softmax(-1)
                new = torch.searchsorted(drawn.exp().cumsum(-1), reached)[:, 0].clamp(max=logp.shape[-1] - 1)
            else:
                new = logp.argmax(-1)
            written[live[going], step] = new[going]
            chance[live[going]] += logp.gather(1, new[:, None])[going, 0]
            going &= new != self.end
            if not going.any():
                break
            if going.float().mean() < SHRINK:
                kept = going.nonzero()[:, 0]
                live, new, seen, at, going = live[kept], new[kept], seen[kept], at[kept], going[kept]
                cache = [part[:, kept] for part in cache]
            ids, at = new[:, None], at[:, -1:] + 1
        rows = [[token for token in row if token >= 0] for row in written.tolist()]
        return list(zip(rows, chance.tolist(), strict=True))

    def logits(self, ids: Tensor, at: Tensor, seen: Tensor, cache: list[Tensor], until: int) -> Tensor:
        """Of the token after the last one.

        Args:
            ids: new tokens, [rows, tokens].
            at: their positions.
            seen: which tokens of the batch are a row's own, [rows, longest].
            cache: keys and values of each layer, [2, rows, heads, longest, size]; the new ones are written into it.
            until: tokens of the batch with the new ones.
        """
        rows, count = ids.shape
        heads, groups = self.config.num_attention_heads, self.config.num_key_value_heads
        size, eps = self.config.head_dim, self.config.rms_norm_eps
        angle = at[:, None, :, None] * self.frequencies
        turn = [
            part.to(self.dtype) for part in (torch.cos(angle).repeat(1, 1, 1, 2), torch.sin(angle).repeat(1, 1, 1, 2))
        ]
        past = torch.ones(count, until, dtype=torch.bool).tril(until - count)
        mask = torch.zeros(rows, 1, count, until, dtype=self.dtype)
        mask.masked_fill_(~(seen[:, None, None, :until] & past), -1e4)
        x = self.embedding[ids]
        for layer, kept in zip(self.layers, cache, strict=True):
            mixed = F.linear(F.rms_norm(x, x.shape[-1:], layer.norm, eps), layer.qkv)
            q, k, v = (part.view(rows, count, -1, size) for part in mixed.split(layer.widths, -1))
            q = _turned(F.rms_norm(q, (size,), layer.q_norm, eps).transpose(1, 2), *turn)
            kept[0, :, :, until - count : until] = _turned(
                F.rms_norm(k, (size,), layer.k_norm, eps).transpose(1, 2), *turn
            )
            kept[1, :, :, until - count : until] = v.transpose(1, 2)
            read = F.scaled_dot_product_attention(
                q, kept[0, :, :, :until], kept[1, :, :, :until], attn_mask=mask, enable_gqa=heads != groups
            )
            x = x + F.linear(read.transpose(1, 2).reshape(rows, count, -1), layer.out)
            gate, up = F.linear(F.rms_norm(x, x.shape[-1:], layer.mlp_norm, eps), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return F.linear(F.rms_norm(x[:, -1], x.shape[-1:], self.norm, eps), self.embedding).float()


class _Layer(NamedTuple):
    """Weights of a layer, what is multiplied with the same input joined."""

    norm: Tensor
    qkv: Tensor
    widths: list[int]
    q_norm: Tensor
    k_norm: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


def _layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    return _Layer(
        layer.input_layernorm.weight, torch.cat(parts), [len(part) for part in parts], attention.q_norm.weight,
        attention.k_norm.weight, attention.o_proj.weight, layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]), mlp.down_proj.weight,
    )  # fmt: skip


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def greedy(asked: QuestionSet, folder: Path) -> dict[str, dict[str, Trace]]:
    """The greedy traces of every question by the name of their options; kept in ``folder``, and found again."""
    path = folder / f"greedy-{len(asked.questions)}.json"
    if not path.is_file():
        drawer, drawn = Drawer(), {}
        for name, options in GREEDY.items():
            drawn[name] = drawer.draw([drawer.prompt(question.text, **options) for question in asked.questions], 0.0)
        rows = {q.id: {name: traces[i] for name, traces in drawn.items()} for i, q in enumerate(asked.questions)}
        write_text(json.dumps(rows), path)
    found = json.loads(path.read_text(encoding="utf-8"))
    return {id_: {name: Trace(*trace) for name, trace in traces.items()} for id_, traces in found.items()}


def pool(
    asked: QuestionSet, seeds: Sequence[int], samples: int, folder: Path, *, first: int = 0, temperature: float = 1.0
) -> dict[str, list[dict[str, Any]]]:
    """Of every question a row for each seed: the sampled traces and the tokens of its prompts.

    Args:
        folder: where they are kept, and found again: a file for each batch of questions, seed and temperature.
        first: number of the question to begin with, so that a second process can help; the ones before are left out.
    """
    drawer: Drawer | None = None
    cooler = "" if temperature == 1 else f"-temperature{temperature:g}"
    rows: dict[str, list[dict[str, Any]]] = {question.id: [] for question in asked.questions}
    for start in range(first, len(asked.questions), TOGETHER):
        some = asked.questions[start : start + TOGETHER]
        for seed in seeds:
            path = folder / f"questions{start}-{len(some)}-seed{seed}-samples{samples}{cooler}.json"
            if not path.is_file():
                drawer = drawer or Drawer()
                prompts = {name: [drawer.prompt(q.text, **options) for q in some] for name, options in GREEDY.items()}
                each = [prompt for prompt in prompts["greedy"] for _ in range(samples)]
                sampled = drawer.draw(each, temperature, seed * 1_000_003 + start)
                drawn = [
                    {
                        "id": question.id,
                        "input": {name: len(own[i]) for name, own in prompts.items()},
                        "sampled": sampled[i * samples : (i + 1) * samples],
                    }
                    for i, question in enumerate(some)
                ]
                write_text(json.dumps(drawn), path)
                print(f"questions from {start}, seed {seed}", file=sys.stderr, flush=True)
            for row in json.loads(path.read_text(encoding="utf-8")):
                rows[row["id"]].append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help="question to begin with, for a second process")
    parser.add_argument("--temperature", type=float, default=1.0, help="default %(default)s")
    parser.add_argument(
        "--questions-seed", type=int, default=QUESTIONS_SEED, help="with a folder of its own (default %(default)s)"
    )
    args = parser.parse_args()
    asked = questions_of(args.questions, seed=args.questions_seed)
    greedy(asked, args.pool)
    rows = pool(asked, range(args.seeds), args.samples, args.pool, first=args.first, temperature=args.temperature)
    tokens = [trace[1] for each in rows.values() for row in each for trace in row["sampled"]]
    print(json.dumps({"traces": len(tokens), "tokens": sum(tokens) / len(tokens)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
