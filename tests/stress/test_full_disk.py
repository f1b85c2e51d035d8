"""A disk that fills up at different steps of the smoke pipeline: one sentence, a clean state, and on with more room."""

import os
import re
import subprocess
import sys

import pytest
from test_kills import copy_of_the_project

KB = [64, 256, 512, 640, 768, 1024, 256 * 1024, 2048 * 1024]  # from the hospital to a model's checkpoints


def mount(*options) -> bool:
    return subprocess.run(["mount", *map(str, options)], capture_output=True).returncode == 0


@pytest.fixture
def study(tmp_path):
    """A copy of the project whose generated files lie on a disk of 64 KB, and a function that changes its size."""
    root = copy_of_the_project(tmp_path / "study")
    disk = root / "data" / "smoke"
    disk.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", disk):
        pytest.skip("only root may mount a small disk")
    try:
        yield root, lambda size: mount("-o", f"remount,size={size}k", disk)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.stress
def test_each_time_the_disk_is_full_it_is_said_and_with_more_room_it_goes_on(study, capsys):
    root, resize = study
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    named = set()
    for size in KB:
        assert resize(size)
        done = subprocess.run(
            ["make", "train", "PROFILE=smoke"], cwd=root, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert not list(root.glob("data/smoke/**/.unfinished-*")) and not list(root.glob("data/smoke/running/*"))
        if done.returncode == 0:
            break
        assert "Traceback" not in done.stderr
        (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        found = re.search(r"no space left while writing (\S+);", said)
        assert found, said
        named.add(found[1])
        with capsys.disabled():
            print(f"\n{size:,} KB: {said}", end="", flush=True)
    assert done.returncode == 0 and len(named) > 2
