"""TRL's SFT and DPO trainers read what the builders of training examples write, and learn what they say."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # noqa: E402

from budgeteer.adapters.trl import masked  # noqa: E402
from budgeteer.check.scripted import ALL, Scripted  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.models.model import PREFILL  # noqa: E402
from budgeteer.solve import Question, styles  # noqa: E402
from budgeteer.solve.runner import Settings, run  # noqa: E402
from budgeteer.solve.styles import TaskInfo  # noqa: E402
from budgeteer.tuning import adacot, adactrl, adar1, as_strategy, self_braking, thinkdial  # noqa: E402
from helpers.trl_tiny import tiny  # noqa: E402

FIXED = {
    "report_to": [], "bf16": False, "use_cpu": True, "disable_tqdm": True, "gradient_checkpointing": False,
    "save_strategy": "no", "max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "max_length": 256,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    return tiny(tmp_path_factory.mktemp("tiny"))


def write(prompt: str, rng) -> str:
    """A model that thinks in steps and is right; without thinking it is wrong half of the time."""
    if prompt.endswith("</think>\n\n"):
        wrong = prompt.endswith("<think>\n\n</think>\n\n") and rng.random() < 0.5
        return "The answer is 5." if wrong else "The answer is 4."
    again = "Wait, let me check.\nHmm, 2+2=4\n" * rng.randint(1, 3)
    return f"<think>\nTwo and two.\n2+2=4\n{again}So 2+2=4\n</think>\n\nThe answer is 4."


def lines(builder, out: Path, asked: str = "think") -> Path:
    """The examples of three questions, by the run that the command makes, as a file."""
    style = styles.style_of(asked, TaskInfo("sums", numeric=True).by(thinking()))
    questions = [Question(f"q{i}", f"What is 2 plus 2? ({i})") for i in range(3)]
    settings = Settings(per_question=False, check=lambda q, a: float(a == "4"), out=out / "rows.jsonl", traces=True)
    asyncio.run(run(questions, as_strategy(builder), thinking(), style, "100k", settings))
    rows = [json.loads(line) for line in (out / "rows.jsonl.run" / "traces.jsonl").read_text().splitlines()]
    file = out / "examples.jsonl"
    file.write_text("".join(line + "\n" for row in rows for line in row["traces"]))
    assert rows
    return file


def thinking():
    from budgeteer.models.chat import THINK

    model = Scripted(write, capabilities=ALL | {PREFILL})
    model.tags = THINK
    return model


def trained(kind, folder, args, data):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = kind(str(folder), args=args, train_dataset=data, processing_class=tokenizer)
    made.train()
    return made


@pytest.mark.parametrize("builder", [adacot(2), thinkdial(1)], ids=["adacot", "thinkdial"])
def test_sft_reads_prompts_and_completions(folder, tmp_path, builder) -> None:
    data = Dataset.from_json(str(lines(builder, tmp_path)), cache_dir=str(tmp_path / "cache"))
    trainer = trained(SFTTrainer, folder, SFTConfig(str(tmp_path), **FIXED), data)
    batch = next(iter(trainer.get_train_dataloader()))
    learnt = trainer.processing_class.batch_decode([row[row >= 0] for row in batch["labels"]])
    for text in learnt:  # the completion and nothing of the prompt
        assert "The answer is 4." in text
        assert "What is" not in text
    assert all(row["loss"] > 0 for row in trainer.state.log_history if "loss" in row)


def test_dpo_reads_pairs(folder, tmp_path) -> None:
    data = Dataset.from_json(str(lines(adar1(4), tmp_path)), cache_dir=str(tmp_path / "cache"))
    assert {"group", "instance"} & set(data["level"])
    trainer = trained(DPOTrainer, folder, DPOConfig(str(tmp_path), **FIXED), data)
    logged = [row for row in trainer.state.log_history if "loss" in row]
    assert len(logged) == 2
    assert logged[0]["loss"] == pytest.approx(0.693, abs=0.01)  # the policy is the reference before the first step


def test_trainers_read_the_prompt_as_the_model_was_asked_it(folder, tmp_path) -> None:
    effort = "Reasoning effort: low"
    pairs = Dataset.from_json(str(lines(adar1(4), tmp_path, "think:effort=low")), cache_dir=str(tmp_path / "cache"))
    dpo = trained(DPOTrainer, folder, DPOConfig(str(tmp_path), **FIXED), pairs)
    assert effort in dpo.processing_class.decode(dpo.train_dataset[0]["prompt_ids"])
    file = lines(adacot(2), tmp_path / "sft", "think:effort=low")
    sft = trained(
        SFTTrainer, folder, SFTConfig(str(tmp_path), **FIXED),
        Dataset.from_json(str(file), cache_dir=str(tmp_path / "cache")),
    )  # fmt: skip
    assert effort in sft.processing_class.decode(sft.train_dataset[0]["input_ids"])
    (row,) = masked([json.loads(file.read_text().splitlines()[0])], sft.processing_class)
    assert effort in sft.processing_class.decode(row["input_ids"])


def test_the_tag_of_adactrl_is_learnt_behind_the_opening_of_the_thinking(folder, tmp_path) -> None:
    """The chat template writes the thinking anew, and drops what stands before it."""
    data = Dataset.from_json(str(lines(adactrl(2), tmp_path)), cache_dir=str(tmp_path / "cache"))
    trainer = trained(SFTTrainer, folder, SFTConfig(str(tmp_path), **FIXED), data)
    batch = next(iter(trainer.get_train_dataloader()))
    for row in batch["labels"]:
        assert trainer.processing_class.decode(row[row >= 0]).startswith("<think>\n[Easy]Two and two.")


def test_what_is_masked_is_not_learnt(folder, tmp_path) -> None:
    examples = [json.loads(line) for line in lines(self_braking(2, exact=True), tmp_path).read_text().splitlines()]
    spans = [one for one in examples if one["masked"]]
    assert spans
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    data = Dataset.from_list(masked(spans, tokenizer))
    trainer = trained(SFTTrainer, folder, SFTConfig(str(tmp_path), completion_only_loss=True, **FIXED), data)
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[0]])
    labels = batch["labels"][0]
    learnt = tokenizer.decode(labels[labels >= 0])
    said = spans[0]["completion"][-1]["content"]
    ((begin, end),) = spans[0]["masked"]
    assert said[begin:end].strip()
    assert learnt.startswith(said[:begin].rstrip())
    assert said[end:].strip() in learnt
    assert said[begin:end] not in learnt.replace(said[:begin], "", 1)
    assert "What is" not in learnt
    read = tokenizer.decode(batch["input_ids"][0])
    assert said[begin:end] in read  # it is read all the same


def test_spans_of_raw_texts_by_hand(folder) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    (row,) = masked([{"prompt": "2+2=", "completion": "4 or 5", "masked": [[1, 4]]}], tokenizer)
    kept = [token for token, on in zip(row["input_ids"], row["completion_mask"], strict=True) if on]
    assert tokenizer.decode(kept) == f"4 5{tokenizer.eos_token}" or tokenizer.decode(kept) == f"45{tokenizer.eos_token}"
    (plain,) = masked([{"prompt": "2+2=", "completion": "4"}], tokenizer)
    assert sum(plain["completion_mask"]) == 2  # the 4 and the end of the sequence


def test_what_cannot_be_masked_is_refused(folder) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    said = [{"role": "assistant", "content": "abc"}]
    with pytest.raises(InvalidInput, match="does not write the completion of 'q' as it is"):
        masked([{"id": "q", "prompt": [{"role": "user", "content": "a"}], "completion": said}], tokenizer)
    with pytest.raises(InvalidInput, match="use a fast one"):
        masked([], object())
