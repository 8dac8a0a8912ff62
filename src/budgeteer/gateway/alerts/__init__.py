"""Alerts at shares of a limit, by webhook, Slack and e-mail; once each, whichever replica sees it first.

``rules.py`` has what the gateway's file says, ``levels.py`` how far each limit is spent and how people are told,
``channels.py`` how a message is sent, ``watch.py`` what goes on in the background.
"""
