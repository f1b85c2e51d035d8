"""Results as long tables, made from predictions: by DRG, by label and by model, and what each run cost."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from drgstudy import casemix, disclosure, drgs
from drgstudy.bootstrap import bca, bootstrap, evaluate, left_out_counts, resample_counts, scored, summary
from drgstudy.labels import TwoLabels
from drgstudy.metrics import METRICS, Scores
from drgstudy.names import BASES, name_of
from drgstudy.plots.style import ACCURACY_RANGES, style_of
from drgstudy.predictions import Predictions, read_folds, read_weights
from drgstudy.study import Paths, StudyError, progress, without_places

TOP_DRGS = (300, 50, 30)
"""The sets of most frequent DRGs in DRG-LLaMA's Table 1."""
EARLY_TOP_DRGS = (50, 30)
"""With `drgs.MDCS`, the sets of the early-DRG paper's Table 2."""
EARLY_METRICS = {key: METRICS[key] for key in ("macro_auc", "micro_auc", "macro_f1", "acc_at_1")}
"""Metrics of the early-DRG paper. What it calls micro-F1 is top-1 accuracy, if each stay has one label and is given one."""
RULES = {"DRG by rule (a)": "seen", "DRG by rule (b)": "mapped"}
"""Rules of `TwoLabels.infer`, by their names in DRG-LLaMA's Table 3."""
MIDDLES = dict(zip(ACCURACY_RANGES, (0.1, 0.3, 0.5, 0.7, 0.9), strict=True))
"""The middle of each range of accuracy, at which a DRG is drawn whose own accuracy is masked."""
BATCH = {"llama": 4, "bert": 16, "caml": 32}
"""Stays in an evaluation batch of DRG-LLaMA's, by model: the paper gives speeds in steps."""


def drg_sets(
    labels: np.ndarray, cases: pd.Series, tops: Iterable[int], mdc: pd.Series | None = None
) -> dict[str, np.ndarray]:
    """The sets of DRGs that a paper's table has, without empty ones and top sets that would hold all DRGs.

    A set that has two names stands once, as "Top 80% cases = Top 50 DRGs".

    Parameters
    ----------
    labels : array of str, shape (k,)
        DRG codes, ascending.
    cases : Series of int
        Stays by DRG: of the whole cohort in DRG-LLaMA (Table 1, footnote), of the hold-out stays in the early-DRG
        paper.
    tops : iterable of int
        Sizes of the sets of most frequent DRGs; ties are broken by code.
    mdc : Series of str, optional
        MDC by DRG. If given, there is also a set for each of `drgs.MDCS`, and one of the DRGs that make up 80 % of the
        cases (early-DRG paper, Table 2).

    Returns
    -------
    dict of str to array of int
        Positions in `labels`, ascending, by name of the set.
    """
    cases = cases[cases > 0].sort_index().sort_values(ascending=False, kind="stable")
    ranked = cases.index
    sets = {"All DRGs": ranked}
    if mdc is not None:
        sets |= {f"MDC {code}": ranked[mdc.loc[ranked] == code] for code in drgs.MDCS}
        sets["Top 80% cases"] = ranked[: 1 + np.searchsorted(cases.cumsum(), 0.8 * cases.sum())]
    sets |= {f"Top {n} DRGs": ranked[:n] for n in tops if n < len(ranked)}
    named: dict[frozenset, list[str]] = {}
    for name, members in sets.items():
        named.setdefault(frozenset(members), []).append(name)
    named[frozenset(ranked)] = ["All DRGs"]  # under that name alone
    return {" = ".join(names): np.searchsorted(labels, sorted(of)) for of, names in named.items() if of}


def shown_sets(sets: dict[str, np.ndarray], scores: Scores, mask_below: int) -> dict[str, np.ndarray]:
    """The sets that may be shown: no few test stays are in one of them, or in it and not in another that holds it."""
    counts = [scores.among(members).sum() for members in sets.values()]
    fine = disclosure.told(counts, mask_below, [0, len(scores.truth)])
    return {name: members for (name, members), is_told in zip(sets.items(), fine, strict=True) if is_told}


def table1(
    scores: dict,
    sets: dict,
    resamples_sd: int,
    resamples_interval: int,
    seed: int,
    mask_below: int = 0,
    names: dict[str, str] | None = None,
) -> pd.DataFrame:
    """DRG-LLaMA's Table 1 in long form. An accuracy that would give a small count away is NaN.

    Parameters
    ----------
    scores : dict of run to Scores
    sets : dict of DRG set to label indices
        As `drg_sets` returns it.
    resamples_sd, resamples_interval, seed, mask_below : int
    names : dict of run to str, optional
        As `names.names_of` returns it.

    Returns
    -------
    DataFrame
        run, model, drg_set, metric (the six, then n_cases and percent_cases), value (unrounded), sd over the first
        `resamples_sd` resamples, lower and upper of the 95 % interval (`bootstrap.bca`) over the first
        `resamples_interval`.
    """
    parts, known = [], {run: [] for run in scores}
    for run, drg_set in progress([(run, drg_set) for run in scores for drg_set in sets], desc="resampling"):
        kept = scores[run].among(sets[drg_set])
        samples = bootstrap(scores[run], max(resamples_sd, resamples_interval), seed, sets[drg_set])
        without = evaluate(scored(scores[run], sets[drg_set]), left_out_counts(len(kept), seed))
        values = scores[run].evaluate(kept)
        part = bca(pd.Series(values), samples[:resamples_interval], without)
        part = part.assign(sd=samples[:resamples_sd].std(ddof=1))
        values |= {"n_cases": kept.sum(), "percent_cases": 100 * kept.mean()}
        values = pd.Series(values, name="value").rename_axis("metric")
        told = disclosure.shares(values.filter(like="acc_at_"), kept.sum(), mask_below, known[run])
        known[run] += [(share * kept.sum(), (1 - share) * kept.sum()) for share in told.dropna()]
        values[told.index] = told
        part = part.reindex(values.index).mask(values.isna()).assign(value=values).reset_index()
        parts.append(part.assign(run=run, model=style_of(run, names)[0], drg_set=drg_set))
    return pd.concat(parts, ignore_index=True)[["run", "model", "drg_set", "metric", "value", "sd", "lower", "upper"]]


def whiskers(table: pd.DataFrame, sds: float) -> pd.DataFrame:
    """The table with columns lower and upper: `sds` standard deviations from value, or value itself if sd is NaN."""
    reach = sds * table["sd"].fillna(0)
    return table.assign(lower=table["value"] - reach, upper=table["value"] + reach)


def shown_by_system(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `by_fold`, or the paper's Table 2, for `plots.beside_published`: MS-DRG first, whiskers of an SD."""
    if "run" in table:
        run = table["run"] + [f"-{hours}" if hours != 48 else "" for hours in table["hours"]]
    else:
        run = table["model"].str.lower().str.split().str[0] + "-" + table["system"]
    name = table["system"].map(drgs.SYSTEMS) + ": " + table["model"]
    return whiskers(table.assign(run=run, model=name), 1).sort_values("system", ascending=False, kind="stable")


def by_drg(scores: Scores, labels: np.ndarray, train_cases: pd.Series) -> pd.DataFrame:
    """Each DRG of the test set, ordered by training cases, the most first: what Figure 2 shows.

    Parameters
    ----------
    scores : Scores
    labels : array of str, shape (k,)
        DRG codes of v34, in the order of the scores' labels.
    train_cases : Series of int
        Training stays by DRG.

    Returns
    -------
    DataFrame
        rank (from 1; ties by code), drg, title, type, train_cases, test_cases, acc_at_1, acc_at_5 and acc_range, one
        of `ACCURACY_RANGES`.
    """
    tested = np.unique(scores.truth)
    table = drgs.v34().loc[labels[tested], ["title", "type"]].rename_axis("drg").reset_index()
    table["title"] = table["title"].map(drgs.readable)
    table["train_cases"] = table["drg"].map(train_cases).fillna(0).astype(int)
    table["test_cases"] = np.bincount(scores.truth)[tested]
    accuracy = scores.evaluate(tested[:, None] == scores.truth)  # each DRG's stays as one resample
    table = table.assign(acc_at_1=accuracy["acc_at_1"], acc_at_5=accuracy["acc_at_5"])
    edges = [0, 0.2, 0.4, 0.6, np.nextafter(0.8, 1), 2]  # 20 and 80 belong to the middle ranges, as in the paper's text
    table["acc_range"] = pd.cut(table["acc_at_5"], edges, right=False, labels=ACCURACY_RANGES).astype("str")
    table = table.sort_values(["train_cases", "drg"], ascending=[False, True], ignore_index=True)
    table.insert(0, "rank", table.index + 1)
    return table


def masked_by_drg(table: pd.DataFrame, mask_below: int, printed: bool = False) -> pd.DataFrame:
    """The table of `by_drg` without what gives a small count away.

    DRGs with few training or test stays come last, by code, and have no numbers: one of the counts, or the rank, tells of
    the other, for the split is stratified. A top-5 accuracy that would tell how few stays are right or wrong leaves its
    range, `acc_range`, which fits several numbers of stays.
    """
    sizes, accuracies, everyone = ["train_cases", "test_cases"], ["acc_at_5", "acc_at_1"], [np.ones(len(table), bool)]
    few = np.any([disclosure.hidden(table[size], mask_below, everyone) for size in sizes], axis=0)
    numbers, instead = table.copy(), "–" if printed else None
    told = table.apply(
        lambda row: disclosure.shares(row[accuracies].astype(float), row["test_cases"], mask_below), axis=1
    )
    for name in accuracies if told.isna().any(axis=None) else []:
        numbers[name] = table[name].astype(object).where(told[name].notna(), instead)
    if few.any():
        for name in ["rank", *sizes, *accuracies, "acc_range"]:
            numbers[name] = numbers[name].astype(object).mask(few, instead)
    for size in sizes if printed else []:
        if (small := disclosure.is_small(table[size], mask_below)).any():
            numbers[size] = numbers[size].mask(small, f"< {mask_below}")
    return pd.concat([numbers[~few], numbers[few].sort_values("drg")], ignore_index=True) if few.any() else numbers


def table3(
    two: Predictions, space: TwoLabels, resamples_sd: int, resamples_interval: int, seed: int, mask_below: int = 0
) -> pd.DataFrame:
    """DRG-LLaMA's Table 3 in long form: how well the two labels are named, and the DRG that follows from them.

    Parameters
    ----------
    two : Predictions
        Of a two-label run.
    space : TwoLabels
        The labels that it was trained with.
    Returns
    -------
    DataFrame
        component ("Base DRG", "CC/MCC", "DRG by rule (a)", "DRG by rule (b)", "DRG by probability"), metric, value, sd,
        lower, upper, n_labels and n_occurring, the labels that any stay of the cohort has; accuracies that would give a small
        count away are NaN. The rules have acc_at_1 alone; the five CC/MCC labels have no acc_at_5 and acc_at_10. Where some
        labels never occur there is also micro_auc_occurring, the micro-AUC of those that do, under a softmax of their own:
        an output that no stay ever has ranks below nearly every true label, which lifts the paper's micro-AUC towards 1.
    """
    truth, n = two.labels[two.truth], space.n_bases
    (base, cc), (bases, ccs) = space.encode(truth).T, map(np.unique, space.encode(space.codes).T)
    parts = {
        "Base DRG": (two.outputs[:, :n], base, bases),
        "CC/MCC": (two.outputs[:, n:], cc, ccs),
        "DRG by probability": (two.logits, two.truth, np.arange(len(two.labels))),
    }
    rows, resamples = [], max(resamples_sd, resamples_interval)
    for component, (outputs, labels, occurring) in parts.items():
        scores = Scores(outputs, labels)
        value, samples = pd.Series(scores.evaluate()), bootstrap(scores, resamples, seed)
        if 1 < len(occurring) < scores.n_labels:
            some = Scores(outputs[:, occurring], np.searchsorted(occurring, labels))
            value["micro_auc_occurring"] = some.evaluate()["micro_auc"]
            samples["micro_auc_occurring"] = bootstrap(some, resamples, seed)["micro_auc"]
        rows.append((component, scores.n_labels, len(occurring), value, samples))
    counts = resample_counts(len(truth), resamples, seed)
    for name, rule in RULES.items():
        right = space.infer(two.outputs, rule) == truth
        accuracy = pd.Series({"acc_at_1": right.mean()})
        samples = pd.DataFrame({"acc_at_1": counts @ right / len(truth)})
        rows.append((name, len(two.labels), len(two.labels), accuracy, samples))
    tables = [
        summary(samples[:resamples_interval])
        .assign(sd=summary(samples[:resamples_sd])["sd"], value=value, component=component)
        .assign(n_labels=n_labels, n_occurring=n_occurring)
        .rename_axis("metric")
        .reset_index()
        for component, n_labels, n_occurring, value, samples in rows
    ]
    table = pd.concat(tables, ignore_index=True)
    for _, rows in table[table["metric"].str.startswith("acc_at_")].groupby("component"):
        untold = disclosure.shares(rows["value"], len(truth), mask_below).isna()
        table.loc[rows.index[untold], ["value", "sd", "lower", "upper"]] = np.nan
    return table[~((table["component"] == "CC/MCC") & table["metric"].isin(["acc_at_5", "acc_at_10"]))]


def by_training(made: dict[str, Predictions], scores: dict[str, Scores], mask_below: int = 0) -> pd.DataFrame:
    """The six metrics of each training of some models, from several seeds or on parts of the training stays.

    Parameters
    ----------
    made, scores : dicts of run to Predictions and to Scores
        Of the same test stays.
    mask_below : int
        An accuracy that would give a small count away is NaN.

    Returns
    -------
    DataFrame
        run, model (of `drgstudy.models`), seed, share (of the training stays), metric, value.
    """
    rows = []
    for run, said in made.items():
        values = pd.Series(scores[run].evaluate())
        accuracies = values.filter(like="acc_at_")
        values[accuracies.index] = disclosure.shares(accuracies, len(said.truth), mask_below)
        about = {
            "run": run,
            "model": said.run["model"],
            "seed": said.run["seed"],
            "share": said.run.get("train_share", 1.0),
        }
        rows += [about | {"metric": metric, "value": value} for metric, value in values.items()]
    return pd.DataFrame(rows)


def by_fold(system: str, runs: dict[tuple[str, int], list[Predictions]], mask_below: int = 0) -> pd.DataFrame:
    """The early-DRG paper's Table 2 in long form: each metric in each set of DRGs, over the fold models of each run.

    Parameters
    ----------
    system : str
        A key of `drgs.SYSTEMS`.
    runs : dict of (run, hours) to list of Predictions
        A run's predictions at that hour, one for each fold model.

    Returns
    -------
    DataFrame
        system, run, hours, model, drg_set, metric, value (mean over the models), sd (n - 1; NaN with one model), each
        (the list of the models' values, NaN left out), folds (of these values), models (their number), n_drgs, n_stays and
        percent_stays of the set.

    Notes
    -----
    In a set, the hold-out stays count whose true DRG is in it. Models still choose among all labels. Sets whose sizes
    would give a small count away are left out, and accuracies that would are NaN.
    """
    rows = []
    for (run, hours), models in runs.items():
        name = name_of(models[0].run, run.replace(f"-{system}", "")) + (f", {hours} hours" if hours != 48 else "")
        labels, mdc = models[0].labels, drgs.fiscal_2013(system)["mdc"]
        sets = drg_sets(labels, pd.Series(labels[models[0].truth]).value_counts(), EARLY_TOP_DRGS, mdc)
        scores = [Scores(made.logits, made.truth) for made in models]
        sets, known = shown_sets(sets, scores[0], mask_below), [[] for _ in scores]
        for drg_set, members in sets.items():
            among = scores[0].among(members)
            each = pd.DataFrame([one.evaluate(among) for one in scores], [made.run["fold"] for made in models])
            n = among.sum()
            told = [
                disclosure.shares(each["acc_at_1"].iloc[[i]], n, mask_below, before) for i, before in enumerate(known)
            ]
            if pd.concat(told).isna().any():
                each["acc_at_1"] = np.nan
            else:
                known = [
                    [*before, (share * n, (1 - share) * n)]
                    for before, share in zip(known, each["acc_at_1"], strict=True)
                ]
            about = {"system": system, "run": run, "hours": hours, "model": name, "drg_set": drg_set}
            size = {
                "models": len(each),
                "n_drgs": len(members),
                "n_stays": int(among.sum()),
                "percent_stays": 100 * among.mean(),
            }
            for metric in EARLY_METRICS:
                value = {
                    "value": each[metric].mean(),
                    "sd": each[metric].std(ddof=1),
                    "each": each[metric].dropna().tolist(),
                    "folds": each[metric].dropna().index.tolist(),
                }
                rows.append(about | {"metric": metric} | value | size)
    return pd.DataFrame(rows)


def weights_by_drg(paths: Paths, run: str, stay_ids: pd.Series, hours: int = 48, way: str = "top-1") -> np.ndarray:
    """The relative weights that a run gives some hold-out stays by naming DRGs: float, shape (models, stays).

    `way` is a key of `casemix.predicted_weights`: "top-1", the weight of the DRG that is named, or "expected", the mean
    weight of all DRGs by their probabilities.
    """
    rows = []
    for made in read_folds(paths, run, hours, whole=way != "top-1"):
        weights = drgs.fiscal_2013(made.run["system"])["relative_weight"].loc[made.labels]
        rows.append(pd.Series(casemix.predicted_weights(made.logits, weights)[way], made.stay_ids).loc[stay_ids])
    return np.array(rows, float)


def weights_by_regression(paths: Paths, run: str, stay_ids: pd.Series) -> np.ndarray:
    """The relative weights that a run of target "weight" gives some hold-out stays: float, shape (models, stays)."""
    return np.array([made.set_index("stay_id").loc[stay_ids, "predicted"] for made in read_weights(paths, run)], float)


def sizes(runs: dict[str, Predictions]) -> pd.DataFrame:
    """What Table 2 varies, by run, from run.json: size (the base's name, and its layers if it doesn't use all), max_tokens."""
    settings = pd.DataFrame({name: p.run["settings"] for name, p in runs.items()}).T[["base", "layers", "max_tokens"]]
    layers = settings["layers"].astype(int)
    short = {base: BASES.get(last := without_places(base), last) for base in settings["base"].unique()}
    twice = pd.Series(short).duplicated(keep=False)  # of two places of one last name, each has its number
    names = {base: f"{name} ({i})" if twice[base] else name for i, (base, name) in enumerate(short.items(), 1)}
    size = settings["base"].map(names) + np.where(layers > 0, ", first " + layers.astype(str) + " layers", "")
    return pd.DataFrame({"size": size, "max_tokens": settings["max_tokens"].astype(int)}).rename_axis("run")


def cost_of(made: Predictions) -> dict:
    """What a run cost, without the history of its training."""
    return {key: value for key, value in made.run["cost"].items() if key != "history"}


def costs(runs: dict[str, Predictions]) -> pd.DataFrame:
    """What each run cost, as run.json records it, and the speeds that follow from it; one row for each run.

    What a run did not record is NaN. Steps of evaluation are counted in batches of `BATCH`. A run that takes the frozen
    states of another (`features_of`) has that run's seconds of `fit` and of prediction counted in its own; of them
    features_minutes are of `fit`. That is an upper bound, for the other run has fitted its own head in them too.

    Raises
    ------
    StudyError
        If the run whose frozen states another takes is not among the runs.
    """
    recorded = [
        "fit_seconds",
        "train_seconds",
        "train_examples",
        "predict_seconds",
        "predict_examples",
        "peak_memory_gb",
        "dtype",
    ]
    cost = pd.DataFrame({name: p.run["cost"] for name, p in runs.items()}).reindex(recorded).T.infer_objects()
    own, cost["features_minutes"] = cost.copy(), np.nan
    for name, made in runs.items():
        if of := made.run["settings"].get("features_of"):
            if of not in runs:
                raise StudyError(
                    f"run {name!r} takes the frozen states of {of!r}, whose cost is part of its own; name {of!r} in the "
                    "parameter other_runs"
                )
            for what in ("fit_seconds", "predict_seconds"):
                cost.loc[name, what] = own.loc[name, what] + own.loc[of, what]
            cost.loc[name, "features_minutes"] = own.loc[of, "fit_seconds"] / 60
    for what in ("train", "predict"):
        cost[f"{what}_examples_per_second"] = cost[f"{what}_examples"] / cost[f"{what}_seconds"].replace(0, np.nan)
    batch = [BATCH.get(p.run["model"], np.nan) for p in runs.values()]
    steps = cost["predict_examples_per_second"] / batch
    return cost.assign(train_minutes=cost["fit_seconds"] / 60, batch_size=batch, evaluation_steps_per_second=steps)
