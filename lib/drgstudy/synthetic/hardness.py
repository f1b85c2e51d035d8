"""How hard the hospital's notes are: what their words let a reader know, and what a dictionary makes of them.

The *grouped documentation* is how often the grouper gives the right DRG when it is told the codes that a careful reader
could know. It is no upper bound: who has learned which bills follow from which notes can do better. The *inversion
attack* has the lexicon from which the notes were worded, the abbreviations, ICD-10-CM's descriptions and inclusion
terms, and the list of codes that can be a principal diagnosis. It looks all words up, and groups the codes that it
finds or learns which DRG they mean. Where it comes near the grouped documentation, the notes are a list of codes in
disguise. The *strata* are kinds of notes that call for reading in different ways.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import simple_icd_10_cm as icd

from drgstudy import mimic, sheets
from drgstudy.harmonize import harmonize
from drgstudy.notes import hospital_course, n_words
from drgstudy.study import StudyError, progress
from drgstudy.synthetic.discharge import make_hospital
from drgstudy.synthetic.tables import Hospital

RULES = ("first named", "first that can lead", "most often named", "first not denied or past")
"""How the attack chooses the principal diagnosis: the last three rules only among the codes that can be one; the last
rule also leaves out, of all codes, what is denied or past."""
LEARNED = "learned"
"""The attack's fifth rule: TF-IDF, which learns from the codes that are `found` in training notes in place of words."""
_TOKEN = re.compile(r"[A-Za-z0-9]+")
_SENTENCE = re.compile(r"(?<=[.;:])\s+|\n")
_CUE = re.compile(  # what follows in the sentence is denied, doubted or long past
    r"\b(?:no|not|neg\w*|without|w/o|r/o|rule[ds]? out|unlikely|doubt|concern|consider\w*|exclu\w*|vs|prior|previous\w*"
    r"|h/o|hx|PMHx?|PSH|history|remote|past|last|recent|old|s/p|possible|suspect\w*|differential)\b|\?",
    re.IGNORECASE,
)
_UNGROUPABLE = ("000", "998", "999")


def drawn(patients: int, seed: int, **dials) -> pd.DataFrame:
    """The stays of a hospital that is made with these dials, and thrown away: `read_truth` and the words of each course."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        make_hospital(raw, patients=patients, seed=seed, **dials)
        notes = mimic.read(raw, "discharge", ["hadm_id", "text"]).set_index("hadm_id")["text"]
        return read_truth(raw).assign(words=notes.map(hospital_course).dropna().map(n_words))


def read_truth(folder: Path) -> pd.DataFrame:
    """Read ``truth.csv.gz`` of a synthetic hospital.

    Returns
    -------
    DataFrame
        One row for each note, indexed by hadm_id; fiscal_year is int64, all other columns are str.

    Raises
    ------
    StudyError
        If there is none; only a synthetic hospital has one.
    """
    path = Path(folder) / "truth.csv.gz"
    if not path.is_file():
        raise StudyError(f"{path} is missing: real data have no truth file; remove this profile's 04-hardness.yaml")
    truth = sheets.read(path, ["hadm_id", "fiscal_year"])
    return truth.astype({"hadm_id": "int64", "fiscal_year": "int64"}).set_index("hadm_id")


def in_v34(hospital: Hospital, truth: pd.DataFrame, column: str) -> pd.Series:
    """The v34 code of each v36 DRG, as if it had been billed in the stay's own year; missing where there is none.

    Parameters
    ----------
    truth : DataFrame
        As `read_truth`, with fiscal_year and `column`, which holds v36 codes.
    """
    pairs = truth[["fiscal_year", column]].drop_duplicates()
    billed = [hospital.drg_of_year(drg, year) for year, drg in pairs.itertuples(index=False)]
    titles = [
        hospital.drg_facts.get((year, drg), ("", 0))[0] for year, drg in zip(pairs["fiscal_year"], billed, strict=True)
    ]
    pairs = pairs.assign(code=billed, title=titles)
    known = harmonize(pairs.rename(columns={"code": "drg_code", "title": "description"}))[["code", "title", "drg_v34"]]
    known = pairs.merge(known, "left", on=["code", "title"])
    return truth.merge(known, "left", on=["fiscal_year", column])["drg_v34"].set_axis(truth.index)


def competing_drg(hospital: Hospital, truth: pd.DataFrame) -> pd.Series:
    """The v34 code of the documented codes if the competing problem were the principal diagnosis.

    It is missing unless there is such a problem, and both it and the true principal diagnosis were documented.

    Parameters
    ----------
    truth : DataFrame
        As `read_truth`.
    """
    drgs = []
    for stay in truth.itertuples():
        written, principal = stay.documented.split(), stay.codes.split()[0]
        codes = [stay.competing, *(code for code in written if code != stay.competing)]
        known = codes, stay.documented_procedures.split(), stay.sex, stay.status != "20"
        both = {stay.competing, principal} <= set(written)
        drgs.append(hospital.engine.get_drg(*known, discharge_status=stay.status) if both else "")
    return in_v34(hospital, truth.assign(competing_drg=drgs), "competing_drg")


class Dictionary:
    """All expressions for the hospital's codes, with one spelling for each expression and its abbreviations."""

    def __init__(self, hospital: Hospital) -> None:
        self.hospital = hospital
        self._short: dict[str, str] = {}
        for long, shorts in hospital.shorthand.items():
            long, *shorts = (" ".join(_tokens(form)) for form in (long, *shorts))
            self._short |= {form: shorts[0] for form in (long, *shorts) if form not in self._short}
        weight: Counter = Counter()
        self.leading = set()  # codes that can be a principal diagnosis
        for scenario in hospital.scenarios:
            for codes, part in scenario.principal:
                self.leading.add(codes[0])
                weight.update(dict.fromkeys(codes, scenario.weight * part))
        weight.update({entry.code: entry.probability for pool in hospital.pools.values() for entry in pool})
        self.codes: dict[str, str] = {}  # an expression that several codes share stands for the commonest
        for code, _ in weight.most_common():
            for name in hospital.condition(code).names:
                self.codes.setdefault(self._canonical(name), code)
        for code, _ in weight.most_common():
            for name in _icd_terms(code):
                self.codes.setdefault(self._canonical(name), code)
        procedures = {self._canonical(name): code for code, names in hospital.procedures.items() for name in names}
        self.codes |= procedures
        self._longest = max(words.count(" ") + 1 for words in self.codes)
        # Expressions that any note may have tell nothing: "PCP" is a doctor or a disease.
        boilerplate = [text for texts in hospital.phrases.values() for text in texts if isinstance(text, str)]
        parts = [part for text in boilerplate for part in re.split(r"[][|]", text)]
        ambiguous = {"", *(words for part in parts for words in self._found(part))}
        self.codes = {words: code for words, code in self.codes.items() if words not in ambiguous}

    def _canonical(self, text: str) -> str:
        """A text in the one spelling."""
        tokens = _tokens(text)
        return " ".join(self._short.get(run, run) for run in _runs(tokens, self._short, 5))

    def _found(self, text: str) -> list[str]:
        """The expressions of a text that the dictionary knows; the longest of those that begin at the same word."""
        return [run for run in _runs(self._canonical(text).split(), self.codes, self._longest) if run in self.codes]

    def look_up(self, text: str) -> list[str]:
        """The codes of all expressions that occur in a text, in their order and as often as they occur."""
        return [self.codes[run] for run in self._found(text)]

    def asserted(self, text: str) -> list[str]:
        """As `look_up`, without what follows a denial, a doubt or a word of the past in the same sentence."""
        return [
            code for sentence in _SENTENCE.split(text) for code in self.look_up(_CUE.split(sentence, maxsplit=1)[0])
        ]


def _tokens(text: str) -> list[str]:
    """Words and numbers; capitals are kept only in short words, where they matter ("AS" and "as")."""
    return [token if token.isupper() and len(token) < 5 else token.lower() for token in _TOKEN.findall(text)]


def _runs(tokens: list[str], known: dict[str, str], longest: int) -> Iterator[str]:
    """The tokens, with each longest run of them that is known joined to one."""
    at = 0
    while at < len(tokens):
        for length in range(min(longest, len(tokens) - at), 0, -1):
            run = " ".join(tokens[at : at + length])
            if run in known or length == 1:
                yield run
                at += length
                break


def _icd_terms(code: str) -> list[str]:
    """ICD-10-CM's description of a code, and the inclusion terms of the code and of the categories above it."""
    if not icd.is_valid_item(code):
        return []
    above = [item for item in icd.get_ancestors(code) if not icd.is_chapter_or_block(item)]
    return [icd.get_description(code), *(term for item in (code, *above) for term in icd.get_inclusion_term(item))]


def invert(dictionary: Dictionary, truth: pd.DataFrame, texts: pd.Series) -> pd.DataFrame:
    """Run the inversion attack on some notes, by the rules that learn nothing.

    Parameters
    ----------
    truth : DataFrame
        As `read_truth`; only sex and discharge status are used, which a coder knows too.
    texts : Series of str
        Hospital courses, by hadm_id.

    Returns
    -------
    DataFrame of str
        v36 codes by hadm_id, with one column for each of `RULES`; "999" where nothing can be grouped.

    Notes
    -----
    Source: ours.
    """
    hospital, rows = dictionary.hospital, defaultdict(list)
    for stay, text in progress(texts.items(), total=len(texts), desc="looking words up", unit="note"):
        sex, status = truth.loc[stay, ["sex", "status"]]

        def grouped(found: list[str], candidates: list[str], sex=sex, status=status) -> str:
            """The DRG of what was found, under the first of the candidates that groups."""
            procedures = [code for code in found if code in hospital.procedures]
            diagnoses = [code for code in found if code not in hospital.procedures]
            for principal in candidates:
                codes = [principal, *(code for code in diagnoses if code != principal)]
                drg = hospital.engine.get_drg(codes, procedures, sex, status != "20", discharge_status=status)
                if drg not in _UNGROUPABLE:
                    return drg
            return "999"

        times = Counter(dictionary.look_up(text))
        found, asserted = list(times), list(dict.fromkeys(dictionary.asserted(text)))
        diagnoses = [code for code in found if code not in hospital.procedures]
        leading = [code for code in found if code in dictionary.leading]
        rows[RULES[0]].append(grouped(found, diagnoses))
        rows[RULES[1]].append(grouped(found, leading))
        rows[RULES[2]].append(grouped(found, sorted(leading, key=times.get, reverse=True)))
        rows[RULES[3]].append(grouped(asserted, [code for code in asserted if code in dictionary.leading] or leading))
    return pd.DataFrame(rows, index=texts.index)


def found(dictionary: Dictionary, texts: pd.Series) -> pd.Series:
    """What the attack's fifth rule learns from: in place of each text, the codes that the dictionary finds there.

    A code stands there as often as it is found, and once more as "code_asserted" where it is not denied, doubted or past.
    """

    def codes(text: str) -> str:
        return " ".join([*dictionary.look_up(text), *(f"{code}_asserted" for code in dictionary.asserted(text))])

    return texts.map(codes)


def strata(truth: pd.DataFrame, texts: pd.Series, train: pd.Series) -> pd.DataFrame:
    """Which notes call for reading, and how: one column (bool) for each stratum; a note may be in several.

    Parameters
    ----------
    truth : DataFrame
        As `read_truth`.
    texts, train : Series of str
        The hospital courses of the same stays, by hadm_id, and those of the training stays.

    Notes
    -----
    Source: ours.
    """
    truth, known = truth.loc[texts.index], _plain("\n".join(train))
    lured = truth["lures"].str.split()
    kinds = {
        "denied or doubted diseases": {"negated", "uncertain", "ruled_out", "rival"},
        "past diseases or operations": {"past", "surgical_history", "history"},
    }
    names = set(";".join(truth["named"]).split(";"))
    unknown = {name for name in names if not re.search(rf"(?<!\w){re.escape(_plain(name))}(?!\w)", known)}
    found = {
        "competing problem in place of the reason for admission": truth["told"] == "instead",
        "competing problem at greater length": truth["told"] == "at length",
        **{name: lured.map(lambda lures, some=some: not some.isdisjoint(lures)) for name, some in kinds.items()},
        "reason for admission not named": truth["named"] == "",
        "reason for admission in words unseen in training": truth["named"].map(
            lambda names: names != "" and unknown.issuperset(names.split(";"))
        ),
    }
    table = pd.DataFrame(found)
    return table.assign(**{"none of these": ~table.any(axis=1)})


def _plain(text: str) -> str:
    """Lower case, and without the line breaks of a note, which may follow a hyphen."""
    return re.sub(r"\s+", " ", re.sub(r"-\s+", "-", text)).lower()
