"""One resumable job over many files, on the workers of any :mod:`concurrent.futures` executor."""

from vclr_lightning.data.jobs.attempt import Answer
from vclr_lightning.data.jobs.executors import LocalProcesses, SerialExecutor, cores
from vclr_lightning.data.jobs.job import run_job
from vclr_lightning.data.jobs.journal import FileJournal, FileResult, stat_files
from vclr_lightning.data.jobs.rejects import (
    Rejected,
    failure_lines,
    read_rejects,
    reasons_of,
    rejects_file,
    write_rejects,
)
from vclr_lightning.data.jobs.worker_process import TIME_LIMIT, WorkerLostError

__all__ = [
    "TIME_LIMIT",
    "Answer",
    "FileJournal",
    "FileResult",
    "LocalProcesses",
    "Rejected",
    "SerialExecutor",
    "WorkerLostError",
    "cores",
    "failure_lines",
    "read_rejects",
    "reasons_of",
    "rejects_file",
    "run_job",
    "stat_files",
    "write_rejects",
]
