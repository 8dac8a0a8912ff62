"""Benchmarks of others, built anew: BenchOverflow, Vending-Bench; R-ConstraintBench is a task (``lab/tasks``)."""
