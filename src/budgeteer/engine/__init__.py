"""Decoding on this machine: the batch and its slots, kernels, the Llama class, steers and heads."""
