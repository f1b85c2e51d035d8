"""DRG reference facts: titles, relative weights, MDC, base DRG and CC/MCC label.

The facts are those of CMS's yearly Table 5 (``data/reference/msdrg.csv``, MS-DRG v25-v42 = fiscal years 2008-2025)
and the titles of the v34 definitions manual (``msdrg_v34_titles.csv``), the version in which DRG-LLaMA's cohort is
expressed. The early-DRG study uses the codes of fiscal year 2013, of MS-DRG and of APR-DRG (``aprdrg_fy2013.csv``), as
they are.
"""

from __future__ import annotations

import re
from functools import cache

import pandas as pd

from drgstudy.study import REFERENCE, StudyError

SYSTEMS = {"ms": "MS-DRG", "apr": "APR-DRG"}
"""The DRG systems of the early-DRG study."""
MDCS = ("05", "01", "04")
"""Circulatory, nervous and respiratory system: the MDCs of the early-DRG paper's Tables 1 and 2."""
MDC_NAMES = {
    "PRE": "Pre-MDC: Transplants, ECMO and tracheostomy",
    "01": "Nervous system",
    "02": "Eye",
    "03": "Ear, nose, mouth and throat",
    "04": "Respiratory system",
    "05": "Circulatory system",
    "06": "Digestive system",
    "07": "Liver, bile ducts and pancreas",
    "08": "Bones, joints, muscles and connective tissue",
    "09": "Skin, subcutaneous tissue and breast",
    "10": "Endocrine, nutritional and metabolic diseases",
    "11": "Kidney and urinary tract",
    "12": "Male reproductive system",
    "13": "Female reproductive system",
    "14": "Pregnancy and childbirth",
    "15": "Newborns",
    "16": "Blood, blood-forming organs and immunity",
    "17": "Myeloproliferative diseases",
    "18": "Infectious and parasitic diseases",
    "19": "Mental diseases",
    "20": "Alcohol and drug use",
    "21": "Injuries and poisonings",
    "22": "Burns",
    "23": "Other contacts with health services",
    "24": "Multiple significant trauma",
    "25": "HIV infections",
    "99": "Any MDC",
}
"""The major diagnostic categories of MS-DRG, in their order, named shortly after CMS's headings."""
CC_LABELS = ("without CC/MCC", "with CC", "with MCC", "without MCC", "not applicable")
"""Names of the CC/MCC labels 0 to 4."""

SEVERITY = re.compile(r" ?\b(WITH|WITHOUT) (?:CC/MCC|MCC|CC)\b")
"""The phrase that distinguishes the DRGs of one base DRG, in a title with WITH and WITHOUT spelled out."""

_LABEL = {"WITHOUT CC/MCC": 0, "WITH CC": 1, "WITH CC/MCC": 1, "WITH MCC": 2, "WITHOUT MCC": 3, "": 4}

# The manual words one base DRG in two ways (CHOLECYST for CHOLECYSTECTOMY, a lost OF, PROCEDURE for PROCEDURES, and a
# severity phrase that stands in the middle of 838 and 839): the first code takes the base title of the second.
_SAME_BASE = {"410": "408", "497": "495", "718": "717", "837": "838"}

# Words that stay in capitals in a title that is printed, and letters by which CMS shortens its billed titles.
_ABBREVIATIONS = {"AICD", "AMA", "AMI", "CC", "CDE", "CNS", "CVA", "D&C", "ECMO", "ESW", "HF", "HIV", "MCC", "MDC", "MV", "PDX",
                  "PTCA", "SDX", "TPA", "URI"}  # fmt: skip
_SHORT = {"W": "with", "W/": "with ", "W/O": "without", "&": "and", "G.I.": "gastrointestinal", "O.R.": "operating-room",
          "C.D.E.": "common duct exploration"}  # fmt: skip

# Outside the early-DRG study's target space, in addition to newborns (MDC 15): in MS-DRG rehabilitation, aftercare and
# what cannot be grouped; in APR-DRG the groups of rehabilitation and of newborns' aftercare.
_NO_TARGET = {"ms": ("945", "946", "949", "950", "998", "999"), "apr": ("860", "863")}


def severity(title: str) -> str:
    """The severity phrase of a title in capitals, with WITH and WITHOUT spelled out; "" if it has none."""
    found = SEVERITY.search(title)
    return found.group().strip() if found else ""


def readable(title: str) -> str:
    """A title as it is printed: with one capital, known abbreviations as they are, and W, W/O and & in words."""
    words = re.sub(
        r"D&C|[A-Z]/(?:O\b)?|&|(?:[A-Z]\.){2,}|[A-Z]+",
        lambda word: word[0] if word[0] in _ABBREVIATIONS else _SHORT.get(word[0], word[0].lower()),
        title,
    )
    return words[:1].upper() + words[1:]


def mdc_name(mdc: str) -> str:
    """A major diagnostic category as it is printed: "MDC 05 Circulatory system"."""
    return f"MDC {mdc} {MDC_NAMES[mdc]}" if mdc.isdigit() and mdc != "99" else MDC_NAMES[mdc]


@cache
def titles_by_year() -> pd.DataFrame:
    """Table 5 of each fiscal year 2008-2025 as CMS published it; shared, so copy it before changing it.

    Returns
    -------
    DataFrame of 13,621 rows, sorted by year and code
        fiscal_year and version (int), drg (str, three digits), mdc (str: "01"-"25", "PRE", or "99" where any MDC is
        possible), type ("medical", "surgical", or "" for 998 and 999), title (as billed), relative_weight, and gmlos
        (geometric mean length of stay in days, NaN where CMS gives none).
    """
    text = dict.fromkeys(["drg", "mdc", "type", "title"], str)
    return pd.read_csv(REFERENCE / "msdrg.csv", dtype=text, keep_default_na=False, na_values={"gmlos": [""]})


@cache
def v34() -> pd.DataFrame:
    """The label space of DRG-LLaMA: 757 DRGs, MS-DRG v34 (fiscal year 2017); shared, so copy it before changing it.

    Returns
    -------
    DataFrame, indexed by ``drg`` (ascending, three digits)
        title (the manual's), billed_title (Table 5's), mdc, type, relative_weight, gmlos, base (title of the base DRG,
        of which there are 340) and cc_label (int, position in `CC_LABELS`).

    Notes
    -----
    Source: DRG-LLaMA, Supplementary Method 2. The two-way title "with CC/MCC", which has no label in the paper, has
    label 1, as in its published code.
    """
    facts = titles_by_year().query("version == 34").set_index("drg").rename(columns={"title": "billed_title"})
    manual = pd.read_csv(REFERENCE / "msdrg_v34_titles.csv", dtype=str, index_col="drg")
    table = manual.join(facts.drop(columns=["fiscal_year", "version"]), validate="1:1")
    table["base"] = table["title"].str.replace(SEVERITY.pattern + ".*", "", regex=True)
    table.loc[list(_SAME_BASE), "base"] = table.loc[list(_SAME_BASE.values()), "base"].to_numpy()
    table["cc_label"] = table["title"].map(severity).map(_LABEL).astype("int64")
    return table


def splits() -> dict[str, int]:
    """How many DRGs v34 has, how many base DRGs, and how many of these are split by severity in each way.

    Returns
    -------
    dict of str to int
        drgs, bases, three_way, two_way_cc_mcc ("with CC/MCC" against "without"), two_way_mcc and unsplit.

    Notes
    -----
    Source: DRG-LLaMA, Discussion, which gives 44 and 65 for the two kinds of two-way splits. CMS's titles give 43 and 66.
    """
    kinds = v34().groupby("base")["cc_label"].agg(lambda labels: tuple(sorted(labels))).value_counts()
    of = {"three_way": (0, 1, 2), "two_way_cc_mcc": (0, 1), "two_way_mcc": (2, 3), "unsplit": (4,)}
    return {"drgs": len(v34()), "bases": int(kinds.sum())} | {name: int(kinds[labels]) for name, labels in of.items()}


@cache
def fiscal_2013(system: str) -> pd.DataFrame:
    """The codes and weights of fiscal year 2013, for the early-DRG study; shared, so copy them before changing them.

    Parameters
    ----------
    system : {"ms", "apr"}
        MS-DRG v30: 751 codes; or APR-DRG: 1,256 codes of a group and a severity from 1 to 4, such as "1943".

    Returns
    -------
    DataFrame, indexed by ``drg`` (ascending)
        title (as billed; "" in APR-DRG), mdc (see Notes), relative_weight, and target (bool: whether it is in the
        paper's target space of 738 or 1,136 codes).

    Raises
    ------
    StudyError
        For another system.

    Notes
    -----
    The MDC is "01"-"25" or "PRE"; where any is possible, it is "99" in MS-DRG and "UNK" in APR-DRG. HIV is "25" and
    multiple significant trauma "24" in MS-DRG, and the other way round in APR-DRG. Source: early-DRG paper, Methods,
    "Dataset and preprocessing"; which codes it leaves out is known from its code.
    """
    if system == "ms":
        table = titles_by_year().query("fiscal_year == 2013").rename(columns={"drg": "code"})
    elif system == "apr":
        text = {"code": str, "mdc": str}
        table = pd.read_csv(REFERENCE / "aprdrg_fy2013.csv", dtype=text, keep_default_na=False).assign(title="")
    else:
        raise StudyError(f"DRG system: expected 'ms' or 'apr', got {system!r}")
    table = table.set_index("code").rename_axis("drg")[["title", "mdc", "relative_weight"]]
    return table.assign(target=~(table["mdc"].eq("15") | table.index.str.startswith(_NO_TARGET[system])))
