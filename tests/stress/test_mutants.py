"""Would the tests notice if a formula were wrong? Each room is mutated by mutmut, and its own tests must catch the mutants.

A mutant is one change in one function: another operator or number, an argument left out or None, a string changed, a
condition turned around. The messages of StudyErrors and what lies outside functions are left as they are.
"""

import gc
import importlib.metadata
import importlib.util
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("metrics", "bootstrap", "spline", "casemix", "calibration", "labels", "harmonize", "drgs", "notes")
SAMPLE = 100  # of each room's mutants, drawn with a seed, unless MUTANTS says another number
LEAST = 0.85
ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
from hypothesis import HealthCheck, Phase, settings
settings.register_profile(
    "mutants",
    phases=[Phase.explicit, Phase.generate],  # any counterexample is enough, it needs not be a small one
    database=None, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutants")
"""


@pytest.mark.stress
@pytest.mark.parametrize("room", ROOMS)
def test_mutants_are_caught(room, tmp_path, capsys):
    if not importlib.util.find_spec("mutmut"):
        pytest.skip("mutmut is not installed; environment.yml has it")
    for part in ("lib", "benchmarks", "data/reference", "tests/golden", f"tests/test_{room}.py"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (tmp_path / part).parent.mkdir(exist_ok=True)
        copy(ROOT / part, tmp_path / part)
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pyproject.toml").write_text('[tool.mutmut]\ndo_not_mutate_patterns = ["raise StudyError"]\n')
    environment = os.environ | {"PYTHONPATH": "lib:benchmarks", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, __file__, room, os.environ.get("MUTANTS", str(SAMPLE))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    with capsys.disabled():
        print(f"\n{done.stdout}")
    tried, caught = map(int, re.search(r"(\d+) tried, (\d+) caught", done.stdout).groups())
    assert caught >= LEAST * tried, done.stdout


def mutate(room: str) -> list[str]:
    """Write the room with all its mutants beside each other, of which MUTANT_UNDER_TEST names the one that runs."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    path = Path("lib", "drgstudy", f"{room}.py")
    # mutmut leaves decorated functions as they are, so they are decorated afterwards.
    source, cached = path.read_text(), re.findall(r"^@cache\ndef (\w+)", path.read_text(), re.MULTILINE)
    mutated = mutate_file_contents(str(path), re.sub(r"^@cache\n", "", source, flags=re.MULTILINE))
    path.write_text(mutated.code + "".join(f"\n{name} = cache({name})" for name in cached) + "\n")
    return list(mutated.mutant_names)


def outcome(room: str, mutant: str, seconds: int) -> tuple[str, float]:
    """Run the room's tests in a process of its own, that has imported nothing of ours yet; also its CPU seconds."""
    if not (child := os.fork()):
        signal.alarm(20 * seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
        os.environ["MUTANT_UNDER_TEST"] = f"drgstudy.{room}.{mutant}"
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        os._exit(pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", f"tests/test_{room}.py"]))
    _, status, usage = os.wait4(child, 0)
    exited = os.waitstatus_to_exitcode(status)
    found = "stopped" if exited < 0 else "failed" if exited else "survived"
    return found, usage.ru_utime + usage.ru_stime


def main(room: str, sample: str) -> None:
    for module in ("hypothesis.extra.numpy", "scipy.stats", "sklearn.metrics", "statsmodels.stats.proportion"):
        importlib.import_module(module)  # once for all mutants
    names = mutate(room)
    gc.freeze()
    found, cpu = outcome(room, "none", 600)
    if found != "survived":
        raise SystemExit(f"the tests of {room} fail without a mutant")
    chosen = sorted(random.Random(0).sample(range(len(names)), min(int(sample), len(names))))
    outcomes = {names[i]: outcome(room, names[i], round(3 * cpu + 5))[0] for i in chosen}
    survived = [name for name, found in outcomes.items() if found == "survived"]
    stopped = sum(found == "stopped" for found in outcomes.values())
    version = importlib.metadata.version("mutmut")
    print(f"{room}: {len(names)} mutants by mutmut {version}, {len(chosen)} tried, {len(chosen) - len(survived)} caught,"
          f" {stopped} of them by the time limit; survived: {' '.join(survived) or 'none'}")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
