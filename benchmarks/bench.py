"""All benchmarks one after the other, each in its own process, and their page: `make bench`.

Writes ``reports/benchmarks.json`` and the self-contained page ``reports/benchmarks.html``. A benchmark that fails is
shown as failed, and the others go on.

    python benchmarks/bench.py [--only NAME …]
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import matplotlib.pyplot as plt
import psutil
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from drgstudy import plots
from drgstudy.predictions import versions
from drgstudy.study import ROOT, StudyError, atomic, read_json, run_and_exit, write_json

HERE = Path(__file__).resolve().parent
REPORTS = ROOT / "reports"
BENCHMARKS = {  # script: its heading on the page
    "startup": "Startup",
    "table1": "Statistics at full size",
    "caml": "CAML",
    "cohort": "The cohort at full size",
    "training": "Training on a CPU",
    "gpu": "Training on a GPU",
}
KEYS = {"name", "data", "unit", "ours", "plain", "plain_is", "ratio", "goal", "met", "equal", "note"}
BUSY = 25  # per cent: if other processes use more of the processor than this, timings can't be trusted


def machine() -> dict:
    """The machine on which the numbers were measured, and the speed of its matrix products in GFLOP/s."""
    import torch

    from drgstudy.training import matrix_speed

    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "system": platform.platform(),
        "gpu": ", ".join(gpus) or "none",
        "versions": versions(),
        "matrix_gflops": {kind: matrix_speed(getattr(torch, kind)) for kind in ("float32", "bfloat16")},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def run(name: str) -> dict:
    """Run one benchmark; return what it measured, or the last line it printed, and how busy the machine was before."""
    busy = psutil.cpu_percent(2)
    if busy > BUSY:
        print(f"warning: others use {busy:.0f} % of this machine; the timings will say little", file=sys.stderr)
    record = {
        "busy_percent": busy,
        "load": os.getloadavg()[0],
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    print(f"\n{name} …", flush=True)
    start, words = time.perf_counter(), "nothing said"
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "measurements.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(written)]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
            for said in io.TextIOWrapper(process.stderr, errors="replace", newline=""):  # a bar ends in \r
                sys.stderr.write(said)
                words = said.strip() or words
        record |= {"seconds": time.perf_counter() - start, "failed": "", "measured": []}
        if process.returncode or not written.is_file():
            return record | {"failed": f"exit status {process.returncode}: {words}"}
        record["measured"] = read_json(written)
    if missing := {key for row in record["measured"] for key in KEYS - set(row)}:
        return record | {"failed": f"a measurement lacks {', '.join(sorted(missing))}", "measured": []}
    return record


def goal_ratio(goal: str) -> float | None:
    """The ratio that a goal asks for, if it names one: "at least twice" is 2, "80 times" 80, "at most 3 times" 1/3."""
    said = re.search(r"(at most )?(?:(\d[\d.]*) times|twice)", goal)
    return said and float(said[2] or 2) ** (-1 if said[1] else 1)


def picture(records: dict) -> str:
    """A bar for each ratio to the plain alternative, as an SVG in base64; "" if nothing was compared."""
    rows = [row for record in records.values() for row in record["measured"] if row["ratio"]]
    if not rows:
        return ""
    figure, ax = plt.subplots(figsize=(9, 1.1 + 0.42 * len(rows)), layout="constrained")
    plt.close(figure)
    blue, ink = plots.MODELS["llama"][1], "0.15"
    for y, row in enumerate(rows):
        missed = {"facecolor": "white", "hatch": "////", "edgecolor": blue} if row["met"] is False else {"color": blue}
        ax.barh(y, row["ratio"] - 1, left=1, height=0.6, **missed)
        goal = goal_ratio(row["goal"])
        if goal:
            ax.plot([goal, goal], [y - 0.42, y + 0.42], color=ink, lw=2.5)
        end = max(row["ratio"], goal or 1, 1)
        ax.annotate(f"{number(row['ratio'])} ×", (end, y), (6, 0), textcoords="offset points", va="center", fontsize=9)
    keys = [
        Patch(color=blue),
        Patch(facecolor="white", hatch="////", edgecolor=blue),
        Line2D([], [], color=ink, lw=2.5),
    ]
    figure.legend(keys, ["ours", "ours, a goal missed", "the goal"], loc="outside upper right", ncols=3, frameon=False)
    ax.axvline(1, color=ink, lw=1)
    ax.set(xscale="log", xlabel="times better than the plain alternative (= 1)", ylim=(len(rows) - 0.5, -0.5))
    ax.set_yticks(range(len(rows)), [textwrap.fill(row["name"], 44) for row in rows])
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.12)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return base64.b64encode(drawn.getvalue()).decode()


def number(value: float | None, unit: str = "") -> str:
    """A measurement for readers: three digits and the unit, or "not measured"."""
    if value is None:
        return "not measured"
    return f"{value:,.0f} {unit}".strip() if abs(value) >= 100 else f"{value:.3g} {unit}".strip()


def page(content: dict) -> str:
    """The page as HTML, which loads nothing else; `content` is that of ``benchmarks.json``."""
    loader = ChoiceLoader([FileSystemLoader(HERE), PackageLoader("drgstudy")])
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    pages.filters["number"] = number
    shown = {"headings": BENCHMARKS, "busy": BUSY, "picture": picture(content["benchmarks"]), "studies": []}
    return pages.get_template("benchmarks.html").render(content | shown)


def main() -> int:
    """Run benchmarks, merge the results with those kept of earlier runs, write them; return 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, help="run these, and keep the others' former results")
    chosen = parser.parse_args().only
    file, here, records = REPORTS / "benchmarks.json", machine(), {}
    if chosen and file.is_file():
        former = read_json(file)
        records = former["benchmarks"]
        if any(former["machine"][key] != here[key] for key in ("cpu", "cores", "gpu")):
            raise StudyError(f"{file} was measured on another machine; run all benchmarks, without --only")
    records |= {name: run(name) for name in chosen or BENCHMARKS}
    content = {"machine": here, "benchmarks": {name: records[name] for name in BENCHMARKS if name in records}}
    write_json(file, content)
    with atomic(REPORTS / "benchmarks.html") as beside:
        beside.write_text(page(content), encoding="utf-8")
    print(f"\nthe page: {(REPORTS / 'benchmarks.html').relative_to(ROOT)}")
    failed = {name: records[name]["failed"] for name in chosen or BENCHMARKS if records[name]["failed"]}
    for name, words in failed.items():
        print(f"error: {name} failed, {words}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    run_and_exit(main)
