"""Heads of models of your own: the collection and what stops it, rows of a vocabulary, and the command."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from budgeteer import cli  # noqa: E402
from budgeteer.core.errors import CheckpointError, InvalidInput, ModelError  # noqa: E402
from budgeteer.core.steer import Snapshot  # noqa: E402
from budgeteer.engine.head import HEADS, load_head, own_head, save_head  # noqa: E402
from budgeteer.engine.vocabulary_head import LinearHead  # noqa: E402
from budgeteer.lab.heads.fit import Form, outputs_of  # noqa: E402
from budgeteer.lab.heads.traces import UNKNOWN, Collection, WatchedRows, collect  # noqa: E402
from budgeteer.lab.heads.vocabulary import write_into  # noqa: E402
from budgeteer.models.chat import Chat, Message  # noqa: E402
from budgeteer.models.model import Request  # noqa: E402
from budgeteer.models.policy import load_policy  # noqa: E402
from budgeteer.models.reasoner import Reasoner  # noqa: E402
from budgeteer.models.transformers import Transformers  # noqa: E402
from budgeteer.solve import Question, registered  # noqa: E402
from helpers.folders import random_model  # noqa: E402
from helpers.insides import STYLE, ask  # noqa: E402

QUESTIONS = [Question(f"q{i}", f"Modulo 11, from left to right: {i} + 5 * 3 =") for i in range(5)]
HOW = Collection(rollouts=3, max_tokens=24, positions=100, seed=1)


def right(question, answer):
    return None if question.id == "q4" else float(answer == "0")


def gathered(folder, model=None, how=HOW, questions=QUESTIONS, grade=right):
    return collect(model or Reasoner(slots=8), STYLE, questions, grade, how, folder, {"model": "reasoner"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    return folder, gathered(folder)


def test_states_are_those_before_each_token(whole) -> None:
    """Against the whole sequence at once, from the texts that were kept."""
    folder, found = whole
    policy = load_policy()
    texts = [text for i in range(5) for text in notes(folder / f"{i:05}.safetensors")["texts"]]
    assert (found.group.tolist(), len(texts)) == ([0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3, 15)
    for trace in (0, 7):
        own = found.trace == trace
        assert found.index[own].tolist() == list(range(found.length[trace]))
        prompt = policy.encode([QUESTIONS[found.group[trace]].text])[0]
        known = [token for token in found.token[own].tolist() if token != UNKNOWN]
        assert known == policy.tokenizer.encode(texts[trace]).ids[: len(known)]
        assert len(known) == found.length[trace] - 1
        with torch.inference_mode():
            states = torch.stack(policy.model.states(policy.model.embed[torch.tensor([[*prompt, *known]])]), 2)[0]
            logits = policy.model.logits(states[len(prompt) - 1 :, -1])
        mine = found.states[torch.from_numpy(own)].float()
        torch.testing.assert_close(mine, states[len(prompt) - 1 :], atol=0.02, rtol=0.01)
        entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
        assert found.entropy[trace] == pytest.approx(float(entropy), abs=1e-3)


def notes(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["notes"])


def test_closed_and_right_are_those_of_the_texts(whole) -> None:
    folder, found = whole
    texts = [text for i in range(5) for text in notes(folder / f"{i:05}.safetensors")["texts"]]
    policy = load_policy()
    for trace, text in enumerate(texts):
        thinking, close, _ = text.partition(STYLE.close)
        ids = policy.tokenizer.encode(thinking + close).ids
        assert found.closed[trace] == (len(ids) if close else HOW.max_tokens), text
        graded = right(QUESTIONS[found.group[trace]], STYLE.read(text))
        assert np.isnan(found.right[trace]) if graded is None else found.right[trace] == graded


def test_a_sample_of_positions_is_even_and_keeps_the_first() -> None:
    counts, tries, n, keep = np.zeros(12), 600, 12, 4
    inside = None
    for seed in range(tries):
        seen = WatchedRows(1, keep, seed)
        for t in range(n):
            hidden, logits = torch.full((1, 1, 1), float(t)), torch.zeros(1, 3)
            seen.look(Snapshot.of([t], last=t + 100 if t else -1, hidden=hidden, logits=logits))
        row, index, states, token = seen.kept()
        assert (len(index), row.tolist(), index[0]) == (keep, [0] * keep, 0)
        assert states.flatten().tolist() == index.tolist()
        assert token.tolist() == [UNKNOWN if i == n - 1 else i + 101 for i in index.tolist()]
        counts[index] += 1
        inside = seen
    assert inside is not None
    assert inside.entropy[0] / inside.steps[0] == pytest.approx(np.log(3))
    # 3 of 11 places: mean 163.6, standard deviation 10.9
    assert counts[0] == tries
    assert np.abs(counts[1:] - tries * 3 / 11).max() < 4 * 10.9


def test_fewer_positions_are_some_of_all(whole, tmp_path) -> None:
    _, every = whole
    few = gathered(tmp_path, how=Collection(3, 24, positions=5, seed=1))
    assert few.length.tolist() == every.length.tolist()
    assert len(few.trace) == np.minimum(few.length, 5).sum()
    places = {(t, i): k for k, (t, i) in enumerate(zip(every.trace.tolist(), every.index.tolist(), strict=True))}
    at = [places[key] for key in zip(few.trace.tolist(), few.index.tolist(), strict=True)]
    assert torch.equal(few.states, every.states[at])
    assert few.token.tolist() == every.token[at].tolist()
    assert few.entropy.tolist() == every.entropy.tolist()


# stopped and going on


class Counted:
    """Passes requests on; the ``fails``-th one never comes back."""

    def __init__(self, fails: int | None = None) -> None:
        self.inner, self.fails, self.calls = Reasoner(slots=8), fails, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def generate(self, request):
        self.calls += 1
        if self.calls == self.fails:
            raise ModelError("out of memory", billed=True)
        return await self.inner.generate(request)


def test_a_collection_goes_on_where_it_stopped(whole, tmp_path) -> None:
    broken, after = Counted(fails=4), Counted()
    with pytest.raises(ModelError, match="out of memory"):
        gathered(tmp_path, broken)
    assert sorted(file.name for file in tmp_path.glob("*.safetensors")) == [f"{i:05}.safetensors" for i in range(3)]
    (tmp_path / "00003.part").write_bytes(b"what a kill left")
    found = gathered(tmp_path, after)
    assert after.calls == 2
    same(found, whole[1])
    assert gathered(tmp_path, Counted(fails=1)).length.tolist() == found.length.tolist()


def same(found, want) -> None:
    for name in ("group", "length", "closed", "entropy", "trace", "index", "token", "right"):
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
    assert torch.equal(found.states, want.states)


@pytest.mark.slow
def test_killed_with_the_hard_signal(whole, tmp_path) -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from lab import test_heads_of_models as t\n"
        "t.gathered(Path(sys.argv[1]))\n"
    )
    paths = [str(Path(__file__).parents[1]), *sys.path]
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *paths])
    while not (tmp_path / "00001.safetensors").exists():
        assert child.poll() is None
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    begun = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")}
    same(gathered(tmp_path), whole[1])
    assert {file: file.stat().st_mtime_ns for file in begun} == begun


def test_other_settings_damaged_files_and_models_without_insides_are_refused(whole, tmp_path) -> None:
    folder, _ = whole
    with pytest.raises(InvalidInput, match="begun with max_tokens = '24', not '25'"):
        gathered(folder, how=Collection(3, 25, positions=100, seed=1))
    with pytest.raises(CheckpointError, match="holds traces of 'q4', not of 'other'"):
        gathered(folder, questions=[*QUESTIONS[:4], Question("other", "1 + 1 =")])
    gathered(tmp_path, questions=QUESTIONS[:2])
    (tmp_path / "00001.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"cannot read traces in .*00001.*remove the file to sample it anew"):
        gathered(tmp_path, questions=QUESTIONS[:2])

    class Blind:
        name, capabilities = "blind", frozenset()

    with pytest.raises(InvalidInput, match="blind does not show its hidden states"):
        gathered(tmp_path, Blind())


# rows of a vocabulary


def linear(hidden, outputs, seed, **settings):
    generator = torch.Generator().manual_seed(seed)

    def some(*shape):
        return torch.randn(*shape, generator=generator)

    weights = {"mean": some(hidden), "scale": 1 + some(hidden).abs(), "w2": 3 * some(hidden, outputs)}
    return LinearHead(weights | {"b2": some(outputs)}, "x", settings)


@pytest.mark.parametrize(
    ("kind", "rows", "tied"),
    [
        ("qwen3", 1024, True),
        ("qwen3", 1100, True),
        ("llama", 1100, False),
        ("llama", 1024, False),
        ("gemma", 1024, True),
    ],
)
def test_rows_of_a_model_compute_what_the_heads_say_and_nothing_else(kind, rows, tied, tmp_path, loop) -> None:
    folder = random_model(tmp_path / "model", kind, rows=rows, tied=tied)
    before = Transformers(folder)
    prompt = Chat((Message("user", "2 + 2?"),))
    request = Request(prompt, 8, 2, seed=3, logprobs=True)
    said = loop.run(before.generate(request))
    trained = {"zip_rc": linear(32, 6, 1, values=[0, 1], lengths=[0, 4, 8]), "diffadapt_probe": linear(32, 3, 2)}
    made = write_into(Transformers(folder), trained, tmp_path / "copy")
    after = Transformers(tmp_path / "copy")
    assert after.never == tuple(range(1024, 1033))
    assert after.model.get_output_embeddings().weight.shape[0] == max(rows, 1033)
    assert after.inside.fingerprint == made["zip_rc"].fingerprint != before.inside.fingerprint
    again = loop.run(after.generate(request))
    if rows == 1024:  # random weights draw what is no token, too
        assert [choice.text for choice in again.choices] == [choice.text for choice in said.choices]
    ids = torch.tensor([after._encoded(prompt)])
    with torch.inference_mode():
        out, old = (m.model(input_ids=ids, output_hidden_states=True) for m in (after, before))
    assert torch.equal(out.logits[..., :1024], old.logits[..., :1024])
    states = out.hidden_states[-1][0][:, None]
    for name, head in trained.items():
        loaded = load_head(name, tmp_path / "copy" / HEADS)
        assert {**head.settings, "form": "vocabulary", "slots": loaded.settings["slots"]} == loaded.settings
        torch.testing.assert_close(loaded(out.logits[0]).float(), outputs_of(head, states), atol=2e-3, rtol=2e-3)
        loaded.check(after.inside)
        with pytest.raises(InvalidInput, match="trained on a model with fingerprint"):
            loaded.check(before.inside)


def test_a_model_that_caps_its_logits_is_refused(tmp_path) -> None:
    folder = random_model(tmp_path / "model", "gemma2")
    with pytest.raises(InvalidInput, match="it caps or scales them"):
        write_into(Transformers(folder), {"zip_rc": linear(32, 6, 1)}, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# the command


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "q.jsonl"
    rows = [{"question": f"Take {a}. Add 5. What is the result?", "answer": str(a + 5)} for a in range(20, 26)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("qwen") / "mine", "qwen3")


def heads_train(*words):
    sizes = ["--max-tokens", "12", "--rollouts", "2", "--steps", "3", "--positions", "6"]
    return cli.main(["heads", "train", *map(str, words), *sizes])


@pytest.mark.parametrize("form", ["flat", "layers", "vocabulary"])
def test_train_solve_and_be_bound_to_the_weights(form, folder, asked, tmp_path, capsys) -> None:
    """Guidance, ZIP-RC and DiffAdapt of a Hugging Face model with a chat template, from questions to answers."""
    kinds = ["guidance", "zip-rc", *["difficulty"] * (form != "layers")]
    model = tmp_path / "model"
    random_model(model, "qwen3")
    options = ["--form", form, "--width", 16, "--depth", 1, "--traces", folder.parent / "traces"]
    where = ["--out", tmp_path / "copy"] if form == "vocabulary" else []
    assert heads_train(*kinds, "--model", f"hf:{model}", "--questions", asked, *options, *where) == 0
    said = capsys.readouterr().out
    assert "guidance: negative log-density of the thinking still to come on 1 held-out questions: " in said
    model = tmp_path / "copy" if form == "vocabulary" else model
    names = {path.stem for path in (model / HEADS).glob("*.safetensors")}
    assert names == {"budget_guidance", "zip_rc", *["diffadapt_probe"] * (form != "layers")}
    solver = Transformers(model)
    style = chat_style()
    for strategy in ("budget-guidance", "zip-rc:samples=3,trace_tokens=12", *["diffadapt-probe"] * (form != "layers")):
        name = strategy.partition(":")[0]
        text = strategy + (":" if ":" not in strategy else ",") + f"head={model}"
        beside, given = (ask(registered.build(s), solver, output=60, seed=2, style=style)[0] for s in (strategy, text))
        assert beside == given
        assert beside.traces, name
    other = Transformers(random_model(tmp_path / "other", "qwen3", seed=1))
    refused = registered.build(f"budget-guidance:head={model}")
    with pytest.raises(InvalidInput, match=r"trained on a model with fingerprint \w+, this one has \w+; train one"):
        ask(refused, other, output=60, style=style)
    with pytest.raises(CheckpointError, match=r"other has no zip_rc.safetensors in .*; train it with budgeteer heads"):
        ask(registered.build("zip-rc"), other, output=60, style=style)


def chat_style():
    from budgeteer.models.chat import THINK
    from budgeteer.solve.styles import TaskInfo, style_of

    return style_of("think", TaskInfo("sums", numeric=True, tags=THINK))


def test_the_thinking_model_by_its_name(asked, tmp_path, capsys) -> None:
    assert heads_train("zip-rc", "--model", "thinker", "--questions", asked, "--out", tmp_path / "h", "--limit", 2) == 0
    assert (tmp_path / "h" / "zip_rc.safetensors").is_file()
    said = capsys.readouterr().out
    assert "traces: 4\n" in said
    assert "right: " in said
    with pytest.raises(CheckpointError, match="blind is no folder on this machine that could have a head beside it"):
        own_head(type("Blind", (), {"name": "blind"})(), "zip_rc")


@pytest.mark.parametrize(
    ("text", "kinds", "message"),
    [
        (
            '{"question": "1 + 1?"}\n{"question": "2 + 2?"}',
            ["zip-rc", "difficulty"],
            "2 of 2 questions of .* have no refe",
        ),
        ('{"question": "1 + 1?"}', ["guidance"], "has 1 questions; give 2 or more"),
        ('{"q": "1 + 1?"}', ["guidance"], "question"),
        ("{", ["guidance"], "line 1"),
    ],
)
def test_bad_questions_are_refused_before_the_first_trace(text, kinds, message, folder, tmp_path, capsys) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    out = tmp_path / "out"
    assert heads_train(*kinds, "--model", f"hf:{folder}", "--questions", path, "--out", out) == 2
    error = capsys.readouterr().err
    assert re.search(message, error.splitlines()[-1]), error
    assert not (out / "traces").exists()


def test_the_copy_does_not_replace_the_model(folder, asked, capsys) -> None:
    words = ["guidance", "--model", f"hf:{folder}", "--questions", asked, "--form", "vocabulary"]
    assert heads_train(*words) == 2
    assert "writes a copy of the model with its heads; give --out FOLDER" in capsys.readouterr().err
    assert heads_train(*words, "--out", folder) == 2
    assert "holds the model itself" in capsys.readouterr().err


def test_diffadapts_prompts_are_added_by_class(tmp_path) -> None:
    """A probe that says hard to everything: the question is read twice, and its prompt is that of hard questions."""
    from budgeteer.strategies._diffadapt import HARD

    probe = load_head("diffadapt_probe")
    bias = torch.tensor([0.0, 0.0, 99.0]).double()
    hard = type(probe)({**probe.weights, "w2": 0 * probe.weights["w2"], "b2": bias}, probe.fingerprint, {})
    save_head(hard, tmp_path / "hard.safetensors")
    heard = []

    class Heard(Reasoner):
        async def generate(self, request):
            heard.append(request)
            return await super().generate(request)

    model = Heard(slots=4)
    strategy = registered.build(f"diffadapt-probe:head={tmp_path / 'hard.safetensors'},prompts=true")
    answer, budgeted = ask(strategy, model, output=40)
    assert len(answer.traces) == 1
    assert [request.prompt.endswith(HARD.reminder) for request in heard] == [False, True]
    assert budgeted.spend.calls == 2
    assert budgeted.spend.output == heard[1].max_tokens or budgeted.spend.output <= 40
    assert budgeted.spend.input == sum(model.count(request.prompt) for request in heard)
    asyncio.run(model.aclose())


def test_forms_have_the_official_sizes() -> None:
    official = Form("layers", 768)
    assert (official.depth, official.heads, official.rate) == (12, 12, 1e-4)
