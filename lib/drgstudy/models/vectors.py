"""Word vectors in word2vec's format, as text or binary, compressed by gzip or not: the content says which it is.

Only the words that are asked for are kept, so a file larger than the memory can be read: BioWordVec has 13 GB.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

CHUNK = 2**20  # bytes read at once; no word, and no vector, is longer


def read_vectors(file: Path, words: set[str]) -> tuple[dict[str, np.ndarray], int]:
    """The vectors (float32) of those of the words that the file has, of two equal words the first; and their length.

    The original tool cuts long words in its binary files, also within a character. These are no words that we ask for.

    Raises
    ------
    ValueError
        If the file is damaged, shorter than its first line says, or not in word2vec's format.
    """
    wanted, found = {word.encode() for word in words}, {}
    try:
        with open(file, "rb") as plain, gzip.open(plain) if plain.peek(2)[:2] == b"\x1f\x8b" else plain as stream:
            head = stream.readline(100).split()
            count, size = map(int, head) if len(head) == 2 and all(map(bytes.isdigit, head)) else (0, 0)
            if not (count and 0 < size < CHUNK / 32):
                raise ValueError("its first line does not give the number of words and that of dimensions")
            start = stream.tell()
            line = stream.readline(CHUNK).rsplit(None, size)
            stream.seek(start)
            for word, vector in (_text if _is_text(line, size) else _binary)(stream, count, size, wanted):
                found.setdefault(word.decode(), vector)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None
    return found, size


def _is_text(line: list[bytes], size: int) -> bool:
    try:
        return np.array(line[1:], dtype=float).size == size
    except ValueError:
        return False


def _text(stream: BinaryIO, count: int, size: int, wanted: set[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    for done in range(count):
        if not (line := stream.readline(CHUNK)).strip():
            raise ValueError(f"it ends after {done} of {count} words")
        if line.split(None, 1)[0] in wanted:
            word, *numbers = line.rsplit(None, size)
            if word in wanted:  # not so for words with a blank within
                if len(numbers) < size:
                    raise ValueError(f"word {done + 1} has no {size} numbers")
                yield word, np.array(numbers, dtype=np.float32)


def _binary(stream: BinaryIO, count: int, size: int, wanted: set[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    read, at, width = b"", 0, 4 * size
    for done in range(count):
        while (blank := read.find(b" ", at)) < 0 or blank + 1 + width > len(read):
            more = stream.read(CHUNK)
            if not more or len(read) - at > CHUNK:
                raise ValueError(f"it ends after {done} of {count} words")
            read, at = read[at:] + more, 0
        if (word := read[at:blank].lstrip(b"\n")) in wanted:
            yield word, np.frombuffer(read, "<f4", size, blank + 1).copy()
        at = blank + 1 + width
