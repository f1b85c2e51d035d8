"""The tables, ours and the published ones, and the numbers that any text quotes.

The published values stand beside ours, never among them: every table names its dataset.
"""

from __future__ import annotations

import itertools
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from statsmodels.stats.multitest import multipletests

from drgstudy import drgs, plots, provenance
from drgstudy.bootstrap import bootstrap, difference, resample_counts, summary
from drgstudy.labels import TwoLabels
from drgstudy.metrics import Scores
from drgstudy.predictions import Predictions, read_predictions
from drgstudy.study import REFERENCE, Paths, StudyError, atomic, dataset, progress

TOP_DRGS = (300, 50, 30)
RULES = {"DRG by rule (a)": "seen", "DRG by rule (b)": "mapped"}  # of `TwoLabels.infer`, as Table 3 names them
BATCH = {"llama": 4, "bert": 16, "caml": 32}  # the paper's evaluation batches, by model: its speeds are in steps
TEXT = {  # what the paper's text and captions quote: wording, format, and the published value's row and column
    "train_stays": ("Training stays", ",.0f", "Cohort", "n_train"),
    "test_stays": ("Test stays", ",.0f", "Cohort", "n_test"),
    "train_labels": ("DRGs in the training set", ",.0f", "Training set", "n_labels"),
    "test_labels": ("DRGs in the test set", ",.0f", "Test set", "n_labels"),
    "train_words": ("Mean words of a training stay", ".0f", "Training set", "mean_words"),
    "test_words": ("Mean words of a test stay", ".0f", "Test set", "mean_words"),
    "words_p": ("p of that difference, two-sided t-test", ".2f", "Training against test set", "p_words"),
    "top_300": ("Test stays of the top 300 DRGs, %", ".1f", "DRG-LLaMA-7B | Top 300 DRGs", "percent_cases"),
    "top_50": ("Test stays of the top 50 DRGs, %", ".1f", "DRG-LLaMA-7B | Top 50 DRGs", "percent_cases"),
    "top_30": ("Test stays of the top 30 DRGs, %", ".1f", "DRG-LLaMA-7B | Top 30 DRGs", "percent_cases"),
    "f1_gain_bert": ("Gain in macro-F1 over BERT, %", "+.1f", "Against ClinicalBERT", "macro_f1_gain_percent"),
    "f1_gain_caml": ("Gain in macro-F1 over CAML, %", "+.1f", "Against CAML", "macro_f1_gain_percent"),
    "median_cases": ("Median training cases of a DRG", ",g", "Training set", "median_train_cases"),
    "above_2000": ("DRGs with more than 2,000 training cases", ",.0f", "Training set", "n_drgs_above_2000_cases"),
    "cases_above_80": ("Median cases, top-5 above 80 %", ",g", "Top-5 accuracy above 80 %", "median_train_cases"),
    "cases_below_20": ("Median cases, top-5 below 20 %", ",g", "Top-5 accuracy below 20 %", "median_train_cases"),
    "perfect_drgs": ("DRGs with a top-1 accuracy of 100 %", ",.0f", "Top-1 accuracy 100 %", "n_drgs"),
    "perfect_surgical": ("Surgical ones among them", ",.0f", "Top-1 accuracy 100 %", "n_surgical_drgs"),
    "perfect_cases": ("Median cases, top-1 of 100 %", ",g", "Top-1 accuracy 100 %", "median_train_cases"),
    "zero_medical_cases": ("Median, top-5 0 %, medical", ",g", "Top-5 accuracy 0 %, medical", "median_train_cases"),
    "zero_surgical_cases": (
        "Median, top-5 0 %, surgical",
        ",g",
        "Top-5 accuracy 0 %, surgical",
        "median_train_cases",
    ),
    "spline_df": ("Figure 2a: degrees of freedom of the spline", ".2f", "Smoothing spline", "df"),
    "spline_r2": ("Figure 2a: R² of the spline", ".3f", "Smoothing spline", "r2"),
}


def read_runs(paths: Paths, names: list[str]) -> dict[str, Predictions]:
    """The runs called `names`, in that order: made on this cohort and tested on the same stays.

    Raises
    ------
    StudyError
        If none is named, one has not run or was made on another cohort, or two were tested on different stays.
    """
    if not names:
        raise StudyError("parameter runs: names no run; give at least one, e.g. [tfidf]")
    if missing := [name for name in names if not (paths.runs / name / "run.json").is_file()]:
        known = ", ".join(sorted(file.parent.name for file in paths.runs.glob("*/run.json"))) or "none"
        raise StudyError(f"run {missing[0]!r} has no run.json under {paths.runs}; train it, or choose of: {known}")
    runs = {name: read_predictions(paths.runs / name, paths.stays) for name in names}
    for name in names:
        if not np.array_equal(runs[name].stay_ids, runs[names[0]].stay_ids):
            raise StudyError(f"run {name!r} was tested on other stays than {names[0]!r}; they can't be compared")
    return runs


def drg_sets(stays: pd.DataFrame, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Label indices of all DRGs and of the most frequent 300, 50 and 30, where the cohort has more than that many.

    Frequency counts the stays of the whole cohort, ties by code. Source: DRG-LLaMA, Table 1, footnote.
    """
    frequency = stays["drg_v34"].value_counts().sort_index()
    ranked = frequency.sort_values(ascending=False, kind="stable").index
    tops = {f"Top {n} DRGs": np.searchsorted(labels, sorted(ranked[:n])) for n in TOP_DRGS if n < len(ranked)}
    return {"All DRGs": np.arange(len(labels))} | tops


def table1(scores: dict, sets: dict, resamples_sd: int, resamples_interval: int, seed: int) -> pd.DataFrame:
    """Table 1 in long form.

    Parameters
    ----------
    scores : dict of run to Scores
    sets : dict of DRG set to label indices
        As `drg_sets` returns it.
    resamples_sd, resamples_interval, seed : int

    Returns
    -------
    DataFrame
        run, model, drg_set, metric (the six, then n_cases and percent_cases), value (unrounded), sd of the first
        `resamples_sd` resamples, lower and upper of the 95 % percentile interval of `resamples_interval`.
    """
    parts = []
    for run, drg_set in progress([(run, drg_set) for run in scores for drg_set in sets], desc="resampling"):
        kept = scores[run].among(sets[drg_set])
        samples = bootstrap(scores[run], max(resamples_sd, resamples_interval), seed, sets[drg_set])
        part = summary(samples[:resamples_interval]).assign(sd=summary(samples[:resamples_sd])["sd"])
        values = scores[run].evaluate(kept) | {"n_cases": kept.sum(), "percent_cases": 100 * kept.mean()}
        part = part.reindex(list(values)).assign(value=values).rename_axis("metric").reset_index()
        parts.append(part.assign(run=run, model=plots.look(run)[0], drg_set=drg_set))
    return pd.concat(parts, ignore_index=True)[["run", "model", "drg_set", "metric", "value", "sd", "lower", "upper"]]


def published(table: str) -> pd.DataFrame:
    """One table as the paper prints it: model, max_tokens, drg_set, metric, value and sd."""
    values = pd.read_csv(REFERENCE / "published_tables.csv").rename(columns={"column": "metric"})
    return values[values["table"] == table].reset_index(drop=True)


def printed(table: pd.DataFrame, interval: bool = False) -> pd.DataFrame:
    """Table 1 as it is printed, ours or the published one, with standard deviations or with intervals."""
    spread = [f"{r.lower:.3f} to {r.upper:.3f}" if interval else f"{r.sd:.3f}" for r in table.itertuples()]
    cell = [f"{value:.3f} ({inner})" for value, inner in zip(table["value"], spread, strict=True)]
    cells, values = (
        table.assign(cell=content).set_index(["model", "drg_set", "metric"])["cell"].unstack(sort=False)
        for content in (cell, table["value"])
    )
    cells["cases"] = [f"{n:,.0f} ({p:.1f})" for n, p in values[["n_cases", "percent_cases"]].itertuples(index=False)]
    names = {"model": "Model", "drg_set": "DRG set", **plots.METRICS, "cases": "Number (%) of cases"}
    return cells.rename_axis(columns=None).reset_index()[list(names)].rename(columns=names)


def differences(scores: dict[str, Scores], run: str, resamples: int, seed: int) -> pd.DataFrame:
    """`run` minus each other run on the same resamples of all test stays.

    Returns
    -------
    DataFrame
        run and model (the other one), metric, difference, lower, upper, p, p_holm (after Holm's correction for all rows:
        the chance of even one false difference among them stays below 5 %), and the `sentence` that says it.
    """
    columns = ["run", "model", "metric", "difference", "lower", "upper", "p"]
    others = progress([other for other in scores if other != run], desc="comparing")
    parts = {other: difference(scores[run], scores[other], resamples, seed) for other in others}
    if not parts:
        return pd.DataFrame(columns=[*columns, "p_holm", "sentence"])
    table = pd.concat(parts, names=["run", "metric"]).reset_index()
    table = table.assign(model=[plots.look(other)[0] for other in table["run"]])[columns]
    table["p_holm"] = multipletests(table["p"], method="holm")[1]
    return table.assign(sentence=[sentence(plots.look(run)[0], row) for row in table.itertuples()])


def sentence(a: str, row) -> str:
    """What `row` says of a minus another model: above, below, or not to be told apart.

    `row` has model, metric, difference, lower, upper and p_holm. A difference counts if it survives the correction and its interval excludes zero.
    """
    amount = f"{row.difference:+.3f}, 95 % interval {row.lower:+.3f} to {row.upper:+.3f}".replace("-", "−")
    amount += f"; p {f'= {row.p_holm:.2g}' if row.p_holm >= 0.001 else '< 0.001'} after correction"
    metric = plots.METRICS[row.metric]
    apart = not row.lower <= 0 <= row.upper
    if apart and row.p_holm < 0.05:
        return f"{a} is {'above' if row.difference > 0 else 'below'} {row.model} in {metric} ({amount})."
    if not apart:
        return f"{a} and {row.model} can't be told apart in {metric} ({amount})."
    return f"{a} and {row.model} differ in {metric} by themselves, but not after correction for all comparisons ({amount})."


def by_drg(scores: Scores, labels: np.ndarray, train_cases: pd.Series) -> pd.DataFrame:
    """Each DRG of the test set, the one with most training cases first: what Figure 2 shows.

    Parameters
    ----------
    train_cases : Series
        Training stays, indexed by DRG.

    Returns
    -------
    DataFrame
        rank (from 1; ties by code), drg, title, type, train_cases, test_cases, acc_at_1, acc_at_5 and acc_range, one
        of `plots.ACCURACY_RANGES`.
    """
    tested = np.unique(scores.truth)
    table = drgs.v34().loc[labels[tested], ["title", "type"]].rename_axis("drg").reset_index()
    table["train_cases"] = table["drg"].map(train_cases).fillna(0).astype(int)
    table["test_cases"] = np.bincount(scores.truth)[tested]
    accuracy = scores.evaluate(tested[:, None] == scores.truth)  # each DRG's stays as one resample
    table = table.assign(acc_at_1=accuracy["acc_at_1"], acc_at_5=accuracy["acc_at_5"])
    edges = [0, 0.2, 0.4, 0.6, np.nextafter(0.8, 1), 2]  # below 20, above 80: both strictly, as in the paper's text
    table["acc_range"] = pd.cut(table["acc_at_5"], edges, right=False, labels=plots.ACCURACY_RANGES).astype("str")
    table = table.sort_values(["train_cases", "drg"], ascending=[False, True], ignore_index=True)
    table.insert(0, "rank", table.index + 1)
    return table


def table3(two: Predictions, space: TwoLabels, resamples_sd: int, resamples_interval: int, seed: int) -> pd.DataFrame:
    """Table 3 in long form: how well the two labels are named, and the DRG that follows from them.

    Parameters
    ----------
    two : Predictions
        Of a two-label run.
    space : TwoLabels
        The labels that it was trained with.

    Returns
    -------
    DataFrame
        component ("Base DRG", "CC/MCC", "DRG by rule (a)", "DRG by rule (b)", "DRG by probability"), metric (for the rules
        acc_at_1 alone; for five CC/MCC labels no acc_at_5 and acc_at_10), value, sd, lower, upper and n_labels.
    """
    truth, n = two.labels[two.truth], space.n_bases
    base, cc = space.encode(truth).T
    parts = {
        "Base DRG": Scores(two.outputs[:, :n], base),
        "CC/MCC": Scores(two.outputs[:, n:], cc),
        "DRG by probability": Scores(two.logits, two.truth),
    }
    rows = []
    for component, scores in parts.items():
        samples = bootstrap(scores, max(resamples_sd, resamples_interval), seed)
        rows.append((component, scores.n_labels, pd.Series(scores.evaluate()), samples))
    counts = resample_counts(len(truth), max(resamples_sd, resamples_interval), seed)
    for name, rule in RULES.items():
        right = space.infer(two.outputs, rule) == truth
        accuracy = pd.Series({"acc_at_1": right.mean()})
        samples = pd.DataFrame({"acc_at_1": counts @ right / len(truth)})
        rows.append((name, len(two.labels), accuracy, samples))
    tables = [
        summary(samples[:resamples_interval])
        .assign(sd=summary(samples[:resamples_sd])["sd"], value=value, component=component, n_labels=n_labels)
        .rename_axis("metric")
        .reset_index()
        for component, n_labels, value, samples in rows
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[~((table["component"] == "CC/MCC") & table["metric"].isin(["acc_at_5", "acc_at_10"]))]


def printed3(table: pd.DataFrame) -> pd.DataFrame:
    """Table 3 as it is printed, ours or the published one (whose `row` is our `component`)."""
    table = table.rename(columns={"row": "component"})
    values = table[table["metric"] != "n_labels"]
    cells = values.assign(cell=[f"{row.value:.3f} ({row.sd:.3f})" for row in values.itertuples()])
    wide = cells.pivot(index="component", columns="metric", values="cell").reindex(columns=list(plots.METRICS))
    if "n_labels" in table:
        labels = table.groupby("component")["n_labels"].first()
    else:
        labels = table[table["metric"] == "n_labels"].set_index("component")["value"].astype(int)
    wide = wide.fillna("–").assign(n_labels=labels).sort_index().reset_index()
    return wide.rename(columns={"component": "Component", "n_labels": "Number of labels"} | plots.METRICS)


def sizes(runs: dict[str, Predictions]) -> pd.DataFrame:
    """What Table 2 varies, by run, as run.json records it: size (the base, and its layers if not all) and max_tokens."""
    settings = pd.DataFrame({name: p.run["settings"] for name, p in runs.items()}).T[["base", "layers", "max_tokens"]]
    layers = settings["layers"].astype(int)
    size = settings["base"] + np.where(layers > 0, ", first " + layers.astype(str) + " layers", "")
    return pd.DataFrame({"size": size, "max_tokens": settings["max_tokens"].astype(int)}).rename_axis("run")


def printed2(table: pd.DataFrame) -> pd.DataFrame:
    """Table 2 as it is printed: `table` has size, max_tokens, metric, value and sd."""
    table = table[table["metric"].isin(plots.METRICS)]
    cells = table.assign(cell=[f"{row.value:.3f} ({row.sd:.3f})" for row in table.itertuples()])
    wide = cells.set_index(["size", "max_tokens", "metric"])["cell"].unstack(sort=False)[list(plots.METRICS)]
    names = {"size": "Model size", "max_tokens": "Max input tokens", **plots.METRICS}
    return wide.rename_axis(columns=None).reset_index().rename(columns=names)


def split_effect(apart: dict, together: dict, resamples: int, seed: int) -> pd.DataFrame:
    """Scores with patients on both sides of the split minus scores with patients apart, model by model.

    Parameters
    ----------
    apart, together : dict of run to Scores
        The same models in the same order, each dict on test stays of its own.

    Returns
    -------
    DataFrame
        run, model, metric, together, apart, difference, lower, upper, p and p_holm (over all rows).
    """
    parts = []
    for (name, ours), theirs in zip(together.items(), apart.values(), strict=True):
        table = difference(ours, theirs, resamples, seed, paired=False).rename_axis("metric").reset_index()
        both = {"together": ours.evaluate(), "apart": theirs.evaluate()}
        table = table.assign(**{key: table["metric"].map(values) for key, values in both.items()})
        parts.append(table.assign(run=name, model=plots.look(name)[0]))
    table = pd.concat(parts, ignore_index=True)
    table["p_holm"] = multipletests(table["p"], method="holm")[1]
    return table[["run", "model", "metric", "together", "apart", "difference", "lower", "upper", "p", "p_holm"]]


def leakage_sentence(row) -> str:
    """What `row` of `split_effect` says: does a model score higher where patients are on both sides?"""
    amount = f"{row.difference:+.3f}, 95 % interval {row.lower:+.3f} to {row.upper:+.3f}".replace("-", "−")
    certain = row.p_holm < 0.05 and row.difference > 0
    verdict = "scores higher with patients on both sides" if certain else "shows no certain leakage"
    return f"{row.model} {verdict} in {plots.METRICS[row.metric]} ({amount})."


def text_table(numbers: dict, dataset: str) -> pd.DataFrame:
    """The numbers that the paper's text quotes, published and ours; a dash where the cohort has no such number."""
    values = pd.read_csv(REFERENCE / "published_tables.csv").set_index(["row", "column"])["value"]
    rows = []
    for key, (wording, form, *place) in TEXT.items():
        ours = f"{numbers[key]:{form}}" if key in numbers else "–"
        rows.append((wording, f"{values[tuple(place)]:{form}}", ours))
    return pd.DataFrame(rows, columns=["Quantity", "MIMIC-IV (published)", f"{dataset} (this run)"])


def costs(runs: dict[str, Predictions]) -> pd.DataFrame:
    """What each run cost and the speeds that follow from it, a row a run; NaN where the run did not record it."""
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
    for what in ("train", "predict"):
        cost[f"{what}_examples_per_second"] = cost[f"{what}_examples"] / cost[f"{what}_seconds"].replace(0, np.nan)
    batch = [BATCH.get(p.run["model"], np.nan) for p in runs.values()]
    steps = cost["predict_examples_per_second"] / batch
    return cost.assign(train_minutes=cost["fit_seconds"] / 60, batch_size=batch, evaluation_steps_per_second=steps)


def printed_costs(cost: pd.DataFrame, runs: dict[str, Predictions]) -> pd.DataFrame:
    """Supplementary Table 1 as it is printed; `cost` is as `costs` returns it."""
    shown = {
        "train_minutes": ("Training (minutes)", "{:.1f}"),
        "train_examples_per_second": ("Examples/s, training", "{:.1f}"),
        "evaluation_steps_per_second": ("Steps/s, evaluation", "{:.2f}"),
        "batch_size": ("Batch of a step", "{:.0f}"),
        "predict_examples_per_second": ("Examples/s, evaluation", "{:.1f}"),
        "peak_memory_gb": ("Peak memory (GB)", "{:.1f}"),
        "dtype": ("Type", "{}"),
    }
    cells = {name: cost[key].map(form.format, na_action="ignore").fillna("–") for key, (name, form) in shown.items()}
    tokens = [str(runs[run].run["settings"].get("max_tokens", "–")) for run in cost.index]
    about = {"Model": [plots.look(run)[0] for run in cost.index], "Max input tokens": tokens}
    return pd.DataFrame(about | {name: column.to_numpy() for name, column in cells.items()})


def published_costs() -> pd.DataFrame:
    """Supplementary Table 1 as the paper prints it."""
    theirs = published("Supplementary Table 1").astype({"max_tokens": int})
    theirs = theirs.set_index(["model", "max_tokens", "metric"])["value"].unstack(sort=False)
    theirs = theirs.map("{:g}".format).reset_index()
    theirs.columns = ["Model", "Max input tokens", "Training (hours)", "Steps/s, evaluation", "Batch of a step"]
    return theirs


def time_gains(cost: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Training time of each run over that of the run with half its tokens, and with the other size: printed per cent.

    The published gains stand beside: "approximately 90 %" and "roughly 70 %" (Supplementary Results 4.2).
    """
    text = published("Text").set_index(["row", "metric"])["value"]
    rows, seconds = [], cost["train_seconds"].astype(float)
    for (run, one), (other, two) in itertools.permutations(sizes.iterrows(), 2):
        if one["size"] == two["size"] and one["max_tokens"] == 2 * two["max_tokens"]:
            step, gain = f"{two['max_tokens']} → {one['max_tokens']} tokens, {one['size']}", "Twice the tokens"
        elif one["max_tokens"] == two["max_tokens"] and seconds[run] > seconds[other]:
            step, gain = f"{two['size']} → {one['size']}, {one['max_tokens']} tokens", "13B against 7B"
        else:
            continue
        ours, theirs = 100 * (seconds[run] / seconds[other] - 1), text[gain, "training_time_gain_percent"]
        rows.append((step, f"{gain}: {theirs:+.0f} %", f"{ours:+.0f} %"))
    return pd.DataFrame(rows, columns=["Step", "MIMIC-IV (published)", "Training time (this run)"])


def with_interval(table: pd.DataFrame, form: str, value: str = "value", unit: float = 1) -> list[str]:
    """Each row's `value` and its 95 % interval (lower, upper), times `unit`, as a table prints them: "0.12 (−0.03 to 0.27)"."""
    rows = (table[[value, "lower", "upper"]] * unit).itertuples(index=False, name=None)
    return [f"{v:{form}} ({lower:{form}} to {upper:{form}})".replace("-", "−") for v, lower, upper in rows]


def write_table(table: pd.DataFrame, folder: Path, name: str, dataset: str) -> Styler:
    """Write `name`.csv, the dataset in its last column, and `name`.md, the dataset above; a dash for what is missing.

    Returns
    -------
    Styler
        The first 30 rows under the dataset's name, for a notebook to show.
    """
    if table.isna().any(axis=None):
        table = table.astype(object).where(table.notna(), "–")
    with atomic(folder / f"{name}.csv") as beside:
        table.assign(dataset=dataset).to_csv(beside, index=False)
    rows = [table.columns, ["---"] * table.shape[1], *table.astype("str").to_numpy()]
    rows = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    lines = [f"*{dataset}*", "", *(f"| {' | '.join(row)} |" for row in rows)]
    with atomic(folder / f"{name}.md") as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return styled(table.head(30), name, dataset)


def styled(table: pd.DataFrame, name: str, caption: str) -> Styler:
    """The table for a notebook to show; whatever its cells, columns and caption say is text, not HTML."""
    shown = table.style.set_uuid(name).hide().set_caption(escape(caption))
    return shown.format(precision=3, escape="html").format_index(escape="html", axis=1)


def write_numbers(paths: Paths, notebook: str, numbers: dict, *, text: dict | None = None, costs: dict | None = None):
    """Write what any page may quote from one notebook: ``reports/<profile>/numbers/<notebook>.json``.

    `numbers` are the notebook's own, by topic; `text` holds those of `TEXT`; `costs` what no rerun repeats. The report
    merges all of them into ``numbers.json`` and ``costs.json``. A number that is masked (None) or not finite is left out
    of `text`. Kind and name of the data stand beside them; its record names all that this process has read.
    """
    finite = {key: value for key, value in (text or {}).items() if value is not None and np.isfinite(value)}
    content = {"dataset": dataset(paths), "numbers": numbers, "text": finite, "costs": costs or {}}
    used = [file for file in provenance.USED if file.is_relative_to(paths.data) and file.is_file()]
    provenance.write_json(paths.report / "numbers" / f"{notebook}.json", content, notebook, used)


def nested(table: pd.DataFrame, keys: list[str]) -> dict:
    """The rows as dicts within dicts, a level a key; what is NaN is left out, for JSON has no such number."""
    if len(keys) > 1:
        return {key: nested(part.drop(columns=keys[0]), keys[1:]) for key, part in table.groupby(keys[0], sort=False)}
    return {key: row.dropna().drop("model", errors="ignore").to_dict() for key, row in table.set_index(keys).iterrows()}
