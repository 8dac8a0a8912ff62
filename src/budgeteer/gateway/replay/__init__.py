"""Replays recorded requests against a configuration: what it would refuse or serve differently, and what that saves.

``read.py`` reads the records, ``run.py`` puts each through the gateway's own accounts, policies and bounds at the time
when it came, ``recorded.py`` has the request and the metering for that, ``report.py`` sums up.
"""
