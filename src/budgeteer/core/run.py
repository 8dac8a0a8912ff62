"""How a method of each part is run: by a command, or where no command has a use for the part, by a few lines of Python.

>>> run_of(registry.get("verifier", "exact"))
'budgeteer solve chains --limit 20 --strategy direct --verifier exact --budget 400'
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from budgeteer.core import registry
from budgeteer.core.method import READ, Method

_TRAIN = "budgeteer train grpo:{slot}=SPEC --budget 200k --out runs/NAME"
_SOLVE = "budgeteer solve chains --limit 20 "
_WITH_TOOLS = "budgeteer solve lookups --model thinker --limit 20 --strategy SPEC --budget "
RUNS: dict[str, str] = {
    "allocator": "budgeteer allocate items.jsonl --method SPEC --budget 50k",
    "online": """\
from budgeteer.core import registry

online = registry.make("online", "NAME"ARGUMENTS)
option, state = online.step(online.init(), [2.0, 1.0], [(3,), (1,)])  # values [d], costs [d][m] of one request
print(option, state.left)  # -1 = none of them""",
    "joint": """\
import numpy as np
from budgeteer.core import registry

worth, cost = np.array([[1.0, 3.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [1.0, 2.0]])  # [N, K]
joint = registry.make("joint", "NAME"ARGUMENTS)
chosen = joint(lambda y: (-float((worth * y).sum()), -worth), cost, 3.0, worth, rng=np.random.default_rng(0))
print(chosen.choice)  # [N], of summed cost 3 at most""",
    "rounding": """\
import numpy as np
from budgeteer.core import registry

print(registry.make("rounding", "NAME")(np.array([0.5, 0.5, 1.0]), np.random.default_rng(0)))  # [n] bool""",
    "matching": """\
import numpy as np
from budgeteer.core import registry

plan = registry.make("matching", "NAME")(np.array([[3.0, 1.0], [2.0, 2.0]]), np.array([0.5, 1.0]))  # [n, T], [T]
print(plan.bound, plan.serve(0, np.array([True, True]), np.random.default_rng(0)))  # -1 = nobody serves""",
    "router": """\
import numpy as np
from budgeteer.core import registry

router = registry.make("router", "NAME"ARGUMENTS)
chosen, weight = router.route(router.init(4), np.random.default_rng(0).random((8, 4)))  # scores [T, E]
print(chosen.shape, weight.shape)  # [T, K] experts of each token""",
    "allowance": """\
from budgeteer.core import registry
from budgeteer.ledger import Limit, MemoryLedger

ledger = MemoryLedger()
ledger.open("me", [Limit("all", 1000)])
with registry.make("allowance", "NAME")(ledger, "me", {"all": 500}).reserve({"all": 60}) as call:
    call.settle({"all": 20})
print(ledger.remaining("me"))""",
    "meter": """\
from budgeteer import Usage
from budgeteer.core.meter import meter

print(meter("NAME")(Usage(input=9, output=20, counts={"NAME": 3})))  # and as a budget: NAME:400""",
    "steer": f"""\
{_SOLVE}--strategy direct:steer=SPEC --budget 400
{_TRAIN.format(slot="steer")}    # one that needs neither texts nor embeddings""",
    "strategy": _SOLVE + "--strategy SPEC --budget 400",
    "many": _SOLVE + "--strategy SPEC --budget 8000 --total",
    "aggregator": _SOLVE + "--strategy split:aggregate=SPEC --budget 8000 --total",
    "scorer": _SOLVE + "--strategy best-of-n:scorer=SPEC --budget 4000 --oracle",
    "verifier": _SOLVE + "--strategy direct --verifier SPEC --budget 400",
    "reward": _TRAIN.format(slot="reward"),
    "advantage": _TRAIN.format(slot="advantage"),
    "importance": _TRAIN.format(slot="importance"),
    "ratio": _TRAIN.format(slot="ratio"),
    "stream": _TRAIN.format(slot="stream"),
    "carry": _TRAIN.format(slot="carry"),
    "variant": _TRAIN.format(slot="variant"),
    "schedule": _TRAIN.format(slot="lr"),
    "weight": _TRAIN.format(slot="token_weight"),
    "recipe": "budgeteer train SPEC --budget 200k --out runs/NAME",
    "tuning": "budgeteer data SPEC --model thinker --questions thinking --limit 20 --budget 60k --out NAME.jsonl",
    "policy": "budgeteer serve --config gateway.toml    # with the table [policies.NAME] in it",
    "style": _SOLVE + "--strategy direct --style SPEC --model smollm2 --budget 4000",
    "score": "budgeteer cache eval smollm2 --methods SPEC --budgets 25%",
    "split": "budgeteer cache eval smollm2 --methods snapkv:split=SPEC --budgets 25%",
    "reducer": """\
from budgeteer.context.protocol import counter
from budgeteer.core import registry

talk = [{"role": "user", "content": text} for text in ("It is red.", "It is an old cat.", "What is it?")]
reduce = registry.make("reducer", "NAME"ARGUMENTS)
print(len(reduce(talk, 22, counter(lambda text: len(text.split())))))  # messages that are left""",
    "route": "budgeteer route eval TABLE.csv --methods SPEC",
    "rest": "budgeteer cache eval smollm2 --methods snapkv:rest=SPEC --budgets 25%",
    "task": "budgeteer solve SPEC --limit 20 --strategy direct --model smollm2 --budget 4000",
}
"""Part -> how a method NAME of it is run; SPEC = its name with the options that it needs.

No command resolves online, rounding, matching, router, allowance, reducer. ``budgeteer stages --search SPEC`` runs a
joint method on pipelines, if it needs no gradient; the lines of Python run each of them."""


def run_of(method: Method) -> str:
    """How this method is run: a command line, or Python that runs as it stands.

    Options that it needs are given as its entry gives them to the shared checks; where one of them is an object that no
    command line can write, the text says so.

    Raises:
        ImportError: the method needs an extra that is not installed.
    """
    run = RUNS[method.part]
    if "tools" in method.traits:
        run = _WITH_TOOLS + ("60k --total" if method.part == "many" else "3k")
    required = {
        option["name"]: option["takes"] for option in registry.explained(method)["options"] if option["required"]
    }
    given = {name: READ[name].example for name in required if name in READ}
    given |= {name: name.upper() for name, takes in required.items() if takes == "a text"}  # such as model=MODEL
    given |= method.arguments if isinstance(method.arguments, Mapping) else {}
    if not run.startswith("budgeteer "):
        arguments = "".join(f", {name}={value!r}" for name, value in given.items())
        return run.replace("ARGUMENTS", arguments).replace("NAME", method.name)
    if method.part == "policy":
        return run.replace("NAME", method.name)
    if unwritable := [f"{name} ({takes})" for name, takes in required.items() if name not in given]:
        return f"in Python only, since it needs {' and '.join(unwritable)}: {method.path.replace(':', '.')}"
    written = ",".join(f"{name}={_written(given[name])}" for name in required)
    spec = f"{method.name}:{written or given['family']}" if written or "family" in given else method.name
    if ":" in spec:  # as an option of another name it stands in quotes
        run = re.sub(r"(\S+=)SPEC", r"""'\1"SPEC"'""", run)
    return run.replace("SPEC", spec).replace("NAME", method.name)


def _written(value: Any) -> str:
    """A value as an option has it: a plain word stands without quotes, so that it may stand inside others."""
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value)
