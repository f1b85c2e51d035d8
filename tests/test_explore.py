"""The page to explore, in a browser: it searches, filters, brushes and slides, and needs neither a network nor eval."""

import base64
import hashlib
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_report import run_by_hand
from test_pages import complaints, screens  # noqa: F401

from drgstudy import calibration, disclosure, drgs, explore, guard, provenance, study
from drgstudy.predictions import read_predictions

FEW = range(1, 11)
NAMES = {"llama": "SmolLM2-1.7B [LoRA], 'tuned'", "caml": "CAML", "tfidf": "TF-IDF + LR"}
SOURCE = {
    "kind": "synthetic",
    "name": "hospital </script><script>document.title = 'it ran'</script>",
    "fingerprint": "f",
}
FLOW = {"source": SOURCE, "stays_fingerprint": "e"}


def made(mask_below: int = 0, stays: int = 900) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the page shows of three runs on 40 DRGs of very different size."""
    rng, labels = np.random.default_rng(0), drgs.v34().index[200:240].to_numpy()
    often = 1 / np.arange(1, 41)
    truth = rng.choice(40, stays, p=often / often.sum())
    train = pd.Series(rng.integers(0, 400, 40), labels)
    top1 = {}
    for run, signal in {"tfidf": 3.0, "llama": 2.5, "caml": 1.5}.items():
        logits = rng.normal(size=(stays, 40)) + signal * (np.arange(40) == truth[:, None])
        top1[run] = calibration.top1(2 * logits, truth)
    curves = {run: disclosure.coarse(calibration.coverage(*said), stays, mask_below) for run, said in top1.items()}
    hits = {run: hit for run, (_, hit) in top1.items()}
    sets = [np.arange(40), np.arange(15)]
    return explore.by_drg(hits, truth, labels, train, sets, mask_below), explore.by_limit(curves, stays, mask_below)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The page, and the tables behind it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.places, "ROOT", tmp_path_factory.mktemp("root"))
        page = explore.write(study.Paths("tiny"), FLOW, *made(), NAMES, "llama")
    (page.parent / "index.html").write_text("the report")
    return page, *made()


def show(page, screens) -> tuple:  # noqa: F811
    """A window that shows the page with its dots drawn, and the list of what it fetches and what goes wrong."""
    window, said = screens["desktop"]
    window.set_default_timeout(120_000)  # other trainings may have the machine
    said.clear()
    window.goto(page.resolve().as_uri())
    window.locator(".dots_marks path").first.wait_for()
    return window, said


@pytest.fixture
def opened(shown, screens):  # noqa: F811
    """The page in a browser's window, and what goes wrong there."""
    window, said = show(shown[0], screens)
    yield window
    assert [what for what in said if not what.startswith("request: file:")] == []


def texts(window, chart: str) -> list[str]:
    return window.locator(f"svg [class*=' {chart}_'] text").all_text_contents()


def expected(rows: pd.DataFrame, run: str) -> str:
    return f"{NAMES[run]}: {100 * rows[run].sum() / rows['test'].sum():.0f} % of {rows['test'].sum():,} stays"


def test_nothing_fails_is_fetched_or_cut_off(shown, screens):  # noqa: F811
    assert complaints(shown[0], screens) == []


def test_typing_a_title_leaves_one_dot_and_its_stays_in_the_bars(shown, opened):
    _, cases, _ = shown
    dots, search = opened.locator(".dots_marks path"), opened.locator("input[type=search]")
    assert dots.count() == len(cases) == 40
    row = cases.iloc[[17]]
    for said in (row["title"].item(), f" {row['title'].item().lower()} ", row["drg"].item()):
        search.fill(said)
        opened.wait_for_function("document.querySelectorAll('.dots_marks path').length == 1")
        assert {expected(row, run) for run in NAMES} <= set(texts(opened, "bars"))
    search.fill("((")
    opened.wait_for_function("!document.querySelector('.dots_marks path')")
    search.fill("")
    opened.locator("input[value=surgical]").check()
    surgical = cases[cases["type"] == "surgical"]
    opened.wait_for_function(f"document.querySelectorAll('.dots_marks path').length == {len(surgical)}")
    assert 0 < len(surgical) < 40 and expected(surgical, "caml") in texts(opened, "bars")


def test_the_model_that_is_chosen_moves_the_dots_and_takes_its_colour(shown, opened):
    _, cases, _ = shown
    first = opened.locator(".dots_marks path").first
    before = [first.get_attribute(name) for name in ("fill", "transform")]
    opened.get_by_label("Accuracy of").select_option(label=NAMES["caml"])
    opened.wait_for_function(
        "fill => document.querySelector('.dots_marks path').getAttribute('fill') != fill", arg=before[0]
    )
    assert cases["llama"][0] != cases["caml"][0] and first.get_attribute("transform") != before[1]


def test_a_brush_moves_the_bars_of_all_models(shown, opened):
    _, cases, _ = shown
    box = opened.locator(".dots_group path.background").first.bounding_box()
    x, y, width, height = (box[side] for side in ("x", "y", "width", "height"))
    opened.mouse.move(x + 0.6 * width, y + 0.05 * height)
    opened.mouse.down()
    opened.mouse.move(x + 0.8 * width, y + 0.5 * height, steps=4)
    opened.mouse.move(x + 0.98 * width, y + 0.95 * height, steps=4)
    opened.mouse.up()
    opened.wait_for_function("document.querySelector('.dots_marks path[opacity=\"0.15\"]')")
    brushed = opened.locator('.dots_marks path[opacity="0.7"]').evaluate_all("dots => dots.map(dot => dot.ariaLabel)")
    chosen = cases[cases["drg"].isin(re.findall(r"(?m)^\d{3}", "\n".join(brushed)))]
    assert 0 < len(chosen) == len(brushed) < 40
    assert {expected(chosen, run) for run in NAMES} <= set(texts(opened, "bars"))


def test_the_slider_changes_how_many_stays_are_answered_and_how_many_rightly(shown, opened):
    _, _, limits = shown
    for limit in (0, 35, 80):
        opened.locator("input[type=range]").fill(str(limit))
        rows = limits[limits["limit"] == limit].set_index("run")
        wanted = [
            f"{NAMES[run]}: {100 * row.right / row.stays:.0f} % of {row.stays:,} stays" for run, row in rows.iterrows()
        ]
        opened.wait_for_function("said => document.body.textContent.includes(said)", arg=wanted[0])
        assert set(wanted) <= set(texts(opened, "answers")) and len(wanted) == 3
        assert opened.locator(".curves_layer_1_marks path").count() == 3
    assert limits[limits["limit"] == 80]["stays"].max() < 900


def test_the_policy_lets_the_two_scripts_of_the_page_run_and_no_other(shown, screens, tmp_path):  # noqa: F811
    page = shown[0].read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = re.search('Policy" content="(.*?)"', page)[1]
    assert f"; script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}'; " in policy and len(hashes) == 2
    assert policy.startswith("default-src 'none'; ") and "eval" not in policy
    planted = tmp_path / "explore.html"
    planted.write_text(page.replace("</main>", "<script>document.title = 'it ran'</script></main>"), encoding="utf-8")
    window, said = show(planted, screens)
    assert any("violates the following Content Security Policy" in what for what in said)
    assert window.title() != "it ran"


def test_equal_tables_give_equal_bytes(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    again = explore.write(study.Paths("tiny"), FLOW, *made(), NAMES, "llama")
    assert again.read_bytes() == shown[0].read_bytes()


# --- what is counted


def test_right_answers_by_drg_by_hand():
    labels, truth = np.array(["001", "190", "291", "292"]), np.array([2, 2, 1, 2])
    hits = {"a": np.array([True, False, True, True]), "b": np.array([False, False, False, True])}
    table = explore.by_drg(hits, truth, labels, pd.Series({"291": 7}), [np.arange(4)], 0)
    assert table[["drg", "train", "test", "a", "b"]].to_numpy().tolist() == [["190", 0, 1, 1, 0], ["291", 7, 3, 2, 1]]
    assert table["title"][1] == drgs.readable(drgs.v34().loc["291", "title"]) and set(table["type"]) == {"medical"}


def test_answers_by_limit_by_hand():
    confidence, hit = np.array([0.92, 0.6, 0.6, 0.31]), np.array([True, True, False, False])
    table = explore.by_limit({"a": calibration.coverage(confidence, hit)}, 4, 0).set_index("limit")
    assert list(table.index) == [*range(0, 100, 5)] and set(table["of"]) == {4}
    for limit, stays, right in ((0, 4, 2), (30, 4, 2), (35, 3, 2), (60, 3, 2), (65, 1, 1), (90, 1, 1), (95, 0, 0)):
        assert table.loc[limit, ["stays", "right"]].tolist() == [stays, right]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60), st.floats(0, 1)), min_size=2, max_size=8),
    st.integers(1, 8),
)
def test_no_count_of_a_drg_is_small_nor_follows_from_a_sum(groups, top):
    train, test, share = zip(*groups, strict=True)
    labels, truth = drgs.v34().index[: len(groups)].to_numpy(), np.repeat(np.arange(len(groups)), test)
    right = np.round(np.multiply(test, share)).astype(int)
    hit = np.concatenate([np.arange(n) < k for n, k in zip(test, right, strict=True)])
    table = explore.by_drg(
        {"a": hit}, truth, labels, pd.Series(train, labels), [np.arange(len(labels)), np.arange(top)], 11
    )
    of = pd.DataFrame({"train": train, "test": test, "a": right, "wrong": test - right}, labels)
    told = of.loc[table["drg"]]
    assert not told.isin(FEW).any(axis=None) and (table.set_index("drg")[["test", "a"]] == told[["test", "a"]]).all(
        axis=None
    )
    for part, name in itertools.product((of, of.iloc[:top], of.iloc[top:]), of):
        shown = part.index.isin(told.index)  # where few are left out together, all of a set are few, and it is not told
        assert part[name][~shown].sum() not in FEW or not part[name][shown].any()


@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=200))
def test_no_two_limits_differ_by_few_answers(stays):
    percent, hit = map(np.array, zip(*stays, strict=True))
    curve = disclosure.coarse(calibration.coverage(percent / 100, hit), len(hit), 11)
    points = explore.by_limit({"a": curve}, len(hit), 11)
    points = np.vstack([[0, 0], points[["right"]].assign(wrong=points["stays"] - points["right"]).to_numpy()])
    assert not np.isin(np.abs(points[:, None] - points), FEW).any()


def inside(page: str) -> list[dict]:
    return [json.loads(chart) for chart in re.findall('<script type="application/json">(.*?)</script>', page)]


def values(node) -> list[dict]:
    """The rows of all data in a chart."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [
        *(node.get("data", {}).get("values", []) if isinstance(node, dict) else []),
        *itertools.chain(*map(values, inner)),
    ]


def test_with_small_counts_masked_the_page_holds_none_and_works(tmp_path, monkeypatch, screens):  # noqa: F811
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    flow = FLOW | {"source": {"kind": "credentialed", "name": "MIMIC-IV (credentialed)", "fingerprint": "f"}}
    for cases, limits in (made(11), tuple(table.iloc[:0] for table in made(11))):
        page = explore.write(study.Paths("secret"), flow, cases, limits, NAMES, "llama")
        (page.parent / "index.html").write_text("the report")
        assert complaints(page, screens) == [] and "not MIMIC" not in page.read_text(encoding="utf-8")
        rows = [row for chart in inside(page.read_text(encoding="utf-8")) for row in values(chart)]
        counts = [n for row in rows for name, n in row.items() if name not in ("limit", "drg") and isinstance(n, int)]
        assert not set(counts) & set(FEW) and len(rows) == len(cases) + 2 * len(limits)  # of curves and of bars
    assert 0 < len(made(11)[0]) < 40 and len(made(11)[1])


@pytest.mark.parametrize("kind", ["synthetic", "credentialed"])
def test_notebook_11_writes_the_page_from_the_predictions(paths, monkeypatch, kind):
    flow = study.read_json(paths.flow)
    provenance.write_json(paths.flow, flow | {"source": flow["source"] | {"kind": kind}}, "03-cohort", [paths.stays])
    run_by_hand("11-trust", "tiny", monkeypatch, runs=["llama", "tfidf", "mine"], bins=5)
    page = (paths.report / "explore.html").read_text(encoding="utf-8")
    rows = [row for chart in inside(page) for row in values(chart)]
    cases = {row["drg"]: row for row in rows if "drg" in row}
    said = read_predictions(paths.runs / "llama")
    right = said.logits.argmax(axis=1) == said.truth
    for drg, row in cases.items():
        assert (row["test"], row["run0"]) == ((of := said.labels[said.truth] == drg).sum(), (of & right).sum())
    all_answered = [row["right"] for row in rows if row.get("name") == "DRG-LLaMA" and row["limit"] == 0]
    if kind == "synthetic":
        assert len(cases) == 35 and set(all_answered) == {right.sum()}
    else:  # five of 150 stays are wrong, so the lowest limit stands for a higher one
        assert not {n for row in rows for name, n in row.items() if name != "limit"} & set(FEW)
        assert (~right).sum() in FEW and max(all_answered) < right.sum() - 10


# --- the guard


def test_of_the_page_the_guard_reads_all_but_vega(shown, tmp_path, monkeypatch):
    vega = explore.bundle()
    numbers = sorted({int(number) for number in re.findall(r"\b\d{6,10}\b", vega)})
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    monkeypatch.setattr(guard, "_ids", lambda profile: np.array(sorted([*numbers, 22_345_678]), "int64"))
    page = study.Paths("secret").report / "explore.html"
    page.parent.mkdir(parents=True)
    text = shown[0].read_text(encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    assert len(numbers) > 50 and vega in text and guard.leaks("secret") == []
    page.write_text(text.replace(vega, vega + ";const a=22345678"), encoding="utf-8")
    assert [leak.number for leak in guard.leaks("secret")] == [1]
    page.write_text(text.replace('"type": "medical"', '"type": 22345678', 1), encoding="utf-8")
    assert [(leak.file, leak.kind) for leak in guard.leaks("secret")] == [(page, "patient, stay or note ids")]
