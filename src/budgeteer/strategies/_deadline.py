"""Answers under a deadline: length and number of samples by the measured speed of a model on its machine."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.device import PUBLISHED, Device, configurations
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.aggregator import majority
from budgeteer.strategies.kit.samples import Sampler


def deadline(
    device: Device | None = None, seconds: float = 60.0, max_tokens: int = 4096, temperature: float = 1.0
) -> Strategy:
    """The cap and the number of samples that are best among those predicted to end within ``seconds``.

    The prediction is the profile's latency model (:mod:`budgeteer.models.latency`) for this question's prompt, with the
    fit's held-out error as a margin. If the profile has measured accuracies, the pair with the highest one is taken;
    else one trace of the longest length that fits: ``O = 1 + (seconds - prefill(I)) / step``. One trace is greedy;
    several are drawn at once, and their majority is the answer.

    Soft: the cap is hard, but nothing watches the clock, so a machine that is busier than it was when it was timed is
    late. The token budget holds as always. Helps where an answer counts only if it comes in time. Does not help where
    the time of a call is mostly waiting in a queue, which no curve of lengths knows.

    Source: EdgeReasoning: Characterizing Reasoning LLM Deployment on Edge GPUs (arXiv 2511.01866).

    Args:
        device: profile of the model on its machine; None = the published one of 1.5B parameters on a Jetson AGX Orin.
        seconds: the deadline of a question.
        max_tokens: cap of a sample, however much time there is.
        temperature: of several samples.

    Raises:
        InvalidInput: no time, or no tokens.
    """
    profile = device or PUBLISHED["jetson-orin-1.5b"]
    if not seconds > 0 or max_tokens < 1:
        raise InvalidInput(f"deadline(seconds={seconds}, max_tokens={max_tokens}); give more than 0 of both")
    rank = majority()

    async def solve(task: Task) -> Answer:
        length = task.model.count(task.style.prompt(task.question.text))
        fitting = configurations([profile], seconds, prompt=max(1, length), most=max_tokens)
        if not fitting:
            return Answer(None, StoppedBy.CAP)
        best = fitting[0]
        warm = temperature if best.parallel > 1 else 0.0
        samples = Sampler(task, max_tokens=best.tokens, temperature=warm)
        await samples.once(best.parallel)
        if not samples.drawn:  # the budget has no room for a sample of this length
            await samples.more(1)
        ranked = rank(samples.answers, [float("nan")] * len(samples.drawn))
        return samples.answer(ranked[0].answer, confidence=ranked[0].weight) if ranked else samples.answer(None)

    return Strategy(solve)
