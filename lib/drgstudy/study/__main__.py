"""The command line: run parameter files."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from drgstudy.study.notebook import run_notebook
from drgstudy.study.problems import StudyError
from drgstudy.study.processes import rank


def main(arguments: list[str]) -> int:
    """Run parameter files in order: ``python -m drgstudy.study PARAMS.yaml …``. Return the exit status, 0 or 1.

    ``torchrun --nproc-per-node 4 -m drgstudy.study PARAMS.yaml``, or ``accelerate launch -m drgstudy.study
    PARAMS.yaml``, trains on several devices, or on several machines that share the study's folder. Every process then
    runs the whole notebook in its own kernel, the trainer combines their gradients, and only the first process writes.
    """
    parser = argparse.ArgumentParser(prog="python -m drgstudy.study")
    parser.add_argument("params", nargs="+", type=Path, help="parameter files, run in this order")
    parser.add_argument("--unless-made", nargs="+", type=Path, default=(), metavar="FILE", help="see run_notebook")
    options = parser.parse_args(arguments)
    try:
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and not _has_gpu():
            raise StudyError(
                "FSDP was asked for, but no GPU is found, and without one the trainer would copy the whole model to each "
                "process; start it on a machine with GPUs, or with torchrun"
            )
        for params in options.params:
            run_notebook(params, options.unless_made)
    except StudyError as error:
        if rank():  # most errors occur in every process: the first one reports it, and the launcher ends the others
            time.sleep(3)
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
