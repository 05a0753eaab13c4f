"""Right and fast on a GPU, in 8 minutes: agreement with the CPU, training, loading, evaluation.

    make gpu-check
    python -m benchmarks.gpu --tiny

Eight parts, each in a process of its own with its share of the time. A part writes its file after
every number, so one that fails, runs out of memory or is cut off keeps what it had, and the others
go on. ``--tiny`` runs all of them on the CPU in sizes that say nothing about speed.
"""
