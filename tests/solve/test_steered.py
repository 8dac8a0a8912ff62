"""Any strategy with any registered steer, by name: on the reasoner, on transformers, and refused where none can act."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core import registry
from budgeteer.core.errors import CheckpointError, InvalidInput, UnknownName
from budgeteer.core.run import run_of
from budgeteer.core.steer import ABORT, CONTINUE, Action, Snapshot, Steer
from budgeteer.engine.head import HEADS, head_of, load_head, save_head
from budgeteer.models.chat import Chat, Message, Thinking
from budgeteer.models.model import INTERNALS, LOGPROBS, PREFILL, PREFIX, SEED, Finish, Request
from budgeteer.models.policy import REASONER
from budgeteer.solve import Answer, Question, StoppedBy, Strategy, Task, registered, runner
from budgeteer.solve.steered import Steered, steered
from budgeteer.steer import answered, budget_guidance, diffadapt_probe, zip_rc
from budgeteer.steer.kit import combine
from budgeteer.strategies import direct
from helpers import needs
from helpers.insides import QUESTION, STYLE, ask, reasoner

STEERS = {
    "answered": "answered",
    "budget-forcing": "budget-forcing:most=4,reserve=2",
    "budget-guidance": "budget-guidance:head=reasoner,reserve=6",
    "diffadapt-probe": "diffadapt-probe:head=reasoner,reserve=6",
    "soft-landing": "soft-landing:most=6,likely=2",
    "marker-gate": "marker-gate:first=4,last=9,keep_abort=0.5",
    "mirostat": "mirostat:target=0.4",
    "switch-thinking": "switch-thinking:window=2",
    "truncate": "truncate:most=8",
    "two-budgets": "two-budgets:think=8,answer=4",
    "zip-rc": "zip-rc:head=reasoner,every=4",
}
"""Registered steer -> as a command line gives it."""

OWN = REASONER / HEADS


@pytest.fixture(scope="module")
def model(loop):
    made = reasoner()
    yield made
    loop.run(made.aclose())


class Seen:
    """The model, and the requests that came to it."""

    def __init__(self, model) -> None:
        self.model, self.requests = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    async def generate(self, request):
        self.requests.append(request)
        return await self.model.generate(request)


def test_every_registered_steer_is_tried_here() -> None:
    assert STEERS.keys() == registry.of("steer").keys()


@pytest.mark.parametrize("name", STEERS)
@pytest.mark.parametrize(
    "strategy", ["direct:temperature=1,", "self-consistency:n=3,max_tokens=40,"], ids=["direct", "vote"]
)
def test_a_strategy_with_a_steer_by_name_samples_what_a_request_with_it_samples(model, loop, strategy, name) -> None:
    """The texts are those of the same requests with the steer made in Python, in a budget that is kept."""
    spec = f'{strategy}steer="{STEERS[name]}"'
    seen = Seen(model)
    answer, budgeted = ask(registered.build(spec), seen, output=120)
    (request,) = seen.requests
    assert (request.steer is None, request.close) == (False, "</think>")
    again = replace(request, steer=registry.part_of("steer", STEERS[name]), close=STYLE.close)
    want = loop.run(model.generate(again))
    assert answer.traces == tuple(choice.text for choice in want.choices)
    assert (budgeted.spend.input, budgeted.spend.output) == (want.usage.input, want.usage.output)
    assert 0 < budgeted.spend.usage.output <= 120


def test_a_steer_acts_on_the_traces_of_a_strategy(model) -> None:
    """Thinking that is closed by force after 12 tokens, and thinking that is cut after 8, which has no answer."""
    free, _ = ask(registered.build("direct"), model, output=120)
    assert free.traces == ("7+5=1;1*3=3;3-2=1;1*4=4;</think>4",)
    forced, spent = ask(registered.build("direct:steer=budget-forcing:most=12"), model, output=120)
    assert (forced.traces, spent.spend.usage.output) == (("7+5=1;1*3=3;</think>3",), 15)
    cut, spent = ask(registered.build("direct:steer=truncate:most=8"), model, output=120)
    assert (cut.answer, cut.stopped_by, spent.spend.usage.output) == (None, "aborted", 8)


def test_a_row_that_a_steer_aborts_is_no_sample_with_an_answer(model, loop) -> None:
    """Cut inside its answer, after the thinking was closed; it is "aborted", not "stop", so no vote is cast."""
    late = Steer(
        lambda rows: (), lambda state, now: (Action(np.where(now.closed > 0, ABORT, 0).astype(np.int8)), state)
    )
    request = Request(QUESTION, 100, temperature=0.0, stop=("\n",), steer=late, close="</think>")
    (choice,) = loop.run(model.generate(request)).choices
    assert choice.text.endswith("</think>")
    assert choice.finish == Finish.ABORTED
    answer, _ = ask(steered(registered.build("self-consistency:n=2"), late), model, output=120)
    assert answer.answer is None


@pytest.mark.parametrize(
    "text", ["split:most=2,steer=answered", 'best-of-n:scorer=self-evaluation,n=2,steer="truncate:most=8"']
)
def test_the_calls_that_judge_are_not_steered_and_those_of_many_questions_are(model, loop, text) -> None:
    seen = Seen(model)
    budget, questions = "900", [Question("a", QUESTION), Question("b", "Modulo 11, from left to right: 2 + 3 =")]
    settings = runner.Settings(per_question=not text.startswith("split"))
    loop.run(runner.run(questions, registered.build(text), seen, STYLE, budget, settings))
    judged = [request for request in seen.requests if "Is the proposed solution correct" in request.prompt]
    assert bool(judged) == ("best-of-n" in text)
    assert all((request.steer is None) == (request in judged) for request in seen.requests)
    assert len(seen.requests) - len(judged) >= 2


def test_a_steer_beside_that_of_the_strategy(model) -> None:
    seen = Seen(model)
    ask(registered.build("mirostat:target=0.4,steer=answered:every=4"), seen, output=80)
    ask(registered.build("mirostat:target=0.4"), seen, output=80)
    both, own = (request.steer for request in seen.requests)
    assert both == combine(own, answered(every=4))


def test_thinking_that_was_closed_in_an_earlier_call_is_closed(model) -> None:
    async def body(task: Task) -> Answer:
        prompt, model = task.style.prompt(task.question.text), task.model
        assert isinstance(model, Steered)
        for stage, continued in (
            ("sample", prompt), ("part", prompt + "7+5"), ("sample", prompt + "7</think>"), ("sample", "x</think>"),
            ("answer", prompt + "7</think>1"), ("judge", prompt), ("plan", prompt),
        ):  # fmt: skip
            await model.generate(Request(continued, 4, stop=("\n",)), stage=stage)
        chat = Chat((Message("user", "7 + 5"),))
        for how in (chat, replace(chat, begun="</think>1"), replace(chat, thinking=Thinking(on=False))):
            await model.generate(Request(how, 4))
        return Answer(None, StoppedBy.DONE)

    shown = Scripted(lambda prompt, rng: "1\n", capabilities=frozenset({PREFIX, PREFILL, SEED, LOGPROBS, INTERNALS}))
    style = replace(STYLE, prompt=lambda text: f"1 + 1 = </think>2\n{text}")
    ask(steered(Strategy(body), answered()), shown, output=100, style=style)
    closes = [request.close for request in shown.requests]
    assert closes == ["</think>", "</think>", "", "", "", "", "", "</think>", "", ""]
    assert [request.steer for request in shown.requests] == [answered()] * 5 + [None] * 2 + [answered()] * 3


# refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("direct:steer=answerd", "unknown steer 'answerd'; did you mean 'answered'"),
        ("direct:ster=answered", "unknown option of direct 'ster'; did you mean 'steer'"),
        ("direct:steer=answered:often=2", "unknown option of answered 'often'; known: every"),
        ("direct:steer=answered,every=2", "every is an option of answered, not of direct; write steer=answered:e"),
        ("direct:steer=marker-gate", "it needs first and last; write marker-gate:first=..."),
        ("direct:steer=zip-rc", "needs head; write zip-rc:head=..., a FILE that budgeteer heads train wrote, the"),
        ("direct:steer=zip-rc:head=none.safetensors", "cannot read a head in none.safetensors"),
        ("zip-rc:head=none.safetensors", "cannot read a head in none.safetensors"),
        ("budget-guidance:head=3", "cannot read a head in 3"),
        (f"direct:steer=zip-rc:head={REASONER / 'model.safetensors'}", "cannot read a head in "),
        (f"direct:steer=zip-rc:head={OWN / 'diffadapt_probe.safetensors'}", "says nothing of values and lengths"),
        (f"direct:steer=budget-guidance:head={OWN / 'zip_rc.safetensors'}", "says nothing of vocab and line_ends"),
    ],
)  # fmt: skip
def test_a_steer_that_cannot_be_made_is_refused_before_anything_is_asked(text, message) -> None:
    with pytest.raises((InvalidInput, UnknownName, CheckpointError)) as error:
        registered.build(text)
    assert message in str(error.value)


def test_a_server_is_refused_before_it_is_asked(capsys) -> None:
    """No process listens there: had it been asked, the error would say so."""
    pytest.importorskip("openai")
    asked = ["solve", "chains", "--limit", "2", "--model", "http://127.0.0.1:9/v1#m", "--budget", "800"]
    assert cli.main([*asked, "--strategy", "direct:steer=answered"]) == 2
    said = capsys.readouterr().err
    assert "the strategy direct:steer=answered needs internals, which m does not have" in said
    assert "a steer acts inside a model that is decoded here: reasoner or hf:FOLDER" in said
    assert cli.main([*asked, "--total", "--strategy", "split:steer=answered"]) == 2
    said = capsys.readouterr().err
    assert "a steer acts inside the model, and m does not show its internals; leave steer= out" in said


def test_a_head_of_another_method_with_the_same_settings_is_refused_at_its_first_row(model) -> None:
    probe = head_of("diffadapt-probe", str(OWN / "zip_rc.safetensors"))
    with pytest.raises(InvalidInput, match=r"the head reads \d+ numbers at a position, and its method shows it \d+"):
        ask(steered(direct(), diffadapt_probe(probe)), model, output=60)


# heads in files


@pytest.mark.parametrize("name", ["zip-rc", "diffadapt-probe", "budget-guidance"])
def test_a_head_saved_and_loaded_decides_the_same(model, tmp_path, name) -> None:
    """By name from a file, by name from the reasoner's folder, and made in Python of the head that was saved."""
    stem, path = name.replace("-", "_"), tmp_path / "other_name.safetensors"
    head = load_head(stem)
    save_head(head, path)
    made = {"zip-rc": zip_rc, "diffadapt-probe": diffadapt_probe, "budget-guidance": budget_guidance}[name](head)
    assert head_of(name, "reasoner") is head
    assert head_of(name, str(path)) is head_of(name, str(path)) is not head
    answers = [
        ask(strategy, model, output=400, seed=3)[0]
        for strategy in (
            steered(registered.build("self-consistency:n=4"), made),
            registered.build(f"self-consistency:n=4,steer={name}:head={path}"),
            registered.build(f"self-consistency:n=4,steer={name}:head=reasoner"),
        )
    ]
    assert answers[0] == answers[1] == answers[2]
    whole = [ask(registered.build(text), model, output=90, seed=3)[0] for text in (name, f"{name}:head={path}")]
    assert whole[0] == whole[1]


# transformers


@pytest.mark.parametrize("spec", ["budget-forcing:most=4", "zip-rc:head=reasoner"])
def test_transformers_runs_a_strategy_with_a_steer_as_the_reasoner_does(model, loop, spec) -> None:
    pytest.importorskip("transformers")
    from budgeteer.models.transformers import Transformers

    theirs = Transformers(REASONER)
    try:
        begun = replace(STYLE, prompt=lambda text: "<bos>" + text)
        for text in (f'direct:steer="{spec}"', f'self-consistency:n=2,steer="{spec}"'):
            ours, used = ask(registered.build(text), model, output=60)
            other, spent = ask(registered.build(text), theirs, output=60, style=begun)
            assert other.traces == ours.traces
            assert spent.spend.usage.output == used.spend.usage.output
    finally:
        loop.run(theirs.aclose())


# two steers that are asked at other lengths


def test_two_steers_are_each_asked_as_often_as_alone() -> None:
    asked: dict[str, list[list[int]]] = {"often": [], "seldom": []}

    def watching(name: str, every: int) -> Steer:
        def step(state, now):
            asked[name].append(now.length.tolist())
            assert now.margin().tolist() == [length / 10 for length in now.length]
            assert [now.tokens(i).tolist() for i in range(len(now.row))] == [[length] for length in now.length]
            assert now.logits[:, 0].tolist() == now.length.tolist()
            end = np.where(now.row == 2, ABORT, CONTINUE).astype(np.int8)
            return Action(end, logits=now.logits + every, cap=now.length + every), state

        return Steer(lambda rows: (), step, every=every)

    import torch

    both = combine(watching("often", 2), watching("seldom", 3))
    assert both.every == 1
    state = both.init(None)
    for lengths in ([2, 3, 6], [1, 5, 7], [4, 8, 2]):
        now = Snapshot.of(
            lengths,
            last=lengths,
            margin=lambda lengths=lengths: np.array(lengths) / 10,
            logits=torch.tensor(lengths)[:, None].float(),
        )
        action, state = both.step(state, now)
        if lengths == [2, 3, 6]:
            assert action.decision.tolist() == [0, 0, ABORT]
            assert action.cap.tolist() == [4, 6, 8]
            assert action.drawn.tolist() == [True, True, True]
            assert action.logits[:, 0].tolist() == [4.0, 6.0, 8.0]  # where both change a row, the first one's count
        if lengths == [1, 5, 7]:
            assert all(getattr(action, name) is None for name in ("decision", "force", "logits", "embeddings", "cap"))
    assert asked == {"often": [[2, 6], [4, 8, 2]], "seldom": [[3, 6]]}


def test_a_row_that_only_one_of_two_steers_knows_has_its_note() -> None:
    def noting(name: str, rows: list) -> Steer:
        return Steer(lambda rows: (), lambda state, now: (Action(), state), report=lambda state: rows)

    both = combine(noting("a", [{"a": 1}, None, None]), noting("b", [{"b": 2}, {"b": 3}, None]))
    assert both.report(both.init(None)) == [{"a": 1, "b": 2}, {"b": 3}, None]


# the command line


def test_methods_says_how_a_steer_and_a_slot_are_used(capsys) -> None:
    assert run_of(registry.get("steer", "answered")).splitlines()[0] == (
        "budgeteer solve chains --limit 20 --strategy direct:steer=answered --budget 400"
    )
    assert "--strategy 'direct:steer=\"zip-rc:head=reasoner\"'" in run_of(registry.get("steer", "zip-rc"))
    assert cli.main(["methods", "steer/zip-rc"]) == 0
    said = capsys.readouterr().out
    assert (
        "head  a FILE that budgeteer heads train wrote, the FOLDER of a model with heads beside it, or reasoner" in said
    )
    assert cli.main(["methods", "strategy/direct"]) == 0
    assert "slots, each filled by the name of a method:\n  steer  name: steer\n" in capsys.readouterr().out


@pytest.mark.skipif(not (REASONER / "model.safetensors").exists(), reason="no embedded reasoner yet")
def test_the_line_that_methods_shows_runs(capsys, tmp_path, monkeypatch) -> None:
    """With the options of a steer nested in those of a strategy, and its head in a file."""
    needs.reasoning_gym()
    shutil.copy(OWN / "zip_rc.safetensors", tmp_path / "head.safetensors")
    monkeypatch.chdir(tmp_path)
    spec = 'direct:max_tokens=90,steer="zip-rc:head=head.safetensors,every=4"'
    out = Path("answers.jsonl")
    assert cli.main(["solve", "chains", "--limit", "2", "--strategy", spec, "--budget", "200", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["calls"] for row in rows] == [1, 1]
    other = spec.replace("every=4", "every=8")
    assert cli.main(["solve", "chains", "--limit", "2", "--strategy", other, "--budget", "200", "--out", str(out)]) == 2
    assert "strategy" in capsys.readouterr().err  # the steer is one of the settings of a run
