"""Writing, reading and locking files. A file is complete or absent: it is written under another name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from drgstudy.study.problems import StudyError, one_line
from drgstudy.study.processes import rank


@contextlib.contextmanager
def room_for(path: Path):
    """Replace whatever a writer in the block raises for a full disk or quota by a StudyError that names `path`."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        said = any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))
        # torch raises a RuntimeError that does not say why it can't write
        if said or (isinstance(error, RuntimeError) and shutil.disk_usage(path.parent).free < 2**20):
            raise StudyError(
                f"no space left while writing {path}; free some there (or in {tempfile.gettempdir()}, where temporary "
                "files go), then the same command goes on"
            ) from error
        raise


def _writable(folder: Path) -> None:
    """Make a folder if it is not there; raise StudyError if nothing may be written into it."""
    closed = (errno.EACCES, errno.EPERM, errno.EROFS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        may = os.access(folder, os.W_OK)
    except OSError as error:
        if error.errno not in closed:
            raise
        may = False
    if not may:
        raise StudyError(
            f"nothing can be written into {folder.absolute()}, which is read-only to you; copy the study to a folder of your own, or "
            "get the right to write there"
        )


@contextlib.contextmanager
def atomic(path: Path):
    """Yield a temporary path beside `path`; what is written there takes the final name only if the block succeeds.

    The temporary name keeps the suffixes, for writers that look at them (``.csv.gz``, ``.npz``). A folder replaces an
    existing folder. If a run has several processes, all go through the block, but only the first one's files are kept.

    Raises
    ------
    StudyError
        If the disk is full, or the folder read-only. What was written so far is removed, and `path` is as it was.
    """
    path = Path(path)
    if rank():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / path.name
        return
    _writable(path.parent)
    here = f"@{os.uname().nodename}-"
    beside, old = (path.with_name(f".unfinished-{what}{os.getpid()}{here}{path.name}") for what in ("", "old-"))
    for left in path.parent.glob(f".unfinished-*{here}{path.name}"):
        if not _alive(int(left.name.split("@")[0].rpartition("-")[2])):
            _remove(left)
    try:
        with room_for(path):
            yield beside
        if beside.is_dir() and path.exists():  # no system call replaces a folder; two renames never leave half of one
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


@contextlib.contextmanager
def locked(file: Path, what: str):
    """Hold the lock `file` during the block. While another process holds it, print that `what` waits for it, and wait.

    The operating system releases the lock when its process ends, however it ends. The lock also holds between machines
    that share the folder if the file system has locks, as NFS does. If it has none, nobody waits.

    Yields
    ------
    int
        The lock's file descriptor. A child process that inherits it holds the lock too.
    """
    with room_for(file):
        lock = _take(file, what)
    with lock:
        try:
            yield lock.fileno()
        finally:
            file.unlink(missing_ok=True)


def _take(file: Path, what: str):
    _writable(file.parent)
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
    lock.close()  # the process that held the lock has removed this file
    return _take(file, what)


def write_json(path: Path, content) -> None:
    """Write JSON with sorted keys, so that equal contents give equal bytes; raises ValueError for NaN and infinity."""
    with atomic(path) as beside:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        beside.write_text(text + "\n", encoding="utf-8")


def read_text(path: Path, missing: str) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises
    ------
    StudyError
        If it is not UTF-8 or can't be read. If there is no such file, the message is its path and `missing`.
    """
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
        raise StudyError(f"{path} is not valid JSON ({one_line(error)}); delete it and run make again") from None


def _no_number(literal: str):
    raise ValueError(f"{literal} is no number")


def fingerprint(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file's bytes; cached for as long as the file is unchanged."""
    state = os.stat(path)
    return _fingerprint(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@functools.cache
def _fingerprint(path: Path, *state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
