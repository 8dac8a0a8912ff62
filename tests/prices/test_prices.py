"""Prices: worked numbers, the shipped table against genai-prices' own calculation, files good and bad."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer import Usage
from budgeteer.core.errors import InvalidInput, UnknownPrice
from budgeteer.core.meter import meter
from budgeteer.prices import Price, Rates, first_of, genai, litellm, of, user
from budgeteer.prices.nearest import COMPARED, Nearest

D = Decimal
DOLLAR = 10**12


def usages(most=10**6, audio=True):
    """Any consistent usage."""

    @st.composite
    def build(draw):
        read, made = draw(st.integers(0, most)), draw(st.integers(0, most))
        cached = draw(st.integers(0, read))
        written = draw(st.integers(0, read - cached))
        return Usage(
            input=read, output=made, cached=cached, written=written, written_long=draw(st.integers(0, written)),
            reasoning=draw(st.integers(0, made)), audio_input=draw(st.integers(0, read)) if audio else 0,
            audio_output=draw(st.integers(0, made)) if audio else 0,
        )  # fmt: skip

    return build()


RATE = st.integers(0, 10**6).map(lambda n: D(n).scaleb(-4))
RATES = st.builds(
    Rates, input=RATE, output=RATE, cached=st.none() | RATE, written=st.none() | RATE, written_long=st.none() | RATE,
    reasoning=st.none() | RATE, audio_input=st.none() | RATE, audio_output=st.none() | RATE, request=RATE,
)  # fmt: skip


def test_a_claude_call_by_hand():
    """3 fresh, 3.75 written for 5 minutes, 6 for an hour, 0.30 read, 15 generated, dollars a million tokens:
    21 x 3 + 1000 x 3.75 + 86 x 6 + 5000 x 0.30 + 393 x 15 = 63 + 3750 + 516 + 1500 + 5895 = 11724 millionths."""
    rates = Rates(input=D(3), output=D(15), cached=D("0.30"), written=D("3.75"), written_long=D(6))
    usage = Usage(input=21 + 1086 + 5000, output=393, cached=5000, written=1086, written_long=86)
    assert Price(rates).cost(usage) == 11_724 * 10**6


def test_reasoning_and_audio_by_hand():
    rates = Rates(
        input=D("0.5"), output=D(2), cached=D("0.1"), reasoning=D(3), audio_input=D(40), audio_output=D(80),
        request=D(7),
    )  # fmt: skip
    usage = Usage(input=100, output=50, cached=30, reasoning=20, audio_input=10, audio_output=5)
    # 60 x 0.5 + 30 x 0.1 + 10 x 40 + 25 x 2 + 20 x 3 + 5 x 80 + 7 = 30 + 3 + 400 + 50 + 60 + 400 + 7 = 950 millionths
    assert Price(rates).cost(usage) == 950 * 10**6
    all_cached = Usage(input=100, output=0, cached=100, audio_input=10)  # audio is charged in full
    assert Price(rates).cost(all_cached) == (90 * 100_000) + (10 * 40 + 7) * 10**6


def test_tiers_reprice_the_whole_call():
    low, high = Rates(input=D("1.25"), output=D(10)), Rates(input=D("2.5"), output=D(15))
    price = Price(low, ((200_000, high),))
    assert price.cost(Usage(input=199_999, output=1)) == 199_999 * 1_250_000 + 10 * 10**6
    assert price.cost(Usage(input=200_000, output=1)) == 200_000 * 1_250_000 + 10 * 10**6
    assert price.cost(Usage(input=200_001, output=1)) == 200_001 * 2_500_000 + 15 * 10**6
    cached = Usage(input=200_001, output=0, cached=200_000)  # cached tokens count towards the tier
    assert price.cost(cached) == 200_001 * 2_500_000


def test_fractions_of_a_pico_dollar_are_rounded_up():
    price = Price(Rates(input=D("0.0000001"), output=D(0)))
    assert [price.cost(Usage(input=n, output=0)) for n in (0, 1, 10, 11)] == [0, 1, 1, 2]


@given(RATES, RATES, usages())
def test_no_usage_within_the_totals_costs_more_than_the_worst(low, high, usage):
    price = Price(low, ((500_000, high),))
    most = price.worst(usage)
    assert price.cost(usage) <= most or not (usage.audio_input or usage.audio_output)
    if not usage.audio_input and not usage.audio_output:
        assert price.cost(usage) <= most
    smaller = Usage(input=usage.input // 2, output=usage.output // 3)
    assert price.cost(smaller) <= most


@given(usages(), usages())
def test_a_price_without_tiers_adds_up_to_rounding(a, b):
    price = Price(Rates(input=D("0.1"), output=D("0.4"), cached=D("0.025")))
    whole = price.cost(Usage(input=a.input + b.input, output=a.output + b.output, cached=a.cached + b.cached))
    apart = price.cost(Usage(input=a.input, output=a.output, cached=a.cached)) + price.cost(
        Usage(input=b.input, output=b.output, cached=b.cached)
    )
    assert whole <= apart <= whole + 1


MODELS = [
    "gpt-4o", "gpt-5", "o3", "claude-sonnet-4-5", "claude-haiku-4-5", "gemini-2.5-pro", "gemini-2.5-flash",
    "deepseek/deepseek-chat", "mistral/mistral-large-latest", "groq/llama-3.3-70b-versatile", "x-ai/grok-4",
    "openrouter/anthropic/claude-sonnet-4.5",
]  # fmt: skip
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


@settings(max_examples=25, deadline=None)
@given(usage=usages(audio=False))
@pytest.mark.parametrize("service", ["", "batch", "priority"])
@pytest.mark.parametrize("model", MODELS)
def test_the_shipped_table_agrees_with_genai_prices(model, service, usage):
    oracle = pytest.importorskip("genai_prices")
    table = genai.load(at=AT)
    if service and service not in table.price(model).services:
        return
    context = {"batch": {"processing": "batch"}, "priority": {"service_tier": "priority"}, "": None}[service]
    provider, _, rest = model.partition("/")
    short = usage.written - usage.written_long
    theirs = oracle.calc_price(
        oracle.Usage(
            input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached,
            cache_write_tokens=usage.written, cache_write_5m_tokens=short, cache_write_1h_tokens=usage.written_long,
            output_reasoning_tokens=usage.reasoning,
        ),
        rest or model, provider_id=provider if rest else None, genai_request_timestamp=AT, price_context=context,
    )  # fmt: skip
    assert table.cost(usage, model, service) == math.ceil(Fraction(theirs.total_price) * DOLLAR)


def test_every_shipped_model_that_has_token_prices_can_be_read():
    data = pytest.importorskip("genai_prices.data")
    table, oracle = genai.load(at=AT), pytest.importorskip("genai_prices")
    usage, read = Usage(input=300_000, output=1000, cached=1000), 0
    theirs = oracle.Usage(input_tokens=300_000, output_tokens=1000, cache_read_tokens=1000)
    for provider in data.providers:
        for model in provider.models:
            price = genai._price(model, AT)
            if price is None:
                continue
            read += 1
            want = model.calc_price(theirs, provider, genai_request_timestamp=AT).total_price
            assert price.cost(usage) == math.ceil(Fraction(want) * DOLLAR), f"{provider.id}/{model.id}"
    assert read > 2000
    assert table.source.startswith("genai-prices ")


def test_an_unknown_price_is_an_error_that_names_the_nearest():
    pytest.importorskip("genai_prices")
    table = genai.load(at=AT)
    with pytest.raises(UnknownPrice, match="did you mean 'gpt-4o") as caught:
        table.cost(Usage(input=1, output=1), "gtp-4o")
    assert "with_fallback" in str(caught.value)
    with pytest.raises(UnknownPrice, match="no price of model"):
        table.price("no-such-provider/no-such-model")
    with pytest.raises(UnknownPrice, match="service 'turbo'"):
        table.price("gpt-4o", "turbo")
    assert table.price("gpt-4o", "auto") == table.price("gpt-4o")
    dear = Price(Rates(input=D(100), output=D(500)))
    assert table.with_fallback(dear).price("no-such-model") == dear
    assert table.with_fallback(dear).price("gpt-4o") != dear
    with pytest.raises(InvalidInput):
        table.price(None)


def test_every_name_that_an_error_suggests_has_a_price():
    pytest.importorskip("genai_prices")
    shipped = genai.load(at=AT)
    own = of({"mine-large": Price(Rates(input=D(1), output=D(2)))})
    for table in (shipped, first_of(own, shipped)):
        suggested, wanting = 0, []
        for name in ["openai/text-embedding-3-smal", "mine-lagre", *list(table.names())[::40]]:
            for wrong in (f"{name[:-1]}~", name.replace("-", "", 1), f"x{name[3:]}"):
                try:
                    table.price(wrong)
                except UnknownPrice as error:
                    said = re.findall(r"'([^']+)'", error.problem.partition(f"model {wrong!r}")[2])
                    suggested += len(said)
                    wanting += [(wrong, other) for other in said if table.find(other) is None]
        assert suggested > 200
        assert wanting == []
    with pytest.raises(UnknownPrice, match=r"did you mean .*'openai/text-embedding-3-small'"):
        shipped.price("openai/text-embedding-3-smal")


def test_every_shipped_id_is_found_by_its_own_name():
    """With its provider always; alone where its maker sells it, or only one does; else the error lists the names."""
    snapshot = pytest.importorskip("genai_prices.data_snapshot").get_snapshot()
    table, asked = genai.load(at=AT), Counter()
    priced: dict[str, dict[str, Price]] = {}
    for provider in snapshot.providers:
        for model in provider.models:
            own = genai._price(model, AT)
            if own is None:  # images, seconds, pages: not by the token
                continue
            priced.setdefault(model.id.lower(), {})[provider.id] = own
            assert table.price(f"{provider.id}/{model.id}") == own, f"{provider.id}/{model.id}"
            asked["with provider"] += 1
    for provider in snapshot.providers:
        for model in provider.models:
            name, sellers = model.id, priced.get(model.id.lower(), {})
            if len(sellers) == 1 and "/" not in name:
                assert table.price(name) == next(iter(sellers.values())), name
                asked["alone"] += 1
                continue
            try:
                found = table.price(name)
            except UnknownPrice as error:
                said = str(error)
                assert all(f"'{seller}/{name.lower()}'" in said for seller in sellers), said
                assert repr(name) not in said.partition("; ")[2], said
                asked["several" if sellers else "not by the token"] += 1
            else:  # its maker's
                assert found in sellers.values() or "/" in name or genai._maker(name) in genai._CLOSED, name
                asked["of several, the maker's"] += 1
    assert asked["with provider"] > 2000
    assert asked["alone"] > 500
    assert asked["several"] > 50


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("text-embedding-3-small", "openai"), ("gpt-4o", "openai"), ("claude-sonnet-5", "anthropic"),
        ("gemini-3.5-flash", "google"), ("grok-4.5", "x-ai"), ("deepseek-v4-pro", "deepseek"),
        ("kimi-k3", "moonshotai"), ("command-r", "cohere"), ("mistral-tiny", "mistral"),
        ("amazon.nova-pro-v1:0", "aws"), ("TEXT-EMBEDDING-3-SMALL", "openai"),
    ],
)  # fmt: skip
def test_a_name_without_a_provider_is_its_makers(name, owner):
    pytest.importorskip("genai_prices")
    table = genai.load(at=AT)
    assert table.price(name) == table.price(f"{owner}/{name}")


def test_where_the_maker_is_not_clear_the_error_lists_what_to_write():
    pytest.importorskip("genai_prices")
    table = genai.load(at=AT)
    with pytest.raises(UnknownPrice, match=r"write 'zai/glm-4\.7' or 'zhipuai/glm-4\.7'") as caught:
        first_of(of({}), table).price("glm-4.7")
    assert "'glm-4.7'" not in str(caught.value).partition("; ")[2]
    with pytest.raises(UnknownPrice, match="without a price by the token, character or second"):
        table.price("mistral-ocr-2503")


def test_an_unknown_name_is_compared_with_few(monkeypatch):
    """The index is made once; a look-up compares letter by letter with no more than so many names, whatever is held."""
    compared, listed = [], []

    def close(wanted, names, n, cutoff):
        compared.append(len(names))
        return original(wanted, names, n=n, cutoff=cutoff)

    original = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", close)
    held = [f"model-{i}-{size}" for i in range(2000) for size in ("mini", "large")]
    near = Nearest(lambda: listed.append(1) or held)
    assert "model-77-mini" in near("modle-77-mini")
    assert "model-77-mini" not in near("model-77-mini")
    assert near("ß" * 10**6) == []
    for i in range(50):
        near(f"modl-{i}-lrge")
    assert len(listed) == 1
    assert max(compared) <= COMPARED
    pytest.importorskip("genai_prices")
    compared.clear()
    table = genai.load(at=AT)
    for i in range(20):
        with pytest.raises(UnknownPrice):
            table.price(f"nobodys-model-{i}")
    assert max(compared, default=0) <= COMPARED
    assert len(compared) <= 20


def test_money_needs_both_totals():
    table = of({"m": Price(Rates(input=D(1), output=D(2)))})
    money = meter("money", table)
    assert money(Usage(input=3, output=5), "m") == 13 * 10**6
    assert money.worst(Usage(input=3, output=5), "m") == 13 * 10**6
    for unknown in (Usage(input=3), Usage(output=3)):
        with pytest.raises(InvalidInput, match="give an estimate"):
            money(unknown, "m")


@pytest.mark.parametrize("bad", [D(-1), D("nan"), D("inf"), 0.5, True, "1", D(10_001)])
def test_a_rate_that_cannot_be_is_refused(bad):
    with pytest.raises(InvalidInput, match="rate output"):
        Rates(input=D(1), output=bad)


def test_tiers_ascend():
    rates = Rates(input=D(1), output=D(1))
    for starts in ((5, 3), (3, 3), (-1,), (True,)):
        with pytest.raises(InvalidInput):
            Price(rates, tuple((s, rates) for s in starts))


TOML = """
[models."m"]
input = 2.50
output = 10
cached = 0.1
[[models."m".tiers]]
above = 200_000
input = 5.000000000000000001
[models."m".services.batch]
input = 1.25
output = 5
[models."*"]
input = 100
output = 500
"""


def test_a_toml_of_ones_own(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(TOML)
    table = user.load(path)
    assert table.cost(Usage(input=1000, output=100, cached=500), "m") == (500 * 25 + 50 * 10 + 1000 * 10) * 10**5
    assert table.cost(Usage(input=1000, output=100), "m", "batch") == (1250 + 500) * 10**6
    long = table.price("m").tiers[0]
    assert long == (200_000, Rates(input=D("5.000000000000000001"), output=D(10), cached=D("0.1")))
    assert table.cost(Usage(input=1, output=1), "other") == 600 * 10**6
    assert list(table.names()) == ["m"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("models = 3", "need tables"),
        ("x = 1\n[models.m]\ninput=1\noutput=1", "nothing else"),
        ("[models.m]\ninput=1", "output missing"),
        ("[models.m]\ninput=1\noutput=-2", "rate output is -2"),
        ("[models.m]\ninput=1\noutput=nan", "rate output"),
        ("[models.m]\ninput=1\noutput=true", "rate output"),
        ("[models.m]\ninput=1\noutput=1\nouptut=2", "unknown ouptut"),
        ("[models.m]\ninput=1\noutput=1\ntiers=3", "tiers is 3"),
        ("[models.m]\ninput=1\noutput=1\ntiers=[{input=3}]", "needs above"),
        ("models.m = 5", "not a table"),
        ("[models.m", "cannot be read"),
    ],
)
def test_a_bad_toml_says_where(tmp_path, text, match):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=match):
        user.load(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        user.load(tmp_path / "none.toml")


LITELLM = """{
 "sample_spec": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "mode": "one of: chat, ..."},
 "a": {"mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05,
  "cache_read_input_token_cost": 1.25e-07, "input_cost_per_token_above_200k_tokens": 2.5e-06,
  "output_cost_per_token_above_200k_tokens": 1.5e-05, "cache_read_input_token_cost_above_200k_tokens": 2.5e-07,
  "input_cost_per_token_batches": 6.25e-07, "output_cost_per_token_batches": 5e-06,
  "input_cost_per_token_above_200k_tokens_batches": 1.25e-06,
  "output_cost_per_token_above_200k_tokens_batches": 7.5e-06},
 "b": {"mode": "chat", "input_cost_per_token": 4.0000000000000003e-07, "output_cost_per_token": 1.6000000000000001e-06,
  "tiered_pricing": [
   {"range": [0, 256000], "input_cost_per_token": 4e-07, "output_cost_per_token": 1.6e-06},
   {"range": [256000, 1000000], "input_cost_per_token": 1.2e-06, "output_cost_per_token": 4.8e-06}]},
 "c": {"mode": "chat", "input_cost_per_token": 4.0000000000000003e-07, "output_cost_per_token": 1.6000000000000001e-06,
  "output_cost_per_reasoning_token": 4e-06, "cache_creation_input_token_cost": 5e-07,
  "cache_creation_input_token_cost_above_1hr": 8e-07},
 "image": {"mode": "image_generation", "output_cost_per_image": 0.04}
}"""


def test_litellms_file(tmp_path):
    path = tmp_path / "model_prices.json"
    path.write_text(LITELLM)
    table = litellm.load(path)
    assert set(table.names()) == {"a", "b", "c", "image"}
    assert table.cost(Usage(input=1000, output=100, cached=600), "a") == (400 * 1250 + 600 * 125 + 100 * 10_000) * 1000
    assert table.cost(Usage(input=200_001, output=1, cached=1), "a") == (200_000 * 2500 + 250 + 15_000) * 1000
    assert table.cost(Usage(input=1000, output=100), "a", "batch") == (1000 * 625 + 100 * 5000) * 1000
    assert table.cost(Usage(input=200_001, output=1), "a", "batch") == (200_001 * 1250 + 7500) * 1000
    usage = Usage(input=100, output=30, written=20, written_long=10, reasoning=5)
    assert table.cost(usage, "c") == (80 * 400 + 10 * 500 + 10 * 800 + 25 * 1600 + 5 * 4000) * 1000
    assert table.cost(Usage(input=256_001, output=1), "b") == (256_001 * 1200 + 4800) * 1000
    with pytest.raises(UnknownPrice):
        table.price("image", "batch")
    with pytest.raises(UnknownPrice):
        table.price("sample_spec")


@pytest.mark.parametrize("text", ["[]", "{", '{"m": {"input_cost_per_token": "1", "output_cost_per_token": 1}}',
                                  '{"m": {"input_cost_per_token": 3.0, "output_cost_per_token": 15.0}}'])  # fmt: skip
def test_a_bad_litellm_file_is_refused(tmp_path, text):
    path = tmp_path / "model_prices.json"
    path.write_text(text)
    with pytest.raises(InvalidInput):
        litellm.load(path)


def test_ones_own_prices_go_first():
    mine = of({"m": Price(Rates(input=D(1), output=D(1))), "*": Price(Rates(input=D(9), output=D(9)))}, "mine")
    theirs = of({"m": Price(Rates(input=D(5), output=D(5))), "n": Price(Rates(input=D(2), output=D(2)))}, "theirs")
    table = first_of(mine, theirs)
    usage = Usage(input=1, output=0)
    assert [table.cost(usage, name) // 10**6 for name in ("m", "n", "o")] == [1, 2, 9]
    assert json.dumps(sorted(table.names())) == '["m", "m", "n"]'
    assert table.source == "mine, then theirs"


def test_models_that_are_sold_by_the_character_second_or_picture_are_priced_by_that_alone(tmp_path):
    pytest.importorskip("genai_prices")
    table = genai.load(at=AT)
    spoken = Usage(input=0, output=0, counts={"character": 1_000_000})
    assert table.worst(spoken, "tts-1") == table.cost(spoken, "tts-1") == 15 * 10**12
    assert table.cost(Usage(input=0, output=0, counts={"second": 3600}), "whisper-1") == 36 * 10**10
    with pytest.raises(UnknownPrice, match="it has a price by character"):  # a chat with it has no price
        table.worst(Usage(input=5, output=5), "tts-1")
    drawn = Usage(input=30, output=1000, counts={"picture_token": 20})  # 10 of text, 20 of a picture
    assert table.cost(drawn, "gpt-image-1", "images") == (10 * 5 + 20 * 10 + 1000 * 40) * 10**6
    assert table.cost(Usage(input=0, output=1000), "gpt-image-1.5", "images") == 1000 * 32 * 10**6
    path = tmp_path / "prices.toml"
    path.write_text('[models."rerank-v3.5".fees]\nsearch_unit = 0.002\n')
    own = user.load(path)
    assert own.cost(Usage(input=900, output=0, counts={"search_unit": 3}), "rerank-v3.5") == 6 * 10**9
    with pytest.raises(UnknownPrice, match="it has a price by search_unit"):
        own.worst(Usage(input=5, output=5), "rerank-v3.5")


def test_litellm_prices_by_the_use(tmp_path):
    entries = {
        "tts": {"mode": "audio_speech", "input_cost_per_character": 1.5e-05},
        "whisper": {"mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0},
        "drawer": {"mode": "image_generation", "output_cost_per_image": 0.04},
        "ranker": {"mode": "rerank", "input_cost_per_query": 0.002, "input_cost_per_token": 0.0,
                   "output_cost_per_token": 0.0},
        "film": {"mode": "video_generation", "output_cost_per_second": 0.1},
    }  # fmt: skip
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(entries))
    table = litellm.load(path)
    for model, unit, pico in (
        ("tts", "character", 15 * 10**6), ("whisper", "second", 10**8), ("drawer", "image", 4 * 10**10),
        ("ranker", "search_unit", 2 * 10**9),
    ):  # fmt: skip
        assert table.cost(Usage(input=0, output=0, counts={unit: 1}), model) == pico
    with pytest.raises(UnknownPrice):
        table.price("film")
