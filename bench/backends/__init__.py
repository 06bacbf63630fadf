"""Benchmarks of trio_backends beside stock Trio: ``python -m bench.backends.run``.

How they measure, and what the figures mean: docs/trio-backends.md.
"""
