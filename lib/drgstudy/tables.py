"""Tables, ours and the published ones, as they are printed and written; and the numbers that any text quotes."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from drgstudy import drgs, provenance, published
from drgstudy.metrics import METRICS
from drgstudy.names import in_full, names_of
from drgstudy.predictions import Predictions
from drgstudy.published import EARLY_TEXT, TEXT
from drgstudy.results import EARLY_METRICS
from drgstudy.study import REFERENCE, Paths, atomic, source_of


def printed1(table: pd.DataFrame, interval: bool = False) -> pd.DataFrame:
    """DRG-LLaMA's Table 1 as it is printed, ours or the published one, with SDs or, if `interval`, with intervals.

    An asterisk marks what is `best` (`comparisons.with_best`), if the table says so.
    """
    cell = with_interval(table, ".3f") if interval else [spread(*pair, 3) for pair in table[["value", "sd"]].to_numpy()]
    cell = _marked(cell, table)
    cells, values = (
        table.assign(cell=content).set_index(["model", "drg_set", "metric"])["cell"].unstack(sort=False)
        for content in (cell, table["value"])
    )
    cells["cases"] = [f"{n:,.0f} ({p:.1f})" for n, p in values[["n_cases", "percent_cases"]].itertuples(index=False)]
    names = {"model": "Model", "drg_set": "DRG set", **METRICS, "cases": "Number (%) of cases"}
    cells = cells.rename_axis(columns=None).reset_index()[list(names)].rename(columns=names)
    return cells.assign(**{"DRG set": cells["DRG set"].map(_set_name)})


def _marked(cells: list[str], table: pd.DataFrame) -> list[str]:
    return [cell + "*" * bool(best) for cell, best in zip(cells, table.get("best", [False] * len(table)), strict=True)]


def _set_name(drg_set: str) -> str:
    """A set of DRGs in print: with the name of its MDC, and a space before the per cent sign."""
    named = (drgs.mdc_name(part[4:]) if part.startswith("MDC ") else part for part in drg_set.split(" = "))
    return " = ".join(named).replace("80% cases", "80 % of the stays")


def printed2(table: pd.DataFrame) -> pd.DataFrame:
    """DRG-LLaMA's Table 2 as it is printed; `table` has size, max_tokens, metric, value and sd."""
    table = table[table["metric"].isin(METRICS)]
    cells = table.assign(cell=[spread(row.value, row.sd, 3) for row in table.itertuples()])
    wide = cells.set_index(["size", "max_tokens", "metric"])["cell"].unstack(sort=False)[list(METRICS)]
    names = {"size": "Model size", "max_tokens": "Max input tokens", **METRICS}
    return wide.rename_axis(columns=None).reset_index().rename(columns=names)


def printed3(table: pd.DataFrame) -> pd.DataFrame:
    """DRG-LLaMA's Table 3 as it is printed, ours or the published one (whose column `row` is our `component`)."""
    table = table.rename(columns={"row": "component"})
    values = table[table["metric"] != "n_labels"]
    cells = values.assign(cell=[spread(row.value, row.sd, 3) for row in values.itertuples()])
    names = {"component": "Component"} | METRICS | {"n_labels": "Number of labels"}
    if "n_labels" in table:
        labels = table.groupby("component")[["n_labels", "n_occurring"]].first()
        names |= {"n_occurring": "Labels that occur", "micro_auc_occurring": "micro-AUC, labels that occur"}
    else:
        labels = table[table["metric"] == "n_labels"].set_index("component")[["value"]].astype(int)
        labels = labels.set_axis(["n_labels"], axis=1)
    wide = cells.pivot(index="component", columns="metric", values="cell").join(labels)
    return wide.sort_index().reset_index().reindex(columns=list(names)).fillna("–").rename(columns=names)


def printed_folds(table: pd.DataFrame) -> pd.DataFrame:
    """The early-DRG paper's Table 2 as it is printed, ours or the published one: mean (SD), a dash for a missing SD.

    An asterisk marks what is `best` (`comparisons.with_best`), if the table says so.
    """
    cells = table[table["metric"].isin(EARLY_METRICS)]
    keys = ["system", "model", "drg_set"]
    cells = cells.assign(cell=_marked([spread(*pair, 3) for pair in cells[["value", "sd"]].to_numpy()], cells))
    wide = cells.set_index([*keys, "metric"])["cell"].unstack(sort=False)[list(EARLY_METRICS)].fillna("–")
    if "n_drgs" in table:
        size = table.groupby(keys, sort=False)[["n_drgs", "n_stays", "percent_stays"]].first()
    else:
        size = table.pivot(index=keys, columns="metric", values="value")[["n_drgs", "n_stays", "percent_stays"]]
    size = size.reindex(wide.index)
    wide["DRG targets"] = [f"{n:,.0f}" if n == n else "–" for n in size["n_drgs"]]
    wide["Stays (%)"] = [
        f"{n:,.0f} ({p:.1f})" if n == n else "–" for n, p in size[["n_stays", "percent_stays"]].to_numpy()
    ]
    names = {"system": "System", "model": "Model", "drg_set": "DRG set"} | EARLY_METRICS
    wide = wide.rename_axis(columns=None).reset_index()
    wide = wide.assign(system=wide["system"].map(drgs.SYSTEMS), drg_set=wide["drg_set"].map(_set_name))
    return wide.rename(columns=names | {"acc_at_1": "micro-F1 (top-1 accuracy)"})


def printed_cohort(table: pd.DataFrame) -> pd.DataFrame:
    """The early-DRG paper's Table 1 as it is printed, ours (`icu_cohort.described`) or the published one."""
    counts = {"n_patients": "Patients", "n_stays": "Hospital stays", "n_drgs": "Unique DRGs"}
    columns = {}
    for drg_set, part in table.set_index("metric").groupby("drg_set", sort=False):
        value, sd = part["value"], part["sd"]
        cells = {name: f"{value[metric]:,.0f}" if metric in value else "–" for metric, name in counts.items()}
        cells["DRG weight"] = f"{value['relative_weight']:.3f} ({sd['relative_weight']:.3f})"
        for mdc in value.index[value.index.str.startswith("n_stays_mdc_")].str[12:]:
            count, percent = value[f"n_stays_mdc_{mdc}"], value[f"percent_stays_mdc_{mdc}"]
            cells[f"Stays of {drgs.mdc_name(mdc)}"] = f"{count:,.0f} ({percent:.1f} %)"
        columns[drg_set] = cells
    return pd.DataFrame(columns).rename_axis("Data").reset_index()


def printed_drgs(table: pd.DataFrame) -> pd.DataFrame:
    """DRGs as they are printed: titles are readable, accuracies have three digits.

    `table` has some columns of `results.by_drg`; what is masked is None, or says so.
    """
    names = {"rank": "Rank", "drg": "DRG", "title": "Title", "type": "Type", "train_cases": "Training stays"}
    names |= {"test_cases": "Test stays", "acc_at_1": METRICS["acc_at_1"], "acc_at_5": METRICS["acc_at_5"]}
    table = table.rename(columns=names | {"acc_range": "top-5 accuracy between (%)"})
    for metric in table.columns.intersection(list(METRICS.values())):
        table[metric] = [
            f"{share:.3f}" if isinstance(share, float) and share == share else "–" for share in table[metric]
        ]
    return table


def printed_tally(table: pd.DataFrame, heading: str) -> pd.DataFrame:
    """What `errors.tally` counts, under a heading, as it is printed; what is masked says so."""
    share = [f"{100 * share:.1f}" if isinstance(share, float) and share == share else "–" for share in table["share"]]
    return pd.DataFrame({heading: table["name"], "Errors": table["errors"], "Share (%)": share})


def printed_strata(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """What `comparisons.by_stratum` finds, as it is printed."""
    cells = {
        "Stratum": table["stratum"],
        "Test stays": table["stays"].map("{:,}".format),
        "Model": table["run"].map(names),
    }
    cells["top-1 accuracy (%)"] = with_interval(table, ".1f", unit=100)
    return pd.DataFrame(cells | {f"Points above {names[table['run'].iloc[0]]}": gained(table)})


def gained(table: pd.DataFrame) -> list[str]:
    """Each row's difference with its interval, difference_lower to difference_upper, in points and in print."""
    ends = {"difference_lower": "lower", "difference_upper": "upper"}
    return with_interval(table[["difference", *ends]].rename(columns=ends), "+.1f", "difference", unit=100)


def printed_t_tests(table: pd.DataFrame) -> pd.DataFrame:
    """What `comparisons.t_tests` finds of both systems, as it is printed."""
    cells = {"System": table["system"].map(drgs.SYSTEMS), "DRG set": table["drg_set"].map(_set_name)}
    cells |= {"Metric": table["metric"].map(METRICS), "Folds": table["folds"]}
    cells["Difference"] = [signed(gain, 3) for gain in table["difference"]]
    cells["t"] = [signed(t, 2) for t in table["t"]]
    cells |= {"p, paired": p_values(table["p"]), "p, unpaired (the paper's test)": p_values(table["p_unpaired"])}
    return pd.DataFrame(cells)


def printed_splits(table: pd.DataFrame, whom: str = "Patients") -> pd.DataFrame:
    """What `comparisons.split_effect` finds, as it is printed."""
    cells = {"Model": table["model"], "Metric": table["metric"].map(METRICS)}
    cells[f"{whom} known"], cells[f"{whom} new"] = (table[side].map("{:.3f}".format) for side in ("together", "apart"))
    cells["Difference (95 % interval)"] = with_interval(table, "+.3f", "difference")
    return pd.DataFrame(cells | {"p (Holm)": p_values(table["p_holm"])})


def printed_sets(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """What `coder.judged` finds of several models, whose runs stand in the first column, as it is printed."""
    shown = {"Model": table["run"].map(names), "Asked (%)": in_print(100 * table["level"], "{:g}")}
    for half in ("first", "second"):
        ends = {f"{half}_lower": "lower", f"{half}_upper": "upper"}
        shown[f"{half.title()} half (%)"] = with_interval(table[[half, *ends]].rename(columns=ends), ".1f", half, 100)
    chance = 100 * table[["chance_lower", "chance_upper"]]
    shown["By chance (%)"] = [f"{lower:.1f} to {upper:.1f}" for lower, upper in chance.to_numpy()]
    shown["DRGs in a set"] = in_print(table["size"], "{:.1f}")
    for measure, name in {"one": "One DRG (%)", "one_right": "of these right (%)", "none": "No DRG (%)"}.items():
        shown[name] = in_print(100 * table[measure], "{:.1f}")
    return pd.DataFrame(shown)


def printed_sets_by_size(table: pd.DataFrame) -> pd.DataFrame:
    """What `coder.by_size` finds, as it is printed."""
    names = {"way": "Limit", "group": "Trained on (stays)", "drgs": "DRGs", "own": "with their own limit"}
    ends = {"size_lower": "lower", "size_upper": "upper"}
    return table.rename(columns=names)[[*names.values()]].assign(**{
        "Test stays": in_print(table["stays"], "{:,.0f}"),
        "DRG in the set (%)": with_interval(table, ".1f", "coverage", 100),
        "DRGs in a set": with_interval(table[["size", *ends]].rename(columns=ends), ".1f", "size"),
    })  # fmt: skip


def in_print(values: pd.Series, form: str) -> list[str]:
    """Numbers in print, a dash for a NaN."""
    return values.map(form.format, na_action="ignore").fillna("–").tolist()


def printed_gains(gains: pd.DataFrame) -> pd.DataFrame:
    """What `comparisons.time_gains` finds, as it is printed."""
    theirs = zip(gains["against"], gains["published"], strict=True)
    cells = {"Step": gains["step"]}
    cells["MIMIC-IV (published)"] = [f"{what}: {signed(gain, 0)} %" if what else "–" for what, gain in theirs]
    return pd.DataFrame(cells | {"Training time (this run)": [f"{signed(gain, 0)} %" for gain in gains["ours"]]})


def printed_costs(cost: pd.DataFrame, runs: dict[str, Predictions]) -> pd.DataFrame:
    """DRG-LLaMA's Supplementary Table 1 as it is printed; `cost` is as `results.costs` returns it."""
    shown = {
        "train_minutes": ("Training (minutes)", "{:.1f}"),
        "features_minutes": ("of these another run’s, for frozen states", "{:.1f}"),
        "train_examples_per_second": ("Examples/s, training", "{:.1f}"),
        "evaluation_steps_per_second": ("Steps/s, evaluation", "{:.2f}"),
        "batch_size": ("Batch of a step", "{:.0f}"),
        "predict_examples_per_second": ("Examples/s, evaluation", "{:.1f}"),
        "peak_memory_gb": ("Peak memory (GB)", "{:.1f}"),
        "dtype": ("Number type", "{}"),
    }
    cells = {name: cost[key].map(form.format, na_action="ignore").fillna("–") for key, (name, form) in shown.items()}
    tokens = [str(runs[run].run["settings"].get("max_tokens", "–")) for run in cost.index]
    about = {"Model": cost.index.map(names_of(runs)), "Max input tokens": tokens}
    return pd.DataFrame(about | {name: column.to_numpy() for name, column in cells.items()})


def text_numbers(numbers: dict) -> pd.DataFrame:
    """The numbers that DRG-LLaMA's text quotes (`published.TEXT`): quantity (its key), published and ours."""
    values = pd.read_csv(REFERENCE / "published_tables.csv").set_index(["row", "column"])["value"]
    rows = [(key, values[tuple(place)], numbers.get(key, np.nan)) for key, (_, _, *place) in TEXT.items()]
    return pd.DataFrame(rows, columns=["quantity", "published", "ours"])


def text_table(numbers: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Rows of `text_numbers` as they are printed; a dash where we have none."""
    wordings, forms = (numbers["quantity"].map(lambda key, i=i: TEXT[key][i]) for i in (0, 1))
    cells = {"Quantity": wordings}
    for whose, name in ("published", "MIMIC-IV (published)"), ("ours", f"{dataset} (this run)"):
        pairs = zip(numbers[whose], forms, strict=True)
        cells[name] = [f"{value:{form}}".replace("-", "−") if value == value else "–" for value, form in pairs]
    return pd.DataFrame(cells)


def early_text_numbers(numbers: dict) -> pd.DataFrame:
    """The numbers that the early-DRG paper's text quotes (`published.EARLY_TEXT`): quantity, system ("" both), published, ours.

    Ours are keyed "early_drgs_ms" and the like, or "early_words" where the paper gives one number for both systems.
    """
    theirs, rows = published.table("Text", "Early DRG").fillna({"system": ""}), []
    for key, (_, _, _, drg_set, metric) in EARLY_TEXT.items():
        for quoted in theirs[(theirs["drg_set"] == drg_set) & (theirs["metric"] == metric)].itertuples():
            ours = numbers.get(f"early_{key}_{quoted.system}".rstrip("_"), np.nan)
            rows.append((key, quoted.system, quoted.value, ours))
    return pd.DataFrame(rows, columns=["quantity", "system", "published", "ours"])


def early_text_table(numbers: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Rows of `early_text_numbers` as they are printed; a dash where we have none."""
    rows = []
    for row in numbers.itertuples():
        wording, sign, form, *_ = EARLY_TEXT[row.quantity]
        here = "–" if np.isnan(row.ours) else f"{row.ours:{form}}"
        rows.append((wording, drgs.SYSTEMS.get(row.system, "both"), f"{sign}{row.published:{form}}", here))
    return pd.DataFrame(rows, columns=["Quantity", "System", "MIMIC-III (published)", f"{dataset} (this run)"])


def with_interval(table: pd.DataFrame, form: str, value: str = "value", unit: float = 1) -> list[str]:
    """Each row's `value` and 95 % interval (lower, upper), all times `unit`, in print: "0.12 (−0.03 to 0.27)"."""
    rows = (table[[value, "lower", "upper"]].astype(float) * unit).itertuples(index=False, name=None)
    form = f"+z{form[1:]}" if form.startswith("+") else f"z{form}"  # no negative zero
    cells = (f"{v:{form}} ({lower:{form}} to {upper:{form}})" if v == v else "–" for v, lower, upper in rows)
    return [cell.replace("-", "−") for cell in cells]


def p_values(p: pd.Series) -> list[str]:
    """Values of p in print: three digits, or "< 0.001"; a dash for a NaN."""
    return ["–" if each != each else "< 0.001" if each < 0.001 else f"{each:.3f}" for each in p.astype(float)]


def by_index(table: pd.DataFrame, form: str, unit: float = 1) -> pd.Series:
    """As `with_interval`, by the table's index."""
    return pd.Series(with_interval(table, form, unit=unit), table.index, dtype="str")


def spread(mean: float, sd: float, digits: int = 2) -> str:
    """Mean and standard deviation as text, "1.23 (0.45)"; with a dash for a NaN, as the SD of one model is."""
    texts = [f"{value:z.{digits}f}".replace("-", "−") if value == value else "–" for value in (mean, sd)]
    return f"{texts[0]} ({texts[1]})" if mean == mean else "–"


def signed(value: float, digits: int) -> str:
    """A number with its sign, and with a typographic minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def hour_name(hour: float) -> str:
    """An hour with its sign: "+24", "−6", "0"."""
    return signed(hour, 0) if hour else "0"


def write_table(printed: pd.DataFrame, numbers: pd.DataFrame, folder: Path, name: str, dataset: str) -> Styler:
    """Write a table twice, with the dataset in the last column: as numbers, and as it is printed.

    `name`.csv has the numbers, to six digits; what is missing or masked is empty. printed/`name`.csv and .md have what a page
    shows: models' names in full, a dash for what is missing, and "none" for a table without rows.

    Parameters
    ----------
    printed, numbers : DataFrame
        Of `numbers`, lists and sentences are left out.

    Returns
    -------
    Styler
        The first 30 printed rows under the dataset's name, for a notebook to show.
    """
    if printed.empty:
        printed = pd.DataFrame([["none", *["–"] * (printed.shape[1] - 1)]], columns=printed.columns)
    printed = printed.astype(object).where(printed.notna(), "–")
    if "Model" in printed:
        printed = printed.assign(Model=printed["Model"].map(in_full))
    lists = [column for column in numbers if any(isinstance(cell, list) for cell in numbers[column])]
    numbers = numbers.drop(columns=lists).drop(columns="sentence", errors="ignore")
    for file, table in (folder / f"{name}.csv", numbers.map(_digits)), (folder / "printed" / f"{name}.csv", printed):
        with atomic(file) as beside:
            table.assign(dataset=dataset).to_csv(beside, index=False)
    rows = [printed.columns, ["---"] * printed.shape[1], *printed.astype("str").to_numpy()]
    rows = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    lines = [f"*{dataset}*", "", *(f"| {' | '.join(row)} |" for row in rows)]
    with atomic(folder / "printed" / f"{name}.md") as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return styled(printed.head(30), name, dataset)


def _digits(cell):
    """A number to six digits, a whole one without a point. A number of six digits or more that is not whole keeps its point:
    without it the guard would take it for an id."""
    if not isinstance(cell, float) or not np.isfinite(cell):
        return cell
    return f"{cell:.0f}" if cell == round(cell) else f"{cell:.6g}" if abs(cell) < 1e4 else f"{cell:.1f}"


def listed(sentences: Iterable[str]):
    """Sentences as a list, for a notebook to show; JupyterLab takes no dollars for a formula, nor escaped ones."""
    from IPython.display import Markdown

    return Markdown("\n".join(f"- {said}" for said in sentences).replace("$", "<span>&#36;</span>"))


def styled(table: pd.DataFrame, name: str, caption: str) -> Styler:
    """The table for a notebook to show. Cells, column names and caption are shown as text, never read as HTML or TeX."""
    shown = (
        table.style.set_uuid(name).hide().set_caption(escape(caption)).set_table_attributes('class="mathjax_ignore"')
    )
    return shown.format(precision=3, escape="html").format_index(escape="html", axis=1)


def write_numbers(paths: Paths, notebook: str, numbers: dict, *, text: dict | None = None, costs: dict | None = None):
    """Write what any page may quote from one notebook: ``reports/<profile>/numbers/<notebook>.json``.

    The report merges these files into ``numbers.json`` and ``costs.json``. Kind and name of the data are written too,
    and the file's record names all recorded files of the study that this process has read or written.

    Parameters
    ----------
    notebook : str
        Its name, such as "06-results".
    text : dict, optional
        Numbers by key of `published.TEXT`; one that is masked (None) or not finite is left out.
    costs : dict, optional
        Times and memory, which no rerun repeats.
    """
    finite = {key: value for key, value in (text or {}).items() if value is not None and np.isfinite(value)}
    content = {"dataset": source_of(paths), "numbers": numbers, "text": finite, "costs": costs or {}}
    used = [file for file in provenance.USED if file.is_relative_to(paths.data) and file.is_file()]
    provenance.write_json(paths.report / "numbers" / f"{notebook}.json", content, notebook, used)


def nested(table: pd.DataFrame, keys: list[str]) -> dict:
    """The rows as nested dicts, one level for each of `keys`; NaN is left out, for JSON has no such number."""
    if len(keys) > 1:
        return {key: nested(part.drop(columns=keys[0]), keys[1:]) for key, part in table.groupby(keys[0], sort=False)}
    return {key: row.dropna().drop("model", errors="ignore").to_dict() for key, row in table.set_index(keys).iterrows()}


def by_row(matrix: pd.DataFrame) -> dict[str, dict[str, int]]:
    """The counts of a matrix by row and column; those that are hidden (NaN) are left out."""
    return {row: {column: int(n) for column, n in cells.dropna().items()} for row, cells in matrix.iterrows()}
