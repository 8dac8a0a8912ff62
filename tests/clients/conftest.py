"""The programs of the clients are no tests: each runs in an environment of its own."""

collect_ignore_glob = ["*/run.py", "cases.py"]
