"""The rows of a round, by whatever TRL generates with: transformers, or vLLM in its process or on a server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from trl import GRPOTrainer
from trl.extras.profiling import profiling_context

from budgeteer.adapters.trl.sampling import Capped, Row, Sampling, chunks, generating_with, setting
from budgeteer.adapters.trl.slices import Wave
from budgeteer.core.errors import ModelError
from budgeteer.core.plan import I64
from budgeteer.core.steer import Need
from budgeteer.rl.step import Round

AT_ONCE = 64
"""Most requests to a server at once, as in TRL."""


def generated(trainer: Any, sampling: Sampling, work: Round, group: I64, prompts: list[list[int]]) -> list[Row]:
    """The rows of a round that were started, of all processes. Each has its part of the rows and of the budget.

    Args:
        trainer: TRL's.
        sampling: what ends rows.
        work: the round.
        group: [n] of its rows, indices of their prompts.
        prompts: token ids of the rows' prompts.
    """
    mine, processes, n = trainer.accelerator.process_index, trainer.accelerator.num_processes, len(group)
    if trainer.use_vllm and trainer.vllm_mode == "server":  # one process speaks to the server
        mine, processes = 0, 1
    first, last = n * mine // processes, n * (mine + 1) // processes
    budget = None if work.budget is None else work.budget * (last - first) // n
    if not trainer.use_vllm:
        own: list[Row] = []
        for numbers in chunks(
            first, last, trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation
        ):
            left = None if budget is None else budget - sum(len(row.tokens) for row in own)
            if len(numbers := numbers[:left]):
                own += _by_transformers(trainer, sampling, work, group, prompts, numbers, left)
        return list(gather_object(own))
    numbers = np.arange(first, last)[:budget]
    if not len(numbers):
        return list(gather_object([]))
    slices = sampling.slices([prompts[i] for i in numbers.tolist()], work, group, numbers, budget)
    margins = work.steer is not None and Need.MARGIN in work.steer.needs
    while (wave := slices.next()) is not None:
        slices.add(wave, *by_vllm(trainer, wave, margins))
    rows = sampling.rows(slices, numbers, [])
    return rows if trainer.vllm_mode == "server" else list(gather_object(rows))


def turn(
    trainer: Any, sampling: Sampling, prompts: list[list[int]], caps: I64, budget: int | None
) -> tuple[list[list[int]], Any, list[list[float]] | None]:
    """One turn of rows that no steer looks at: tokens, how each ended (a status), and log-probabilities if vLLM tells.

    Args:
        trainer: TRL's.
        sampling: what ends rows.
        prompts: token ids of each.
        caps: [n] most tokens of each.
        budget: of all together, at least one for each; None = no limit.
    """
    if not trainer.use_vllm:
        model, watch = trainer.accelerator.unwrap_model(trainer.model_wrapped), Capped(caps, sampling.ends, budget)
        with generating_with(model, watch.kwargs):
            tokens, _ = GRPOTrainer._generate_single_turn(trainer, prompts, None, {}, 1)
        made = [row[:n] for row, n in zip(tokens, watch.length.tolist(), strict=True)]
        return made, watch.status, None
    slices = sampling.plain(prompts, caps, budget)
    while (wave := slices.next()) is not None:
        slices.add(wave, *by_vllm(trainer, wave, False))
    rows = sampling.rows(slices, np.arange(len(prompts)), [])
    return [row.tokens for row in rows], slices.table.status, [row.logprob or [] for row in rows]


def _by_transformers(
    trainer: Any,
    sampling: Sampling,
    work: Round,
    group: I64,
    prompts: list[list[int]],
    numbers: I64,
    budget: int | None,
) -> list[Row]:
    """The rows of these numbers, by one call of ``generate``."""
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    watch = sampling.watch(model, work, group, numbers, budget)
    with generating_with(model, watch.kwargs):
        asked = [prompts[i] for i in numbers.tolist()]
        tokens, _ = trainer._generate_single_turn(asked, None, {}, trainer.num_generations)
    return sampling.rows(watch, numbers, tokens)


def context_of(trainer: Any) -> int | None:
    """Most tokens of prompt and completion together; None = neither the model nor a server says."""
    known = [getattr(trainer.model.config.get_text_config(), "max_position_embeddings", None)]
    if trainer.use_vllm:
        known.append(_context_of_vllm(trainer))
    return min((n for n in known if n), default=None)


def _context_of_vllm(trainer: Any) -> int | None:
    """vLLM may have been started with less than the model has, and refuses longer requests; None = it does not say."""
    generation = trainer.vllm_generation
    if generation.mode == "colocate":
        return int(generation.llm.llm_engine.model_config.max_model_len)
    said = generation.vllm_client.get_server_info() if trainer.accelerator.is_main_process else None
    told: list[int | None] = [said and said["model_config"].get("max_model_len")]
    return broadcast_object_list(told)[0]  # type: ignore[no-any-return, unused-ignore]


def by_vllm(
    trainer: Any, wave: Wave, margins: bool
) -> tuple[list[list[int]], list[list[float]], list[list[float]] | None]:
    """Tokens of each request, their log-probabilities and, if asked for, the margins of what they were drawn from.

    Args:
        trainer: TRL's, with its ``vllm_generation``. On a server the first process asks for all, and tells the others.
        wave: the requests.
        margins: whether to ask for the two largest probabilities, too.
    """
    generation, state = trainer.vllm_generation, trainer.state
    server = generation.mode == "server"
    prompts = wave.prompts if trainer.accelerator.is_main_process or not server else []
    most = wave.most.tolist()
    with _clear(server):
        if state.global_step != trainer._last_loaded_step:
            with profiling_context(trainer, "sync_weights"):
                generation.sync_weights()
            trainer._last_loaded_step = state.global_step
        length, told = max(most), 2 if margins else 0
        with setting(generation, max_completion_length=length, logprobs=told), capped(generation, most):
            _, tokens, logprobs, ids = generation.generate(
                prompts=prompts, images=None, num_generations=1, profiler=profiling_context(trainer, "vLLM.generate")
            )
    drawn = [
        [_number(each[at.index(token)]) for token, each, at in zip(*row, strict=True)]
        for row in zip(tokens, logprobs, ids, strict=True)
    ]
    gaps = [[_margin(each) for each in row] for row in logprobs] if margins else None
    made = ([list(map(int, row)) for row in tokens], drawn, gaps)
    return broadcast_object_list([made])[0] if server else made  # type: ignore[no-any-return, unused-ignore]


@contextmanager
def _clear(server: bool) -> Iterator[None]:
    """Within the block a server that is gone, which TRL's client has asked six times, is a clear error.

    Raises:
        ModelError: says how to go on.
    """
    try:
        yield
    except Exception as error:
        # requests' own errors are OSErrors, and for a status of HTTP TRL's client raises Exception itself
        if not server or not (isinstance(error, OSError) or type(error) is Exception):
            raise
        raise ModelError(
            f"vLLM's server failed in the middle of a step ({error}); start it again and resume from the last "
            "checkpoint: the rollouts since then are made again and count once",
            billed=False,
        ) from error


@contextmanager
def capped(generation: Any, most: Sequence[int]) -> Iterator[None]:
    """Within the block TRL's object asks vLLM for at most so many tokens of each request, instead of equally many.

    Args:
        generation: ``trl.generation.vllm_generation.VLLMGeneration``.
        most: of the requests, in their order.
    """
    engine = generation.llm if generation.mode == "colocate" else getattr(generation, "vllm_client", None)
    if engine is None or len(set(most)) == 1:
        yield
        return
    generate = engine.generate

    def each(prompts: Any, sampling_params: Any, **more: Any) -> Any:
        params = [sampling_params.clone() for _ in most]
        for own, cap in zip(params, most, strict=True):
            own.max_tokens = cap
        return generate(prompts, sampling_params=params, **more)

    def by_cap(prompts: list[Any], **more: Any) -> dict[str, Any]:
        caps = sorted(set(most))
        rows = [[i for i, own in enumerate(most) if own == cap] for cap in caps]
        with ThreadPoolExecutor(min(len(caps), AT_ONCE)) as pool:
            parts = list(
                pool.map(
                    lambda own, cap: generate(prompts=[prompts[i] for i in own], **{**more, "max_tokens": cap}),
                    rows,
                    caps,
                )
            )
        order = {i: place for place, i in enumerate(i for own in rows for i in own)}
        joined = {name: [value for part in parts for value in part[name]] for name in parts[0]}
        return {name: [values[order[i]] for i in range(len(most))] for name, values in joined.items()}

    with setting(engine, generate=each if generation.mode == "colocate" else by_cap):
        yield


def _number(logprob: float | None) -> float:
    return math.nan if logprob is None else logprob


def _margin(logprobs: Sequence[float | None]) -> float:
    """p(1st) - p(2nd) of the most probable tokens of a distribution."""
    top = sorted((math.exp(_number(each)) for each in logprobs), reverse=True)
    return top[0] - top[1] if len(top) > 1 else 1.0
