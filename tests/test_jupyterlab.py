"""Notebooks in a real JupyterLab, driven by a browser, as a student runs them: all cells by hand, on the smoke study."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from playwright.sync_api import sync_playwright

from drgstudy.study import NOTEBOOKS, write_json

# All cells are on the page, not only those that the window shows; and nothing is asked of the network.
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
# What a page of JupyterLab shows of a notebook: its numbers of executed cells, its errors, pictures, formulas and words.
LOOK = """() => {
    const found = selector => [...document.querySelectorAll(".jp-Notebook " + selector)];
    return {
        prompts: found(".jp-CodeCell .jp-InputPrompt").map(prompt => prompt.textContent),
        errors: found("[data-mime-type='application/vnd.jupyter.error']").map(output => output.textContent),
        pictures: found(".jp-OutputArea img").filter(image => image.naturalWidth > 100).length,
        formulas: found(".jp-OutputArea mjx-container").map(formula => formula.closest("p, li, td, th, tr, table, div").textContent),
        words: found(".jp-OutputArea").map(output => output.textContent).join(" "),
    };
}"""


@pytest.fixture(scope="module")
def browser():
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox", "--disable-dev-shm-usage"])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address, token and folder of a JupyterLab that knows no settings of this user's."""
    home = tmp_path_factory.mktemp("home")
    folders = {f"JUPYTER_{what}_DIR": str(home / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")}
    environment = os.environ | folders | {"IPYTHONDIR": str(home / "ipython"), "JUPYTER_PLATFORM_DIRS": "1"}
    environment = {key: value for key, value in environment.items() if not key.startswith("DRGSTUDY_PROGRESS")}
    (home / "notebooks").mkdir()
    write_json(home / "config" / "labconfig" / "default_setting_overrides.json", SETTINGS)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--ServerApp.port=0",
    ]
    command += [f"--notebook-dir={home / 'notebooks'}"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while not (said := list((home / "runtime").glob("jpserver-*.json"))):
            assert server.poll() is None, (home / "log").read_text()[-3000:]
            time.sleep(0.2)
        about = json.loads(said[0].read_text())
        assert about["token"], "anybody on this machine could run code"
        yield about["url"], about["token"], home / "notebooks"
    finally:
        server.terminate()  # it ends its kernels first
        server.wait(120)


def opened(name: str, lab: tuple, browser):
    """A page that shows a copy of a notebook, which is set to the smoke study's values."""
    url, token, folder = lab
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = cell.source.replace('"demo"', '"smoke"', 1).replace('like = ""', f'like = "{name}"', 1)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    page.set_default_timeout(120_000)  # the machine may be busy with other tests
    page.route("**", lambda route: route.continue_() if route.request.url.startswith(url) else route.abort())
    page.goto(f"{url}lab/tree/{name}.ipynb?reset&token={token}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector("#jp-main-statusbar >> text=Python 3 (ipykernel) | Idle")
    return page


def run_all(page, seconds: float = 300) -> dict:
    """Choose *Run All Cells*, and wait until every cell has run or one has failed; returns what the page then shows."""
    page.click("text=Run >> nth=0")
    page.click("[data-command='runmenu:run-all']")
    end, bars = time.monotonic() + seconds, ""
    while True:
        shown = page.evaluate(LOOK)
        bars += shown["words"]
        if shown["errors"] or (shown["prompts"] and all(prompt.strip("[]: ").isdigit() for prompt in shown["prompts"])):
            return shown | {"bars": bars}
        assert time.monotonic() < end, shown["prompts"]
        time.sleep(0.3)


def test_smoke_notebook_11_runs_by_hand_in_jupyterlab(study, lab, browser):
    shown = run_all(opened("11-trust", lab, browser))
    assert shown["errors"] == [] and shown["pictures"] == 4
    assert shown["formulas"] == [] and "the hospital expects $" in shown["words"]  # two dollars are no formula
    assert re.search(r"resampling:\s*\d+%", shown["bars"])


def test_smoke_notebook_13_runs_by_hand_in_jupyterlab(study, lab, browser):
    shown = run_all(opened("13-try-it", lab, browser))
    assert shown["errors"] == [] and "Blue, underlined: for." in shown["words"]
