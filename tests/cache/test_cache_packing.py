"""Entries in fewer bits: codes by hand, errors within half a step, rotations, bytes of a budget, inside a model."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache, selection
from budgeteer.cache.kit import turned
from budgeteer.cache.packing import by_channel, by_entry, from_channel, from_entry, groups, hadamard, packed, unpacked
from budgeteer.cache.protocol import Place
from budgeteer.cache.rest import float8, quantise, rotate_kv
from budgeteer.core.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")


def test_codes_are_packed_lowest_bits_first() -> None:
    codes = torch.tensor([[1, 2, 3, 0, 2]])
    assert packed(codes, 2).tolist() == [[1 + 2 * 4 + 3 * 16, 2]]
    assert packed(torch.tensor([[5, 10, 15]]), 4).tolist() == [[5 + 10 * 16, 15]]
    for bits in (2, 4, 8):
        codes = torch.randint(2**bits, (7, 12), generator=torch.Generator().manual_seed(bits))
        assert unpacked(packed(codes, bits), bits, 12).tolist() == codes.tolist()


def test_a_group_of_four_numbers_by_hand() -> None:
    packs, steps = by_entry(torch.tensor([[0.0, 1.0, 2.9, 3.0]]), 2, 4)  # least 0, step 1
    assert steps.tolist() == [[[0.0, 1.0]]]
    assert packs.tolist() == [[0 + 1 * 4 + 3 * 16 + 3 * 64]]
    assert from_entry(packs, steps, 2, 4).tolist() == [[0.0, 1.0, 3.0, 3.0]]
    # two heads of three and two entries, one channel, groups of two entries: (0, 3), (6), (1, 7)
    numbers, lengths = torch.tensor([[0.0], [3.0], [6.0], [1.0], [7.0]]), torch.tensor([3, 2])
    assert groups(lengths, 2).tolist() == [0, 0, 1, 2, 2]
    packs, steps = by_channel(numbers, lengths, 2, 2)
    assert steps[:, 0, 0].tolist() == [0.0, 6.0, 1.0]
    assert steps[[0, 2], 0, 1].tolist() == [1.0, 2.0]
    assert from_channel(packs, steps, lengths, 2, 2).tolist() == numbers.tolist()


def test_a_clipped_range_by_hand_and_what_it_is_for() -> None:
    packs, steps = by_entry(torch.tensor([[0.0, 2.0, 9.0, 15.0]]), 2, 4, clip=0.8)  # from 1.5 to 13.5, step 4
    assert steps.tolist() == [[[1.5, 4.0]]]
    assert from_entry(packs, steps, 2, 4).tolist() == [[1.5, 1.5, 9.5, 13.5]]
    equal = torch.full((1, 4), 7.0)
    assert torch.equal(from_entry(*by_entry(equal, 2, 4, clip=0.8), 2, 4), equal)
    normal = torch.randn(2000, 64, generator=torch.Generator().manual_seed(1))
    place = Place(torch.zeros(2000, dtype=torch.long), torch.tensor([2000]), (64, 64), torch.ones(32))

    def error(bits: int, clip: float) -> float:
        return float((from_entry(*by_entry(normal, bits, 32, clip), bits, 32) - normal).norm() / normal.norm())

    def of_rest(bits: int) -> float:
        codec = rotate_kv(bits=bits).codec
        found = codec.decode(codec.encode(normal, normal, place), place)[1]
        return float((found - normal).norm() / normal.norm())

    assert error(2, 0.8) < 0.9 * error(2, 1.0)
    assert error(4, 0.8) > error(4, 1.0)
    assert of_rest(2) == pytest.approx(error(2, 0.8), rel=0.02)
    assert of_rest(4) == pytest.approx(error(4, 1.0), rel=0.02)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_number_is_within_half_a_step(bits: int) -> None:
    rng = torch.Generator().manual_seed(bits)
    keys, values = 5 * torch.randn(40, 8, generator=rng), torch.randn(40, 16, generator=rng)
    lengths = torch.tensor([0, 17, 1, 22])
    place = Place(torch.arange(40), lengths, (8, 16), None)
    codec = quantise(bits=bits, group=8).codec
    assert codec is not None
    tensors = codec.encode(keys, values, place)
    found = codec.decode(tensors, place)
    start = 0
    for length in lengths.tolist():  # the formula, in loops over numbers
        for first in range(start, start + length, 8):
            of = range(first, min(first + 8, start + length))
            for channel in range(8):
                column = [float(keys[i, channel]) for i in of]
                step = (max(column) - min(column)) / (2**bits - 1)
                for i in of:
                    assert abs(found[0][i, channel] - keys[i, channel]) <= step / 2 + 0.01
        start += length
    for i in range(40):
        for first in (0, 8):
            row = [float(x) for x in values[i, first : first + 8]]
            step = (max(row) - min(row)) / (2**bits - 1)
            error = (found[1][i, first : first + 8] - values[i, first : first + 8]).abs().max()
            assert error <= step / 2 + 0.003
    entry, head = codec.cost(8, 16)
    assert sum(t.nbytes for t in tensors) <= 40 * entry + 3 * head


def test_8_bit_floats_are_the_nearest_of_the_numbers_that_the_format_has() -> None:
    """All numbers of e4m3, from its definition: (8 + m) 2^(e - 10) for exponents e from 1, and m 2^-9."""
    there = [m * 2.0**-9 for m in range(8)] + [(8 + m) * 2.0 ** (e - 10) for e in range(1, 16) for m in range(8)]
    there = sorted({sign * x for x in there[:-1] for sign in (-1, 1)})  # the last one is no number
    assert max(there) == 448
    rng = torch.Generator().manual_seed(4)
    keys, values = torch.randn(30, 8, generator=rng), torch.randn(30, 4, generator=rng)
    keys *= 10.0 ** torch.randint(-4, 3, (30, 8), generator=rng)
    keys[3], values[5] = 0.0, torch.tensor([448.0, -224.0, 1.0, 0.001])
    place = Place(torch.arange(30), torch.tensor([12, 0, 18]), (8, 4), None)
    codec = float8().codec
    assert codec is not None
    tensors = codec.encode(keys, values, place)
    for given, found in zip((keys, values), codec.decode(tensors, place), strict=True):
        for row, read in zip(given.tolist(), found.tolist(), strict=True):
            scale = max(map(abs, row)) / 448 or 1.0
            for x, y in zip(row, read, strict=True):
                assert abs(y / scale - x / scale) <= min(abs(number - x / scale) for number in there) + 1e-4 * abs(
                    x / scale
                )
                assert min(abs(number - y / scale) for number in there) <= 1e-4 * abs(y / scale)
    assert codec.decode(tensors, place)[1][5].tolist() == [
        448.0,
        -224.0,
        1.0,
        2.0**-9,
    ]  # 0.001 is nearer to 2^-9 than to 0
    assert sum(t.nbytes for t in tensors) == 30 * codec.cost(8, 4)[0]


def test_the_hadamard_matrix_by_hand_and_its_own_inverse() -> None:
    assert hadamard(torch.tensor([3.0, 1.0])).tolist() == pytest.approx([4 / math.sqrt(2), 2 / math.sqrt(2)])
    one = torch.zeros(8)
    one[5] = 1.0
    wanted = [(-1) ** bin(5 & i).count("1") / math.sqrt(8) for i in range(8)]  # Sylvester's matrix
    assert hadamard(one).tolist() == pytest.approx(wanted)
    for width in (8, 12, 80):  # blocks of 8, 4 and 16
        x, y = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(hadamard(hadamard(x)), x)
        torch.testing.assert_close((hadamard(x) * hadamard(y)).sum(-1), (x * y).sum(-1))


def error_of(rest, keys: torch.Tensor, place: Place) -> float:
    """Of the products with random queries, relative."""
    codec = rest.codec
    found = codec.decode(codec.encode(keys, keys, place), place)[0]
    queries = torch.randn(64, keys.shape[1], generator=torch.Generator().manual_seed(3))
    return float((queries @ (found - keys).T).norm() / (queries @ keys.T).norm())


def test_a_rotation_helps_where_channels_stand_out_by_entry() -> None:
    """Against the same groups without a rotation: 2 bits of each entry's own groups of channels."""
    rng, width = torch.Generator().manual_seed(0), 64
    frequencies = 0.01 ** (torch.arange(width / 2) / (width / 2))
    place = Place(torch.arange(200), torch.tensor([200]), (width, width), frequencies)
    for outliers, helps in ((4, True), (0, False)):
        keys = torch.randn(200, width, generator=rng)
        keys[:, [3, 17, 35, 49][:outliers]] *= 12
        rotated = turned(keys, place.slots, frequencies)
        plain = from_entry(*by_entry(rotated, 2, 32), 2, 32)
        queries = torch.randn(64, width, generator=torch.Generator().manual_seed(3))
        without = float((queries @ (plain - rotated).T).norm() / (queries @ rotated.T).norm())
        found = error_of(rotate_kv(bits=2), rotated, place)
        assert (found < 0.8 * without) == helps, (found, without)
    # and with 8 bits the keys come back, whatever their positions
    assert error_of(rotate_kv(bits=8), rotated, place) < 0.02


# a budget


def test_bands_by_hand() -> None:
    """Ten entries; an entry is 10 bytes, a packed one 2, and a head 4 beside them."""
    scores = torch.arange(10.0)[None, None].expand(1, 1, 10).clone()
    scores[..., -1] = float("inf")
    made = selection("recent:rest=quantise:full=0.5")
    for size, wanted in (
        (10, (10, 0)),  # all
        (2, (1, 3)),  # 20 bytes: 10 + 4 + 3 x 2
        (4, (2, 8)),  # 40 bytes: 2 x 10, 16 left for 8 packed ones: all stay
        (6, (4, 6)),  # 60 bytes: 4 x 10 + 4 + 6 x 2 = 56, and 5 x 10 + 4 + 5 x 2 = 64
    ):
        found = made.bands(scores, torch.tensor([[size]]), 10, 2, 4)
        assert (int(found[0]), int(found[1])) == wanted
    none = selection("recent:rest=quantise:full=0").bands(scores, torch.tensor([[2]]), 10, 2, 4)
    assert (int(none[0]), int(none[1])) == (1, 3)  # what is protected stays as it is
    dear = made.bands(scores, torch.tensor([[4]]), 10, 10, 4)  # nothing is saved by packing
    assert (int(dear[0]), int(dear[1])) == (4, 0)


KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
RESTS = (
    "quantise:bits=8", "quantise:bits=4,full=0", "quantise:bits=2,full=0.8", "rotate-kv:bits=2",
    "rotate-kv:bits=8,full=0", "float8:full=0",
)  # fmt: skip


def model(kind: str = "Llama", **changes):
    torch.manual_seed(3)
    made = getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))(**{**SIZES, **changes})
    ).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 4
    return made


def ids(tokens: int, rows: int = 2):
    return torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize("split", ["uniform", "ada-kv"])
def test_bytes_are_within_two_percent_of_the_budget(rest: str, split: str, dtype) -> None:
    made = model(hidden_size=256, head_dim=128).to(dtype)
    cache = BudgetedCache(made, "25%", f'knorm:split={split},rest="{rest}"')
    with torch.no_grad():
        made(ids(800), past_key_values=cache)
    account = cache.account()
    assert 0.9 * 0.25 * account.full_bytes < account.bytes <= 1.02 * 0.25 * account.full_bytes
    assert account.packed > 0
    assert account.share > 0.25  # more entries than would fit as they are
    budget = account.full_bytes // 4
    cache = BudgetedCache(made, f"bytes:{budget}", f'knorm:split={split},rest="{rest}"')
    with torch.no_grad():
        made(ids(800), past_key_values=cache)
    assert 0.9 * budget < cache.account().bytes <= budget + 200


def test_eight_bits_of_everything_are_nearly_the_full_cache_and_dropping_is_not() -> None:
    made, prompt = model(), ids(200)
    logits = {}
    for name, budget, method in (
        ("full", "100%", "recent"),
        ("quantised", "45%", 'recent:rest="quantise:bits=8,full=0"'),
        ("rotated", "45%", 'recent:rest="rotate-kv:bits=8,full=0"'),
        ("floats", "45%", 'recent:rest="float8:full=0"'),
        ("dropped", "45%", "recent"),
    ):
        cache = BudgetedCache(made, budget, method)
        with torch.no_grad():
            made(prompt, past_key_values=cache)
            logits[name] = made(torch.tensor([[5], [6]]), past_key_values=cache).logits
        if name in ("quantised", "rotated", "floats"):
            assert cache.account().share == 1.0
    distance = {name: float((each - logits["full"]).norm()) for name, each in logits.items()}
    assert distance["quantised"] < 0.05 * distance["dropped"]
    assert distance["rotated"] < 0.05 * distance["dropped"]
    assert distance["floats"] < 0.2 * distance["dropped"]


def test_a_model_reads_what_the_packed_entries_say_and_a_second_turn_chooses_again() -> None:
    """After the choice: as a full cache whose entries were quantised by hand, in the order of their slots."""
    made, prompt = model(), ids(60)
    cache = BudgetedCache(made, "60%", 'knorm:rest="quantise:bits=4,full=0.3"')
    full = transformers.DynamicCache()
    with torch.no_grad():
        made(prompt, past_key_values=cache)
        made(prompt, past_key_values=full)
        for mine, theirs in zip(cache.layers, full.layers, strict=True):
            slots, whole = mine.storage.slots(60), mine.storage.whole()
            assert (slots.diff() > 0).all()
            assert slots.shape[-1] == 60  # all stay at this budget
            theirs.keys, theirs.values = whole["keys"].clone(), whole["values"].clone()
            same = (mine.storage.whole()["keys"] - theirs.keys).abs().amax(-1) == 0
            assert same.all()
        token = torch.tensor([[5], [6]])
        found = made(token, past_key_values=cache).logits
        wanted = made(token, past_key_values=full).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        made(ids(40), past_key_values=cache)
    account = cache.account()
    assert account.bytes <= 1.05 * 0.6 * account.full_bytes + 600
    assert cache.get_seq_length() == 101


def test_layers_that_slide_hold_no_packed_entries() -> None:
    made = model("Gemma3", head_dim=16, sliding_window=16, layer_types=KINDS)
    cache = BudgetedCache(made, "40%", "knorm:rest=quantise")
    with torch.no_grad():
        made(ids(60), past_key_values=cache)
        made(torch.tensor([[5], [6]]), past_key_values=cache)
    packs = [getattr(layer.storage, "packed", None) is not None for layer in cache.layers]
    assert packs == [False, True, False]


def test_options_out_of_range_are_refused() -> None:
    for make in (lambda: quantise(bits=3), lambda: quantise(full=1.5), lambda: rotate_kv(group=1)):
        with pytest.raises(InvalidInput, match="give 2, 4 or 8 bits"):
            make()
    with pytest.raises(InvalidInput, match="a share from 0 to 1"):
        float8(full=-0.1)
