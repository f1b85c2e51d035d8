"""What a public repository has: licence, citation, container, CI. Each fact stands once, or is compared with its other place."""

import hashlib
import json
import re
import tomllib

import pytest
import yaml

from drgstudy import cards, headline, study
from drgstudy.study import ROOT


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_licence_is_apache_2_word_for_word_and_pyproject_says_so():
    official = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == official
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert project["license"] == "Apache-2.0" and all((ROOT / name).is_file() for name in project["license-files"])


def test_notice_names_each_packaged_model_as_it_is_pinned_and_each_kind_of_fact():
    notice = text("NOTICE")
    for line in text("data/reference/model_wheels.txt").splitlines():
        assert line.split(" --")[0] in notice
    for hub_id, licence in cards.BASES.values():
        assert hub_id.split("/")[1] in notice and licence == "apache-2.0"
    assert all(who in notice for who in ("HuggingFaceTB", "Medicare & Medicaid", "APR-DRG", "ODbL"))


def test_the_citation_file_is_valid_and_is_where_the_pages_take_the_papers_from():
    cited = yaml.safe_load(text("CITATION.cff"))
    try:
        from cffconvert import Citation

        Citation(text("CITATION.cff")).validate()
    except ImportError:  # the schema's required keys
        assert cited.keys() >= {"authors", "cff-version", "message", "title"} and cited["cff-version"] == "1.2.0"
        assert all(paper.keys() >= {"authors", "title", "type"} for paper in cited["references"])
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert len(cited["references"]) == len(study.studies()) == len(cards.papers())
    for paper, line in zip(cited["references"], cards.papers(), strict=True):
        assert re.fullmatch(r"10\.1038/s41746-0(\d\d)-\d{5}-\w", paper["doi"]) and paper["doi"] in line
        assert str(paper["year"]) in line and all(person["family-names"] in line for person in paper["authors"])


def test_nothing_gets_into_a_container_that_git_does_not_hold():
    """`.dockerignore` says the same as `.gitignore`, in which a pattern without a slash in front means any folder."""
    rules = [line for line in text(".gitignore").splitlines() if line and line[0] != "#"]
    said = [line for line in text(".dockerignore").splitlines() if line and line[0] != "#"]
    meant = []
    for rule in rules:
        sign, place = ("!", rule[1:]) if rule[0] == "!" else ("", rule)
        meant.append(sign + (place[1:] if place[0] == "/" else f"**/{place}").rstrip("/"))
    assert said == meant


def test_the_container_runs_readmes_commands_as_an_ordinary_user():
    steps = [line.split(maxsplit=1) for line in text("Dockerfile").splitlines() if line and line[0] != "#"]
    kinds = [step[0] for step in steps]
    assert ["FROM", "python:3.11-slim"] in steps and json.loads(dict(steps)["CMD"]) == ["make", "report"]
    user = dict(steps)["USER"]
    assert user != "root" and ["COPY", f"--chown={user} . ."] in steps
    assert kinds.index("USER") < steps.index(["RUN", "make env"])
    for place in re.findall(r"docker cp report:(\S+)", text("Dockerfile")):
        assert place.startswith(dict(steps)["WORKDIR"])
    assert "docker run drgstudy make test" in text("Dockerfile") and "make test" in text("README.md")


def test_ci_calls_the_script_that_this_project_calls():
    job = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["test"]
    assert job["steps"][-1] == {"run": ".ci/run"} and job["timeout-minutes"] <= 120
    assert {step["uses"] for step in job["steps"][:-1]} == {"actions/checkout@v4", "actions/setup-python@v5"}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


@pytest.mark.parametrize(
    "name", ["Dockerfile", ".dockerignore", ".github/workflows/ci.yml", "Makefile", "lib/environment.mk", ".ci/run"]
)
def test_no_registry_is_named(name):
    assert not re.search(r"https?://|--(extra-)?index-url|docker\.io|ghcr\.io", text(name))


def test_every_link_of_the_papers_for_readers_leads_somewhere():
    docs = [f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")]
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "cluster/README.md", *docs):
        for link in re.findall(r"\]\(([^)#]+)", text(name)):
            assert link.startswith("https://") or (ROOT / name).parent.joinpath(link).exists(), f"{name}: {link}"


def test_whoever_reports_a_problem_is_told_what_never_to_show():
    said = text("CONTRIBUTING.md")
    assert "Never put data of patients" in said and "data/<profile>/failed" in said and "make doctor" in said


def test_readme_says_what_the_committed_report_found():
    numbers = json.loads((ROOT / "reports" / "demo" / "numbers.json").read_text(encoding="utf-8"))
    said = re.search("<!-- result -->\n(.*?)<!-- /result -->", text("README.md"), re.DOTALL)[1]
    assert said == headline.in_short(numbers)
