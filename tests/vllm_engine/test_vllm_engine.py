"""Steers inside the real vLLM on the CPU: the text is that of transformers with the same steer, decoded greedily.

It comes in an environment of its own: ``make test-vllm``. When its worker starts, vLLM 0.32 looks at the contents of
all modules, and fails at those of llvmlite; so nothing that loads numba is imported before.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

CAP = 60
QUESTIONS = (
    "Take 18. Subtract 10. Add 51. Subtract 59. What is the result?",
    "Take 7. Add 5. Subtract 2. What is the result?",
    "Sara had 79 apples and lost 6. Nina buys 7 bags with 2 apples each. Who has fewer apples?",
)


def build(folder: str) -> None:
    """The thinking model in single precision, with heads of random numbers in its vocabulary."""
    from pathlib import Path

    import torch

    from budgeteer.engine.vocabulary_head import LinearHead
    from budgeteer.lab.heads.vocabulary import write_into
    from budgeteer.models.thinker import THINKER
    from budgeteer.models.transformers import Transformers

    def linear(outputs, seed, **settings):
        generator = torch.Generator().manual_seed(seed)
        w2, ones = torch.randn(128, outputs, generator=generator), torch.ones(128)
        return LinearHead({"mean": 0 * ones, "scale": ones, "w2": w2, "b2": torch.ones(outputs)}, "x", settings)

    guidance = linear(4, 1, vocab=1024, line_ends=["\n"])
    kinds = torch.arange(1024) % 2
    guidance.weights["columns"] = torch.cat([kinds, 2 + kinds])
    zip_rc = linear(8, 2, values=[0.0, 1.0], lengths=[0, 8, 16, 32])
    model = Transformers(THINKER)
    model.model.float()
    write_into(model, {"budget_guidance": guidance, "zip_rc": zip_rc}, Path(folder))


if __name__ == "__main__":
    build(sys.argv[1])
    sys.exit()

pytestmark = pytest.mark.vllm
vllm = pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vllm") / "copy"
    subprocess.run([sys.executable, __file__, str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return vllm.LLM(
        model=str(folder),
        dtype="float32",
        max_model_len=512,
        max_num_seqs=8,
        enforce_eager=True,
        async_scheduling=False,
    )


@pytest.fixture(scope="module")
def ours(engine, folder):
    from budgeteer.models.transformers import Transformers

    return Transformers(folder)


def said(engine, steer, n=1, questions=QUESTIONS, temperature=0.0, **more):
    extra = None if steer is None else {"budgeteer_steer": steer, **more}
    params = vllm.SamplingParams(
        temperature=temperature, n=n, max_tokens=CAP, extra_args=extra, skip_special_tokens=False, seed=1
    )
    asked = [[{"role": "user", "content": text}] for text in questions]
    return [[o.text for o in out.outputs] for out in engine.chat(asked, params, use_tqdm=False)]


def want(model, steer, text):
    from budgeteer.models.chat import Chat, Message
    from budgeteer.models.model import Request

    request = Request(Chat((Message("user", text),)), CAP, temperature=0.0, steer=steer, close="</think>")
    return asyncio.run(model.generate(request)).choices[0].text


def without_end(text):
    return text.removesuffix("<|im_end|>")


@pytest.mark.parametrize(
    "steers",
    [
        ["budget-forcing:most=20"],
        ["truncate:most=10"],
        ["budget-forcing:most=20", "marker-gate:first=21,last=99,threshold=0.1,keep_length=0.0"],
        ["budget-guidance:reserve=20"],
        [],
    ],
    ids=lambda steers: "+".join(steers) or "none",
)
def test_the_text_is_ours(steers, engine, ours, folder) -> None:
    from budgeteer.core.registry import part_of
    from budgeteer.steer.kit import combine

    made = []
    for text in steers:
        name, _, options = text.partition(":")
        head = f"head={folder}," if name == "budget-guidance" else ""
        made.append(part_of("steer", f"{name}:{head}{options}"))
    steer = None if not made else made[0] if len(made) == 1 else combine(*made)
    for (got,), text in zip(said(engine, steers or None), QUESTIONS, strict=True):
        assert without_end(got) == want(ours, steer, text)


def test_samples_of_a_group_end_at_different_lengths(engine) -> None:
    (texts,) = said(engine, "zip-rc:every=4", 4, QUESTIONS[:1], 1.0, budgeteer_group="q")
    (free,) = said(engine, None, 4, QUESTIONS[:1], 1.0)
    assert sum(map(len, texts)) < sum(map(len, free))
    assert any(without_end(text) for text in texts)


@pytest.mark.parametrize("steer", ["switch-thinking", "nothing", "zip-rc:head=x", "budget-forcing:most=-1"])
def test_what_cannot_be_steered_is_refused_when_it_is_asked(steer, engine) -> None:
    from vllm.exceptions import VLLMValidationError  # answered with 400 by the server

    with pytest.raises(VLLMValidationError, match=r"does not offer|unknown steer|cannot name a file|most=-1"):
        said(engine, steer)
