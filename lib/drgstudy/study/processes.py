"""The processes of one run: which one this is, which goes first, how much memory it takes, and its progress bars."""

from __future__ import annotations

import contextlib
import datetime
import os
import resource
import sys


def rank() -> int:
    """Number of this process among those that torchrun or ``accelerate launch`` started for a run; 0 if it is alone."""
    return int(os.environ.get("RANK", 0))


@contextlib.contextmanager
def first_process_first():
    """Let the first process of a run through the block alone, then the others, which find what it has written.

    Every process must enter these blocks, and in the same order. A process that is alone does not wait.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    # The others may have to wait long. If the first one fails, the launcher ends them.
    group = PartialState(cpu=not torch.cuda.is_available(), timeout=datetime.timedelta(days=1))
    with group.main_process_first():
        yield


def peak_memory_gb(of: int = resource.RUSAGE_SELF) -> float:
    """Peak memory of this process in GB: the GPU's if torch is loaded and finds one, otherwise the resident set.

    Of `resource.RUSAGE_CHILDREN` it is the largest resident set of a process that was started from here and has ended.
    """
    torch = sys.modules.get("torch") if of == resource.RUSAGE_SELF else None
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB elsewhere
    return resource.getrusage(of).ru_maxrss * unit / 1e9


def progress(iterable=None, **options):
    """A tqdm bar, for the first process alone: on the terminal that runs the study, or in a notebook run by hand."""
    from tqdm.auto import tqdm
    from tqdm.std import tqdm as plain

    options["disable"] = rank() > 0
    channel = os.environ.get("DRGSTUDY_PROGRESS")
    if channel is None:
        return tqdm(iterable, **options)
    every = float(os.environ["DRGSTUDY_PROGRESS_SECONDS"])
    return plain(iterable, file=open(channel, "a", encoding="utf-8"), ncols=100, mininterval=every, **options)
