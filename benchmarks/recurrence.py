"""How often notes repeat one another: the synthetic hospital's courses beside real ones.

    python benchmarks/recurrence.py [--profile NAME] [--notes FILE] [--words N] [--rounds N]

In each round some courses are drawn and dealt into two halves of so many words each. Printed is the mean share of the
running n-grams of one half that the other half has too. Real notes are MTSamples' transcriptions, which come from many
hospitals. Words are lower-cased runs of letters and digits; no n-gram goes beyond its course.
"""

import argparse
import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy.notes import hospital_course
from drgstudy.study import ROOT, Paths

NOTES = ROOT.parent / "shared" / "open-data" / "mtsamples_hospital_course_half.csv"
SIZES = (1, 2, 3, 5)


def ngrams(texts: list[str], size: int) -> list[tuple[str, ...]]:
    """The running n-grams of all texts."""
    words = [re.findall("[a-z0-9]+", text.lower()) for text in texts]
    return [gram for row in words for gram in zip(*(row[at:] for at in range(size)), strict=False)]


def halves(texts: list[str], words: int, rng: np.random.Generator) -> list[list[str]]:
    """Two sets of texts without one in common, each of so many words, or as near as whole texts come to it."""
    dealt, left = [], [texts[at] for at in rng.permutation(len(texts))]
    for _ in range(2):
        half, n = [], 0
        while left and n < words:
            half.append(left.pop())
            n += len(half[-1].split())
        dealt.append(half)
    return dealt


def recurrence(texts: list[str], words: int, rounds: int, seed: int = 0) -> list[float]:
    """The mean share of one half's running n-grams that the other half has, for each of `SIZES`."""
    rng, shares = np.random.default_rng(seed), []
    for _ in range(rounds):
        one, other = halves(texts, words, rng)
        shares.append([np.mean([gram in known for gram in ngrams(other, n)]) for n in SIZES for known in [set(ngrams(one, n))]])
    return np.mean(shares, 0).tolist()


def main() -> None:
    """Print both rows and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--notes", type=Path, default=NOTES)
    parser.add_argument("--words", type=int, default=5800)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    with open(asked.notes, encoding="utf-8", newline="") as file:
        found = [hospital_course(row["transcription"]) for row in csv.DictReader(file)]
    made = pd.read_parquet(Paths(asked.profile).stays, columns=["text"])["text"].tolist()
    rows = {
        name: recurrence(texts, asked.words, asked.rounds)
        for name, texts in (("real", [text for text in found if text]), (asked.profile, made))
    }
    table = pd.DataFrame(rows, index=pd.Index([f"{n} words" for n in SIZES])).T
    table.loc["ratio"] = table.loc[asked.profile] / table.loc["real"]
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
