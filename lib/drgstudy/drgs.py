"""MS-DRG reference facts: titles, relative weights, MDC, base DRG and CC/MCC label.

The facts are those of CMS's yearly Table 5 (``data/reference/msdrg.csv``, MS-DRG v25-v36 = fiscal years 2008-2019)
and the titles of the v34 definitions manual (``msdrg_v34_titles.csv``). Every cohort is expressed in v34.
"""

from __future__ import annotations

import re
from functools import cache

import pandas as pd

from drgstudy.study import REFERENCE

CC_LABELS = ("without CC/MCC", "with CC", "with MCC", "without MCC", "not applicable")
"""Names of the CC/MCC labels 0 to 4."""

SEVERITY = re.compile(r" ?\b(WITH|WITHOUT) (?:CC/MCC|MCC|CC)\b")
"""The phrase that tells the members of a base DRG apart, in a title whose WITH and WITHOUT are spelled out."""

_LABEL = {"WITHOUT CC/MCC": 0, "WITH CC": 1, "WITH CC/MCC": 1, "WITH MCC": 2, "WITHOUT MCC": 3, "": 4}

# The manual words one base DRG in two ways (CHOLECYST for CHOLECYSTECTOMY, a lost OF, PROCEDURE for PROCEDURES, and a
# severity phrase that stands in the middle of 838 and 839): the first code takes the base title of the second.
_SAME_BASE = {"410": "408", "497": "495", "718": "717", "837": "838"}


def severity(title: str) -> str:
    """The severity phrase of a title in capitals with WITH and WITHOUT spelled out; empty if it has none."""
    found = SEVERITY.search(title)
    return found.group().strip() if found else ""


@cache
def titles_by_year() -> pd.DataFrame:
    """Table 5 of each fiscal year 2008-2019 as CMS published it; shared, so copy it before changing it.

    Returns
    -------
    DataFrame of 9,020 rows sorted by year and code: fiscal_year and version (int), drg (str, three digits), mdc (str:
    "01"-"25", "PRE", or "99" where any MDC is possible), type ("medical", "surgical", or "" for 998 and 999), title
    (as billed), relative_weight, and gmlos (geometric mean length of stay in days, NaN where CMS gives none).
    """
    text = dict.fromkeys(["drg", "mdc", "type", "title"], str)
    return pd.read_csv(REFERENCE / "msdrg.csv", dtype=text, keep_default_na=False, na_values={"gmlos": [""]})


@cache
def v34() -> pd.DataFrame:
    """The label space of the study: the 757 DRGs of MS-DRG v34 (fiscal year 2017); shared, so copy before changing.

    Returns
    -------
    DataFrame indexed by ``drg`` (ascending, three digits): title (the manual's), billed_title (Table 5's), mdc, type,
    relative_weight, gmlos, base (title of the base DRG: 340 of them) and cc_label (int, position in `CC_LABELS`).
    Source: DRG-LLaMA, Supplementary Method 2. The two-way title "with CC/MCC", which has no label in the paper, is 1
    as in its published code.
    """
    facts = titles_by_year().query("version == 34").set_index("drg").rename(columns={"title": "billed_title"})
    manual = pd.read_csv(REFERENCE / "msdrg_v34_titles.csv", dtype=str, index_col="drg")
    table = manual.join(facts.drop(columns=["fiscal_year", "version"]), validate="1:1")
    table["base"] = table["title"].str.replace(SEVERITY.pattern + ".*", "", regex=True)
    table.loc[list(_SAME_BASE), "base"] = table.loc[list(_SAME_BASE.values()), "base"].to_numpy()
    table["cc_label"] = table["title"].map(severity).map(_LABEL).astype("int64")
    return table
