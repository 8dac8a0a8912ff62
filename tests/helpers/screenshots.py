"""The pictures of docs/dashboard.md, out of a demonstration that has run for a while: ``make screenshots``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from helpers.browser import Browser
from helpers.demo import MAIN, Demo

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 150
"""Of traffic before the first picture."""
LARGEST = 150_000
"""Bytes of a picture."""


def main() -> None:
    """Take them all."""
    import signal

    with tempfile.TemporaryDirectory() as folder, Browser() as page:
        demo = Demo(Path(folder), MAIN)
        try:
            time.sleep(SECONDS)
            demo.until("requests?refused=1", lambda found: found["requests"], 120)
            (key,) = [one for one in demo.ask("keys")["keys"] if one["name"] == "tight"]
            page.shape(1200, 900)
            page.open(f"{demo.root}/")
            page.fill("input[name=key]", demo.admin)
            page.press("form button")
            shots = (
                ("dashboard-light", "/", 1200, 1180, False),
                ("dashboard-dark", "/?by=key&kind=all", 1200, 1180, True),
                ("dashboard-phone", "/", 390, 860, True),
                ("dashboard-budget", f"/budget?path=acme/support/{key['id']}&kind=all&window=hour", 1200, 820, False),
            )
            for name, path, width, height, dark in shots:
                page.shape(width, height, dark)
                page.open(demo.root + path)
                file = DOCS / f"{name}.png"
                page.picture(file)
                size = file.stat().st_size
                sys.stdout.write(f"{file.relative_to(DOCS.parent)}: {size:,} bytes\n")
                assert size < LARGEST, f"{file} is too large"
            assert page.problems() == []
        finally:
            demo.end(signal.SIGINT)


if __name__ == "__main__":
    main()
