"""What adapters share: reservations that learn, settlements of what is known and what is not."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from budgeteer import Usage
from budgeteer.core.errors import InvalidInput
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import Estimator, State
from budgeteer.metering.outcome import Outcome, outcome_of_status
from budgeteer.metering.settlement import Answer
from budgeteer.prices import Price, Rates, first_of, of
from helpers.purse import Purse

RATES = Rates(
    input=Decimal(3), output=Decimal(15), cached=Decimal("0.3"), written=Decimal("3.75"), written_long=Decimal(6)
)
CLAUDE = of({"claude": Price(RATES)})
WORST = Usage(input=1000, output=400)


def metering(**options):
    options.setdefault("kinds", ("all", "money"))
    return Metering(Purse(all=10**9, money=10**18), prices=CLAUDE, **options)


def test_the_worst_case_is_reserved_at_the_dearest_rates():
    planned = metering().plan("anthropic", "chat", "claude", WORST)
    assert planned.amounts == {"all": 1400, "money": (1000 * 6 + 400 * 15) * 10**6}


def test_reservations_learn_lengths_and_how_much_is_cached():
    """Every call reads 500 of at most 1000 tokens, 450 of them cached, and writes 40 of 400:
    all 540; money 50 x 3 + 450 x 0.3 + 40 x 15 = 885 millionths of a dollar."""
    learns = metering(estimator=Estimator(quantile=0.8, rate=0))
    used = Usage(input=500, output=40, cached=450, written=0)
    for _ in range(10):
        planned = learns.plan("anthropic", "chat", "claude", WORST)
        settled = learns.settlement(planned, Answer(used))
        assert settled.amounts == {"all": 540, "money": 885 * 10**6}
    planned = learns.plan("anthropic", "chat", "claude", WORST)
    assert planned.amounts["all"] == 540
    assert 885 * 10**6 <= planned.amounts["money"] <= 885 * 10**6 + 2
    other = learns.plan("anthropic", "chat", "claude", Usage(input=2000, output=400))
    assert other.amounts["all"] == 1040
    again = metering(
        estimator=Estimator(quantile=0.8, rate=0), state=State.from_json(json.loads(json.dumps(learns.state.to_json())))
    )
    assert again.plan("anthropic", "chat", "claude", WORST).amounts == planned.amounts


def test_what_is_estimated_is_not_learnt():
    learns = metering(estimator=Estimator(quantile=0.5))
    planned = learns.plan("anthropic", "chat", "claude", WORST)
    for answer in (
        Answer(),
        Answer(seen=3, outcome=Outcome.CUT),
        Answer(outcome=Outcome.UNKNOWN),
        Answer(outcome=Outcome.REJECTED),
    ):
        learns.settlement(planned, answer)
    assert learns.state == State()


@pytest.mark.parametrize(
    ("answer", "tokens", "estimated"),
    [
        (Answer(Usage(input=5, output=6)), 11, False),
        (Answer(Usage(input=5), seen=7), 12, True),
        (Answer(Usage(input=5), seen=7000), 405, True),  # never above the bound
        (Answer(Usage(output=6)), 1006, True),
        (Answer(), 1400, True),
        (Answer(seen=7, outcome=Outcome.CUT), 1400, True),  # nothing is known of the model
        (Answer(seen=7), 1007, True),
        (Answer(seen=7, hides=True), 1400, True),
        (Answer(Usage(input=5, output=6), outcome=Outcome.CUT), 11, False),  # the usage came before the cut
        (Answer(outcome=Outcome.UNKNOWN), 1400, True),
        (Answer(outcome=Outcome.REJECTED), 0, False),
        (Answer(Usage(input=5000, output=600)), 5600, False),  # above the reservation: booked, not dropped
    ],
)
def test_settlements(answer, tokens, estimated):
    plain = metering(kinds=("all",))
    settled = plain.settlement(plain.plan("p", "chat", "m", WORST), answer)
    assert (settled.amounts, settled.estimated) == ({"all": tokens}, estimated)


OWN = of({"gpt-4o": Price(Rates(input=Decimal(100), output=Decimal(100)))}, "own")
SHIPPED = of(
    {
        "gpt-4o": Price(Rates(input=Decimal(2), output=Decimal(10))),
        "gpt-4o-2024": Price(Rates(input=Decimal(3), output=Decimal(10))),
        "azure/gpt-4o": Price(Rates(input=Decimal(4), output=Decimal(10))),
        "azure/gpt-4o-2024": Price(Rates(input=Decimal(5), output=Decimal(10))),
    },
    "shipped",
)
USED = Usage(input=10**6, output=0)


@pytest.mark.parametrize(
    ("asked", "answered", "dollars"),
    [
        ("gpt-4o", "gpt-4o-2024", 100),  # the own price of the name that was asked, before a shipped one of the other
        ("gpt-4o-2024", "gpt-4o", 100),
        ("gpt-4o", "", 100),
        ("azure/gpt-4o", "azure/gpt-4o-2024", 5),
        ("azure/gpt-4o", "gpt-4o-2024", 5),  # of the provider that was asked
        ("azure/gpt-4o", "gpt-5", 4),
        ("gpt-4o-2024", "unheard of", 3),
        ("unheard of", "gpt-4o-2024", 3),
    ],
)
def test_the_first_table_that_knows_either_name_has_the_price(asked, answered, dollars):
    fallback = Price(Rates(input=Decimal(999), output=Decimal(999)))
    meter = Metering(None, ("money",), first_of(OWN, SHIPPED).with_fallback(fallback))
    planned = meter.plan("openai", "chat", asked, Usage(input=10**6, output=10**6))
    assert meter.settlement(planned, Answer(USED, model=answered)).amounts == {"money": dollars * 10**12}


def test_tables_of_tables_keep_their_order():
    nested = first_of(first_of(of({}), OWN), SHIPPED)
    assert nested.first_known(("gpt-4o-2024", "gpt-4o")) == "gpt-4o"
    assert nested.first_known(("azure/gpt-4o-2024", "x")) == "azure/gpt-4o-2024"
    assert nested.first_known(("x", "y")) == "y"


def test_speech_is_reserved_at_its_rate_also_by_what_was_learnt():
    rates = Rates(input=Decimal(1), output=Decimal(1), audio_input=Decimal(5), audio_output=Decimal(9))
    worst = Usage(input=100, output=10, audio_output=10)
    for estimator in (None, Estimator()):
        meter = Metering(None, ("money",), of({"m": Price(rates)}), estimator=estimator)
        assert meter.plan("openai", "chat", "m", worst).amounts == {"money": (100 + 10 * 9) * 10**6}
        heard = Usage(input=100, output=10, audio_input=100)
        assert meter.plan("openai", "chat", "m", heard).amounts == {"money": (100 * 5 + 10) * 10**6}


def test_a_cut_answer_is_worth_what_it_showed_only_of_a_model_that_showed_all_it_billed():
    cut = Answer(seen=7, outcome=Outcome.CUT)

    def charged(*before):
        learns = metering(kinds=("all",))
        for answer in (*before, cut):
            settled = learns.settlement(learns.plan("p", "chat", "m", WORST), answer)
        return settled.amounts["all"]

    whole = Answer(Usage(input=5, output=6), shown=20)
    assert charged() == 1400  # as after any restart
    assert charged(whole) == 1007
    assert charged(Answer(Usage(input=5, output=21), shown=20)) == 1400  # it billed more than it showed
    assert charged(Answer(Usage(input=5, output=6, reasoning=0), shown=20)) == 1400  # the next one may think
    assert charged(whole, Answer(Usage(input=5, output=6, reasoning=3), shown=20), whole) == 1400
    assert charged(Answer(Usage(input=5, output=6), shown=20, outcome=Outcome.CUT)) == 1400
    assert charged(Answer(shown=20)) == 1400  # estimated itself
    learns = metering(kinds=("all",))
    learns.settlement(learns.plan("p", "chat", "other", WORST), whole)
    assert learns.settlement(learns.plan("p", "chat", "m", WORST), cut).amounts["all"] == 1400


def test_what_nobody_knows_is_charged_as_the_dearest_that_it_may_be():
    rates = Rates(input=Decimal(1), output=Decimal(2), reasoning=Decimal(8), audio_output=Decimal(64))
    meter = Metering(None, ("money", "reasoning"), of({"m": Price(rates)}))

    def charged(answer, **more):
        planned = meter.plan("p", "chat", "m", Usage(input=100, output=10, **more))
        return meter.settlement(planned, answer).amounts

    cut = Answer(Usage(input=50), seen=3, outcome=Outcome.CUT)
    assert charged(cut) == {"money": (50 + 10 * 8) * 10**6, "reasoning": 10}
    assert charged(cut, audio_output=10) == {"money": (50 + 10 * 64) * 10**6, "reasoning": 10}
    assert charged(Answer(seen=3, outcome=Outcome.CUT)) == {"money": (100 + 10 * 8) * 10**6, "reasoning": 10}
    assert charged(Answer(seen=3)) == {"money": (100 + 3 * 2) * 10**6, "reasoning": 0}


def test_what_a_status_says():
    got = {status: outcome_of_status(status) for status in (200, 400, 404, 408, 409, 422, 429, 500, 502, 503, 504, 529)}
    assert got == {
        200: "ok", 400: "rejected", 404: "rejected", 408: "unknown", 409: "rejected", 422: "rejected", 429: "rejected",
        500: "unknown", 502: "unknown", 503: "rejected", 504: "unknown", 529: "rejected",
    }  # fmt: skip


def test_no_kinds():
    with pytest.raises(InvalidInput, match="no kind"):
        metering(kinds=())
