"""The thinking model as a GGUF file for llama.cpp."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.errors import CheckpointError, MissingExtra
from budgeteer.lab.thinker.tokens import CONTROL
from budgeteer.models.thinker import thinker

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def gguf_name(name: str) -> str:
    """The name of a tensor in a GGUF file.

    >>> gguf_name("model.layers.3.self_attn.q_proj.weight")
    'blk.3.attn_q.weight'
    """
    if name in _WHOLE:
        return _WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def write_gguf(folder: Path, file: Path) -> None:
    """Write the thinking model of ``folder`` to ``file``: matrices in float16, tokenizer and chat template as metadata.

    Raises:
        CheckpointError: a file or the chat template is missing, or the model is not a Qwen3 with tied embeddings.
        MissingExtra: without gguf.
    """
    try:
        import gguf
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra("gguf", "hf") from error
    thinker(folder)
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "qwen3" or not config.get("tie_word_embeddings"):
        raise CheckpointError(
            f"{folder} holds no Qwen3 model with tied embeddings; give a folder of the thinking model"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".partial")
    writer = gguf.GGUFWriter(part, "qwen3")
    writer.add_name("budgeteer-thinker")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _add_tokenizer(writer, folder, config["vocab_size"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        kind = np.float16 if tensor.ndim == 2 else np.float32
        writer.add_tensor(gguf_name(name), tensor.float().numpy().astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, file)


def _add_tokenizer(writer: Any, folder: Path, size: int) -> None:
    from gguf import TokenType

    about = json.loads((folder / "tokenizer.json").read_text())
    tokens = {index: token for token, index in about["model"]["vocab"].items()}
    kinds = dict.fromkeys(tokens, TokenType.NORMAL)
    for added in about["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    ids = {token: index for index, token in tokens.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens[i] for i in range(size)])
    writer.add_token_types([kinds[i] for i in range(size)])
    merges = about["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_pad_token_id(ids[CONTROL[0]])
    writer.add_eos_token_id(ids[CONTROL[2]])
    writer.add_add_bos_token(False)
    template = json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template")
    if not template:
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'} has no chat template; put the thinking model's there"
        )
    writer.add_chat_template(template)
