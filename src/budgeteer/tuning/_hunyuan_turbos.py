"""Short where short is right, else on from the failed attempt (Hunyuan-TurboS, arXiv 2505.15431)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import PREFIX, check_temperature
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, closed_at_once, example, tags_in, traces
from budgeteer.tuning.protocol import SFT, Builder, Built


def hunyuan_turbos(tries: int = 2, max_tokens: int = MAX_TOKENS, temperature: float = 0.7) -> Builder:
    """Answer without thinking; if that is wrong, let the model think on from its wrong answer until it is right.

    A right short answer is the example as it is. A wrong one becomes the beginning of the thinking, followed by the
    style's word of doubt; a further wrong trace is continued in the same way, ``tries`` times at most. The example is
    the failed attempts and the success as one response, with their number as ``failed``. A question that is never
    answered right has no example.

    In the paper a strong model continues what a model of short chains began, and its text is rewritten in the short
    style; here the model continues itself, and nothing is rewritten. Helps when: most questions need no thinking, and
    the others are solved from where the short answer failed. Failed attempts teach to correct oneself in the open,
    which costs tokens at every question like them.

    Args:
        tries: thoughts on a question, 1 or more.
        max_tokens: cap of what is sampled in each.
        temperature: of the draws.

    Raises:
        InvalidInput: a value outside these; a style that has no word to go on with.
    """
    if tries < 1 or max_tokens < 1:
        raise InvalidInput(f"hunyuan_turbos(tries={tries}, max_tokens={max_tokens}); give 1 or more")
    check_temperature(temperature)

    async def build(task: Task) -> Built:
        if not task.style.wait:
            raise InvalidInput("the style has no word that continues a thinking; use think, or another style with one")
        begun, answer = closed_at_once(task), None
        tags = tags_in(task)
        thought = f"{tags.open}\n" if tags else ""
        for failed in range(tries + 1):
            stage = "short" if not failed else "long"
            drawn = await traces(task, 1, most=max_tokens, temperature=temperature, begun=begun, stage=stage)
            if not drawn:
                break
            trace = drawn[0]
            answer = answer if trace.answer is None else trace.answer
            if trace.right:
                return Built((example(task, trace.text, failed=failed, question=task.question.text),), trace.answer)
            thinking, rest = task.style.split(trace.text)
            # a short answer is thought about; what was thought already goes on where it was
            thought = (thinking if failed else thought + (rest or "").strip()).rstrip()
            begun = thought + task.style.wait
        return Built((), answer)

    return Builder(build, SFT, frozenset({CHECK, PREFIX}))
