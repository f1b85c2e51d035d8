"""Sorting wrong predictions: every error in one class, the paper's categories, and the physician's sheet."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drgstudy import drgs, errors, published
from drgstudy.metrics import Scores
from drgstudy.study import REFERENCE, StudyError
from drgstudy.synthetic import hardness
from drgstudy.synthetic.tables import Hospital

V34 = drgs.v34()
CODE = st.sampled_from(V34.index.tolist())
PUBLISHED = pd.read_csv(REFERENCE / "published_drgs.csv", dtype=str, keep_default_na=False)
SEVERITY, UNAVAILABLE, SELECTING, EXTRACTION, LABEL = errors.CATEGORIES


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ("291", "291", ""),
        ("291", "292", "Right base, wrong severity"),  # heart failure with MCC, with CC
        ("838", "837", "Right base, wrong severity"),  # one base that the manual words in two ways
        ("329", "378", "Right MDC: medical instead of surgical"),  # bowel procedure, GI bleeding
        ("378", "329", "Right MDC: surgical instead of medical"),
        ("291", "308", "Right MDC: another base of the same type"),  # heart failure, arrhythmia
        ("470", "603", "Wrong MDC: medical instead of surgical"),  # joint replacement, cellulitis
        ("871", "466", "Wrong MDC: surgical instead of medical"),  # sepsis, hip revision: the paper's case 6
        ("871", "690", "Wrong MDC: a DRG of the same type"),  # sepsis, urinary tract infection
        ("003", "163", "Wrong MDC: a DRG of the same type"),  # tracheostomy, before any MDC; chest procedure
        ("981", "984", "Right MDC: another base of the same type"),  # unrelated procedures: of any MDC
        ("291", "999", "Wrong MDC: a DRG of the same type"),  # ungroupable: has no type
    ],
)
def test_hand_worked_classes(true, predicted, expected):
    assert errors.classify([true], [predicted]).tolist() == [expected]


@given(st.lists(st.tuples(CODE, CODE), min_size=1, max_size=30))
def test_each_error_has_the_one_class_that_its_facts_say(pairs):
    true, predicted = zip(*pairs, strict=True)
    for a, b, found in zip(true, predicted, errors.classify(true, predicted), strict=True):
        one, other = V34.loc[a], V34.loc[b]
        fitting = {
            "": a == b,
            "Right base": a != b and one["base"] == other["base"],
            "Right MDC": one["base"] != other["base"] and one["mdc"] == other["mdc"],
            "Wrong MDC": one["mdc"] != other["mdc"],
        }
        assert [name for name, fits in fitting.items() if fits] == [found.partition(",")[0].partition(":")[0]]
        assert ("medical instead" in found) == ((one["type"], other["type"]) == ("surgical", "medical"))
        assert ("surgical instead" in found) == ((one["type"], other["type"]) == ("medical", "surgical"))
        assert found in ("", *errors.CLASSES)


def judged_as(counts: dict[tuple[str, str], int]) -> pd.DataFrame:
    """As `errors.judge` returns it: so many stays of the first DRG that were called the second."""
    true, predicted = zip(*[pair for pair, n in counts.items() for _ in range(n)], strict=True)
    return pd.DataFrame({"true_drg": true, "predicted_drg": predicted, "class": errors.classify(true, predicted)})


def test_pairs_of_drgs_are_counted_in_both_directions_by_hand():
    found = errors.confusions(judged_as({("291", "292"): 3, ("292", "291"): 5, ("291", "291"): 9, ("690", "871"): 2}))
    assert found.to_dict("list") == {
        "drg": ["292", "690"], "other": ["291", "871"], "there": [5, 2], "back": [3, 0], "errors": [8, 2],
        "share": [0.8, 0.2], "apart_in": ["severity", "MDC"],
    }  # fmt: skip


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.tuples(*[st.sampled_from(["291", "292", "308", "690", "871"])] * 2), st.integers(1, 40), min_size=3
    )
)
def test_of_pairs_that_are_told_no_small_count_follows(counts):
    counts |= {("291", "292"): 12}
    whole, told = (errors.confusions(judged_as(counts), least) for least in (0, 11))
    wrong = {pair: n for pair, n in counts.items() if len(set(pair)) == 2}
    assert whole["errors"].sum() == sum(wrong.values()) and whole["share"].sum() == pytest.approx(1)
    shown = {}
    for row in told.itertuples():
        shown |= {(row.drg, row.other): row.there, (row.other, row.drg): row.back}
    shown = {pair: n for pair, n in shown.items() if n == n and n}
    assert all(wrong[pair] == n and n >= 11 for pair, n in shown.items())
    mdc = V34["mdc"]
    for same in (lambda pair: "all", lambda pair: pair[0], lambda pair: (mdc[pair[0]], mdc[pair[1]])):
        left = {}
        for pair, n in wrong.items():
            left[same(pair)] = left.get(same(pair), 0) + n - shown.get(pair, 0)
        assert not any(0 < n < 11 and any(same(pair) == group for pair in shown) for group, n in left.items())


def test_the_papers_examples_are_pairs_of_v34():
    found = published.confused()
    assert found[frozenset(["671", "668"])] == "Supplementary Results 4.3" and len(found) == 12
    assert found[frozenset(["291", "208"])] == found[frozenset(["291", "207"])] == "Table 4, case 1"
    assert {code for pair in found for code in pair} <= set(V34.index)


def test_every_class_occurs_and_every_mdc_has_a_name():
    found = set(errors.classify(np.repeat(V34.index, len(V34)), np.tile(V34.index, len(V34))))
    assert found == {"", *errors.CLASSES}
    assert set(errors.MDC) == set(V34["mdc"]) and len(set(errors.MDC.values())) == 27


@given(st.integers(0, 999), st.booleans())
def test_ranks_and_hits_are_those_of_the_metrics(seed, ties):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.choice(V34.index.to_numpy(dtype=str), 15, replace=False))
    logits = rng.integers(0, 4, (40, 15)).astype("float32") if ties else rng.normal(size=(40, 15)).astype("float32")
    truth, ids = rng.integers(0, 15, 40), rng.permutation(40) + 100
    judged = errors.judge(ids, truth, labels, logits)
    accuracy = Scores(logits, truth).evaluate()
    for k in (1, 5, 10):
        assert (judged["rank"] <= k).mean() == pytest.approx(accuracy[f"acc_at_{k}"])
    assert ((judged["rank"] == 1) == (judged["class"] == "")).all()
    assert ((judged["true_drg"] == judged["predicted_drg"]) == (judged["class"] == "")).all()
    assert judged["stay_id"].tolist() == sorted(ids)
    assert judged.set_index("stay_id").loc[ids, "true_drg"].tolist() == labels[truth].tolist()
    tally = errors.tally(judged.loc[judged["rank"] > 1, "class"], errors.CLASSES)
    assert tally["errors"].sum() == (judged["rank"] > 1).sum() and tally["share"].sum() == pytest.approx(1)


def judged_rows(ranks, true="291", predicted="308"):
    """Judged stays 1, 2, ... with these ranks."""
    ids = range(1, len(ranks) + 1)
    return pd.DataFrame({"stay_id": ids, "true_drg": true, "predicted_drg": predicted, "rank": ranks})


def test_the_sample_holds_errors_outside_the_top_ten_and_knows_no_order():
    rows = judged_rows([11, 2, 10, 50, 1] * 20)
    drawn = errors.draw(rows, 10, 42)
    assert len(drawn) == 10 and drawn["rank"].min() > 10 and drawn["stay_id"].is_monotonic_increasing
    assert drawn["stay_id"].is_unique
    pd.testing.assert_frame_equal(drawn, errors.draw(rows.sample(frac=1, random_state=1), 10, 42))
    assert drawn["stay_id"].tolist() != errors.draw(rows, 10, 43)["stay_id"].tolist()


def test_a_sample_of_fewer_errors_than_asked_for_holds_all_of_them():
    assert errors.draw(judged_rows([11, 3, 12]), 10, 42)["stay_id"].tolist() == [1, 3]
    assert errors.draw(judged_rows([3]), 10, 42).empty
    with pytest.raises(StudyError, match="parameter sample: 0"):
        errors.draw(judged_rows([11]), 0, 42)


def test_confusion_counts_each_stay_once_in_the_order_of_the_mdcs():
    rows = pd.DataFrame({"true_drg": ["871", "003", "291", "871"], "predicted_drg": ["690", "003", "291", "871"]})
    counts = errors.by_mdc(rows)
    names = ["PRE transplant, ECMO", "05 circulatory", "11 kidney, urinary", "18 infection"]
    assert counts.index.tolist() == counts.columns.tolist() == names
    assert counts.to_numpy().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]


# Heart failure is 291 to 293, with MCC, with CC and without; arrhythmia 308 to 310; sepsis 871.
@pytest.mark.parametrize(
    ("predicted", "coded", "documented", "competing", "expected"),
    [
        ("292", "291", "291", None, SEVERITY),  # the MCC stood in the note
        ("292", "291", "292", None, UNAVAILABLE),  # it did not
        ("293", "291", "292", None, UNAVAILABLE),  # nor did it where the model missed the CC, too
        ("292", "291", "291", "292", SEVERITY),  # a rival that shares the base is no rival
        ("308", "291", "291", "309", SELECTING),  # the rival's base, whatever its severity
        ("309", "291", "309", "309", SELECTING),  # and though the note puts it first
        ("871", "291", "291", "309", EXTRACTION),  # neither the one nor the other
        ("871", "291", "292", None, EXTRACTION),  # a missing MCC explains no wrong base
        ("871", "291", "309", None, UNAVAILABLE),  # the principal diagnosis was not written down
        ("871", "291", None, None, UNAVAILABLE),
        ("871", "292", "292", None, LABEL),  # the codes themselves give another DRG
        ("292", "292", "292", "292", LABEL),
    ],
)
def test_hand_worked_categories_of_a_stay_billed_as_291(predicted, coded, documented, competing, expected):
    facts = {"coded": coded, "documented": documented, "competing": competing}
    found = errors.categorise(judged_rows([11], predicted=predicted), pd.DataFrame(facts, index=[1], dtype="str"))
    assert found.tolist() == [expected]


def test_facts_are_found_by_stay_and_must_be_there():
    rows, columns = judged_rows([11, 12], predicted="292"), ["coded", "documented", "competing"]
    facts = pd.DataFrame([["291", "291", None], ["291", "292", None]], index=[2, 1], columns=columns, dtype="str")
    assert errors.categorise(rows.set_axis([7, 8]), facts).to_dict() == {7: UNAVAILABLE, 8: SEVERITY}
    with pytest.raises(StudyError, match="stay 1: not in the truth file"):
        errors.categorise(rows, facts.loc[[2]])


def test_the_competing_drg_is_that_of_the_problem_that_could_have_led():
    """Pneumonia (J189) while heart failure (I5021) was the reason: 193 to 195 instead of 291 to 293."""
    columns = ["sex", "status", "fiscal_year", "codes", "documented", "documented_procedures", "competing"]
    rows = [
        ["F", "01", 2017, "I5021 J189", "I5021 J189", "", "J189"],
        ["F", "01", 2017, "I5021 J189", "J189 I5021", "", "J189"],  # the note puts it first
        ["F", "01", 2017, "I5021 J189", "J189", "", "J189"],  # the true one was not written down
        ["F", "01", 2017, "I5021 J189", "I5021", "", "J189"],  # or the other one was not
        ["F", "01", 2017, "I5021 E1140", "I5021 E1140", "", ""],
    ]
    truth = pd.DataFrame(rows, columns=columns, index=[11, 12, 13, 14, 15])
    found = hardness.competing_drg(Hospital(0.1), truth)
    assert found.index.tolist() == truth.index.tolist()
    assert found.map(V34["base"])[:2].tolist() == [V34.loc["193", "base"]] * 2
    assert found[2:].isna().all()


@pytest.fixture
def sheet():
    return errors.review_sheet(judged_rows([12, 30]), pd.Series({1: "Came in with\n“dyspnea”, diuresed.", 2: "Fell."}))


def test_a_sheet_is_written_filled_in_and_read_back(sheet, tmp_path):
    path = tmp_path / "review" / "errors.csv"
    assert errors.reviewed(sheet, path) is sheet and (sheet["category"] == "").all()
    there = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert there["text"].tolist() == sheet["text"].tolist()
    assert there["true_title"].tolist() == ["HEART FAILURE AND SHOCK WITH MCC"] * 2
    errors.reviewed(sheet.iloc[:1], path)  # nobody has filled it in: written anew
    assert len(pd.read_csv(path)) == 1
    there.loc[1, ["category", "comment"]] = [" erroneous cc/mcc", "see day 3"]
    there.iloc[::-1].to_csv(path, index=False, encoding="utf-8-sig")  # as a spreadsheet saves it, rows turned round
    before = path.read_bytes()
    done = errors.reviewed(sheet, path)
    assert done[["category", "comment"]].to_numpy().tolist() == [["", ""], [SEVERITY, "see day 3"]]
    assert path.read_bytes() == before


def test_leading_zeros_that_a_spreadsheet_dropped_are_put_back(tmp_path):
    sheet = errors.review_sheet(judged_rows([12], true="003", predicted="056"), pd.Series({1: "Text."}))
    path = tmp_path / "errors.csv"
    sheet.assign(true_drg="3", predicted_drg="56", category=LABEL).to_csv(path, index=False)
    assert errors.reviewed(sheet, path)["category"].tolist() == [LABEL]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.assign(category="Bad luck"),
            r"row 1 \(stay 1\), column category: 'Bad luck' is none of Erroneous",
        ),
        (lambda t: pd.concat([t, t]), r"row 3 \(stay 1\): an earlier row is about the same stay"),
        (lambda t: t.iloc[:1], "no row for stay 2 of this run's sample; restore it, or move the file elsewhere"),
        (lambda t: t.assign(stay_id=["1", "two"]), r"row 2 \(stay two\), column stay_id: expected a whole number"),
        (
            lambda t: t.assign(predicted_drg="310"),
            "stay 1: reviewed as 310 predicted for 291, but this run predicts 308",
        ),
        (lambda t: t.drop(columns="category"), "has no column 'category'"),
    ],
)
def test_a_sheet_that_cannot_be_used_is_refused_and_kept(sheet, tmp_path, change, message):
    path = tmp_path / "errors.csv"
    change(sheet.assign(category=EXTRACTION)).to_csv(path, index=False)
    before = path.read_bytes()
    with pytest.raises(StudyError, match=message) as caught:
        errors.reviewed(sheet, path)
    assert str(path) in str(caught.value) and path.read_bytes() == before


def test_a_sheet_that_is_no_text_is_refused(sheet, tmp_path):
    path = tmp_path / "errors.csv"
    path.write_bytes(b"stay_id\n\xff\xfe\xfa")
    with pytest.raises(StudyError, match="is no readable table"):
        errors.reviewed(sheet, path)


def test_extremes_are_all_or_nothing_by_type():
    by_drg = pd.DataFrame(
        {
            "drg": ["470", "291", "329", "603", "999", "310"],
            "title": "t",
            "type": ["surgical", "medical", "surgical", "medical", "", "medical"],
            "train_cases": [9, 8, 7, 6, 5, 4],
            "test_cases": [1, 2, 3, 4, 5, 6],
            "acc_at_1": [1, 0.9, 0, 0, 0, 1],
            "acc_at_5": [1, 1.0, 0, 0, 0, 1],
        }
    )
    found = {name: table["drg"].tolist() for name, table in errors.extremes(by_drg).items()}
    names = [f"Supplementary Table {n}" for n in (2, 3, 4)]
    assert found == dict(zip(names, [["310", "470"], ["603"], ["329"]], strict=True))


def test_the_published_lists_give_the_numbers_of_the_papers_text():
    lists = PUBLISHED[PUBLISHED["table"].str.startswith("Supplementary Table")].astype({"train_cases": int})
    assert lists["drg"].is_unique and (lists["type"] == lists["drg"].map(V34["type"])).all()
    perfect, medical, surgical = (rows for _, rows in lists.groupby("table"))
    text = pd.read_csv(REFERENCE / "published_tables.csv").set_index(["table", "row", "column"])["value"]["Text"]
    assert len(perfect) == text["Top-1 accuracy 100 %", "n_drgs"] == 9
    assert (perfect["type"] == "surgical").sum() == text["Top-1 accuracy 100 %", "n_surgical_drgs"] == 8
    assert perfect["train_cases"].median() == text["Top-1 accuracy 100 %", "median_train_cases"] == 23
    assert medical["train_cases"].median() == text["Top-5 accuracy 0 %, medical", "median_train_cases"] == 17.5
    assert surgical["train_cases"].median() == text["Top-5 accuracy 0 %, surgical", "median_train_cases"] == 16
    assert (len(medical), len(surgical)) == (38, 45)
    assert set(medical["type"]) == {"medical"} and set(surgical["type"]) == {"surgical"}


def test_the_published_cases_give_the_counts_of_table_4():
    cases = PUBLISHED[PUBLISHED["table"] == "Table 4"]
    predicted = cases["predicted_drg"].str.split("/").explode()
    assert cases["case"].tolist() == [str(n) for n in range(1, 11)]
    assert {*cases["drg"], *predicted} <= set(V34.index) and len(predicted) == 11
    counts = pd.read_csv(REFERENCE / "published_tables.csv").query("table == 'Table 4'").set_index("row")["value"]
    tally = errors.tally(cases["category"], errors.CATEGORIES)
    assert counts.to_dict() == tally.set_index("name")["errors"].to_dict()
    # The one erroneous CC/MCC is the one with the right base.
    same = errors.classify(cases["drg"], cases["predicted_drg"].str[:3]) == errors.CLASSES[0]
    assert (same == (cases["category"] == SEVERITY)).all()


def test_codes_are_titled_two_codes_by_the_first():
    title = "HEART FAILURE AND SHOCK WITH MCC"
    assert errors.titled(pd.Series(["291", "291/292"])).tolist() == [f"291 {title}", f"291/292 {title}"]
