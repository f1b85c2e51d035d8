"""README promises that 8 GB of memory will do: both smoke studies are made within so much, which the kernel watches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_kills import copy_of_the_project

LIMIT = 8 * 10**9
GROUPS = {  # control groups of Linux, version 2 and 1: where they lie, the file of the limit, that of the peak
    Path("/sys/fs/cgroup"): ("memory.max", "memory.peak"),
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
}


@pytest.fixture
def limited():
    """A function that runs a command, and all that it starts, with 8 GB of memory, and returns its status and the peak."""
    for folder, files in GROUPS.items():
        group = folder / f"drgstudy-{os.getpid()}"
        try:
            group.mkdir()
            (group / files[1]).read_text()  # an ordinary folder has none, and would take the limit for a new file
            (group / files[0]).write_text(str(LIMIT))
            break
        except OSError:
            if group.is_dir():
                group.rmdir()
    else:
        pytest.skip("only root may limit memory, by a control group")

    def run(*command, **options) -> tuple[int, int]:
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        return subprocess.run([*enter, *command], **options).returncode, int((group / files[1]).read_text())

    yield run
    group.rmdir()


@pytest.mark.stress
def test_the_limit_holds(limited):
    assert limited(sys.executable, "-c", "bytearray(9 * 10**9)")[0] == -9


@pytest.mark.stress
def test_both_smoke_studies_are_made_with_8_gb(limited, tmp_path, capsys):
    root = copy_of_the_project(tmp_path / "study")
    status, peak = limited("make", "all", "PROFILE=smoke", cwd=root, env=os.environ | {"VIRTUAL_ENV": sys.prefix})
    with capsys.disabled():
        print(f"\nat most {peak / 1e9:.1f} GB, with the files that Linux keeps in free memory")
    assert status == 0
