"""Sweeps of many runs: what is done, what remains, the result of each."""
