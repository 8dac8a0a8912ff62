"""transformers as a Model, against the reasoner: the same weights are the same model."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import aclosing

import numpy as np
import pytest

pytest.importorskip("transformers")

from budgeteer.core.errors import CheckpointError, InvalidInput, ModelError
from budgeteer.models import transformers
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import Chunk, Finish, Request, Response
from budgeteer.models.policy import REASONER
from budgeteer.models.reasoner import Reasoner
from budgeteer.models.transformers import Transformers

QUESTION = "Find the Greatest Common Divisor (GCD) of these numbers: [12, 18]"
PROMPT = "<bos>" + QUESTION


@pytest.fixture(scope="module")
def model(loop):
    found = Transformers(REASONER)
    yield found
    loop.run(found.aclose())


def test_nothing_is_asked_in_a_way_that_transformers_gives_up(model, loop) -> None:
    long = PROMPT * 20  # so long that whole blocks of it are kept
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loop.run(model.generate(Request(long, 3, temperature=0.0)))
    assert not [warning for warning in said if issubclass(warning.category, FutureWarning)]


def test_greedy_is_the_reasoners(model, loop) -> None:
    async def body():
        reasoner = Reasoner()
        try:
            return await reasoner.generate(Request(QUESTION, 60, temperature=0.0, logprobs=True))
        finally:
            await reasoner.aclose()

    want = loop.run(body())
    got = loop.run(model.generate(Request(PROMPT, 60, n=2, temperature=0.0, logprobs=True)))
    assert got.usage.input == want.usage.input == model.count(PROMPT)
    assert got.usage.output == 2 * want.usage.output
    for choice in got.choices:
        assert (choice.text, choice.tokens, choice.finish) == (
            want.choices[0].text,
            want.choices[0].tokens,
            Finish.STOP,
        )
        np.testing.assert_allclose(choice.logprobs, want.choices[0].logprobs, atol=2e-4)


def test_a_choice_depends_on_its_seed_and_index_alone(model, loop) -> None:
    requests = [Request(PROMPT, 40, n=n, seed=s) for n, s in ((1, 3), (6, 3), (3, 4))]

    async def body():
        return await asyncio.gather(*(model.generate(r) for r in requests))

    one, six, other = loop.run(body())
    assert one.choices[0] == six.choices[0]
    assert len({c.text for c in six.choices}) > 1
    assert six.choices[:3] != other.choices


def test_tokens_follow_the_softmax(model, loop) -> None:
    response = loop.run(model.generate(Request(PROMPT, 1, n=4000, seed=1, temperature=1.5, logprobs=True)))
    texts = [c.text for c in response.choices]
    logp = {c.text: c.logprobs[0] for c in response.choices}
    heat = {text: np.exp(p / 1.5) for text, p in logp.items()}
    total = sum(heat.values())  # what was never drawn in 4000 has next to no mass
    for text, weight in heat.items():
        p = weight / total
        assert abs(texts.count(text) / 4000 - p) < 5 * np.sqrt(p * (1 - p) / 4000) + 2e-3


def test_stop_texts_caps_and_chunks(model, loop) -> None:
    async def body():
        return [piece async for piece in model.stream(Request(PROMPT, 40, n=4, seed=5, stop=("</think>", "xyz")))]

    *chunks, response = loop.run(body())
    assert isinstance(response, Response)
    for i, choice in enumerate(response.choices):
        mine = [c for c in chunks if c.choice == i]
        assert sum(c.tokens for c in mine) == choice.tokens <= 40
        assert "".join(c.text for c in mine) == choice.text
        assert "</think>" not in choice.text
        assert choice.finish == (Finish.STOP if choice.tokens < 40 else choice.finish)
    short = loop.run(model.generate(Request(PROMPT, 3, n=2, seed=5)))
    assert {(c.finish, c.tokens) for c in short.choices} == {(Finish.LENGTH, 3)}


def test_what_prompts_begin_with_is_read_once(model, loop, monkeypatch) -> None:
    """Prompts that share blocks say what they say to a model that never saw the other one, to the bit."""
    monkeypatch.setattr(transformers, "_BLOCK", 8)
    requests = [
        Request(PROMPT + end, 20, n=2, seed=5, logprobs=True)
        for end in ("", " and 24", " and 24", "", PROMPT, " or 8")
    ]  # fmt: skip
    alone, read = [], list[int]()
    for request in requests:
        monkeypatch.setattr(model, "_read", ([], transformers.DynamicCache()))
        alone.append(loop.run(model.generate(request)))
    original = model.model.forward

    def counted(*args, **options):
        read.append(options["input_ids"].shape[1])
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model.model, "forward", counted)
        for request, want in zip(requests, alone, strict=True):
            read.clear()
            assert loop.run(model.generate(request)) == want
            if request.prompt != PROMPT:
                assert sum(n for n in read if n > 1) < model.count(request.prompt) - 8
    plain = loop.run(model.generate(Request(PROMPT, 20, n=2, seed=5, logprobs=True)))
    monkeypatch.setattr(transformers, "_BLOCK", 512)
    whole = loop.run(model.generate(Request(PROMPT, 20, n=2, seed=5, logprobs=True)))
    assert [c.text for c in plain.choices] == [c.text for c in whole.choices]


def test_a_closed_stream_stops_the_sampling(model, loop) -> None:
    steps = 0
    original = model.model.forward

    def counted(*args, **options):
        nonlocal steps
        steps += 1
        return original(*args, **options)

    async def body():
        async with aclosing(model.stream(Request(PROMPT, 400, seed=5, temperature=40.0))) as pieces:
            async for piece in pieces:
                assert isinstance(piece, Chunk)
                break
        await model.generate(Request(PROMPT, 1, seed=5))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.model, "forward", counted)
        loop.run(body())
    assert steps < 100


def test_what_cannot_be_is_a_clear_error(model, loop, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    for request, match in (
        (Request(Chat((Message("user", "Hi"),)), 3), "chat template"),
        (Request(PROMPT, 600), "exceeds the 512 positions"),
    ):
        with pytest.raises(InvalidInput, match=match):
            loop.run(model.generate(request))
    with pytest.raises(CheckpointError, match=r"has no config\.json; give a folder with a model"):
        Transformers(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot load"):
        Transformers(tmp_path)

    async def failing():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.model, "forward", lambda *args, **options: 1 / 0)
            await model.generate(Request(PROMPT, 3))

    with pytest.raises(ModelError, match="ZeroDivisionError") as caught:
        loop.run(failing())
    assert caught.value.billed


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system messages') }}", "no system messages"),
        ("{% for m in messages %}", "end of template"),
    ],
)
def test_a_chat_that_the_template_does_not_write_is_refused(model, monkeypatch, template: str, said: str) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    with pytest.raises(InvalidInput, match=f"does not write this chat .*{said}.*take another style"):
        model.count(Chat((Message("user", "Hi"),)))
