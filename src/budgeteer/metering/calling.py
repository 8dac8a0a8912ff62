"""A call that one function makes: reserved before it, and settled after it, however it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from budgeteer.metering.call import Call, Metering
from budgeteer.metering.outcome import Outcome, outcome_of_status
from budgeteer.metering.settlement import Answer, Planned

T = TypeVar("T")


def metered(metering: Metering, planned: Planned, send: Callable[[], T], read: Callable[[T], Answer]) -> T:
    """What ``send`` returns.

    Args:
        metering: reserves and settles.
        planned: the call.
        send: makes it.
        read: what is known of it after it.

    Raises:
        BudgetExceeded: it does not fit, and was not made.
    """
    call = Call(metering, planned).start()
    try:
        response = send()
    except BaseException as error:
        call.finish(Answer(outcome=outcome_of(error)))
        raise
    try:
        answer = read(response)
    except BaseException:  # it has run, and nobody knows what it used
        call.finish(Answer(outcome=Outcome.UNKNOWN))
        raise
    call.finish(answer)
    return response


async def ametered(
    metering: Metering, planned: Planned, send: Callable[[], Awaitable[T]], read: Callable[[T], Answer]
) -> T:
    """:func:`metered` without blocking the event loop."""
    call = await Call(metering, planned).astart()
    try:
        response = await send()
    except BaseException as error:
        await call.afinish(Answer(outcome=outcome_of(error)))
        raise
    try:
        answer = read(response)
    except BaseException:
        await call.afinish(Answer(outcome=Outcome.UNKNOWN))
        raise
    await call.afinish(answer)
    return response


def outcome_of(error: BaseException) -> Outcome:
    """How a call ended that raised: by the status that the error names, else it may have run."""
    for place in (error, getattr(error, "response", None)):
        status = getattr(place, "status_code", None)
        if isinstance(status, int) and status >= 400:
            return outcome_of_status(status)
    return Outcome.UNKNOWN
