"""An eval of inspect_ai whose models are all covered by a hook: what was charged, sample by sample, as JSON."""

import json

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, mean, scorer
from inspect_ai.solver import Generate, TaskState, solver

from budgeteer.adapters.inspect_ai import covering, spending
from budgeteer.core.errors import InvalidInput
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.estimate import Bounds

BOUNDS = Bounds(overhead=10, max_output=100)
caps: list[int] = []
USED = 30


def scripted():
    """A model that uses 30 tokens a call, and fails where the prompt says so."""

    def output(messages, tools, choice, config):
        caps.append(config.max_tokens)
        if "fail" in messages[-1].text:
            raise RuntimeError("down")
        found = ModelOutput.from_content("mockllm/model", "yes")
        found.usage = ModelUsage(input_tokens=USED - 5, output_tokens=5, total_tokens=USED)
        return found

    return get_model("mockllm/model", custom_outputs=output, memoize=False)


@solver
def once():
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return await generate(state)

    return solve


@scorer(metrics=[mean()])
def graded(model):
    async def score(state: TaskState, target) -> Score:
        return Score(value=float((await model.generate("Is that right?")).completion == "yes"))

    return score


def ran(budget, prompts, model=None, grader=None):
    task = Task(
        [Sample(input=text, target="yes") for text in prompts], solver=once(), scorer=graded(grader or scripted())
    )
    with covering(budget):
        (log,) = eval(
            task, model=model or scripted(), display="none", log_dir="logs", max_samples=1, fail_on_error=False
        )
    spent = budget.allowance._ledger.snapshot()[1].accounts["agent"].books["all"]
    limited = [str(one.limit.type) for one in log.samples if one.limit]
    return {"spent": spent.spent, "held": spent.held, "limited": limited, "samples": len(log.samples)}


def parsed(text):
    return AgentBudget.parse(text, bounds=BOUNDS)


plain = ran(parsed("10k"), ["a", "b"])
(capped,) = {*caps}
spare = parsed("10k")
own = ran(spare, ["a", "b"], model=spending(scripted(), spare))
short = ran(parsed("300"), ["a", "b", "c", "d", "e", "f"])
failed = ran(parsed("10k"), ["fail"])
asked = len(caps)
endless = ran(AgentBudget.parse("10k", bounds=Bounds(max_output=None)), ["a", "b"])  # no cap, in no place
endless["asked"] = len(caps) - asked


def refusal(budget):
    try:
        with covering(budget):
            pass
    except InvalidInput as error:
        return str(error)
    return ""


none = refusal("50k")
with covering(parsed("1k")):
    refused = refusal(parsed("1k"))
print(
    json.dumps(
        {
            "plain": plain,
            "cap": capped,
            "own": own,
            "short": short,
            "failed": failed,
            "endless": endless,
            "none": none,
            "refused": refused,
        }
    )
)
