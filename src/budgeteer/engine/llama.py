"""A minimal Llama: the published architecture, standard files on disk, fused weights in memory.

Reads and writes ``config.json`` + ``model.safetensors`` as transformers does, so the same folder loads with
``AutoModelForCausalLM``. Kept small so that the sampler and the trainer share one forward pass without overhead.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from budgeteer.core.errors import CheckpointError, InvalidInput


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The fields of a Hugging Face Llama config that this model uses; sizes in units of scalars."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    bos_token_id: int = 0
    eos_token_id: int = 1
    pad_token_id: int = 2

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def to_hf(self) -> dict[str, object]:
        """The content of ``config.json``."""
        return {
            **asdict(self),
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf(cls, data: dict[str, object]) -> LlamaConfig:
        """Read the content of ``config.json``; refuses what this model does not implement."""
        if data.get("model_type") != "llama" or not data.get("tie_word_embeddings", False):
            raise InvalidInput(
                f"config has model_type={data.get('model_type')!r}, tie_word_embeddings="
                f"{data.get('tie_word_embeddings')}; this model reads 'llama' with tied embeddings"
            )
        if data.get("rope_scaling") or data.get("attention_bias") or data.get("mlp_bias"):
            raise InvalidInput("config asks for rope_scaling or biases, which this model does not implement")
        rope = data.get("rope_parameters")
        known = {k: data[k] for k in cls.__dataclass_fields__ if k in data}
        if isinstance(rope, dict) and "rope_theta" in rope:
            known["rope_theta"] = rope["rope_theta"]
        return cls(**known)  # type: ignore[arg-type]


def rope_tables(config: LlamaConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each [max_position_embeddings, head_dim]; sin has the sign of
    rotate_half folded in, so that rope(x) = x * cos + roll(x, head_dim / 2) * sin."""
    half = config.head_dim // 2
    inv = 1.0 / config.rope_theta ** (torch.arange(half, device=device, dtype=torch.float64) / half)
    angle = torch.arange(config.max_position_embeddings, device=device, dtype=torch.float64)[:, None] * inv
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [..., head_dim] by the tables' rows (broadcast against x)."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class Block(nn.Module):
    """One decoder layer with q, k, v fused and gate, up fused."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.eps = c.rms_norm_eps
        self.norm1 = nn.Parameter(torch.ones(c.hidden_size))
        self.norm2 = nn.Parameter(torch.ones(c.hidden_size))
        self.qkv = nn.Parameter(torch.empty((self.heads + 2 * self.kv_heads) * c.head_dim, c.hidden_size))
        self.out = nn.Parameter(torch.empty(c.hidden_size, self.heads * c.head_dim))
        self.gate_up = nn.Parameter(torch.empty(2 * c.intermediate_size, c.hidden_size))
        self.down = nn.Parameter(torch.empty(c.hidden_size, c.intermediate_size))

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise and project x [b, t, hidden] to rotated q [b, heads, t, d] and k, v [b, kv_heads, t, d]."""
        b, t, _ = x.shape
        h = F.rms_norm(x, (x.shape[-1],), self.norm1, self.eps)
        qkv = F.linear(h, self.qkv).view(b, t, self.heads + 2 * self.kv_heads, self.head_dim).transpose(1, 2)
        turned = apply_rope(qkv[:, : self.heads + self.kv_heads], cos, sin)
        return turned[:, : self.heads], turned[:, self.heads :], qkv[:, self.heads + self.kv_heads :]

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the attention output [b, heads, t, d] and the MLP to the residual stream."""
        b, _, t, _ = attended.shape
        x = x + F.linear(attended.transpose(1, 2).reshape(b, t, -1), self.out)
        gate, up = F.linear(F.rms_norm(x, (x.shape[-1],), self.norm2, self.eps), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Llama(nn.Module):
    """Causal language model; ``forward`` gives final hidden states, ``logits`` projects them."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        cos, sin = rope_tables(config, torch.device("cpu"))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.device

    def init_weights(self, seed: int) -> None:
        """Gaussian initialisation, std 0.02 for the embedding and 1/sqrt(fan-in) elsewhere, residual outputs
        scaled down by sqrt(2 * layers)."""
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.embed.normal_(0, 0.02, generator=g)
            for block in self.blocks:
                assert isinstance(block, Block)
                for w in (block.qkv, block.gate_up, block.out, block.down):
                    w.normal_(0, w.shape[1] ** -0.5, generator=g)
                for w in (block.out, block.down):
                    w.div_((2 * len(self.blocks)) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states [b, t, hidden] of right-padded tokens [b, t] (int64), positions from 0."""
        return self.states(F.embedding(tokens, self.embed))[-1]

    def states(self, inputs: Tensor) -> list[Tensor]:
        """States [b, t, hidden] of input embeddings [b, t, hidden]: the inputs, then those after each block, the last
        of them after the final norm (the ``hidden_states`` of transformers)."""
        t = inputs.shape[1]
        states = [inputs]
        cos, sin = self.cos[:t], self.sin[:t]  # type: ignore[index]
        for block in self.blocks:
            assert isinstance(block, Block)
            q, k, v = block.project(states[-1], cos, sin)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=block.heads != block.kv_heads)
            states.append(block.finish(states[-1], a))
        states[-1] = F.rms_norm(states[-1], (inputs.shape[-1],), self.norm, self.config.rms_norm_eps)
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., vocab] of hidden states [..., hidden]."""
        return F.linear(hidden, self.embed)

    def to_hf_state(self) -> dict[str, Tensor]:
        """Weights under the names that transformers uses."""
        c = self.config
        state: dict[str, Tensor] = {"model.embed_tokens.weight": self.embed, "model.norm.weight": self.norm}
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        for i, b in enumerate(self.blocks):
            assert isinstance(b, Block)
            p = f"model.layers.{i}."
            wq, wk, wv = b.qkv[:q], b.qkv[q : q + kv], b.qkv[q + kv :]
            gate, up = b.gate_up.chunk(2)
            state |= {
                p + "input_layernorm.weight": b.norm1,
                p + "post_attention_layernorm.weight": b.norm2,
                p + "self_attn.q_proj.weight": wq,
                p + "self_attn.k_proj.weight": wk,
                p + "self_attn.v_proj.weight": wv,
                p + "self_attn.o_proj.weight": b.out,
                p + "mlp.gate_proj.weight": gate,
                p + "mlp.up_proj.weight": up,
                p + "mlp.down_proj.weight": b.down,
            }
        return {name: w.detach().to("cpu", torch.float32).contiguous().clone() for name, w in state.items()}

    def load_hf_state(self, state: dict[str, Tensor]) -> None:
        """Copy in weights under transformers' names.

        Raises:
            CheckpointError: a weight is missing or has another shape.
        """
        try:
            with torch.no_grad():
                self.embed.copy_(state["model.embed_tokens.weight"])
                self.norm.copy_(state["model.norm.weight"])
                for i, b in enumerate(self.blocks):
                    assert isinstance(b, Block)
                    p = f"model.layers.{i}."
                    b.norm1.copy_(state[p + "input_layernorm.weight"])
                    b.norm2.copy_(state[p + "post_attention_layernorm.weight"])
                    b.qkv.copy_(torch.cat([state[f"{p}self_attn.{n}_proj.weight"] for n in "qkv"]))
                    b.out.copy_(state[p + "self_attn.o_proj.weight"])
                    b.gate_up.copy_(torch.cat([state[f"{p}mlp.{n}_proj.weight"] for n in ("gate", "up")]))
                    b.down.copy_(state[p + "mlp.down_proj.weight"])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"weights do not fit the config ({error}); use the folder's own config") from error


def load(folder: Path) -> Llama:
    """Load ``config.json`` + ``model.safetensors`` (Llama, tied embeddings) in float32 on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = LlamaConfig.from_hf(json.loads((folder / "config.json").read_text()))
        state = load_file(folder / "model.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read a Llama model in {folder}: {error}; give a folder with config.json and model.safetensors of "
            "a small Llama, or, to `budgeteer train`, hf:FOLDER of any causal model of transformers"
        ) from error
    model = Llama(config)
    model.load_hf_state(state)
    return model


def save(model: Llama, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` as transformers reads them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(), indent=1, sort_keys=True) + "\n")
    save_file(model.to_hf_state(), folder / "model.safetensors", metadata={"format": "pt"})
