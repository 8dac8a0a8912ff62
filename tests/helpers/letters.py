"""A tokenizer of letters, for tests that read texts."""

from __future__ import annotations

from collections.abc import Sequence


class Letters:
    """A tokenizer: token n is the letter of number n, 0 ends a row."""

    eos_token_id, chat_template = 0, "{% <think> %}{{ '<think>' }}</think>"

    def __len__(self) -> int:
        return 128

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": list(map(ord, text))}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))

    def batch_decode(self, rows: Sequence[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        return [self.decode([i for i in row if i or not skip_special_tokens]) for row in rows]
