"""Alerts at shares of a limit, by webhook, Slack and e-mail; each is sent once, by one of the replicas.

``rules.py`` reads ``[[alerts]]``, ``levels.py`` says how far each limit is spent and writes the messages,
``channels.py`` sends them, ``watch.py`` looks at the limits in the background.
"""
