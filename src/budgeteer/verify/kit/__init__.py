"""What verifiers share: how a text is read as a number, a date, a list or an expression."""
