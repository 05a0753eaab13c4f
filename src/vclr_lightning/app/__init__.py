"""Compose, check and run a configuration; sweeps; what an error says.

The only room that sees a config.
"""
