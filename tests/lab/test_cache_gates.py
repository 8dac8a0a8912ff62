"""Gates of a cache: their attention in loops over numbers, their training, their files and the command."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer import cli
from budgeteer.cache import BudgetedCache
from budgeteer.cache.gates import Gates, gates_of, save_gates, untrained
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.score import kvzap, trim_kv
from budgeteer.cache.selecting import selection
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.lab.cache_gates import Training, gated, retention, texts_of, train_gates

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip


READS, ALL = ("q_proj", "k_proj"), ("q_proj", "k_proj", "v_proj", "o_proj", "lm_head")


def llama(seed: int = 3, large: tuple[str, ...] = READS):
    """A random model; with ALL its large weights, what is read matters for what is written."""
    torch.manual_seed(seed)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    for name, weight in made.named_parameters():
        weight.data *= 6 if any(part in name for part in large) else 1
    return made


def texts(count: int, length: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 64, (count, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("softcap", [None, 0.4])
def test_retention_in_loops(softcap: float | None) -> None:
    """o_t = sum of softmax(b_i^(t - i) c q_t.k_i) v_i, as the paper has it: the logit fades, not the weight."""
    rng = torch.Generator().manual_seed(0)
    query, (key, value) = torch.randn(1, 4, 6, 3, generator=rng), torch.randn(2, 1, 2, 6, 3, generator=rng)
    said = -torch.rand(1, 2, 6, generator=rng)
    out, alive = retention(query, key, value, said, None, 0.7, softcap)
    for h in range(4):
        for t in range(6):
            faded = [math.exp((t - i) * float(said[0, h // 2, i])) for i in range(t + 1)]
            logits = [0.7 * float(query[0, h, t] @ key[0, h // 2, i]) for i in range(t + 1)]
            capped = [softcap * math.tanh(logit / softcap) if softcap else logit for logit in logits]
            raised = [math.exp(f * logit) for f, logit in zip(faded, capped, strict=True)]
            wanted = sum(r / sum(raised) * value[0, h // 2, i] for i, r in enumerate(raised))
            torch.testing.assert_close(out[0, t, h], wanted)
            assert float(alive[0, h // 2, t]) == pytest.approx(sum(faded), rel=1e-5)


def gemma2():
    """A random model whose logits are capped, with a sliding layer."""
    torch.manual_seed(3)
    given = transformers.Gemma2Config(**SIZES, head_dim=8, sliding_window=9, attn_logit_softcapping=0.5)
    made = transformers.Gemma2ForCausalLM(given).eval()
    for name, weight in made.named_parameters():
        weight.data *= 6 if any(part in name for part in READS) else 1
    return made


@pytest.mark.parametrize(("made", "attention"), [(llama, "sdpa"), (llama, "eager"), (gemma2, "eager")])
def test_gates_that_keep_everything_are_the_model_and_others_are_not(made, attention: str) -> None:
    model, ids = made(), texts(2)
    model.set_attn_implementation(attention)
    train_gates("trim-kv", model, texts(5), Training(steps=0))  # leads the attention through ours
    plain = model(input_ids=ids).logits
    for bias, same in ((50.0, True), (0.0, False)):
        gates = untrained("trim-kv", (2, 32, 2), 4, bias, "", 0)
        with gated(model, gates) as alive:
            logits = model(input_ids=ids, use_cache=False).logits
        assert torch.allclose(logits, plain, atol=1e-5) == same
        assert [each.shape for each in alive] == [(2, 2, 24)] * 2
    torch.testing.assert_close(model(input_ids=ids).logits, plain)  # and nothing stays behind
    for row in (0, 1):  # untrained gates of 0: b = 1/2, and 2 - 2^-t are alive
        assert float(alive[0][row, 0, 10]) == pytest.approx(2 - 2.0**-10, abs=0.2)


def test_trim_kv_learns_to_let_entries_fade_and_to_stay_near_the_model() -> None:
    model = llama(large=ALL)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    given = Training(steps=40, inside=8, rate=0.05, keep=4, capacity=20.0)
    tight = train_gates("trim-kv", model, texts(10), given)
    alive = [tight.measured[f"share of a text that is alive, {when}"] for when in ("untrained", "trained")]
    assert alive[1] < 0.8 * alive[0]
    near = train_gates("trim-kv", model, texts(10), given._replace(capacity=0.0)).measured
    apart = "KL to the model, nats a token, trained"
    assert near[apart] < tight.measured[apart]
    assert near["share of a text that is alive, trained"] > alive[1]
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    again = train_gates("trim-kv", model, texts(10), given)
    assert all(torch.equal(weight, again.gates.weights[name]) for name, weight in tight.gates.weights.items())


def test_kvzap_learns_what_kvzip_says_of_new_texts() -> None:
    model = llama()
    done = train_gates("kvzap", model, texts(25), Training(steps=150, inside=16, rate=0.01))
    assert done.measured["variance explained"] > 0.2  # of texts that it has not seen; the mean alone explains 0
    # and in a cache: the scores of a new text go with those of kvzip
    ids, scores = texts(1, 40, seed=9), []
    for method in ("kvzip", kvzap(gates=done.gates)):
        selected = selection(method) if isinstance(method, str) else selection("knorm")._replace(score=method)
        read = Prefill(model, ids)
        memory = read.heard(read.into(BudgetedCache(model, "100%", selected))) if method == "kvzip" else None
        memory = memory or [layer.memory() for layer in read.into(BudgetedCache(model, "100%", selected)).layers]
        scores.append(torch.stack([layer[0, :, 4:, 0] for layer in memory]))
    together = torch.corrcoef(torch.stack([scores[0].clamp(min=1e-6).log().flatten(), scores[1].flatten()]))[0, 1]
    assert float(together) > 0.5


def test_trim_kv_scores_by_what_its_gates_said_when_an_entry_came() -> None:
    model = llama()
    gates = untrained("trim-kv", (2, 32, 2), 4, 1.0, "", 0)
    ids, given = texts(2, 30), []
    for layer in model.model.layers:
        layer.input_layernorm.register_forward_hook(lambda module, args, output: given.append(output))
    cache = BudgetedCache(model, "cache:12", selection("knorm")._replace(score=trim_kv(gates=gates)))
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
    for index, layer in enumerate(cache.layers):
        said = torch.nn.functional.logsigmoid(gates(index, given[index]))
        left = (30 - torch.arange(30)) * said
        wanted = left.topk(12, dim=-1).indices.sort(-1).values
        assert torch.equal(layer.storage.slots(30).sort(-1).values, wanted)


def test_files_come_back_and_what_does_not_fit_is_refused(tmp_path) -> None:
    model, path = llama(), tmp_path / "gates" / "kvzap.safetensors"
    done = train_gates("kvzap", model, texts(5), Training(steps=1, inside=4))
    save_gates(done.gates, path)
    for given in (path, tmp_path):
        found = gates_of("kvzap", str(given))
        assert all(torch.equal(found.weights[name], weight) for name, weight in done.gates.weights.items())
    save_gates(Gates({name: weight + 1 for name, weight in done.gates.weights.items()}, "kvzap", "other"), path)
    assert gates_of("kvzap", str(path)).fingerprint == "other"  # trained again in the same process
    save_gates(done.gates, path)
    BudgetedCache(model, "50%", f"kvzap:gates={path}")
    with pytest.raises(InvalidInput, match=r"trained on a model with fingerprint .* budgeteer cache train"):
        BudgetedCache(llama(seed=4), "50%", f"kvzap:gates={path}")
    with pytest.raises(InvalidInput, match="those of kvzap"):
        trim_kv(gates=str(path))
    with pytest.raises(InvalidInput, match="give gates=FILE"):
        kvzap()
    with pytest.raises(CheckpointError, match="cannot read gates"):
        kvzap(gates=str(tmp_path / "none"))
    (tmp_path / "damaged").write_bytes(b"no gates")
    with pytest.raises(CheckpointError, match="cannot read gates"):
        kvzap(gates=str(tmp_path / "damaged"))
    with pytest.raises(InvalidInput, match="2 layers of width 32"):
        Gates(done.gates.weights, "kvzap", "")(2, torch.zeros(1, 1, 32))
    with pytest.raises(InvalidInput, match="4 texts are too few"):
        train_gates("kvzap", model, texts(4), Training())


def test_a_file_that_is_stopped_while_it_is_written_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    path = tmp_path / "new" / "gates.safetensors"
    gates = untrained("kvzap", (3, 32, 2), 4, 0.0, "", 1)
    save_gates(gates, path)

    def stopped(tensors, file, metadata) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_gates(gates, path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert kvzap(gates=str(path)).remembers == 1


def test_the_command_trains_what_a_cache_can_use(tmp_path, capsys, monkeypatch) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    letters = tokenizers.Tokenizer(tokenizers.models.BPE({chr(i): i - 32 for i in range(32, 96)}, []))
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters, unk_token=" ").save_pretrained(tmp_path / "model")
    llama().save_pretrained(tmp_path / "model")
    file = tmp_path / "texts.txt"
    file.write_text("THE SUN IS YELLOW, AND THE NUMBER IS 1234. " * 8)
    asked = ["cache", "train", "kvzap", f"hf:{tmp_path / 'model'}", "--texts", str(file), "--steps", "3"]
    assert cli.main([*asked, "--length", "30", "--width", "4"]) == 0
    printed = capsys.readouterr().out
    assert "variance explained: " in printed
    assert (tmp_path / "model" / "gates" / "kvzap.safetensors").is_file()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    cache = BudgetedCache(loaded, "50%", f"kvzap:gates={tmp_path / 'model'}")
    loaded(input_ids=texts(1, 30), past_key_values=cache)
    assert cache.account().share == 0.5
    assert cli.main(["cache", "train", "trim-kv", *asked[3:], "--length", "30", "--budget", "1%"]) == 2
    assert "--budget is 1%, which leaves 0 of 30 tokens; give 1 or more" in capsys.readouterr().err
    assert cli.main([*asked, "--length", "200"]) == 2
    assert "give 5 or more, by a longer file" in capsys.readouterr().err
    with monkeypatch.context() as without:
        without.setattr("budgeteer.lab.cache_eval.load_model", None)  # before it is loaded
        assert cli.main([*asked, "--length", "300"]) == 2  # of 512 positions
    assert "which is read twice, takes 600 tokens, and the model reads 512 at most" in capsys.readouterr().err
    (tmp_path / "model" / "gates" / "kvzap.safetensors").unlink()
    (tmp_path / "model" / "gates").rmdir()
    (tmp_path / "model" / "gates").write_text("in the way")
    assert cli.main([*asked, "--length", "30"]) == 2  # before it trains
    assert "choose another --out" in capsys.readouterr().err


def test_no_more_of_a_file_is_read_than_its_texts_need(tmp_path) -> None:
    path, asked = tmp_path / "texts.txt", list[int]()
    path.write_text("".join(chr(97 + i % 26) for i in range(100_000)))

    def encode(text: str, first: bool) -> list[int]:
        assert first
        asked.append(len(text))
        return [ord(letter) for letter in text[::20]]  # so few tokens that what is read first is not enough

    found = texts_of(path, encode, 10, 6)
    assert found.tolist() == [[97 + 20 * (10 * i + j) % 26 for j in range(10)] for i in range(6)]
    assert asked == [480, 960, 1920]  # 8 letters a token at first, then twice as many
    with pytest.raises(InvalidInput, match="5,000 tokens, which make 4 texts of 1250, 6 at most"):
        texts_of(path, encode, 1250, 6)
