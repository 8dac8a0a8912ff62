"""The benchmarks as tasks of inspect_ai, with its scripted model; prints what came of them as JSON."""

import json

from inspect_ai import eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from budgeteer.lab.bench import inspect as tasks
from budgeteer.lab.tasks.schedule import Schedules


def model(answer):
    """A scripted model: answer(prompt) is a text and a reason to stop."""

    def output(messages, *_):
        text, reason = answer(messages[-1].text)
        found = ModelOutput.from_content("mockllm/model", text, stop_reason=reason)
        found.usage = ModelUsage(input_tokens=9, output_tokens=len(text), total_tokens=9 + len(text))
        return found

    return get_model("mockllm/model", custom_outputs=output)


def figures(task, answer):
    (log,) = eval(task, model=model(answer), display="none", log_dir="logs")
    assert log.status == "success", log.error
    return {name: found.value for name, found in log.results.scores[0].metrics.items()}


plans = {item.prompt: item.answer for item in Schedules(size=4, seed=0, tasks=4, max_edges=2).items}
some = dict(list(plans.items())[:3])
print(
    json.dumps(
        {
            "overflow": figures(
                tasks.overflow(cap=50, each=1), lambda p: ("x", "max_tokens" if "e" in p[:3] else "stop")
            ),
            "schedule": figures(
                tasks.schedule(size=4, tasks=4, max_edges=2), lambda p: (f"So:\n{some.get(p, 'A=0')}", "stop")
            ),
            "vending": figures(tasks.vending(days=7, seeds=2), lambda p: ('{"tool": "wait"}', "stop")),
        }
    )
)
