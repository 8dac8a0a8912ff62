"""Upstreams of other dialects, through LiteLLM: it writes requests and reads answers, and nothing else."""
