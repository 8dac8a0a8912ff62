"""The tokenizer of the thinking model, and conversations as token ids with loss weights.

Byte-level BPE, split as Qwen2's and Qwen3's tokenizers split (digits one by one), so that llama.cpp knows it by the
name ``qwen2``; trained on the model's own conversations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgeteer.core.errors import MissingExtra
from budgeteer.lab.thinker.conversations import Conversation, conversations

VOCABULARY = 1024
LONGEST = 1024
"""Tokens of a conversation; what is longer is cut."""
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Tokens that a decoder leaves out; the first pads, the last ends."""
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Tokens that are text to a reader."""
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text()


def render(conversation: Conversation, *, answered: bool = True) -> str:
    """A conversation as text; with ``answered=False`` its question alone, up to where the assistant begins.

    Raises:
        MissingExtra: without transformers.
    """
    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    messages = conversation.messages
    if not answered:
        last = max(i for i, message in enumerate(messages) if message["role"] == "user")
        messages = messages[: last + 1]
    rendered: Any = render_jinja_template(
        [messages],
        tools=list(conversation.tools) if conversation.tools else None,
        chat_template=TEMPLATE,
        add_generation_prompt=not answered,
        **conversation.options,
    )
    return str(rendered[0][0])  # texts, and where the assistant speaks


def build_tokenizer(seed: int, *, texts: int = 6000) -> Any:
    """Train the tokenizer on the first ``texts`` conversations of a seed; a ``tokenizers.Tokenizer``."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL) - len(TAGS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    marks = re.compile("|".join(map(re.escape, CONTROL + TAGS)))
    pieces = (piece for c in conversations(seed, 0, texts) for piece in marks.split(render(c)))
    tokenizer.train_from_iterator(pieces, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in TAGS])
    return tokenizer


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the files that ``AutoTokenizer`` reads, the chat template among them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    pad, _, end = CONTROL
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": pad,
        "additional_special_tokens": list(CONTROL[1:]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": LONGEST,
        "padding_side": "left",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """A conversation to train on.

    Attributes:
        ids: token ids.
        said: whether the assistant says token i, its end included, in answer to the last question.
    """

    ids: list[int]
    said: list[bool]


class Encoder:
    """Turns conversations into rows.

    Args:
        tokenizer: a ``tokenizers.Tokenizer`` made by :func:`build_tokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._opening = tokenizer.encode("<|im_start|>assistant\n").ids
        self._silent = tokenizer.encode("<think>\n\n</think>\n\n").ids
        self._think = tokenizer.token_to_id("<think>")
        self._end = tokenizer.token_to_id("<|im_end|>")

    def rows(self, chats: Sequence[Conversation]) -> list[EncodedConversation]:
        """One row a conversation; those beyond ``LONGEST`` tokens are cut there."""
        encoded = self._tokenizer.encode_batch([render(chat) for chat in chats])
        return [self._row(e.ids[:LONGEST], chat) for e, chat in zip(encoded, chats, strict=True)]

    def _row(self, ids: list[int], chat: Conversation) -> EncodedConversation:
        said, i, begin = [False] * len(ids), 0, self._opening
        while i < len(ids):
            if ids[i] != self._think or ids[max(0, i - len(begin)) : i] != begin:  # a turn before has no think block
                i += 1
                continue
            if not chat.options["enable_thinking"] and ids[i : i + len(self._silent)] == self._silent:
                i += len(self._silent)  # the template writes an empty think block, the model does not
            end = ids.index(self._end, i) + 1 if self._end in ids[i:] else len(ids)
            said[i:end] = [True] * (end - i)
            i = end
        return EncodedConversation(ids, said)
