"""TRL's trainer with vLLM: rows in slices, within the budget, and as steers want them. The engine is a fake."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from trl.generation import vllm_client, vllm_generation  # noqa: E402

from budgeteer.adapters.transformers import Part  # noqa: E402
from budgeteer.adapters.trl.slices import Slices, Told  # noqa: E402
from budgeteer.core.errors import InvalidInput, ModelError  # noqa: E402
from budgeteer.core.plan import ABORTED, CUT, ENDED, FINISHED  # noqa: E402
from budgeteer.core.steer import Internals, Rows  # noqa: E402
from budgeteer.engine.table import ENDS, Marks, marks_of_text  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.steer import answered, budget_forcing, marker_gate, soft_landing  # noqa: E402
from helpers.trl_tiny import config, tiny, trained, weights  # noqa: E402
from helpers.vllm_fake import LLM, Client, Engine, installed  # noqa: E402

PIECES = (*"abcdefgh", "</t>", "]", "<end>")
"""Texts of the tokens of the engine that counts: 10 ends the sequence."""
END = 10


def inside() -> Internals:
    return Internals(None, PIECES, END, lambda text: [8] if text == "</t>" else [])


def counted(slices: Slices, texts: list[list[int]]) -> list[tuple[list[int], int]]:
    """The slices of an engine that says these tokens, whatever it is asked; what was asked for: lengths and caps."""
    asked = []
    while (wave := slices.next()) is not None:
        tokens, told = [], []
        for row, prompt, most in zip(wave.rows.tolist(), wave.prompts, wave.most.tolist(), strict=True):
            own = texts[row][len(prompt) - 1 :][:most]  # prompts are one token long
            assert prompt[1:] == slices.table.tokens[row, : len(prompt) - 1].tolist()
            tokens.append(own)
            told.append([-0.5] * len(own))
        asked.append(([len(prompt) - 1 for prompt in wave.prompts], sum(wave.most.tolist())))
        slices.add(wave, tokens, told, [[0.9] * len(own) for own in tokens])
    return asked


def ends() -> Marks:
    codes = np.zeros(len(PIECES), np.uint8)
    codes[END] = ENDS
    return Marks(codes, ())


def test_rows_share_a_budget_in_waves_and_never_pass_it() -> None:
    """By hand: 12 tokens for three rows of at most 8. First 4 each; then 12 - 4 - 2 - 4 = 2 for the two that run."""
    texts = [[0] * 20, [1, END], [2] * 20]
    slices = Slices([[0]] * 3, np.array([8, 8, 8]), ends(), 1.0, 12)
    assert counted(slices, texts) == [([0, 0, 0], 12), ([4, 4], 2)]
    assert slices.length.tolist() == [5, 2, 5]
    assert slices.table.status.tolist() == [CUT, ENDED, CUT]
    enough = Slices([[0]] * 3, np.array([8, 5, 8]), ends(), 1.0, 21)
    assert counted(enough, texts) == [([0, 0, 0], 21)]
    assert enough.length.tolist() == [8, 2, 8]


@pytest.mark.parametrize("seed", range(20))
def test_no_draw_of_rows_caps_and_budgets_passes_the_budget(seed) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    budget = int(rng.integers(n, 120))
    texts = [rng.integers(0, len(PIECES), 80).tolist() for _ in range(n)]
    steer = [None, answered(), marker_gate(3.0, 20.0, keep_abort=0.5), budget_forcing(9, reserve=4)][seed % 4]
    told = steer and Told(steer, inside(), Part(Rows(("a",) * n, np.full(n, 40), seed), np.zeros(n, np.int64), 0))
    marks = marks_of_text(inside(), [END], "</t>", (), "]") if steer else ends()
    slices = Slices([[0]] * n, rng.integers(1, 41, n), marks, 1.0, budget, told)
    given = 0
    while (wave := slices.next()) is not None:
        assert given + wave.most.sum() <= budget
        tokens = [texts[i][:most] for i, most in zip(wave.rows.tolist(), wave.most.tolist(), strict=True)]
        tokens = [row[: row.index(END) + 1] if END in row else row for row in tokens]
        given += sum(map(len, tokens))
        slices.add(wave, tokens, [[0.0] * len(row) for row in tokens], [[0.9] * len(row) for row in tokens])
        given = max(given, int(slices.length.sum() + slices.lost.sum()))  # forced tokens are paid for, too
    assert given <= budget
    assert (slices.length <= slices.table.cap).all()


def steered(steer, texts: list[list[int]], cap: int = 40, budget: int | None = None) -> Slices:
    n = len(texts)
    told = Told(steer, inside(), Part(Rows(("a",) * n, np.full(n, cap), 1), np.zeros(n, np.int64), 0))
    slices = Slices([[0]] * n, np.full(n, cap), marks_of_text(inside(), [END], "</t>", (), r"b\]"), 1.0, budget, told)
    counted(slices, texts)
    return slices


def test_a_steer_ends_a_row_where_it_would_have_and_what_follows_is_lost() -> None:
    """Thinking of three tokens, an answer at the sixth one: of a slice of 16, ten are lost."""
    texts = [[0, 0, 8, 1, 1, 9] + [0] * 40, [0] * 60]
    slices = steered(answered(), texts)
    assert slices.length.tolist() == [6, 40]
    assert slices.lost.tolist() == [10, 0]
    assert slices.table.status.tolist() == [FINISHED, CUT]
    assert slices.table.answered.tolist() == [6, -1]
    gate = steered(marker_gate(0.0, 18.0, keep_abort=1e-9), texts)
    assert gate.table.status.tolist() == [FINISHED, ABORTED]
    assert gate.length.tolist() == [6, 18]
    assert gate.lost.tolist() == [10, 14]  # the margin of 0.9 exceeds the threshold; the second row in its second slice


def test_a_steer_forces_tokens_and_the_row_goes_on_behind_them() -> None:
    """Thinking is closed by force after five tokens; what the engine had in their place is lost, and it is asked anew
    with the forced token in the prompt."""
    slices = steered(budget_forcing(5), [[0] * 5 + [7, 1, 9, END]])
    assert slices.table.tokens[0, : slices.length[0]].tolist() == [0, 0, 0, 0, 0, 8, 1, 9, END]
    assert slices.table.forced[0, :9].tolist() == [False] * 5 + [True] + [False] * 3
    assert slices.table.status.tolist() == [ENDED]
    assert slices.lost.tolist() == [4]


def test_an_engine_that_gives_more_than_it_was_asked_for_is_an_error() -> None:
    slices = Slices([[0]], np.array([4]), ends(), 1.0, None)
    wave = slices.next()
    assert wave is not None
    with pytest.raises(ModelError, match="5 tokens for a request with max_tokens=4"):
        slices.add(wave, [[0] * 5], [[0.0] * 5])


def test_a_request_that_the_engine_cut_is_no_end_of_its_row() -> None:
    """Short without an end of sequence, empty, short with an end that only the engine knows, and one at its cap."""
    slices = Slices([[0]] * 4, np.array([4, 4, 4, 2]), ends(), 1.0, None)
    wave = slices.next()
    assert wave is not None
    tokens = [[0, 0], [], [0, 7], [0, 7]]
    told = [[0.0] * len(row) for row in tokens]
    with pytest.raises(ModelError, match="1 answers to 4 requests"):
        slices.add(wave, tokens[:1], told[:1])
    slices.add(wave, tokens, told, ended=[False, False, True, True])
    assert slices.table.status.tolist() == [CUT, CUT, ENDED, ENDED]
    assert slices.length.tolist() == [2, 0, 2, 2]
    silent = Slices([[0]] * 2, np.array([4, 4]), ends(), 1.0, None)
    wave = silent.next()
    assert wave is not None
    silent.add(wave, [[0, 0], [0, END]], [[0.0] * 2] * 2)
    assert silent.table.status.tolist() == [CUT, ENDED]
    assert silent.next() is None


# the trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


def engine_of(mode: str):
    (made,) = Client.made if mode == "server" else LLM.made
    return made.engine


def run(folder, out, monkeypatch, mode, *, recipe="grpo", budget=None, settings=None, **more):
    installed(monkeypatch, folder)
    args = config(out, use_vllm=True, vllm_mode=mode, **{"max_steps": 2, **(settings or {})})
    made = trained(folder, args, recipe=recipe, budget=budget, **more)
    return made, engine_of(mode)


@pytest.mark.parametrize("mode", ["server", pytest.param("colocate", marks=pytest.mark.slow)])
def test_the_engine_generates_what_is_counted_with_the_weights_of_the_step(folder, tmp_path, monkeypatch, mode) -> None:
    """Several rounds of ragged groups under a budget: every token that the engine generated is on the bill."""
    made, engine = run(folder, tmp_path, monkeypatch, mode, recipe="reinforce-ada-balance", budget=140)
    progress = made.spending.progress
    assert progress.used == engine.given <= 140
    assert len(engine.calls) > len(progress.steps_log) == engine.updates == 2
    now = torch.cat([p.detach().flatten() for p in engine.model.parameters()])
    assert not torch.equal(now, weights(made))  # those of the step before the last update
    history = [row for row in made.state.log_history if "sampling/sampling_logp_difference/max" in row]
    assert len(history) == 2
    assert all(row["sampling/sampling_logp_difference/max"] < 1e-4 for row in history)  # of the same weights


@pytest.mark.parametrize("mode", [pytest.param("server", marks=pytest.mark.slow), "colocate"])
def test_caps_of_requests_differ(folder, tmp_path, monkeypatch, mode) -> None:
    """Each prompt's own cap reaches the engine, in one call a wave, and outputs come back in order."""
    base = recipes.get("grpo").allocator

    def allocate(budget, items, state, *, rng):
        plan = base.allocate(budget, items, state, rng=rng)
        return replace(plan, max_tokens=np.arange(len(items)) % 3 * 2 + 3)

    recipe = replace(recipes.get("grpo"), allocator=base._replace(allocate=allocate))
    settings = {"max_steps": 1, "per_device_train_batch_size": 8}
    seen = []

    def reward(prompts, completion_ids, **columns):
        seen.extend(zip(prompts, map(tuple, completion_ids), strict=True))
        return [float(len(ids)) for ids in completion_ids]

    made, engine = run(folder, tmp_path, monkeypatch, mode, recipe=recipe, settings=settings, reward_funcs=reward)
    assert {most for _, most in engine.asked} == {3, 5, 7}
    assert len(engine.calls) == (1 if mode == "colocate" else 3)
    caps = dict(zip(dict.fromkeys(prompt for prompt, _ in seen), (3, 5, 7, 3), strict=True))
    assert all(len(ids) <= caps[prompt] for prompt, ids in seen)
    assert made.spending.progress.used == engine.given


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["server", "colocate"])
@pytest.mark.parametrize("recipe", ["duet", "uniform-answer-stop", "budget-forcing"])
def test_recipes_with_steers_stay_within_their_budgets(folder, tmp_path, monkeypatch, mode, recipe) -> None:
    settings = {"max_completion_length": 48, "max_steps": 3}
    made, engine = run(
        folder, tmp_path, monkeypatch, mode, recipe=recipe, budget=600, settings=settings, answer="e", close=""
    )
    progress = made.spending.progress
    forced = sum(row["used"] for row in progress.steps_log) - engine.given
    assert 0 < progress.used <= 600
    assert forced >= 0  # tokens that a steer put there are counted, and the engine did not generate them
    if recipe == "uniform-answer-stop":
        assert forced == 0
        assert progress.wasted > 0  # what the engine generated behind an answer


@pytest.mark.parametrize(
    ("more", "settings", "message"),
    [
        ({"recipe": replace(recipes.get("grpo"), steer=soft_landing(9))}, {}, "needs logits, which vLLM in training"),
        ({}, {"generation_kwargs": {"seed": 1}}, "begin generation_kwargs anew"),
        ({}, {"vllm_structured_outputs_regex": "a*"}, "begin vllm_structured_outputs_regex anew"),
        ({}, {"vllm_tensor_parallel_size": 2}, "use vllm_mode='server'"),
        ({}, {"vllm_max_model_length": 13}, "exceeds the model's 13 positions"),
    ],
)
def test_what_vllm_cannot_do_is_refused(folder, tmp_path, monkeypatch, more, settings, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(folder, tmp_path, monkeypatch, "colocate", settings=settings, **more)


def test_a_server_with_less_context_than_the_model_refuses_no_request_later(folder, tmp_path, monkeypatch) -> None:
    """As the real one, started with ``--max-model-len``: it refuses longer requests, in the middle of a step."""
    monkeypatch.setattr(Engine, "context", 13)
    with pytest.raises(InvalidInput, match="exceeds the model's 13 positions"):
        run(folder, tmp_path, monkeypatch, "server")


@pytest.mark.parametrize("fault", [ConnectionError("refused"), Exception("Request failed: 500, it is dead")])
def test_a_server_that_dies_in_a_step_is_a_clear_error_and_the_resumed_run_is_the_same(
    folder, tmp_path, monkeypatch, fault
) -> None:
    """The second generation has several rounds; it dies in the last of them. Draws are a function of the request here,
    as no checkpoint has the state of the engine's generator."""
    answer, post, asked = Engine.answer, Client._post, Counter()

    def drawn(self, prompt, most, *more):
        key = self, self.updates, tuple(prompt), most
        asked[key] += 1
        self.random.manual_seed(asked[key] + 1009 * (most + sum(i * token for i, token in enumerate(prompt, 1))))
        return answer(self, prompt, most, *more)

    monkeypatch.setattr(Engine, "answer", drawn)
    more = {"recipe": "reinforce-ada-balance", "budget": 140}
    saved = {"save_strategy": "steps", "save_steps": 1}
    whole, engine = run(folder, tmp_path / "whole", monkeypatch, "server", settings=saved, **more)
    calls = len(engine.calls)

    def dies(self, url, **given):
        if len(self.engine.calls) == calls - 1:
            raise fault
        return post(self, url, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "_post", dies)
        with pytest.raises(ModelError, match=r"failed in the middle of a step .* resume from the last checkpoint"):
            run(folder, tmp_path / "dies", patch, "server", settings=saved, **more)
    last = str(tmp_path / "dies" / "checkpoint-1")
    again, _ = run(folder, tmp_path / "dies", monkeypatch, "server", settings=saved, resume=last, **more)
    assert torch.equal(weights(whole), weights(again))
    assert any(row.get("grad_norm", 0) > 0 for row in again.state.log_history[-2:])
    assert whole.spending.progress.steps_log == again.spending.progress.steps_log


@pytest.mark.slow
def test_an_engine_that_passes_its_caps_ends_the_run(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Engine, "more", 1)
    with pytest.raises(ModelError, match="look for a setting of the engine"):
        run(folder, tmp_path, monkeypatch, "server", budget=100)


def test_trl_still_asks_vllm_as_the_fake_is_asked() -> None:
    """The names that this package and the fake rely on, in the installed TRL."""
    generate = inspect.signature(vllm_generation.VLLMGeneration.generate)
    assert list(generate.parameters) == ["self", "prompts", "images", "num_generations", "profiler"]
    client = inspect.signature(vllm_client.VLLMClient.generate)
    assert {"prompts", "features", "n", "max_tokens", "logprobs"} <= client.parameters.keys()
    for name in ("check_server", "init_communicator", "update_named_params", "reset_prefix_cache", "get_server_info"):
        theirs = inspect.signature(getattr(vllm_client.VLLMClient, name)).parameters
        assert len(theirs) == len(inspect.signature(getattr(Client, name)).parameters), name
    source = inspect.getsource(vllm_generation.VLLMGeneration)
    for used in (
        "self.llm.generate(vllm_prompts, sampling_params=sampling_params, use_tqdm=False)",
        "max_completion_length = self.max_completion_length",
        '"logprobs": self.logprobs',
        "self.vllm_client.generate(",
    ):
        assert used in source
