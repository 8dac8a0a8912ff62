"""Examples with spans that are read and not learnt, as tokens for TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from budgeteer.core.errors import InvalidInput


def masked(examples: Iterable[Mapping[str, Any]], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Rows with ``input_ids`` and ``completion_mask``, for ``SFTConfig(completion_only_loss=True)``.

    TRL takes such rows as they are, but minds the mask only if it is told to.

    The mask is 0 for the prompt, and for every token of the completion that overlaps one of its spans ``masked``. TRL
    itself knows prompts and completions, and no spans: those of ``budgeteer data self-braking`` need this.

    Args:
        examples: with ``prompt`` and ``completion``, both texts or both messages, and perhaps ``masked``, spans
            [begin, end) in characters of the completion's text, and ``chat_template_kwargs``.
        tokenizer: a fast one, of the model to be trained.

    Raises:
        InvalidInput: a tokenizer that gives no offsets, or a chat template that writes a completion in other words.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InvalidInput(
            "spans are found by the offsets of tokens, which this tokenizer does not give; use a fast one"
        )
    return [_row(example, tokenizer) for example in examples]


def _row(example: Mapping[str, Any], tokenizer: Any) -> dict[str, list[int]]:
    prompt, completion = example["prompt"], example["completion"]
    if isinstance(completion, str):
        text, whole = completion, prompt + completion + (tokenizer.eos_token or "")
        begin = learnt = len(prompt)
    else:
        text = completion[-1]["content"]
        told = example.get("chat_template_kwargs") or {}
        whole = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False, **told)
        head = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True, **told)
        learnt = next((i for i, (a, b) in enumerate(zip(head, whole, strict=False)) if a != b), len(head))
        begin = whole.rfind(text)
        if begin < 0:
            raise InvalidInput(
                f"the chat template does not write the completion of {example.get('id', 'an example')!r} as it is, so "
                "that its spans are lost; use a template that keeps the thinking, or give texts instead of messages"
            )
    spans = [(begin + first, begin + last) for first, last in example.get("masked") or ()]
    encoded = tokenizer(whole, add_special_tokens=isinstance(completion, str), return_offsets_mapping=True)
    mask = [
        int(first >= learnt and last > first and not any(first < end and last > start for start, end in spans))
        for first, last in encoded["offset_mapping"]
    ]
    return {"input_ids": encoded["input_ids"], "completion_mask": mask}
