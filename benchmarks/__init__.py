"""Benchmarks of the speed claims."""
