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


def stream(
    path: Path, types: dict[str, pyarrow.DataType], may_be_empty: bool = False
) -> Iterator[tuple[pyarrow.RecordBatch, int]]:
    """Read some columns of a CSV table of any length, in batches; nothing else of the file is converted or held.

    Arrow's reader is used because it streams quoted text of many lines, decompresses at the same time and checks UTF-8.

    Parameters
    ----------
    path : Path
        .csv or .csv.gz
    types : dict of str to pyarrow.DataType
        Types by column, in lower case whatever the file's case is. Values of type int64 may not be negative.
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
    empty = StudyError(f"{path} is empty; expected a CSV table: a line of column names and rows below it")
    with explained(path), _opened(path) as file:
        start = file.readline(HEADER_BYTES)
        line = (start.splitlines() or [b""])[0]
        header = next(csv.reader([line.decode("utf-8-sig")]), [])
        goes_on = start[len(line) :].strip() or file.read(1)
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
    with explained(path, header), _CountingQuotes(path) as file:
        for batch in pyarrow.csv.open_csv(
            pyarrow.PythonFile(file.handle(), mode="r"),
            read_options=pyarrow.csv.ReadOptions(block_size=BATCH_BYTES),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=list(written), column_types=written),
        ):
            rows += len(batch)
            for name, values in zip(written, batch.columns, strict=True):
                if values.type == pyarrow.int64() and (pyarrow.compute.min(values).as_py() or 0) < 0:
                    raise StudyError(f"{path}, column {name} holds a negative number; expected 0 or more")
            yield batch.rename_columns(list(types)), file.raw.tell()
        if file.nuls:
            raise StudyError(f"{path} is damaged: {file.nuls} of its bytes are zero; get the file again")
        if file.quotes % 2:  # Arrow takes the rest of the file for one text
            raise pyarrow.ArrowInvalid("a quote is never closed")
    if not rows and not may_be_empty:
        raise empty


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


def _opened(path: Path):
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


@contextlib.contextmanager
def explained(path: Path, header: Sequence[str] = ()):
    """Replace the readers' errors about a bad file by a StudyError of one sentence, which does not quote a note."""
    try:
        yield
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pyarrow.ArrowException) as error:
        said = str(error)
        column = re.search(r"column #(\d+)", said)
        place = f"{path}, column {header[int(column[1])]}" if column and header else str(path)
        value = re.search(r"error to (\w+).*: invalid value (.*)", said, re.DOTALL)
        if value:
            expected = {"int64": "a whole number", "double": "a number"}
            expected = expected.get(value[1], "a time such as 2180-05-06 22:15:00")
            raise StudyError(f"{place} holds {quoted(value[2])}, expected {expected}") from None
        if isinstance(error, UnicodeDecodeError) or "UTF8" in said:
            said = "is not UTF-8 text (perhaps Latin-1, or compressed)"
            raise StudyError(f"{place} {said}; convert the file to UTF-8") from None
        if isinstance(error, PermissionError):
            raise StudyError(f"{path} may not be read; change its permissions") from None
        if isinstance(error, (OSError, EOFError, zlib.error)):
            raise StudyError(f"{path} is truncated or damaged ({said}); get the file again") from None
        shape = re.search(r"Expected \d+ columns, got \d+", said)
        reason = shape[0].lower() if shape else "a quote is never closed"
        if "straddl" in said:
            reason = f"a row is longer than {BATCH_BYTES >> 20} MiB, perhaps for want of a closing quote"
        raise StudyError(f"{path} is not a well-formed CSV table: {reason}") from None
