"""The servers that ledgers are kept on, by name, so that what holds for one is asked of all."""

from __future__ import annotations

import importlib

import pytest

from helpers import postgres_server, redis_server
from helpers.postgres_server import PostgresServer
from helpers.redis_server import RedisServer

KINDS = ("redis", "postgres")
_LIBRARY = {"redis": "redis", "postgres": "psycopg"}


def why_not(kind: str) -> str:
    """What is missing here for tests of a kind; "" where nothing is."""
    try:
        importlib.import_module(_LIBRARY[kind])
    except ImportError:
        return f"the package {_LIBRARY[kind]} is not installed"
    if kind == "redis" and redis_server.SERVER is None:
        return "no redis-server: apt-get install redis-server"
    if kind == "postgres" and postgres_server.PROGRAMS is None:
        return "no PostgreSQL server (initdb, pg_ctl): apt-get install postgresql"
    return ""


def need(kind: str) -> None:
    """Skip where there is no such server."""
    if why := why_not(kind):
        pytest.skip(why)


def own(kind: str) -> RedisServer | PostgresServer:
    """A server of its own, which loses nothing that it answered and which the test stops; skips where there is none."""
    need(kind)
    return RedisServer(sync="always") if kind == "redis" else PostgresServer()


def shared(kind: str) -> str:
    """URL of the server that all tests of this process share, emptied; skips where there is none."""
    need(kind)
    if kind == "redis":
        redis_server.flush()
        return redis_server.redis_url()
    postgres_server.drop()
    return postgres_server.postgres_url()


def stop_shared() -> None:
    """Stop the shared servers."""
    redis_server.stop_shared()
    postgres_server.stop_shared()
