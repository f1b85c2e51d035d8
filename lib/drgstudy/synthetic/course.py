"""Writing the hospital course in the manner of authors with habits.

An author has a layout (prose, problem list, organ systems), favourite names and a rate of typos. The text begins with
what matters most and ends when it is long enough; what does not fit is left out. Each course therefore comes with the
codes that a careful reader could know. Its words alone mislead: other diseases are denied, suspected, long past or
complications, and the longest paragraph is not always about the reason for admission.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from drgstudy.synthetic.authors import Author, Taste, capitalized
from drgstudy.synthetic.patients import Stay, pick
from drgstudy.synthetic.tables import Condition

VAGUE = 0.7  # share of unplanned admissions whose complaint is worded so that it fits many conditions
EVIDENCE, TREATED = 0.5, 0.6  # how often the principal diagnosis comes with a finding; with its treatment
UNNAMED = 0.2  # how often, in prose, finding and treatment stand in place of its name
RIVALLED = (
    0.4  # share of other unplanned medical stays whose principal diagnosis is told as one of two that are possible
)
CONFUSED = 0.14  # share of medical stays written as if a competing problem had been the reason for admission
ELABORATE = 0.4  # share of the others in which the competing problem takes more room than the reason for admission
LURES = 2.8  # at most this many distractors, and more in longer courses
MAX_PROCEDURES = 4  # that an author names
PARAGRAPH = 18  # words that must be left for a secondary diagnosis to get a sentence of its own
DETAIL_WORDS = 60  # an author with more words left than this goes into details
# ICD-10-CM's codes that specify another diagnosis (organism, resistance, outcome of delivery) and are no problem of
# their own.
ADDITIONAL_CODES = ("B95", "B96", "Z16", "Z37")
_NOT_PASSIVE = re.compile(r"\bwas (?=(?:had|improved|resolved|cleared)\b)")  # treatments worded in the active voice
_PLAIN_TREATMENTS = ("followed", "seen", "evaluated", "continued", "monitored", "kept", "maintained", "had", "observed")
_DAY = re.compile(r"(?:HD|POD) ?# ?(\d+)")
_POSTOPERATIVE = re.compile("POD|[Pp]ostop")
_SURVIVORS_ONLY = re.compile(  # what is not said of patients who died
    r"discharge|ambul|diet|follow|tolerat|cleared|comfortable|visit|\bstable|outpatient|\bresumed|review|week|\bhome"
    r"|progress|prescribed|advised|counsel|improv|resolv|response|recover|goal|effect|better|\beased|slept|spaced"
    r"|no further|earplugs|return to|clearing",
    re.IGNORECASE,
)
_EMERGENCY = re.compile(r"\bED\b|EMS|[Tt]riage|arriv|emergency")
_PROPHYLAXIS = re.compile(r"[Ss]ubcut|SQH|[Pp]rophylaxis|ppx|boots")
_ANTICOAGULATED = ("I26", "I80", "I82", "Z7901")
# Asides that belong near the beginning of a course, and near its end.
_EARLY = re.compile(r"\bED\b|\b[Ii]nitial|arriv|on adm|[Hh]istory|h/o|\bPMH\b|\bPSH\b")
_LATE = re.compile(r"[Dd]ischarge|\bd/c|[Ff]ollow|f/u|VNA|[Vv]isit|\boutp(?!ut)|at home|rehab|remov")
_FILLER_KINDS = {  # by service
    "CARDIOLOGY": "cardiology",
    "ORTHOPAEDICS": "orthopaedics",
    "OBSTETRICS": "obstetrics",
    "NEWBORN": "newborn",
    "NEONATOLOGY": "newborn",
    "PSYCHIATRY": "psychiatry",
    "NEUROLOGY": "neurology",
}


@dataclass
class Course:
    """A hospital course, and the codes that a careful reader can know from it."""

    text: str
    documented: list[str]  # diagnoses; the one that looks like the principal one comes first
    procedures: list[str]
    competing: str = ""  # the secondary diagnosis that could pass for the principal one, documented or not
    told: str = ""  # how it is told: "instead" of the reason for admission, "at length", or "" as any other
    lures: list[str] = field(default_factory=list)  # the kind of each distractor
    names: list[str] = field(default_factory=list)  # that the author had in mind for the reason for admission

    @property
    def named(self) -> list[str]:
        """The names of the reason for admission that the text has."""
        return [name for name in dict.fromkeys(self.names) if name.lower() in self.text.lower()]


class Writer:
    """One author writing about one stay."""

    def __init__(
        self,
        author: Author,
        stay: Stay,
        sex: str,
        rng: np.random.Generator,
        reword: bool = False,  # whether diseases are named in unusual words
        taste: Taste | None = None,
    ) -> None:
        hospital = author.hospital
        self.reword, self.taste = reword, taste or author.preference
        self.rival = ""  # the name of a condition that the reason for admission is not told from
        self.names: list[str] = []  # by which the reason for admission was called so far
        self.hospital, self.author, self.stay, self.sex, self.rng = hospital, author, stay, sex, rng
        self.operated = hospital.operative(stay.procedures)
        planned = stay.scenario.admission in "LN" or hospital.condition(stay.codes[0]).syndrome in ("ob", "nb", "elec")
        clotting = any(code.startswith(_ANTICOAGULATED) for code in stay.codes)
        unfit = {_SURVIVORS_ONLY: not stay.alive, _EMERGENCY: planned, _PROPHYLAXIS: clotting}
        self._unfit = [pattern for pattern, applies in unfit.items() if applies]
        female, child = sex == "F", stay.age == 0
        titled = "Baby ___" if child else "Ms. ___" if female else "Mr. ___"
        subject = titled if author.subject == "title" else "Infant" if child else author.subject
        self.slots = {
            "pt": subject if subject != "The patient" else "the patient",
            "Pt": subject,
            "he": "she" if female else "he",
            "him": "her" if female else "him",
            "his": "her" if female else "his",
            "man": ("girl" if female else "boy") if child else "woman" if female else "man",
            "m": sex,
            "service": stay.scenario.service.lower(),
        }

    def say(self, kind: str, **slots: str) -> str:
        """One of the author's phrases of a kind, with its slots filled."""
        if kind == "treat" and slots["treat"].startswith(_PLAIN_TREATMENTS):
            kind = "treat_plain"
        phrase = pick(self.rng, self.phrases(kind))
        text = self._filled(phrase, **slots)
        return _NOT_PASSIVE.sub("", text)

    def phrases(self, kind: str) -> Sequence[str]:
        """The author's phrases of a kind that may be said of this stay."""
        return self.fitting(self.author.phrases(kind))

    def fitting(self, texts: Sequence[str]) -> Sequence[str]:
        """Those of the texts that may be said of this stay; all of them if none may."""
        return [text for text in texts if not any(unfit.search(text) for unfit in self._unfit)] or texts

    def choose(self, texts: Sequence[str], otherwise: str = "") -> str:
        """One of the texts, with its slots filled; `otherwise` if there are none."""
        if not texts:
            return otherwise
        return self._filled(pick(self.rng, self.fitting(texts)))

    def _filled(self, template: str, **slots: str) -> str:
        """A template with the author's abbreviations, and with its slots filled."""
        return self.author.fill(self.author.abbreviated(template), self.rng, {**self.slots, **slots}, self.taste)

    def name(self, condition: Condition) -> str:
        """What the author calls a condition: in most cases by the favourite name."""
        favourite = (max(condition.names, key=self.taste),)
        name = self.choose(favourite if self.rng.random() < 0.6 else condition.names)
        name = self._reworded(name) if self.reword else name
        if condition is self.hospital.condition(self.stay.codes[0]):
            self.names.append(name)
        return name

    def _reworded(self, name: str) -> str:
        """A name in words that hardly any other note has; one without such words is misspelt, and some others too."""
        forms = self.hospital.rewordings
        text, n = self.hospital.rewordable.subn(lambda match: pick(self.rng, forms[match[1].lower()]), name)
        return text if n and self.rng.random() < 0.7 else self._misspelt(text)

    def joined(self, names: list[str]) -> str:
        """The names as an enumeration: "A, B and C"."""
        return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

    def elective(self, main: Condition) -> bool:
        """Whether the admission was planned; that for an acute disease never is."""
        return main.syndrome == "elec" or (self.stay.scenario.admission == "L" and main.kind == "c")

    def write(self, target: float) -> Course:
        """A course of about `target` words."""
        stay, rng, look_up = self.stay, self.rng, self.hospital.condition
        problem_list = self.author.layout == "problems"
        main = look_up(stay.codes[0])
        others = [code for code in stay.codes[1:] if code in stay.written and not code.startswith(ADDITIONAL_CODES)]
        if main.syndrome == "nb":  # the notes speak of a preterm infant as such
            preterm = [look_up(code) for code in others if code.startswith("P07") and look_up(code).presenting]
            main = next(iter(preterm), main)
        acute = [code for code in others if look_up(code).kind in "as" and look_up(code) is not main]
        chronic = [code for code in others if look_up(code).kind in "ch"]
        competing = next((code for code in acute if look_up(code).can_lead), "")
        medical = competing and not self.operated and main.syndrome not in ("ob", "nb")
        documented = [stay.codes[0]]
        confused = medical and rng.random() < CONFUSED
        if confused:
            acute[acute.index(competing)] = stay.codes[0]
            documented, main = [competing], look_up(competing)
        elaborate = competing if medical and not confused and rng.random() < ELABORATE else ""

        known = [code for code in chronic if look_up(code).system != "OB"]
        known = known[: 1 + int(rng.random() * (2 + target / 60))] if rng.random() < 0.75 else []
        opening = self.opening(main, self.joined([self.name(look_up(code)) for code in known]) if known else "")
        lead = " ".join(filter(None, [self._principal(main, bool(elaborate)), self._procedures()]))
        lures = self.lures(main, target)
        documented += known
        asides = [text for _, text in lures]
        budget = target - 7 - sum(len(text.split()) for text in [opening, lead, *asides])
        long: list[tuple[str, str, str]] = []  # code, name of the problem, text
        short: list[str] = []
        for left, code in zip(range(len(acute), 0, -1), acute, strict=True):
            statement = look_up(code).kind == "s"
            if budget - 4 * left >= (2 if statement else PARAGRAPH) or code == elaborate:
                long.append((code, *self._secondary(look_up(code))))
                budget -= len(long[-1][2].split()) + 3 * problem_list
            elif budget > 0 and not statement:
                short.append(code)
                budget -= 4
        for code in chronic:
            if code not in known and budget > 12 and len(short) < 6 + target / 80:
                short.append(code)
                budget -= 5
        documented += [*(code for code, _, _ in long), *short]
        documented += [code for code in stay.codes if code.startswith(ADDITIONAL_CODES)]
        progress = "progress" if stay.alive else "progress_died"
        for position, (code, name, text) in enumerate(long):
            if name and budget > DETAIL_WORDS and rng.random() < 0.6:
                long[position] = code, name, f"{text} {self.say(progress, name=self.name(look_up(code)))}"
                budget -= 12
        if budget > DETAIL_WORDS and not self.elective(main) and main.syndrome not in ("nb", "ob"):
            lead = f"{lead} {self.say(progress, name=self.name(main))}"
            budget -= 12
        for code in short:
            if budget > DETAIL_WORDS and look_up(code).kind == "c" and rng.random() < 0.3:
                asides.append(self.say("progress_chronic", name=self.name(look_up(code))))
                budget -= 12
        asides = sorted((self._when(aside), aside) for aside in [*asides, *self._fillers(budget)])
        if problem_list and (long or short):
            text = self._problems(main, opening, lead, long, short, asides, elaborate)
        else:
            text = self._paragraphs(main, opening, lead, long, short, asides, elaborate)
        unnamed = self._named_procedures()[MAX_PROCEDURES:]
        procedures = [code for code in stay.procedures if code not in unnamed]
        told = "instead" if confused else "at length" if elaborate else ""
        kinds = [kind for kind, _ in lures] + ["rival"] * bool(self.rival)
        text = self.with_typos(text)
        return Course(text, list(dict.fromkeys(documented)), procedures, competing, told, kinds, self.names)

    def opening(self, main: Condition, history: str) -> str:
        """The first sentence: who came, and with what."""
        vague = self.hospital.phrases["complaints"].get(main.syndrome)
        if vague and not self.elective(main) and self.rng.random() < VAGUE:
            complaint = self.choose(vague)
        else:
            complaint = self.choose(main.presenting) or self.name(main)
        planned = "opening_elective" if self.operated else "opening_planned"
        kind = planned if self.elective(main) else "opening_ob" if main.syndrome == "ob" else "opening"
        kind = "opening_nb" if main.syndrome == "nb" else f"{kind}_hx" if history else kind
        return self.say(kind, hx=history, cc=complaint, name=self.name(main))

    def _principal(self, main: Condition, brief: bool) -> str:
        """The reason for the stay: named with or without evidence, or only implied by finding and treatment."""
        treat = self.choose(main.treatments) if self.rng.random() < TREATED else ""
        finding = self.choose(main.findings) if self.rng.random() < EVIDENCE else ""
        treated = self.say("treat", treat=treat) if treat else ""
        if brief and treat:
            return self.say("reason", name=self.name(main), treat=treat)
        rivals = [] if self.operated or self.elective(main) else self._alike(main)
        if rivals and self.rng.random() < RIVALLED:
            self.rival = self.name(pick(self.rng, rivals))
        if self.author.layout == "problems" and not brief:  # the heading names it
            texts = [capitalized(finding) + "." if finding else "", treated]
            return " ".join(filter(None, texts)) or capitalized(self.choose(main.treatments, "managed as below")) + "."
        if self.rival:
            named = self.say("rival", name=self.name(main), name2=self.rival)
            named = " ".join(filter(None, [capitalized(finding) + "." if finding else "", named]))
        elif finding and treat and self.rng.random() < UNNAMED:
            named = self.say("hint", finding=finding)
        elif finding:
            special = f"reveal_{'elec' if self.elective(main) else main.syndrome}"
            kind = special if special in self.hospital.phrases else "reveal"
            named = self.say(kind, name=self.name(main), finding=finding)
        else:
            told = self.elective(main) or main.syndrome in ("nb", "ob")
            kind = "reveal_short" if self.operated else pick(self.rng, ["reveal_short", "reveal_short", "assessment"])
            named = "" if told else self.say(kind, name=self.name(main))
        return " ".join(filter(None, [named, treated]))

    def _procedures(self) -> str:
        """A sentence about the procedures."""
        named = self._named_procedures()
        if not named:
            return ""
        in_theatre = self.operated and self.stay.scenario.service != "CARDIOLOGY"
        kind = "delivery" if named[0].startswith(("10E", "10D07")) else "operation" if in_theatre else "bedside"
        texts = [self.choose(self.hospital.procedures[code]) for code in named[:MAX_PROCEDURES]]
        return self.say(kind, proc=self.joined(texts))

    def _named_procedures(self) -> list[str]:
        """The codes of the procedures for which the hospital has names."""
        return [code for code in self.stay.procedures if code in self.hospital.procedures]

    def _secondary(self, condition: Condition) -> tuple[str, str]:
        """The name of a secondary diagnosis and the text about it; a statement has no name."""
        name, finding, treat = self.name(condition), self.choose(condition.findings), self.choose(condition.treatments)
        if condition.kind == "s":
            return "", capitalized(name) + "."
        if self.author.layout == "problems":
            texts = [text for text in (finding, treat) if text] or [self.say("chronic_item")]
            return name, " ".join(capitalized(text) + "." for text in texts)
        kind = "complication" if finding and treat and self.rng.random() < 0.7 else "complication_bare"
        return name, self.say(kind, name=name, finding=finding, treat=treat or "monitored")

    def lures(self, main: Condition, target: float) -> list[tuple[str, str]]:
        """Distractors: things denied, suspected, past or not coded, which correspond to no code of the stay.

        Each is a kind, which is a list of phrases, and a text.
        """
        rng, hospital = self.rng, self.hospital
        categories = tuple({code[:3] for code in self.stay.codes})
        fitting = [
            lure
            for lure in hospital.lures
            if main.syndrome in lure.syndromes
            and not any(code.startswith(categories) for code in lure.codes)
            and (self.operated or not _POSTOPERATIVE.search(lure.texts[0]))
        ]
        possible, alike = ("", self.sex), self._alike(main)
        past = [c for c in hospital.past_conditions if not c.code.startswith(categories)]
        past = [c for c in past if hospital.sex_of(c.code) in possible]
        operations = [c for c, sex in hospital.elective_operations if sex in possible and c not in self.stay.procedures]
        has_history = self.stay.age > 30 and main.syndrome != "ob"
        texts: dict[str, tuple[str, str]] = {}

        def add(key: str, kind: str, **slots: str) -> None:
            texts.setdefault(key, (kind, self.say(kind, **slots)))

        for _ in range(int(rng.random() * LURES * max(1.0, target / 170))):
            at = rng.random()
            if at < 0.35 and fitting:
                lure = pick(rng, fitting)
                add(lure.texts[0], lure.kind, lure=self.choose(lure.texts))
            elif 0.35 <= at < 0.65 and len(set(alike)) > 1:
                excluded = pick(rng, alike)
                other = pick(rng, [c for c in alike if c is not excluded])
                add(excluded.code, "ruled_out", name=self.name(excluded), name2=self.name(other))
            elif 0.65 <= at < 0.85 and past and has_history:
                condition = pick(rng, past)
                add(condition.code, "past", name=self.name(condition))
            elif at >= 0.85 and operations and has_history:
                done = self.choose(hospital.procedures[pick(rng, operations)])
                add("operation", "surgical_history", proc=done)
        return list(texts.values())

    def _alike(self, main: Condition) -> list[Condition]:
        """The conditions that present as the reason for admission does, and that the patient does not have."""
        related = (*{code[:3] for code in self.stay.codes}, main.code[:2])
        alike = [c for c in self.hospital.differentials.get(main.syndrome, []) if not c.code.startswith(related)]
        return [c for c in alike if self.hospital.sex_of(c.code) in ("", self.sex)]

    def _fillers(self, budget: float) -> list[str]:
        """Sentences that are true of most stays, up to `budget` words."""
        kind = _FILLER_KINDS.get(self.stay.scenario.service, "surgery" if self.operated else "medicine")
        if kind == "orthopaedics" and not self.operated:
            kind = "medicine"
        if kind == "obstetrics" and "Z370" not in self.stay.codes:
            kind = "antepartum"
        left = list(self.phrases(f"filler_{kind}"))
        if budget > DETAIL_WORDS:
            left += self.phrases(f"details_{kind}")
        limited = not {"Z66", "Z515"}.isdisjoint(self.stay.codes)
        texts = []
        while budget > 4 and left:
            template = left.pop(int(self.rng.random() * len(left)))
            if not (limited and "full code" in template):
                texts.append(self._filled(template))
                budget -= len(texts[-1].split())
        return texts

    def _closing(self) -> str:
        """The last sentence: where the patient went."""
        kinds = {"DIED": "died", "AGAINST ADVICE": "ama", "SKILLED NURSING FACILITY": "facility"}
        return self.say(kinds.get(self.stay.disposition, "home" if self.stay.age else "home_nb"))

    def _problems(self, main, opening, lead, long, short, asides, elaborate) -> str:
        """A list of problems; one that takes more room than the reason for admission comes first."""
        heading = [self.name(main), *filter(None, [self.rival])]
        items = [(" vs ".join(heading[:: pick(self.rng, [1, -1])]), lead)]
        items += [(name, text) for code, name, text in long if name and code != elaborate]
        items[:0] = [(name, text) for code, name, text in long if code == elaborate]
        for condition in map(self.hospital.condition, short):
            calm = tuple(treat for treat in condition.treatments if treat.lstrip("[").startswith(_PLAIN_TREATMENTS))
            treat = self.choose(calm or condition.treatments) or self.say("chronic_item")
            items.append((self.name(condition), capitalized(treat) + "."))
        lines = [
            f"{self.author.bullet or f'{number}. '}{capitalized(name)}: {text}".strip()
            for number, (name, text) in enumerate(items, 1)
        ]
        loose = [text for _, name, text in long if not name]
        early = [aside for when, aside in asides if when < 0.3]
        late = [aside for when, aside in asides if when >= 0.3]
        if len(late) > 4:
            number = "" if self.author.bullet else f"{len(lines) + 1}. "
            lines.append(f"{self.author.bullet}{number}{self.say('other_item')}: {' '.join(late)}")
            late = []
        return "\n".join([" ".join([opening, *early]), "", *lines, "", " ".join([*loose, *late, self._closing()])])

    def _paragraphs(self, main, opening, lead, long, short, asides, elaborate) -> str:
        """The course in prose, or with a paragraph for each organ system in the usual order of systems."""
        look_up, lists = self.hospital.condition, []
        for kind, kinds in (("several", "a"), ("chronic", "ch")):
            names = [self.name(look_up(code)) for code in short if look_up(code).kind in kinds]
            lists += [self.say(kind, list=self.joined(names))] if names else []
        if self.author.layout == "systems":
            groups = {main.system: [lead] if lead else []}
            for code, _, text in long:
                groups.setdefault(look_up(code).system, []).append(text)
            lines = [
                f"{pick(self.rng, heads)}: {' '.join(groups[system])}"
                for system, heads in self.hospital.phrases["systems"].items()
                if groups.get(system)
            ]
            lines = [opening, *lines, *([" ".join(lists)] if lists else [])]
            for when, aside in asides:
                at = int(when * len(lines))
                lines[at] = f"{lines[at]} {aside}"
            return "\n".join([*lines, self._closing()])
        first = [text for code, _, text in long if code == elaborate]
        sentences = [*first, *([lead] if lead else []), *(text for code, _, text in long if code != elaborate)]
        told = [((i + 0.5) / len(sentences), sentence) for i, sentence in enumerate(sentences)]
        return " ".join([opening, *(text for _, text in sorted([*told, *asides])), *lists, self._closing()])

    def _when(self, aside: str) -> float:
        """The position of an aside in the course, 0 to 1: by its day, or near the beginning or end where it belongs."""
        jitter = self.rng.random()
        if day := _DAY.search(aside):
            return min(0.9, 0.1 * int(day[1])) + 0.05 * jitter
        early, late = _EARLY.search(aside), _LATE.search(aside)
        return (jitter + (0 if early else 2 if late else 1)) / 3 if early or late else jitter

    def with_typos(self, text: str) -> str:
        """A text with as many misspelt words as the author makes."""
        for _ in range(self.rng.poisson(self.author.typo_rate * text.count(" ") / 100)):
            text = self._misspelt(text)
        return text

    def _misspelt(self, text: str) -> str:
        """A text in which two letters of a longer word are swapped, if it has one."""
        words = [match.start() for match in re.finditer(r"\b[a-z]{6,}\b", text)]
        if not words:
            return text
        at = pick(self.rng, words) + 1 + int(self.rng.random() * 4)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
