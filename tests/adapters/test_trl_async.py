"""TRL's AsyncGRPOTrainer with rollouts of a recipe: groups of their own numbers, within a budget."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import math
import queue
import threading
from collections import defaultdict
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("aiohttp")

import transformers  # noqa: E402
from accelerate import PartialState  # noqa: E402
from datasets import Dataset  # noqa: E402

from budgeteer.core.errors import BudgetExceeded, CheckpointError, InvalidInput, ModelError  # noqa: E402
from helpers.trl_tiny import DATA, letters, tiny  # noqa: E402
from helpers.vllm_fake import Engine  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


class Asked:
    """Requests to a tiny model, one at a time."""

    def __init__(self, folder) -> None:
        self.engine, self.lock = Engine(str(folder)), threading.Lock()

    def __call__(self, prompt, most):
        from budgeteer.adapters.trl.async_worker import Completed

        with self.lock:
            tokens, told = self.engine.answer(list(prompt), most, 1.0, 2)
        margins = []
        for each in told:
            best = sorted(each.values(), reverse=True)[:2]
            margins.append(math.exp(best[0]) - math.exp(best[1]))
        logprobs = [each[token] for token, each in zip(tokens, told, strict=True)]
        return Completed(tokens, logprobs, margins, tokens[-1] in self.engine.ends)


def worker_of(folder, **more):
    from budgeteer.adapters.trl.async_worker import BudgetedRolloutWorker

    asked = Asked(folder)
    settings = {
        "dataset": DATA, "reward_funcs": letters, "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
        "ends": asked.engine.ends, "steps": 3, "prompts": 2, "num_generations": 4, "max_tokens": 12, "at_once": 2,
    }  # fmt: skip
    made = BudgetedRolloutWorker(complete=asked, **{**settings, **more})
    return made, asked.engine


def drained(worker) -> list:
    worker.start()
    samples = []
    while not (worker.ended.is_set() and worker.rollout_buffer.empty()):
        with contextlib.suppress(queue.Empty):
            samples.append(worker.rollout_buffer.get(timeout=0.05))
    worker.stop()
    assert worker.error is None
    return samples


def test_groups_have_the_allocators_numbers_and_the_budget_holds(folder) -> None:
    worker, engine = worker_of(folder, recipe="knapsack", budget=250, steps=5)
    samples = drained(worker)
    progress = worker.spending.progress
    assert progress.used == engine.given <= 250
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.group_id].append(sample)
        n = len(sample.input_ids)
        assert len(sample.completion_mask) == len(sample.old_log_probs) == n
        assert (sample.old_log_probs[sample.completion_mask == 1] < 0).all()
        assert (sample.old_log_probs[sample.completion_mask == 0] == 0).all()
    assert len({len(group) for group in groups.values()}) > 1  # ragged
    told = list(worker.metrics_queue.queue)
    assert told[-1]["budget/used"] == progress.used
    assert sum(int(s.completion_mask.sum()) for s in samples) <= progress.used


def spread(completion_ids, **columns):
    """Rewards that hardly ever are equal."""
    return [sum(ids) % 97 / 97 for ids in completion_ids]


def test_grpo_gives_the_advantages_of_trls_own_worker(folder) -> None:
    from trl.experimental.async_grpo.async_rollout_worker import RolloutGroup, TrainingSequence, _AsyncRolloutLoop

    worker, _ = worker_of(folder, steps=2, reward_funcs=spread)
    samples = drained(worker)
    assert len(samples) == 2 * 2 * 4
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.group_id].append(sample)
    PartialState()  # TRL's log asks for it
    theirs = SimpleNamespace(
        reward_funcs=[spread], reward_func_names=["spread"], _env_reward_types=[], _provides_rollout_reward=False
    )
    for group in groups.values():
        n = len(group)
        given = RolloutGroup(
            prompts=[s.prompt for s in group], reward_kwargs={}, completions=[s.completion for s in group],
            completions_ids=[s.input_ids[s.completion_mask == 1].tolist() for s in group],
            completions_sequences=[[TrainingSequence([1], [1], [0.0], str(i))] for i in range(n)],
            tool_call_counts=[0] * n, tool_failure_counts=[0] * n, model_version=0, group_id=0,
            env_rewards=[None] * n, rollout_rewards=[None] * n,
        )  # fmt: skip
        expected = asyncio.run(_AsyncRolloutLoop._score_group(theirs, given))
        assert [s.advantage for s in group] == pytest.approx([e.advantage for e in expected], abs=1e-6)
        assert [s.metrics for s in group] == [pytest.approx(e.metrics) for e in expected]


def test_what_stops_the_worker_is_told_to_the_trainer(folder) -> None:
    def broken(**columns):
        raise ArithmeticError("of the verifier itself")

    worker, _ = worker_of(folder, reward_funcs=broken)
    worker.start()
    worker.ended.wait(300)
    with pytest.raises(RuntimeError, match="of the verifier itself"):
        worker.check_health(300.0)
    worker.stop()
    worker, _ = worker_of(folder, reward_funcs=lambda **columns: None)
    worker.start()
    worker.ended.wait(300)
    assert isinstance(worker.error, InvalidInput)
    assert "returned None for 8 completions" in str(worker.error)
    worker, _ = worker_of(folder, recipe="tempo")
    worker.start()
    worker.ended.wait(300)
    with pytest.raises(InvalidInput, match="has an advantage for each token"):
        raise worker.error
    with pytest.raises(BudgetExceeded, match="give at least"):
        worker_of(folder, budget=3)
    with pytest.raises(InvalidInput, match="12 prompts in the data set, 40"):
        worker_of(folder, prompts=40)
    with pytest.raises(InvalidInput, match="has a loss of its own"):
        worker_of(folder, recipe="gspo")
    with pytest.raises(InvalidInput, match="does not hand over twice"):
        worker_of(folder, recipe="uniform-answer-stop:replay=1")


TALK = [{"role": "user", "content": "What is 2 plus 3?"}]


def without(folder, name: str):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    setattr(tokenizer, name, None)
    return tokenizer


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"recipe": None}, "recipe=None; give a recipe or its name"),
        ({"num_generations": 1}, "num_generations is 1; give a whole number from 2"),
        ({"reward_funcs": []}, "reward_funcs is empty"),
        ({"reward_funcs": ["letters"]}, "the reward function 'letters' is none; give functions"),
        ({"reward_funcs": [torch.nn.Identity()]}, r"the reward function Identity\(\) is none; .* call a model in one"),
        ({"dataset": DATA.rename_column("prompt", "question")}, "no column 'prompt'.*; rename"),
        ({"dataset": DATA.select([])}, "the data set is empty"),
        ({"dataset": DATA.to_iterable_dataset()}, "load it without streaming"),
        ({"dataset": Dataset.from_dict({"prompt": ["What?"] * 3 + [None]})}, "row 3 of the data set is None"),
        ({"dataset": Dataset.from_dict({"prompt": [5] * 4})}, "row 0 of the data set is 5"),
        ({"dataset": Dataset.from_dict({"prompt": [TALK] * 4}), "tokenizer": "chat_template"}, "no chat template"),
        ({"tokenizer": "eos_token", "ends": None}, "has no end of a sequence"),
        ({"answer": ""}, "answer=''; give the regular expression"),
        ({"close": 5}, "close=5; give the text"),
    ],
)
def test_what_a_worker_cannot_do_is_refused_when_it_is_made(folder, more, message) -> None:
    if name := more.get("tokenizer"):
        more = {**more, "tokenizer": without(folder, name)}
    with pytest.raises(InvalidInput, match=message) as raised:
        worker_of(folder, **more)
    assert "\n" not in str(raised.value)


def args_of(**more) -> SimpleNamespace:
    settings = {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "world_size": 1, "token_budget": 0,
        "weight_sync_steps": 1, "max_staleness": 4,
    }  # fmt: skip
    return SimpleNamespace(**{**settings, **more})


def test_the_callback_raises_what_stopped_the_worker(folder) -> None:
    """An error of a reward function in the second step is no end of the budget."""
    calls = []

    def breaks(completions, **columns):
        calls.append(1)
        if len(calls) > 1:
            raise ArithmeticError("of the verifier itself")
        return [0.5 * (i % 2) for i in range(len(completions))]

    worker, _ = worker_of(folder, reward_funcs=breaks)
    worker.start()
    worker.ended.wait(300)
    callback, control = worker.callback(), SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(is_world_process_zero=True)
    assert worker.rollout_buffer.qsize() == 8
    callback.on_step_end(args_of(), state, control)  # there is another step's worth
    assert not control.should_training_stop
    while not worker.rollout_buffer.empty():
        worker.rollout_buffer.get()
    with pytest.raises(ArithmeticError, match="of the verifier itself"):
        callback.on_step_end(args_of(), state, control)
    worker.stop()


def test_settings_that_would_hang_or_throw_rollouts_away_are_refused(folder) -> None:
    """A step of the recipe has 2 x 4 rollouts: with two an optimiser step, 8 wait and 8 are made, 16 / 2 versions."""
    worker, _ = worker_of(folder)
    callback = worker.callback()
    for budget in (None, 4096):
        with pytest.raises(InvalidInput, match="set token_budget=0"):
            callback.on_init_end(args_of(token_budget=budget), None, None)
    with pytest.raises(InvalidInput, match="set max_staleness=8"):
        callback.on_init_end(args_of(gradient_accumulation_steps=1), None, None)
    callback.on_init_end(args_of(gradient_accumulation_steps=1, weight_sync_steps=2), None, None)
    assert worker.rollout_buffer.maxsize == 8
    callback.on_init_end(args_of(gradient_accumulation_steps=9), None, None)
    assert worker.rollout_buffer.maxsize == 18  # what the callback waits for has room


def test_a_worker_that_is_stopped_sends_no_further_requests(folder) -> None:
    """One request at a time: the one that runs is waited for, the other seven of the wave are not sent."""
    from budgeteer.adapters.trl.async_worker import Completed

    begun, go, sent = threading.Event(), threading.Event(), []

    def slow(prompt, most):
        sent.append(most)
        begun.set()
        go.wait(30)
        return Completed([0], [-1.0], [0.5], True)

    worker, _ = worker_of(folder, at_once=1)
    worker._complete = slow
    worker.start()
    assert begun.wait(30)
    worker.check_health(0.0)  # a request may take longer than any heartbeat
    threading.Timer(0.3, go.set).start()
    worker.stop()
    assert len(sent) <= 2
    assert worker.error is None


def test_what_a_server_says_of_a_refused_request_is_in_the_error() -> None:
    from budgeteer.adapters.trl.async_worker import VLLMServer
    from helpers.upstream import Upstream, answer

    async def refuses(server, writer, path, body):
        assert (path, body["max_tokens"]) == ("/v1/completions", 4)
        await answer(writer, 400, {"error": {"message": "the context has 64 tokens"}})

    async def whole() -> None:
        async with Upstream(refuses) as upstream:
            asked = VLLMServer(upstream.url.removesuffix("/v1"), "m", timeout=30)
            with pytest.raises(ModelError, match=r"answered 400 .*the context has 64 tokens"):
                await asyncio.to_thread(asked, [1], 4)

    asyncio.run(whole())


def test_a_prompt_that_the_servers_context_has_no_room_for_is_refused_at_the_start(folder) -> None:
    from budgeteer.adapters.trl.async_worker import VLLMServer
    from helpers.upstream import Upstream, answer

    async def models(server, writer, path, body):
        await answer(writer, 200, {"data": [{"id": "other", "max_model_len": 4}, {"id": "m", "max_model_len": 16}]})

    worker, _ = worker_of(folder)
    with Upstream() as upstream:
        upstream.reads = models
        worker._complete = VLLMServer(upstream.url.removesuffix("/v1"), "m", timeout=30)
        with pytest.raises(InvalidInput, match=r"row \d+ of the data set .* 16 positions"):
            worker.start()


def said(tokens: list[int]) -> dict:
    told = {"token_logprobs": [-0.5] * len(tokens), "top_logprobs": [{"a": -0.5, "b": -1.5}] * len(tokens)}
    return {"choices": [{"token_ids": tokens, "finish_reason": "stop", "logprobs": told}]}


class Clock:
    """Time that passes in pauses alone."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_a_request_is_sent_again_to_a_server_that_hiccups_and_not_to_one_that_is_gone(monkeypatch) -> None:
    """Not able to for now, the connection cut in the answer, an answer."""
    from budgeteer.adapters.trl import vllm_server
    from helpers.upstream import Upstream, answer

    async def busy(server, writer, path, body):
        await answer(writer, 503, {"error": {"message": "not now"}})

    async def cut(server, writer, path, body):
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')
        await writer.drain()
        writer.close()

    async def works(server, writer, path, body):
        await answer(writer, 200, said([3, 4]))

    with Upstream(busy, cut, works) as upstream:
        url = upstream.url.removesuffix("/v1")
        monkeypatch.setattr(vllm_server, "time", clock := Clock())
        got = vllm_server.VLLMServer(url, "m", timeout=30)([1], 4)
        assert (got.tokens, got.ended) == ([3, 4], True)
        assert got.margins == pytest.approx([math.exp(-0.5) - math.exp(-1.5)] * 2)
        assert clock.pauses == [1.0, 2.0]
        assert len({body["seed"] for body in upstream.bodies}) == 1
    monkeypatch.setattr(vllm_server, "time", clock := Clock())
    with pytest.raises(ModelError, match=r"gave no answer .* for 7 s; start the server again and resume"):
        vllm_server.VLLMServer(url, "m", timeout=30, patience=10)([1], 4)
    assert clock.pauses == [1.0, 2.0, 4.0]


def test_after_a_server_that_died_the_resumed_worker_goes_on_with_prompts_and_bill(folder, tmp_path) -> None:
    """It dies in the third of four steps; a checkpoint was written after the second one."""
    whole, _ = worker_of(folder, steps=4, budget=400)
    drained(whole)
    worker, _ = worker_of(folder, steps=4, budget=400)
    asked = worker._complete

    def dies(prompt, most):
        if worker.spending.progress.step == 2:
            raise ModelError("the server is gone", billed=False)
        return asked(prompt, most)

    worker._complete = dies
    worker.start()
    while not worker.ended.wait(0.01):
        with contextlib.suppress(queue.Empty):
            worker.rollout_buffer.get_nowait()
    args = args_of(output_dir=str(tmp_path))
    state = SimpleNamespace(is_world_process_zero=True, global_step=2)
    worker.callback().on_save(args, state, None)
    with pytest.raises(RuntimeError, match="the server is gone"):
        worker.check_health(1.0)
    resumed, own = worker_of(folder, steps=4, budget=400)
    resumed.callback().on_train_begin(args, state, None)
    assert resumed.spending.progress.used == worker.spending.progress.used > 0
    drained(resumed)
    progress = resumed.spending.progress
    assert worker.spending.progress.used + own.given == progress.used <= 400
    assert [[*row["by_key"]] for row in progress.steps_log] == [
        [*row["by_key"]] for row in whole.spending.progress.steps_log
    ]
    other, _ = worker_of(folder, steps=4, budget=500)
    with pytest.raises(CheckpointError, match="tokens: 500 here, 400 there"):
        other.callback().on_train_begin(args, state, None)
    state.global_step = 3
    with pytest.raises(CheckpointError, match=r"with worker\.callback"):
        other.callback().on_train_begin(args, state, None)


def plain_attention(query, key, value, cu_q, cu_k, most_q, most_k, softmax_scale, causal, window_size):
    """What the kernel of FlashAttention 3 computes, one sequence at a time; for a test without a GPU."""
    out = torch.zeros_like(query)
    for (a, b), (c, d) in zip(itertools.pairwise(cu_q), itertools.pairwise(cu_k), strict=True):
        q, k, v = (x.transpose(0, 1) for x in (query[a:b], key[c:d], value[c:d]))
        k, v = (x.repeat_interleave(len(q) // len(x), 0) for x in (k, v))
        scores = q @ k.transpose(1, 2) * softmax_scale
        seen = torch.arange(d - c)[None] <= torch.arange(b - a)[:, None] + (d - c) - (b - a)
        out[a:b] = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(0, 1)
    return out


@pytest.mark.slow
def test_the_real_trainer_learns_from_it_and_ends_with_the_budget(folder, tmp_path, monkeypatch) -> None:
    """TRL's AsyncGRPOTrainer itself, on the CPU: its attention kernel is another one, and nobody asks for the GPU's
    name."""
    from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, async_grpo_trainer, packing

    from budgeteer.adapters.trl.async_worker import NoWeightTransfer

    kernel = SimpleNamespace(flash_attn_varlen_func=plain_attention)
    monkeypatch.setattr(packing, "_flash_attn", lambda: kernel)
    monkeypatch.setattr(async_grpo_trainer, "get_peak_flops_per_device", lambda *given: None)
    worker, engine = worker_of(folder, budget=220, steps=4)
    args = AsyncGRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=50,
        num_generations=4, max_completion_length=12, token_budget=0, use_cpu=True, bf16=False, report_to=[],
        save_strategy="no", disable_tqdm=True, learning_rate=1e-2, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = AsyncGRPOTrainer(
        str(folder), letters, args, DATA, rollout_worker=worker, weight_transfer=NoWeightTransfer(),
        callbacks=[worker.callback()],
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    start = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    trainer.train()
    assert 2 <= trainer.state.global_step < 50
    assert worker.spending.progress.used == engine.given <= 220
    now = torch.cat([p.detach().flatten() for p in trainer.accelerator.unwrap_model(trainer.model).parameters()])
    assert not torch.equal(start, now)
    first = next(row for row in trainer.state.log_history if "ratio" in row)
    assert first["ratio"] == pytest.approx(1.0, abs=1e-3)  # the tokens' log-probabilities are the trainer's
    assert first["budget/used"] > 0


def test_the_worker_has_what_trls_protocol_asks_for() -> None:
    from trl.experimental.async_grpo import async_grpo_trainer as theirs

    from budgeteer.adapters.trl.async_worker import BudgetedRolloutWorker, NoWeightTransfer

    pairs = [
        (theirs.RolloutWorkerProtocol, BudgetedRolloutWorker),
        (theirs.WeightTransferProtocol, NoWeightTransfer),
    ]
    for protocol, ours in pairs:
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_"):
                assert list(inspect.signature(method).parameters) == list(
                    inspect.signature(getattr(ours, name)).parameters
                ), name
    fields = set(theirs.RolloutSample.__dataclass_fields__)
    assert fields == {
        "prompt", "completion", "input_ids", "completion_mask", "old_log_probs", "advantage", "model_version",
        "group_id", "metrics", "enqueued_at",
    }  # fmt: skip
