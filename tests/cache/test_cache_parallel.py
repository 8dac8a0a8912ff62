"""Contexts that were read by themselves: the attention in loops, and the model that reads it all at once."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache.parallel import ParallelCache, read
from budgeteer.core.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def model(kind: str = "Llama", **changes):
    torch.manual_seed(3)
    configuration = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))
    made = getattr(transformers, f"{kind}ForCausalLM")(configuration(**{**SIZES, **changes})).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return made


def ids(tokens: int, seed: int):
    return torch.randint(3, 97, (1, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
def test_one_context_is_the_text_read_at_once(kind: str) -> None:
    """Queries of several tokens, then one, then generation."""
    made = model(kind)
    prefix, context, question = ids(3, 0), ids(20, 1), ids(5, 2)
    whole = torch.cat([prefix, context, question], dim=1)
    with torch.no_grad():
        wanted = made(torch.cat([whole, ids(1, 3)], dim=1)).logits
        cache = ParallelCache(made, *read(made, prefix, [context]))
        found = made(question, past_key_values=cache).logits
        torch.testing.assert_close(found, wanted[:, 23:28], atol=1e-4, rtol=1e-4)
        found = made(ids(1, 3), past_key_values=cache).logits
        torch.testing.assert_close(found, wanted[:, 28:], atol=1e-4, rtol=1e-4)
        assert cache.get_seq_length() == 29
        cache = ParallelCache(made, *read(made, prefix, [context]))
        options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
        given = made.generate(cache.prompt(question), past_key_values=cache, **options)
        assert given[0, -6:].tolist() == made.generate(whole, **options)[0, -6:].tolist()


def by_numbers(query, parts, scaling: float, temperature: float, scale: float) -> list[float]:
    """The output of one query of one head: (context?, key, value) of each entry that it sees."""
    outputs, logs = [], []
    for context in (True, False):
        divisor = temperature if context else 1.0
        of = [(key, value) for is_context, key, value in parts if is_context == context]
        logits = [scaling / divisor * sum(a * b for a, b in zip(query, key, strict=True)) for key, _ in of]
        total = sum(math.exp(logit) for logit in logits)
        values = [[math.exp(lo) / total * x for x in value] for lo, (_, value) in zip(logits, of, strict=True)]
        outputs.append([sum(column) for column in zip(*values, strict=True)])
        logs.append(math.log(total))
    weights = [math.exp(scale * temperature * logs[0]), math.exp(logs[1])]
    shares = [weight / sum(weights) for weight in weights]
    return [shares[0] * a + shares[1] * b for a, b in zip(*outputs, strict=True)]


@pytest.mark.parametrize(("temperature", "scale"), [(1.0, 1.0), (0.5, 1.3)])
def test_contexts_share_the_attention_by_temperature_and_scale(temperature: float, scale: float) -> None:
    rng = torch.Generator().manual_seed(0)

    def pair(n: int):
        return torch.randn(1, 2, n, 4, generator=rng), torch.randn(1, 2, n, 4, generator=rng)

    made = model(hidden_size=16)
    prefix, contexts = read(made, ids(2, 0), [ids(3, 1), ids(5, 2)])
    contexts = [each._replace(layers=(pair(each.tokens),) * 3) for each in contexts]
    prefix = prefix._replace(layers=(pair(2),) * 3)
    cache = ParallelCache(made, prefix, contexts, temperature=temperature, scale=scale)
    layer, new = cache.layers[1], pair(3)
    assert cache.get_seq_length() == 2 + 5  # behind the longest context
    layer.update(*new)
    query = torch.randn(1, 4, 3, 4, generator=rng)
    found = layer.attention(query, 0.7, None)
    assert found.shape == (1, 3, 4, 4)
    for q in range(3):
        for h in range(4):
            parts = []
            for is_context, (keys, values), count in (
                (False, prefix.layers[1], 2), (True, contexts[0].layers[1], 3), (True, contexts[1].layers[1], 5),
                (False, new, q + 1),
            ):  # fmt: skip
                entries = zip(keys[0, h // 2, :count].tolist(), values[0, h // 2, :count].tolist(), strict=True)
                parts += [(is_context, key, value) for key, value in entries]
            wanted = by_numbers(query[0, h, q].tolist(), parts, 0.7, temperature, scale)
            assert found[0, q, h].tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_order_of_contexts_is_lost_and_a_context_serves_many_prompts() -> None:
    made = model()
    prefix, contexts = read(made, ids(2, 0), [ids(9, 1), ids(6, 2)])
    question = ids(4, 3)
    with torch.no_grad():
        one = made(question, past_key_values=ParallelCache(made, prefix, contexts)).logits
        other = made(question, past_key_values=ParallelCache(made, prefix, contexts[::-1])).logits
        alone = made(question, past_key_values=ParallelCache(made, prefix, contexts[:1])).logits
        plain = made(question).logits
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert (one - alone).abs().max() > 0.01
    assert torch.equal(plain, model()(question).logits)  # without such a cache the model is as it was


def test_what_cannot_be_is_refused() -> None:
    made = model()
    for prefix, contexts in ((ids(2, 0), []), (ids(2, 0)[:, :0], [ids(2, 1)]), (ids(2, 0), [ids(4, 1).expand(2, -1)])):
        with pytest.raises(InvalidInput, match="none of them empty"):
            read(made, prefix, contexts)
    given = read(made, ids(2, 0), [ids(4, 1)])
    for options in ({"temperature": 0.0}, {"scale": -1.0}):
        with pytest.raises(InvalidInput, match="above 0"):
            ParallelCache(made, *given, **options)
    with pytest.raises(InvalidInput, match="one prompt at a time"), torch.no_grad():
        made(ids(4, 1).expand(2, -1), past_key_values=ParallelCache(made, *given))
    slides = model("Gemma3", head_dim=8, sliding_window=16, layer_types=["sliding_attention"] * 3)
    with pytest.raises(InvalidInput, match="without sliding layers"):
        read(slides, ids(2, 0), [ids(4, 1)])
