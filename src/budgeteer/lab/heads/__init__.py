"""Heads of any model that shows its internals: traces are collected, a head is trained on them and kept."""
