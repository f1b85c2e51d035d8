"""Writing the hospital course, as authors with habits do.

An author has a layout (prose, problems, organ systems), favourite names for things, and a rate of slips. The text is
built from the most important thing down until its length is reached, so what does not fit is not written down: the
codes that a careful reader could name are returned with it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

import numpy as np

from drgstudy.synthetic.patients import Stay, pick
from drgstudy.synthetic.tables import Condition, Hospital

N_AUTHORS = 60
VAGUE = 0.7  # share of emergencies whose complaint is told in words that fit many conditions
EVIDENCE, TREATED = 0.5, 0.6  # how often the principal diagnosis comes with a finding, with its treatment
CONFUSED = 0.08  # how often a course is led by a competing problem as if that had been the reason for admission
ELABORATE = 0.3  # how often a competing problem takes more room than the reason for admission
LURES = 5.2  # up to so many things denied, past or suspected
_SLOT = re.compile(r"\{([A-Za-z]\w*|[\d.]+)(?:-([\d.]+))?\}")
_ACTIVE = re.compile(r"\bwas (?=(?:had|improved|resolved|cleared)\b)")  # treatments that are no participles
_POSTOPERATIVE = re.compile("POD|[Pp]ostop")
_PLAIN = ("followed", "seen", "evaluated", "continued", "monitored", "kept", "maintained", "had", "observed")
_FILLERS = {"ORTHOPAEDICS": "orthopaedics", "OBSTETRICS": "obstetrics", "NEWBORN": "newborn", "NEONATOLOGY": "newborn",
            "PSYCHIATRY": "psychiatry", "NEUROLOGY": "neurology"}  # fmt: skip


_UNSPOKEN = ("B95", "B96", "Z16", "Z37")  # codes that add to others and are no problem of their own

_LIVING = re.compile("discharge|ambulat|diet|follow|tolerat|cleared|comfortable|visit|stable|outpatient|resumed|reviewed")


@dataclass(frozen=True)
class Author:
    """A clinician's habits; all follow from the id, so that the same author writes alike everywhere."""

    id: int
    layout: str
    heading: str
    subject: str
    slips: float
    bullet: str

    @classmethod
    def of(cls, number: int, hospital: Hospital) -> Author:
        rng = np.random.default_rng([20_231_003, number])
        layout = pick(rng, ["prose"] * 4 + ["problems"] * 4 + ["systems"])
        return cls(
            number,
            layout,
            pick(rng, hospital.phrases["headings"]),
            pick(rng, ["The patient", "Pt", "title", "title", "Patient"]),
            pick(rng, [0.0, 0.0, 0.1, 0.3]),
            pick(rng, ["# ", "# ", "#", "- ", "1"]),
        )


@dataclass
class Course:
    """The text, and the codes that it lets a careful reader name, the one that looks like the principal first."""

    text: str
    documented: list[str]
    documented_procedures: list[str]
    competing: str = ""


def capital(text: str) -> str:
    """Begin a sentence, leaving words such as pAF and dCHF alone."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def fill(template: str, rng: np.random.Generator, slots: dict[str, str]) -> str:
    """Fill the slots and numeric ranges of a template."""

    def value(match: re.Match) -> str:
        key, high = match.groups()
        if high is None:
            return slots[key] if key in slots else capital(slots[key.lower()])
        digits = len(key.partition(".")[2])
        number = float(key) + rng.random() * (float(high) - float(key))
        return f"{number:.{digits}f}".zfill(len(key)) if key[0] == "0" and not digits else f"{number:.{digits}f}"

    return _SLOT.sub(value, template)


@dataclass
class Writer:
    """One author at work on one stay."""

    hospital: Hospital
    author: Author
    stay: Stay
    sex: str
    disposition: str  # MIMIC-IV's discharge_location
    rng: np.random.Generator
    documented: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        female, child = self.sex == "F", self.stay.age == 0
        subject = self.author.subject
        if subject == "title":
            subject = "Baby ___" if child else ("Ms. ___" if female else "Mr. ___")
        elif child:
            subject = "Infant"
        self.slots = {
            "pt": subject if subject in ("Pt", "Patient") or "_" in subject else subject[0].lower() + subject[1:],
            "Pt": subject,
            "he": "she" if female else "he",
            "him": "her" if female else "him",
            "his": "her" if female else "his",
            "man": ("girl" if female else "boy") if child else ("woman" if female else "man"),
            "m": "F" if female else "M",
            "service": self.stay.scenario.service.lower(),
        }

    def say(self, kind: str, **slots: str) -> str:
        if kind == "treat" and slots["treat"].startswith(_PLAIN):
            kind = "treat_plain"
        return _ACTIVE.sub("", fill(pick(self.rng, self.hospital.phrases[kind]), self.rng, {**self.slots, **slots}))

    def one(self, texts: tuple[str, ...]) -> str:
        return fill(pick(self.rng, texts), self.rng, self.slots)

    def name(self, condition: Condition) -> str:
        """The author's favourite name, mostly."""
        favourite = zlib.crc32(f"{self.author.id} {condition.code}".encode()) % len(condition.names)
        chosen = condition.names[favourite] if self.rng.random() < 0.6 else pick(self.rng, condition.names)
        return fill(chosen, self.rng, self.slots)

    def elective(self, main: Condition) -> bool:
        """A planned admission: nobody plans to have an acute disease."""
        return main.syndrome == "elec" or (self.stay.scenario.admission == "L" and main.kind == "c")

    def joined(self, names: list[str]) -> str:
        return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]

    def write(self, target: float) -> Course:
        """Write a course of about `target` words."""
        stay, rng, phrases = self.stay, self.rng, self.hospital.phrases
        look = self.hospital.condition
        main = look(stay.codes[0])
        others = [code for code in stay.codes[1:] if code in stay.written]
        if main.syndrome == "nb":  # a preterm infant is spoken of as such
            main = next((look(code) for code in others if code.startswith("P07") and look(code).presenting), main)
        acute = [code for code in others if look(code).kind in "as" and look(code) is not main]
        chronic = [code for code in others if look(code).kind in "ch" and not code.startswith(_UNSPOKEN)]
        rivals = [code for code in acute if look(code).presenting and look(code).findings and look(code).treatments]
        competing = rivals[0] if rivals else ""
        operated = any(code in self.hospital.engine.orpcsmap for code in stay.procedures)
        medical = bool(competing) and not operated and main.syndrome not in ("ob", "nb")
        confused = medical and rng.random() < CONFUSED
        if confused:  # the course is written as if the competing problem had brought the patient
            acute[acute.index(competing)] = stay.codes[0]
            main = look(competing)
        elaborate = medical and not confused and rng.random() < ELABORATE
        self.documented.append(competing if confused else stay.codes[0])

        budget = target
        background = [code for code in chronic if look(code).system != "OB"][: 2 + int(target // 50)]
        if rng.random() < 0.75 and background:
            n = 1 + int(rng.random() * min(len(background), 2 + target // 60))
            history = self.joined([self.name(look(code)) for code in background[:n]])
            self.documented += background[:n]
            chronic = [code for code in chronic if code not in background[:n]]
        else:
            history = ""
        opening = self._opening(main, history)
        lead = self._principal(main, elaborate)
        procedures = self._procedures()
        budget -= len(opening.split()) + len(lead.split()) + sum(len(text.split()) for text in procedures) + 7
        lures = self._lures(main)
        budget -= sum(len(text.split()) for text in lures)

        secondary: list[tuple[str, str, str]] = []  # (code, problem's name, text)
        short: list[str] = []
        for code in acute:
            rest = len(acute) - len(secondary) - len(short) - 1
            if budget - 4 * rest >= (16 if look(code).kind == "a" else 6) or (elaborate and code == competing):
                text, title = self._complication(look(code), elaborate and code == competing)
                secondary.append((code, title, text))
                budget -= len(text.split()) + len(title.split()) * (self.author.layout == "problems")
                self.documented.append(code)
            elif budget > 0 and look(code).kind == "a":
                short.append(code)
                budget -= 4
        for code in chronic:
            if budget > 12 and len(short) < 6:
                short.append(code)
                budget -= 5
        self.documented += short

        body = self._arrange(main, opening, lead, procedures, secondary, short, lures, elaborate, competing, budget)
        text = self._slip(body)
        self.documented += [code for code in stay.codes if code.startswith(_UNSPOKEN)]
        return Course(text, list(dict.fromkeys(self.documented)), list(stay.procedures), competing)

    def _opening(self, main: Condition, history: str) -> str:
        stay = self.stay
        vague = self.hospital.phrases["complaints"].get(main.syndrome)
        if vague and not self.elective(main) and self.rng.random() < VAGUE:
            complaint = self.one(vague)
        else:
            complaint = self.one(main.presenting) if main.presenting else self.name(main)
        if main.syndrome == "nb":
            return self.say("opening_nb", cc=complaint)
        if main.syndrome == "ob":
            return self.say("opening_ob_hx" if history else "opening_ob", hx=history, cc=complaint)
        if self.elective(main):
            kind = "opening_elective_hx" if history else "opening_elective"
            return self.say(kind, hx=history, cc=complaint, name=self.name(main))
        return self.say("opening" if history else "opening_plain", hx=history, cc=complaint)

    def _principal(self, main: Condition, brief: bool) -> str:
        """What the stay was for: named with evidence, or left to its findings and treatment."""
        treat = self.one(main.treatments) if main.treatments and self.rng.random() < TREATED else ""
        finding = self.one(main.findings) if main.findings and self.rng.random() < EVIDENCE else ""
        if self.author.layout == "problems" and not brief:  # the title names it
            parts = [f"{capital(finding)}." if finding else "", self.say("treat", treat=treat) if treat else ""]
            return " ".join(filter(None, parts)) or (capital(self.one(main.treatments)) + "." if main.treatments else "")
        if brief and treat:
            return self.say("reason", name=self.name(main), treat=treat)
        if finding and treat and self.rng.random() < 0.2:
            parts = [self.say("hint", finding=finding)]
        elif finding:
            special = f"reveal_{'elec' if self.elective(main) else main.syndrome}"
            kind = special if special in self.hospital.phrases else "reveal"
            parts = [self.say(kind, name=self.name(main), finding=finding)]
        elif self.elective(main):
            parts = []  # the opening has named it
        else:
            parts = [self.say("reveal_short", name=self.name(main))]
        if treat:
            parts.append(self.say("treat", treat=treat))
        return " ".join(parts)

    def _procedures(self) -> list[str]:
        """A sentence for the first procedure with a name, with the others of the same operation."""
        named = [code for code in self.stay.procedures if self.hospital.procedures.get(code)]
        if not named:
            return []
        operative = any(code in self.hospital.engine.orpcsmap for code in named)
        names = [self.one(self.hospital.procedures[code]) for code in named[:2]]
        kind = "delivery" if named[0].startswith(("10E", "10D07")) else "operation" if operative else "bedside"
        return [self.say(kind, proc=self.joined(list(dict.fromkeys(names))))]

    def _complication(self, condition: Condition, long: bool) -> tuple[str, str]:
        name = self.name(condition)
        if condition.kind == "s":
            return capital(name) + ".", ""
        finding = self.one(condition.findings) if condition.findings else ""
        treat = self.one(condition.treatments) if condition.treatments else ""
        if self.author.layout == "problems":
            parts = [capital(part) + "." for part in (finding, treat) if part]
            return " ".join(parts) or self.say("chronic_item").capitalize() + ".", name
        if finding and treat and (long or self.rng.random() < 0.6):
            return self.say("complication", name=name, finding=finding, treat=treat), name
        return self.say("complication_bare", name=name, treat=treat or "monitored"), name

    def _lures(self, main: Condition) -> list[str]:
        """Things denied, suspected, past or uncoded, of which no code of the stay speaks."""
        rng, categories = self.rng, tuple({code[:3] for code in self.stay.codes})
        operated = any(code in self.hospital.engine.orpcsmap for code in self.stay.procedures)
        fitting = [
            lure
            for lure in self.hospital.lures
            if main.syndrome in lure.syndromes
            and not (lure.code and lure.code.startswith(categories))
            and (operated or not _POSTOPERATIVE.search(lure.texts[0]))
        ]
        chapter = (*categories, self.stay.codes[0][:2])
        rivals = [c for c in self.hospital.rivals.get(main.syndrome, []) if not c.code.startswith(chapter)]
        strangers = [c for c in self.hospital.strangers if not c.code.startswith(categories)]
        operations = [code for code, sex in self.hospital.operations if sex in ("", self.sex)]
        texts: dict[str, str] = {}
        for _ in range(int(rng.random() * LURES)):
            at = rng.random()
            if at < 0.35 and fitting:
                lure = pick(rng, fitting)
                texts.setdefault(lure.code, self.say(lure.kind, lure=self.one(lure.texts)))
            elif at < 0.85 and rivals:
                kind = "ruled_out" if at < 0.65 else "past"
                rival, other = pick(rng, rivals), pick(rng, rivals)
                if kind == "past":
                    rival = pick(rng, strangers)
                texts.setdefault(rival.code, self.say(kind, name=self.name(rival), name2=self.name(other)))
            elif self.stay.age > 30 and operations:
                code = pick(rng, operations)
                kind = "deferred" if rng.random() < 0.25 and self.stay.scenario.admission == "E" else "surgical_history"
                if code not in self.stay.procedures:
                    texts.setdefault("operation", self.say(kind, proc=self.one(self.hospital.procedures[code])))
        return list(texts.values())

    def _fillers(self, budget: float) -> list[str]:
        operated = any(code in self.hospital.engine.orpcsmap for code in self.stay.procedures)
        kind = _FILLERS.get(self.stay.scenario.service, "surgery" if operated else "medicine")
        if kind == "orthopaedics" and not operated:
            kind = "medicine"
        if kind == "obstetrics" and "Z370" not in self.stay.codes:
            kind = "antepartum"
        left = list(self.hospital.phrases[f"filler_{kind}"])
        if kind not in ("obstetrics", "antepartum", "newborn", "psychiatry"):
            left += self.hospital.phrases["filler_medicine"] if budget > 60 and kind != "medicine" else []
        texts, limited = [], "Z66" in self.stay.codes or "Z515" in self.stay.codes
        while budget > 4 and left:
            template = left.pop(int(self.rng.random() * len(left)))
            if (_LIVING.search(template) and not self.stay.alive) or ("full code" in template and limited):
                continue
            texts.append(fill(template, self.rng, self.slots))
            budget -= len(texts[-1].split())
        return texts

    def _closing(self) -> str:
        if not self.stay.alive:
            return self.say("died")
        return self.say({"AGAINST ADVICE": "ama", "SKILLED NURSING FACILITY": "facility"}.get(self.disposition, "home"))

    def _arrange(self, main, opening, lead, procedures, secondary, short, lures, elaborate, competing, budget) -> str:
        """Lay the pieces out as the author does."""
        look, rng, layout = self.hospital.condition, self.rng, self.author.layout
        closing = self._closing()
        if layout == "problems" and (secondary or short):
            items = [(self.name(main), " ".join(filter(None, [lead, *procedures])))]
            items += [(title, text) for code, title, text in secondary if title and not (elaborate and code == competing)]
            items[:0] = [(title, text) for code, title, text in secondary if elaborate and code == competing]
            loose = [text for _, title, text in secondary if not title]
            items += [(self.name(look(code)), capital(self._brief(look(code))) + ".") for code in short]
            mark = self.author.bullet
            lines = [
                f"{f'{number}. ' if mark == '1' else mark}{capital(title)}: {text}"
                for number, (title, text) in enumerate(items, 1)
            ]
            return "\n".join([" ".join([opening, *lures]), "", *lines, "", " ".join([*loose, *self._fillers(budget), closing])])
        brief = []
        for kind, codes in (("several", [c for c in short if look(c).kind == "a"]),
                            ("chronic", [c for c in short if look(c).kind in "ch"])):  # fmt: skip
            if codes:
                brief.append(self.say(kind, list=self.joined([self.name(look(code)) for code in codes])))
        if layout == "systems":
            groups: dict[str, list[str]] = {main.system: [*filter(None, [lead, *procedures])]}
            for code, _, text in secondary:
                groups.setdefault(look(code).system, []).append(text)
            lines = [
                f"{pick(rng, heads)}: {' '.join(groups[system])}"
                for system, heads in self.hospital.phrases["systems"].items()
                if groups.get(system)
            ]
            return "\n".join([opening, *lines, " ".join([*brief, *lures, *self._fillers(budget), closing])])
        middle = [text for _, _, text in secondary]
        sentences = [lead, *procedures, *middle] if not elaborate else [middle[0], lead, *procedures, *middle[1:]]
        sentences = [sentence for sentence in sentences if sentence]
        for lure in lures:
            sentences.insert(1 + int(rng.random() * len(sentences)), lure)
        return " ".join([opening, *sentences, *brief, *self._fillers(budget), closing])

    def _brief(self, condition: Condition) -> str:
        return self.one(condition.treatments) if condition.treatments else self.say("chronic_item")

    def _slip(self, text: str) -> str:
        """Swap two letters of a word now and then."""
        if self.rng.random() >= self.author.slips:
            return text
        words = [match for match in re.finditer(r"\b[a-z]{6,}\b", text)]
        if not words:
            return text
        at = pick(self.rng, words).start() + 1 + int(self.rng.random() * 4)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
