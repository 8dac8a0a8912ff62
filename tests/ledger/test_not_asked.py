"""What is said where no question could be asked: budgets below one call, and endpoints where nobody answers."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from budgeteer import cli
from budgeteer.core import registry
from budgeteer.core.errors import ModelError
from budgeteer.models import openai as endpoint
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import Request
from budgeteer.models.openai import OpenAI
from helpers.cli_child import STRATEGIES, Slow, loader
from helpers.redis_server import free_port
from helpers.upstream import Upstream, answer

FIVE = ["chains:max_steps=2", "--limit", "5"]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, *STRATEGIES))
    made = Slow()
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", loader(made))
    return made


def needed(said: str) -> int:
    return int(said.partition("it needs ")[2].split()[0])


@pytest.mark.parametrize("strategy", ["direct", "budget-forcing", "self-consistency", "vote:n=3"])
def test_solve_with_a_budget_below_one_call_says_what_one_needs(model, strategy, capsys):
    command = ["solve", *FIVE, "--strategy", strategy, "--limit", "1", "--budget"]
    assert cli.main([*command, "3"]) == 1
    said = capsys.readouterr().err
    assert "none of 1 questions was asked: not one call fits" in said
    assert "instead of 3 all" in said
    assert "accuracy" not in said
    assert not model.requests
    enough = needed(said)
    assert cli.main([*command, str(enough - 1)]) == 1
    assert not model.requests
    cli.main([*command, str(enough)])
    assert model.requests


def test_solve_tells_how_many_were_not_asked(model, capsys):
    command = ["solve", "chains:min_steps=2,max_steps=9", "--limit", "12", "--strategy", "direct", "--budget"]
    assert cli.main([*command, "3"]) == 1
    enough = needed(capsys.readouterr().err)
    assert cli.main([*command, str(enough)]) == 0
    said = capsys.readouterr()
    missed = sum(not json.loads(line)["calls"] for line in said.out.splitlines())
    assert 0 < missed < 12
    assert f"{missed} of 12 questions were not asked: not one call fits" in said.err
    assert "questions   12" in said.err


def test_a_frontier_below_one_call_is_no_table_of_zeros(model, tmp_path, capsys):
    command = ["frontier", "direct", *FIVE, "--seeds", "1", "--out", str(tmp_path / "f"), "--budgets"]
    assert cli.main([*command, "2,3"]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert "direct@2: 5 of 5 questions were not asked: not one call fits" in said.err
    assert not (tmp_path / "f" / "report.html").exists()
    assert cli.main([*command, "2,200"]) == 0
    said = capsys.readouterr()
    assert "direct@2: 5 of 5 questions were not asked" in said.err
    assert "direct" in said.out


@pytest.mark.parametrize("command", [["solve", *FIVE, "--budget"], ["frontier", "direct", *FIVE, "--budgets"]])
def test_an_endpoint_where_nobody_answers_is_named(monkeypatch, tmp_path, capsys, command):
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(endpoint, "_LONGEST_WAIT", 0.001)
    url = f"http://127.0.0.1:{free_port()}/v1"
    more = ["--strategy", "direct"] if command[0] == "solve" else ["--out", str(tmp_path / "f")]
    assert cli.main([*command, "2k", *more, "--style", "chat", "--model", f"{url}#m"]) == 1
    said = capsys.readouterr()
    assert f"error: the endpoint {url}/ does not answer" in said.err
    assert "Connection" in said.err
    assert not said.out


def whole(body: object, request: Request):
    """The response of a model whose server ignores ``stream``."""

    async def step(server, writer, path, asked):
        await answer(writer, 200, body)

    async def ask():
        async with Upstream(step) as server:
            model = OpenAI(server.url, "m", capabilities=frozenset({"prefix"}))
            try:
                return await model.generate(request)
            finally:
                await model.aclose()

    return asyncio.run(ask())


USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def test_a_server_that_ignores_stream_is_read_whole():
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "42."}}
    found = whole({"choices": [message], "usage": USAGE}, Request(Chat((Message("user", "6 * 7"),)), 9))
    assert (found.choices[0].text, found.choices[0].tokens, found.choices[0].finish) == ("42.", 2, "stop")
    assert (found.usage.input, found.usage.output) == (7, 2)
    text = {"index": 0, "finish_reason": "length", "text": "42."}
    found = whole({"choices": [text], "usage": USAGE}, Request("6 * 7 =", 2))
    assert (found.choices[0].text, found.choices[0].finish, found.usage.output) == ("42.", "length", 2)


def test_a_server_that_sends_other_json_says_so():
    with pytest.raises(ModelError, match="JSON without choices"):
        whole({"detail": "no such model"}, Request(Chat((Message("user", "6 * 7"),)), 9))
