"""CoT-X: the reasoning of one model, shortened, as the beginning of another one's.

Source: CoT-X: An Adaptive Framework for Cross-Model Chain-of-Thought Transfer and Optimization (arXiv 2511.05747).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.models.chat import continued
from budgeteer.models.embedder import Embed, embedder
from budgeteer.models.model import PREFIX
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.kit.digest import Keep, digest
from budgeteer.strategies.kit.trace import aside, ask, conclude, thinking_stops

REWRITE = """Question: {question}

Notes: {notes}

Write the notes again as one text that reads well. Leave nothing out and add nothing.
Text:"""


def cot_x(
    traces: Mapping[str, str] | None = None,
    tokens: int = 128,
    more: int = 0,
    keep: Keep = "important",
    source_tokens: int = 512,
    embed: Embed | str | None = None,
    rewrite: int = 0,
) -> Strategy:
    """Give the model ``tokens`` tokens of another model's reasoning, let it think ``more``, and ask for the answer.

    The trace is cut into segments, those that state the answer in so many words are left out, the others are scored by
    their likeness to the question, spread along their likeness to each other
    (:func:`budgeteer.strategies.kit.digest.importance`), and those of most importance within ``tokens`` are kept in
    their order: a knapsack, solved exactly. With ``rewrite`` the model first makes one text of them, so that what was
    left out leaves no gaps; a text that its cap cuts is not used. What is kept stands where the model's own thinking
    would begin. The recorded trace was paid for when it was made; here its kept part is read, and counts as input where
    input counts. A question without a recorded trace is first thought about by the model itself, with at most
    ``source_tokens``, which is paid.

    When it helps: a large model's traces are there already, and a small one answers many questions like them or has to
    explain them. When not: the answer needs all steps, so that any cut breaks it; then what was kept misleads.

    Args:
        traces: question id -> trace of another model, as ``budgeteer solve --traces`` records it; None = none.
        tokens: of the reasoning that is kept, by this model's count, >= 0.
        more: tokens that the model may think on, >= 0.
        keep: ``important``, or ``first`` or ``last``, the baselines of truncation.
        source_tokens: cap of an own trace, >= 1.
        embed: a sentence encoder for likeness, by folder or name, such as
            ``sentence-transformers/all-MiniLM-L6-v2``; in Python also a function texts -> vectors; None = words in
            common. Its tokens are not charged.
        rewrite: cap of the text that is made of what is kept, >= 0; 0 = the segments as they are.
    """
    if min(tokens, more, rewrite) < 0 or source_tokens < 1 or keep not in ("important", "first", "last"):
        raise InvalidInput(
            f"cot_x(tokens={tokens}, more={more}, keep={keep!r}, source_tokens={source_tokens}, rewrite={rewrite}); "
            "give 0 or more tokens, 1 or more of a source, and keep important, first or last"
        )
    known = {} if traces is None else traces
    vectors = embedder(embed) if isinstance(embed, str) else embed

    async def solve(task: Task) -> Answer:
        style, question = task.style, task.question
        prompt = style.prompt(question.text)
        source = known.get(question.id)
        if source is None:
            stops = thinking_stops(task)
            piece = await ask(
                task,
                prompt,
                most=source_tokens,
                keep=style.answer_tokens + more,
                stop=stops,
                temperature=0.0,
                stage="source",
            )
            source = piece.text
        else:
            source = reasoning(source, style.close)
        trace = digest(source, question.text, tokens, task.model.count, keep, vectors)
        if rewrite and trace:
            notes = aside(task, REWRITE.format(question=question.text, notes=trace))
            text = await ask(
                task,
                notes,
                most=rewrite,
                keep=style.answer_tokens + more,
                stop=("\n\n",) if isinstance(notes, str) else (),
                temperature=0.0,
                stage="plan",
            )
            trace = (text.text.strip() if text.ended else "") or trace
        opening = "" if isinstance(prompt, str) or prompt.tags is None else prompt.tags.open
        if opening and not trace.startswith(opening):
            trace = f"{opening}\n{trace}"
        piece = await ask(
            task,
            continued(prompt, trace),
            most=more,
            keep=style.answer_tokens,
            stop=thinking_stops(task),
            temperature=0.0,
            stage="think",
        )
        return await conclude(task, prompt, trace + piece.text, piece.stopped_by)

    return Strategy(solve, frozenset({PREFIX}))


def reasoning(trace: str, close: str) -> str:
    """The thinking of a trace: what stands before the closing tag of this style or of the usual one, without its tag.

    >>> reasoning("<think>\\n3+4=7\\n</think>\\n\\nThe answer is 7.", "")
    '3+4=7'
    """
    for marker in (close, "</think>"):
        if marker and marker in trace:
            trace = trace.partition(marker)[0]
            break
    return trace.removeprefix("<think>").strip()


def traces_of(method: str, given: str) -> dict[str, str]:
    """What ``traces=`` on a command line means: the file of a run with ``--traces``; ``none`` is no trace.

    Raises:
        CheckpointError: the file is missing, or has no traces.
    """
    if given == "none":
        return {}
    traces: dict[str, str] = {}
    try:
        for line in Path(given).read_bytes().splitlines():
            row = json.loads(line)
            if row["traces"]:
                traces[str(row["id"])] = str(row["traces"][0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot read traces in {given}: {error}; budgeteer solve --traces --out OUT writes OUT.run/traces.jsonl"
        ) from error
    return traces
