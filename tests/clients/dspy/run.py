"""DSPy."""

import asyncio

import dspy
from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, WHO, add, called, refused, run, streamed
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


class Who(dspy.Signature):
    """Name a person."""

    question: str = dspy.InputField()
    person: Person = dspy.OutputField()


def model(key):
    return dspy.LM(f"openai/{MODEL}", api_base=BASE_URL, api_key=key, cache=False)


dspy.configure(lm=model(KEY))


def chat():
    return {"text": dspy.Predict("question -> answer")(question=HELLO).answer}


def stream():
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    ask = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])

    async def pieces():
        found = [piece async for piece in ask(question=HELLO)]
        assert found.pop().answer
        return [piece.chunk for piece in found]

    found = streamed(asyncio.run(pieces()))
    return {**found, "text": found["text"].strip()}


def tools():
    return {"text": dspy.ReAct("question -> answer", tools=[add])(question=SUM).answer, "called": called}


def structured():
    with dspy.context(adapter=dspy.JSONAdapter()):
        return dspy.Predict(Who)(question=WHO).person.model_dump()


def spent():
    with dspy.context(lm=model(SPENT_KEY)):
        return refused(lambda: dspy.Predict("question -> answer")(question=HELLO))


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent)
