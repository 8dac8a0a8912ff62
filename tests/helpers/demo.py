"""``budgeteer serve --demo`` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

MAIN = "from budgeteer.cli import main; sys.exit(main(['serve', '--demo', '--port', '0']))"


class Demo:
    """The command in a process of its own, with a folder of its own for what it leaves."""

    def __init__(self, folder, code):
        self.folder = folder
        env = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys\n{code}"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=env,
        )  # fmt: skip
        self.said = ""
        while "Ctrl-C" not in self.said:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        self.root, self.admin = re.search(r"open (\S+)/ and log in with the admin key (\S+)", self.said).groups()

    def ask(self, path):
        request = urllib.request.Request(
            f"{self.root}/admin/api/{path}", headers={"authorization": f"Bearer {self.admin}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def until(self, path, true, seconds):
        deadline = time.monotonic() + seconds
        while not true(found := self.ask(path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.3)
        return found

    def children(self):
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(one) for one in found.read_text().split()] if found.exists() else []

    def end(self, how):
        """Exit code; and that no child and no file is left."""
        children = self.children()
        self.process.send_signal(how)
        self.said += self.process.communicate(timeout=60)[1]
        deadline = time.monotonic() + 20
        while any(_runs(one) for one in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [one for one in children if _runs(one)]
        return self.process.returncode


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
