"""Benchmarks: each compares with a peer or a raw driver in the same run and prints ratios."""
