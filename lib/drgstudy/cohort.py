"""From notes and billed DRGs to labelled stays: inclusion, exclusion, flow counts and the splits.

Where the paper and its code are silent, these rules apply. A note without a stay id joins no stay. Of several notes of
one stay, the first in the file is kept. Repeated DRG rows of a stay count once. A stay whose rows name two different
v34 DRGs is left out, for nobody can say which one was paid.

Under the rules of DRG-LLaMA's published code (`rules="published"`) the hospital course is found by its patterns, notes and
DRG rows of a stay are joined as they are, so that a stay may have several rows, and scikit-learn draws the split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet
from sklearn.model_selection import train_test_split
from statsmodels.stats.weightstats import ttest_ind

from drgstudy.flow import check_flow, is_published, sieve
from drgstudy.harmonize import standard_code
from drgstudy.notes import hospital_course, n_words, published_course
from drgstudy.study import StudyError, one_line

_IS_PART = pa.Check.isin(["train", "test"])
_IS_PART_OR_OTHER = pa.Check.isin(["train", "test", "other"])
COURSES = pyarrow.schema(
    {"subject_id": "int64", "hadm_id": "int64", "text": "string", "words": "int64", "digest": "int64"}
)
"""What `extract` makes of a note. text is its hospital course (null if there is none), words counts the words of that,
and digest is a hash of its bytes."""
STAYS = pa.DataFrameSchema(
    {
        "stay_id": pa.Column("int64", unique=True),
        "subject_id": pa.Column("int64"),
        "drg_v34": pa.Column("str", pa.Check.str_matches(r"^\d{3}$")),
        "text": pa.Column("str"),
        "words": pa.Column("int64", pa.Check.ge(1)),
        "split": pa.Column("str", _IS_PART),
        "split_patients": pa.Column("str", _IS_PART_OR_OTHER),
        "split_known": pa.Column("str", _IS_PART_OR_OTHER, required=False),
        "split_clinicians": pa.Column("str", _IS_PART, required=False),
    },
    checks=pa.Check(
        lambda stays: (stays["split_patients"] == "train").groupby(stays["subject_id"]).transform("nunique") == 1,
        name="a patient, a part",
    ),
    strict=True,
)
"""Schema of stays.parquet: one row for each stay, by ascending stay_id (MIMIC's hadm_id). See also `SPLITS`.

Under the published rules a stay may have several rows, side by side. The id of each further one has a number in front:
of stay 20000001 the second row is 120000001, the third 220000001. So every row can be named, predicted and reviewed."""
MAPPING = pa.DataFrameSchema(
    {
        "code": pa.Column("str", nullable=True),
        "title": pa.Column("str"),
        "stays": pa.Column("int64", pa.Check.ge(1)),
        "drg_v34": pa.Column("str", pa.Check.str_matches(r"^\d{3}$"), nullable=True),
        "provenance": pa.Column("str"),
    },
    unique=["code", "title"],
)
"""Schema of drgs.parquet: one row for each pair of billed code and title, from `harmonize.harmonize`."""
DRG_COLUMNS = ["hadm_id", "drg_type", "drg_code", "description"]
"""The columns of DRGCODES that `build_cohort` uses."""
BLOCK = 20_000  # labelled stays whose texts are put in order at a time
BATCHES = 32  # batches after which the texts of a block are joined: Arrow gives back memory only in larger pieces
SPLITS = ("split", "split_patients", "split_known", "split_clinicians")
"""Columns that say "train" or "test", some of them "other". The first is stratified by DRG. In the second no patient is in
both parts, and of each test patient one stay is tested. In the third the same stays are tested, and the test patients'
other stays are training stays in place of as many of other patients: the difference is what knowing the patient is
worth. In the fourth no admitting clinician is in both parts."""


def extract(notes: pyarrow.RecordBatch, rules: str = "ours") -> pyarrow.RecordBatch:
    """Find the hospital courses of a batch of notes. Each row depends on its note alone, not on the batch.

    The function is pure and picklable: Ray Data's ``map_batches(extract, batch_format="pyarrow")`` or Spark's
    ``mapInArrow`` can run it over any number of machines.

    Parameters
    ----------
    notes : RecordBatch or Table
        subject_id, hadm_id and text; other columns are ignored.
    rules : {"ours", "published"}
        By which a hospital course is found: `notes.hospital_course` or `notes.published_course`.

    Returns
    -------
    RecordBatch or Table, as given
        Columns as in `COURSES`; one row for each note, in the same order.
    """
    find = published_course if is_published(rules) else hospital_course
    courses = [find(text.as_py() or "") for text in notes["text"]]
    words = [n_words(course or "") for course in courses]
    hashes = [
        hashlib.blake2b((course or "").encode(), digest_size=8, usedforsecurity=False).digest() for course in courses
    ]
    made = {"text": courses, "words": words, "digest": np.frombuffer(b"".join(hashes), "<i8")}
    columns = [pyarrow.array(values, COURSES.field(name).type) for name, values in made.items()]
    return type(notes).from_arrays([notes["subject_id"], notes["hadm_id"], *columns], schema=COURSES)


def is_ms_drg(drgcodes: pd.DataFrame) -> pd.Series:
    """Which rows of DRGCODES are MS-DRGs (bool): type MS, as in MIMIC-III; HCFA if no row says MS, as in MIMIC-IV."""
    kind = drgcodes["drg_type"].str.strip()
    return kind == ("MS" if (kind == "MS").any() else "HCFA")


def build_cohort(
    courses: Iterable[pyarrow.RecordBatch],
    drgcodes: pd.DataFrame,
    mapping: pd.DataFrame,
    *,
    clinicians: pd.Series | None = None,
    min_words: int = 40,
    min_stays: int = 2,
    seed: int = 42,
    test_share: float = 0.1,
    rules: str = "ours",
) -> tuple[pd.DataFrame, dict]:
    """Build the labelled stays, and count how many notes and DRG rows each step of Figure 1 kept.

    Parameters
    ----------
    courses : iterable of RecordBatch
        What `extract` makes of the notes, in the file's order. It is iterated over once. Texts are held only if they
        are long enough and their stays have a label.
    drgcodes : DataFrame
        Rows of DRGCODES, all types, with the `DRG_COLUMNS`.
    mapping : DataFrame
        From `harmonize.harmonize`: one row for each distinct code and title, with drg_v34 (missing where excluded).
    clinicians : Series of str, optional
        Who admitted each stay (`mimic.clinicians`; "" if unknown), by hadm_id. There is no split by clinician without
        it, if nobody is known, or if the first clinician drawn has more than `test_share` of the stays.
    min_words, min_stays : int
        Hospital courses with fewer words and DRGs with fewer stays are left out. `min_stays` is 2 or more.
    seed : int
        Of all splits.
    test_share : float
        Share kept for testing, between 0 and 1: of the stays in `split`, of the patients in `split_patients` and
        `split_known`, with one stay each. In
        `split_clinicians`, clinicians are drawn until the next would exceed that share of the stays. A stay whose
        clinician is unknown is a training stay.
    rules : {"ours", "published"}
        "published": all notes and all mapped DRG rows of a stay are joined, and `split` is what scikit-learn's
        train_test_split draws, stratified by DRG, from the rows sorted by DRG (of one DRG, in the order of the notes).
        The other splits are drawn as ever.

    Returns
    -------
    stays : DataFrame
        As `STAYS`.
    flow : dict
        notes and drg_rows (lists of {step, kept, removed}), stays, labels, seed, and splits: for each of them the
        stays and labels of its parts, and its `leakage`. Where there is no split by clinician, no_split_clinicians is a
        sentence that says why. Under the published rules all these count rows, and further_rows are those of stays
        that have one already.

    Raises
    ------
    StudyError
        If no stay is left or all are of one patient, if `test_share` or `min_stays` is out of range, or if scikit-learn
        refuses to draw the published split.

    Notes
    -----
    Source: DRG-LLaMA, Figure 1 and Methods, "Dataset and Preprocessing"; the splits by patients and clinicians
    are ours.
    """
    if not 0 < test_share < 1 or min_stays < 2:
        raise StudyError(f"test_share is {test_share}, expected 0 to 1; min_stays is {min_stays}, expected 2 or more")
    published = is_published(rules)
    rows, row_steps = _labelled_rows(drgcodes, mapping, one=not published)
    label = rows.drop_duplicates("hadm_id").set_index("hadm_id")["drg_v34"]
    notes, held = _read(courses, label, min_words)
    steps = {
        "hospital course found": lambda notes: notes["words"] > 0,
        f"at least {min_words} words": lambda notes: notes["words"] >= min_words,
        "text not seen before": lambda notes: ~notes["digest"].duplicated(),
        "stay has an MS-DRG in v34": lambda notes: notes["drg_v34"].notna(),
    }
    if not published:
        steps["first note of its stay"] = lambda notes: ~notes["hadm_id"].duplicated()
    stays, note_steps = sieve(notes, steps)
    rows, more = sieve(rows, {"stay has such a note": lambda rows: rows["hadm_id"].isin(stays["hadm_id"])})
    row_steps += more
    if published:
        pairs = stays.drop(columns="drg_v34").astype({"hadm_id": "int64"}).merge(rows[["hadm_id", "drg_v34"]])
        for some, done in ((stays, note_steps), (rows, row_steps)):  # fewer than none are removed where rows are added
            step = "a row for each note and DRG of a stay"
            done.append({"step": step, "kept": len(pairs), "removed": len(some) - len(pairs)})
        stays = rows = pairs
    frequent = {f"DRG has at least {min_stays} stays": lambda frame: _stays_of_drg(frame) >= min_stays}
    stays, more = sieve(stays, frequent)
    note_steps += more
    row_steps += sieve(rows, frequent)[1]
    flow = {
        "notes": [{"step": "discharge summaries", "kept": len(notes), "removed": 0}, *note_steps],
        "drg_rows": [{"step": "DRG rows", "kept": len(drgcodes), "removed": 0}, *row_steps],
    }
    if stays.empty:
        last = next(step["step"] for step in flow["notes"] if not step["kept"])
        raise StudyError(f"the cohort is empty: no discharge summary is left after the step '{last}'")
    if published:
        stays = stays.assign(drawn=_drawn_by_scikit_learn(stays, test_share, seed))
    stays = stays.rename(columns={"hadm_id": "stay_id"}).sort_values("stay_id", kind="stable", ignore_index=True)
    stays = stays.astype({"stay_id": "int64"})
    splits = _draw_splits(stays, clinicians, test_share, seed)
    stays = stays.assign(text=_taken(held, stays), **splits)
    if published:
        further = stays.groupby("stay_id").cumcount()
        flow["further_rows"] = int((further > 0).sum())
        stays["stay_id"] += further * 10 ** len(str(stays["stay_id"].max()))
    stays = stays[["stay_id", "subject_id", "drg_v34", "text", "words", *splits]]
    flow |= {"stays": len(stays), "labels": stays["drg_v34"].nunique(), "seed": seed}
    flow["splits"] = {split: _parts(stays, split) | leakage(stays, split) for split in SPLITS if split in stays}
    if "split_clinicians" not in splits:
        flow["no_split_clinicians"] = _no_clinicians(stays, clinicians)
    check_flow(flow)
    return stays, flow


def stratified_draw(strata: pd.Series, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a share of the members, from each stratum in proportion to its size.

    Each stratum gives the whole part of its quota. The members still missing come from the strata with the largest
    remainders, one from each; ties are broken at random. A stratum's last member is drawn only if no other stratum has
    one to give. scikit-learn's stratified split does the same, but refuses to draw fewer members than there are strata.

    Parameters
    ----------
    strata : Series of str, shape (n,)
    share : float
        The total drawn is `share` times n, rounded up, but less than n.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of bool, shape (n,)
        Which members are drawn.
    """
    _, stratum, size = np.unique(strata.to_numpy(), return_inverse=True, return_counts=True)
    total = min(math.ceil(share * len(strata)), len(strata) - 1)
    draw, remainder = np.divmod(size * total, len(strata))  # integers, so that equal remainders are exactly equal
    order = np.lexsort((rng.random(len(size)), -remainder, draw + 1 >= size))
    draw[order[: total - draw.sum()]] += 1
    shuffled = rng.permutation(len(strata))
    rank = pd.Series(stratum[shuffled], index=shuffled).groupby(stratum[shuffled]).cumcount().sort_index()
    return rank.to_numpy() < draw[stratum]


def parts(stays: pd.DataFrame, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training and the test stays of one of the `SPLITS`; raises StudyError if the stays have no such split."""
    if split not in SPLITS or split not in stays:
        why = "; this cohort has no split by clinician, and flow.json says why" * ("split_clinicians" not in stays)
        raise StudyError(
            f"parameter split: expected {' or '.join(s for s in SPLITS if s in stays)}, got {split!r}{why}"
        )
    return stays[stays[split] == "train"], stays[stays[split] == "test"]


def leakage(stays: pd.DataFrame, split: str) -> dict:
    """Number of patients with a test stay, how many of them also have a training stay, and their share (0 to 1)."""
    train, test = (set(stays.loc[stays[split] == part, "subject_id"]) for part in ("train", "test"))
    shared = len(train & test)
    return {"test_patients": len(test), "shared_patients": shared, "shared_share": shared / len(test)}


def word_count_test(stays: pd.DataFrame, split: str = "split") -> dict:
    """Mean words of the training and the test stays, and a two-sided t-test (equal variances) between them.

    Returns
    -------
    dict
        train_mean and test_mean (words), t, df, p.

    Notes
    -----
    Source: DRG-LLaMA, "Study cohort" (398 against 399 words, p = 0.51).
    """
    train, test = (stays.loc[stays[split] == part, "words"] for part in ("train", "test"))
    t, p, df = map(float, ttest_ind(train, test))
    return {"train_mean": float(train.mean()), "test_mean": float(test.mean()), "t": t, "df": df, "p": p}


def words_sentence(words: dict) -> str:
    """What p of the word counts of a split means; `words` is as `word_count_test` returns it.

    The parts are drawn at random, so there is nothing to be tested but the draw itself: the null hypothesis holds.
    """
    p = words["p"]
    often = f"about {100 * p:.{1 if p < 0.1 else 0}f} % of" if p >= 0.001 else "fewer than one in 1,000"
    rare = " That is rare enough to look for a mistake in the code that splits." if p < 0.001 else ""
    return (
        f"Training stays have {words['train_mean']:.1f} words on average, test stays {words['test_mean']:.1f} (two-sided t-test: "
        f"p = {p:.2g}). The stays were drawn at random once, so p only says how uneven this draw is: {often} random splits would "
        f"differ by as much or more.{rare} The seed is not to be chosen by it: that would be choosing the test stays."
    )


def _labelled_rows(drgcodes: pd.DataFrame, mapping: pd.DataFrame, one: bool) -> tuple[pd.DataFrame, list[dict]]:
    """The DRG rows that label a stay, with drg_v34, and the counts of the steps that led to them.

    With `one`, each stay has one row: repeated rows count once, and a stay with two DRGs has none.
    """
    rows = drgcodes.assign(code=standard_code(drgcodes["drg_code"]), title=drgcodes["description"].astype("str"))
    steps = {"MS-DRG": is_ms_drg, "mapped to v34": lambda rows: rows["drg_v34"].notna()}
    if one:
        steps |= {
            "no other DRG in the stay": lambda rows: rows.groupby("hadm_id")["drg_v34"].transform("nunique") == 1,
            "not a repeated row": lambda rows: ~rows["hadm_id"].duplicated(),
        }
    return sieve(rows.merge(mapping[["code", "title", "drg_v34"]], "left", on=["code", "title"], validate="m:1"), steps)


def _read(
    courses: Iterable[pyarrow.RecordBatch], label: pd.Series, min_words: int
) -> tuple[pd.DataFrame, list[list[pyarrow.Array]]]:
    """All notes with their drg_v34 but without their texts, and the texts that may be needed.

    The texts lie in blocks, each for a range of stay ids, so that they can be put in order one block at a time: at full
    size they fill most of the memory, and must not be there twice. A note's `block` is -1 if its text is not held; its
    `place` is the position of the text in the block.
    """
    stay_ids = label.index.sort_values()
    notes, held = [], [[] for _ in range(len(label) // BLOCK + 1)]
    for batch in courses:
        rank = stay_ids.get_indexer(batch["hadm_id"].fill_null(-1).to_numpy())
        block = np.where((rank >= 0) & (batch["words"].to_numpy() >= min_words), rank // BLOCK, -1)
        notes.append(batch.drop_columns("text").append_column("block", pyarrow.array(block)))
        for number, texts in enumerate(held):
            texts.append(batch["text"].filter(pyarrow.array(block == number)))
            if len(notes) % BATCHES == 0:
                texts[-BATCHES:] = [pyarrow.concat_arrays(texts[-BATCHES:])]
    if not notes:
        raise StudyError("the cohort is empty: there are no notes")
    notes = pyarrow.Table.from_batches(notes).to_pandas(types_mapper={pyarrow.int64(): pd.Int64Dtype()}.get)
    notes = notes.astype({"words": "int64"}).assign(drg_v34=notes["hadm_id"].map(label))
    return notes.assign(place=notes.groupby("block").cumcount()), held


def _taken(held: list[list[pyarrow.Array]], stays: pd.DataFrame) -> pd.api.extensions.ExtensionArray:
    """The texts of the stays in the order of their ids; the blocks of `held` are empty afterwards."""
    texts = []
    for block, places in stays.groupby("block")["place"]:
        texts.append(pyarrow.concat_arrays(held[block]).take(pyarrow.array(places)))
        held[block].clear()
        pyarrow.default_memory_pool().release_unused()
    return pyarrow.chunked_array(texts).to_pandas().array


def _stays_of_drg(frame: pd.DataFrame) -> pd.Series:
    return frame.groupby("drg_v34")["drg_v34"].transform("size")


def _drawn_by_scikit_learn(stays: pd.DataFrame, test_share: float, seed: int) -> np.ndarray:
    """Which rows (bool) scikit-learn's stratified split of the published code puts into the test part."""
    by_drg = stays["drg_v34"].sort_values(kind="stable")
    try:
        _, test = train_test_split(by_drg.index, test_size=test_share, random_state=seed, stratify=by_drg)
    except ValueError as error:
        raise StudyError(
            f"rules published: scikit-learn draws no stratified split of {test_share:g} ({one_line(error)}); "
            "raise test_share, or set rules to ours"
        ) from None
    return stays.index.isin(test)


def one_stay_each(patients: pd.Series, held_out: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draw one stay of each held-out patient; then the numbers of their further stays and of all others' stays, shuffled.

    `patients` has the patient of each stay, and `held_out` (bool) says whether it is held out.
    """
    order = rng.permutation(len(patients))
    tested = held_out & ~patients.iloc[order].duplicated().sort_index().to_numpy()
    return tested, order[(held_out & ~tested)[order]], order[~held_out[order]]


def _draw_splits(stays: pd.DataFrame, clinicians: pd.Series | None, test_share: float, seed: int) -> dict:
    """The `SPLITS` by name; a column `drawn` is the test part of the first."""
    # A patient counts for the rarest of their DRGs, so that rare DRGs too are spread over both parts.
    by_rarity = stays.assign(often=_stays_of_drg(stays)).sort_values(["often", "drg_v34"])
    patients = by_rarity.groupby("subject_id")["drg_v34"].first()
    if len(patients) < 2:
        raise StudyError("the cohort has one patient only: there is nobody to test on who is not in the training set")
    drawn = stays.get("drawn")
    if drawn is None:
        drawn = stratified_draw(stays["drg_v34"], test_share, np.random.default_rng([seed, 0]))
    drawn_patients = patients.index[stratified_draw(patients, test_share, np.random.default_rng([seed, 1]))]
    theirs = stays["subject_id"].isin(drawn_patients).to_numpy()
    tested, further, others = one_stay_each(stays["subject_id"], theirs, np.random.default_rng([seed, 2]))
    known = np.isin(np.arange(len(stays)), [*further, *others][: len(others)])
    found = {
        "split": np.where(drawn, "test", "train"),
        "split_patients": np.select([tested, theirs], ["test", "other"], "train"),
        "split_known": np.select([tested, known], ["test", "train"], "other"),
    }
    if clinicians is not None:
        clinician = stays["stay_id"].map(clinicians).fillna("")
        sizes = clinician[clinician != ""].value_counts().sort_index().sample(frac=1, random_state=seed)
        if (drawn := clinician.isin(sizes.index[sizes.cumsum() <= test_share * len(stays)])).any():
            found["split_clinicians"] = np.where(drawn, "test", "train")
    return {split: pd.Series(part, dtype="str") for split, part in found.items()}


def _no_clinicians(stays: pd.DataFrame, clinicians: pd.Series | None) -> str:
    said = "There is no split by clinician, for "
    if clinicians is None:
        return said + "these tables do not say who admitted whom: admit_provider_id came with MIMIC-IV 2.2."
    if (stays["stay_id"].map(clinicians).fillna("") == "").all():
        return said + "admit_provider_id is empty for every stay of this cohort."
    return said + "the first clinician drawn admitted more stays than the test part may have."


def _parts(stays: pd.DataFrame, split: str) -> dict:
    """Numbers of stays and labels of the training and the test part, of other stays, and of labels of the test part alone."""
    sizes, labels = stays[split].value_counts(), stays.groupby(split)["drg_v34"].agg(set)
    counts = {f"{part}_stays": int(sizes.get(part, 0)) for part in ("train", "test", "other")}
    counts |= {f"{part}_labels": len(labels[part]) for part in ("train", "test")}
    return counts | {"untrained_labels": len(labels["test"] - labels["train"])}
