"""Strategies over one reasoning trace: when it stops, what it is steered by, how it is drawn."""
