"""What a wrapped client lets through: every method of the installed openai package is metered, free, or refused."""

from __future__ import annotations

import asyncio
import inspect
import re

import pytest

openai = pytest.importorskip("openai")
import httpx2  # noqa: E402

from budgeteer.adapters.openai import wrap  # noqa: E402
from budgeteer.core.errors import BudgeteerError, BudgetExceeded, InvalidInput  # noqa: E402
from helpers.purse import Purse  # noqa: E402

FREE = {
    "/chat/completions/*", "/conversations", "/conversations/*", "/conversations/*/items", "/files", "/uploads",
    "/uploads/*/cancel", "/uploads/*/complete", "/uploads/*/parts", "/moderations", "/responses/input_tokens",
    "/vector_stores", "/vector_stores/*", "/vector_stores/*/files", "/vector_stores/*/files/*",
    "/vector_stores/*/file_batches", "/vector_stores/*/file_batches/*/cancel", "/vector_stores/*/search",
    "/responses/*/cancel", "/batches/*/cancel", "/fine_tuning/jobs/*/cancel", "/threads/*/runs/*/cancel",
    "/evals/*/runs/*/cancel",
}  # fmt: skip
"""POSTs that generate nothing, known by reading what each is for; one that the package adds has to be refused."""
METERED = {"/chat/completions", "/completions", "/responses", "/embeddings"}
BROKE = 5


def made(sync, seen, base="http://host/v1", purse=None, **more):
    def answer(request):
        seen.append((request.method, request.url.path))
        return httpx2.Response(404 if request.method == "GET" else 200, json={})  # who waits for a state gives up

    transport = httpx2.MockTransport(answer)
    if sync:
        inner = httpx2.Client(transport=transport)
        return wrap(openai.OpenAI(base_url=base, api_key="x", http_client=inner, max_retries=0, **more), purse)
    inner = httpx2.AsyncClient(transport=transport)
    return wrap(openai.AsyncOpenAI(base_url=base, api_key="x", http_client=inner, max_retries=0, **more), purse)


def resources(client):
    """Every resource of a client, with its path of names."""
    base = (openai.resources.chat.chat.SyncAPIResource, openai.resources.chat.chat.AsyncAPIResource)
    found, left = {}, [("", client)]
    while left:
        name, one = left.pop()
        for attribute in dir(type(one)):
            if attribute.startswith("_") or attribute.startswith("with_"):
                continue
            inner = getattr(one, attribute)
            if isinstance(inner, base) and f"{name}.{attribute}" not in found:
                found[f"{name}.{attribute}"] = inner
                left.append((f"{name}.{attribute}", inner))
    return found


def methods(client):
    for name, resource in resources(client).items():
        for attribute, function in inspect.getmembers(type(resource), inspect.isroutine):
            if not attribute.startswith("_") and attribute not in ("with_raw_response", "with_streaming_response"):
                yield f"{name}.{attribute}", getattr(resource, attribute), function


def arguments(function):
    """Something for every parameter that a call needs; ids are "x1"."""
    found = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        kind = str(parameter.annotation)
        if parameter.default is parameter.empty or name in ("max_tokens", "max_output_tokens"):
            is_list = name in ("messages", "input", "include", "inputs") or re.match(r"(Iterable|List|Sequence)", kind)
            found[name] = 5 if name.startswith("max_") else [] if is_list else b"x" if "FileTypes" in kind else "x1"
    return found


@pytest.mark.parametrize("sync", [True, False])
def test_every_method_is_metered_free_or_refused(sync):
    seen, what = [], {}
    client = made(sync, seen, purse=Purse(all=BROKE))

    async def call(method, function):
        result = method(**arguments(function))
        if inspect.isawaitable(result):
            result = await result
        for enter in ("__enter__", "__aenter__"):
            if hasattr(result, enter):
                entered = getattr(result, enter)()
                if inspect.isawaitable(entered):
                    await entered

    async def main():
        for name, method, function in methods(client):
            seen.clear()
            try:
                await asyncio.wait_for(call(method, function), 5)
            except BudgetExceeded:
                what[name] = "metered"
            except (InvalidInput, BudgeteerError) as error:
                what[name] = "metered" if "max_input" in str(error) or "cap" in str(error) else "refused"
            except Exception as error:
                what[name] = f"failed: {error!r}"[:200]
            if name.endswith(".connect"):
                assert what.get(name) == "refused", (name, what.get(name))
            for verb, path in seen:
                assert verb in ("GET", "DELETE") or re.sub(r"/x1(?=/|$)", "/*", path[3:]) in FREE, (name, verb, path)
                what[name] = "free"

    asyncio.run(main())
    counts = {kind: sum(value == kind for value in what.values()) for kind in ("metered", "free", "refused")}
    assert what[".chat.completions.create"] == what[".responses.create"] == what[".embeddings.create"] == "metered"
    assert what[".chat.completions.parse"] == "metered"
    assert what[".images.generate"] == what[".realtime.connect"] == what[".beta.realtime.connect"] == "refused"
    assert what[".realtime.client_secrets.create"] == what[".batches.create"] == "refused"
    assert what[".files.create"] == what[".responses.cancel"] == what[".moderations.create"] == "free"
    assert counts["metered"] >= 5
    assert counts["free"] > 30
    assert counts["refused"] > 30


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("azure", [True, False])
def test_websockets_are_refused(sync, azure):
    kinds = {
        (1, 1): openai.AzureOpenAI,
        (1, 0): openai.AsyncAzureOpenAI,
        (0, 1): openai.OpenAI,
        (0, 0): openai.AsyncOpenAI,
    }
    more = {"azure_endpoint": "http://h", "api_version": "1"} if azure else {"base_url": "http://h/v1"}
    client = wrap(kinds[azure, sync](api_key="x", **more), Purse(all=9))
    client = client.with_options(websocket_base_url="ws://h/v1")

    async def enter(manager):
        return manager.__enter__() if sync else await manager.__aenter__()

    found = [r.connect for r in resources(client).values() if hasattr(r, "connect")]
    assert len(found) >= 4
    for connect in found:
        parameters = inspect.signature(connect).parameters.items()
        needed = {name: "m" for name, p in parameters if name == "model" or p.default is inspect.Parameter.empty}
        with pytest.raises(InvalidInput, match="WebSocket"):
            asyncio.run(enter(connect(**needed)))


@pytest.mark.parametrize(
    "base", ["http://host/files/v1", "http://host/conversations", "http://host/vector_stores/a/v1/"]
)
def test_a_base_url_that_looks_free_is_not(base):
    seen, purse = [], Purse(all=BROKE)
    client = made(True, seen, base, purse)
    with pytest.raises(BudgetExceeded):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=50)
    for path in ("/images/generations", "/anything", "/files/../chat/completions", "/conversations/%2e%2e/items",
                 "http://elsewhere/files", "/chat/completions/../../images"):  # fmt: skip
        with pytest.raises(InvalidInput, match=r"is not metered|no cap"):  # the client resolves some dots itself
            client.post(path, body={}, cast_to=object)
    with pytest.raises(InvalidInput, match=r"PUT .* is not metered"):
        client.put("/chat/completions", body={}, cast_to=object)
    assert seen == []
    client.conversations.create()
    assert seen == [("POST", base[11:].rstrip("/") + "/conversations")]


def test_azure_deployments_are_metered_and_their_other_routes_found():
    seen, purse = [], Purse(all=BROKE)
    client = openai.AzureOpenAI(
        api_key="x", azure_endpoint="http://h/p", azure_deployment="d", api_version="1",
        http_client=httpx2.Client(transport=httpx2.MockTransport(
            lambda request: seen.append(request.url.path) or httpx2.Response(200, json={}))),
    )  # fmt: skip
    mine = wrap(client, purse)
    with pytest.raises(BudgetExceeded):
        mine.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=50)
    with pytest.raises(InvalidInput, match="is not metered"):
        mine.images.generate(prompt="x", model="m")
    assert seen == []
    mine.files.create(file=b"x", purpose="batch")
    assert seen == ["/p/openai/files"]


@pytest.mark.parametrize("sync", [True, False])
def test_a_wrapped_client_is_wrapped_once(sync):
    seen, purse = [], Purse(all=BROKE)
    client = made(sync, seen, purse=purse)
    with pytest.raises(InvalidInput, match="wrapped already"):
        wrap(client, purse)
    again = client.with_options(max_retries=3).copy(timeout=1).with_options(http_client=client._client)
    with pytest.raises(InvalidInput, match="wrapped already"):
        wrap(again, purse)
    with pytest.raises(InvalidInput, match="keeps its metered HTTP client"):
        client.with_options(http_client=(httpx2.Client if sync else httpx2.AsyncClient)())
    moved = again.with_options(base_url="http://other/v2")
    for one in (again, moved):

        async def call(one=one):
            result = one.completions.create(model="m", prompt="Hi", max_tokens=50)
            return result if sync else await result

        with pytest.raises(BudgetExceeded):
            asyncio.run(call())
    assert (purse.refused, seen) == (2, [])
    assert isinstance(client, openai.OpenAI if sync else openai.AsyncOpenAI)


def test_a_class_of_wrapped_clients_makes_no_client_that_is_not_metered():
    for sync in (True, False):
        client = made(sync, [], purse=Purse(all=BROKE))
        with pytest.raises(InvalidInput, match="not metered"):
            type(client)(base_url="http://host/v1", api_key="x")
        with pytest.raises(InvalidInput, match="not metered"):
            type(client)(api_key="x", http_client=(httpx2.Client if sync else httpx2.AsyncClient)())
        assert type(client.with_options(timeout=3)) is type(client)


@pytest.mark.parametrize(
    "path",
    [
        "/vector_stores/x\\..\\..\\chat/completions", "/vector_stores/%252e%252e/chat/completions",
        "/vector_stores/a/anything", "/vector_stores/a;b/search", "/vector_stores/a/files/%2e%2e",
        "/chat/completions/a%5c..", "/conversations/a%20b", "/files/x", "/uploads/../cancel",
    ],
)  # fmt: skip
def test_a_path_that_some_server_may_read_otherwise_is_not_free(path):
    seen = []
    client = made(True, seen, purse=Purse(all=BROKE))
    with pytest.raises(InvalidInput, match="is not metered"):
        client.post(path, body={}, cast_to=object)
    assert seen == []


def redirecting(sync, target, status, seen, purse):
    """A client whose first request is answered by a redirect."""

    def answer(request):
        seen.append((request.method, str(request.url)))
        if len(seen) == 1:
            return httpx2.Response(status, headers={"location": target})
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        return httpx2.Response(200, json={"choices": [{"message": {"content": "Hi"}}], "usage": usage})

    kind = httpx2.Client if sync else httpx2.AsyncClient
    inner = kind(transport=httpx2.MockTransport(answer), follow_redirects=True)
    which = openai.OpenAI if sync else openai.AsyncOpenAI
    return wrap(which(base_url="http://host/v1", api_key="x", http_client=inner, max_retries=0), purse)


ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/files", "/v1/chat/completions"), ("/embeddings", "/v1/chat/completions"),
        ("/completions", "/v1/chat/completions"), ("/chat/completions", "/v1/images/generations"),
        ("/files", "http://other/v1/responses"),
    ],
)  # fmt: skip
def test_a_redirect_to_another_route_is_not_followed(sync, path, target):
    seen, purse = [], Purse(all=9000)
    client = redirecting(sync, target, 307, seen, purse)

    async def call():
        result = client.post(path, body={**ASK, "input": "x", "prompt": "x"}, cast_to=object)
        return result if sync else await result

    with pytest.raises(InvalidInput, match="was redirected"):
        asyncio.run(call())
    assert [url for _, url in seen] == [f"http://host/v1{path}"]
    assert purse.left == {"all": 9000}  # a redirect is no answer: nothing ran


@pytest.mark.parametrize("sync", [True, False])
def test_a_redirect_to_the_same_route_is_followed_and_charged_once(sync):
    for target in ("http://other/v2/chat/completions", "/v1/chat/completions/"):
        seen, purse = [], Purse(all=9000)
        client = redirecting(sync, target, 308, seen, purse)

        async def call(client=client):
            result = client.chat.completions.create(**ASK)
            return result if sync else await result

        assert asyncio.run(call()).usage.total_tokens == 14
        assert [method for method, _ in seen] == ["POST", "POST"]
        assert purse.left == {"all": 9000 - 14}
    seen = []
    client = redirecting(sync, "/v1/chat/completions", 303, seen, Purse(all=9000))

    async def store():
        result = client.post("/files", body={}, cast_to=object)
        return result if sync else await result

    asyncio.run(store())
    assert [method for method, _ in seen] == ["POST", "GET"]
