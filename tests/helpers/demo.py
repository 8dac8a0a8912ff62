"""``budgeteer serve --demo`` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAIN = "from budgeteer.cli import main; sys.exit(main(['serve', '--demo', '--port', '0']))"


class Demo:
    """The command in a process of its own, with a folder of its own for what it leaves."""

    def __init__(self, folder: Path, code: str) -> None:
        self.folder = folder
        env = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys\n{code}"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=env,
        )  # fmt: skip
        self.said = ""
        while "Ctrl-C" not in self.said:
            assert self.process.stderr is not None
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        match = re.search(r"open (\S+)/ and log in with the admin key (\S+)", self.said)
        assert match is not None, self.said
        self.root, self.admin = match.groups()

    def ask(self, path: str) -> Any:
        request = urllib.request.Request(
            f"{self.root}/admin/api/{path}", headers={"authorization": f"Bearer {self.admin}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def until(self, path: str, true: Callable[[Any], bool], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not true(answer := self.ask(path)):
            assert time.monotonic() < deadline, answer
            time.sleep(0.3)
        return answer

    def children(self) -> list[int]:
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    def end(self, how: int) -> int:
        """Exit code; and that no child and no file is left."""
        children = self.children()
        self.process.send_signal(how)
        self.said += self.process.communicate(timeout=60)[1]
        deadline = time.monotonic() + 20
        while any(_runs(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in children if _runs(pid)]
        return self.process.returncode


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
