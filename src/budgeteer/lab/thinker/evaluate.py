"""Asks the thinking model problems, tools included, under a thinking budget if there is one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from budgeteer.core.errors import MissingExtra
from budgeteer.lab.thinker.conversations import Conversation, user
from budgeteer.lab.thinker.problem import Problem
from budgeteer.lab.thinker.tokens import LONGEST, render
from budgeteer.models.thinker import thinker

SPEAK = 64
"""Tokens that an answer or a tool call may have after the thinking."""
_STATED = re.compile(r"The answer is (?:\\boxed\{(.*?)\}|(.*?))\.(?:\n|$)")
_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ProblemResult:
    """What became of one problem.

    Attributes:
        answer: that was stated, or None.
        right: whether it is the reference.
        thought: tokens of thinking, over all turns, tags not counted.
        said: all tokens that the model wrote, forced ones not counted.
        forced: whether the budget ended the thinking.
        text: all that follows the question, as text.
    """

    answer: str | None
    right: bool
    thought: int
    said: int
    forced: bool
    text: str


def answer_of(text: str) -> str | None:
    r"""The answer that the last line of a text states.

    >>> answer_of("The answer is \\boxed{42}."), answer_of("The answer is 3, 5."), answer_of("Hm.")
    ('42', '3, 5', None)
    """
    numbers = _STATED.findall(text.strip())
    return (numbers[-1][0] or numbers[-1][1]) if numbers else None


def closed_by_force(text: str) -> str:
    """Thinking that is ended where it is, as the chat template would write it.

    >>> closed_by_force("<think>\\n7+5=12\\nSo"), closed_by_force("<think>\\n")
    ('<think>\\n7+5=12\\nSo\\n</think>\\n\\n', '<think>\\n\\n</think>\\n\\n')
    """
    thought = text.removeprefix("<think>").strip("\n")
    return f"<think>\n{thought}\n</think>\n\n"


def called(text: str) -> dict[str, Any] | None:
    """The tool call in a text; None where there is none, or none that can be read."""
    match = _CALL.search(text)
    try:
        call = json.loads(match[1]) if match else None
    except ValueError:
        return None
    return call if isinstance(call, dict) and isinstance(call.get("arguments"), dict) else None


def responded(response: str) -> str:
    """The text of a turn in which a tool responds, up to where the assistant goes on."""
    return f"\n<|im_start|>user\n<tool_response>\n{response}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"


@dataclass(slots=True)
class _Row:
    problem: Problem
    ids: list[int]
    answer: str | None = None
    thought: int = 0
    said: int = 0
    forced: bool = False
    done: bool = False
    texts: list[str] = field(default_factory=list)


class Asker:
    """A thinking model that answers problems in batches.

    Args:
        folder: of the model.
        batch: rows decoded together.

    Raises:
        CheckpointError: a file of the folder is missing.
        MissingExtra: without transformers.
    """

    def __init__(self, folder: Path, *, batch: int = 64) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise MissingExtra("transformers", "hf") from error
        thinker(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.tokenizer = tokenizer
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval()
        self._batch = batch
        self._end, self._close = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "</think>"))

    def ask(
        self,
        problems: Sequence[Problem],
        *,
        thinks: bool = True,
        effort: str = "",
        budget: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[ProblemResult]:
        """Answers in the order of the problems.

        Args:
            problems: with or without tools.
            thinks: whether the template lets it think.
            effort: ``low``, ``medium``, ``high`` or no word.
            budget: most tokens of thinking, over all turns of a problem; then the thinking is closed by force.
            temperature: 0 = greedy.
            seed: of sampling; a sampled answer depends on its batch, too.
        """
        torch.manual_seed(seed)
        options = {"enable_thinking": thinks, **({"reasoning_effort": effort} if effort else {})}
        rows = [self._row(problem, options) for problem in problems]
        order = sorted(
            range(len(rows)), key=lambda i: (rows[i].problem.family, rows[i].problem.level, len(rows[i].ids))
        )
        for start in range(0, len(order), self._batch):
            self._answer([rows[i] for i in order[start : start + self._batch]], thinks, budget, temperature)
        return [
            ProblemResult(
                row.answer, row.answer == row.problem.answer, row.thought, row.said, row.forced, "".join(row.texts)
            )
            for row in rows
        ]

    def _row(self, problem: Problem, options: dict[str, Any]) -> _Row:
        tools = None if problem.tool is None else [problem.tool.schema()]
        ids = self._encode(render(Conversation(problem, [user(problem)], tools, options), answered=False))
        return _Row(problem, ids)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _answer(self, rows: list[_Row], thinks: bool, budget: int | None, temperature: float) -> None:
        for _ in range(3 * max(row.problem.level for row in rows) + 3):  # turns; a check may ask everything again
            going = [row for row in rows if not row.done]
            if not going:
                return
            if thinks:
                self._think(going, budget, temperature)
            for row, new in zip(going, self._write(going, SPEAK, [self._end], temperature), strict=True):
                self._speak(row, new, thinks)

    def _think(self, rows: list[_Row], budget: int | None, temperature: float) -> None:
        """Until the thinking closes, by itself or by force; the opening tag is not of the budget."""
        left = [LONGEST if budget is None else max(0, budget - row.thought) for row in rows]
        opening = len(self._encode("<think>\n"))
        written = self._write(rows, max(left) + opening, [self._close, self._end], temperature)
        for row, new, most in zip(rows, written, left, strict=True):
            kept = new[: most + opening]
            closed = self._close in kept
            row.thought += max(0, len(kept) - opening - closed)
            row.said += len(kept)
            if not closed:
                row.forced = True
                kept = self._encode(closed_by_force(self.tokenizer.decode([t for t in kept if t != self._end])))
            row.ids += kept
            row.texts.append(self.tokenizer.decode(kept))

    def _speak(self, row: _Row, new: list[int], thinks: bool) -> None:
        text = self.tokenizer.decode(new)
        row.said += len(new)
        row.texts.append(text)
        call = called(text) if row.problem.tool is not None else None
        if call is None or new[-1] != self._end or len(row.ids) > 2 * LONGEST - 200:
            row.answer, row.done = answer_of(text.removesuffix("<|im_end|>")), True
            return
        then = responded(row.problem.read(call["arguments"])) + ("" if thinks else "<think>\n\n</think>\n\n")
        row.ids += new + self._encode(then)
        row.texts.append(then)

    @torch.no_grad()
    def _write(self, rows: list[_Row], most: int, ends: list[int], temperature: float) -> list[list[int]]:
        """New tokens of each row, the one that ends it included."""
        pad, width = self.tokenizer.pad_token_id, max(len(row.ids) for row in rows)
        most = max(1, min(most, 2 * LONGEST - width))
        ids = torch.tensor([[pad] * (width - len(row.ids)) + row.ids for row in rows])
        sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}
        out = self.model.generate(
            input_ids=ids,
            attention_mask=(ids != pad).long(),
            max_new_tokens=most,
            do_sample=temperature > 0,
            eos_token_id=ends,
            pad_token_id=pad,
            **sampling,
        )
        generated = []
        for row in out[:, width:].tolist():
            stop = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
            generated.append([token for token in row[: stop + 1] if token != pad])
        return generated
