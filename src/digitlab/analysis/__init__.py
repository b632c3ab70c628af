"""Comparison and statistics of runs: plain values in, plain values out."""
