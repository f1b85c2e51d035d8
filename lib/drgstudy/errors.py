"""Sorting wrong predictions: by what the DRGs alone decide, and into the categories of the paper's Table 4.

The first sorting needs no reader, the second one needs what stands in the note: a synthetic hospital's truth file knows
it, and a physician does, by a review sheet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from drgstudy import disclosure, drgs, sheets
from drgstudy.harmonize import standard_code
from drgstudy.metrics import TOP
from drgstudy.predictions import Predictions
from drgstudy.study import StudyError, short_repr

CATEGORIES = (
    "Erroneous CC/MCC",
    "Information not available",
    "Difficulty selecting the base DRG",
    "Inadequate concept extraction",
    "Plausible wrong label",
)
"""The paper's, in its order. Source: DRG-LLaMA, "Error analysis" and Table 4."""

CLASSES = (
    "Right base, wrong severity",
    "Right MDC: medical instead of surgical",
    "Right MDC: surgical instead of medical",
    "Right MDC: another base of the same type",
    "Wrong MDC: medical instead of surgical",
    "Wrong MDC: surgical instead of medical",
    "Wrong MDC: a DRG of the same type",
)
"""What the DRGs alone decide, from the smallest error to the largest; see `classify`."""

SEPSIS, PNEUMONIA = ("870", "871", "872"), ("177", "178", "179", "193", "194", "195")
"""DRGs of fiscal year 2013, of the early-DRG paper's five cases."""

MDC = {
    "PRE": "PRE transplant, ECMO",
    "01": "01 nervous system",
    "02": "02 eye",
    "03": "03 ear, nose, throat",
    "04": "04 respiratory",
    "05": "05 circulatory",
    "06": "06 digestive",
    "07": "07 liver, pancreas",
    "08": "08 musculoskeletal",
    "09": "09 skin, breast",
    "10": "10 endocrine",
    "11": "11 kidney, urinary",
    "12": "12 male reproductive",
    "13": "13 female reproductive",
    "14": "14 childbirth",
    "15": "15 newborn",
    "16": "16 blood",
    "17": "17 myeloproliferative",
    "18": "18 infection",
    "19": "19 mental",
    "20": "20 alcohol, drugs",
    "21": "21 injury, poisoning",
    "22": "22 burns",
    "23": "23 other contacts",
    "24": "24 multiple trauma",
    "25": "25 HIV",
    "99": "any MDC",
}
"""Short names of the major diagnostic categories, in their order."""

_FILLED = ["category", "comment"]


def judge(stay_ids: np.ndarray, truth: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """Each prediction beside the truth; the parameters are those of `predictions.Predictions`.

    Returns
    -------
    DataFrame
        A row a stay, by stay_id: stay_id (int), true_drg and predicted_drg (str), rank of the true DRG (int, from 1) and
        its class (str, one of `CLASSES`; "" where the prediction is right). Of equal logits the last one comes first,
        as in `metrics.Scores`: the stays of rank k or better are those that accuracy at k counts.
    """
    n, k = logits.shape
    own = logits[np.arange(n), truth][:, None]
    rank = 1 + ((logits > own) | ((logits == own) & (np.arange(k) > truth[:, None]))).sum(axis=1)
    true, predicted = labels[truth], labels[k - 1 - logits[:, ::-1].argmax(axis=1)]
    columns = {"stay_id": stay_ids, "true_drg": true, "predicted_drg": predicted, "rank": rank}
    judged = pd.DataFrame(columns | {"class": classify(true, predicted)})
    return judged.sort_values("stay_id", ignore_index=True)


def classify(true, predicted) -> np.ndarray:
    """The one of `CLASSES` that each error belongs to.

    The base DRG is asked first, for it fixes MDC and type; then the MDC, and within both answers whether a medical DRG
    stands for a surgical one, a surgical for a medical one, or neither (998 and 999, which have no type, are always
    "of the same type"). Pre-MDC DRGs are an MDC of their own, and so are those that any MDC may have (981-989, 998, 999).

    Parameters
    ----------
    true, predicted : sequences of str, v34 codes

    Returns
    -------
    numpy.ndarray of object: "" where both are the same DRG.
    """
    true, predicted = (drgs.v34().loc[list(codes)].reset_index() for codes in (true, predicted))
    kind = (true["type"] + predicted["type"]).map({"surgicalmedical": 0, "medicalsurgical": 1}).fillna(2).astype(int)
    place = np.where(true["mdc"] == predicted["mdc"], 1, 4) + kind
    place = np.where(true["base"] == predicted["base"], 0, place)
    return np.where(true["drg"] == predicted["drg"], "", np.array(CLASSES, dtype=object)[place])


def tally(found: pd.Series, names: tuple[str, ...]) -> pd.DataFrame:
    """How many errors each of `names` has, and its share of them: name (str), errors (int), share (float, 0 to 1)."""
    counts = found.value_counts().reindex(names, fill_value=0)
    share = counts / max(counts.sum(), 1)
    return pd.DataFrame({"name": names, "errors": counts.to_numpy(), "share": share.to_numpy()})


def sums(names: pd.Series) -> list[np.ndarray]:
    """The rows of `CLASSES` that make up each sum that is told elsewhere: all errors, those of an MDC, those of a type."""
    first = names.str.split("[,:]").str[0]
    groups = [names.notna(), names.str.contains("instead"), *(first == group for group in first.unique())]
    return [group.to_numpy() for group in groups]


def draw(judged: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """A random sample of the errors whose true DRG is not among the ten likeliest, all of them if there are no more.

    Source: DRG-LLaMA, "Error analysis": ten of them make Table 4. Rows as `judge` returns them, by stay_id: the
    sample depends on the seed and on these errors alone, not on the order of the rows.

    Raises
    ------
    StudyError
        If `size` is below 1.
    """
    if size < 1:
        raise StudyError(f"parameter sample: {size} errors can't be drawn; give 1 or more")
    outside = judged[judged["rank"] > TOP[-1]].sort_values("stay_id", ignore_index=True)
    chosen = np.random.default_rng(seed).choice(len(outside), min(size, len(outside)), replace=False)
    return outside.iloc[np.sort(chosen)].reset_index(drop=True)


def by_mdc(judged: pd.DataFrame) -> pd.DataFrame:
    """Stays by true MDC (rows) and predicted MDC (columns), right predictions too: those of `MDC` that occur, by name."""
    true, predicted = (judged[column].map(drgs.v34()["mdc"]) for column in ("true_drg", "predicted_drg"))
    occurring = [mdc for mdc in MDC if mdc in {*true, *predicted}]
    counts = pd.crosstab(true, predicted).reindex(index=occurring, columns=occurring, fill_value=0)
    return counts.rename(index=MDC, columns=MDC).rename_axis("true MDC").rename_axis("predicted MDC", axis=1)


def confusions(judged: pd.DataFrame, mask_below: int = 0) -> pd.DataFrame:
    """Which two DRGs are taken for one another, those with most errors first.

    Parameters
    ----------
    judged : DataFrame
        As `judge` returns it; at least one prediction is wrong.
    mask_below : int
        Smaller counts are NaN, and so are larger ones that would give them away: of all errors, of those of a DRG, of a
        class and of two MDCs it is told elsewhere how many they are. Pairs of which nothing is left are left out.

    Returns
    -------
    DataFrame
        drg and other (str, v34 codes); there, the stays of drg that were taken for the other; back, those of the other that
        were taken for drg, which are no more of those that are told; errors, their sum; share of all errors (0 to 1);
        apart_in, the highest level at which the two differ ("severity", "base DRG" or "MDC").
    """
    wrong = judged[judged["class"] != ""]
    cells = wrong.groupby(["true_drg", "predicted_drg", "class"]).size().rename("stays").reset_index()
    mdc = drgs.v34()["mdc"]
    groups = [cells["true_drg"], cells["class"], cells["true_drg"].map(mdc) + cells["predicted_drg"].map(mdc)]
    sums = [(group == name).to_numpy() for group in groups for name in group.unique()]
    hide = disclosure.withheld(cells["stays"], mask_below, [np.ones(len(cells), bool), *sums])
    there = cells.assign(stays=cells["stays"].mask(hide)).set_index(["true_drg", "predicted_drg"])["stays"]
    back = there.reindex(there.index.swaplevel(), fill_value=0).to_numpy()
    level = (
        cells["class"]
        .str.split("[,:]")
        .str[0]
        .map({"Right base": "severity", "Right MDC": "base DRG", "Wrong MDC": "MDC"})
    )
    table = (
        pd.DataFrame({"there": there, "back": back, "errors": there + back}).rename_axis(["drg", "other"]).reset_index()
    )
    table = table.assign(share=table["errors"] / len(wrong), apart_in=level, told=table[["there", "back"]].sum(axis=1))
    commoner = table["there"].fillna(0) - table["back"].fillna(0)
    once = (commoner > 0) | ((commoner == 0) & (table["told"] > 0) & (table["drg"] < table["other"]))
    return table[once].sort_values("told", ascending=False, kind="stable", ignore_index=True).drop(columns="told")


def categorise(errors: pd.DataFrame, facts: pd.DataFrame) -> pd.Series:
    """The paper's category of each error, decided by what was true and what was written down.

    The first rule that fits counts; each asks what a physician would ask with the note in hand.

    1. *Plausible wrong label*: the coded facts do not give the billed DRG, so that nothing about the note explains it.
    2. The base is right, the severity wrong. *Erroneous CC/MCC* if what was written down gives the billed DRG; if not,
       a CC or MCC was never written down, and it is *Information not available*.
    3. *Difficulty selecting the base DRG*: the base is that of the competing diagnosis. Both diagnoses stand in the
       note, and only the rules of coding say which one was principal (the paper's Case 2); so this comes before the
       next rule, though the note may be told as if the competing one had been the reason for admission.
    4. *Information not available*: what was written down gives another base than the billed one. A missing CC is no
       excuse here, for no CC decides a base.
    5. *Inadequate concept extraction*: the base could be read, and the model did not.

    Parameters
    ----------
    errors : DataFrame with stay_id, true_drg and predicted_drg, as `judge` returns them, right predictions left out.
    facts : DataFrame of v34 codes or missing, indexed by stay_id
        coded: the DRG of all that was coded; documented: of what was written down; competing: of the same with the
        competing diagnosis as principal, missing unless it and the true one were both written down.

    Returns
    -------
    Series of str, one of `CATEGORIES` for each row of `errors`.

    Raises
    ------
    StudyError
        If a stay has no facts.
    """
    if missing := sorted(set(errors["stay_id"]) - set(facts.index)):
        raise StudyError(
            f"stay {missing[0]}: not in the truth file; use the one of the hospital that the cohort is from"
        )
    true, predicted = errors["true_drg"], errors["predicted_drg"]
    known = facts.loc[errors["stay_id"]].set_index(errors.index)
    base = drgs.v34()["base"]
    true_base, predicted_base = true.map(base), predicted.map(base)
    severity, unavailable, selecting, extraction, label = CATEGORIES
    rules = {
        label: known["coded"] != true,
        severity: (predicted_base == true_base) & (known["documented"] == true),
        unavailable: predicted_base == true_base,
        selecting: predicted_base == known["competing"].map(base),
    }
    last = np.where(known["documented"].map(base) != true_base, unavailable, extraction)
    return pd.Series(np.select(list(rules.values()), list(rules), last), errors.index, name="category", dtype="str")


def review_sheet(cases: pd.DataFrame, texts: pd.Series) -> pd.DataFrame:
    """Cases for a physician to read.

    Parameters
    ----------
    cases : DataFrame, rows of `judge`.
    texts : Series of str
        Hospital courses, indexed by stay_id.

    Returns
    -------
    DataFrame
        stay_id, true_drg, true_title, predicted_drg, predicted_title, rank, text, and two empty columns: category (to be
        one of `CATEGORIES`) and comment.
    """
    sheet = cases[["stay_id", "true_drg", "predicted_drg", "rank"]].copy()
    for at, column in ((2, "true"), (4, "predicted")):
        sheet.insert(at, f"{column}_title", sheet[f"{column}_drg"].map(drgs.v34()["title"]))
    return sheet.assign(text=sheet["stay_id"].map(texts), **dict.fromkeys(_FILLED, ""))


def reviewed(sheet: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The sheet with what a physician has filled in at `path`, where it is written if nobody has filled in anything.

    A category that is still empty stays so. Rows of other stays are ignored.

    Raises
    ------
    StudyError
        If the file is unreadable or lacks a column, or a row is about no stay, one that an earlier row has, another
        prediction or an unknown category; or if it is filled in and lacks a stay of the sheet.
    """
    done = _read_review(path) if Path(path).exists() else None
    if done is None or not done[_FILLED].to_numpy().any():
        sheets.write(sheet, path)
        return sheet
    aside = "move the file elsewhere, and a new sheet is written"
    for row in sheet.itertuples():
        if row.stay_id not in done.index:
            raise StudyError(f"{path}: no row for stay {row.stay_id} of this run's sample; restore it, or {aside}")
        if (found := tuple(done.loc[row.stay_id, ["true_drg", "predicted_drg"]])) != (row.true_drg, row.predicted_drg):
            raise StudyError(
                f"{path}, stay {row.stay_id}: reviewed as {found[1]} predicted for {found[0]}, but this run predicts "
                f"{row.predicted_drg} for {row.true_drg}; {aside}"
            )
    return sheet.assign(**{column: done.loc[sheet["stay_id"], column].to_numpy() for column in _FILLED})


def _read_review(path: Path) -> pd.DataFrame:
    columns = ["stay_id", "true_drg", "predicted_drg", *_FILLED]
    done = sheets.read(path, columns)[columns].apply(lambda column: column.str.strip())
    seen, known = set(), {name.casefold(): name for name in CATEGORIES} | {"": ""}
    for number, row in enumerate(done.itertuples(), start=1):
        where = f"{path}, row {number} (stay {row.stay_id[:20]})"
        if not (row.stay_id.isdecimal() and len(row.stay_id) < 19):  # as many as an int64 has for sure
            raise StudyError(f"{where}, column stay_id: expected a whole number, as in the sheet that was written")
        if row.stay_id in seen:
            raise StudyError(f"{where}: an earlier row is about the same stay; keep one of them")
        if row.category.casefold() not in known:
            raise StudyError(f"{where}, column category: {short_repr(row.category)} is none of {', '.join(CATEGORIES)}")
        seen.add(row.stay_id)
    done["category"] = done["category"].str.casefold().map(known)
    for column in ("true_drg", "predicted_drg"):
        done[column] = standard_code(done[column])  # a spreadsheet drops leading zeros
    return done.astype({"stay_id": "int64"}).set_index("stay_id")


def titled(codes: pd.Series) -> pd.Series:
    """Codes with their titles, as they are printed; of two codes, "207/208", the first one's."""
    return codes + " " + codes.str[:3].map(drgs.v34()["title"].map(drgs.readable))


def extremes(by_drg: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The DRGs that are always named and those never near: Supplementary Tables 2, 3 and 4, by the table's name.

    Parameters
    ----------
    by_drg : DataFrame, as `results.by_drg` returns it.

    Returns
    -------
    dict of str to DataFrame: drg, title, type, train_cases and test_cases, by drg, of those with a top-1 accuracy of 1
    (2), and of the medical (3) and surgical ones (4) with a top-5 accuracy of 0.
    """
    never = by_drg["acc_at_5"] == 0
    chosen = [by_drg["acc_at_1"] == 1, never & (by_drg["type"] == "medical"), never & (by_drg["type"] == "surgical")]
    columns = ["drg", "title", "type", "train_cases", "test_cases"]
    tables = [by_drg.loc[rows, columns].sort_values("drg", ignore_index=True) for rows in chosen]
    return dict(zip([f"Supplementary Table {n}" for n in (2, 3, 4)], tables, strict=True))


def five_cases(made: Predictions, cases: pd.Series, trained: set[str]) -> pd.DataFrame:
    """One stay for each of Table 3's five situations, the one of which the model is surest; none where none fits.

    Parameters
    ----------
    made : Predictions
        Of MS-DRGs.
    cases : Series of int
        Stays of each DRG in the cohort.
    trained : set of str
        DRGs that the model was trained on.

    Returns
    -------
    DataFrame
        case (1 to 5), situation, position (in the predictions), true_drg, predicted_drg, true_count, predicted_count.
    """
    facts = drgs.fiscal_2013("ms")
    base = facts["title"].str.replace(r" W(?:/O)? (?:CC/MCC|MCC|CC)$", "", regex=True)
    stays = pd.DataFrame({"true_drg": made.labels[made.truth], "predicted_drg": made.labels[made.logits.argmax(1)]})
    stays["sure"] = log_softmax(made.logits, axis=1).max(1)
    for which in ("true", "predicted"):
        stays[f"{which}_count"] = stays[f"{which}_drg"].map(cases).fillna(0).astype(int)
    wrong = stays["true_drg"] != stays["predicted_drg"]
    known = stays["true_drg"].isin(trained)
    same_base = stays["true_drg"].map(base) == stays["predicted_drg"].map(base)
    same_mdc = stays["true_drg"].map(facts["mdc"]) == stays["predicted_drg"].map(facts["mdc"])
    rare = stays["true_count"] * 3 <= stays["predicted_count"]
    situations = {
        "right": ~wrong,
        "pneumonia where sepsis was": stays["true_drg"].isin(SEPSIS) & stays["predicted_drg"].isin(PNEUMONIA),
        "CC against MCC": wrong & known & same_base,
        "a frequent DRG where a rare one was": wrong & known & ~same_base & same_mdc & rare,
        "a DRG never seen in training": wrong & ~known,
    }
    rows = []
    for case, (situation, fits) in enumerate(situations.items(), 1):
        if fits.any():
            at = stays.loc[fits, "sure"].idxmax()
            rows.append({"case": case, "situation": situation, "position": at} | stays.loc[at].drop("sure").to_dict())
    if not rows:
        raise StudyError("the five cases: no stay was predicted")
    return pd.DataFrame(rows)
