"""What is known of an ICU stay at an hour, and how its notes word it.

A note tells only what has begun by its hour and is to be written down at all. The principal diagnosis is often not yet
known: then there is a complaint, or a differential diagnosis.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

import numpy as np
import yaml

from drgstudy.synthetic.authors import Author, capitalized
from drgstudy.synthetic.course import ADDITIONAL_CODES, Writer
from drgstudy.synthetic.icu_stays import IcuStay
from drgstudy.synthetic.patients import pick
from drgstudy.synthetic.tables import FOLDER, Condition

LAST_HOUR = 72.0  # after ICU admission; later notes are not written
CONFUSED = 0.2  # share of medical stays written as if another acute problem had been the reason for admission
PLANNED_KNOWN = 0.9  # share of planned stays whose principal diagnosis is known
_KNOWN_AT, _KNOWN = (0.0, 6.0, 24.0, 48.0), (0.15, 0.22, 0.5, 0.62)  # the same for other stays, by hour
MARK = re.compile(r"\[\*\*.*?\*\*\]")  # of de-identification
_LATER = re.compile(  # in treatments: what is known only after days
    r"\bthen\b|week|day|x\d|x ?\{|narrow|once|improv|PICC|discharg|until|resol|extubat|transition|bridg|downtrend"
    r"|net neg|advanc|stable|wean|conver|return|MWF|overnight|uncomplic|stopped|home|no events|clos|peak|nadir|repeat"
    r"|HD|incident"
)
_IN_THEATRE = re.compile(r"\bOR\b|taken |evacuat|resect|repair|washed|emergent|[Pp]ost-?op|PACU|operati|incision|graft")
_TUBE = re.compile("intubat")
_BREATHING_ALONE = re.compile("nasal cannula|BiPAP|NRB|O2|speaking|IS$|spirometry|weaned")
_NOT_IN_ICU = re.compile("HD ?#|POD|discharg|FYI|admission|follow|outpatient|clinic|SDA")  # in distractors
_ARRIVED = re.compile("Received|New admit|ADMIT|Admitted to|adm to|brought in")  # said in the first hours only
_GOES_ON = re.compile("under treatment|per team|ongoing|Cont |still|no change|as before|no clear|No vent|recovering")
_UNIT = re.compile("ICU|unit|called out|call out")
_OBVIOUS = ("inj", "burn", "ob", "elec")  # syndromes without a differential diagnosis
_VENTILATOR_CODES = ("5A19", "0BH17")  # not told as procedures, since their duration is not known yet
_LONG_TERM, _DELIVERIES = ("0B11", "0DH6"), ("10D0", "10E")  # tracheostomy and feeding tube are late in the stay


@cache
def icu_phrases() -> dict:
    """The wording of ICU notes, ``icu.yaml``."""
    return yaml.safe_load((FOLDER / "icu.yaml").read_text(encoding="utf-8"))


@lru_cache(4096)
def _known_phrases(author: Author, kind: str) -> list[str]:
    """The phrases of a kind in ``icu.yaml`` that an author knows."""
    phrases = icu_phrases()[kind]
    return sorted(phrases, key=author.preference)[: max(6, (len(phrases) + 1) // 2)]


def count_words(text: str) -> int:
    """The number of words of a note, not counting its marks of de-identification."""
    return len(MARK.sub("", text).split())


class Presentation:
    """What is known when the patient comes; the code `apparent` is the one that looks like the principal diagnosis."""

    def __init__(self, writer: Writer, apparent: str) -> None:
        stay, hospital, rng = writer.stay, writer.hospital, writer.rng
        self.writer, self.rng, self.look_up = writer, rng, hospital.condition
        self.apparent, self.main = apparent, (main := hospital.condition(apparent))
        self.planned = stay.scenario.admission == "L" or writer.elective(main)
        vague = hospital.phrases["complaints"].get(main.syndrome)
        vaguely = vague and (not main.presenting or (not self.planned and rng.random() < 0.6))
        self.complaint = writer.choose(vague if vaguely else main.presenting) or writer.name(main)
        related, possible = (*{code[:3] for code in stay.codes}, main.code[:2]), ("", writer.sex)
        alike = [c for c in hospital.differentials.get(main.syndrome, []) if not c.code.startswith(related)]
        self.differential = [c for c in alike if hospital.sex_of(c.code) in possible]
        named = [code for code in stay.procedures if code in hospital.procedures]
        self.procedures = [code for code in named if not code.startswith(_VENTILATOR_CODES)]


class Chart(Presentation):
    """What is known of an ICU stay by `hour`, which moves on from note to note, and what has been `told`."""

    def __init__(self, writer: Writer, icu: IcuStay) -> None:
        super().__init__(writer, _apparent_principal(writer, icu))
        stay, main = writer.stay, self.main
        self.icu, self.hour = icu, 0.0
        self.told: set[str] = set()  # codes; "" after the first note; "on", "off" once the ventilator was reported
        self.filled: dict[str, str] = {}  # findings and treatments with their numbers
        self.uncertain = len(self.differential) > 1 and not self.planned and main.syndrome not in _OBVIOUS
        self.certainty = self.rng.random()
        self.codes = [c for c in stay.codes if c in stay.written and not c.startswith(ADDITIONAL_CODES)]
        self.codes = [c for c in self.codes if self.look_up(c) is not main]
        self.lures = [lure for _, lure in writer.lures(main, 300) if not _NOT_IN_ICU.search(lure)]
        self.performed = self._hours_of_procedures()
        self.abnormal = self._abnormal_parts()
        total = (stay.discharged - stay.admitted).total_seconds() / 3600
        self.died = not stay.alive and icu.hours <= LAST_HOUR and icu.before + icu.hours > total - 0.5
        self.slots = {**writer.slots, "cc": self.complaint}
        self.slots["age"] = str(stay.age) if stay.age < 90 else "[**Age over 90 **]"

    def _hours_of_procedures(self) -> dict[str, float]:
        """The hour by which each procedure is done; what was planned is done before ICU admission."""
        icu, rng, hours = self.icu, self.rng, {}
        for code in self.procedures:
            ready = icu.before > 2 and rng.random() < (0.7 if self.writer.hospital.operative([code]) else 0.5)
            if self.planned or ready or code.startswith(_DELIVERIES):
                hours[code] = 0.0
            elif not code.startswith(_LONG_TERM):
                hours[code] = min(float(rng.uniform(1, 26)), 0.8 * icu.hours)
        begun = [(self.look_up(code), at) for code, at in icu.onset.items()]
        after = [at for c, at in begun if c.kind == "a" and any(map(_IN_THEATRE.search, c.names))]  # complications
        return {code: max(-icu.before, min([at, *after])) for code, at in hours.items()}

    def _abnormal_parts(self) -> set[str]:
        """The parts of a note (``icu.yaml``) in which nobody would write that all is well."""
        stay, part, touched = self.writer.stay, icu_phrases()["part"], icu_phrases()["touched"]
        conditions = [self.look_up(code) for code in stay.codes]
        found = {part[c.system] for c in conditions if c.kind in "as" or c is self.main}
        found |= {each for c in conditions if c.kind == "a" or c is self.main for each in touched.get(c.syndrome, ())}
        found |= {"GU"} if any(code.startswith(("N17", "N18", "Z992")) for code in stay.codes) else set()
        return found | (set() if stay.alive else {"NEURO", "RESP", "CV", "GI"})

    # What is true at the hour.

    @property
    def diagnosed(self) -> bool:
        """Whether the principal diagnosis is known."""
        share = PLANNED_KNOWN if self.planned else np.interp(self.hour, _KNOWN_AT, _KNOWN)
        return bool(self.has_begun(self.apparent) and self.certainty < share)

    @property
    def ventilated(self) -> bool:
        """Whether the patient is ventilated."""
        return self.icu.ventilated is not None and self.icu.ventilated[0] <= self.hour < self.icu.ventilated[1]

    @property
    def operations(self) -> list[str]:
        """The operating room procedures that are done."""
        return [c for c, at in self.performed.items() if at <= self.hour and self.writer.hospital.operative([c])]

    def has_begun(self, code: str) -> bool:
        """Whether a code of the stay shows."""
        return self.icu.onset[code] <= self.hour

    def tellable(self, text: str) -> bool:
        """Whether a finding or treatment may be told."""
        unfit = {
            _LATER: True,
            _IN_THEATRE: not self.operations,
            _BREATHING_ALONE: self.ventilated,
            _TUBE: not self.ventilated,
        }
        return not any(applies and pattern.search(text) for pattern, applies in unfit.items())

    # Sentences.

    def fitting(self, texts: list[str]) -> list[str]:
        """Those of the texts that suit stay and hour; all that suit the stay if none suits the hour."""
        unfit = [_GOES_ON] * (self.hour < 6) + [_ARRIVED] * (self.hour >= 6) + [_UNIT] * (self.hour < 0)
        texts = [text for text in texts if not any(pattern.search(text) for pattern in unfit)] or texts
        return self.writer.fitting(texts)

    def fill(self, text: str, **slots: str) -> str:
        """A sentence with the author's abbreviations and its slots filled."""
        author = self.writer.author
        return capitalized(author.fill(author.abbreviated(text), self.rng, {**self.slots, **slots}))

    def phrases(self, kind: str) -> list[str]:
        """The phrases of a kind that the author knows."""
        return _known_phrases(self.writer.author, kind)

    def say(self, kind: str, **slots: str) -> str:
        """One of the author's phrases of a kind, with its slots filled."""
        return self.fill(pick(self.rng, self.fitting(self.phrases(kind))), **slots)

    def choose(self, texts: tuple[str, ...]) -> str:
        """One of the findings or treatments that may be told, or ""."""
        told = list(filter(self.tellable, map(self.worded, texts)))
        return pick(self.rng, told) if told else ""

    def worded(self, template: str) -> str:
        """A finding or treatment in words and numbers that stay the same in all notes."""
        if template not in self.filled:
            self.filled[template] = self.writer.choose((template,))
        return self.filled[template]

    def describe(self, kind: str, condition: Condition, name: str) -> str:
        """A sentence about a condition from a phrase that can be filled; without `name`, by finding and treatment."""
        if condition.kind == "s":
            return capitalized(self.writer.name(condition)) + "."
        slots = {"name": name, "finding": self.choose(condition.findings), "treat": self.choose(condition.treatments)}
        slots = {slot: text for slot, text in slots.items() if text}
        phrases = self.phrases(kind)
        if filled := [text for text in phrases if set(re.findall(r"\{(\w+)\}", text.lower())) <= slots.keys()]:
            return self.fill(pick(self.rng, self.fitting(filled)), **slots)
        if event := name or slots.get("finding"):
            return self.say(f"{kind}_bare", event=event, name=event)
        return capitalized(slots["treat"]) + "." if "treat" in slots else ""

    def sentences(self, texts: list[str], words: float) -> list[str]:
        """Some of the texts with their slots filled, until there are about as many words."""
        texts, found = list(self.fitting(texts)), []
        while words > 3 and texts:
            found.append(self.fill(texts.pop(int(self.rng.random() * len(texts)))))
            words -= count_words(found[-1])
        return found


def _apparent_principal(writer: Writer, icu: IcuStay) -> str:
    """The code that the notes take for the principal diagnosis; in some medical stays it is another acute one."""
    stay, hospital = writer.stay, writer.hospital
    written = [(code, hospital.condition(code)) for code in stay.codes[1:] if code in stay.written]
    acute = [code for code, c in written if c.kind == "a" and c.can_lead and hospital.severity(code)]
    competing = [code for code in acute if icu.onset[code] <= -icu.before]  # present on admission
    medical = not writer.operated and hospital.condition(stay.codes[0]).syndrome not in ("ob", "nb", "elec")
    confused = competing and medical and writer.rng.random() < CONFUSED
    return pick(writer.rng, competing) if confused else stay.codes[0]
