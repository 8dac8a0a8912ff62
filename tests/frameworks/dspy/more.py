"""DSPy: parts of modules, streams, the cache, several answers, and modules that ask elsewhere."""

import dspy
from cases import binary, run, search
from scenarios import BASE_URL, MODEL

from budgeteer.adapters.dspy import budgeted, spending

QUESTION = "question -> answer"


class Parts(dspy.Module):
    def __init__(self):
        super().__init__()
        self.agent = dspy.ReAct(QUESTION, tools=[search])
        self.last = dspy.Predict("text -> answer")
        self.agent._compiled = True  # as optimisers leave a part that is not to be changed

    def forward(self, question):
        return self.last(text=self.agent(question=question).answer)


def lm(**options):
    return dspy.LM(f"openai/{MODEL}", api_base=BASE_URL, api_key="x", **{"cache": False, **options})


def within(make, budget, times=1, model=None):
    with dspy.context(lm=model or lm()):
        module = spending(make(), budget)
        spending(module, budget)  # a second time changes nothing
        for _ in range(times):
            found = module(question="do: search").answer
        return found


def wrapped(budget):
    """An agent whose model was put on the budget before: its tools are counted, once."""
    module = dspy.ReAct(QUESTION, tools=[search])
    module.react.lm = budgeted(lm(), budget, step=True)
    with dspy.context(lm=lm()):
        return spending(spending(module, budget), budget)(question="do: search").answer


async def stream(budget):
    with dspy.context(lm=lm()):
        module = spending(dspy.ReAct(QUESTION, tools=[search]), budget)
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        pieces = [piece async for piece in dspy.streamify(module, stream_listeners=[listener])(question="do: search")]
    return pieces[-1].answer


def better(module):
    return dspy.BestOfN(module, N=3, reward_fn=lambda arguments, found: 0.0, threshold=1.0)


def parallel(budget):
    with dspy.context(lm=lm()):
        module = spending(dspy.Predict(QUESTION), budget)
        every = dspy.Parallel(num_threads=8, max_errors=200, disable_progress_bar=True)
        found = every([(module, {"question": f"Number {n}?"}) for n in range(90)])
    return sum(one is not None for one in found)


def elsewhere(budget):
    """RLM's second model, and a Refine, whose advice asks the configured model."""
    with dspy.context(lm=budgeted(lm(), budget)):
        refined = spending(dspy.Refine(dspy.Predict(QUESTION), 2, lambda arguments, found: 0.0, 1.0), budget)
        refined(question="Hello")
    with dspy.context(lm=lm()):
        module = spending(dspy.RLM(QUESTION, tools=[search]), budget)
        module._user_tools["search"](query="x")
        return module.sub_lm("Hello")[0]


CASES = {
    "parts": lambda budget: within(Parts, budget),
    "wrapped": wrapped,
    "stream": stream,
    "binary": lambda budget: within(lambda: dspy.ReAct(QUESTION, tools=[binary]), budget),
    "cached": lambda budget: within(lambda: dspy.Predict(QUESTION), budget, 2, lm(cache=True)),
    "several": lambda budget: within(lambda: dspy.Predict(QUESTION, n=3), budget),
    "best of n": lambda budget: within(lambda: better(dspy.ChainOfThought(QUESTION)), budget),
    "parallel": parallel,
    "elsewhere": elsewhere,
    "refused": lambda budget: within(lambda: dspy.CodeAct(QUESTION, tools=[search]), budget),
    "refused, too": lambda budget: within(lambda: dspy.ReActV2(QUESTION, tools=[search]), budget),
    "advice": lambda budget: within(lambda: dspy.Refine(dspy.Predict(QUESTION), 2, lambda a, f: 0.0, 1.0), budget),
}

if __name__ == "__main__":
    run(CASES)
