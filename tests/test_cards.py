"""The cards of the committed numbers, and of numbers that are made up: what they say is in numbers.json, and no more."""

import copy
import re

import pytest
from huggingface_hub import DatasetCard, ModelCard

from drgstudy import cards, metrics, study

NUMBERS = study.read_json(study.ROOT / "reports" / "demo" / "numbers.json")
TEMPLATES = study.ROOT / "lib" / "drgstudy" / "templates"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that writes the cards of some numbers and returns their texts by place."""
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    report = study.Paths("mine").report

    def write(numbers):
        listed = cards.write(study.Paths("mine"), numbers)
        texts = {str(file.relative_to(report)): file.read_text(encoding="utf-8") for file in report.rglob("*.md")}
        assert sorted(texts) == sorted(place for _, place in listed)
        return texts

    return write


def but(*changes, kind="synthetic"):
    """The numbers, each of `changes` made: keys that lead to a value, and the new value; and the kind of all data."""
    numbers = copy.deepcopy(NUMBERS)
    for *keys, last, value in changes:
        inner = numbers
        for key in keys:
            inner = inner[key]
        inner[last] = value
    for dataset in numbers["dataset"].values():
        dataset["kind"] = kind
    return numbers


def leaves(node):
    if isinstance(node, dict | list):
        for each in [*node, *node.values()] if isinstance(node, dict) else node:
            yield from leaves(each)
    else:
        yield node


def numbers_in(text: str) -> set[str]:
    return set(re.findall(r"\d[\d,.]*(?<=\d)", text))


def test_every_number_in_a_card_is_in_numbers_json(made):
    said = [leaf for leaf in leaves(NUMBERS) if isinstance(leaf, str)]
    said += [*cards.papers(), *(name for name, _ in cards.BASES.values())]  # and what the cards quote, or always say
    said += [file.read_text(encoding="utf-8") for file in [*TEMPLATES.glob("*card*.md"), *cards._MODELS.glob("*.py")]]
    said += ["apache-2.0", *metrics.METRICS, *metrics.METRICS.values()]
    known = numbers_in(" ".join(said))
    for leaf in leaves(NUMBERS):
        if type(leaf) in (int, float):
            known |= {str(leaf), f"{leaf:,.0f}", f"{leaf:.3f}", f"{100 * leaf:.1f}"}
    texts = made(NUMBERS)
    assert len(texts) == 1 + len(NUMBERS["results"]["models"]) + len(NUMBERS["early_results"]["runs"])
    for place, text in texts.items():
        assert numbers_in(text) <= known, place
    assert not numbers_in(made(but(("text", "test_stays", 987654)))["model-card.md"]) <= known


def test_the_hub_reads_them_with_the_scores_that_the_report_has(made):
    texts = made(NUMBERS)
    card, run = ModelCard(texts["model-card.md"]), NUMBERS["results"]["run"]
    assert card.data.model_name == NUMBERS["results"]["models"][run]["name"] and card.data.license == "apache-2.0"
    assert card.data.base_model == cards.BASES[NUMBERS["results"]["models"][run]["settings"]["base"]][0]
    scores = NUMBERS["results"]["table_1"][run]["All DRGs"]
    assert {each.metric_type: each.metric_value for each in card.data.eval_results} == {
        metric: scores[metric]["value"] for metric in metrics.METRICS
    }
    row = f"| top-1 accuracy | {scores['acc_at_1']['value']:.3f} | {scores['acc_at_1']['lower']:.3f} |"
    assert row in card.text and "](data-card.md)" in card.text and "](../data-card.md)" in texts["cards/caml.md"]
    assert ModelCard(texts["cards/lstm-ms.md"]).data.pipeline_tag == "tabular-classification"
    data = DatasetCard(texts["data-card.md"]).data
    assert data.pretty_name == NUMBERS["results"]["dataset"]["name"] and data.license == "apache-2.0"


def test_each_card_says_what_was_found_of_its_run(made):
    texts = made(NUMBERS)
    for line in NUMBERS["trust"]["sentences"]:
        assert line in texts["model-card.md"] and line not in texts["cards/caml.md"]
    for line in NUMBERS["case_mix"]["sentences"]["ms"]:
        assert line in texts["cards/caml-ms.md"] and line not in texts["cards/lstm-ms.md"]
    for run, compared in NUMBERS["results"]["differences"].items():
        sentence = compared["acc_at_1"]["sentence"].replace("<", "&lt;")  # as Markdown has it
        assert sentence in texts[f"cards/{run}.md"] and sentence in texts["model-card.md"]
    leakage = [line for line in NUMBERS["splits"]["sentences"] if line.startswith("CAML ")]
    assert leakage and all(line in texts["cards/caml.md"] for line in leakage)
    assert all(
        "## Intended use" in text and "## Limits" in text for place, text in texts.items() if "data" not in place
    )


def test_equal_numbers_give_equal_bytes_and_a_run_that_is_gone_has_no_card(made):
    texts = made(NUMBERS)
    assert made(but()) == texts
    fewer = copy.deepcopy(NUMBERS)
    for part in ("models", "table_1", "differences"):
        del fewer["results"][part]["caml"]
    assert set(texts) - set(made(fewer)) == {"cards/caml.md"}
    for topic in ("results", "trust", "splits", "hardness"):
        fewer.pop(topic)
    del fewer["dataset"]["results"]
    alone = made(fewer)
    assert "CAML (" in alone["model-card.md"] and "discharge summary" not in "".join(alone.values())


@pytest.mark.parametrize(
    ("kind", "says"),
    [("synthetic", "**Synthetic data.**"), ("open demo", "**Open data.**"), ("credentialed", "**Credentialed data.**")],
)
def test_whose_data_it_is_stands_at_the_top(made, kind, says):
    for place, text in made(but(kind=kind)).items():
        body = text.split("---\n", 2)[2]
        assert says in body.partition("\n## ")[0], place
        assert len(re.findall(r"\*\*(Synthetic|Open|Credentialed) data", body)) == 1
        assert ("license: apache-2.0" in text) == (kind == "synthetic")


def test_what_is_masked_stays_masked_and_a_place_of_the_machine_is_not_said(made):
    """A count is masked as None, a score by being left out; a base on the machine shows its last folder alone."""
    score = {"lower": None, "upper": None}
    texts = made(
        but(
            ("results", "table_1", "llama", "All DRGs", "acc_at_1", score),
            ("results", "models", "llama", "settings", "base", "/scratch/author/models/llama-7b"),
            ("splits", "known_share", None),
            ("text", "train_labels", None),
            ("early_cohort", "table_1", "ms", "Test cohort", {}),
            kind="credentialed",
        )
    )
    card = texts["model-card.md"]
    assert (
        "| top-1 accuracy | – | few | few |" in card
        and "stays with few DRGs" in card
        and "- few of the test stays are" in card
    )
    assert "acc_at_1" not in [each.metric_type for each in ModelCard(card).data.eval_results]
    assert "author" not in "".join(texts.values()) and "`llama-7b`" in card and ModelCard(card).data.base_model is None
    stays = NUMBERS["early_cohort"]["table_1"]["apr"]["Test cohort"]["n_stays"]["value"]
    assert f"| test cohort: stays | – | {stays:,.0f} |" in texts["data-card.md"]


def test_a_dataset_named_as_html_stays_text(made):
    name = "hospital <script>alert(1)</script>: & 'x'"
    texts = made(but(("results", "dataset", "name", name), ("dataset", "results", "name", name)))
    for text in (texts["model-card.md"], texts["data-card.md"]):
        assert "<script" not in text.split("---\n", 2)[2]
    assert DatasetCard(texts["data-card.md"]).data.pretty_name.endswith(name)
