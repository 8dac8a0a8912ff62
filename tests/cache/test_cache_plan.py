"""What fits into a memory: published sizes of models, and sums by hand."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers

from budgeteer import cli
from budgeteer.cache.budgeted_cache import windows_of
from budgeteer.cache.plan import Shape, described, fit, shape_of, size_of
from budgeteer.core.errors import InvalidInput


def test_sizes_of_memories() -> None:
    assert [size_of(text) for text in ("24GB", "24 gib", "512M", "7", "0.5kb")] == [
        24 * 10**9, 24 * 2**30, 512 * 10**6, 7, 500,
    ]  # fmt: skip
    for text in ("24XB", "", "-1GB", "0", "GB"):
        with pytest.raises(InvalidInput, match="24GiB"):
            size_of(text)


def test_llama_3_8b_is_as_large_as_it_is_known_to_be(tmp_path) -> None:
    config = transformers.LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    model = described(tmp_path)
    shape = shape_of(model, windows_of(model))
    assert shape == Shape(8_030_261_248, 2048, (None,) * 32)
    found = fit(shape, 24 * 10**9, 32_000, 8)
    assert found.weights == 2 * 8_030_261_248
    assert found.token == 131_072
    assert found.full == 8 * 32_000 * 131_072
    assert found.free == 21_600_000_000 - found.weights
    assert found.batch == found.free // (32_000 * 131_072) == 1
    assert found.context == found.tokens == found.free // (8 * 131_072)
    assert found.share == Fraction(1000 * found.tokens // 32_000, 1000)
    quarter = fit(shape, 24 * 10**9, 32_000, 8, bits=4, cache_bits=8, reserve=Fraction(0))
    assert (quarter.weights, quarter.token) == (8_030_261_248 // 2, 65_536)
    assert quarter.share == 1


def test_weights_that_are_shared_count_once(tmp_path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = []
    for tied in (False, True):
        config = transformers.LlamaConfig(**sizes, vocab_size=100, tie_word_embeddings=tied)
        config.save_pretrained(tmp_path)
        found.append(shape_of(described(tmp_path / "config.json"), [None]).parameters)
    assert found[0] - found[1] == 1600


def test_a_sliding_layer_holds_its_window_by_hand() -> None:
    # 10 bytes a token and layer: two layers read everything, one slides over 5 tokens; 100 bytes of weights
    shape = Shape(50, 5, (None, 5, None))
    found = fit(shape, 1000, 20, 2, reserve=Fraction(1, 10))
    assert (found.weights, found.free, found.token) == (100, 800, 30)
    assert found.full == 2 * (20 * 20 + 5 * 10)
    assert found.batch == 1  # 800 / 450
    assert found.context == found.tokens == 17  # 2 x (17 x 20 + 50) = 780
    assert found.share == Fraction(17, 20)
    nothing = fit(shape, 100, 20, 2)
    assert (nothing.free, nothing.batch, nothing.context, nothing.share) == (0, 0, 0, 0)
    endless = fit(Shape(50, 5, (5, 5)), 1000, 20, 2)
    assert endless.context > 10**9


def test_the_command_says_what_fits_and_what_it_costs(tmp_path, capsys) -> None:
    row = {"known": True, "right": {"mean": 0.5, "low": 0.2, "high": 0.8}}
    rows = [
        {**row, "method": method, "budget": budget, "lost": {"mean": lost, "low": 0.0, "high": 1.0}}
        for method, budget, lost in (
            ("full", "100%", 0.0), ("h2o", "1%", 0.3), ("snapkv", "1%", 0.2), ("knorm", "1%", 0.4), ("h2o", "50%", 0.1),
        )
    ]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    command = ["cache", "plan", "thinker", "--gpu", "10MB", "--context", "32k", "--batch", "8"]
    assert cli.main([*command, "--measured", str(tmp_path / "rows.json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["token"] == 1536
    assert found["share"] == pytest.approx(found["free"] / found["full"], abs=0.001)
    assert [each["method"] for each in found["measured"]] == ["snapkv", "h2o"]
    assert (found["measured_on"], found["positions"]) == (None, 2048)
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert f"{found['tokens']:,} tokens a head" in said
    assert "positions     2,048 in the model" in said
    assert "measured" not in said
    assert cli.main([*command[:4], "1MB", *command[5:]]) == 1
    assert "the weights do not fit" in capsys.readouterr().out


def test_what_was_measured_says_on_which_model_and_where_no_share_of_it_fits(tmp_path, capsys) -> None:
    row = {"method": "h2o", "budget": "50%", "known": True, "right": RIGHT, "lost": LOST}
    (tmp_path / "rows.json").write_text(json.dumps({"settings": {"model": "smollm2"}, "rows": [row]}))
    command = [
        "cache",
        "plan",
        "thinker",
        "--gpu",
        "10MB",
        "--context",
        "2k",
        "--measured",
        str(tmp_path / "rows.json"),
    ]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "measured      on smollm2: " in said
    assert "no share of it" not in said
    assert cli.main([*command, "--batch", "80"]) == 0  # no half of the caches fits now
    said = capsys.readouterr().out
    assert "measured      on smollm2: " in said
    assert "no share of it is within" in said


RIGHT, LOST = {"mean": 0.5}, {"mean": 0.1, "low": 0.0, "high": 0.2}


@pytest.mark.parametrize(
    "change",
    [
        {"lost": {**LOST, "mean": "x"}},
        {"lost": {**LOST, "high": float("nan")}},
        {"right": {"mean": True}},
        {"lost": 1},
        {"right": 0.5},
        {"budget": "lots"},
        {"known": "yes"},
        {"method": 3},
    ],
)
def test_a_file_that_is_no_evaluation_is_refused(tmp_path, capsys, change) -> None:
    row = {"method": "h2o", "budget": "1%", "known": True, "right": RIGHT, "lost": LOST}
    file = tmp_path / "rows.json"
    command = ["cache", "plan", "thinker", "--gpu", "10MB", "--context", "32k", "--measured", str(file)]
    file.write_text(json.dumps({"rows": [row]}))
    assert cli.main(command) == 0
    file.write_text(json.dumps({"rows": [{**row, **change}]}))
    assert cli.main(command) == 2
    assert "rows.json holds no evaluation; make one" in capsys.readouterr().err
    for empty in ([], {}):
        file.write_text(json.dumps({"rows": empty}))
        assert cli.main(command) == 2
        assert "rows.json holds no evaluation; make one" in capsys.readouterr().err


@pytest.mark.parametrize("width", [0, -4])  # refused by arithmetic, and by transformers' own checks
def test_a_configuration_that_is_no_model_is_refused(tmp_path, width: int) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "llama", "hidden_size": {width}}}')
    with pytest.raises(InvalidInput, match="transformers makes no language model of it"):
        described(tmp_path)
