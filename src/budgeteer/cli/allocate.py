"""budgeteer allocate: split a budget over the items of a file."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgeteer.cli._printed import printable

if TYPE_CHECKING:
    from budgeteer.allocate.kit.margins import Margin
    from budgeteer.core.allocator import Allocator
    from budgeteer.core.plan import Items, Plan

HELP = (
    "one item a row (docs/allocate.md): JSON lines, .json, .csv or .parquet, all but the last also with .gz; "
    "- is JSON lines on standard input"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("items", metavar="FILE", help=HELP)
    parser.add_argument(
        "--method",
        required=True,
        metavar="NAME[:key=value,...]",
        help="an allocator with its options, such as neyman or menu-knapsack:exact=true; budgeteer methods allocator",
    )
    parser.add_argument("--budget", required=True, help="tokens, such as 50k")
    parser.add_argument("--seed", type=int, default=0, help="of methods that draw at random (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="the plan as one JSON object")
    parser.add_argument("--explain", action="store_true", help="why every item got what it got")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE.svg", help="draw the plan and its margins")


def run(args: argparse.Namespace) -> int:
    """Read, allocate, print."""
    import numpy as np

    from budgeteer.allocate.itemfile import from_file
    from budgeteer.allocate.kit.margins import margin_of
    from budgeteer.core import registry
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.files import write_text
    from budgeteer.core.plan import require_plan
    from budgeteer.core.spec import parse

    budget = Budget.parse(args.budget)
    if budget.amount is None or budget.kind not in ("all", "output"):
        raise InvalidInput(f"--budget {args.budget!r} must be a number of tokens here")
    if budget.window is not None:
        raise InvalidInput(f"--budget {args.budget!r} has a window; one plan is made here, so give its tokens alone")
    spec = parse(args.method, "allocator")
    allocator: Allocator = registry.make("allocator", spec.name, **spec.values)
    items = from_file(args.items)
    plan = allocator.allocate(budget.amount, items, allocator.init(items), rng=np.random.default_rng(args.seed))
    require_plan(plan, items, budget.amount, f"allocator {spec.name!r}")
    margin = margin_of(spec.name, items, spec.values) if args.explain or args.plot is not None else None
    if args.json:
        shown = {
            "method": args.method,
            "budget": budget.amount,
            "cost": plan.expected_cost,
            "value": _finite(plan.value),
            "gap": _finite(plan.gap),
            "price": _finite(plan.price),
            "plan": dict(zip(plan.keys, plan.units.tolist(), strict=True)),
        }
        if plan.max_tokens.any():
            shown["max_tokens"] = dict(zip(plan.keys, plan.max_tokens.tolist(), strict=True))
        if args.explain:
            shown["why"] = dict(zip(plan.keys, why(items, plan, budget.amount, margin), strict=True))
        sys.stdout.write(json.dumps(shown, allow_nan=False) + "\n")
    else:
        reasons = why(items, plan, budget.amount, margin) if args.explain else None
        _print(table(items, plan, budget.amount, reasons) + "\n")
    if args.plot is not None:
        drawn = plot(items, plan, budget.amount, args.method, margin)
        write_text(drawn, args.plot)
        sys.stderr.write(f"written: {args.plot}\n")
    return 0


def _print(text: str) -> None:
    """What the terminal cannot show, such as half of a surrogate pair in a key, is written as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(items: Items, plan: Plan, budget: int, why: list[str] | None) -> str:
    """The plan for people: a line for each item, with its reason if there is one, then the sums."""
    unit = "option" if items.menu is not None else "units"
    costs = items.menu.at(plan.units)[0] if items.menu is not None else plan.units * items.cost
    reasons = [""] * len(items) if why is None else why
    keys = [printable(key) for key in plan.keys]
    width = max([3, *(len(key) for key in keys)])
    capped = bool(plan.max_tokens.any())
    caps = [f"  {cap or '-':>10}" if capped else "" for cap in plan.max_tokens.tolist()]
    head = f"{'key':{width}}  {unit:>7}  {'tokens':>12}" + (f"  {'max_tokens':>10}" if capped else "")
    lines = [head + ("" if why is None else "  why")]
    for key, n, cost, cap, reason in zip(keys, plan.units.tolist(), costs.tolist(), caps, reasons, strict=True):
        lines.append(f"{key:{width}}  {n:>7}  {cost:>12,.6g}{cap}  {reason}".rstrip())
    lines.append("")
    lines.append(f"cost   {plan.expected_cost:,.6g} of {budget:,} tokens")
    if math.isfinite(plan.value):
        sure = "" if math.isnan(plan.gap) else f", at most {plan.gap:.3g} below the best" if plan.gap else ", the best"
        lines.append(f"value  {plan.value:.6g}{sure}")
    if math.isfinite(plan.price):
        lines.append(f"price  {plan.price:.4g} a token: about what one more is worth")
    return "\n".join(lines)


def why(items: Items, plan: Plan, budget: int, margin: Margin | None) -> list[str]:
    """A reason for each item: what it got, what that gained, and what the next unit or option would cost and gain."""
    return _why_menu(items, plan, budget) if items.menu is not None else _why_units(items, plan, budget, margin)


def _why_units(items: Items, plan: Plan, budget: int, margin: Margin | None) -> list[str]:
    from budgeteer.core.column import columns

    named = {name: items.columns[name] for name in columns() if name in items.columns and name != "cost"}
    left = budget - plan.expected_cost
    last, following = _around(plan, margin)
    reasons = []
    for i, n in enumerate(plan.units.tolist()):
        seen = ", ".join(f"{name} {values[i]:.4g}" for name, values in named.items())
        more = "" if items.cost[i] <= left else f"; one more does not fit the {left:,.6g} tokens left"
        has = f"{n} x {items.cost[i]:,.6g} tokens" + (f" for {seen}" if seen else "")
        reasons.append(has + ("" if margin is None else f"; {_gained(plan, margin, i, last[i], following[i])}") + more)
    return reasons


def _around(plan: Plan, margin: Margin | None) -> tuple[list[float], list[float]]:
    """Value a token of every item's last unit and of its next one."""
    import numpy as np

    if margin is None or not len(plan.keys):
        return [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        return (margin.gain(plan.units[:, None] - 1)[:, 0].tolist(), margin.gain(plan.units[:, None])[:, 0].tolist())


def _gained(plan: Plan, margin: Margin, i: int, last: float, next_one: float) -> str:
    """What decided the units of item i: the gain of its last and its next one beside the price, or a limit."""
    n = int(plan.units[i])
    named = zip(margin.names, (margin.low, margin.high), strict=True)
    least, most = (f"{limit:,} ({name})" if name else f"{limit:,}" for name, limit in named)
    price = f" (price {plan.price:.4g})" if math.isfinite(plan.price) else ""
    if n == 0 and margin.low > 0:
        if margin.enter is None:
            return f"the budget does not pay {least} for everybody"
        return f"its first {margin.low} would gain {margin.enter[i]:.4g} a token{price}"
    said = [f"the last one gained {last:.4g} a token"] if n > margin.low else []
    if n == margin.low > 0:
        enter = "" if margin.enter is None else f"its first {n} gained {margin.enter[i]:.4g} a token"
        said.append(enter or f"no less than {least}")
    said.append(f"no more than {most}" if n >= margin.high else f"the next one would gain {next_one:.4g}")
    return ", ".join(said) + price


def _why_menu(items: Items, plan: Plan, budget: int) -> list[str]:
    import numpy as np

    from budgeteer.allocate.kit.menu import ROUNDING

    menu = items.options()
    cost, value = menu.at(plan.units)
    left = budget - int(plan.expected_cost)
    reasons = []
    for i, k in enumerate(plan.units.tolist()):
        part = slice(int(menu.indptr[i]), int(menu.indptr[i + 1]))
        more, gain = menu.cost[part] - cost[i], menu.value[part] - value[i]
        has = f"option {k} is worth {value[i]:.4g} for {cost[i]:,} tokens" if k else "nothing"
        better = [(float(g), j + 1, int(m)) for j, (m, g) in enumerate(zip(more, gain, strict=True)) if g > 0 < m]
        if not better:
            free = [j + 1 for j, (m, g) in enumerate(zip(more, gain, strict=True)) if g > 0 >= m]
            reasons.append(
                f"{has}; " + (f"option {free[0]} is worth more for no more" if free else "nothing is worth more")
            )
            continue
        # the nearest option on the steepest slope, and at the price or below it, but for rounding: as hulls have it
        slope, near = max(g / m for g, _, m in better), ROUNDING * len(more) * float(np.abs(menu.value[part]).max())
        worth, option, tokens = min((x for x in better if x[0] >= slope * x[2] - near), key=lambda x: (x[2], -x[0]))
        if tokens > left:
            rest = f"its {tokens:,} more tokens do not fit the {left:,} left"
        else:
            rest = f"its {tokens:,} more tokens are left, but this method does not spend them here"
        side = ""
        if math.isfinite(plan.price):
            below = worth < plan.price * tokens - near
            side = " (below the price)" if below else " (at or above the price)"
        reasons.append(f"{has}; option {option} would gain {slope:.4g} a token{side}, {rest}")
    return reasons


def plot(items: Items, plan: Plan, budget: int, method: str, margin: Margin | None) -> str:
    """Two charts: tokens of the items, largest first, and what the tokens gain one after the other."""
    import numpy as np

    from budgeteer.draw.svg import Curve, stand_alone, xy_chart

    costs = items.menu.at(plan.units)[0] if items.menu is not None else plan.units * items.cost
    tokens = np.sort(costs)[::-1]
    at = _thin(len(tokens))
    given = xy_chart(
        [Curve(method, (at + 1).tolist(), tokens[at].tolist(), marks=len(tokens) <= 40)],
        title=f"{method}: {plan.expected_cost:,.6g} of {budget:,} tokens over {len(items):,} items",
        x_label="item, largest share first",
        y_label="tokens",
    )
    spent, slope = margins(items, plan, margin)
    rules = [("x", float(budget), "budget")]
    if math.isfinite(plan.price) and plan.price > 0:
        rules.append(("y", plan.price, f"price {plan.price:.3g}"))
    at = _thin(len(spent))
    gained = xy_chart(
        [Curve("value a token", spent[at].tolist(), slope[at].tolist())],
        title="what the next token gains, steepest first" if len(spent) else "this method states no value of a token",
        x_label="tokens spent",
        y_label="value a token",
        log=(False, True),
        rules=rules,
        top=350,
    )
    return stand_alone(given, gained, height=700)


def _thin(n: int, most: int = 1000) -> Any:
    """At most so many of n positions, the ends included."""
    import numpy as np

    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.zeros(0, np.int64)


def margins(items: Items, plan: Plan, margin: Margin | None) -> tuple[Any, Any]:
    """Tokens spent and value per token of the items' steps, steepest first; empty without a value curve.

    The steps of a menu are those of its hull. Without menus, a step is one unit, after the units that every item has
    before gains count; if items may get no unit, the first step of an item buys its smallest count. For each item, up
    to twice the plan's largest count is looked at, and a million units in all.
    """
    import numpy as np

    if items.menu is not None:
        from budgeteer.allocate.kit.menu import blocks, hulls

        steps = hulls(blocks(items.menu))
        begin, cost, slope = 0.0, steps.cost.astype(np.float64), steps.slope
    elif margin is not None and len(items):
        few = 1_000_000 // len(items)
        most = min(margin.high, max(2 * int(plan.units.max()), margin.low + 2), margin.low + few)
        units = np.arange(margin.low, most)
        slope, cost = margin.gain(units), np.repeat(items.cost[:, None], len(units), axis=1)
        begin = float(items.cost[plan.units > 0].sum()) * margin.low
        if margin.enter is not None:
            begin, slope = 0.0, np.hstack([margin.enter[:, None], slope])
            cost = np.hstack([margin.low * items.cost[:, None], cost])
        worth = slope > 0
        cost, slope = cost[worth], slope[worth]
    else:
        return np.zeros(0), np.zeros(0)
    order = np.argsort(-slope, kind="stable")
    return begin + np.cumsum(cost[order]), slope[order]
