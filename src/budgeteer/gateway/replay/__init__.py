"""Yesterday's records against today's file: what would have been refused, served otherwise, and saved.

``read.py`` has the records of a file, ``run.py`` asks the real policies and the real ledger about each at its own time,
``report.py`` says what is different.
"""
