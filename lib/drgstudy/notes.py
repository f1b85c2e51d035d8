"""Finding the hospital course in a discharge summary.

A heading stands at the start of a line and ends with a colon or with its line, so "his hospital course was complicated
by" is none. Which headings end the course is told by their words and by what follows: "Discharge Medications" always
does; "Condition" does unless the course's list of problems goes on after it. In transcriptions whose line breaks became
commas, the next heading in capitals does unless it names an organ system or a problem. Every repetition in the patterns
is bounded or possessive, and every piece of text is read once, so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache


def _pattern(source: str) -> re.Pattern:
    """Compile a verbose pattern in which ``_`` means blanks or tabs and ``DEID`` a de-identified word (``___``)."""
    return re.compile(source.replace("_", r"[ \t]++").replace("DEID", "_{2,9}+"), re.VERBOSE | re.ASCII)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CLOSE = r"[ \t]*+ (?: : | (?= \r?\n | \r?\Z ) )"

OPENING = _pattern(
    r"""\n [ \t]*+ (?: [#*=]{1,20}+ [ \t]*+ )?+ (?= [A-Z] | DEID | b?r?ief )
    (?: (?i:
        (?: (?: b?r?ief | short | concise | detailed | summary | of | and | & | the | h&p | hpi | history | present
            | illness | procedures? | inpatient | admission | DEID ) (?: [ \t]*+ [/&,] [ \t]*+ | _ ) ){0,9}+
        (?: (?: hosp(?:ital)?+ | hopsital | hospitla | hospitali[sz]ation )_course
          | course_ (?: in | during | of | while_in )_ (?: (?: the | this | DEID )_ )?+
            (?: hospital (?: _stay | i[sz]ation )?+ | admission ) )
            (?: [ \t]*+ (?: \b (?: summary | by | per | and | in | during | to ) \b | [&/(-] | ,_by\b )
                (?! [^:\n]{0,50} \b (?: was | were | is | has | had ) \b ) [^:,\n]{0,50}+ )?
      | b?r?ief_ (?: hospital_DEID | DEID_course | hospital_c[a-z]{0,5}+ | course ) )
      | (?: (?! HOSPITAL_COURSE | (?: PRIOR | PREVIOUS | OUTSIDE )_ ) [A-Z] [A-Z'-]{0,20}+
            (?: [ \t]*+ [/&,] [ \t]*+ | _ ) ){1,9}+ HOSPITAL_COURSE
      | [A-Z] [a-z'-]{1,20}+ _ (?: (?! (?: and | & )_(?i: hospital_course ) ) [A-Za-z'-]{1,20}+ _ ){0,7}+
            (?: and | & )_(?i: hospital_course ) (?= [ \t]*+ : )
    ) (?: [ \t]*+ [*=]{1,20}+ )?+"""
    + CLOSE
    + r"(?: \*{1,3}+ )?+ (?: [ \t\r]*+ \n [ \t]*+ [=-]{3,}+ [ \t\r]*+ (?=\n) )?"  # the line that underlines the heading
)

HEADING = re.compile(
    r"""\n [ \t]*+ (?P<marks> [#*=>-] [ \t#*=>-]{0,30}+ )?+ (?P<name> (?: [A-Za-z] | __ ) [\w \t/&(),'’*=#+-]{0,80}+ )
    (?: (?P<colon> : ) | (?= \r?\n | \r?\Z ) )""",
    re.VERBOSE,
)

# The words of the headings of a summary's sections. One of NOUNS names a section by itself, two of PARTS do together,
# and LINKS join them. "Assessment", "plan" and "studies" name none: in MIMIC they are parts of the course.
NOUNS = _words(
    "addendum condition diagnoses diagnosis disposition facility followup instruction instructions medication"
    " medications meds procedures"
)
PARTS = _words(
    "activities activity advice allergies appointment appointments complications consultations consults data diet"
    " discharge dx exam examination family findings history laboratory labs medical past pathology pertinent physical"
    " plan plans prognosis recommendations results social status surgical vital vitals"
)
LINKS = _words(
    "a admission admitting and arrival as at care changes current differential dismissal during final for from home"
    " hospital hospitalization in list of on operations outpatient patient preadmission primary principal prior rehab"
    " secondary signs stay the this time to transfer upon"
)
TRANSCRIBED = _words("assessment code discharged impression pending planning studies time")  # there, these do
SURE = _words("admission admitting discharge dismissal preadmission")  # with a noun, it is a section of any summary
JOINING = _words("a and as at during for from in of on the to upon")  # at neither end of a heading
TRANSITIONAL = re.compile(
    "(?:transitional(?: care)?(?:$| (?:issue|item))|transitions? of care|(?:outpatient )?issues for followup|_+ issues?$"
    "|active medications? list)"
)
# Beginnings and ends of the headings in capitals that stand within a course told by organ system or by problem.
WITHIN = re.compile(
    r"""(?: acc | card | cv | derm | endo | eye | feed | fen\b | fluid | gastro | genit | gi\b | gu\b | gyn | heent
      | hem | hepat | id\b | infect | integ | metab | musc | msk | neph | neuro | nutr | obst | onc | ophth | orth | pain
      | ppx | proph | psych | pulm | renal | resp | skin | urol | vasc )
    | .* (?: emia | itis | sis | pathy | penia | uria | tension | failure | disease | infection | pneumonia | diabetes
      | course | day | issues? | problems? | systems? ) \b""",
    re.VERBOSE,
)

# What may begin a problem of a list.
MARKS = r"""[ \t]*+ (?:
    (?: \# [ \t]*+ | (?i: problem | issue ) [ \t]*+ \#?+ [ \t]*+ ) (?P<number> \d{1,2}+ ) \b
  | \(?+ (?P<numeral> \d{1,2}+ ) (?: [.)] (?! \d ) | [:-] (?= [ \t] ) )
  | (?P<hash> \#{1,9}+ ) [ \t]*+ (?= [A-Za-z_*] ) (?! of\b | (?i: refill ) )
  | [*=#]{0,9}+ [ \t]*+ (?P<issues> (?= [A-Z] ) (?: [A-Za-z/&,]{1,20}+ [ \t]++ ){0,5}+ (?i: issues? | problems? )
      [ \t*=]*+ (?: : | (?= \r?\n ) ) | (?i: (?: (?: in)?+ active | acute | chronic )
      (?: [ \t]++ (?: diagnos[ei]s | conditions? ) )?+ ) [ \t]*+ : )
  | (?P<underlined> [A-Za-z] [^\n]{0,80}+ ) \n [ \t]*+ [=-]{3,}+ [ \t\r]*+ (?= \n )
  | (?P<bullet> [*+>~•·▪–—] | - (?! - ) | \[ [ xX_]?+ \] | o (?= [ ] [A-Z] ) )
  | (?P<letter> [A-Z]{1,4}+ [.)] (?= [ \t] ) )
  | (?P<label> [A-Z] [\w \t/&,()'-]{0,40}+ ) : (?= \s | \Z )
  | (?P<shout> [A-Z] [A-Z \t/&,()'-]{3,40}+ ) (?= \r?\n )
)"""
MARK, MARK_HERE = re.compile(r"\n" + MARKS, re.VERBOSE), re.compile(MARKS, re.VERBOSE)

COMMA = re.compile(r",(?=[^\s\d]|\d{1,2}[.)](?!\d))")  # was a line break, in a transcription
LISTED = re.compile(r"[\s,]*+[A-Z][A-Z /&,()-]{1,60}+:")  # a course that begins with a heading of its own
FINAL = re.compile("transition|issue")  # it ends the course even as an item of its list: "# Transitional issues: x"
# What any discharge condition grades, in lines like those of a course's problems.
GRADED = re.compile("mental status|level of consciousness", re.IGNORECASE)
MEASURED = re.compile("EXAM|VITAL|LAB|DATA|FINDINGS|RESULTS")  # such sections list organ systems, too
BLANK, REST, LINE = re.compile(r"[\s,]*+"), re.compile(r"[ \t\r*=]*+(?:\n|\Z)"), re.compile(r"\s*+([^\n]*+)")

# A heading lost to de-identification: its mark, where a heading would stand, after a line of laboratory values.
LOST = _pattern(r"[ \t\n] DEID [ \t]*+ :?+ [ \t\r]*+ (?= \n )")
VALUE = re.compile(
    r"[A-Za-z][\w()/%+-]{0,30}-[<>=]{0,2}(?:\d[\d.,/-]*|NEG|POS|NONE|FEW|RARE|OCC|MOD|SM|TR|LG|_{2,9})\*?"
)

# What a line begins with, in small letters, where a heading of these words stands: it is sought first, for speed.
BEGINNINGS = {word[:3] for word in NOUNS | PARTS | LINKS - JOINING} | {"__", "act", "tra", "iss"}
CANDIDATE = re.compile(rf"\n[ \t#*=>-]*+(?:{'|'.join(sorted(BEGINNINGS))})".encode())
TRIES = 5  # headings of a course, should the first be empty; each may cost a reading of the rest of the note

# The openings and endings of DRG-LLaMA's published code. The third wants two runs of 24 blanks, which hardly any note
# has; where in the pattern they stand, and its further endings, is not known here.
_DRUGS = r"(?:Medications|___)[ ]{1,2}on[ ]{1,2}Admission"
PUBLISHED = [
    (re.compile(opening, re.MULTILINE), re.compile(ending))
    for opening, ending in [
        (r"Brief Hospital Course", _DRUGS),
        (r"Brief Hospital Course", r"Discharge Medications"),
        (r"(?:HOSPITAL COURSE|rief Hospital Course):?[ ]{24}", rf"[ ]{{24}}(?i:{_DRUGS}|Discharge Medications)"),
        (
            r"^(?:Mg-[12]\.|LACTATE-[12]\.|Epi-|Gap-|COUNT-|TRF-)[^\s_]{0,20}+\s{0,20}+___",
            r"Medications[ ]{1,2}on[ ]{1,2}Admission",
        ),
    ]
]


@dataclass
class Section:
    """A heading that ends the course: surely, or unless the list of problems goes on after it."""

    start: int
    end: int
    sure: bool
    alone: bool  # on its line
    spaced: bool  # after an empty line
    measured: bool  # examination or laboratory: organ systems are listed there too


@lru_cache(4096)  # headings repeat from note to note
def is_section(name: str, capitals: bool = False, transcribed: bool = False, listed: bool = False) -> bool | None:
    """Whether a section of the summary has this name: surely (True), perhaps (False) or not (None).

    Parameters
    ----------
    name : str
        The heading without its colon.
    capitals : bool, default=False
        Whether the note's headings stand in capitals.
    transcribed : bool, default=False
        Whether the note is a transcription without line breaks; any heading in capitals may be a section's there.
    listed : bool, default=False
        Whether the course begins with a heading in capitals, as one that is told by problem does.
    """
    words = re.findall(r"[a-z]+|__+|\d+", re.sub("follow[- ]up", "followup", name.lower()))
    hidden = [word for word in words if word[0] == "_"]
    nouns, parts, shouted = NOUNS.intersection(words), PARTS.intersection(words), capitals and name.isupper()
    if TRANSITIONAL.match(" ".join(words)) and len(words) < 9:
        return True
    joined = JOINING.intersection((*words[:1], *words[-1:]))
    if words and not joined and NOUNS.union(PARTS, LINKS, hidden).issuperset(words):
        if nouns >= {"followup", "instructions"} or (SURE.intersection(words) and (nouns or words[0] in hidden)):
            return True
        if nouns or len(parts) > (not shouted) or ["discharge", *hidden] == words != ["discharge"]:
            return False
    if not transcribed or not shouted or len(name) < 4 or any(map(str.isdigit, words)):
        return None
    known = nouns or parts - {"status"} or TRANSCRIBED.intersection(words)
    return False if known or not (listed or WITHIN.match(" ".join(words))) else None


class Problems:
    """How a course marks its problems; read piece by piece."""

    def __init__(self, transcribed: bool) -> None:
        self.transcribed = transcribed
        self.kind, self.last = "", 0  # kind of the first mark; number of the last problem

    def read(self, text: str, start: int, end: int, section: Section | None = None) -> bool:
        """Read the marks in text[start:end]; whether the course goes on there, after a heading that may end it."""
        here = MARK_HERE.match(text, start, end)
        marks = [here] if here and (section or here.lastgroup != "label") else []
        content = BLANK.match(text, start).end()
        items, number, loose, goes_on = "", 0, False, section is None
        for mark in (*marks, *MARK.finditer(text, start, end)):
            kind, name = mark.lastgroup, mark[mark.lastgroup]
            if kind in ("label", "shout", "underlined") and (
                GRADED.fullmatch(name) or is_section(name, True, self.transcribed) is not None
            ):
                continue
            at = int(name) if kind in ("number", "numeral") else 0
            kind = {"numeral": "number", "bullet": name}.get(kind, kind)
            if not goes_on:
                apart = _after_empty_line(text, mark.start())
                if mark.start() <= content:
                    items = kind  # the section's own list; an empty line ends it
                elif apart:
                    items = ""
                if at:
                    goes_on = at == self.last + 1 > 1 and (number != self.last or (apart and not loose))
                    number, loose = at, loose or (apart and at == number + 1 > 1)
                elif kind != items and not (section.measured and kind == "label"):
                    goes_on = kind in ("hash", "issues", self.kind)
                if not goes_on:
                    continue
            if kind != "issues":
                self.kind = self.kind or kind
            self.last += at == self.last + 1
        return goes_on


class Note:
    """A discharge summary, read for its headings.

    Parameters
    ----------
    text : str
        A whole discharge summary.
    """

    def __init__(self, text: str) -> None:
        self.text = self.written = "\n" + text
        self.transcribed = "\n" not in text.strip()
        if self.transcribed:
            self.text = COMMA.sub("\n", self.text)
        self.folded = self.text.encode("ascii", "replace").lower()

    def opening(self, start: int) -> re.Match | None:
        """What `OPENING.search` finds; each line is searched for a word only once, so the time is linear."""
        found = []
        for word in (b"course", b"ief"):  # every match has one of these on its line
            end = start
            while (place := self.folded.find(word, end)) >= 0:
                begin = self.folded.rfind(b"\n", end, place)
                if begin >= 0 and (match := OPENING.match(self.text, begin)):
                    found.append(match)
                    break
                if (end := self.folded.find(b"\n", place)) < 0:
                    break
        return min(found, key=re.Match.start, default=None)

    def lost_opening(self) -> re.Match | None:
        """The mark of a heading lost to de-identification, the last one before a section that surely follows."""
        text = self.text
        marks = [
            mark for mark in LOST.finditer(text) if _values(text[max(0, mark.start() - 300) : mark.start()], last=True)
        ]
        marks = [mark for mark in marks if not _values(LINE.match(text, mark.end())[1])]
        sure = marks and next((section.start for section in self.sections(marks[0].end()) if section.sure), None)
        return next(mark for mark in reversed(marks) if mark.end() <= sure) if sure else None

    def lines(self, start: int) -> Iterator[re.Match | None]:
        """The lines after `start` that may be headings."""
        if self.transcribed:
            return HEADING.finditer(self.text, start)
        return (HEADING.match(self.text, line.start()) for line in CANDIDATE.finditer(self.folded, start))

    def sections(self, start: int, capitals: bool = False) -> Iterator[Section]:
        """What may be headings of sections after `start`; `capitals`, if the note's headings stand in capitals."""
        listed, measured = LISTED.match(self.text, start) is not None, False
        for line in filter(None, self.lines(start)):
            name, marks, colon = line["name"].strip(), line["marks"], bool(line["colon"])
            alone = not colon or FINAL.search(name.lower()) or REST.match(self.text, line.end())
            if not (colon and alone if name[0].islower() else colon or len(name) < 60):
                continue
            sure = is_section(name, capitals or self.transcribed, self.transcribed and (colon or len(name) > 5), listed)
            if sure is None or (
                marks and not (sure and (FINAL.search(name.lower()) or "**" in marks or "==" in marks))
            ):
                continue
            measured = measured or (name.isupper() and MEASURED.search(name) is not None)
            spaced = self.transcribed or _after_empty_line(self.text, line.start())
            yield Section(line.start(), line.end(), sure, bool(alone), spaced, measured)

    def ending(self, start: int, capitals: bool) -> int:
        """Where a course that begins at `start` ends."""
        problems, doubtful = Problems(self.transcribed), []
        for section in self.sections(start, capitals):
            final = section.sure and (section.alone or section.spaced)
            if not (final and not doubtful) and problems.read(self.text, start, section.start, *doubtful[-1:]):
                doubtful = []
            doubtful.append(section)
            start = section.end
            if final:
                break
        else:
            if not doubtful or problems.read(self.text, start, len(self.text), doubtful[-1]):
                return len(self.text)
        # Where empty lines stand between the sections, a heading without one belongs to the problem before it.
        if any(section.spaced for section in doubtful):
            doubtful = [section for section in doubtful if section.spaced or section.sure]
        return doubtful[0].start

    def course(self) -> str | None:
        """The first hospital course that is not empty."""
        opening = self.opening(0) or self.lost_opening()
        for _ in range(TRIES):
            if opening is None:
                break
            end = self.ending(opening.end(), opening.group().isupper())
            course = self.written[opening.end() : end].strip(string.whitespace + ",")
            if course or end == len(self.text):
                return course or None
            opening = self.opening(end)
        return None


def hospital_course(text: str) -> str | None:
    """The text of the first hospital course that is not empty; None if there is none.

    Parameters
    ----------
    text : str
        A whole discharge summary.

    Returns
    -------
    str or None
        What stands between the heading and the next section's heading, or the end of the note. Line breaks and
        de-identification marks within it are kept; white space and commas around it are not.

    Notes
    -----
    Source: DRG-LLaMA, Methods, "Dataset and Preprocessing" (the paper names the section; the rules are ours).
    """
    return Note(text).course()


def published_course(text: str) -> str | None:
    """The hospital course as DRG-LLaMA's published code finds it; None if there is none.

    The first of `PUBLISHED` that fits decides. The course begins on the line after the opening, and goes on to the
    first ending: so what stands before the drugs, such as transitional issues, is part of it.

    Parameters
    ----------
    text : str
        A whole discharge summary.

    Notes
    -----
    Source: DRG-LLaMA's published code. All four openings are sought once, from the start: if no ending follows the
    first place that fits, none follows a later one.
    """
    for opening, ending in PUBLISHED:
        begun = opening.search(text)
        line = text.find("\n", begun.end()) if begun else -1
        if line >= 0 and (ended := ending.search(text, line)):
            return text[line : ended.start()].strip() or None
    return None


def n_words(text: str) -> int:
    """Number of words: runs of characters between white space."""
    return len(text.split())


def _after_empty_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _values(text: str, last: bool = False) -> bool:
    """Whether the last line that is not empty holds laboratory values and no prose; with `last`, ends with a value."""
    words = text.rstrip().rpartition("\n")[2].split()
    found = [VALUE.fullmatch(word) for word in words]
    return any(found[-1:] if last else found) and not any(word.isalpha() and word.islower() for word in words)
