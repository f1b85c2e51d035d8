"""Harmonization: every title has an outcome, and no severity is ever changed."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drgstudy import drgs
from drgstudy import harmonize as module
from drgstudy.harmonize import harmonize, standardise
from drgstudy.study import REFERENCE, ROOT, StudyError

DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo" / "DRGCODES.csv.gz"

V34 = drgs.v34()
HISTORY = list(drgs.titles_by_year()[["drg", "title"]].drop_duplicates().itertuples(index=False, name=None))
PROVENANCES = {"code and title", "title", "crosswalk", "fuzzy", "excluded"}
# What a severity phrase says about a stay: 0 neither, 1 CC, 2 MCC.
MEANING = {
    "WITHOUT CC/MCC": {0},
    "WITH CC": {1},
    "WITH MCC": {2},
    "WITH CC/MCC": {1, 2},
    "WITHOUT MCC": {0, 1},
    "": {0, 1, 2},
}


def one(code, title):
    return harmonize(pd.DataFrame({"drg_code": [code], "description": [title]})).iloc[0]


def outcomes(pairs):
    """v34 code or None of each (code, title), in order."""
    table = harmonize(pd.DataFrame(pairs, columns=["drg_code", "description"]))
    found = dict(zip(zip(table["code"], table["title"], strict=True), table["drg_v34"], strict=True))
    return [None if pd.isna(found[pair]) else found[pair] for pair in pairs]


# The title of two DRGs of FY2018 and FY2019, as it is left at 80 characters.
CUT = "MYELOPROLIFERATIVE DISORDERS OR POORLY DIFFERENTIATED NEOPLASMS W OTHER PROCEDUR"
HISTORY_OUTCOMES = outcomes(HISTORY)


@pytest.mark.parametrize("wording", ["title", "billed_title"])
@pytest.mark.parametrize(
    "change",
    [
        str,
        str.lower,
        lambda t: t.replace(",", ""),
        lambda t: t.replace(",", " "),
        lambda t: t[:80],
        lambda t: f" {t}  ",
    ],
    ids=["as it is", "lower case", "commas lost", "commas to spaces", "cut at 80", "padded"],
)
def test_every_v34_title_is_its_own_code(wording, change):
    pairs = [(code, change(title)) for code, title in V34[wording].items()]
    assert outcomes(pairs) == list(V34.index)


@pytest.mark.parametrize(
    "change",
    [str.lower, lambda t: t.replace(",", ""), lambda t: t[:80]],
    ids=["lower case", "commas lost", "cut at 80"],
)
def test_every_title_of_any_year_keeps_its_outcome(change):
    assert outcomes([(code, change(title)) for code, title in HISTORY]) == HISTORY_OUTCOMES


def test_outcomes_of_all_years():
    table = harmonize(drgs.titles_by_year().rename(columns={"drg": "drg_code", "title": "description"}))
    assert len(table) == len(HISTORY) == 850
    assert table["stays"].sum() == len(drgs.titles_by_year())
    assert set(table["provenance"]) <= PROVENANCES
    assert table["provenance"].value_counts().to_dict() == {"code and title": 764, "crosswalk": 58, "excluded": 28}
    excluded = table[table["provenance"] == "excluded"]
    assert excluded["drg_v34"].isna().all() and excluded["reason"].ne("").all()
    assert not excluded["reason"].isin([module.UNKNOWN, module.CONTRADICTION, module.CMS_DRG, module.SEVERITY]).any()
    assert table.loc[table["provenance"] != "excluded", "drg_v34"].isin(V34.index).all()


def test_no_severity_is_changed_over_the_years():
    for (_, title), drg in zip(HISTORY, HISTORY_OUTCOMES, strict=True):
        if drg:
            ours, theirs = drgs.severity(standardise(title)), drgs.severity(V34.loc[drg, "title"])
            assert MEANING[ours] <= MEANING[theirs], title


def test_no_title_changes_its_mdc():
    mdc = drgs.titles_by_year().set_index(["drg", "title"])["mdc"].groupby(level=[0, 1]).first()
    for pair, drg in zip(HISTORY, HISTORY_OUTCOMES, strict=True):
        assert drg is None or mdc[pair] == V34.loc[drg, "mdc"]


@st.composite
def mistyped(draw):
    code, title = draw(st.sampled_from(HISTORY))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(title) - 1))
        title = (
            title[:place]
            + draw(st.sampled_from(["", "A", "W", "C", "M", "/", " ", title[place] * 2]))
            + title[place + 1 :]
        )
    if draw(st.booleans()):
        title = title.lower()
    if draw(st.booleans()):
        title = title.replace(",", "")
    return code, title


@given(pair=mistyped())
@settings(max_examples=400, deadline=None)
def test_no_typing_error_changes_a_severity_or_leads_to_another_drg(pair):
    drg = outcomes([pair])[0]
    if drg:
        severity = drgs.severity(standardise(pair[1]))
        assert MEANING[severity] <= MEANING[drgs.severity(V34.loc[drg, "title"])]
        assert drg in {known for (code, _), known in zip(HISTORY, HISTORY_OUTCOMES, strict=True) if code == pair[0]}


@pytest.mark.parametrize(
    ("code", "title", "drg", "provenance"),
    [
        (
            "829",
            "MYELOPROLIFERATIVE DISORDERS OR POORLY DIFFERENTIATED NEOPLASMS W OTHER PROCEDUR",
            "829",
            "code and title",
        ),
        (
            "830",
            "MYELOPROLIFERATIVE DISORDERS OR POORLY DIFFERENTIATED NEOPLASMS W OTHER PROCEDUR",
            "830",
            "code and title",
        ),
        (3, "ECMO OR TRACH W MV 96+ HRS OR PDX EXC FACE, MOUTH & NECK W MAJ O.R.", "003", "crosswalk"),
        (None, "heart failure and shock with mcc", "291", "title"),
        ("291", "HEART FALIURE & SHOK W MCC", "291", "fuzzy"),
        ("491", "BACK & NECK PROC EXC SPINAL FUSION W/O CC/MCC", "520", "crosswalk"),
        ("230", "OTHER CARDIOTHORACIC PROCEDURES W/O CC/MCC", "229", "crosswalk"),
        ("786", "CESAREAN SECTION W/O STERILIZATION W MCC", "765", "crosswalk"),
        ("864", "FEVER OF UNKNOWN ORIGIN", "864", "crosswalk"),
    ],
)
def test_mapped(code, title, drg, provenance):
    found = one(code, title)
    assert (found["drg_v34"], found["provenance"]) == (drg, provenance)
    assert (found["score"] == 100) == (provenance != "fuzzy")


@pytest.mark.parametrize(
    ("code", "title", "reason"),
    [
        ("693", "URINARY STONES W MCC", "lithotripsy"),  # both of the paper's examples
        ("155", "NASAL TRAUMA AND DEFORMITY WITH CC", "without a v34 counterpart"),
        ("155", "NASAL TRAUMA AND DEFROMITY WITH CC", "without a v34 counterpart"),
        ("238", "MAJOR CARDIOVASC PROCEDURES W/O MCC", "divided in FY2016"),
        ("001", "HEART TRANSPLANT OR IMPLANT OF HEART ASSIST SYSTEM W CC", "severity is in doubt"),
        ("416", "SEPTICEMIA AGE >17", module.CMS_DRG),
        ("138", "CARDIAC ARRHYTHMIA & CONDUCTION DISORDERS WITH COMPLICATIONS, COMORBIDITIES", module.CMS_DRG),
        ("082", "RESPIRATORY NEOPLASMS", module.CMS_DRG),
        ("302", "KIDNEY TRANSPLANT", module.CMS_DRG),  # the title of v34's 652, but another system's code
        ("208", "RESPIRATORY SYSTEM DIAGNOSIS W VENTILATOR SUPPORT >96 HOURS", module.CONTRADICTION),
        ("292", "HEART FAILURE & SHOCK W MCC", module.CONTRADICTION),
        ("176", "PULMONARY EMBOLISM W CC", module.SEVERITY),
        ("291", "HEART FAILURE & SHOCK W MC", module.SEVERITY),
        ("871", "INTERSTELLAR TRAVEL W MCC", module.UNKNOWN),
        (None, "HEART FALIURE & SHOK W MCC", module.UNKNOWN),
        ("0014", "Liver Transplant", module.NOT_MS_DRG),
        ("291", None, module.NO_TITLE),
        ("291", " - ", module.NO_TITLE),
    ],
)
def test_excluded(code, title, reason):
    found = one(code, title)
    assert pd.isna(found["drg_v34"]) and found["provenance"] == "excluded" and reason in found["reason"]


def test_codes_of_any_type_are_padded_and_pairs_counted():
    title = V34.loc["003", "title"]
    for codes in ([3, 3], [3.0, 3.0], ["3", "003"], [" 3 ", "003"], pd.array(["3", "3"], dtype="string")):
        found = harmonize(pd.DataFrame({"drg_code": codes, "description": title}))
        assert found[["code", "stays", "drg_v34"]].to_numpy().tolist() == [["003", 2, "003"]]
    found = harmonize(pd.DataFrame({"drg_code": [3.0, float("nan"), None], "description": title}))
    assert found["stays"].tolist() == [1, 2] and found["drg_v34"].tolist() == ["003", "003"]


def test_no_rows_and_missing_columns():
    assert harmonize(pd.DataFrame({"drg_code": [], "description": []})).empty
    with pytest.raises(StudyError, match=r"no column 'description' .*drg_code, DESCRIPTION.*lower case"):
        harmonize(pd.DataFrame({"drg_code": ["003"], "DESCRIPTION": ["x"]}))


@pytest.mark.skipif(not DEMO.exists(), reason="the open MIMIC-III demo is not here")
def test_real_drgcodes_of_the_open_demo():
    rows = pd.read_csv(DEMO, dtype=str).rename(columns=str.lower)
    ms, cms, apr = (harmonize(rows[rows["drg_type"] == kind]) for kind in ("MS", "HCFA", "APR "))

    def stays(table, column):
        return table.groupby(column)["stays"].sum().to_dict()

    assert stays(ms, "provenance") == {"code and title": 53, "crosswalk": 18, "excluded": 1}
    assert ms.loc[ms["drg_v34"].isna(), "code"].tolist() == ["238"]
    assert stays(cms, "reason") == {module.CMS_DRG: 57}
    assert stays(apr, "reason") == {module.NOT_MS_DRG: 168}
    shown = pd.read_csv(REFERENCE / "mimic_iii_demo_outcomes.csv").set_index(["drg_type", "outcome"])["rows"]
    for kind, table in (("MS", ms), ("HCFA", cms), ("APR", apr)):
        assert stays(table, "provenance") == shown[kind].to_dict()
