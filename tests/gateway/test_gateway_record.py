"""A field of a record is one line: store, JSON, OpenAPI, CSV, log and pages follow from it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.gateway import record  # noqa: E402
from budgeteer.gateway.record import AttemptRecord, Record  # noqa: E402

DOCS = Path(__file__).resolve().parents[2] / "docs" / "gateway.md"
LINE = '    region: str = _label("Where the upstream is", "region", heading="where")\n'
CHILD = """
import asyncio, csv, io, sqlite3, sys, types

from budgeteer.gateway import store as before  # of the version without the field
before.SqliteStore("old.db").close()
for name in [name for name in sys.modules if name.startswith("budgeteer.gateway")]:
    del sys.modules[name]

import budgeteer.gateway
source = open(sys.argv[1], encoding="utf-8").read()
module = types.ModuleType("budgeteer.gateway.record")
sys.modules[module.__name__] = budgeteer.gateway.record = module
exec(compile(source, "record.py", "exec"), module.__dict__)

from budgeteer.gateway.config import load
from budgeteer.gateway.app import Gateway
from budgeteer.gateway.openapi import document
from budgeteer.gateway.record import Record
from budgeteer.gateway.store import SqliteStore

stored = SqliteStore("old.db")
stored.add([Record(id="r1", region="here"), Record(id="r2")])
assert [row["region"] for row in stored.select("SELECT region FROM records ORDER BY n")] == ["here", ""]
assert document()["components"]["schemas"]["Record"]["properties"]["region"]["description"] == "Where the upstream is"

gateway = Gateway(load("gateway.toml", {"ADMIN": "a" * 16}), store=stored)

async def get(path):
    pieces = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        pieces.append(message.get("body", b""))
    path, _, query = path.partition("?")
    cookie = gateway._access.begin("a" * 16)
    headers = [(b"authorization", b"Bearer " + b"a" * 16),
               (b"cookie", f"budgeteer={cookie}".encode())]
    await gateway({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
                   "path": path, "root_path": "", "query_string": query.encode(), "headers": headers, "client": None,
                   "server": None}, receive, send)
    return b"".join(pieces).decode()

async def main():
    assert \'"region":"here"\' in await get("/admin/api/requests/r1")
    assert (await get("/admin/api/requests?region=here")).count(\'"id"\') == 1
    assert \'"region":"here","units"\' in await get("/admin/api/spend?by=region&kind=requests")
    rows = list(csv.DictReader(io.StringIO(await get("/admin/api/requests.csv"))))
    assert [row["region"] for row in rows] == ["", "here"], rows
    assert "<dt>region</dt><dd>here</dd>" in await get("/requests/r1")
    assert "<th scope=\\"col\\">where</th>" in await get("/requests")
    await gateway.proxy.upstreams.close()

asyncio.run(main())
print("all five")
"""
TOML = """
[server]
admin_key_env = "ADMIN"
[ledger]
url = "memory:"
[[upstreams]]
name = "one"
base_url = "http://127.0.0.1:1/v1"
[[upstreams.models]]
name = "echo"
"""


def test_a_new_field_is_one_line(tmp_path):
    text = Path(record.__file__).read_text(encoding="utf-8")
    place = "    operation: str = _label("
    assert text.count(place) == 1
    (tmp_path / "record.py").write_text(text.replace(place, LINE + place), encoding="utf-8")
    (tmp_path / "gateway.toml").write_text(TOML)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "record.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "all five\n", done.stderr


def test_a_record_survives_json_and_rows():
    call = AttemptRecord(upstream="a", units={"all": 3})
    one = Record(id="r", at=5, units={"all": 3}, calls=(call,), first_ms=None)
    assert Record.of_json(one.as_json()) == one
    assert Record.of_row(dict(zip(record.NAMES, one.as_row(), strict=True))) == one


def test_every_field_says_what_it_is_and_is_in_the_documentation():
    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    for kind, opening in ((Record, "A record is `{"), (AttemptRecord, "a call is an attempt, `{")):
        listed = text.partition(opening)[2].partition("}`")[0]
        names = [name.partition(":")[0] for name in listed.replace("{kind: n}", "").split(", ")]
        assert names == [field.name for field in fields(kind)]
    assert all(column.text for kind in (Record, AttemptRecord) for column in record.columns(kind))
