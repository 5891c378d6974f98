"""Benchmarks: ``bench/run`` (docs/speed.md)."""
