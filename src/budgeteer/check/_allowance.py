"""The rules of allowances: delegated, never copied, and conserved to the unit."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Mapping

from budgeteer.check._common import CheckFailed, expect, refuses
from budgeteer.core.errors import AllowanceError, BudgetExceeded, InvalidInput
from budgeteer.ledger import Allowance, Ledger, Limit, MemoryLedger

LIMIT, GRANTED = 10_000, 1_000
MakeAllowance = Callable[[Ledger, str, Mapping[str, int]], Allowance]
"""``(ledger, path, amounts) -> allowance``, such as the class itself."""


def check_allowance(make: MakeAllowance, *, steps: int = 400, seed: int = 0) -> None:
    """Spend, share and delegate in a ledger in memory, and raise :class:`CheckFailed` at the first broken rule.

    Rules: an allowance cannot be copied or pickled; a call holds its units, and units that it did not use come back; a
    call that exceeds the allowance, or the ledger's limits, is refused and nothing is charged; units that are given to
    children leave the parent, a child cannot exceed its units, and those that it leaves over come back when it closes;
    weights split all that is left to the unit; an allowance that was delegated or closed cannot be used; a parent
    counts what its children spent, and in the end the ledger's account shows exactly what the calls used.

    Args:
        make: makes the allowance.
        steps: of a random walk over calls and children.
        seed: of the walk.
    """
    _copies(make)
    _calls(make)
    _children(make)
    _handed_on(make)
    _walk(make, steps, random.Random(seed))


def _made(make: MakeAllowance, granted: int = GRANTED) -> tuple[Ledger, Allowance]:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", LIMIT)])
    return ledger, make(ledger, "org", {"all": granted})


def _spend(allowance: Allowance, held: int, used: int) -> None:
    with allowance.reserve({"all": held}) as call:
        call.settle({"all": used})


def _left(allowance: Allowance, units: int, rule: str) -> None:
    expect(allowance.remaining, {"all": units}, rule)


def _copies(make: MakeAllowance) -> None:
    _, root = _made(make)
    for how in (copy.copy, copy.deepcopy, pickle.dumps):
        refuses(AllowanceError, f"an allowance is never copied ({how.__name__})", how, root)


def _calls(make: MakeAllowance) -> None:
    ledger, root = _made(make)
    with root.reserve({"all": 400}) as call:
        _left(root, 600, "a call holds its units")
        call.settle({"all": 150})
    _left(root, 850, "what a call did not use comes back")
    expect(ledger.remaining("org"), {"all": LIMIT - 150}, "the ledger is charged what a call used")
    refuses(BudgetExceeded, "a call above the allowance is refused", _spend, root, 851, 1)
    _left(root, 850, "a refused call takes nothing")
    _, rich = _made(make, 2 * LIMIT)
    refuses(BudgetExceeded, "a call above the ledger's limit is refused", _spend, rich, LIMIT + 1, 1)
    _left(rich, 2 * LIMIT, "a call that the ledger refused takes nothing")


def _children(make: MakeAllowance) -> None:
    ledger, root = _made(make)
    (child,) = root.share([{"all": 300}])
    _left(root, 700, "what a child was given leaves the parent")
    refuses(BudgetExceeded, "a child cannot exceed its part", _spend, child, 301, 1)
    refuses(BudgetExceeded, "a parent cannot spend what it gave away", _spend, root, 701, 1)
    refuses(BudgetExceeded, "a parent cannot give more than it has", root.share, [{"all": 701}])
    _spend(child, 200, 120)
    child.close()
    _left(root, 880, "what a child did not use comes back to its parent, and what it used is counted there")
    refuses(AllowanceError, "a closed allowance cannot be used", _spend, child, 1, 1)
    expect(ledger.remaining("org"), {"all": LIMIT - 120}, "the ledger is charged what a child used")
    parts = [part.remaining["all"] for part in root.share([1, 1, 1])]
    expect((sum(parts), max(parts) - min(parts)), (880, 1), "weights split all that is left to the unit")
    _left(root, 0, "weights split all that is left")


def _handed_on(make: MakeAllowance) -> None:
    _, root = _made(make)
    (child,) = root.share([{"all": 500}])
    heir = child.delegate("reviewer")
    refuses(AllowanceError, "a delegated allowance cannot be used", _spend, child, 1, 1)
    refuses(AllowanceError, "a delegated allowance cannot be delegated again", child.delegate)
    _left(heir, 500, "a delegate holds the whole right")
    refuses(InvalidInput, "a delegation in a circle is refused", heir.delegate, "reviewer")
    _spend(heir, 100, 40)
    heir.close()
    _left(root, 960, "what a delegate did not use comes back to the parent")


def _walk(make: MakeAllowance, steps: int, rng: random.Random) -> None:
    ledger, root = _made(make)
    family, used = [root], 0
    for _ in range(steps):
        who = rng.choice(family)
        free, action = who.remaining["all"], rng.random()
        if action < 0.5 and free:
            held = rng.randint(1, min(free, 20))
            spent = rng.randint(0, held)
            _spend(who, held, spent)
            used += spent
        elif action < 0.75 and free and len(family) < 12:
            family += who.share([{"all": rng.randint(0, free)}])
        elif action < 0.85 and who is not root:
            family[family.index(who)] = who.delegate()
        elif who is not root:
            who.close()
            family = [member for member in family if _open(member)]
        total = sum(member.remaining["all"] for member in family)
        if total != GRANTED - used:
            raise CheckFailed(
                f"{GRANTED} units were granted and {used} used, and the open allowances hold {total}:"
                " units are conserved"
            )
    for member in family[1:]:
        member.close()
    _left(root, GRANTED - used, "what children leave over comes back")
    expect(ledger.remaining("org"), {"all": LIMIT - used}, "the ledger's account shows what the calls used")


def _open(allowance: Allowance) -> bool:
    """Whether it can still be used; children are closed with their parent."""
    try:
        with allowance.reserve({"all": 0}) as call:
            call.release()
    except AllowanceError:
        return False
    return True
