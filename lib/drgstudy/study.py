"""The study as a set of files: paths, strict parameters, whole-or-nothing writes, and running a notebook.

Nothing here knows any science. A profile is a folder of YAML files under ``notebooks/params``; a run is one of
these files, executed over the notebook whose name is a prefix of the file's name.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import datetime
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import reprlib
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "data" / "reference"
NOTEBOOKS = ROOT / "notebooks"
OPENNESS = ("synthetic", "open demo", "credentialed")
"""The kinds of data, the openest first."""
_PLACE = re.compile(r'"[/~](?:[^"\\]|\\.)*"')  # a quoted path of this machine
# A kernel that reads no settings of the machine's and none of the user's; these would name some, or bend its figures.
_KERNEL = (
    "import sys; del sys.path[0]; from IPython.core import application as app; app.SYSTEM_CONFIG_DIRS.clear(); "
    "app.ENV_CONFIG_DIRS.clear(); from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)
_HAS_A_SAY = {"MPLBACKEND", "MATPLOTLIBRC", "PYTHONSTARTUP"}
_NO_RESULT = {"stderr", "application/vnd.jupyter.widget-view+json"}
LONGEST_PARAMS = 100_000  # characters; ours have some 800


class StudyError(Exception):
    """What a user can mend: the message names the file, column or parameter, what was expected and what to do."""


def shown(value) -> str:
    """`repr` for an error's sentence: one short line, however large or deep the value is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 40, 40
    return short.repr(value)


def cause(error: Exception) -> str:
    """What a library's error says, as part of a sentence: one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


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
    def failed(self) -> Path:
        """Tracebacks of steps that failed: they may quote notes, so they stay here."""
        return ROOT / "data" / self.profile / "failed"

    @property
    def running(self) -> Path:
        """One file for each step that is being run, which names the process."""
        return ROOT / "data" / self.profile / "running"

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
def locked(file: Path, what: str):
    """Hold the lock `file` for the block; while another process holds it, say so of `what` and wait.

    The system takes the lock from a process that ends, however it ends. It holds between the machines that share a folder
    where that file system knows locks (NFS does); where it does not, nobody is held up.

    Yields
    ------
    int
        The lock's file descriptor: a child process that inherits it holds the lock too.
    """
    with room_for(file):
        lock = _take(file, what)
    with lock:
        try:
            yield lock.fileno()
        finally:
            file.unlink(missing_ok=True)


def _take(file: Path, what: str):
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = open(file, "ab+", buffering=0)  # noqa: SIM115, for the caller closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        print(f"{what}: waiting for {lock.read().decode()}", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
            return lock
    lock.close()  # who held it has removed it
    return _take(file, what)


@contextlib.contextmanager
def room_for(path: Path):
    """Make one sentence that names `path` of what any writer raises in the block when a disk or a quota is full."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        said = any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))
        # torch alone does not say why it can't write
        if said or (isinstance(error, RuntimeError) and shutil.disk_usage(path.parent).free < 2**20):
            raise StudyError(
                f"no space left while writing {path}; free some there (or in {tempfile.gettempdir()}, where temporary "
                "files go), then the same command goes on"
            ) from error
        raise


@contextlib.contextmanager
def atomic(path: Path):
    """Yield a temporary path beside `path`; it takes the final name only if the block succeeds.

    The temporary name keeps the suffixes, so writers that look at them (``.csv.gz``, ``.npz``) behave. A folder
    replaces an existing folder. Of a run's processes all do the same, but only the first one's files remain.

    Raises
    ------
    StudyError
        If the disk is full; what was written so far is removed, and `path` is as it was.
    """
    path = Path(path)
    if rank():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    here = f"@{os.uname().nodename}-"
    beside, old = (path.with_name(f".unfinished-{what}{os.getpid()}{here}{path.name}") for what in ("", "old-"))
    for left in path.parent.glob(f".unfinished-*{here}{path.name}"):
        if not _alive(int(left.name.split("@")[0].rpartition("-")[2])):
            _remove(left)
    try:
        with room_for(path):
            yield beside
        if beside.is_dir() and path.exists():  # no system call replaces a folder: two renames, and never half a folder
            os.replace(path, old)
        os.replace(beside, path)
        _remove(old)
    finally:
        _remove(beside)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    """Write JSON with sorted keys, so that equal content is equal bytes."""
    with atomic(path) as beside:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        beside.write_text(text + "\n", encoding="utf-8")


def read_text(path: Path, missing: str) -> str:
    """A UTF-8 text file, with or without a byte order mark; raises StudyError, with `missing` where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise StudyError(f"{path} {missing}") from None
    except OSError as error:
        raise StudyError(f"{path} can't be read ({error.strerror}); expected a text file that you may read") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path} is not UTF-8 text (perhaps Latin-1, or no text at all); save it as UTF-8") from None


def read_json(path: Path):
    """Read a JSON file that an earlier step wrote; raises StudyError if it is missing or damaged."""
    text = read_text(path, "is missing; the step that writes it has not run (`make help` lists the steps)")
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not valid JSON ({cause(error)}); delete it and run make again") from None


def _no_number(literal: str):
    raise ValueError(f"{literal} is no number")


def least_open(found: list[dict]) -> dict:
    """Kind and name of the least open of several datasets; what is unknown counts as credentialed."""
    unknown = {"kind": "credentialed", "name": "unknown"}
    found = [about if about.get("kind") in OPENNESS else unknown for about in found] or [unknown]
    chosen = max(found, key=lambda about: OPENNESS.index(about["kind"]))
    return {key: chosen[key] for key in unknown}


def dataset(paths: Paths) -> dict:
    """Kind and name of a study's data, as its source.json and its cohort's flow.json say."""
    contents = [read_json(file) for file in (paths.source, paths.flow) if file.is_file()]
    return least_open([content.get("source", content) for content in contents])


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes, the first 16 hexadecimal digits; computed once while the file stays as it is."""
    state = os.stat(path)
    return _fingerprint(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@functools.cache
def _fingerprint(path: Path, *state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def checked_value(name: str, value, default):
    """`value` if it has the type of `default` (an integer will do for a float), else StudyError naming `name`."""
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise StudyError(f"{name}: expected {type(default).__name__}, like {shown(default)}, got {shown(value)}")
    if isinstance(value, int | float) and not abs(value) < 2**63:  # nor is a NaN
        raise StudyError(f"{name}: expected a finite number below 2**63, got {shown(value)}")
    if isinstance(value, list) and default:
        return [checked_value(f"{name}, value {i}", each, default[0]) for i, each in enumerate(value, 1)]
    return value


def setting(default, help: str, *, zero: bool = False, share: bool = False, choices: tuple = ()) -> Any:
    """A field of a model's settings, with what a reader and `checked_settings` must know of it.

    Parameters
    ----------
    default : bool, int, float, str or list
    help : str
        What it is, for the table of settings in the notebook.
    zero : bool
        It may be 0; any other number must be more than 0.
    share : bool
        It is a share: at least 0 and less than 1.
    choices : tuple
        All its values, where they are few.
    """
    about = {"help": help, "zero": zero or share, "share": share, "choices": choices}
    kept = {"default_factory": default.copy} if isinstance(default, list) else {"default": default}
    return field(**kept, metadata=about)


def checked_settings(kind: type, values: dict):
    """An instance of the settings dataclass `kind`.

    Raises
    ------
    StudyError
        For an unknown key, a wrong type, or a value that the field does not allow.
    """
    defaults = vars(kind())
    if unknown := [key for key in values if key not in defaults]:
        raise StudyError(f"setting {shown(unknown[0])}: unknown; the settings are {', '.join(defaults)}")
    checked = {key: checked_value(f"setting {key}", value, defaults[key]) for key, value in values.items()}
    for key, value in checked.items():
        _check_limits(key, value, about_setting(kind, key))
    return kind(**checked)


def about_setting(kind: type, key: str) -> dict:
    """What `setting` was told of a field; one with a new default, and no more, is what it is in the class above."""
    fields = [known[key] for above in kind.__mro__ if key in (known := vars(above).get("__dataclass_fields__", {}))]
    return next((dict(field.metadata) for field in fields if field.metadata), {})


def _check_limits(key: str, value, limits: dict) -> None:
    if choices := limits.get("choices"):
        if value not in choices:
            raise StudyError(f"setting {key}: expected one of {choices}, got {shown(value)}")
    elif type(value) in (int, float):
        zero = limits.get("zero", False)
        if not (value > 0 or (value == 0 and zero)):
            raise StudyError(f"setting {key}: expected {'0 or more' if zero else 'more than 0'}, got {value}")
        if limits.get("share") and value >= 1:
            raise StudyError(f"setting {key}: expected a share, less than 1, got {value}")


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


def notebook_parameters(notebook: Path, text: str = "") -> dict:
    """Names and defaults in the notebook's cell tagged ``parameters``: plain literals, read without running it.

    `text` is read instead of the file, if it is given.
    """
    cells = json.loads(text or notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def plain_yaml(text: str):
    """The value of a YAML text without what a parameter file has no use for: anchors, aliases, tags, and keys said twice.

    Aliases let a text of a few lines grow to gigabytes, and of two equal keys PyYAML would silently take the last.

    Raises
    ------
    ValueError
        With one line that says why it isn't such a text.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent, index):
            event = self.peek_event()
            if event.anchor or getattr(event, "tag", None):
                raise yaml.MarkedYAMLError(problem="anchor, alias or tag", problem_mark=event.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node, deep=False):
            values = super().construct_mapping(node, deep)
            if len(values) < len(node.value):
                raise yaml.MarkedYAMLError(problem="a key occurs twice", problem_mark=node.start_mark)
            return values

    try:
        values = yaml.load(text, Plain)
        repr(values)  # Python refuses to write numbers of thousands of digits
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(cause(error)) from None
    return values


def read_params(params: Path, heirs: tuple[Path, ...] = ()) -> dict:
    """The values of one parameter file, over those of the file that its `like` names, checked against its notebook.

    Parameters
    ----------
    params : Path
    heirs : tuple of Path
        The files that are, one after the other, like this one: none of them can be its base again.

    Returns
    -------
    dict
        What the files say; the notebook's own defaults are left out.

    Raises
    ------
    StudyError
        If a file is no flat YAML mapping, names an unknown parameter, gives a value of the wrong type, or is like a
        file that there is not, that belongs to another notebook, or that is like itself.
    """
    values, notebook = own_params(params), notebook_of(params)
    if like := values.get("like"):
        base = base_of(params, like)
        if base in (*heirs, params):
            raise StudyError(f"{params}: parameter like: {like!r} is, by way of others, like this file itself")
        values = over(read_params(base, (*heirs, params)), values)
    if "run" in values and "model" in values and params.stem != f"{notebook.stem}-{values['run']}":
        raise StudyError(f"{params}: parameter run is {shown(values['run'])}, but the file's name says another run")
    return values


def own_params(params: Path) -> dict:
    """What one parameter file says itself, checked as `read_params` does."""
    text = read_text(params, f"does not exist; the profiles are the folders of {NOTEBOOKS / 'params'}")
    if len(text) > LONGEST_PARAMS:
        raise StudyError(f"{params} has {len(text):,} characters; expected some lines of the form `name: value`")
    try:
        values = plain_yaml(text)
    except ValueError as error:
        raise StudyError(f"{params} is not valid YAML: {error}; expected lines of the form `name: value`") from None
    if not isinstance(values, dict):
        raise StudyError(f"{params}: expected lines of the form `name: value`")
    defaults = notebook_parameters(notebook_of(params))
    for name, value in values.items():
        if name not in defaults:
            raise StudyError(f"{params}: unknown parameter {shown(name)}; the parameters are {', '.join(defaults)}")
        values[name] = value = checked_value(f"{params}: parameter {name}", value, defaults[name])
        if isinstance(value, int | float) and value < 0 and name != "hours":  # which count from ICU admission
            raise StudyError(f"{params}: parameter {name}: expected 0 or more, got {value}")
    if values.get("profile") != params.parent.name:
        raise StudyError(f"{params}: parameter profile must be {params.parent.name!r}, the name of the file's folder")
    if values.get("seed", 0) >= 2**31:  # numpy's old generator, which transformers seeds, takes little more
        raise StudyError(f"{params}: parameter seed: expected less than 2**31, got {values['seed']}")
    return values


def base_of(params: Path, like: str) -> Path:
    """The parameter file that `like` names in the file `params`: "05-train-llama", or "paper/05-train-llama".

    Raises
    ------
    StudyError
        If there is no such file, or it belongs to another notebook.
    """
    base = params.parent.joinpath(*[".."] * like.count("/"), f"{like}.yaml").resolve()
    fits = re.fullmatch(r"([\w-]+/)?[\w.-]+", like) and base.is_file()
    if not fits or notebook_of(base) != notebook_of(params):
        raise StudyError(
            f"{params}: parameter like: {shown(like)} is not a parameter file of {notebook_of(params).name}; name one of "
            "the same folder (05-train-llama), or one of another profile (paper/05-train-llama)"
        )
    return base


def over(base: dict, values: dict) -> dict:
    """`values` over those of `base`; of a parameter that is a dict, such as settings, key by key."""
    both = {name: base[name] | value for name, value in values.items() if isinstance(base.get(name), dict)}
    return base | values | both


def resolved(notebook: str, values: dict) -> dict:
    """The parameters of a notebook that runs by hand, or by papermill alone, over those that its `like` names.

    Each notebook calls this after its parameters, and takes what it returns. What papermill has set is known from the
    cell in which it did. By hand, what still has the notebook's default counts as not set; so that nobody is surprised,
    it is printed what is taken from elsewhere. A step that make runs is like no other any more: `run_notebook` sets all.

    Parameters
    ----------
    notebook : str
        Its name, "05-train".
    values : dict
        Its variables.

    Returns
    -------
    dict
        The parameters' values; nothing where `like` is empty.
    """
    if not (like := values["like"]):
        return {}
    defaults = _defaults(NOTEBOOKS / f"{notebook}.ipynb")
    by_hand = {name for name, default in defaults.items() if values[name] != default}
    given = {name: values[name] for name in {*(_set_by_papermill() or by_hand), "profile"} & defaults.keys()}
    params = NOTEBOOKS / "params" / values["profile"] / f"{notebook}.yaml"
    base = read_params(base_of(params, like))
    taken = {name: value for name, value in base.items() if name not in given}
    print(f"taken from {like}: " + ", ".join(f"{name} = {value!r}" for name, value in taken.items()))
    return over(base, given)


def _set_by_papermill() -> set[str]:
    """The parameters that papermill has set in the running notebook, in a cell that begins with its comment."""
    ran = getattr(sys.modules.get("__main__"), "In", [])  # IPython's cells so far
    cell = next((source for source in reversed(ran) if source.startswith("# Parameters\n")), "")
    return {node.targets[0].id for node in ast.parse(cell).body if isinstance(node, ast.Assign)}


def _defaults(notebook: Path) -> dict:
    """As `notebook_parameters`, of the notebook that git holds, if it holds it: Jupyter saves what was changed by hand."""
    command = ["git", "show", f"HEAD:./{notebook.name}"]
    with contextlib.suppress(OSError):
        held = subprocess.run(command, cwd=notebook.parent, capture_output=True, encoding="utf-8")
        if held.returncode == 0:
            return notebook_parameters(notebook) | notebook_parameters(notebook, held.stdout)
    return notebook_parameters(notebook)


def run_notebook(params: Path, unless_made: list[Path] = ()) -> Path:
    """Execute the notebook of one parameter file with papermill; progress bars appear on this process's stderr.

    While another process runs the same file, this one waits.

    Parameters
    ----------
    unless_made : list of Path
        A target of make and its prerequisites. If another process has made the target, later than these and since this
        make began, nothing is left to do.

    Returns
    -------
    Path
        The executed notebook, which appears only if every cell succeeded.

    Raises
    ------
    StudyError
        With the notebook's own sentence where the notebook raised one; otherwise with the place of the traceback, which
        may quote a note, and so is in an ignored folder. The exception's own words are left out if the data are
        credentialed.
    """
    values, name = read_params(params), f"{params.parent.name}/{params.stem}"
    paths = Paths(values["profile"])
    with contextlib.nullcontext() if rank() else locked(paths.running / params.stem, name) as lock:
        if _made_meanwhile(*unless_made):
            print(name, "was made by another process", file=sys.stderr)
            return paths.executed / f"{params.stem}.ipynb"
        return _execute(params, values, lock)


def _made_meanwhile(target: Path | None = None, *prerequisites: Path) -> bool:
    if target is None or not all(file.exists() for file in (target, *prerequisites)):
        return False
    older = [float(os.environ["MAKE_BEGAN"]), *(file.stat().st_mtime for file in prerequisites)]
    return target.stat().st_mtime > max(older)


def _execute(params: Path, values: dict, lock: int | None) -> Path:
    import nbformat
    import papermill
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    busy = threading.Event()

    class Kernel(AsyncKernelManager):
        # This very interpreter, whatever is installed as the kernel "python3", and nothing of the user's own settings.
        kernel_spec = KernelSpec(
            argv=[sys.executable, "-c", _KERNEL, "-f", "{connection_file}"],
            language="python",
            metadata={"supported_encryption": ["curve"]},
        )

        # A kernel outlives a killed parent for a second or more: until its end, it holds the lock too.
        async def _async_launch_kernel(self, command, env, **options):
            env = {key: value for key, value in env.items() if key not in _HAS_A_SAY}
            env["IPYTHONDIR"] = f"{folder}/ipython"
            await super()._async_launch_kernel(command, env=env, pass_fds=[lock] if lock else [], **options)

        # Before it is shut down it is interrupted; at rest, it would say on the terminal that this was an error.
        async def _async_interrupt_kernel(self):
            if busy.is_set():
                await super()._async_interrupt_kernel()

    notebook = notebook_of(params)
    if values.get("like") or notebook_parameters(notebook).get("like"):
        values = values | {"like": ""}  # the values that it names are among these
    paths = (EarlyPaths if notebook.stem >= "20" else Paths)(values["profile"])
    executed, failed = paths.executed / f"{params.stem}.ipynb", paths.failed / f"{params.stem}.txt"
    start = time.perf_counter()
    say = functools.partial(print, f"{params.parent.name}/{params.stem}", file=sys.stderr, flush=True)
    if not rank():
        say("…")
    with atomic(executed) as beside, _relayed_progress() as folder:
        try:
            made = papermill.execute_notebook(
                notebook,
                None,  # nothing is on the disk before every cell has succeeded
                values,
                cwd=NOTEBOOKS,
                kernel_name="python3",
                progress_bar=False,
                # Sockets of the file system, not of the network: nobody else on the machine can listen to a kernel. By
                # their default names two notebooks that run at once would share them.
                config=Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"}),
                kernel_manager_class=Kernel,
                on_cell_execute=lambda **_: busy.set(),
                on_cell_executed=lambda **_: busy.clear(),
            )
        except PapermillExecutionError as error:
            if error.ename == "StudyError":
                raise StudyError(f"{params.name}: {error.evalue}") from None
            with atomic(failed) as log:
                log.write_text(str(error), encoding="utf-8")
            said = "" if dataset(paths)["kind"] == "credentialed" else f" ({' '.join(error.evalue.split())[:200]})"
            raise StudyError(
                f"{params.name}: {notebook.name} failed in cell {error.exec_count} with {error.ename}{said}; "
                f"the traceback is in {failed.relative_to(ROOT)}"
            ) from None
        except DeadKernelError:
            raise StudyError(f"{params.name}: the notebook's kernel was killed, perhaps for want of memory") from None
        results_only(made).metadata["drgstudy"] = dataset(paths)
        nbformat.write(made, beside)
    if not rank():
        failed.unlink(missing_ok=True)
        say(f"done in {time.perf_counter() - start:.0f} s")
    return executed


def results_only(notebook):
    """Strip an executed notebook, in place, of what another day or machine would change: times, places and warnings.

    Widgets go too, for they need a script, and so does the value of a parameter that is a place on this machine.
    """
    notebook.metadata.pop("widgets", None)
    parameters = json.dumps(notebook.metadata.get("papermill", {}).get("parameters", {}))
    notebook.metadata["papermill"] = {"parameters": json.loads(_PLACE.sub('"…"', parameters))}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if "injected-parameters" in tags:
            cell.source, cell.id = _PLACE.sub('"…"', cell.source), "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not {o.get("name"), *o.get("data", {})} & _NO_RESULT]
            for data in (output["data"] for output in cell.outputs if "text/html" in output.get("data", {})):
                data.pop("text/plain", None)  # of a table no more than its place in memory
    return notebook


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
            last, finished = "\n", False
            with channel.open(encoding="utf-8", errors="replace") as file:
                while not finished:
                    finished = done.wait(0.3)
                    text = file.read()
                    last = (last + text)[-1]
                    sys.stderr.write(text if not finished or last == "\n" else text + "\n")  # a bar that was cut off
                    sys.stderr.flush()

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


def run_and_exit(command, *arguments) -> NoReturn:
    """End this process with what a command line's function returns; what a user can mend is one sentence, and 1."""
    try:
        sys.exit(command(*arguments))
    except StudyError as error:
        sys.exit(f"error: {error}")


def main(arguments: list[str]) -> int:
    """``python -m drgstudy.study PARAMS.yaml …``: run these parameter files in order.

    ``torchrun --nproc-per-node 4 -m drgstudy.study PARAMS.yaml``, or ``accelerate launch -m drgstudy.study PARAMS.yaml``,
    trains on several devices or machines, which share the study's folder: every process runs the whole notebook in a
    kernel of its own, the trainer brings their gradients together, and only the first process writes.
    """
    parser = argparse.ArgumentParser(prog="python -m drgstudy.study")
    parser.add_argument("params", nargs="+", type=Path, help="parameter files, run in this order")
    parser.add_argument("--unless-made", nargs="+", type=Path, default=(), metavar="FILE", help="see run_notebook")
    options = parser.parse_args(arguments)
    try:
        for params in options.params:
            run_notebook(params, options.unless_made)
    except StudyError as error:
        if rank():  # most errors meet every process: the first one says so, and its end ends this one here
            time.sleep(3)
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
