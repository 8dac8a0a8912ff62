"""Steers inside vLLM, against the engine of this package: the same steer, seed and weights are the same text.

vLLM itself is not here; a stand-in calls the processor as both of its runners do.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from budgeteer.adapters.vllm_asked import Asked  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.core.registry import part_of  # noqa: E402
from budgeteer.engine.head import load_head, save_head  # noqa: E402
from budgeteer.engine.vocabulary_head import LinearHead  # noqa: E402
from budgeteer.lab.heads.vocabulary import write_into  # noqa: E402
from budgeteer.models.chat import Chat, Message  # noqa: E402
from budgeteer.models.model import Request  # noqa: E402
from budgeteer.models.transformers import Transformers  # noqa: E402
from budgeteer.steer.kit import combine  # noqa: E402
from helpers import vllm_stand_in as stand_in  # noqa: E402
from helpers.folders import random_model  # noqa: E402

CAP, SEED, CLOSE = 20, 5, "</think>"
PROMPT = Chat((Message("user", "What is 2 + 2?"),))


def linear(hidden, outputs, seed, **settings):
    generator = torch.Generator().manual_seed(seed)
    w2 = 2 * torch.randn(hidden, outputs, generator=generator)
    ones = torch.ones(hidden)
    return LinearHead({"mean": 0 * ones, "scale": ones, "w2": w2, "b2": torch.ones(outputs)}, "x", settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random Qwen3 with heads for guidance, ZIP-RC and DiffAdapt in its vocabulary."""
    folder = tmp_path_factory.mktemp("vllm")
    random_model(folder / "model", "qwen3")
    guidance = linear(32, 4, 1, vocab=1024, line_ends=["\n", "e", "s"])  # random text has few line breaks
    kinds = torch.arange(1024) % 2
    guidance.weights["columns"] = torch.cat([kinds, 2 + kinds])
    zip_rc = linear(32, 8, 2, values=[0.0, 1.0], lengths=[0, 4, 8, 16])
    heads = {"budget_guidance": guidance, "zip_rc": zip_rc, "diffadapt_probe": linear(32, 3, 3)}
    write_into(Transformers(folder / "model"), heads, folder / "copy")
    return Transformers(folder / "copy")


@pytest.fixture
def made(model, monkeypatch):
    """Call with a runner (1 or 2) for a processor of the model."""
    stand_in.install(monkeypatch, model.tokenizer)
    adapter = importlib.import_module("budgeteer.adapters.vllm")

    def make(runner, config=None):
        config = config or stand_in.config_of(model)
        where = (torch.device("cpu"), False) if runner == 1 else (stand_in.second_states(),)
        return adapter.Budgeteer(config, *where)

    return make


def params(steer, *, temperature=1.0, group=None, cap=CAP, close=None):
    extra = {"budgeteer_steer": steer} | ({} if group is None else {"budgeteer_group": group})
    extra |= {} if close is None else {"budgeteer_close": close}
    return stand_in.Params(extra, cap, temperature, SEED, eos_token_id=1017)


def ours(model, loop, steer, n=1, *, temperature=1.0, cap=CAP):
    """What the engine of this package samples."""
    request = Request(PROMPT, cap, n, temperature, seed=SEED, steer=steer, close=CLOSE)
    return loop.run(model.generate(request))


def texts(model, tokens):
    return [model.text(row) for row in tokens]


SPECS = [
    "budget-forcing:most=6",
    "budget-forcing:most=9,minimum=6,wait=Wait",
    "truncate:most=5",
    "soft-landing:most=12,likely=400,share=0.7",
    "budget-guidance:reserve=4",
    "diffadapt-probe:reserve=4",
    "mirostat:target=4",
]


def steer_of(text, model):
    name, _, options = text.partition(":")
    if name in ("budget-guidance", "diffadapt-probe", "zip-rc"):
        options = f"head={model.folder}" + ("," if options else "") + options
    return part_of("steer", f"{name}:{options}" if options else name)


@pytest.mark.parametrize("runner", [1, 2])
@pytest.mark.parametrize("text", SPECS)
def test_the_same_text_as_our_own_loop(text, runner, model, made, loop) -> None:
    steer = steer_of(text, model)
    for temperature in (1.0, 0.6, 0.0):
        want = ours(model, loop, steer, temperature=temperature).choices[0]
        plain = loop.run(model.generate(Request(PROMPT, CAP, 1, temperature, seed=SEED))).choices[0]
        asked = stand_in.requests(model, model._encoded(PROMPT), 1, params(text, temperature=temperature))
        got = stand_in.Engine(model, made(runner), runner).run(asked)
        assert texts(model, got) == [want.text]
        if temperature == 1.0:
            assert want.text != plain.text, "the steer did nothing"


@pytest.mark.parametrize("runner", [1, 2])
def test_several_steers_combine(runner, model, made, loop) -> None:
    both = ["budget-forcing:most=8", "budget-guidance:reserve=4"]
    want = ours(model, loop, combine(*(steer_of(text, model) for text in both)))
    asked = stand_in.requests(model, model._encoded(PROMPT), 1, params(both))
    assert texts(model, stand_in.Engine(model, made(runner), runner).run(asked)) == [want.choices[0].text]


@pytest.mark.parametrize("runner", [1, 2])
def test_duets_gate_ends_and_aborts_the_same_rows(runner, model, made, loop) -> None:
    """Early, by the margin of the last token; and late, without an answer. A row that it ends has one token more."""
    ended = set()
    for text in (
        "marker-gate:first=3,last=99,threshold=0.0001,keep_length=0.0",
        "marker-gate:first=99,last=7,keep_abort=0.4",
    ):
        steer = combine(part_of("steer", "budget-forcing:most=4"), part_of("steer", text))
        for seed in range(4):
            request = Request(PROMPT, CAP, 1, seed=seed, steer=steer, close=CLOSE)
            want = loop.run(model.generate(request)).choices[0]
            asked = replace(params(["budget-forcing:most=4", text]), seed=seed)
            got = stand_in.requests(model, model._encoded(PROMPT), 1, asked)
            assert texts(model, stand_in.Engine(model, made(runner), runner).run(got)) == [want.text], (text, seed)
            ended.add((text, want.finish.value))
    assert len(ended) >= 3, ended


@pytest.mark.parametrize("runner", [1, 2])
def test_samples_of_a_group_are_compared(runner, model, made, loop) -> None:
    text, n = "zip-rc:every=3", 4
    want = ours(model, loop, steer_of(text, model), n)
    alone = [ours(model, loop, None, n).choices[i].text for i in range(n)]
    asked = stand_in.requests(model, model._encoded(PROMPT), n, params(text, group="q1"))
    got = texts(model, stand_in.Engine(model, made(runner), runner).run(asked))
    assert got == [choice.text for choice in want.choices] != alone
    processor = made(runner)
    others = stand_in.requests(model, model._encoded(PROMPT), n, params(text, group="q2"))
    both = [*stand_in.requests(model, model._encoded(PROMPT), n, params(text, group="q1")), *others]
    assert texts(model, stand_in.Engine(model, processor, runner).run(both)) == [*got, *got]


@pytest.mark.parametrize("runner", [1, 2])
@pytest.mark.parametrize("how", [{}, {"chunks": True}, {"preempt": 4}], ids=["whole", "chunks", "preempt"])
def test_requests_come_go_and_move(runner, how, model, made, loop) -> None:
    """Steered ones and others at once; a row depends on none of its neighbours, and others are left alone."""
    kinds = [
        params("budget-forcing:most=6"),
        params("truncate:most=5"),
        stand_in.Params(None, 9, 1.0, SEED, eos_token_id=1017),
    ]
    wants = [
        ours(model, loop, part_of("steer", "budget-forcing:most=6")),
        ours(model, loop, part_of("steer", "truncate:most=5")),
        loop.run(model.generate(Request(PROMPT, 9, seed=SEED))),
    ]
    asked, want = [], []
    for wait in (0, 0, 2, 3):
        for kind, response in zip(kinds[: 1 + (wait > 0) * 2], wants, strict=False):
            asked += stand_in.requests(model, model._encoded(PROMPT), 1, kind, [wait])
            want.append(response.choices[0].text)
    processor = made(runner)
    assert texts(model, stand_in.Engine(model, processor, runner, **how).run(asked)) == want
    left = processor._made._steering.groups
    if runner == 1:
        processor.update_state(stand_in.BatchUpdate(0, list(range(8)), [], []))
    else:
        for slot in range(8):
            processor.add_request(slot, stand_in.Params(None, 9))
    assert not left
    assert sorted(processor._made._free) == list(range(8))


def test_a_thinking_that_is_closed_is_not_forced(model, made, loop) -> None:
    plain = loop.run(model.generate(Request(PROMPT, 9, seed=SEED))).choices[0].text
    asked = stand_in.requests(model, model._encoded(PROMPT), 1, params("budget-forcing:most=2", cap=9, close=""))
    assert texts(model, stand_in.Engine(model, made(1), 1).run(asked)) == [plain]


def test_heads_in_the_vocabulary_are_never_drawn_even_by_others(model, made) -> None:
    for runner in (1, 2):
        processor = made(runner)
        assert processor.add_request(0, stand_in.Params(None, 9)) is True
        logits = torch.zeros(2, 1040)
        empty = np.zeros(0, np.int64)
        ctx = stand_in.SimpleNamespace(idx_mapping_np=empty) if runner == 2 else None
        out = processor.apply(logits, ctx)
        assert torch.isneginf(out[:, list(model.never)]).all()
        assert (out[:, :1024] == 0).all()


# what cannot be steered


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"budgeteer_steer": "nothing"}, "unknown steer 'nothing'"),
        ({"budgeteer_steer": "budget-forcing:most=-1"}, "most=-1"),
        ({"budgeteer_steer": "switch-thinking"}, "needs embeddings.*, which a logits processor of vLLM does not offer"),
        ({"budgeteer_steer": "zip-rc:head=/etc/passwd"}, "cannot name a file of the server"),
        ({"budgeteer_steer": 7}, "budgeteer_steer is 7; give a text"),
        ({"budgeteer_close": "x"}, "budgeteer_steer is None; give a text"),
        ({"budgeteer_steer": "answered", "budgeteer_stop": "x"}, "budgeteer_stop is none of budgeteer_steer, "),
    ],
)
def test_requests_are_refused_when_they_are_asked(extra, message, made) -> None:
    kind = type(made(1))
    with pytest.raises(InvalidInput, match=message):
        kind.validate_params(stand_in.Params(extra, 9))
    kind.validate_params(stand_in.Params({"kv_transfer_params": {}}, 9))
    kind.validate_params(stand_in.Params({"budgeteer_steer": ["zip-rc:every=2", "answered"]}, 9))
    with pytest.raises(InvalidInput, match="no structured output and no ignore_eos"):
        kind.validate_params(stand_in.Params({"budgeteer_steer": "answered"}, 9, ignore_eos=True))


@pytest.mark.parametrize("runner", [1, 2])
def test_a_head_that_is_missing_or_reads_states_ends_the_request(runner, model, made, tmp_path, caplog) -> None:
    folder = random_model(tmp_path / "bare", "qwen3")
    bare = Transformers(folder)
    caplog.set_level(logging.ERROR)
    for save in (False, True):
        if save:
            flat = replace(load_head("zip_rc"), fingerprint=bare.inside.fingerprint)
            save_head(flat, folder / "heads" / "zip_rc.safetensors")
        processor = made(runner, stand_in.config_of(bare))
        asked = stand_in.requests(bare, bare._encoded(PROMPT), 1, params("zip-rc"))
        assert stand_in.Engine(bare, processor, runner).run(asked) == [[]]
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "a request with zip-rc was ended: cannot read a head in" in said
    assert "reads hidden states, which vLLM's logits processors do not see" in said


def test_a_head_of_another_model_ends_the_request(model, made, tmp_path, caplog) -> None:
    other = Transformers(random_model(tmp_path / "other", "qwen3", seed=9))
    save_head(load_head("zip_rc", model.folder / "heads"), other.folder / "heads" / "zip_rc.safetensors")
    asked = stand_in.requests(other, other._encoded(PROMPT), 1, params("zip-rc"))
    assert stand_in.Engine(other, made(1, stand_in.config_of(other)), 1).run(asked) == [[]]
    assert f"this one has {other.inside.fingerprint}" in caplog.text


def test_tokens_that_are_not_shown_end_the_request(model, made, caplog) -> None:
    asked = stand_in.requests(model, model._encoded(PROMPT), 1, params("budget-forcing:most=6"))
    got = stand_in.Engine(model, made(1), 1, hidden=True).run(asked)
    assert len(got[0]) == 1
    assert "serve with --no-async-scheduling" in caplog.text


def test_a_steer_that_fails_ends_its_own_requests_only(model, made, loop, caplog, monkeypatch) -> None:
    processor = made(1)
    asked = stand_in.requests(model, model._encoded(PROMPT), 1, params("truncate:most=5"))
    other = stand_in.requests(model, model._encoded(PROMPT), 1, params("budget-forcing:most=6"))
    engine = stand_in.Engine(model, processor, 1)
    real = Asked.steer

    def steer(self, head):
        whole = real(self, head)
        return whole._replace(step=lambda state, now: 1 / 0) if self.steers == ("truncate:most=5",) else whole

    monkeypatch.setattr(Asked, "steer", steer)
    got = texts(model, engine.run([*asked, *other]))
    assert got == ["", ours(model, loop, part_of("steer", "budget-forcing:most=6")).choices[0].text]
    assert "ZeroDivisionError" in caplog.text


def test_made_twice_for_one_engine_it_acts_once(model, made) -> None:
    config = stand_in.config_of(model)
    first, second = made(1, config), made(1, config)
    asked = params("budget-forcing:most=6")
    for processor in (first, second):
        processor.update_state(stand_in.BatchUpdate(1, [], [(0, asked, [1], [])], []))
    assert (first._idle, second._idle) == (False, True)
    logits = torch.randn(1, 1040)
    assert torch.equal(second.apply(logits.clone()), logits)
    assert made(1)._idle is False
    assert first.is_argmax_invariant() is False


def test_it_is_a_processor_of_both_runners(made) -> None:
    kind = type(made(1))
    assert issubclass(kind, stand_in.First)
    assert issubclass(kind, stand_in.Second)
