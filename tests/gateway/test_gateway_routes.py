"""Routes that make no text: each is reserved by what bounds it, and charged by what its answer tells; or refused."""

from __future__ import annotations

import io
import wave

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.gateway.routes import ROUTES  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.other_routes import OTHERS  # noqa: E402
from helpers.upstream import Upstream, error  # noqa: E402

PRICES = """
[models."cohere".fees]
search_unit = 0.002
[models."jina"]
input = 0.02
output = 0
[models."silent"]
input = 1
output = 0
[models."checker"]
input = 1
output = 0
[models."gpt-image-1"]
input = 5
output = 40
[models."gpt-image-1".services.images]
input = 5
output = 40
[models."gpt-image-1".services.images.fees]
picture_token = 0.000005
[models."dall-e-3".fees]
image = 0.12
[models."standard/1024x1024/dall-e-3".fees]
image = 0.04
[models."tts-1".fees]
character = 0.000015
[models."gpt-4o-mini-tts"]
input = 0.6
output = 12
[models."whisper-1".fees]
second = 0.0001
[models."gpt-4o-transcribe"]
input = 2.5
output = 10
audio_input = 6
[models."claude"]
input = 3
output = 15
"""
SERVED = [*OTHERS, "gpt-4o-mini-tts", "absent", "unpriced"]
MICRO = 10**6
"""Pico-dollars of a millionth of a dollar."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routes")
    (folder / "prices.toml").write_text(PRICES)
    steps = {**OTHERS, "absent": error(404), "gpt-4o-mini-tts": error(500), "unpriced": OTHERS["silent"]}
    text = toml([], kinds='["all", "money"]').replace("shipped = false", 'shipped = false\nfiles = ["prices.toml"]')
    with Upstream(**steps) as upstream:
        one = toml([("one", upstream.url, SERVED, "")]).partition("[[upstreams]]")[2]
        with Running(folder, text + "\n[[upstreams]]" + one) as running:
            running.upstream = upstream
            yield running


def call(running, route, body, path="acme", limits=("$1",), headers=None):
    """(status, body, the request's record) of one request with a key of its own account."""
    key = running.key(*limits, path=path)
    status, _, said = running.call(f"/v1/{route}", body, key, headers=headers)
    return status, said, running.settled()[-1]


def form(fields, boundary="x1"):
    """A form and its content type; files are (name, bytes)."""
    pieces = []
    for name, value in fields:
        file = f'; filename="{value[0]}"' if isinstance(value, tuple) else ""
        data = value[1] if isinstance(value, tuple) else value.encode()
        pieces.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data)
    content = b"\r\n".join([*pieces, f"--{boundary}--\r\n".encode()])
    return content, {"content-type": f"multipart/form-data; boundary={boundary}"}


def sound(seconds, rate=8000):
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(2 * rate * seconds))
    return file.getvalue()


def test_what_is_free_passes_and_is_charged_nothing(running):
    body = {"model": "counts", "messages": [{"role": "user", "content": "Hi"}]}
    status, said, record = call(running, "messages/count_tokens", body, "free", ["$0"], {"anthropic-version": "x"})
    assert (status, said) == (200, {"input_tokens": 17})
    assert record["units"] == {"all": 0, "money": 0, "requests": 1, "parallel": 0}
    assert record["operation"] == "count_tokens"
    assert running.upstream.requests[-1][0] == "/v1/messages/count_tokens"
    status, said, record = call(running, "moderations", {"input": "Hi"}, "free2", ["$0"])
    assert status == 200
    assert record["units"]["money"] == 0
    assert record["estimated"] == 0
    assert running.upstream.bodies[-1] == {"input": "Hi", "model": "omni-moderation-latest"}


def test_what_is_free_counts_as_a_request(running):
    key = running.key("requests:1/1h", path="often")
    body = {"model": "counts", "messages": [{"role": "user", "content": "Hi"}]}
    assert running.call("/v1/messages/count_tokens", body, key)[0] == 200
    assert running.call("/v1/messages/count_tokens", body, key)[0] == 429


def test_a_moderation_of_another_provider_is_charged_by_its_tokens(running):
    status, _, record = call(running, "moderations", {"model": "checker", "input": "Hi"}, "moderated")
    assert status == 200
    assert record["units"] == {"all": 9, "money": 9 * MICRO, "requests": 1, "parallel": 0}
    assert record["reserved"]["money"] > 9 * MICRO


@pytest.mark.parametrize(
    ("model", "documents", "reserved", "charged"),
    [
        ("cohere", ["short"] * 101, 2 * 2000 * MICRO, 2 * 2000 * MICRO),
        (
            "cohere",
            ["x" * 4990] * 100,
            10 * 2000 * MICRO,
            2 * 2000 * MICRO,
        ),  # a chunk has 499 bytes beside the query
        ("jina", ["abcd", "abcdef"], (4 + 6 + 2 * (1 + 16) + 10) * MICRO // 50, 40 * MICRO // 50),
        ("silent", ["abcd", "abcdef"], (4 + 6 + 2 * (1 + 16) + 10) * MICRO, (4 + 6 + 2 * (1 + 16) + 10) * MICRO),
    ],
)
def test_rerank(running, model, documents, reserved, charged):
    body = {"model": model, "query": "q", "documents": documents, "top_n": 1}
    status, said, record = call(running, "rerank", body, "ranked")
    assert status == 200, said
    assert (record["reserved"]["money"], record["units"]["money"]) == (reserved, charged)
    assert record["estimated"] == int(model == "silent")


def test_documents_that_nothing_bounds_are_refused(running):
    body = {"model": "jina", "query": "q", "documents": [{"image": "https://example.com/a.png"}]}
    status, said, _ = call(running, "rerank", body, "ranked")
    assert (status, said["error"]["code"]) == (400, "not_bounded")
    status, said, record = call(
        running, "rerank", {"model": "cohere", "query": "q", "documents": ["a"]}, "poor", ["$0.001"]
    )
    assert status == 402
    assert record["requested"] == 2000 * MICRO


def test_pictures_by_their_tokens(running):
    body = {"model": "gpt-image-1", "prompt": "a cat", "size": "1024x1024", "quality": "medium"}
    status, said, record = call(running, "images/generations", body, "drawn")
    assert status == 200, said
    tokens = -(-(48**2 * (2_000_000 + 1024**2)) // 4_000_000)
    assert tokens == 1756  # more than the 1,056 of this model, as many as its successor's
    assert record["reserved"]["money"] == (15 * 5 + tokens * 40) * MICRO
    assert record["units"]["money"] == (10 * 5 + 20 * 10 + 1056 * 40) * MICRO
    assert record["output"] == 1056
    status, said, record = call(
        running, "images/generations", {**body, "size": "auto", "quality": "auto", "n": 2}, "drawn", ["$3"]
    )
    assert record["reserved"]["money"] == (15 * 5 + 2 * -(-(96**2 * 10_294_400) // 4_000_000) * 40) * MICRO
    status, said, record = call(running, "images/generations", {**body, "stream": True, "partial_images": 1}, "drawn")
    assert b"image_generation.completed" in said
    assert record["units"]["money"] == (10 * 5 + 20 * 10 + 1056 * 40) * MICRO


def test_pictures_by_the_piece_at_the_price_of_their_size(running):
    body = {"model": "dall-e-3", "prompt": "a cat", "n": 1, "size": "1024x1024", "quality": "standard"}
    assert call(running, "images/generations", body, "pieces")[2]["units"]["money"] == 40_000 * MICRO
    record = call(running, "images/generations", {**body, "size": "1792x1024"}, "pieces")[2]
    assert record["units"]["money"] == record["reserved"]["money"] == 120_000 * MICRO


def test_edits_of_pictures(running):
    content, headers = form([("model", "gpt-image-1"), ("prompt", "a cat"), ("image[]", ("a.png", b"\x89PNG\r\n--x"))])
    status, said, record = call(running, "images/edits", content, "edited", ["$5"], headers)
    assert status == 200, said
    assert running.upstream.bodies[-1] == {
        "model": "gpt-image-1",
        "prompt": "a cat",
        "image[]": ("a.png", b"\x89PNG\r\n--x"),
    }
    assert record["reserved"]["money"] == (15 * 5 + 48_169 * 10 + 23_719 * 40) * MICRO
    assert record["units"]["money"] == (10 * 5 + 20 * 10 + 1056 * 40) * MICRO
    assert not record["estimated"]


def test_speech_by_its_characters(running):
    body = {"model": "tts-1", "input": "Hällo 🙂", "voice": "alloy"}
    status, said, record = call(running, "audio/speech", body, "spoken")
    assert status == 200
    assert said == b"ID3" + bytes(500)
    assert record["units"]["money"] == 8 * 15 * MICRO
    assert not record["estimated"]
    status, said, _ = call(running, "audio/speech", {**body, "model": "gpt-4o-mini-tts"}, "spoken")
    assert status == 400
    assert "fees.character = DOLLARS" in said["error"]["message"]


def test_sound_by_its_seconds(running):
    content, headers = form([("model", "whisper-1"), ("file", ("a.wav", sound(20)))])
    status, said, record = call(running, "audio/transcriptions", content, "heard", headers=headers)
    assert status == 200, said
    assert record["reserved"]["money"] == 21 * 100 * MICRO  # its header counts as sound
    assert record["units"]["money"] == 12 * 100 * MICRO
    assert running.upstream.bodies[-1]["file"] == ("a.wav", sound(20))
    content, headers = form([("model", "silent"), ("file", ("a.bin", b"no sound"))])
    status, said, _ = call(running, "audio/translations", content, "heard", headers=headers)
    assert status == 400
    assert "wav" in said["error"]["message"]


@pytest.mark.parametrize("streams", ["false", "true"])
def test_sound_by_its_tokens(running, streams):
    content, headers = form([("model", "gpt-4o-transcribe"), ("file", ("a.wav", sound(20))), ("stream", streams)])
    status, said, record = call(running, "audio/transcriptions", content, "heard", headers=headers)
    assert status == 200, said
    assert record["reserved"]["money"] == (220 * 6 + 1050 * 10) * MICRO
    assert record["units"]["money"] == (120 * 6 + 8 * 10) * MICRO
    assert not record["estimated"]


def test_what_has_no_price_is_refused(running):
    status, said, _ = call(running, "rerank", {"model": "unpriced", "query": "q", "documents": ["a"]}, "unpriced")
    assert (status, said["error"]["code"]) == (400, "no_price")
    content, headers = form([("model", "unpriced"), ("file", ("a.wav", sound(2)))])
    status, said, _ = call(running, "audio/transcriptions", content, "unpriced", headers=headers)
    assert (status, said["error"]["code"]) == (400, "no_price")
    for model in ("cohere", "tts-1", "whisper-1"):  # what has a price by the use has none for a chat
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        status, said, _ = call(running, "chat/completions", body, "unpriced")
        assert (status, said["error"]["code"]) == (400, "no_price"), model


def test_an_upstream_without_the_route_is_named(running):
    body = {"model": "absent", "messages": [{"role": "user", "content": "Hi"}]}
    status, said, record = call(running, "messages/count_tokens", body, "lacking")
    assert status == 404, said
    assert "does not serve this route" in said["error"]["message"]
    assert record["reason"] == "route_not_served"
    assert running.admin("upstreams")["upstreams"][0]["healthy"]


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ([("model", "whisper-1"), ("model", "whisper-1"), ("file", ("a", b""))], {}),
        ([("model", "whisper-1"), ("file", ("a", b"")), ("url", "http://10.0.0.1/a.wav")], {}),
        ([("model", "whisper-1"), ("cover", ("a", b""))], {}),
        ([("model", "whisper-1"), ("file", ("a", b""))], {"content-type": "multipart/form-data; boundary=other"}),
        ([("model", "whisper-1"), ("file", ("a", b""))], {"content-type": "application/json"}),
    ],
)
def test_forms_that_servers_may_read_otherwise_are_refused(running, fields, headers):
    content, kind = form(fields)
    sent = len(running.upstream.requests)
    status, said, _ = call(running, "audio/transcriptions", content, "formed", headers=kind | headers)
    assert status == 400, said
    assert len(running.upstream.requests) == sent


@pytest.mark.parametrize(
    "route", ["batches", "files", "messages/batches", "realtime/sessions", "images/variations", "x"]
)
def test_what_is_not_served_says_what_to_do(running, route):
    status, _, said = running.call(f"/v1/{route}", {}, running.key(path="elsewhere"))
    assert status == 404
    assert "use" in said["error"]["message"] or "send" in said["error"]["message"]


def test_every_route_is_described(running):
    paths = running.call("/openapi.json")[2]["paths"]
    for route, about in ROUTES.items():
        assert about.bounded in paths[f"/v1/{route}"]["post"]["description"]
    assert "multipart/form-data" in paths["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]


def test_the_clients(running):
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    client = openai.OpenAI(base_url=running.url, api_key=running.key("$20", path="clients"), max_retries=0)
    assert client.moderations.create(input="Hi").results[0].flagged is False
    assert client.images.generate(model="gpt-image-1", prompt="a cat", n=1).usage.output_tokens == 1056
    assert (
        client.images.edit(model="gpt-image-1", prompt="a cat", image=("a.png", b"\x89PNG")).data[0].b64_json == "aGk="
    )
    assert client.audio.speech.create(model="tts-1", input="Hi", voice="alloy").content[:3] == b"ID3"
    file = ("a.wav", sound(3))
    assert client.audio.transcriptions.create(model="whisper-1", file=file).text == "hi"
    *_, last = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True)
    assert last.usage.output_tokens == 8
    assert client.audio.translations.create(model="whisper-1", file=file).text == "hi"
    other = anthropic.Anthropic(base_url=running.root, api_key=running.key("$1", path="clients"), max_retries=0)
    counted = other.messages.count_tokens(model="counts", messages=[{"role": "user", "content": "Hi"}])
    assert counted.input_tokens == 17
    assert all(record["status"] == 200 for record in running.settled() if record["path"].startswith("clients"))
