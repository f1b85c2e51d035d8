"""Harmonization: every title has an outcome, no severity is ever changed, and a physician has the last word."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drgstudy import drgs, sheets, titles
from drgstudy import harmonize as module
from drgstudy.harmonize import anonymous, harmonize, read_review, review_sheet, write_review
from drgstudy.study import REFERENCE, ROOT, StudyError
from drgstudy.titles import standardise

DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo" / "DRGCODES.csv.gz"

V34 = drgs.v34()
HISTORY = list(drgs.titles_by_year()[["drg", "title"]].drop_duplicates().itertuples(index=False, name=None))
CROSSWALK = pd.read_csv(REFERENCE / "crosswalk.csv", dtype=str, keep_default_na=False)
ABBREVIATIONS = pd.read_csv(REFERENCE / "abbreviations.csv", index_col=0)["standard"]
PROVENANCES = {"code and title", "title", "crosswalk", "cut", "fuzzy", "excluded"}
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


def spelled_out(title):
    """A title of Table 5 in the long words that the manual uses."""
    title = title.replace("W/O ", "WITHOUT ").replace(" & ", " AND ")
    return re.sub(r"[A-Z]+", lambda word: ABBREVIATIONS.get(word[0], word[0]), title)


HISTORY_OUTCOMES = outcomes(HISTORY)


@pytest.mark.parametrize("wording", ["title", "billed_title"])
@pytest.mark.parametrize(
    "change",
    [
        str,
        str.lower,
        lambda t: t.replace(",", ""),
        lambda t: t.replace(",", " "),
        lambda t: t[:72],
        lambda t: t if len(t) <= 72 else t[: t.rindex(" ", 0, 73)],
        lambda t: f" {t}  ",
    ],
    ids=["as it is", "lower case", "commas lost", "commas to spaces", "cut at 72", "cut at a word", "padded"],
)
def test_every_v34_title_is_its_own_code(wording, change):
    pairs = [(code, change(title)) for code, title in V34[wording].items()]
    assert outcomes(pairs) == list(V34.index)


@pytest.mark.parametrize(
    "change",
    [
        str.lower,
        lambda t: t.replace(",", ""),
        lambda t: t[:72],
        lambda t: t[:72].replace(",", "").lower(),
        spelled_out,
        lambda t: spelled_out(t).lower().replace(",", ""),
    ],
    ids=["lower case", "commas lost", "cut at 72", "all three", "long words", "long words, lower case, commas lost"],
)
def test_every_title_of_any_year_keeps_its_outcome(change):
    assert outcomes([(code, change(title)) for code, title in HISTORY]) == HISTORY_OUTCOMES


def test_long_words_are_those_of_the_manual():
    assert spelled_out("PERC CARDIOVASC PROC W/O CORONARY ARTERY STENT W MCC") == V34.loc["250", "title"]


def test_outcomes_of_all_years():
    table = harmonize(drgs.titles_by_year().rename(columns={"drg": "drg_code", "title": "description"}))
    assert len(table) == len(HISTORY) == 1647
    assert table["stays"].sum() == len(drgs.titles_by_year())
    assert set(table["provenance"]) == {"code and title", "crosswalk", "excluded"}
    assert set(table["reason"]) - {""} == set(CROSSWALK["reason"])  # none was left to chance
    excluded = table[table["provenance"] == "excluded"]
    assert excluded["drg_v34"].isna().all() and excluded["reason"].ne("").all()
    assert table.loc[table["provenance"] != "excluded", "drg_v34"].isin(V34.index).all()


def test_a_title_cut_anywhere_from_40_on_is_its_own_group_or_excluded():
    """Each title of each year and of the manual, as MIMIC may have cut it, with blanks as CMS printed them or not."""
    titles = [*HISTORY, *(pair for wording in ("title", "billed_title") for pair in V34[wording].items())]
    cut = {
        (code, title[:length]): own
        for (code, title), own in zip(titles, outcomes(titles), strict=True)
        for length in range(40, len(title))
    }
    found = harmonize(pd.DataFrame(list(cut), columns=["drg_code", "description"])).set_index(["code", "title"])
    found = found.loc[list(cut)]
    own, lost = pd.Series(list(cut.values()), found.index), found["drg_v34"].isna()
    assert len(cut) > 20_000 and (found["drg_v34"] == own)[~lost].all()
    assert set(found.loc[lost & own.notna(), "reason"]) == {module.SHORT}
    assert not (lost & own.notna() & (found.index.get_level_values("title").str.len() >= 60)).any()


def test_no_severity_is_changed_over_the_years():
    for (_, title), drg in zip(HISTORY, HISTORY_OUTCOMES, strict=True):
        if drg:
            ours, theirs = drgs.severity(standardise(title)), drgs.severity(V34.loc[drg, "title"])
            assert MEANING[ours] <= MEANING[theirs], title


def test_no_title_changes_its_mdc():
    mdc = drgs.titles_by_year().set_index(["drg", "title"])["mdc"].groupby(level=[0, 1]).first()
    for pair, drg in zip(HISTORY, HISTORY_OUTCOMES, strict=True):
        assert drg is None or mdc[pair] == V34.loc[drg, "mdc"]


@given(pair=st.sampled_from(HISTORY), words=st.data())
@settings(max_examples=30, deadline=None)
def test_writing_does_not_matter_and_an_outcome_is_its_own(pair, words):
    """Case, blanks and punctuation change no standard title; the v34 title of an outcome leads to that outcome."""
    standard = standardise(pair[1])
    blanks = words.draw(st.sampled_from([" ", "  ", "\t", " - ", ", "]))
    assert standardise(f" {pair[1].title().replace(' ', blanks)}.") == standard
    assert standardise(" AND ".join(pair[1].split())) == standard
    drg = HISTORY_OUTCOMES[HISTORY.index(pair)]
    assert drg is None or outcomes([(drg, title) for title in V34.loc[drg, ["title", "billed_title"]]]) == [drg, drg]


@given(rows=st.lists(st.sampled_from(HISTORY[:40]), min_size=1), order=st.randoms())
@settings(max_examples=10, deadline=None)
def test_a_pair_has_one_outcome_however_often_and_wherever_it_stands(rows, order):
    table = harmonize(pd.DataFrame(rows, columns=["drg_code", "description"]))
    assert table["stays"].tolist() == [rows.count(pair) for pair in sorted(set(rows))]
    order.shuffle(rows)
    pd.testing.assert_frame_equal(harmonize(pd.DataFrame(rows, columns=["drg_code", "description"])), table)


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


def begins(pair, drg):
    """Whether the title is, but for its spelling, a known one of this code and outcome, or the beginning of one."""
    outcomes_of = zip([*HISTORY, *V34["title"].items()], [*HISTORY_OUTCOMES, *V34.index], strict=True)
    known = [title for (code, title), own in outcomes_of if (code, own) == (pair[0], drg)]
    forms = (lambda title: re.sub(r"[^A-Z0-9<>+]", "", title.upper())), standardise
    return any(form(title).startswith(form(pair[1])) for form in forms for title in known)


@given(pair=mistyped())
@settings(max_examples=400, deadline=None)
def test_no_typing_error_changes_a_severity_or_leads_to_another_drg(pair):
    drg = outcomes([pair])[0]
    if drg:
        severity = drgs.severity(standardise(pair[1]))
        assert begins(pair, drg) or MEANING[severity] <= MEANING[drgs.severity(V34.loc[drg, "title"])]
        assert drg in {known for (code, _), known in zip(HISTORY, HISTORY_OUTCOMES, strict=True) if code == pair[0]}


@given(
    drg=st.sampled_from(list(V34.index)),
    phrase=st.sampled_from(list(MEANING)),
    short=st.booleans(),
    lower=st.booleans(),
    typo=st.integers(0, 30),
)
@settings(max_examples=300, deadline=None)
def test_any_severity_phrase_survives(drg, phrase, short, lower, typo):
    words = phrase.replace("WITHOUT", "W/O").replace("WITH", "W") if short else phrase
    base = drgs.SEVERITY.sub("", V34.loc[drg, "title"])
    title = f"{base[:typo]}{base[typo + 1 :]} {words}"
    found = outcomes([(drg, title.lower() if lower else title)])[0]
    theirs = found and MEANING[drgs.severity(V34.loc[found, "title"])]
    assert found is None or MEANING[phrase] <= theirs or (phrase == "" and begins((drg, title), found))


@pytest.mark.parametrize(
    ("code", "title", "drg", "provenance"),
    [
        ("829", "MYELOPROLIFERATIVE DISORDERS OR POORLY DIFFERENTIATED NEOPLASMS W OTHER", "829", "cut"),
        ("830", "MYELOPROLIFERATIVE DISORDERS OR POORLY DIFFERENTIATED NEOPLASMS W OTHER", "830", "cut"),
        ("870", "SEPTICEMIA OR SEVERE SEPSIS W MV >96 HOURS OR PERIPHERAL EXTRACORPOREAL", "870", "cut"),
        ("246", "PERCUTANEOUS CARDIOVASCULAR PROCEDURES W DRUG-ELUTING STENT W MCC OR 4+", "246", "cut"),
        ("023", "CRANIOTOMY W MAJOR DEVICE IMPLANT OR ACUTE COMPLEX CNS PDX W MCC OR CHEM", "023", "cut"),
        ("291", "HEART FAILURE & SHOCK W MC", "291", "cut"),
        ("061", "ACUTE ISCHEMIC STROKE W USE OF THROMBOLYTIC AGE", "061", "cut"),
        ("266", "ENDOVASCULAR CARDIAC VALVE REPLACEMENT & SUPPLEMENT PROCEDURES W MCC", "266", "crosswalk"),
        ("266", "ENDOVASCULAR CARDIAC VALVE REPLACEMENT AND SUPPLEMENT PROCEDURES WITH MCC", "266", "crosswalk"),
        ("175", "PULMONARY EMBOLISM W MCC OR ACUTE COR PULMONALE", "175", "crosswalk"),
        ("521", "HIP REPLACEMENT WITH PRINCIPAL DIAGNOSIS OF HIP FRACTURE WITH MCC", "469", "crosswalk"),
        ("651", "KIDNEY TRANSPLANT WITH HEMODIALYSIS WITHOUT MCC", "652", "crosswalk"),
        ("378", "GASTROINTESTINAL HEMORRHAGE WITH CC", "378", "code and title"),
        ("485", "KNEE PROCEDURES WITH PRINCIPAL DIAGNOSIS OF INFECTION WITH MCC", "485", "code and title"),
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
    if provenance != "cut":
        assert (found["reason"] != "") == (code is not None and provenance == "crosswalk")


@pytest.mark.parametrize(
    ("code", "title", "reason"),
    [
        ("693", "URINARY STONES W MCC", "merged in FY2020"),  # both of the paper's examples
        ("155", "NASAL TRAUMA AND DEFORMITY WITH CC", "without a v34 counterpart"),
        ("155", "NASAL TRAUMA AND DEFROMITY WITH CC", "without a v34 counterpart"),
        ("238", "MAJOR CARDIOVASC PROCEDURES W/O MCC", "divided in FY2016"),
        ("001", "HEART TRANSPLANT OR IMPLANT OF HEART ASSIST SYSTEM W CC", "severity is in doubt"),
        ("416", "SEPTICEMIA AGE >17", module.CMS_DRG),
        ("138", "CARDIAC ARRHYTHMIA & CONDUCTION DISORDERS WITH COMPLICATIONS, COMORBIDITIES", module.CMS_DRG),
        ("082", "RESPIRATORY NEOPLASMS", module.PERHAPS_CMS_DRG),
        ("302", "KIDNEY TRANSPLANT", module.PERHAPS_CMS_DRG),  # the title of v34's 652, but another system's code
        ("208", "RESPIRATORY SYSTEM DIAGNOSIS W VENTILATOR SUPPORT >96 HOURS", module.CONTRADICTION),
        ("292", "HEART FAILURE & SHOCK W MCC", module.CONTRADICTION),
        ("245", "AICD LEAD & GENERATR PROCEDURES", module.UNSURE),  # nearest to the title that was divided
        ("245", "AICD GENERATR PROCEDURES", module.UNSURE),  # so near to it that a lost word may be the error
        ("642", "INBORN & OTHER DISEASES OF METABOLISM", module.UNSURE),
        ("400", "HEART FALIURE & SHOCK W MCC", module.CONTRADICTION),  # no MS-DRG 400, but no older title knew an MCC
        ("176", "PULMONARY EMBOLISM W CC", module.SEVERITY),
        ("291", "HEART FAILURE & SHOCK MC", module.SEVERITY),
        ("291", "HEART FAILURE", module.SHORT),
        ("694", "URINARY STONES WITHOUT", module.SHORT),
        ("001", "HEART TRANSPLANT OR IMPLANT OF HEART ASSIST SYSTEM W", module.SHORT),
        ("018", "CHIMERIC ANTIGEN RECEPTOR (CAR) T-CELL IMMUNOTHERAPY", "CAR T-cell therapy left 016"),
        ("018", "CHIMERIC ANTIGEN RECEPTOR (CAR) T-CELL AND OTHER IMMUNOTHE", "CAR T-cell therapy left 016"),
        ("319", "OTHER ENDOVASCULAR CARDIAC VALVE PROCEDURES W MCC", "came from several groups"),
        ("140", "MAJOR HEAD AND NECK PROCEDURES WITH MCC", "regrouped in FY2021"),
        ("871", "INTERSTELLAR TRAVEL W MCC", module.UNKNOWN),
        (None, "HEART FALIURE & SHOK W MCC", module.NO_CODE),
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


@pytest.fixture(scope="module")
def evidence():
    return module.evidence(seed=0)


def test_evidence_at_the_chosen_threshold(evidence):
    chosen = evidence[(evidence["scorer"] == module.SCORER) & (evidence["threshold"] == module.THRESHOLD)]
    counts = chosen.set_index("held_out")[["right", "wrong", "excluded"]]
    assert counts.T.to_dict("list") == {"crosswalk": [81, 0, 72], "mistyped": [1940, 0, 1744]}
    assert len(evidence) == len(module.SCORERS) * 2 * 51
    titles = evidence.set_index("held_out")[["right", "wrong", "excluded"]].sum(axis=1)
    assert (
        titles["crosswalk"].eq(len(CROSSWALK)).all()
        and titles["mistyped"].eq(4 * len({(code, standardise(title)) for code, title in HISTORY})).all()
    )


def test_scorer_and_threshold_are_never_wrong_and_of_those_most_often_right(evidence):
    total = evidence.groupby(["scorer", "threshold"])[["right", "wrong"]].sum()
    assert total.query("wrong == 0")["right"].idxmax() == (module.SCORER, module.THRESHOLD)
    assert total.loc[(module.SCORER, module.THRESHOLD - 1), "wrong"] == 1
    last_wrong = total.query("wrong > 0").reset_index().groupby("scorer")["threshold"].max()
    assert last_wrong.to_dict() == {
        "ratio": 91,
        "token_sort_ratio": 91,
        "WRatio": 95,
        "token_set_ratio": 99,
        "partial_ratio": 99,
    }


@pytest.mark.parametrize("scorer", ["ratio", "WRatio"])
def test_deciding_once_and_comparing_with_thresholds_later_is_deciding_at_each_threshold(scorer):
    rng, known = np.random.default_rng(1), titles.known()
    for place in rng.choice(len(HISTORY), 60, replace=False):
        code, title = HISTORY[place]
        title = module.mistyped(title, 4, rng)
        lowest = module._decide(code, title, known, scorer, 50)
        for threshold in (60, 79, 80, 90, module.THRESHOLD, 100):
            reached = lowest.drg_v34 if (lowest.score or 0) >= threshold else None
            assert module._decide(code, title, known, scorer, threshold).drg_v34 == reached


def test_mistyped_titles_are_seeded_and_have_errors():
    twice = [[module.mistyped(title, 2, rng) for _, title in HISTORY] for rng in map(np.random.default_rng, (5, 5))]
    assert twice[0] == twice[1]
    changed = [a != b for a, (_, b) in zip(twice[0], HISTORY, strict=True)]
    assert np.mean(changed) > 0.95


def test_crosswalk_years_are_those_of_the_tables():
    """The years in which the code had this title, in whatever style it was printed."""
    table = drgs.titles_by_year()
    years = table.groupby(["drg", table["title"].map(standardise)])["fiscal_year"].agg(lambda all_: sorted(set(all_)))
    for row in CROSSWALK.itertuples():
        found = years[row.code, standardise(row.title)]
        assert found == list(range(int(row.first_year), int(row.last_year) + 1)), row
    assert len(CROSSWALK) == len({(row.code, standardise(row.title)) for row in CROSSWALK.itertuples()}) == 153


def test_crosswalk_kinds_and_reasons():
    assert set(CROSSWALK["kind"]) == set(titles.KINDS) and set(CROSSWALK["sure"]) == set(titles.SURE)
    for row in CROSSWALK.itertuples():
        kind, year = re.match(r"(\w+) in FY(\d{4})\b", row.reason).groups()
        first, last, year = int(row.first_year), int(row.last_year), int(year)
        assert kind == row.kind
        if kind == "misprinted":
            assert first == year == last
        elif first > 2017:  # changed after v34, when the title was new or before
            assert 2018 <= year <= first
        else:
            assert last < year <= 2017
        then = drgs.titles_by_year().query("fiscal_year == @year")["drg"]
        assert set(re.findall(r"\b\d{3}\b", row.reason)) <= {row.code, *V34.index, *then}


def test_crosswalk_keeps_a_group_that_v34_has_and_leaves_out_one_that_v34_divides():
    heirs = CROSSWALK[CROSSWALK["v34"] != "excluded"]
    assert set(heirs["kind"]) == set(titles.KINDS) - {"regrouped", "dropped"}
    same_code = heirs["kind"].isin(["reworded", "misprinted", "widened", "narrowed"])
    assert (heirs["code"] == heirs["v34"])[same_code].all()
    before = CROSSWALK["first_year"] < "2017"
    assert CROSSWALK.loc[(CROSSWALK["kind"] == "divided") & before, "v34"].eq("excluded").all()
    assert CROSSWALK.loc[(CROSSWALK["kind"] == "divided") & ~before, "v34"].ne("excluded").all()


def test_later_years_pay_what_their_codes_weigh():
    """By hand: v34's cesarean sections with CC or MCC (765) are four codes of FY2021; lithotripsy (691) has none."""
    table = drgs.titles_by_year().query("fiscal_year == 2021").set_index("drg")["relative_weight"]
    found = module.weights(2021)
    assert found.index.equals(V34.index) and found["291"] == table["291"] == 1.3409
    assert found["765"] == pytest.approx(table[["783", "784", "786", "787"]].mean())
    assert found["652"] == pytest.approx(table[["650", "651", "652"]].mean())
    assert found["691"] == V34.loc["691", "relative_weight"]
    pd.testing.assert_series_equal(module.weights(2017), V34["relative_weight"])
    with pytest.raises(StudyError, match="fiscal_year is 2026; expected a year from 2008 to 2025"):
        module.weights(2026)


DOUBTFUL = pd.DataFrame(
    [
        ("291", "HEART FALIURE & SHOCK W MCC"),
        ("291", "HEART FAILURE & SHOCK W MCC"),
        ("155", "NASAL TRAUMA & DEFORMITY W CC"),
        ("245", "AICD LEAD & GENERATR PROCEDURES"),
        ("292", "HEART FAILURE & SHOCK W MCC"),
        ("101", "SEIZURS W/O MCC"),
        ("003", "INTERSTELLAR TRAVEL"),
        (None, "LIVER TRNSPLANT"),
    ],
    columns=["drg_code", "description"],
)


def filled_in(**decisions):
    """The sheet of the doubtful pairs, with (decision, reviewer, remark) for the named codes."""
    sheet = review_sheet(harmonize(DOUBTFUL))
    for code, entries in decisions.items():
        sheet.loc[sheet["code"] == code.strip("_"), ["decision", "reviewer", "remark"]] = entries
    return sheet


def test_the_review_sheet_lists_doubtful_pairs_in_order_of_doubt():
    sheet = filled_in()
    assert sheet["code"].tolist() == ["101", "291", "292", "245"]
    fuzzy = sheet.iloc[1]
    assert (fuzzy["proposed"], fuzzy["proposed_title"]) == ("291", "HEART FAILURE & SHOCK W MCC")
    assert sheet.loc[2, "proposed"] == "291" and sheet.loc[2, "reason"] == module.CONTRADICTION
    assert sheet.loc[3, "proposed"] == "excluded" and sheet.loc[3, "proposed_title"] == ""
    assert sheet.loc[3, "runner_up"] == "245 AICD GENERATOR PROCEDURES" and sheet.loc[3, "runner_up_score"] >= 80
    assert sheet[["decision", "reviewer", "remark"]].eq("").all(axis=None)
    assert review_sheet(harmonize(pd.DataFrame(HISTORY, columns=["drg_code", "description"]))).empty


def test_a_close_runner_up_is_more_doubtful_than_a_lower_score():
    mapping = (
        harmonize(DOUBTFUL).query("provenance == 'fuzzy'").assign(score=[99.0, 94.0], runner_up_score=[98.0, np.nan])
    )
    assert review_sheet(mapping)["score"].tolist() == [99, 94]
    assert review_sheet(mapping.assign(runner_up_score=[90.0, np.nan]))["score"].tolist() == [94, 99]


def test_reviewed_decisions_are_used_and_recorded_even_after_a_spreadsheet(tmp_path):
    sheet = filled_in(
        _292=("excluded", "Dr. A", "code and title differ"), _291=("291", "Dr. B", ""), _101=(" ", "", "not sure")
    )
    extra = {"title": "NASAL TRAUMA & DEFORMITY W CC", "decision": "5", "reviewer": "Dr. C", "remark": "overrules"}
    sheet = pd.concat([sheet, pd.DataFrame([{"code": "155", **extra}, {"code": "9", **extra}])])
    sheet.to_csv(tmp_path / "filled-in.csv", index=False, encoding="utf-8-sig")
    before, after = harmonize(DOUBTFUL), harmonize(DOUBTFUL, read_review(tmp_path / "filled-in.csv"))
    assert after.columns.tolist() == before.columns.tolist() and after.dtypes.equals(before.dtypes)
    reviewed = after[after["provenance"] == "reviewed"].set_index("code")
    assert reviewed["drg_v34"].fillna("none").to_dict() == {"155": "005", "291": "291", "292": "none"}
    assert reviewed["reason"].to_dict() == {
        "155": "reviewed by Dr. C: overrules",
        "291": "reviewed by Dr. B",
        "292": "reviewed by Dr. A: code and title differ",
    }
    others = ~after["title"].isin(reviewed["title"]) | (after["code"] == "101")
    pd.testing.assert_frame_equal(after[others], before[others])
    assert review_sheet(after)["code"].tolist() == ["101", "245"]
    pd.testing.assert_frame_equal(harmonize(DOUBTFUL, filled_in()), before)


def test_a_pair_without_a_code_is_reviewed_and_a_sheet_comes_back_as_it_was(tmp_path):
    entries = {"code": "", "title": "LIVER TRNSPLANT", "decision": "5", "reviewer": "Dr. A", "remark": "=1+1"}
    sheet = pd.DataFrame([entries, entries | {"code": "291", "decision": ""}])
    write_review(sheet.iloc[1:], tmp_path / "mine.csv")
    sheets.write(sheet, tmp_path / "mine.csv")
    assert "'=1+1" in (tmp_path / "mine.csv").read_text()  # no formula for a spreadsheet
    pd.testing.assert_frame_equal(read_review(tmp_path / "mine.csv"), sheet.astype("str"))
    found = harmonize(DOUBTFUL, sheet).set_index("title").loc["LIVER TRNSPLANT"]
    assert (found["drg_v34"], found["reason"]) == ("005", "reviewed by Dr. A: =1+1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sheet: sheet.drop(columns="reviewer"), "has no column 'reviewer'"),
        (lambda sheet: sheet.assign(decision="999x"), r"line 2 \(101 .*column decision: '999x' is neither"),
        (lambda sheet: sheet.assign(decision="237"), "column decision: '237' is neither a v34 code"),
        (lambda sheet: sheet.assign(reviewer=" ", decision=["", "291", "", ""]), "line 3 .*column reviewer: empty"),
        (lambda sheet: pd.concat([sheet, sheet.assign(decision="291")]), "line 6 .*an earlier line decides"),
    ],
)
def test_bad_review_sheets_are_refused_by_file_line_and_column(change, message, tmp_path):
    sheet = change(filled_in().assign(decision="292", reviewer="Dr. A"))
    sheet.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(StudyError, match=f"mine.csv.*{message}"):
        read_review(tmp_path / "mine.csv")
    with pytest.raises(StudyError, match=f"^the review sheet.*{message}"):
        harmonize(DOUBTFUL, sheet)


def test_a_missing_sheet_is_named_and_a_filled_in_one_is_never_written_over(tmp_path):
    path = tmp_path / "review.csv"
    with pytest.raises(StudyError, match=r"review\.csv is no readable table"):
        read_review(path)
    write_review(filled_in(), path)
    write_review(filled_in(), path)  # nobody has decided anything yet
    write_review(filled_in(_291=("291", "Dr. A", "")), path)
    with pytest.raises(StudyError, match=r"review\.csv holds decisions; name it as the parameter review"):
        write_review(filled_in(), path)
    assert read_review(path)["reviewer"].tolist() == ["", "Dr. A", "", ""]


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
    assert stays(cms, "reason") == {module.CMS_DRG: 31, module.PERHAPS_CMS_DRG: 26}
    assert stays(apr, "reason") == {module.NOT_MS_DRG: 168}
    shown = pd.read_csv(REFERENCE / "mimic_iii_demo_outcomes.csv").set_index(["drg_type", "outcome"])["rows"]
    for kind, table in (("MS", ms), ("HCFA", cms), ("APR", apr)):
        assert stays(table, "provenance") == shown[kind].to_dict()


def test_a_reviewers_name_and_remark_are_not_published():
    mapping = harmonize(DOUBTFUL, filled_in(_291=("291", "Dr. A", "as she told me")))
    assert mapping["reason"].str.contains("Dr. A: as she told me").any()
    shown = anonymous(mapping)
    assert not shown["reason"].str.contains("Dr. A|told me").any() and "reviewed" in set(shown["reason"])


def test_a_sheet_that_is_filled_in_and_used_where_it_lies_stays_as_it_is(tmp_path):
    path = tmp_path / "harmonization.csv"
    write_review(filled_in(_291=("291", "Dr. A", "")), path)
    before = path.read_bytes()
    write_review(filled_in(), path, read_review(path))
    assert path.read_bytes() == before
