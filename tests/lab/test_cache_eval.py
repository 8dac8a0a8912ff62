"""Texts with needles, and the evaluation of caches on them: one prefill for all, answers as greedy decoding writes."""

from __future__ import annotations

import importlib
import json
import sys
import types
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer import cli
from budgeteer.cache import BudgetedCache, kit
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.together import Together
from budgeteer.core.errors import InvalidInput
from budgeteer.lab import cache_eval
from budgeteer.lab.cache_answers import Answered
from budgeteer.lab.cache_places import places
from budgeteer.lab.needles import Sample
from helpers import theirs

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    configuration = transformers.LlamaConfig(
        vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(configuration).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return made


def encode(text: str, first: bool) -> list[int]:
    return [1] * first + [3 + ord(letter) % 125 for letter in text]


@pytest.mark.parametrize(
    "method",
    [
        "snapkv:window=4,split=ada-kv", "h2o", "defensive:window=4,split=layers", "prefix-kv", "ems:window=4",
        "arkv:window=4",
    ],
)  # fmt: skip
def test_a_cache_filled_from_a_prefill_is_the_one_that_read_it(model, method: str) -> None:
    ids = torch.randint(3, 97, (2, 50), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    read, cache = Prefill(model, ids, mask), BudgetedCache(model, "30%", method)
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(read.logits, wanted, atol=1e-6, rtol=1e-6)
    for _ in range(2):  # and a prefill can be used again, of which sums over all queries are then known
        filled = read.into(BudgetedCache(model, "30%", method))
        assert filled.account() == cache.account()
        for a, b in zip(filled.layers, cache.layers, strict=True):
            assert torch.equal(a.storage.slots(50), b.storage.slots(50))
            assert all(torch.equal(x, y) for x, y in zip(a.storage.tensors(), b.storage.tensors(), strict=True))


def test_a_prefill_fills_an_empty_cache_of_its_model_only(model) -> None:
    read, cache = Prefill(model, torch.arange(3, 43)[None]), BudgetedCache(model, "30%", "knorm")
    held = read.into(cache).account()
    with pytest.raises(InvalidInput, match="has seen 40 tokens; give an empty one, or reset"):
        read.into(cache)
    assert cache.account() == held
    cache.reset()
    assert read.into(cache).account() == held
    other = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{**model.config.to_dict(), "num_hidden_layers": 2})
    )
    with pytest.raises(
        InvalidInput, match=r"a cache of 2 layers .* is of another model than this prompt, whose 3 layers"
    ):
        read.into(BudgetedCache(other, "30%", "knorm"))


@pytest.mark.parametrize("known", [True, False])
def test_right_is_what_greedy_decoding_writes(model, known: bool) -> None:
    """The answer is taken from a run of generate with the same cache, and then spoiled in its last token."""
    methods = ["h2o", "snapkv:window=4", "prompt-distill"]
    context, question = "a text of some words, " * 4, " and so"
    for method in methods:
        cache = BudgetedCache(model, "40%", method)
        head, tail = encode(context, True), encode(question, False)
        prompt = [*head, *tail[:-1]] if known else head
        with torch.no_grad():
            model(input_ids=torch.tensor([prompt]), past_key_values=cache)
            rest = tail[-1:] if known else tail
            token = model(input_ids=torch.tensor([rest]), past_key_values=cache).logits[0, -1].argmax()
            written = [int(token)]
            for _ in range(2):
                token = model(input_ids=token[None, None], past_key_values=cache).logits[0, -1].argmax()
                written.append(int(token))
        for answer, right in ((written, True), ([*written[:-1], (written[-1] + 1) % 128], False)):

            def coded(text: str, first: bool, answer: list[int] = answer) -> list[int]:
                return answer if text == "ANSWER" else encode(text, first)

            given = [Sample("single", context, question, "ANSWER")]
            full, one = cache_eval.evaluate(model, coded, given, [method], ["40%"], known=[known])
            assert (one.right, one.method, one.known, full.method, full.kept) == (right, method, known, "full", 1.0)
            assert one.kept == int(0.4 * len(prompt)) / len(prompt)
            assert one.logprob < 0


def test_an_answer_of_several_parts_is_right_part_by_part(model) -> None:
    """The model's own words, the last of them spoiled."""
    prompt = [*encode("a text of some words", True), *encode(" and so", False)]
    written: list[int] = []
    for wrong in (False, False, True):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([prompt + written])).logits[0, -1].argmax())
        written.append((token + 1) % 128 if wrong else token)

    def coded(text: str, first: bool) -> list[int]:
        pieces = {"one": written[:1], ",": written[1:2], "two": written[2:]}
        return pieces.get(text, encode(text, first))

    sample = Sample("multiquery", "a text of some words", " and so", "one,two")
    (full,) = cache_eval.evaluate(model, coded, [sample], [], [], known=[False])
    assert (full.right, full.parts, full.found) == (False, (True, False), 0.5)
    (whole,) = cache_eval.evaluate(model, coded, [sample._replace(answer="one")], [], [], known=[False])
    assert (whole.right, whole.parts, whole.found) == (True, (), 1.0)
    again = replace(full, parts=(True, True))
    assert cache_eval.table([full, again])[0]["tasks"] == {"multiquery": 0.75}


def test_the_table_by_hand() -> None:
    def row(task, method, budget, right, logprob):
        return Answered(task, method, budget, True, right, logprob, 0.25, 100, 200)

    answered = [
        row("single", "full", "100%", True, -0.1), row("single", "h2o", "25%", True, -0.2),
        row("single", "full", "100%", True, -0.3), row("single", "h2o", "25%", False, -1.4),
        row("multikey", "full", "100%", False, -0.5), row("multikey", "h2o", "25%", False, -0.6),
    ]  # fmt: skip
    full, h2o = cache_eval.table(answered)
    assert (full["right"]["mean"], full["tasks"], full["lost"]["mean"]) == (
        2 / 3,
        {"single": 1.0, "multikey": 0.0},
        0.0,
    )
    # one of three right in the full cache alone: p = 2/5, q = 1/5, p - q +- z sqrt((3/5 - 1/25) / 5)
    assert (full["fewer"]["mean"], h2o["fewer"]["mean"]) == (0.0, 1 / 3)
    assert h2o["fewer"]["high"] == pytest.approx(0.2 + 1.96 * (0.56 / 5) ** 0.5, abs=1e-4)
    # shares of parts 1, 1, 0 less 1, 0, 0: deviation sqrt(1/3), t(0.975, 2) = 4.303
    assert h2o["below"]["mean"] == pytest.approx(1 / 3)
    assert h2o["below"]["high"] == pytest.approx(1 / 3 + 4.3027 / 3, abs=1e-3)
    assert (h2o["right"]["mean"], h2o["tasks"]) == (1 / 3, {"single": 0.5, "multikey": 0.0})
    assert h2o["losses"] == pytest.approx({"single": (0.1 + 1.1) / 2, "multikey": 0.1})
    assert (h2o["end"], h2o["prompt"], h2o["token"]) == (None, None, None)
    timed = [replace(each, end=e, prompt=p, token=t) for each, e, p, t in zip(
        answered[1::2], (0.25, 0.5, 0.6), (1.0, 1.5, 9.0), (None, 0.5, 0.7), strict=True
    )]  # fmt: skip
    h2o_timed = cache_eval.table([*answered[::2], *timed])[1]
    assert (h2o_timed["end"], h2o_timed["prompt"], h2o_timed["token"]) == (0.45, 1.5, 0.6)
    # differences 0.1, 1.1, 0.1: mean 13 / 30, s = 1 / sqrt(3), t of 2 degrees 4.303: +- 1.434
    assert h2o["lost"]["mean"] == pytest.approx(13 / 30)
    assert h2o["lost"]["high"] == pytest.approx(13 / 30 + 4.3027 / 3, abs=1e-3)


def test_a_long_answer_is_generated_and_what_its_end_holds_is_said(model) -> None:
    """73 tokens of a prompt, one more of the question, and 39 of the answer: its last one is not read."""
    sample = Sample("generation", "some words " * 6, " and so", "x" * 40)
    methods = ["h2o", "snapkv:window=4"]
    full, cut, grown = cache_eval.evaluate(model, encode, [sample], methods, ["25%"], known=[True])
    assert (full.end, cut.end, grown.end) == (1.0, 113 // 4 / 113, (73 // 4 + 1 + 39) / 113)
    assert (cut.kept, grown.kept) == (18 / 73, 18 / 73)
    short = sample._replace(answer="x" * 5)
    full, cut, grown = cache_eval.evaluate(model, encode, [short], methods, ["25%"], known=[False])
    assert (full.end, cut.end, grown.end) == (1.0, 78 // 4 / 78, None)  # which was read at once
    assert (full.prompt, full.token, grown.token) == (1.0, 1.0, None)
    assert cut.token > 0 < grown.prompt


def test_where_entries_are_held_is_counted_by_parts(model) -> None:
    """50 tokens in 4 parts, whose first slots are 0, 13, 25 and 38; the first 4 and the newest 16 are kept."""
    cache = BudgetedCache(model, "cache:20", "streaming-llm")
    assert places(Prefill(model, torch.arange(3, 53)[None]).into(cache), 4) == [[4 / 13, 0.0, 4 / 13, 1.0]] * 3
    cut = Prefill(model, torch.arange(3, 53)[None]).into(
        BudgetedCache(model, "cache:20", "snapkv:window=4,split=layers")
    )
    for layer, shares in enumerate(places(cut, 4)):
        slots = [head[head >= 0].tolist() for head in cut.layers[layer].storage.slots(50)[0]]
        by_hand = [sum(slot * 4 // 50 == part for head in slots for slot in head) for part in range(4)]
        assert shares == pytest.approx([n / (2 * size) for n, size in zip(by_hand, (13, 12, 13, 12), strict=True)])


def test_a_second_reading_is_charged_to_every_cache_that_uses_it(model) -> None:
    read = Prefill(model, torch.arange(3, 60)[None])
    saved = []
    for budget, method in (("50%", "kvzip"), ("25%", "kvzip:split=uniform"), ("25%", "snapkv:window=4")):
        read.into(BudgetedCache(model, budget, method))
        saved.append(read.saved > 0)
    assert saved == [False, True, False]


def test_sums_over_a_prompt_are_computed_once_and_charged_to_every_cache_that_uses_them(model, monkeypatch) -> None:
    computed, blocks = [], kit.blocks
    monkeypatch.setattr(kit, "blocks", lambda cells, of: (computed.append(cells.layer), blocks(cells, of))[1])
    read = Prefill(model, torch.arange(3, 60)[None])
    counts, saved = [], []
    for method in ("h2o", "h2o", "ems:window=4", "prefix-kv", "arkv:window=4", "arkv:window=4,split=pyramid,rest=drop"):
        read.into(BudgetedCache(model, "50%", method))
        counts.append(len(computed))
        saved.append(read.saved > 0)
    layers = model.config.num_hidden_layers
    assert counts == [layers] * 4 + [2 * layers] * 2
    assert saved == [False, True, True, True, False, True]
    # behind the prompt every cache has entries and sums of its own
    cache = read.into(BudgetedCache(model, "50%", "h2o"))
    with torch.no_grad():
        model(input_ids=torch.tensor([[7]]), past_key_values=cache)
    assert len(computed) == 3 * layers


def test_the_command_refuses_before_it_loads_a_model(capsys) -> None:
    for arguments, says in (
        (["--budgets", "5%", "--methods", "snapkv"], "snapkv always keeps 32"),
        (["--methods", "h2o", "h2o"], "name each once"),
        (["--methods", "knorm:split=ada-kv:safe=0.3", 'knorm:split="ada-kv:safe=0.30"'], "name each once"),
        (["--methods", "snap"], "unknown score 'snap'"),
        (["--budgets", "50%,50.0%"], "50%, 50.0%: one stands twice"),
        (["--budgets", "256,cache:256"], "256, cache:256: one stands twice"),
        (["--tasks", "single,single", "--methods", "h2o"], "single, single: one stands twice"),
        (["--samples", "1"], "2 samples or more"),
        (["--tasks", "single,qa", "--methods", "h2o"], "give both or none"),
        (["--qa", "rows.jsonl", "--methods", "h2o"], "give both or none"),
        (["--qa", "none.jsonl", "--tasks", "qa", "--methods", "h2o"], "cannot read none.jsonl"),
        (["--budgets", "5/day"], "a cache has no budget of"),
    ):
        assert cli.main(["cache", "eval", "nobody", *arguments]) == 2
        assert says in capsys.readouterr().err
    assert cli.main(["cache", "eval", "gguf:x"]) == 2
    assert "give smollm2, thinker or hf:FOLDER" in capsys.readouterr().err


def test_a_log_says_how_far_it_is_and_what_was_written(model, monkeypatch, tmp_path, capsys) -> None:
    clock = [0.0]
    monkeypatch.setattr("budgeteer.cli.cache.time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(cache_eval, "opened", lambda *given, **more: (model, lambda text, begin: list(text.encode())))
    row = {"samples": 3, "known": True}
    monkeypatch.setattr("budgeteer.lab.needles.samples", lambda *given, **more: [None] * 3)

    def evaluate(*given, **more):
        for _ in range(3):  # a text: the full cache, then the only method
            yield row
            clock[0] += 20
            yield row

    monkeypatch.setattr(cache_eval, "evaluate", evaluate)
    monkeypatch.setattr(cache_eval, "table", lambda answered: [row])
    monkeypatch.setattr("budgeteer.cli.cache._printed", lambda *given: "the table\n")
    monkeypatch.setattr("budgeteer.lab.cache_report.render", lambda *given: "a page")
    out, page = tmp_path / "eval.json", tmp_path / "eval.html"
    words = ["cache", "eval", "hf:x", "--methods", "tova", "--budgets", "50%", "--tasks", "single", "--samples", "3"]
    words += ["--question", "known", "--out", str(out), "--report", str(page)]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    # at 20 s nothing, for the last line was less than half a minute ago
    assert said.err.splitlines() == ["0 of 3 texts", "2 of 3 texts", "3 of 3 texts"]
    assert said.out.endswith(f"the table\nwritten: {out}\nwritten: {page}\n")
    assert page.read_text() == "a page"


def test_a_budget_just_above_what_is_protected_is_refused_before_the_first_prompt(model, monkeypatch) -> None:
    """Texts are shorter than their length: a share of the text is smaller than the same share of the length."""
    monkeypatch.setattr(cache_eval, "Prefill", None)  # nothing is computed
    sample = Sample("single", "a" * 60, "b" * 8, "c")
    cache_eval.check(["snapkv:window=32"], ["50%"], 64)
    with pytest.raises(InvalidInput, match="50% of 61 tokens leaves 30 a head, and snapkv:window=32 always keeps 32"):
        next(cache_eval.evaluate(model, encode, [sample], ["snapkv:window=32"], ["50%"]))


def test_bytes_that_are_too_few_are_refused_before_the_first_text_is_read(model, monkeypatch) -> None:
    """An entry of a layer: two heads of 8, keys and values of 4 bytes, and a slot of 4 bytes for each head."""
    read = []

    class Counted(Prefill):
        def __init__(self, model, ids, *args) -> None:
            read.append(ids.shape[1])
            super().__init__(model, ids, *args)

    monkeypatch.setattr(cache_eval, "Prefill", Counted)
    sample, entry = Sample("single", "a" * 60, "b" * 8, "c"), 3 * 2 * (2 * 8 * 4 + 4)
    for size in (31, 32):
        asked = cache_eval.evaluate(model, encode, [sample], ["snapkv"], [f"bytes:{size * entry}"], known=[False])
        if size < 32:
            with pytest.raises(InvalidInput, match=f"bytes:{size * entry} leaves 31 tokens a head.*always keeps 32"):
                next(asked)
            assert max(read) == 2
        else:
            assert [each.kept for each in asked] == [1.0, 32 / 61]


def test_retrieval_is_answered_token_by_token_and_says_what_lies_cold(model) -> None:
    sample = Sample("single", "some words " * 6, " and so", "1234")
    full, one = cache_eval.evaluate(model, encode, [sample], ["adamas"], ["25%"], known=[True])
    entries, entry = 1 + 66 + 7 + 3, 2 * 2 * 8 * 4 * 3  # the last token of the answer is not read
    assert one.cold == entries * entry
    assert one.kept == entries // 4 / entries
    assert (full.cold, full.kept) == (0, 1.0)


def test_the_command_on_a_folder_with_methods_of_another_package(model, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(theirs.install(tmp_path / "site")))
    importlib.invalidate_caches()
    tokenizers = pytest.importorskip("tokenizers")
    letters = tokenizers.Tokenizer(tokenizers.models.BPE({chr(i): i for i in range(128)}, []))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=letters, unk_token=chr(0))
    tokenizer.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    asked = [
        "--methods",
        "h2o",
        "knorm:split=ada-kv",
        "their-oldest:split=their-half-of-it,rest=their-fade",
        "--budgets",
        "50%,cache:200",
        "--samples",
        "2",
        "--length",
        "600",
    ]
    assert (
        cli.main(
            [
                "cache",
                "eval",
                f"hf:{tmp_path / 'model'}",
                *asked,
                "--tasks",
                "single,common",
                "--out",
                str(out),
                "--report",
                str(page),
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert printed.count("knorm:split=ada-kv") == 4
    rows = json.loads(out.read_text())["rows"]
    assert "knorm:split=ada-kv at cache:200, question known</h3>" in page.read_text()
    assert all(row["heads"] == [[1.0, 1.0]] * 3 for row in rows if row["method"] == "full")
    cut = next(row for row in rows if row["method"] == "knorm:split=ada-kv" and row["budget"] == "50%")
    assert sum(map(sum, cut["heads"])) / 6 == pytest.approx(cut["kept"], abs=2e-4)
    assert len(cut["places"]) == 3
    assert sum(map(sum, cut["places"])) / 60 == pytest.approx(cut["kept"], abs=0.01)  # parts are nearly equal
    assert "knorm:split=ada-kv at cache:200, question known: by place</h3>" in page.read_text()
    assert [(row["method"], row["budget"], row["known"]) for row in rows][:2] == [
        ("full", "100%", True), ("h2o", "50%", True),
    ]  # fmt: skip
    assert len(rows) == 14
    mine = "their-oldest:split=their-half-of-it,rest=their-fade"  # its split keeps half of what the budget allows
    assert all(0.48 < row["kept"] <= 0.5 for row in rows if row["budget"] == "50%" and row["method"] != mine)
    assert all(0.24 < row["kept"] <= 0.25 for row in rows if row["budget"] == "50%" and row["method"] == mine)
    sys.modules.pop("theirs_of_a_test", None)


@pytest.mark.parametrize("known", [True, False])
def test_caches_that_answer_as_one_batch_say_and_hold_what_each_does_alone(model, known: bool) -> None:
    sample = Sample("multiquery", "a text of some words, " * 4, " and then so", "one,two")
    methods = [
        "recent", "h2o", "snapkv:window=4", "snapkv:window=4,split=ada-kv", "defensive:window=4,split=layers", "kvzip",
        "prompt-distill", "adamas", 'recent:every=0,rest="quantise:bits=4,full=0"',
    ]  # fmt: skip
    given, budgets = ([sample], methods, ["50%", "25%"]), (known,)
    alone = list(cache_eval.evaluate(model, encode, *given, known=budgets))
    batch = list(cache_eval.evaluate(model, encode, *given, known=budgets, timed=False))
    assert len(alone) == len(batch) == 19
    for one, other in zip(alone, batch, strict=True):
        assert other.logprob == pytest.approx(one.logprob, abs=1e-5), one.method
        times = {"logprob": 0.0, "prompt": None, "token": None}
        assert replace(one, **times) == replace(other, **times)


def test_caches_of_different_texts_are_no_batch(model) -> None:
    caches = [BudgetedCache(model, "100%", "recent") for _ in range(2)]
    Prefill(model, torch.tensor([[3, 4, 5]])).into(caches[0])
    with pytest.raises(InvalidInput, match=r"have seen \[0, 3\] tokens"):
        Together(model, caches)
    with pytest.raises(InvalidInput, match="read its cache by itself"):
        Together(model, [BudgetedCache(model, "50%", "prompt-distill")])
