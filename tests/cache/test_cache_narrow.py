"""Tokens of a prompt that end in a middle layer: against the model with masks, by rows, in turns; what is computed."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from budgeteer import Budget
from budgeteer.cache import BudgetedCache, budgeted
from budgeteer.cache.narrow import whole_layers
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.score import prompt_distill
from budgeteer.core.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LAST = 1
"""The layer that chooses: the second of four, by a depth of 0.5."""


def model(kind: str = "Llama", attention: str = "sdpa", **changes):
    configuration = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))
    torch.manual_seed(3)
    made = getattr(transformers, f"{kind}ForCausalLM")(configuration(**{**SIZES, **changes})).eval()
    for name, weight in made.named_parameters():  # attention that is not nearly uniform
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    made.set_attn_implementation(attention)
    return made


def ids(tokens: int = 40, seed: int = 0, rows: int = 1):
    return torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def drawn(query, keys, there: list[int], scaling: float, kernel: int) -> dict[int, float]:
    """Products of the last query with the keys of the entries that are there, on the mean over heads and neighbours."""
    heads, group = len(query), len(query) // len(keys)
    raw = {
        i: sum(scaling * sum(a * b for a, b in zip(query[h], keys[h // group][i], strict=True)) for h in range(heads))
        / heads
        for i in there
    }
    found = {}
    for place, i in enumerate(there):
        near = there[max(place - kernel // 2, 0) : place + kernel // 2 + 1]
        found[i] = sum(raw[j] for j in near) / len(near)
    return found


class Reference:
    """A text in one pass without a cache, in which a mask of each layer says what was dropped by then.

    ``turns`` are prompts, (first token, behind the last); ``sizes`` how many entries are kept after each, by each of
    the ``layers`` that choose. Tokens between them were generated. ``alive[t]`` is what turn t kept, ``chosen[t]`` what
    each of its choices left.
    """

    def __init__(self, made, turns, sizes, kernel: int = 5, layers: tuple[int, ...] = (LAST,)) -> None:
        self.turns, self.sizes, self.kernel, self.layers = turns, sizes, kernel, layers
        self.made, self.chosen, self.seen = copy.deepcopy(made), [], {}
        for layer in self.made.modules():
            if hasattr(layer, "layer_idx"):
                layer.config = copy.copy(layer.config)
                layer.config._attn_implementation_internal = "narrow_reference"
        ALL_ATTENTION_FUNCTIONS.register("narrow_reference", self.attend)

    def logits(self, text):
        """[n, vocabulary] of a text [1, n]; those of dropped tokens mean nothing."""
        self.chosen = []
        for (start, stop), sizes in zip(self.turns, self.sizes, strict=True):
            left, found = self.there(start) | set(range(start, stop)), []
            self.chosen.append(found)
            for layer, size in zip(self.layers, sizes if isinstance(sizes, tuple) else (sizes,), strict=True):
                self.made(text[:, :stop])
                query, keys, scaling = self.seen[layer]
                worth = drawn(query, keys, sorted(left), scaling, self.kernel)
                worth[stop - 1] = float("inf")
                left = set(sorted(worth, key=lambda i: -worth[i])[:size])
                found.append(left)
        return self.made(text).logits[0]

    @property
    def alive(self) -> list[set[int]]:
        return [found[-1] for found in self.chosen if found]

    def there(self, before: int) -> set[int]:
        """What is left of the tokens before one that begins a turn or is generated."""
        done = [t for t, (_, stop) in enumerate(self.turns[: len(self.alive)]) if stop <= before]
        return self.alive[done[-1]] | set(range(self.turns[done[-1]][1], before)) if done else set()

    def reads(self, layer: int, query: int, key: int) -> bool:
        turn = next((t for t, (start, stop) in enumerate(self.turns) if start <= query < stop), None)
        start = query if turn is None else self.turns[turn][0]
        if key < start or key > query:
            return key in self.there(start)
        if turn is None or turn >= len(self.chosen) or key == query:
            return True
        behind = sum(layer > each for each in self.layers[: len(self.chosen[turn])])
        return behind == 0 or key in self.chosen[turn][behind - 1]

    def attend(self, module, query, key, value, attention_mask, scaling=None, **kwargs):
        length, group = query.shape[2], query.shape[1] // key.shape[1]
        self.seen[module.layer_idx] = query[0, :, -1].tolist(), key[0].tolist(), scaling
        seen = torch.tensor([[self.reads(module.layer_idx, i, j) for j in range(length)] for i in range(length)])
        logits = query @ key.repeat_interleave(group, 1).transpose(-1, -2) * scaling
        read = logits.masked_fill(~seen, -1e30).softmax(-1)
        return (read @ value.repeat_interleave(group, 1)).transpose(1, 2).contiguous(), None


def held(cache) -> list:
    """For each layer, row and head, the slots that are held."""
    slots = [layer.storage.slots(layer.seen) for layer in cache.layers]
    return [[[head[head >= 0].tolist() for head in row] for row in layer] for layer in slots]


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["Llama", "Qwen3", pytest.param("Mistral", marks=pytest.mark.slow)])
def test_what_goes_on_is_read_as_the_masked_model_reads_it(kind: str, attention: str) -> None:
    """A prompt, two generated tokens, a further turn, two more."""
    made = model(kind, attention, **({"head_dim": 8} if kind == "Qwen3" else {}))
    if kind == "Mistral":
        made.config.sliding_window = None
    text = ids(40)
    reference = Reference(made, [(0, 24), (26, 38)], [9, 12])
    with torch.no_grad():
        wanted = reference.logits(text)
        cache = BudgetedCache(made, "cache:9", "prompt-distill:depth=0.5")
        found = made(text[:, :24], past_key_values=cache).logits
        assert found.shape[1] == len([i for i in reference.alive[0] if i < 24])  # of the tokens that went on
        torch.testing.assert_close(found[0, -1], wanted[23], atol=1e-4, rtol=1e-3)
        assert held(cache) == [[[sorted(reference.alive[0])] * 2]] * 4
        for i in (24, 25):
            found = made(text[:, i : i + 1], past_key_values=cache).logits
            torch.testing.assert_close(found[0, 0], wanted[i], atol=1e-4, rtol=1e-3)
        cache.budget = Budget.parse("cache:12")
        found = made(text[:, 26:38], past_key_values=cache).logits
        torch.testing.assert_close(found[0, -1], wanted[37], atol=1e-4, rtol=1e-3)
        assert held(cache) == [[[sorted(reference.alive[1])] * 2]] * 4
        for i in (38, 39):
            found = made(text[:, i : i + 1], past_key_values=cache).logits
            torch.testing.assert_close(found[0, 0], wanted[i], atol=1e-4, rtol=1e-3)
    assert reference.alive[0] != set(range(15, 24))  # it is no window
    assert cache.get_seq_length() == 40


def test_several_choices_are_read_as_the_masked_model_reads_them() -> None:
    """Of six layers the first, third and fourth choose; two prompts with generated tokens between and behind them."""
    made, text = model(num_hidden_layers=6), ids(44)
    method = "prompt-distill:earlier=[[0.17, 0.7], [0.5, 0.55]],depth=0.67"
    reference = Reference(made, [(0, 24), (26, 42)], [(16, 13, 9), (29, 23, 12)], layers=(0, 2, 3))
    with torch.no_grad():
        wanted = reference.logits(text)
        cache = BudgetedCache(made, "cache:9", method)
        found = made(text[:, :24], past_key_values=cache).logits
        torch.testing.assert_close(found[0, -1], wanted[23], atol=1e-4, rtol=1e-3)
        assert held(cache) == [[[sorted(reference.alive[0])] * 2]] * 6
        first, second, last = reference.chosen[0]
        assert last < second < first
        assert cache.account().computed == 2 * (24 + 2 * 16 + 13 + 2 * 9)
        for i in (24, 25):
            found = made(text[:, i : i + 1], past_key_values=cache).logits
            torch.testing.assert_close(found[0, 0], wanted[i], atol=1e-4, rtol=1e-3)
        cache.budget = Budget.parse("cache:12")
        found = made(text[:, 26:42], past_key_values=cache).logits
        torch.testing.assert_close(found[0, -1], wanted[41], atol=1e-4, rtol=1e-3)
        assert held(cache) == [[[sorted(reference.alive[1])] * 2]] * 6
        for i in (42, 43):
            found = made(text[:, i : i + 1], past_key_values=cache).logits
            torch.testing.assert_close(found[0, 0], wanted[i], atol=1e-4, rtol=1e-3)


def test_a_row_that_keeps_all_its_new_tokens_beside_one_that_does_not() -> None:
    """Then as many tokens go on as came, and states may be taken apart once only."""
    made, both = model(), ids(30, rows=2)
    method, found = "prompt-distill:depth=0.5", []
    masks = torch.ones_like(both)
    masks[0, :20] = 0  # row 0 is a text of ten tokens
    for rows in (slice(0, 2), slice(1, 2)):
        cache, mask = BudgetedCache(made, "cache:18", method), masks[rows]
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            made(both[rows, :22], attention_mask=mask[:, :22], position_ids=places[:, :22], past_key_values=cache)
            more = {"attention_mask": mask, "position_ids": places[:, 22:], "past_key_values": cache}
            logits = made(both[rows, 22:], **more).logits[-1, -1]
            after = made(torch.full((len(mask), 1), 7), past_key_values=cache).logits[-1, -1]
        found.append((logits, after, held(cache)[-1][-1]))
    assert found[0][2] == found[1][2]
    assert not set(range(22, 30)) <= set(found[0][2][0])  # row 1 dropped some of its eight new tokens, row 0 none
    torch.testing.assert_close(found[0][0], found[1][0], atol=3e-4, rtol=1e-3)
    torch.testing.assert_close(found[0][1], found[1][1], atol=3e-4, rtol=1e-3)


@pytest.mark.parametrize("earlier", ["", "earlier=[[0.25, 0.8]],"])
def test_a_row_beside_others_and_behind_padding_is_the_row_alone(earlier: str) -> None:
    made, tokens = model(), ids(40, rows=2)
    mask = torch.ones_like(tokens)
    tokens[0, :9], mask[0, :9] = 0, 0
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    options |= {"max_new_tokens": 6, "min_new_tokens": 6}
    for budget in ("40%", "cache:35"):  # of 35, row 0 keeps all of its 31 tokens
        method = f"prompt-distill:{earlier}depth=0.5"
        both = made.generate(
            tokens, attention_mask=mask, past_key_values=BudgetedCache(made, budget, method), **options
        )
        with budgeted(made, budget, method):
            hooked = made.generate(tokens, attention_mask=mask, **options)
        assert torch.equal(torch.stack(both.logits), torch.stack(hooked.logits))
        for row, padded in enumerate([9, 0]):
            cache = BudgetedCache(made, budget, method)
            alone = made.generate(tokens[row : row + 1, padded:], past_key_values=cache, **options)
            torch.testing.assert_close(
                torch.stack(alone.logits)[:, 0], torch.stack(both.logits)[:, row], atol=3e-4, rtol=1e-3
            )


def test_a_full_budget_gives_the_same_bits_and_other_caches_read_everything() -> None:
    made, tokens = model(), ids()
    with torch.no_grad():
        wanted = model()(tokens).logits
        full = made(tokens, past_key_values=BudgetedCache(made, "100%", "prompt-distill:depth=0.5")).logits
        cut = made(tokens, past_key_values=BudgetedCache(made, "50%", "prompt-distill:depth=0.5")).logits
        assert torch.equal(full, wanted)
        assert cut.shape[1] == 20
        assert (cut[0, -1] - wanted[0, -1]).abs().max() > 0.01
        assert torch.equal(made(tokens, past_key_values=BudgetedCache(made, "50%", "knorm")).logits, wanted)
        assert torch.equal(made(tokens).logits, wanted)


def test_later_layers_compute_what_is_kept_only() -> None:
    """Products of matrices, counted: those of linear layers and of the attention."""
    made, tokens, kept = model(attention="eager"), 64, 16
    text = ids(tokens)
    cache = BudgetedCache(made, "25%", "prompt-distill:depth=0.5")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        made(text, past_key_values=cache, logits_to_keep=1)

    def layer(n: int) -> int:
        linear = sum(w.numel() for w in made.model.layers[0].parameters() if w.dim() == 2)
        return 2 * n * linear + 2 * 2 * n * n * 32  # queries and keys, attention and values: 4 heads of 8

    head = 2 * 97 * 32
    angles = sum(counted.get_flop_counts().get("LlamaForCausalLM.model.rotary_emb", {}).values())  # before 5.0
    total = counted.get_total_flops() - angles
    assert total == 2 * layer(tokens) + 2 * layer(kept) + head  # the choice itself multiplies none
    account = cache.account()
    assert (account.computed, account.total, account.kept) == (2 * 2 * (64 + 16), 2 * 4 * 64, 2 * 4 * 16)


def test_one_prefill_for_many_caches_reads_the_prompt_again_for_it() -> None:
    made, text = model(), ids()
    with torch.no_grad():
        direct = BudgetedCache(made, "cache:9", "prompt-distill:depth=0.5")
        made(text, past_key_values=direct)
        filled = Prefill(made, text).into(BudgetedCache(made, "cache:9", "prompt-distill:depth=0.5"))
        assert held(filled) == held(direct)
        token = torch.tensor([[7]])
        found, wanted = (made(token, past_key_values=cache).logits for cache in (filled, direct))
        assert torch.equal(found, wanted)


def test_what_cannot_be_is_refused() -> None:
    for options in ({"depth": 0.0}, {"depth": 1.0}, {"kernel": 4}):
        with pytest.raises(InvalidInput, match="give a depth above 0"):
            prompt_distill(**options)
    for earlier in (
        [[0.2]],
        [[0.5, 0.5]],
        [[0.2, 1.0]],
        [[0.2, 0.5], [0.3, 0.6]],
        [[0.3, 0.6], [0.2, 0.5]],
        [[0, 0.5]],
    ):
        with pytest.raises(InvalidInput, match="shares above 0 and below 1, of which layers rise"):
            prompt_distill(earlier=earlier)
    with pytest.raises(InvalidInput, match="of 4 layers, two choices would be in the same one"):
        BudgetedCache(model(), "50%", "prompt-distill:earlier=[[0.38, 0.5]]")
    assert [whole_layers(0.4, layers) for layers in (1, 6, 32)] == [1, 2, 13]
    made = model()
    for slots in ("split=ada-kv", "rest=quantise"):
        with pytest.raises(InvalidInput, match="leave out split and rest"):
            BudgetedCache(made, "50%", f"prompt-distill:{slots}")
    slides = model("Gemma3", head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"] * 2)
    with pytest.raises(InvalidInput, match="sliding window"):
        BudgetedCache(slides, "50%", "prompt-distill")
