"""The thinking model: its chat template by hand, training that resumes to the bit, engines that load what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer import cli
from budgeteer.core.errors import CheckpointError
from budgeteer.lab.thinker import train
from budgeteer.lab.thinker.conversations import Conversation, conversation, conversations, problem, user
from budgeteer.lab.thinker.evaluate import Asker, answer_of, called, closed_by_force, responded
from budgeteer.lab.thinker.export import write_gguf
from budgeteer.lab.thinker.problem import split_of
from budgeteer.lab.thinker.tokens import LONGEST, Encoder, build_tokenizer, render, write_tokenizer
from budgeteer.lab.thinker.train import ThinkerConfig, pretrain
from budgeteer.models.thinker import FILES, thinker

TINY = ThinkerConfig(
    steps=6, tokens=512, hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, texts=300
)
TOOL = {"type": "function", "function": {"name": "lookup", "description": "Read.", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two layers after six steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "CHUNK", 64)
        patch.setattr(train, "SAVE_EVERY", 2)
        patch.setattr(train, "TELL_EVERY", 2)
        path, told = tmp_path_factory.mktemp("thinker"), []
        pretrain(TINY, path, told.append)
    assert [p.step for p in told] == [2, 4, 6]
    assert told[-1].seconds_left == 0
    assert told[-1].speed > 0
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def text_of(tokenizer, messages, **options) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def test_thinking_is_on_by_default_and_off_with_an_empty_block(tokenizer) -> None:
    ask = [{"role": "user", "content": "What is 2 + 3?"}]
    begin = "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(tokenizer, ask, add_generation_prompt=True) == begin
    assert text_of(tokenizer, ask, add_generation_prompt=True, enable_thinking=True) == begin
    off = text_of(tokenizer, ask, add_generation_prompt=True, enable_thinking=False)
    assert off == begin + "<think>\n\n</think>\n\n"


def test_effort_is_a_line_of_the_system_message(tokenizer) -> None:
    ask = [{"role": "user", "content": "Hi"}]
    high = text_of(tokenizer, ask, reasoning_effort="high")
    assert high == "<|im_start|>system\nReasoning effort: high<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    both = text_of(tokenizer, [{"role": "system", "content": "Be brief."}, *ask], reasoning_effort="low")
    assert both.startswith("<|im_start|>system\nBe brief.\n\nReasoning effort: low<|im_end|>\n<|im_start|>user\n")


def test_thoughts_are_kept_after_the_last_question_only(tokenizer) -> None:
    messages = [
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": "The answer is 1.", "reasoning_content": "one"},
        {"role": "user", "content": "B?"},
        {"role": "assistant", "content": "<think>\ntwo\n</think>\n\nThe answer is 2."},
    ]
    assert text_of(tokenizer, messages) == (
        "<|im_start|>user\nA?<|im_end|>\n"
        "<|im_start|>assistant\nThe answer is 1.<|im_end|>\n"
        "<|im_start|>user\nB?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\ntwo\n</think>\n\nThe answer is 2.<|im_end|>\n"
    )


def test_tools_calls_and_responses(tokenizer) -> None:
    call = {"type": "function", "function": {"name": "lookup", "arguments": {"name": "Ana", "field": "city"}}}
    messages = [
        {"role": "user", "content": "Where does Ana live?"},
        {"role": "assistant", "content": "", "reasoning_content": "city of Ana?", "tool_calls": [call]},
        {"role": "tool", "content": "Oslo"},
    ]
    text = text_of(tokenizer, messages, tools=[TOOL], add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\n# Tools\n\nYou may call these functions:\n<tools>\n" + json.dumps(TOOL) + "\n"
        "</tools>\n\nCall one with a JSON object:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nWhere does Ana live?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\ncity of Ana?\n</think>\n\n<tool_call>\n"
        '{"name": "lookup", "arguments": {"name": "Ana", "field": "city"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nOslo\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    before = text_of(tokenizer, messages[:2], tools=[TOOL])
    assert text == before.removesuffix("\n") + responded("Oslo")  # what was generated stays a prefix
    assert called(before.rpartition("</think>")[2]) == {"name": "lookup", "arguments": {"name": "Ana", "field": "city"}}
    twice = text_of(tokenizer, [*messages, {"role": "tool", "content": "Rome"}])
    assert twice.endswith(
        "user\n<tool_response>\nOslo\n</tool_response>\n<tool_response>\nRome\n</tool_response><|im_end|>\n"
    )


def test_answers_and_calls_are_read() -> None:
    assert answer_of("Hm.\nThe answer is 3.\nThe answer is 4.") == "4"
    assert answer_of("The answer is \\boxed{3") is None
    assert called("<tool_call>\n{nonsense}\n</tool_call>") is None
    assert called('<tool_call>\n{"name": "lookup"}\n</tool_call>') is None
    assert closed_by_force("<think>\n1+1=2\n") == "<think>\n1+1=2\n</think>\n\n"


def test_the_tokenizer_takes_digits_one_by_one_and_any_text(tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer("1234+5").input_ids) == ["1", "2", "3", "4", "+", "5"]
    for text in ("Grüße, 你好 🙂\n\n  x", "<think>\n7\n</think>\n\nThe answer is 7."):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    kept = tokenizer.decode(tokenizer("<|im_start|><think></think><|im_end|>").input_ids, skip_special_tokens=True)
    assert kept == "<think></think>"
    assert len(tokenizer) <= 1024


def test_what_the_assistant_says_is_marked_and_nothing_else() -> None:
    made = build_tokenizer(0, texts=300)

    def said(chat: Conversation) -> str:
        row = Encoder(made).rows([chat])[0]
        return made.decode([t for t, s in zip(row.ids, row.said, strict=True) if s], skip_special_tokens=False)

    asked = problem(0, 0, "train", "arithmetic")
    answer = {"role": "assistant", "content": "The answer is 2."}
    messages = [user(asked), answer, user(asked), {**answer, "reasoning_content": "1+1=2"}]
    chat = Conversation(asked, messages, None, {"enable_thinking": True})
    assert said(chat) == "<think>\n1+1=2\n</think>\n\nThe answer is 2.<|im_end|>"
    silent = Conversation(asked, [user(asked), answer], None, {"enable_thinking": False})
    assert said(silent) == "The answer is 2.<|im_end|>"
    tools = next(c for c in conversations(0, 0, 200) if c.tools and c.options["enable_thinking"])
    turns = [m for m in tools.messages if m["role"] == "assistant"]
    assert said(tools).count("<|im_end|>") == len(turns) > 1
    assert "tool_response" not in said(tools)


def test_training_reads_what_the_engines_will_read(tokenizer) -> None:
    for chat in conversations(0, 0, 60):
        asked = chat.messages[: 1 + max(i for i, m in enumerate(chat.messages) if m["role"] == "user")]
        before = text_of(tokenizer, asked, tools=chat.tools, add_generation_prompt=True, **chat.options)
        assert render(chat, answered=False) == before
        assert render(chat).startswith(before)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from budgeteer.lab.thinker import train
train.CHUNK, train.SAVE_EVERY, train.TELL_EVERY = 64, 2, 1
def progress(now):
    if now.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train.pretrain(eval(sys.argv[1], vars(train)), Path(sys.argv[2]), progress)
"""


def test_a_killed_run_continues_to_the_same_bits(folder, tmp_path, monkeypatch) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, repr(TINY), str(tmp_path)], timeout=200)
    assert done.returncode == -9
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4
    assert not (tmp_path / "model.safetensors").exists()
    monkeypatch.setattr(train, "CHUNK", 64)
    with pytest.raises(CheckpointError, match="another config"):
        pretrain(replace(TINY, steps=8), tmp_path, lambda _: None)
    pretrain(TINY, tmp_path, lambda _: None)
    assert not (tmp_path / "state.pt").exists()
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    (tmp_path / "state.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="cannot read"):
        pretrain(TINY, tmp_path, lambda _: None)


def test_a_batch_holds_similar_lengths_within_its_tokens(monkeypatch) -> None:
    monkeypatch.setattr(train, "CHUNK", 128)
    batches = train._chunk(replace(TINY, tokens=1024), Encoder(build_tokenizer(0, texts=300)), 0, 0)
    assert sum(len(tokens) for tokens, _ in batches) == 128
    for tokens, weight in batches:
        assert tokens.numel() <= 1024 or len(tokens) == 1
        assert tokens.shape[1] <= LONGEST
        assert weight.shape == (tokens.shape[0], tokens.shape[1] - 1)
        assert ((weight == 0) == (tokens[:, 1:] == 0)).all()  # no loss on padding, some on all else


def test_transformers_loads_it_by_the_auto_classes(folder, tokenizer) -> None:
    assert thinker(folder) == folder
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], return_tensors="pt", return_dict=True)
    assert model.generate(**ids, max_new_tokens=3, do_sample=False).shape[1] > ids["input_ids"].shape[1]


def test_a_budget_bounds_the_thinking_and_an_answer_follows(folder) -> None:
    asker = Asker(folder, batch=4)
    asked = [problem(0, i) for i in range(6)]
    for budget in (0, 5):
        for found in asker.ask(asked, budget=budget, temperature=1.0, seed=1):
            assert found.thought <= budget
            assert found.text.startswith("<think>\n")
            if found.forced:
                assert "\n</think>\n\n" in found.text
    silent = asker.ask(asked, thinks=False)
    assert all(found.thought == 0 and not found.forced for found in silent)


def test_missing_weights_are_a_clear_error(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json.*lab pretrain --model thinker"):
        thinker(tmp_path)
    with pytest.raises(CheckpointError, match="config"):
        write_gguf(tmp_path, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


CALL = {"type": "function", "function": {"name": "lookup", "arguments": {"name": "Ana"}}}
HEARD = (
    [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": "The answer is 5.", "reasoning_content": "2+3=5"},
    ],
    [
        {"role": "user", "content": "Where does Ana live?"},
        {"role": "assistant", "content": "", "reasoning_content": "city of Ana?", "tool_calls": [CALL]},
    ],
)


@pytest.fixture(scope="module")
def parrot(tmp_path_factory):
    """A model that has learnt two conversations by heart."""
    about = problem(0, 0, "train", "arithmetic")
    path, made = tmp_path_factory.mktemp("parrot"), build_tokenizer(0, texts=300)
    write_tokenizer(made, path)
    end, pad = (made.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>"))
    model = train.build_model(replace(TINY, hidden_size=64), made.get_vocab_size(), end, pad)
    chats = [
        Conversation(about, m, tools, {"enable_thinking": True}) for m, tools in zip(HEARD, (None, [TOOL]), strict=True)
    ]
    tokens, weight = train.collate(Encoder(made).rows(chats), 0.0, pad)
    adam = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(70):
        logits = model(input_ids=tokens[:, :-1]).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        adam.zero_grad()
        (losses * weight.flatten()).sum().backward()
        adam.step()
    assert float((losses * weight.flatten()).detach().max()) < 0.1
    model.to(torch.bfloat16).save_pretrained(path)
    return path


def test_llama_cpp_loads_it_and_sees_its_thinking_as_reasoning(parrot, tmp_path, capsys) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("openai")
    from budgeteer.models.llama_cpp import LlamaCpp

    file = tmp_path / "thinker.gguf"
    assert cli.main(["lab", "export", "--model", str(parrot), "--gguf", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    tokenizer = transformers.AutoTokenizer.from_pretrained(parrot)
    model = LlamaCpp(file, slots=1, context=512, threads=1)

    def said(heard: int, **options):
        body = {"messages": HEARD[heard][:1], "temperature": 0.0, "max_tokens": 80, **options}
        return model._ask("/v1/chat/completions", body)["choices"][0]["message"]

    try:
        for text in ("Grüße, 1234 keys!\n\n x", render(conversation(0, 3)), render(conversation(0, 12))):
            body = {"content": text, "add_special": True, "parse_special": True}
            assert model._ask("/tokenize", body)["tokens"] == tokenizer(text).input_ids
        answer = said(0)
        assert answer["reasoning_content"].strip() == "2+3=5"
        assert answer["content"].strip() == "The answer is 5."
        called_for = said(1, tools=[TOOL])
        assert called_for["reasoning_content"].strip() == "city of Ana?"
        (call,) = called_for["tool_calls"]
        assert call["function"]["name"] == "lookup"
        assert json.loads(call["function"]["arguments"]) == {"name": "Ana"}
        for options in ({"enable_thinking": False}, {"reasoning_effort": "high"}):
            asked = {"messages": HEARD[0][:1], "chat_template_kwargs": options}
            found = model._ask("/apply-template", asked)["prompt"]
            assert found == text_of(tokenizer, HEARD[0][:1], add_generation_prompt=True, **options)
    finally:
        model._stopped()


def test_what_is_no_thinking_model_is_not_exported(parrot, tmp_path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes((parrot / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(CheckpointError, match="no Qwen3"):
        write_gguf(tmp_path, tmp_path / "x.gguf")
    assert cli.main(["lab", "export", "--model", str(tmp_path), "--gguf", str(tmp_path / "x.gguf")]) != 0
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no chat template"):
        write_gguf(tmp_path, tmp_path / "x.gguf")


def test_the_benchmark_writes_accuracy_with_intervals(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import thinker as script

    monkeypatch.setattr(script, "EFFORTS", ("off",))
    monkeypatch.setattr(script, "BUDGETS", (0,))
    of = script.problems(2, 1)
    assert len({p.key for p in of}) == len(of) == 2 * sum(len(module.LEVELS) for module in script.FAMILIES.values())
    assert {split_of(p.key) for p in of} == {"test"}
    out = tmp_path / "thinker.json"
    monkeypatch.setattr(sys, "argv", ["thinker.py", "--model", str(folder), "--each", "1", "--out", str(out)])
    script.main()
    found = json.loads(out.read_text())
    for part, about in (("efforts", {"effort": "off"}), ("curve", {"budget": 0})):
        whole, *cells = found[part]
        assert whole.items() >= {**about, "family": "all", "level": "all", "n": len(of) // 2}.items()
        assert sum(cell["n"] for cell in cells if cell["level"] != "all") == whole["n"]
        assert all(cell["low"] <= cell["accuracy"] <= cell["high"] for cell in cells)
