"""No call goes past its budget, whatever the strategy does and however the model fails."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.core.usage import Usage
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import INTERNALS, Choice, Chunk, Request, Response
from budgeteer.solve import Budgeted, record
from budgeteer.solve.record import Calls, Named


def budgeted(model: Scripted, **amounts: int) -> Budgeted:
    ledger = MemoryLedger()
    ledger.open("q", [Limit(kind, units) for kind, units in amounts.items()])
    return Budgeted(model, Allowance(ledger, "q", amounts))


def test_a_call_is_charged_for_what_it_used() -> None:
    model = budgeted(Scripted(lambda prompt, rng: "12345"), all=30)
    asyncio.run(model.generate(Request("abc", max_tokens=8, n=2)))
    assert model.remaining == {"all": 30 - 3 - 10}
    assert (model.spend.calls, model.spend.usage.input, model.spend.usage.output) == (1, 3, 10)
    assert model.spend.units == {"all": 13}


def test_the_ledger_is_told_what_a_call_was_for() -> None:
    model = budgeted(Scripted(lambda prompt, rng: "12345"), all=30)
    asyncio.run(model.generate(Request("abc", max_tokens=8), stage="judge"))
    assert '"stage":"judge"' in list(model.allowance._ledger.lines())[-1][0]


def test_a_call_that_does_not_fit_is_not_sent() -> None:
    inner = Scripted(lambda prompt, rng: "12345")
    model = budgeted(inner, all=30)
    with pytest.raises(BudgetExceeded):
        asyncio.run(model.generate(Request("abc", max_tokens=14, n=2)))
    assert inner.requests == []
    assert model.remaining == {"all": 30}
    assert model.spend.calls == 0


@pytest.mark.parametrize(("most", "n", "keep", "want"), [(99, 1, 0, 27), (99, 2, 0, 13), (5, 1, 0, 5), (99, 1, 4, 10)])
def test_afford_is_the_largest_that_fits(most: int, n: int, keep: int, want: int) -> None:
    """30 units, prompt of 3: n * m <= 27; with keep: (3 + m) + (3 + m + 4) <= 30, so m = 10."""
    model = budgeted(Scripted(lambda prompt, rng: "x"), all=30)
    assert model.afford("abc", n=n, most=most, keep=keep) == want


def test_fits_adds_the_calls_up() -> None:
    """30 tokens, 12 of output: 5 + 5 + 10 + 7 = 27 fit, one more call of 4 does not, nor do 13 of output."""
    model = budgeted(Scripted(lambda prompt, rng: "x"), all=30, output=12)
    calls = Usage(input=5, output=5), Usage(input=10, output=7)
    assert model.fits(*calls)
    assert not model.fits(*calls, Usage(input=4, output=0))
    assert not model.fits(Usage(input=0, output=13))
    assert model.fits()


@pytest.mark.parametrize(("context", "keep", "want"), [(20, 0, 17), (20, 4, 13), (3, 0, 0), (2, 0, 0), (99, 0, 27)])
def test_afford_minds_the_context(context: int, keep: int, want: int) -> None:
    """3 tokens of prompt and m more are at most the context, with what is kept for the answer after them."""
    model = Scripted(lambda prompt, rng: "x")
    model.context = context  # type: ignore[attr-defined]
    assert budgeted(model, all=60 if keep else 30).afford("abc", most=99, keep=keep) == want


def test_a_part_is_all_that_its_block_can_spend_and_comes_back() -> None:
    model = budgeted(Scripted(lambda prompt, rng: "12345"), all=60)
    with model.part({"all": 20}) as part:
        assert (part.remaining, model.remaining) == ({"all": 20}, {"all": 40})
        with pytest.raises(BudgetExceeded):
            asyncio.run(part.generate(Request("abc", max_tokens=18)))
        asyncio.run(part.generate(Request("abc", max_tokens=8)))
        assert part.remaining == {"all": 12}
    assert model.remaining == {"all": 52}
    assert (model.spend.calls, model.spend.units) == (1, {"all": 8})  # counted with the others
    with pytest.raises(BudgetExceeded), model.part({"all": 53}):
        pass


def test_afford_knows_that_nothing_fits() -> None:
    assert budgeted(Scripted(lambda prompt, rng: "x"), all=3).afford("abc", most=9) == 0


@pytest.mark.parametrize(("billed", "left"), [(True, 30 - 3 - 8), (False, 30)])
def test_a_failed_call_is_charged_if_it_may_have_run(billed: bool, left: int) -> None:
    class Failing(Scripted):
        async def generate(self, request: Request) -> Response:
            raise ModelError("gone", billed=billed)

    model = budgeted(Failing(lambda prompt, rng: ""), all=30)
    with pytest.raises(ModelError):
        asyncio.run(model.generate(Request("abc", max_tokens=8)))
    assert model.remaining == {"all": left}


def test_a_cancelled_call_is_charged() -> None:
    class Hanging(Scripted):
        async def generate(self, request: Request) -> Response:
            await asyncio.sleep(3600)
            raise AssertionError

    model = budgeted(Hanging(lambda prompt, rng: ""), all=30)

    async def cut() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.generate(Request("abc", max_tokens=8)), 0.01)

    asyncio.run(cut())
    assert model.remaining == {"all": 30 - 3 - 8}


def test_a_stream_closed_early_is_charged_for_what_was_seen() -> None:
    model = budgeted(Scripted(lambda prompt, rng: "123456789"), all=30)

    async def two() -> list[str]:
        texts = []
        async with aclosing(model.stream(Request("abc", max_tokens=20))) as pieces:
            async for piece in pieces:
                assert isinstance(piece, Chunk)
                texts.append(piece.text)
                if len(texts) == 2:
                    break
        return texts

    assert asyncio.run(two()) == ["1", "2"]
    assert model.remaining == {"all": 30 - 3 - 2}
    assert model.spend.estimated == 1


def test_a_black_box_refuses_steers_before_anything_is_spent() -> None:
    model = budgeted(Scripted(lambda prompt, rng: "1"), all=30)
    with pytest.raises(InvalidInput, match="black box"):
        asyncio.run(model.generate(Request("abc", max_tokens=8, steer=object())))
    assert model.remaining == {"all": 30}


def test_concurrent_calls_never_exceed_the_budget() -> None:
    model = budgeted(Scripted(lambda prompt, rng: "1" * rng.randint(1, 9)), all=200)

    async def fan() -> list[object]:
        calls = [model.generate(Request("abc", max_tokens=9, seed=i)) for i in range(64)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    results = asyncio.run(fan())
    assert any(isinstance(r, BudgetExceeded) for r in results)
    assert any(isinstance(r, Response) for r in results)
    assert model.spend.units["all"] <= 200
    assert model.remaining == {"all": 200 - model.spend.units["all"]}


class FailingOnce(Scripted):
    """Fails the first call, in a way that another attempt may mend."""

    async def generate(self, request: Request) -> Response:
        if not self.requests:
            self.requests.append(request)
            raise ModelError("gone", billed=True, again=True)
        return await super().generate(request)


def test_another_attempt_is_another_charge() -> None:
    model = budgeted(FailingOnce(lambda prompt, rng: "12345"), all=30)
    asyncio.run(model.generate(Request("abc", max_tokens=8)))
    assert model.remaining == {"all": 30 - (3 + 8) - (3 + 5)}
    assert (model.spend.calls, model.spend.estimated) == (2, 1)


@pytest.mark.parametrize(
    ("units", "choices", "asked"), [(1000, 5, [2, 2, 1]), (3 * 3 + 5 * 8, 5, [2, 2, 1]), (48, 4, [2, 2])]
)
def test_more_choices_than_the_model_serves_are_several_requests(units: int, choices: int, asked: list[int]) -> None:
    """A prompt of 3 is read with each request of two choices at most: 5 choices of 8 tokens are 9 + 40."""
    inner = Scripted(lambda prompt, rng: rng.choice("abcdefgh") * rng.randint(1, 8))
    whole = asyncio.run(inner.generate(Request("abc", max_tokens=8, n=choices, seed=7)))
    inner.choices, inner.requests = 2, []
    model = budgeted(inner, all=units)
    assert model.afford("abc", n=5, most=8) == (8 if units >= 49 else 7)
    response = asyncio.run(model.generate(Request("abc", max_tokens=8, n=choices, seed=7)))
    assert [request.n for request in inner.requests] == asked
    assert len(response.choices) == choices
    assert response.choices[:2] == whole.choices[:2]
    assert response.usage == Usage(input=3 * len(asked), output=sum(c.tokens for c in response.choices))
    assert model.spend.units == {"all": response.usage.total}


def test_what_came_before_a_later_request_failed_is_the_response() -> None:
    inner = Scripted(lambda prompt, rng: "12345678")
    inner.choices = 2
    model = budgeted(inner, all=3 + 16 + 3 + 15)  # the second one does not fit
    assert len(asyncio.run(model.generate(Request("abc", max_tokens=8, n=4))).choices) == 2
    with pytest.raises(BudgetExceeded):
        asyncio.run(model.generate(Request("abc", max_tokens=8, n=4)))


def test_attempts_on_record_are_taken_from_there(tmp_path) -> None:
    inner, found = FailingOnce(lambda prompt, rng: "12345"), []
    for _ in range(2):
        calls = Calls(tmp_path / "calls.jsonl")
        ledger = MemoryLedger()
        ledger.open("q", [Limit("all", 30)])
        right = Allowance(ledger, "q", {"all": 30})
        calls.begin(())
        model = Named(inner, right, prices=None, calls=calls, scope="q", used={}, gone={})
        found.append(asyncio.run(model.generate(Request("abc", max_tokens=8))))
        assert model.remaining == {"all": 30 - (3 + 8) - (3 + 5)}
        calls.close()
    assert found[0] == found[1]
    assert len(inner.requests) == 2


def test_an_answer_on_record_is_given_once(tmp_path) -> None:
    """Killed between record and settlement, the ledger does not know the number that the record has."""
    inner, names = Scripted(lambda prompt, rng: "12345"), []
    for again in (1, 2):
        calls = Calls(tmp_path / "calls.jsonl")
        calls.begin(())
        ledger = MemoryLedger()
        ledger.open("q", [Limit("all", 100)])
        model = Named(
            inner, Allowance(ledger, "q", {"all": 100}), prices=None, calls=calls, scope="q", used={}, gone={}
        )
        for _ in range(again):
            asyncio.run(model.generate(Request("abc", max_tokens=8, seed=1)))
        names.append([line for line in (tmp_path / "calls.jsonl").read_text().splitlines() if "call" in line])
        calls.close()
    assert len(inner.requests) == 2
    assert [len(own) for own in names] == [1, 2]


def test_what_a_steer_said_of_a_choice_is_on_record(tmp_path) -> None:
    """A strategy that is run again after a kill reads the notes of the answer that was paid for."""
    paid = Response((Choice("5", 4, "stop", None, 2, {"class": 1}),), Usage(input=3, output=4))

    class Once:
        name, capabilities, answers = "once", frozenset({INTERNALS}), [paid]

        async def generate(self, request):
            return self.answers.pop()

    async def body():
        for _ in range(2):
            calls = Calls(tmp_path / "calls.jsonl")
            record._CALL.set("q.1")
            assert await record.Recorded(Once(), calls).generate(Request("abc", 8)) == paid
            calls.close()

    asyncio.run(body())
