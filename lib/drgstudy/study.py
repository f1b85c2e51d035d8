"""The study as a set of files: paths, strict parameters, whole-or-nothing writes, and running a notebook.

Nothing here knows any science. A profile is a folder of YAML files under ``notebooks/params``; a run is one of
these files, executed over the notebook whose name is a prefix of the file's name.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import functools
import hashlib
import json
import math
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "data" / "reference"
NOTEBOOKS = ROOT / "notebooks"


class StudyError(Exception):
    """What a user can mend: the message names the file, column or parameter, what was expected and what to do."""


@dataclass(frozen=True)
class Paths:
    """Where one profile keeps everything: each directory is named here and nowhere else."""

    profile: str

    @property
    def data(self) -> Path:
        return ROOT / "data" / self.profile

    @property
    def raw(self) -> Path:
        return self.data / "raw"

    @property
    def source(self) -> Path:
        return self.data / "source.json"

    @property
    def drgs(self) -> Path:
        return self.data / "drgs.parquet"

    @property
    def stays(self) -> Path:
        return self.data / "stays.parquet"

    @property
    def flow(self) -> Path:
        return self.data / "flow.json"

    @property
    def runs(self) -> Path:
        return self.data / "runs"

    @property
    def executed(self) -> Path:
        return self.data / "executed"

    @property
    def report(self) -> Path:
        return ROOT / "reports" / self.profile


@dataclass(frozen=True)
class EarlyPaths(Paths):
    """Where the early-DRG study of the same profile keeps its own; executed notebooks and reports are shared."""

    @property
    def data(self) -> Path:
        return ROOT / "data" / self.profile / "early"

    @property
    def notes(self) -> Path:
        return self.data / "notes.parquet"

    @property
    def measurements(self) -> Path:
        return self.data / "measurements.npz"

    @property
    def executed(self) -> Path:
        return Paths(self.profile).executed

    def cohort(self, system: str) -> Path:
        """The stays of a DRG system, "ms" or "apr"."""
        return self.data / f"{system}.parquet"


def rank() -> int:
    """Number of this process among those that torchrun or ``accelerate launch`` started for one run; alone, 0."""
    return int(os.environ.get("RANK", 0))


@contextlib.contextmanager
def first_process_first():
    """The first process of a run goes through the block alone; then the others, who find there what it has written.

    Every process must come by, in the same order of blocks. A lone process is not held up.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    # The others may wait long; if the first fails, the launcher ends them.
    group = PartialState(cpu=not torch.cuda.is_available(), timeout=datetime.timedelta(days=1))
    with group.main_process_first():
        yield


@contextlib.contextmanager
def atomic(path: Path):
    """Yield a temporary path beside `path`; it takes the final name only if the block succeeds.

    The temporary name keeps the suffixes, so writers that look at them (``.csv.gz``, ``.npz``) behave. A folder
    replaces an existing folder. Of a run's processes all do the same, but only the first one's files remain.
    """
    path = Path(path)
    if rank():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    for abandoned in path.parent.glob(f".unfinished-*-{path.name}"):  # by a process that was killed
        shutil.rmtree(abandoned) if abandoned.is_dir() else abandoned.unlink()
    try:
        yield beside
        if beside.is_dir() and path.exists():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    """Write JSON with sorted keys, so that equal content is equal bytes."""
    with atomic(path) as beside:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        beside.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path):
    """Read a JSON file that an earlier step wrote; raises StudyError if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(
            f"{path} is missing; the step that writes it has not run (`make help` lists the steps)"
        ) from None
    except ValueError as error:
        raise StudyError(f"{path} is not valid JSON ({error}); delete it and run make again") from None


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes, the first 16 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def checked_value(name: str, value, default):
    """`value` if it has the type of `default` (an integer will do for a float), else StudyError naming `name`."""
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise StudyError(f"{name}: expected {type(default).__name__}, like {default!r}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise StudyError(f"{name}: expected a finite number, got {value!r}")
    return value


def checked_settings(kind: type, values: dict):
    """An instance of the settings dataclass `kind`; raises StudyError on an unknown key or a wrong type."""
    defaults = vars(kind())
    unknown = sorted(set(values) - set(defaults))
    if unknown:
        raise StudyError(f"setting {unknown[0]}: unknown; the settings are {', '.join(defaults)}")
    return kind(**{key: checked_value(f"setting {key}", value, defaults[key]) for key, value in values.items()})


def progress(iterable=None, **options):
    """A tqdm bar: on the terminal that runs the study, or in the notebook when a person runs it by hand."""
    from tqdm.auto import tqdm
    from tqdm.std import tqdm as plain

    options["disable"] = rank() > 0
    channel = os.environ.get("DRGSTUDY_PROGRESS")
    if channel is None:
        return tqdm(iterable, **options)
    every = float(os.environ["DRGSTUDY_PROGRESS_SECONDS"])
    return plain(iterable, file=open(channel, "a", encoding="utf-8"), ncols=100, mininterval=every, **options)


def notebook_of(params: Path) -> Path:
    """The notebook that a parameter file belongs to: the one whose name begins the file's name."""
    fitting = [n for n in NOTEBOOKS.glob("*.ipynb") if params.stem == n.stem or params.stem.startswith(n.stem + "-")]
    if not fitting:
        raise StudyError(f"{params}: no notebook's name begins this file's name; see {NOTEBOOKS.name}/*.ipynb")
    return max(fitting, key=lambda n: len(n.stem))


def notebook_parameters(notebook: Path) -> dict:
    """Names and defaults in the notebook's cell tagged ``parameters``: plain literals, read without running it."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def read_params(params: Path) -> dict:
    """The values of one parameter file, checked against its notebook's parameters.

    Raises
    ------
    StudyError
        If the file is no flat YAML mapping, names an unknown parameter, or gives a value of the wrong type.
    """
    import yaml

    try:
        values = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{params} does not exist; the profiles are the folders of {NOTEBOOKS / 'params'}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{params} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise StudyError(f"{params}: expected lines of the form `name: value`")
    defaults = notebook_parameters(notebook_of(params))
    for name, value in values.items():
        if name not in defaults:
            raise StudyError(f"{params}: unknown parameter {name!r}; the parameters are {', '.join(defaults)}")
        values[name] = checked_value(f"{params}: parameter {name}", value, defaults[name])
    if values.get("profile") != params.parent.name:
        raise StudyError(f"{params}: parameter profile must be {params.parent.name!r}, the name of the file's folder")
    if "run" in values and "model" in values and params.stem != f"{notebook_of(params).stem}-{values['run']}":
        raise StudyError(f"{params}: parameter run is {values['run']!r}, but the file's name says another run")
    return values


def run_notebook(params: Path) -> Path:
    """Execute the notebook of one parameter file with papermill; progress bars appear on this process's stderr.

    Returns
    -------
    Path
        The executed notebook, which appears only if every cell succeeded.

    Raises
    ------
    StudyError
        With the notebook's own sentence where the notebook raised one; otherwise with the cell's traceback.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    values, notebook = read_params(params), notebook_of(params)
    executed = Paths(values["profile"]).executed / f"{params.stem}.ipynb"
    start = time.perf_counter()
    say = functools.partial(print, f"{params.parent.name}/{params.stem}", file=sys.stderr, flush=True)
    if not rank():
        say("…")
    with atomic(executed) as beside, _relayed_progress() as folder:
        try:
            papermill.execute_notebook(
                notebook,
                beside,
                values,
                cwd=NOTEBOOKS,
                kernel_name="python3",
                progress_bar=False,
                # Sockets of the file system, not of the network: nobody else on the machine can listen to a kernel. By
                # their default names two notebooks that run at once would share them.
                config=Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"}),
            )
        except PapermillExecutionError as error:
            if error.ename == "StudyError":
                raise StudyError(f"{params.name}: {error.evalue}") from None
            raise StudyError(f"{params.name}: {notebook.name} failed in cell {error.exec_count}\n{error}") from None
        except DeadKernelError:
            raise StudyError(f"{params.name}: the notebook's kernel was killed, perhaps for want of memory") from None
    if not rank():
        say(f"done in {time.perf_counter() - start:.0f} s")
    return executed


@contextlib.contextmanager
def _relayed_progress():
    """Show what the notebook's kernel writes to its progress channel (a kernel's own stderr ends up in the notebook).

    Yields the temporary folder that holds the channel.
    """
    with tempfile.TemporaryDirectory() as folder:
        channel = Path(folder) / "progress"
        channel.touch()
        os.environ["DRGSTUDY_PROGRESS"] = str(channel)
        os.environ["DRGSTUDY_PROGRESS_SECONDS"] = "0.5" if sys.stderr.isatty() else "15"  # a log needs no animation
        done = threading.Event()

        def relay():
            with channel.open(encoding="utf-8", errors="replace") as file:
                while not done.wait(0.3):
                    sys.stderr.write(file.read())
                    sys.stderr.flush()
                sys.stderr.write(file.read())

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            yield folder
        finally:
            done.set()
            thread.join()
            del os.environ["DRGSTUDY_PROGRESS"], os.environ["DRGSTUDY_PROGRESS_SECONDS"]


def peak_memory_gb() -> float:
    """Peak memory of this process so far, in GB: the GPU's where one was used, else the resident set."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main(arguments: list[str]) -> int:
    """``python -m drgstudy.study PARAMS.yaml …``: run these parameter files in order.

    ``torchrun --nproc-per-node 4 -m drgstudy.study PARAMS.yaml``, or ``accelerate launch -m drgstudy.study PARAMS.yaml``,
    trains on several devices or machines, which share the study's folder: every process runs the whole notebook in a
    kernel of its own, the trainer brings their gradients together, and only the first process writes.
    """
    try:
        for name in arguments:
            run_notebook(Path(name))
    except StudyError as error:
        if rank():  # most errors meet every process: the first one says so, and its end ends this one here
            time.sleep(3)
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
