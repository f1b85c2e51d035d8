"""Running a notebook: by papermill, in a kernel of this very Python, with its progress on this terminal."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

from drgstudy.study import places
from drgstudy.study.datasets import source_of
from drgstudy.study.files import atomic, locked
from drgstudy.study.parameters import notebook_of, notebook_parameters, read_params
from drgstudy.study.places import Paths
from drgstudy.study.problems import StudyError
from drgstudy.study.processes import rank
from drgstudy.study.registry import study_of

_PLACE = re.compile(r'"[/~](?:[^"\\]|\\.)*"')  # a quoted path of this machine
# A kernel that reads no settings of the machine's and none of the user's; these would name some, or bend its figures.
_KERNEL = (
    "import sys; del sys.path[0]; from IPython.core import application as app; app.SYSTEM_CONFIG_DIRS.clear(); "
    "app.ENV_CONFIG_DIRS.clear(); from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)
_HAS_A_SAY = {"MPLBACKEND", "MATPLOTLIBRC", "PYTHONSTARTUP"}
_NO_RESULT = {"stderr", "application/vnd.jupyter.widget-view+json"}


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
    paths = study_of(notebook.stem).paths(values["profile"])
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
                cwd=places.NOTEBOOKS,
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
