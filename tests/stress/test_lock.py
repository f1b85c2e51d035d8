"""Has the registry a wheel of every pinned package for each Python and machine that README and docs/running.md name? It is asked, by pip."""

import re
import subprocess
import sys

import pytest

from drgstudy.study import ROOT

pytestmark = pytest.mark.stress
LINUX = ["manylinux2014", "manylinux1", *(f"manylinux_2_{minor}" for minor in range(5, 29))]
MACHINES = {
    "Linux x86-64": [f"{tag}_x86_64" for tag in LINUX],
    "Linux arm64": [f"{tag}_aarch64" for tag in LINUX],
    "Apple silicon": ["macosx_14_0_arm64"],
}
LOCKS = sorted(ROOT.glob("requirements*.lock"))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", ["3.11.2", "3.12.0", "3.13.0"])  # Debian 12 has 3.11.2
def test_every_pin_has_a_wheel(python, machine, tmp_path):
    options = ["--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--python-version", python]
    options += [part for tag in MACHINES[machine] for part in ("--platform", tag)]
    options += [part for lock in LOCKS for part in ("-r", str(lock))]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if re.search("Connection|resolve|timed out", done.stderr):
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr[-2000:]
