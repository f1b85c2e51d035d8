"""Both ends of real hospital courses, judged on notes from which no word was learned.

    python benchmarks/boundaries.py [--notes FILE] [--rounds N]

The notes are MTSamples' transcriptions; where each course begins and ends was read by a person. In each round they are
halved at random. The words of `drgstudy.notes` give way to those that the headings of one half have, outside the
courses and inside them, and the other half is judged; then the halves change places. Two more lines: the structure
alone, without a word; and the rules as they are, which were made with all of these notes in sight.
"""

import argparse
import csv
import random
import re
from pathlib import Path
from unittest import mock

from drgstudy import notes
from drgstudy.study import ROOT

NOTES = ROOT.parent / "shared" / "open-data" / "mtsamples_hospital_course_half.csv"
BOUNDARIES = ROOT / "tests" / "golden" / "mtsamples_boundaries.csv"


def read(path: Path = NOTES) -> list[dict]:
    """The notes that have a course: their text, and the course's true start and end."""
    with open(path, encoding="utf-8", newline="") as file:
        texts = {row["note_id"]: row["transcription"] for row in csv.DictReader(file)}
    with open(BOUNDARIES, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["start"]]
    return [{"text": texts[row["note_id"]], "start": int(row["start"]), "end": int(row["end"])} for row in rows]


def headings(text: str) -> set[str]:
    """The words of the headings in capitals."""
    names = re.findall(r"(?:^|,)\s*([A-Z][A-Z /&()-]+):", text)
    return {word for name in names for word in re.findall("[a-z]+", name.lower())}


def words(outside: set[str], inside: set[str]) -> dict:
    """What replaces the lists of `drgstudy.notes`: words of sections, and words that stand within a course."""
    within = re.compile("|".join(rf".*\b{word}\b" for word in sorted(inside - outside)) or "(?!)")
    return {"NOUNS": frozenset(outside), "PARTS": frozenset(), "TRANSCRIBED": frozenset(), "WITHIN": within}


def learned(half: list[dict]) -> dict:
    """The words of the headings of some notes."""
    outside = [headings(note["text"][: note["start"]]) | headings(note["text"][note["end"] :]) for note in half]
    inside = [headings(note["text"][note["start"] : note["end"]]) for note in half]
    return words(set().union(*outside) - notes.LINKS, set().union(*inside))


def judge(half: list[dict], replaced: dict) -> list[tuple[bool, bool]]:
    """For each note, whether the start and the end of its course are found."""
    right = []
    with mock.patch.multiple(notes, **{"NOUNS": notes.NOUNS} | replaced):
        notes.is_section.cache_clear()
        for note in half:
            found = notes.hospital_course(note["text"]) or ""
            start = note["text"].find(found)
            right.append((start == note["start"], start + len(found) == note["end"]))
    notes.is_section.cache_clear()
    return right


def crossed(every: list[dict], rounds: int) -> list[tuple[bool, bool]]:
    """Each half of each round, judged by the words of the other."""
    right = []
    for seed in range(rounds):
        shuffled = random.Random(seed).sample(every, len(every))
        for half in (0, 1):
            right += judge(shuffled[half::2], learned(shuffled[1 - half :: 2]))
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=Path, default=NOTES, help="MTSamples' transcriptions, a CSV file")
    parser.add_argument("--rounds", type=int, default=20, help="how often the notes are halved")
    arguments = parser.parse_args()
    every = read(arguments.notes)
    for name, right in {
        "words of the other half": crossed(every, arguments.rounds),
        "the structure alone": judge(every, words(set(), set())),
        "the rules as they are": judge(every, {}),
    }.items():
        starts, ends = map(sum, zip(*right, strict=True))
        n = len(right)
        print(
            f"{name:24s} {n:5d} courses: {starts} starts ({starts / n:.1%}) and {ends} ends ({ends / n:.1%}) are right"
        )


if __name__ == "__main__":
    main()
