"""Reading CSV tables of any length, compressed or not, in Arrow batches; an error about a bad file is one sentence."""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.csv

from drgstudy.study import StudyError, quoted

BATCH_BYTES = 1 << 22  # of CSV text; also the longest row, far longer than any note. Arrow reads thirty batches ahead
HEADER_BYTES = 1 << 16  # far more than the longest line of column names
_LENIENT = {  # what other programs put around a whole number or a time without changing what it says
    pyarrow.int64(): (r"^\s*(\d+)\.0*\s*$", r"\1"),
    pyarrow.timestamp("s"): (
        r"(?i)^\s*(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?)?(?: ?(?:Z|UTC|GMT|[+-]00(?::?00)?))*\s*$",
        r"\1 \2",
    ),
}
_EMPTY = pyarrow.array(pyarrow.csv.ConvertOptions().null_values)


def stream(
    path: Path, types: dict[str, pyarrow.DataType], may_be_empty: bool = False
) -> Iterator[tuple[pyarrow.RecordBatch, int]]:
    """Read some columns of a CSV table of any length, in batches; nothing else of the file is converted or held.

    Arrow's reader is used because it streams quoted text of many lines, decompresses at the same time and checks UTF-8.
    It refuses whole numbers that pandas wrote as ``3.0``, and times with ``.000`` or ``+00:00``. At the first of these
    the file is read again from its start, with numbers and times as text, which is slower: then they are understood.

    Parameters
    ----------
    path : Path
        .csv or .csv.gz
    types : dict of str to pyarrow.DataType
        Types by column, in lower case whatever the file's case is. Values of type int64 may not be negative. Of times,
        fractions of a second are cut off, and no zone but UTC may be named.
    may_be_empty : bool
        Whether a line of column names without rows is accepted.

    Yields
    ------
    RecordBatch
        Its columns are named and ordered as `types`.
    int
        How many bytes of the file have been read so far, before decompression.

    Raises
    ------
    StudyError
        For a file that is empty, truncated, not UTF-8, lacks a column or holds a value of another type. The error may
        come after some batches.
    """
    header, goes_on = _header(path)
    empty = StudyError(f"{path} is empty; expected a CSV table: a line of column names and rows below it")
    if not header:
        raise empty
    as_written = {name.lower(): name for name in header}
    if missing := [name for name in types if name not in as_written]:
        names = [name for name in as_written if re.fullmatch(r"[a-z_]{1,30}", name)]  # the line may be part of a note
        found = f"it has {', '.join(names[:30])}" if names else "its first line names none; expected names and commas"
        raise StudyError(f"{path} has no column {', '.join(missing)}; {found}")
    if len(as_written) < len(header):
        raise StudyError(f"{path} names a column twice in its first line; remove one of them")
    if not goes_on and not may_be_empty:
        raise empty
    written = {as_written[name]: arrow_type for name, arrow_type in types.items()}
    rows = 0
    with explained(path, header):
        for lenient in (False, True):
            before = rows  # have been given already, and are passed over when the file is read again
            try:
                for batch, position in _batches(path, header, written, lenient):
                    known = min(before, len(batch))
                    before -= known
                    if known < len(batch):
                        rows += len(batch) - known
                        yield batch.slice(known).rename_columns(list(types)), position
                break
            except pyarrow.ArrowInvalid as error:
                if lenient or not re.match(
                    r"In CSV column #\d+: CSV conversion error to (int64|timestamp)", str(error)
                ):
                    raise
    if not rows and not may_be_empty:
        raise empty


def columns(path: Path) -> list[str]:
    """The names of a table's columns in lower case, as its first line has them; raises StudyError as `stream`."""
    return [name.lower() for name in _header(path)[0]]


def _header(path: Path) -> tuple[list[str], bool]:
    """The first line's names, none of an empty file, and whether anything follows."""
    with explained(path), gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        start = file.readline(HEADER_BYTES)
        line = (start.splitlines() or [b""])[0]
        return next(csv.reader([line.decode("utf-8-sig")]), []), bool(start[len(line) :].strip() or file.read(1))


def _batches(
    path: Path, header: list[str], written: dict[str, pyarrow.DataType], lenient: bool
) -> Iterator[tuple[pyarrow.RecordBatch, int]]:
    """The columns `written` in batches, as the file names them, and how far it has been read."""
    types = {name: pyarrow.string() if lenient and kind in _LENIENT else kind for name, kind in written.items()}
    with _CountingQuotes(path) as file:
        for batch in pyarrow.csv.open_csv(
            pyarrow.PythonFile(file.handle(), mode="r"),
            read_options=pyarrow.csv.ReadOptions(block_size=BATCH_BYTES),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=list(types), column_types=types),
        ):
            for i, (name, kind) in enumerate(written.items()):
                if kind != types[name]:
                    batch = batch.set_column(i, name, _understood(batch[name], kind, header.index(name)))
                if kind == pyarrow.int64() and (pyarrow.compute.min(batch[name]).as_py() or 0) < 0:
                    raise StudyError(f"{path}, column {name} holds a negative number; expected 0 or more")
            yield batch, file.raw.tell()
        if file.nuls:
            raise StudyError(f"{path} is damaged: {file.nuls} of its bytes are zero; get the file again")
        if file.quotes % 2:  # Arrow takes the rest of the file for one text
            odd = "a quote is never closed, or stands alone in a text"
            raise StudyError(f"{path} is not a well-formed CSV table: {odd}")


def _understood(texts: pyarrow.Array, kind: pyarrow.DataType, column: int) -> pyarrow.Array:
    """Cells as whole numbers or times, whoever wrote them; the error is worded like that of Arrow's reader."""
    bare = pyarrow.compute.utf8_trim_whitespace(pyarrow.compute.replace_substring_regex(texts, *_LENIENT[kind]))
    try:
        return pyarrow.compute.if_else(pyarrow.compute.is_in(bare, _EMPTY), None, bare).cast(kind)
    except pyarrow.ArrowInvalid as error:
        value = re.search(r"'(.*)'", str(error), re.DOTALL)
        raise pyarrow.ArrowInvalid(
            f"In CSV column #{column}: CSV conversion error to {kind}: invalid value {value[0] if value else '?'}"
        ) from None


class _Handle(SimpleNamespace):
    """What Arrow holds of a file. `weakref.finalize` can tell when it is freed, but not of a plain SimpleNamespace."""


class _CountingQuotes:
    """A table's file, read once, and the number of quotes and of zero bytes in it so far.

    Arrow decompresses it without Python's interpreter lock, for which Python's gzip would have to wait every 8 KiB.
    """

    def __init__(self, path: Path):
        self.quotes, self.nuls, self.closed, self.lock = 0, 0, False, threading.Lock()
        self.released, self.raw = threading.Event(), pyarrow.OSFile(str(path))
        self.file = pyarrow.CompressedInputStream(self.raw, "gzip") if path.suffix == ".gz" else self.raw

    def handle(self) -> _Handle:
        """What Arrow is given. It is freed when none of Arrow's threads will read any more."""
        handle = _Handle(closed=False, read_buffer=self.read_buffer)
        weakref.finalize(handle, self.released.set)
        return handle

    def read_buffer(self, size: int) -> pyarrow.Buffer:
        with self.lock:
            block = self.file.read_buffer(0 if self.closed else size)
        values = np.frombuffer(block, "uint8")
        self.quotes += np.count_nonzero(values == ord('"'))
        self.nuls += len(values) - np.count_nonzero(values)
        return block

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        with self.lock:  # Arrow's thread reads ahead; from now on it finds the end of the file
            self.closed = True
        self.released.wait(10)  # a thread that still reads while Python ends would crash it


@contextlib.contextmanager
def explained(path: Path, header: Sequence[str] = ()):
    """Replace the readers' errors about a bad file by a StudyError of one sentence, which does not quote a note."""
    try:
        yield
    except MemoryError:
        raise
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise StudyError(_reason(error, path, header)) from None


def _reason(error: Exception, path: Path, header: Sequence[str]) -> str:
    """Arrow's messages hold rows of the file, so each is matched from its start, and none is handed on."""
    said = str(error)
    cell = re.match(r"In CSV column #(\d+): CSV conversion error to (\w+)[^:]*: (.*)", said, re.DOTALL)
    place = f"{path}, column {header[int(cell[1])]}" if cell and header else str(path)
    if isinstance(error, UnicodeDecodeError) or (cell and cell[3].startswith("invalid UTF8")):
        return f"{place} is not UTF-8 text (perhaps Latin-1, or compressed); convert the file to UTF-8"
    if cell:
        value = cell[3].removeprefix("invalid value ")
        if cell[2] == "timestamp" and (
            zone := re.search(r"\d\d:\d\d\S* ?([+-]\d\d(:?\d\d)?|(?![AP]M)[A-Z]{1,5})'$", value)
        ):
            return f"{place} holds a time of the zone {zone[1]}; expected times of one clock, without a zone or in UTC"
        expected = {"int64": "a whole number", "double": "a number"}
        return f"{place} holds {quoted(value)}, expected {expected.get(cell[2], 'a time such as 2180-05-06 22:15:00')}"
    if isinstance(error, PermissionError):
        return f"{path} may not be read; change its permissions"
    if isinstance(error, OSError) and error.strerror:
        return f"{path} can't be read ({error.strerror})"
    if isinstance(error, (OSError, EOFError, zlib.error)):
        return f"{path} is truncated or damaged ({said}); get the file again"
    if shape := re.match(r"CSV parse error: (?:Row #\d+: )?(Expected \d+ columns, got \d+)", said):
        return f"{path} is not a well-formed CSV table: {shape[1].lower()}"
    if said.startswith("straddling object"):
        long = f"a row is longer than {BATCH_BYTES >> 20} MiB, perhaps for want of a closing quote"
        return f"{path} is not a well-formed CSV table: {long}"
    return f"{path} can't be read as a CSV table; see whether it opens elsewhere, or get it again"
