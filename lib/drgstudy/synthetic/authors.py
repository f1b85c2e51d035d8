"""Clinicians who write notes: each has a service, a layout, favourite phrases and abbreviations, and makes typos."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from drgstudy.synthetic.patients import pick
from drgstudy.synthetic.tables import Hospital

N_AUTHORS = 240  # shared out among the services by their size, but at least `_MIN_AUTHORS` each
_MIN_AUTHORS = 3
_MIN_PHRASES = 8  # an author knows every second phrase of a list, but no fewer than these
_CHOICE = re.compile(r"\[([^][]*)\]")
_HABIT = 0.4  # how often an author takes the favourite of alternatives
_SLOT = re.compile(r"\{([A-Za-z]\w*|[\d.]+)(?:-([\d.]+))?\}")


Taste = Callable[[str], float]


def fashion(year: float) -> Taste:
    """The taste of a time from 0 to 1: each text is liked most at a time of its own, so that new forms come up."""
    return lambda text: -abs(zlib.crc32(text.encode()) / 2**32 - year)


def capitalized(text: str) -> str:
    """A text that begins with a capital letter, unless its first word is one such as pAF or dCHF."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def draw_number(low: str, high: str, rng: np.random.Generator) -> str:
    """A number of the range, written with as many digits before and after the decimal point as `low` has."""
    digits = len(low.partition(".")[2])
    number = f"{float(low) + rng.random() * (float(high) - float(low)):.{digits}f}"
    return number if digits else number.zfill(len(low))


@dataclass(eq=False)
class Author:
    """A clinician's habits, which follow from the author's number alone."""

    number: int
    hospital: Hospital
    layout: str  # "prose", "problems" or "systems"
    heading: str  # of the hospital course
    subject: str  # what the patient is called; "title" stands for Mr. or Ms.
    typo_rate: float  # misspelt words in a hundred
    bullet: str
    verbosity: float  # length of the notes, relative to the colleagues' notes
    follows_up: bool  # ends with what the next doctor should do
    abbreviation_rate: float  # share of the possible abbreviations that the author uses
    _phrases: dict[str, list[str]] = field(default_factory=dict)
    _forms: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, number: int, hospital: Hospital) -> Author:
        """The author of this number, who is the same in every hospital."""
        rng = np.random.default_rng([36, number])
        habits = {
            "layout": pick(rng, ["prose"] * 4 + ["problems"] * 4 + ["systems"]),
            "heading": pick(rng, hospital.phrases["headings"]),
            "subject": pick(rng, ["The patient", "Pt", "title", "title", "Patient"]),
            "typo_rate": pick(rng, [0.0, 0.1, 0.3, 0.8]),
            "bullet": pick(rng, ["# ", "# ", "#", "- ", ""]),
            "verbosity": float(rng.lognormal(-0.02, 0.2)),
            "follows_up": rng.random() < 0.3,
            "abbreviation_rate": rng.random(),
        }
        return cls(number, hospital, **habits)

    @classmethod
    def staff(cls, hospital: Hospital) -> dict[str, list[Author]]:
        """The authors of each service."""
        total, number, staff = sum(hospital.services.values()), 0, {}
        for service, weight in hospital.services.items():
            size = max(_MIN_AUTHORS, round(N_AUTHORS * weight / total))
            staff[service] = [cls.of(number + i, hospital) for i in range(size)]
            number += size
        return staff

    def preference(self, text: str) -> int:
        """How much the author likes a text: arbitrary, but always the same; 0 to 2**32 - 1."""
        return zlib.crc32(f"{self.number} {text}".encode())

    def abbreviated(self, text: str) -> str:
        """A text with the author's abbreviations."""
        parts = self.hospital.abbreviable(text)
        return "".join(self._form(part) if i % 2 else part for i, part in enumerate(parts)) if parts[1:] else text

    def _form(self, long: str) -> str:
        """The author's form of an expression: the favourite abbreviation, or the long form itself."""
        if long not in self._forms:
            favourite = max(self.hospital.shorthand[long.lower()], key=self.preference)
            self._forms[long] = favourite if self.preference(favourite) < self.abbreviation_rate * 2**32 else long
        return self._forms[long]

    def phrases(self, kind: str) -> list[str]:
        """The phrases of a kind that the author knows."""
        if kind not in self._phrases:
            phrases = self.hospital.phrases[kind]
            self._phrases[kind] = sorted(phrases, key=self.preference)[: max(_MIN_PHRASES, (len(phrases) + 1) // 2)]
        return self._phrases[kind]

    def fill(self, template: str, rng: np.random.Generator, slots: dict[str, str], taste: Taste | None = None) -> str:
        """A template with its alternatives chosen, its slots filled and its numbers drawn, as ``phrases.yaml`` explains.

        Among alternatives, that of the highest `taste` is the favourite; without one, the author's preference decides.
        """
        drawn = set()

        def chosen(match: re.Match) -> str:
            forms = match[1].split("|")
            return max(forms, key=taste or self.preference) if rng.random() < _HABIT else pick(rng, forms)

        alternatives = 1
        while alternatives:  # the innermost first
            template, alternatives = _CHOICE.subn(chosen, template)

        def value(match: re.Match) -> str:
            key, high = match.groups()
            if high is not None:
                return draw_number(key, high, rng)
            if key in slots:
                return slots[key]
            lower = key.lower()
            text = slots.get(lower)
            if text is None:
                chosen = pick(rng, [phrase for phrase in self.phrases(lower) if phrase not in drawn])
                drawn.add(chosen)
                text = self.fill(self.abbreviated(chosen), rng, slots, taste)
            return text if key == lower else capitalized(text)

        return _SLOT.sub(value, template)


@cache
def hospital_and_staff(tail: float) -> tuple[Hospital, dict[str, list[Author]]]:
    """A hospital and the authors of each of its services, loaded once in each process."""
    hospital = Hospital(tail)
    return hospital, Author.staff(hospital)
