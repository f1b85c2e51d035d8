"""Whose data a study shows, and how open they are."""

from __future__ import annotations

from drgstudy.study.files import read_json
from drgstudy.study.places import Paths

OPENNESS = ("synthetic", "open demo", "credentialed")
"""The kinds of data, the most open first."""


def least_open(found: list[dict]) -> dict:
    """Kind and name of the least open of several datasets; an unknown kind, or no dataset, counts as credentialed."""
    unknown = {"kind": "credentialed", "name": "unknown"}
    found = [about if about.get("kind") in OPENNESS else unknown for about in found] or [unknown]
    chosen = max(found, key=lambda about: OPENNESS.index(about["kind"]))
    return {key: chosen[key] for key in unknown}


def source_of(paths: Paths) -> dict:
    """Kind and name of a study's data, from its source.json and its cohort's flow.json."""
    contents = [read_json(file) for file in (paths.source, paths.flow) if file.is_file()]
    return least_open([content.get("source", content) for content in contents])
