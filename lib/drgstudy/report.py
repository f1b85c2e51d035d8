"""Tables, the numbers that any text quotes, and the pages that a reviewer opens in a browser.

The published values stand beside ours, never among them: every table names its dataset.
"""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from nbconvert import HTMLExporter
from pandas.io.formats.style import Styler

from drgstudy import drgs, plots
from drgstudy.bootstrap import bootstrap, paired_difference, summary
from drgstudy.metrics import Scores
from drgstudy.predictions import Predictions, read_predictions
from drgstudy.study import REFERENCE, Paths, StudyError, atomic, progress, read_json

TOP_DRGS = (300, 50, 30)
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
    "spline_df": ("Figure 2a: degrees of freedom of the spline", ".2f", "Smoothing spline", "df"),
    "spline_r2": ("Figure 2a: R² of the spline", ".3f", "Smoothing spline", "r2"),
}


def read_runs(paths: Paths, run: str) -> tuple[dict[str, Predictions], list[str]]:
    """Runs that were tested on the same stays as `run`, in display order, and the names of those that were not.

    Raises
    ------
    StudyError
        If `run` has not run, or was made on another cohort.
    """
    found = {file.parent.name: read_predictions(file.parent) for file in paths.runs.glob("*/run.json")}
    if run not in found:
        known = ", ".join(plots.in_order(found)) or "none"
        raise StudyError(f"parameter run: {run!r} has no run.json under {paths.runs}; train it, or choose of: {known}")
    read_predictions(paths.runs / run, paths.stays)  # refuses predictions on another cohort
    cohort = found[run].run["dataset"]["fingerprint"]
    same = [
        name
        for name, made in found.items()
        if made.run["dataset"]["fingerprint"] == cohort and np.array_equal(made.stay_ids, found[run].stay_ids)
    ]
    return {name: found[name] for name in plots.in_order(same)}, sorted(set(found) - set(same))


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
        run and model (the other one), metric, difference, lower, upper, and the `sentence` that says it.
    """
    columns = ["run", "model", "metric", "difference", "lower", "upper"]
    others = progress([other for other in scores if other != run], desc="comparing")
    parts = {other: paired_difference(scores[run], scores[other], resamples, seed) for other in others}
    if not parts:
        return pd.DataFrame(columns=[*columns, "sentence"])
    table = pd.concat(parts, names=["run", "metric"]).reset_index()
    table = table.assign(model=[plots.look(other)[0] for other in table["run"]])[columns]
    said = [sentence(plots.look(run)[0], *row[2:]) for row in table.itertuples()]
    return table.assign(sentence=said)


def sentence(a: str, b: str, metric: str, difference: float, lower: float, upper: float) -> str:
    """What the difference of a minus b says: above, below, or not to be told apart where its interval holds zero."""
    if lower <= 0 <= upper:
        amount = f"difference {difference:+.3f}, 95 % interval {lower:+.3f} to {upper:+.3f}".replace("-", "−")
        return f"{a} and {b} can't be told apart in {plots.METRICS[metric]} ({amount})."
    word, least, most = ("above", lower, upper) if lower > 0 else ("below", -upper, -lower)
    amount = f"{abs(difference):.3f} (95 % interval {least:.3f} to {most:.3f})"
    return f"{a} is {word} {b} in {plots.METRICS[metric]} by {amount}."


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


def write_table(table: pd.DataFrame, folder: Path, name: str, dataset: str) -> Styler:
    """Write `name`.csv, the dataset in its last column, and `name`.md, the dataset above.

    Returns
    -------
    Styler
        The first 30 rows under the dataset's name, for a notebook to show.
    """
    with atomic(folder / f"{name}.csv") as beside:
        table.assign(dataset=dataset).to_csv(beside, index=False)
    rows = [table.columns, ["---"] * table.shape[1], *table.astype("str").to_numpy()]
    lines = [f"*{dataset}*", "", *(f"| {' | '.join(row)} |" for row in rows)]
    with atomic(folder / f"{name}.md") as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table.head(30).style.set_uuid(name).hide().set_caption(dataset).format(precision=3)


def nested(table: pd.DataFrame, keys: list[str]) -> dict:
    """The rows as dicts within dicts, a level a key; what is NaN is left out, for JSON has no such number."""
    if len(keys) > 1:
        return {key: nested(part.drop(columns=keys[0]), keys[1:]) for key, part in table.groupby(keys[0], sort=False)}
    return {key: row.dropna().drop("model").to_dict() for key, row in table.set_index(keys).iterrows()}


def build(profile: str) -> None:
    """Write reports/<profile>: a page for each executed notebook, then ``index.html``, which needs nothing beside it.

    Raises
    ------
    StudyError
        If the results or the executed notebooks are missing.
    """
    paths = Paths(profile)
    numbers, cost = read_json(paths.report / "numbers.json"), read_json(paths.report / "costs.json")
    notebooks = [_notebook(file) for file in sorted(paths.executed.glob("[!.]*.ipynb"))]
    if not notebooks:
        raise StudyError(f"{paths.executed} holds no executed notebook; run `make report PROFILE={profile}`")
    pages = Environment(loader=PackageLoader("drgstudy"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    shared = {"profile": profile, "numbers": numbers, "notebooks": notebooks}
    for file in set(paths.report.glob("pages/*.html")) - {paths.report / n["page"] for n in notebooks}:
        file.unlink()
    for notebook in notebooks:
        _write(paths.report / notebook["page"], pages.get_template("notebook.html").render(shared, **notebook))
    figures = {
        file.stem: base64.b64encode(file.read_bytes()).decode() for file in paths.report.glob("figures/[!.]*.png")
    }
    tables = {
        file.stem: pd.read_csv(file, dtype="str", keep_default_na=False).drop(columns="dataset")
        for file in paths.report.glob("tables/[!.]*.csv")
    }
    shared |= {"order": plots.in_order(numbers["models"]), "metrics": plots.METRICS, "cost": cost}
    index = pages.get_template("index.html").render(shared, figures=figures, tables=tables)
    _write(paths.report / "index.html", index)


def _notebook(file: Path) -> dict:
    """Name, page, title and HTML body of an executed notebook; a figure is described by the heading it stands under."""
    notebook = nbformat.read(file, as_version=4)
    headings = [file.stem]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings += re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
        cell.metadata["alt"] = f"Figure: {headings[-1]}"
        # Warnings name places on this machine and are no result.
        cell.outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    run = notebook.metadata.get("papermill", {}).get("parameters", {}).get("run", "")
    of_run = plots.look(run)[0] if file.stem == f"05-train-{run}" else ""
    page = {"name": file.stem, "page": f"pages/{file.stem}.html", "title": headings[:2][-1], "of_run": of_run}
    return page | {"body": Markup(body)}


def _write(path: Path, text: str) -> None:
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        for profile in sys.argv[1:]:
            build(profile)
    except StudyError as error:
        sys.exit(f"error: {error}")
