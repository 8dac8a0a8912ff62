"""The address of a Ray cluster, without Ray: one where nothing listens is refused before Ray tries it for minutes."""

from __future__ import annotations

import socket
import sys
from types import ModuleType

import pytest

pytest.importorskip("torch")

from budgeteer.core.errors import InvalidInput
from budgeteer.lab import on_ray


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The addresses that Ray was asked to connect to."""
    library, given = ModuleType("ray"), list[str]()

    def init(address: str | None = None, *, log_to_driver: bool = True, runtime_env: dict | None = None) -> None:
        assert address is not None
        given.append(address)

    library.init, library.shutdown = init, lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", library)
    return given


def test_where_nothing_listens_ray_is_not_asked(asked) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        for address in (host, f"ray://{host}", "127.0.0.1:99999", "no.such.host.invalid:6379"):
            with pytest.raises(InvalidInput, match=f"--ray {address}: no Ray cluster answers there .*; give the addr"):
                on_ray.cluster(address).__enter__()
    assert asked == []


def test_a_machine_that_says_nothing_is_given_up_after_the_patience(asked, monkeypatch) -> None:
    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        assert (address, timeout) == (("10.0.0.1", 6379), 5.0)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(InvalidInput, match=r"answers there \(timed out\)"):
        on_ray.cluster("10.0.0.1:6379").__enter__()
    assert asked == []


def test_where_something_listens_and_by_other_names_ray_is_asked(asked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for each in (address, f"ray://{address}", "auto"):
            with on_ray.cluster(each):
                pass
    assert asked == [address, f"ray://{address}", "auto"]
