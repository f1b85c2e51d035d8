"""Kill -9 at 25 moments of the smoke pipeline, and again: it finishes, with the numbers of an undisturbed run.

Each step of the pipeline belongs to a stage, its notebook; writing the pages after a step is a stage too. Every stage is
hit at least once, at a moment drawn from its length in the undisturbed run. What was hit is in data/stress/kills.csv.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from drgstudy.study import ROOT

KILLS, SEED = 25, 1
PAGES = "pages"


@dataclass
class Run:
    """`make TARGET PROFILE=…` in a process group of its own, and when each step began and ended."""

    root: Path
    target: str = "all"
    profile: str = "smoke"
    more: dict[str, str] = field(default_factory=dict)  # variables of its environment
    said: list[str] = field(default_factory=list)
    begun: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        self.process = subprocess.Popen(
            ["make", "--no-print-directory", *self.target.split(), f"PROFILE={self.profile}"],
            cwd=self.root, env=clean | {"VIRTUAL_ENV": sys.prefix} | self.more, start_new_session=True,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.match(rf"{self.profile}/(\S+) (…|done in)", line):
                (self.begun if found[2] == "…" else self.ended)[found[1]] = time.monotonic()

    def finish(self) -> None:
        assert self.process.wait() == 0, "".join(self.said[-30:])
        self.reader.join()

    def kill_in(self, step: str, stage: str, seconds: float) -> float | None:
        """Kill all of it `seconds` after the step began, or after it ended if its pages are the stage.

        Returns when the kill came, in seconds; None if the stage was over by then.
        """
        reached, over = (self.ended, self.begun) if stage == PAGES else (self.begun, self.ended)
        while step not in reached or time.monotonic() < reached[step] + seconds:
            assert self.process.poll() is None, f"make ended before {step}:\n" + "".join(self.said[-30:])
            time.sleep(0.01)
        missed = max(over.values(), default=0) > reached[step]
        came = time.monotonic() - reached[step]
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return None if missed else came


def stage_of(step: str) -> str:
    return step[:2]


def lengths(run: Run) -> dict[tuple[str, str], float]:
    """Seconds of each step, by step and stage, and of the pages after it, if they were made, in the order in which they came."""
    order, found = sorted(run.begun, key=run.begun.get), {}
    for step, then in zip(order, [*order[1:], None], strict=True):
        found[step, stage_of(step)] = run.ended[step] - run.begun[step]
        if then and step >= "05" and (seconds := run.begun[then] - run.ended[step]) > 3:
            found[step, PAGES] = seconds
    return found


def plan(length: dict[tuple[str, str], float], kills: int) -> list[tuple[str, str, float]]:
    """Step, stage and seconds of each kill: one in each stage, further ones anywhere, in the pipeline's order."""
    rng, moments = random.Random(SEED), list(length)
    chosen = [rng.choice([m for m in moments if m[1] == stage]) for stage in dict.fromkeys(s for _, s in moments)]
    chosen += rng.sample([m for m in moments if m not in chosen], kills - len(chosen))
    return [(*moment, rng.uniform(0.1, 0.7) * length[moment]) for moment in sorted(chosen, key=moments.index)]


def copy_of_the_project(root: Path) -> Path:
    """A copy of what git holds, or would, which shares only the pretrained models."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(root / name, (0, 0))  # else make might install this copy into the environment in use
    if (ROOT / "data" / "models").is_dir():
        (root / "data" / "models").symlink_to(ROOT / "data" / "models")
    return root


def made(root: Path) -> dict[str, bytes]:
    """The numbers and tables but for those of times, and the names of all other files of the study, hidden and empty ones too."""
    files = [f for kind in ("data", "reports") for f in (root / kind / "smoke").rglob("*") if not f.is_dir()]
    told = [f for f in files if f.name == "numbers.json" or f.suffix in (".csv", ".md")]
    kept = {f: f.read_bytes() for f in told if f.stem not in ("cost", "time-gains")}
    return {str(f.relative_to(root)): kept.get(f, b"") for f in files}


@pytest.mark.stress
def test_a_study_killed_25_times_ends_as_if_it_had_not_been(tmp_path, capsys, target="all", kills=KILLS):
    root = copy_of_the_project(tmp_path / "study")
    undisturbed = Run(root, target)
    undisturbed.finish()
    expected = made(root)
    for kind in ("data", "reports"):
        shutil.rmtree(root / kind / "smoke", ignore_errors=True)
    log = []
    for number, (step, stage, seconds) in enumerate(plan(lengths(undisturbed), kills), 1):
        came = Run(root, target).kill_in(step, stage, seconds)
        log.append({"kill": number, "step": step, "stage": stage, "seconds": came and round(came, 2)})
        with capsys.disabled():
            print("\nkill", *log[-1].values(), end="", flush=True)
    Run(root, target).finish()
    hit = pd.DataFrame(log).dropna()
    (ROOT / "data" / "stress").mkdir(parents=True, exist_ok=True)
    hit.to_csv(ROOT / "data" / "stress" / "kills.csv", index=False)
    with capsys.disabled():
        print(f"\n{len(hit)} kills in {hit['stage'].nunique()} stages:", *hit["stage"].unique())
    assert len(hit) == kills and set(hit["stage"]) == {stage for _, stage in lengths(undisturbed)}
    found = made(root)
    assert sorted(found) == sorted(expected)
    assert {name for name in found if found[name] != expected[name]} == set()
