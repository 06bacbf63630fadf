"""Benchmarks beside PgBouncer and beside PostgreSQL alone: ``python -m bench.run``.

How they measure, and what the figures mean: docs/benchmarks.md.
"""
