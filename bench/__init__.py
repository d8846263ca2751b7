"""Benchmarks, run from the checkout: `python -m bench --help`."""
