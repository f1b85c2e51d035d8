"""What was measured at the bedside and in the laboratory, hour by hour: the LSTM's input.

``data/reference/measurements.csv`` maps MIMIC-III's item ids, those of both charting systems, to 104 clinical groups in
the manner of MIMIC-Extract. An item that may be charted in one of two units has one row for each, the more usual unit
first. A value is taken in the first unit in which it is plausible: an inspired oxygen of 0.4 is a fraction, for 0.4 %
is not plausible, and one of 40 is a percentage. MetaVision charts only the three parts of the coma scale; each is
tripled, so that their mean over an hour is their sum.

A row without HADM_ID, as a fifth of MIMIC-III's laboratory rows are, is joined to the hospital stay that its patient
was in at its time. The others are outpatients': in the open demo none of 14,262 falls into a stay.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import mimic, provenance
from drgstudy.study import REFERENCE, StudyError, one_line

HOURS = 48
_TABLES = {  # the columns with the number and the error flag; the laboratory has none, for it corrects its own errors
    "chartevents": {"valuenum": "value", "error": "error"},
    "labevents": {"valuenum": "value"},
    "outputevents": {"value": "value", "iserror": "error"},
}
_KEYS = ["hadm_id", "itemid", "charttime"]
COUNTS = (
    "read", "other items", "no stay", "other stays", "errors", "no number", "other hours", "implausible", "kept",
    "kept, joined by patient and time",
)  # fmt: skip


def items() -> pd.DataFrame:
    """The item ids and how to read their numbers, as the reference file has them.

    Returns
    -------
    DataFrame
        itemid, source ("chart", "lab", "output"), system ("carevue", "metavision", "hospital"), label, group, unit (the
        group's), factor and offset (value in that unit = number * factor + offset), low and high (the range of
        plausible values in that unit). An itemid that may be charted in two units has two rows.
    """
    return pd.read_csv(REFERENCE / "measurements.csv")


def groups() -> pd.DataFrame:
    """The unit of each of the 104 groups, indexed by the group's name, in the order of the arrays."""
    return items().drop_duplicates("group").set_index("group")[["unit"]]


def events(folder: Path) -> Iterator[pd.DataFrame]:
    """Charted, laboratory and output events of the MIMIC-III tables in `folder`, in batches.

    Yields
    ------
    DataFrame
        hadm_id, itemid, charttime, value, error (1 marks an error), joined (whether hadm_id was empty in the table, and
        found by patient and time).

    Raises
    ------
    StudyError
        As `mimic.batches`.
    """
    stays = None
    for table, columns in _TABLES.items():
        for batch in mimic.batches(folder, table.upper(), ["subject_id", *_KEYS, *columns]):
            batch, adrift = batch.rename(columns=columns).assign(joined=False), batch["hadm_id"].isna()
            if adrift.any():
                stays = _stays(folder) if stays is None else stays
                batch.loc[adrift, "hadm_id"] = _stay_at(batch.loc[adrift, ["subject_id", "charttime"]], stays)
                batch["joined"] = adrift & batch["hadm_id"].notna()
            yield batch.reindex(columns=[*_KEYS, "value", "error", "joined"])


def _stays(folder: Path) -> pd.DataFrame:
    """When each patient was in the hospital, and in intensive care, which may begin a little before the admission."""
    admissions = mimic.read(folder, "ADMISSIONS", ["subject_id", "hadm_id", "admittime", "dischtime"])
    icu = mimic.read(folder, "ICUSTAYS", ["subject_id", "hadm_id", "intime", "outtime"])
    return pd.concat([frame.set_axis(["subject_id", "hadm_id", "start", "end"], axis=1) for frame in (admissions, icu)])


def _stay_at(rows: pd.DataFrame, stays: pd.DataFrame) -> pd.Series:
    """The hadm_id of the stay that holds each row's charttime, missing if none does; of two, that which began last."""
    found = rows.rename_axis("row").reset_index().merge(stays, on="subject_id")
    found = found[found["charttime"].between(found["start"], found["end"])].sort_values(["start", "hadm_id"])
    return found.drop_duplicates("row", keep="last").set_index("row")["hadm_id"].astype("Int64").reindex(rows.index)


def hourly(events: Iterable[pd.DataFrame], stays: pd.DataFrame) -> tuple[np.ndarray, dict[str, int]]:
    """Mean of each group in each of the first 48 hours of each stay; no event is kept longer than its batch.

    Parameters
    ----------
    events : iterable of DataFrame
        As `events` yields them; without the column joined, none was.
    stays : DataFrame
        stay_id (the hospital stay's hadm_id; unique) and icu_in.

    Returns
    -------
    values : numpy.ndarray of float32, shape (stays, 48, 104)
        In the groups' units, hour 0 beginning with the ICU admission; NaN where nothing was measured.
    counts : dict of str to int
        Numbers of events by `COUNTS`: read, left out (by the first reason that applies) and kept, and how many of the
        kept were joined to their stay by patient and time. "no stay" means that nobody says which.

    Raises
    ------
    StudyError
        If a stay occurs twice.

    Notes
    -----
    Source: early-DRG paper, Methods (time series of 104 clinically aggregated variables, MIMIC-Extract).
    """
    stay_ids = pd.Index(stays["stay_id"].to_numpy("int64"))
    if not stay_ids.is_unique:
        raise StudyError(f"the table of stays, column stay_id: {stay_ids[stay_ids.duplicated()][0]} occurs twice")
    icu_in = stays["icu_in"].to_numpy("datetime64[s]")

    table = items()
    wide = table.assign(unit=table.groupby("itemid").cumcount()).pivot(index="itemid", columns="unit")
    # Each is (items, 2); the second column is NaN for an item in one unit.
    factor, offset, low, high = (wide[name].to_numpy() for name in ("factor", "offset", "low", "high"))
    group = groups().index.get_indexer(wide["group"][0])

    shape = (len(stays), HOURS, group.max() + 1)
    sums, numbers = np.zeros(np.prod(shape), np.float32), np.zeros(np.prod(shape), np.uint16)
    counts = dict.fromkeys(COUNTS, 0)
    for batch in events:
        item = wide.index.get_indexer(batch["itemid"].to_numpy("int64", na_value=-1))
        stay = stay_ids.get_indexer(batch["hadm_id"].to_numpy("int64", na_value=-1))
        ours = (item >= 0) & (stay >= 0)  # few events, to which the rest of the work is limited
        counts["read"] += len(batch)
        counts["other items"] += int((item < 0).sum())
        adrift = batch["hadm_id"].isna().to_numpy()
        counts["no stay"] += int(((item >= 0) & adrift).sum())
        counts["other stays"] += int(((item >= 0) & (stay < 0) & ~adrift).sum())
        batch, item, stay = batch[ours], item[ours], stay[ours]

        number = batch["value"].to_numpy("float64", na_value=np.nan)
        hour = (batch["charttime"].to_numpy("datetime64[s]") - icu_in[stay]) / np.timedelta64(1, "h")
        value = number[:, None] * factor[item] + offset[item]  # (events, 2)
        plausible = (low[item] <= value) & (value <= high[item])
        left_out = {
            "errors": batch["error"].to_numpy("float64", na_value=np.nan) == 1,
            "no number": np.isnan(number),
            "other hours": ~((hour >= 0) & (hour < HOURS)),
            "implausible": ~plausible.any(axis=1),
        }
        kept = np.ones(len(batch), bool)
        for reason, out in left_out.items():
            counts[reason] += int((kept & out).sum())
            kept &= ~out
        counts["kept"] += int(kept.sum())
        if "joined" in batch:
            counts["kept, joined by patient and time"] += int(batch["joined"][kept].sum())

        cell = np.ravel_multi_index((stay[kept], hour[kept].astype(int), group[item[kept]]), shape)
        np.add.at(sums, cell, value[kept, plausible[kept].argmax(axis=1)].astype(np.float32))
        np.add.at(numbers, cell, 1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: not measured
        sums /= numbers
    return sums.reshape(shape), counts


def measured_sentence(values: np.ndarray, dataset: str) -> str:
    """How many of the item ids' groups were measured at all; `values` is as `hourly` returns it."""
    ids, n = items()["itemid"].nunique(), (~np.isnan(values)).any(axis=(0, 1)).sum()
    return (
        f"The {ids} item ids of the reference table become {values.shape[2]} groups. Of these {n} were measured at least once in "
        f"a stay of the {dataset}, and {values.shape[2] - n} never: the LSTM learns nothing from them."
    )


def write_measurements(path: Path, stay_ids: np.ndarray, values: np.ndarray, inputs: Iterable[Path] = ()) -> None:
    """Write stay_ids (int64, shape (stays,)), the groups' names and the values, as `hourly` returns them, to one .npz.

    Raises
    ------
    StudyError
        If the values are not float32 of shape (stays, 48, 104), or a stay occurs twice.
    """
    names = groups().index.to_numpy(str)
    _check(path, stay_ids, names, values)
    with provenance.written(path, "22-measurements", inputs) as beside:
        np.savez_compressed(beside, stay_ids=stay_ids, groups=names, values=values)


def read_measurements(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stay_ids, the groups' names and the values that `write_measurements` wrote.

    Raises
    ------
    StudyError
        If the file is missing or damaged, if it or an input was changed, or if its groups are not the reference file's.
    """
    try:
        with np.load(provenance.verified(path), allow_pickle=False) as arrays:
            stay_ids, names, values = (arrays[name] for name in ("stay_ids", "groups", "values"))
    except FileNotFoundError:
        raise StudyError(f"{path} is missing; notebook 22-measurements writes it") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise StudyError(f"{path} is damaged ({one_line(error)}); run notebook 22-measurements again") from None
    _check(path, stay_ids, names, values)
    return stay_ids, names, values


def _check(path: Path, stay_ids: np.ndarray, names: np.ndarray, values: np.ndarray) -> None:
    known = groups().index
    expected = (len(np.unique(stay_ids)), HOURS, len(known))
    if list(names) != list(known) or values.shape != expected or values.dtype != np.float32:
        raise StudyError(
            f"{path}: expected float32 values of {expected[0]} unique stays, {HOURS} hours and the {expected[2]} "
            f"groups of measurements.csv, got {values.dtype} {values.shape}; run notebook 22-measurements again"
        )
