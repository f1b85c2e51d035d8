"""Running a notebook by papermill, in a kernel of this Python interpreter, with its progress on this terminal."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import resource
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from drgstudy.study import outlook, places
from drgstudy.study.datasets import source_of
from drgstudy.study.files import atomic, locked
from drgstudy.study.parameters import notebook_of, notebook_parameters, read_params
from drgstudy.study.places import Paths
from drgstudy.study.problems import StudyError
from drgstudy.study.processes import peak_memory_gb, rank
from drgstudy.study.registry import study_of

_PLACE = re.compile(r'"(?:[/~]|\.{1,2}/|\\\\|[A-Za-z]:[/\\])(?:[^"\\]|\\.)*"')  # a quoted path of this machine
# A kernel that reads neither the machine's settings nor the user's. It doesn't get the variables of `_HAS_A_SAY`, which
# would name such settings or change its figures.
_KERNEL = (
    "import sys; del sys.path[0]; from IPython.core import application as app; app.SYSTEM_CONFIG_DIRS.clear(); "
    "app.ENV_CONFIG_DIRS.clear(); from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)
_HAS_A_SAY = {"MPLBACKEND", "MATPLOTLIBRC", "PYTHONSTARTUP"}
_NO_RESULT = {"stderr", "application/vnd.jupyter.widget-view+json"}


def run_notebook(params: Path, unless_made: list[Path] = ()) -> Path:
    """Execute the notebook of one parameter file; progress bars appear on this process's stderr.

    While another process runs the same file, this one waits.

    Parameters
    ----------
    params : Path
    unless_made : list of Path
        A target of make, then its prerequisites. If another process has made the target since this make began, and
        after all prerequisites, the notebook is not run.

    Returns
    -------
    Path
        The executed notebook, which appears only if every cell succeeded.

    Raises
    ------
    StudyError
        With the notebook's own message if the notebook raised a StudyError. After any other exception the message names
        the file of the traceback, which lies in an ignored folder, for it may quote a note. If the data are
        credentialed, the message does not repeat the exception's.
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
    # For a check of URIs that no notebook asks for, jsonschema would build a grammar: a second of every step.
    sys.modules.setdefault("rfc3987_syntax", None)
    import nbformat
    import papermill
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    busy = threading.Event()

    class Kernel(AsyncKernelManager):
        # This interpreter, whatever is installed as the kernel "python3", without the user's own settings.
        kernel_spec = KernelSpec(
            argv=[sys.executable, "-c", _KERNEL, "-f", "{connection_file}"],
            language="python",
            metadata={"supported_encryption": ["curve"]},
        )

        # A kernel outlives a killed parent by a second or more, so it holds the lock too until it ends.
        async def _async_launch_kernel(self, command, env, **options):
            env = {key: value for key, value in env.items() if key not in _HAS_A_SAY}
            env["IPYTHONDIR"] = f"{folder}/ipython"
            await super()._async_launch_kernel(command, env=env, pass_fds=[lock] if lock else [], **options)

        # A kernel is interrupted before it is shut down; an idle one would report that on the terminal as an error.
        async def _async_interrupt_kernel(self):
            if busy.is_set():
                await super()._async_interrupt_kernel()

    notebook = notebook_of(params)
    if values.get("like") or notebook_parameters(notebook).get("like"):
        values = values | {"like": ""}  # the values of that file are among these
    paths = study_of(notebook.stem).paths(values["profile"])
    executed, failed = paths.executed / f"{params.stem}.ipynb", paths.failed / f"{params.stem}.txt"
    start = time.perf_counter()
    say = functools.partial(print, f"{params.parent.name}/{params.stem}", file=sys.stderr, flush=True)
    if not rank():
        say(outlook.said(params.stem, paths))
    with atomic(executed) as beside, _folder_for_sockets() as folder, _relayed_progress(folder):
        try:
            made = papermill.execute_notebook(
                notebook,
                None,  # nothing is written before every cell has succeeded
                values,
                cwd=places.NOTEBOOKS,
                kernel_name="python3",
                progress_bar=False,
                # Sockets in the file system, not on the network, so that nobody else on the machine can listen to a
                # kernel. Under their default names, two notebooks that run at once would share them.
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
            said = "" if source_of(paths)["kind"] == "credentialed" else f" ({' '.join(error.evalue.split())[:200]})"
            raise StudyError(
                f"{params.name}: {notebook.name} failed in cell {error.exec_count} with {error.ename}{said}; "
                f"the traceback is in {failed.relative_to(places.ROOT)}"
            ) from None
        except DeadKernelError:
            raise StudyError(f"{params.name}: the notebook's kernel was killed, perhaps for want of memory") from None
        results_only(made).metadata["drgstudy"] = source_of(paths)
        nbformat.write(made, beside)
    if not rank():
        failed.unlink(missing_ok=True)
        outlook.note(params.stem, paths, time.perf_counter() - start)
        peak = peak_memory_gb(resource.RUSAGE_CHILDREN)
        say(f"done in {time.perf_counter() - start:.0f} s, with at most {peak:.1f} GB of memory")
    return executed


def results_only(notebook):
    """Remove from an executed notebook, in place, what differs by day or machine: times, paths and warnings.

    Widgets are removed too, for they need a script. A parameter that is a path of this machine is shown as "…".
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
                data.pop("text/plain", None)  # for a table, no more than its address in memory
    return notebook


def _folder_for_sockets() -> tempfile.TemporaryDirectory:
    """A temporary folder where a socket can be made: its path must be short, and not every file system has sockets.

    Raises
    ------
    StudyError
        If there is none.
    """
    for place in (None, os.environ.get("XDG_RUNTIME_DIR", "/tmp"), "/tmp"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(dir=place)
            stack.callback(folder.cleanup)
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(f"{folder.name}/kernel-99")
            stack.pop_all()
            return folder
    raise StudyError(
        "a notebook's kernel needs sockets, and none can be made among the temporary files; set TMPDIR to a folder with a "
        "short path, on a disk of this machine"
    )


@contextlib.contextmanager
def _relayed_progress(folder: str):
    """Show what the kernel writes to its progress channel in `folder`, for its stderr ends up in the notebook."""
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
                sys.stderr.write(text if not finished or last == "\n" else text + "\n")  # a bar was cut off
                sys.stderr.flush()

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        del os.environ["DRGSTUDY_PROGRESS"], os.environ["DRGSTUDY_PROGRESS_SECONDS"]
