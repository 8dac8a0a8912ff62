"""Vertex through LiteLLM: a token of a service account from a scripted server, and bills as of the other dialects."""

from __future__ import annotations

import json

import pytest

for needed in (
    "aiohttp",
    "orjson",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "litellm",
    "google.auth",
    "cryptography",
):
    pytest.importorskip(needed)

from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: E402

from helpers.dialects import DIALECTS, Said  # noqa: E402
from helpers.gateway_fixture import Running  # noqa: E402
from helpers.upstream import Upstream, answer  # noqa: E402

BODIES = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20},
    "messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20},
    "responses": {"input": "Hi", "max_output_tokens": 20},
}
GEMINI = DIALECTS["gemini"]


def service_account(url):
    """The file of a service account, whose tokens come from this address."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    about = {"type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": pem}
    return json.dumps({**about, "client_email": "a@p.example", "client_id": "1", "token_uri": url})


def config(url, credentials):
    return f"""
[server]
port = 0
[ledger]
url = "memory:"
kinds = ["all"]
[prices]
shipped = false
[logging]
json = false
[[upstreams]]
name = "vertex"
driver = "litellm"
provider = "vertex"
base_url = "{url}"
[upstreams.provider_options]
vertex_project = "p"
vertex_location = "europe-west1"
vertex_credentials = "{credentials}"
[[upstreams.models]]
name = "m"
upstream = "gemini-2.5-flash"
max_output = 40
"""


async def gives_a_token(server, writer, path, body):
    await answer(writer, 200, {"access_token": "ya29.scripted", "expires_in": 3600, "token_type": "Bearer"})


@pytest.fixture
def gate(tmp_path):
    with Upstream(gives_a_token) as tokens, Upstream(GEMINI.says(Said())) as vertex:
        credentials = tmp_path / "account.json"
        credentials.write_text(service_account(tokens.url.removesuffix("/v1") + "/token"))
        with Running(tmp_path, config(vertex.url.removesuffix("/v1"), credentials)) as running:
            yield running, vertex


@pytest.mark.parametrize("route", BODIES)
def test_what_is_billed_is_charged_and_a_cut_stream_no_less(gate, route):
    running, vertex = gate
    cut = Said(words=8, thought=4, cut=3)
    for said, stream in ((Said(thought=4), False), (Said(thought=4), True), (cut, True)):
        vertex.script = (GEMINI.says(said),)
        billed = vertex.billed
        key = running.key("9000")
        status, _, found = running.call(f"/v1/{route}", {"model": "m", "stream": stream, **BODIES[route]}, key)
        assert status == 200, found
        record, billed = running.settled()[-1], vertex.billed - billed
        spent = record["units"]["all"]
        if said.cut is None:
            assert (record["outcome"], record["estimated"], spent) == ("ok", 0, billed)
        else:
            assert (record["outcome"], record["estimated"]) == ("cut", 1)
            assert spent >= billed == said.read + said.thought + 3
    path, _ = vertex.requests[-1]
    assert "/projects/p/locations/europe-west1/publishers/google/models/gemini-2.5-flash:streamGenerateContent" in path
    assert vertex.headers[-1]["authorization"] == "Bearer ya29.scripted"


def test_credentials_that_are_not_there_cost_nothing_and_are_not_told_to_clients(tmp_path, caplog):
    with (
        Upstream(GEMINI.says(Said())) as vertex,
        Running(tmp_path, config(vertex.url.removesuffix("/v1"), tmp_path / "none.json")) as running,
    ):
        key = running.key("9000")
        status, _, found = running.call("/v1/chat/completions", {"model": "m", **BODIES["chat/completions"]}, key)
        (record,) = running.settled(1)
    assert (status, found["error"]["code"]) == (502, "upstream_refused")
    assert "none.json" not in str(found)
    assert "none.json" in caplog.text
    assert record["units"]["all"] == 0
    assert not vertex.requests
