"""What is there and what is missing on this machine, a line each: ``make doctor``.

It runs under any Python from 3.7 on, before anything is installed, so it imports nothing of the study. It asks nobody on
the network, ends within five seconds whatever hangs, and names no place of the machine: its lines can go into an issue.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11")  # as the Makefile tries them
FITTING = ((3, 11), (3, 12), (3, 13))
OK, NOTE, MISSING = "ok", "note", "MISSING"
SECONDS = 4.0
_TABLES = {"mimic": "admissions", "mimic_note": "discharge", "mimic3": "ADMISSIONS"}  # by parameter, a table that tells


def said(*command: str) -> str:
    """What a command prints; "" if it is not there, fails, or does not end in time."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=SECONDS - 1)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout.decode("utf-8", "replace").strip()


def interpreter(env: Path) -> "tuple[str, str]":
    """The Python that make would use and its version: the environment's, or the first that fits; ("", another one found)."""
    own, old = str(env / "bin" / "python"), ""
    for name in (own,) if os.path.exists(own) else PYTHONS:
        version = said(name, "-I", "-c", "import platform; print(platform.python_version())")
        if version and tuple(map(int, re.findall(r"\d+", version)[:2])) in FITTING:
            return name, version
        old = old or version
    return "", old


def check_python(env):
    name, version = interpreter(env)
    if name:
        return OK, f"{version}, {'of the environment' if os.sep in name else name}", ""
    remedy = "install one of them (Debian: apt-get install python3 python3-venv; macOS: brew install python)"
    return MISSING, f"none of 3.11, 3.12 and 3.13 ({version or 'none'})", remedy


def check_venv(env):
    if os.path.exists(str(env / "bin" / "python")):
        return OK, "not needed: the environment is there", ""
    if said(interpreter(env)[0] or "python3", "-I", "-c", "import venv, ensurepip; print('there')"):
        return OK, "there", ""
    return MISSING, "the Python above has no venv with pip", "Debian: apt-get install python3-venv"


def check_pip(env):
    own = str(env / "bin" / "python")
    if not os.path.exists(own):
        return OK, "comes with the environment", ""
    version = said(own, "-I", "-m", "pip", "--version").split()[:2]
    return (OK, version[1], "") if version else (NOTE, "the environment has none", "make brings it, if its Python can")


def check_programs(env):
    version = (said("make", "--version").splitlines() or [""])[0]
    absent = [name for name in ("make", "bash", "git") if not shutil.which(name)]
    found = f"{version or 'no make'}; " + ("bash, git" if not absent else "not there: " + ", ".join(absent))
    return (MISSING if absent else OK), found, f"install {', '.join(absent)}" if absent else ""


def check_environment(env):
    if not os.path.exists(str(env / "bin" / "python")):
        gone = "its Python is gone" if env.exists() else "none yet"
        return NOTE, gone, "`make env` builds it; so do `make report` and `make test`"
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = {_same(line) for line in lines if "==" in line and ";" not in line}
    have = {_same("==".join(f.name[:-10].split("-")[:2])) for f in env.glob("lib/python3*/site-packages/*.dist-info")}
    absent, made = sorted(pins - have), env / ".drgstudy-installed"
    if absent:
        more = ", ".join(absent[:3]) + (" …" if len(absent) > 3 else "")
        return NOTE, f"{len(absent)} of {len(pins)} pinned packages are not in it as pinned: {more}", "`make env`"
    latest = max((ROOT / name).stat().st_mtime for name in ("requirements.lock", "pyproject.toml"))
    if not made.exists() or made.stat().st_mtime < latest:
        return NOTE, f"all {len(pins)} pinned packages, but older than what pins them", "`make env`"
    return OK, f"complete and up to date: {len(pins)} pinned packages", ""


def _same(pin: str) -> str:
    name, _, version = pin.partition("==")
    version = version.strip().partition("+")[0]  # torch for CPUs alone is 2.13.0+cpu
    return re.sub(r"[-_.]+", "-", name).lower() + "==" + version


def check_disk(env):
    free, need = shutil.disk_usage(str(ROOT)).free / 1e9, 3 if env.exists() else 10
    return (OK if free >= need else NOTE), f"{free:.0f} GB free", f"free {need} GB or more" if free < need else ""


def check_memory(env):
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # of a container
        if os.path.exists(limit):
            sizes += [int(number) for number in re.findall(r"^\d+", Path(limit).read_text())]
    size = min(sizes) / 1e9
    enough = size > 7.5
    return (OK if enough else NOTE), f"{size:.0f} GB", "" if enough else "8 GB are needed; give the container more"


def check_processor(env):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    features = said("sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features")
    if os.path.exists("/proc/cpuinfo"):
        features = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    words, fast = set(features.lower().split()), {"AMX": "amx_bf16", "AVX-512": "avx512f", "AVX2": "avx2"}
    names = [name for name, word in fast.items() if word in words]
    arm = platform.machine().lower() in ("arm64", "aarch64")
    found = f"{cores} cores, {platform.machine()}, {', '.join(names) or ('Arm' if arm else 'without AVX2')}"
    if "AMX" in names:
        return OK, found, ""
    return (
        (OK if names or arm else NOTE),
        found,
        "without AMX a report takes several times as long as docs/running.md says",
    )


def check_gpu(env):
    cards = said("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines()
    return OK, "; ".join(cards) or "none that CUDA can use", "" if cards else "only LLaMA-7B and 13B need one"


def check_chromium(env):
    found = [name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)]
    return (OK, found[0], "") if found else (NOTE, "none", "only the tests of pages need it, and skip without")


def check_places(env):
    temporary = tempfile.gettempdir()
    places = {"the checkout": ROOT, "its data/": ROOT / "data", "its reports/": ROOT / "reports"}
    closed = [name for name, place in places.items() if place.exists() and not os.access(str(place), os.W_OK)]
    home = os.path.expanduser("~")
    if closed:
        return MISSING, f"{', '.join(closed)}: not writable", "copy the checkout to where you may write"
    if " " in str(ROOT):
        return NOTE, "the checkout's path has blanks", "make can't follow them: move it to a path without"
    if len(temporary) > 78:  # sockets' paths have 104 characters at most on macOS, 108 on Linux
        return NOTE, f"TMPDIR has {len(temporary)} characters", "sockets go there: TMPDIR=/tmp make …"
    if not os.access(home, os.W_OK):
        return NOTE, "the home folder is not writable", "set HOME to a folder where you may write, if a step complains"
    return OK, f"checkout, home and TMPDIR ({len(temporary)} characters) are writable", ""


def check_mimic(env):
    """A line for each folder of MIMIC that a parameter file names."""
    lines = []
    for file in sorted((ROOT / "notebooks" / "params").glob("*/[02][01]-*.yaml")):
        for key, value in re.findall(r"^(mimic3?|mimic_note):[ \t]*(.*)", file.read_text(encoding="utf-8"), re.M):
            value = re.sub(r"\s+#.*", "", value).strip("\"' ")
            where = f"{key} of {file.parent.name}/{file.name}"
            folder = ROOT / "notebooks" / Path(value).expanduser()
            remedy = f"name your folder in notebooks/params/{file.parent.name}/{file.name}; the demo needs none"
            if value and not folder.is_dir():
                lines.append((NOTE, f"{where}: there is no such folder", remedy))
            elif value:
                absent = "" if _has(folder, _TABLES[key]) else f"no {_TABLES[key]}.csv[.gz]"
                lines.append((NOTE if absent else OK, f"{where}: {absent or 'found'}", remedy if absent else ""))
    return lines


def _has(folder: Path, table: str) -> bool:
    for place, folders, files in os.walk(str(folder)):
        if {f"{table}.csv", f"{table}.csv.gz"} & set(files):
            return True
        if len(Path(place).parts) - len(folder.parts) >= 5:
            folders.clear()
    return False


CHECKS = {
    "Python": check_python, "venv": check_venv, "pip": check_pip, "programs": check_programs,
    "environment": check_environment, "disk": check_disk, "memory": check_memory, "processor": check_processor,
    "GPU": check_gpu, "Chromium": check_chromium, "places": check_places, "MIMIC": check_mimic,
}  # fmt: skip


def examine(env: Path) -> "list[tuple[str, str, str, str]]":
    """All checks at once: state, what, what was found and the remedy. One that does not answer in time is a note."""
    found = {}

    def run(name, check):
        try:
            lines = check(env)
        except Exception as error:  # whatever is odd about a machine, the other lines are shown
            lines = (NOTE, f"could not be found out ({type(error).__name__})", "")
        found[name] = lines if isinstance(lines, list) else [lines]

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in CHECKS.items()]
    ends = time.monotonic() + SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, ends - time.monotonic()))
    late = [(NOTE, f"no answer within {SECONDS:.0f} seconds", "")]
    return [(state, name, what, remedy) for name in CHECKS for state, what, remedy in found.get(name, late)]


def main(env: str) -> int:
    lines = examine(ROOT / env)
    for state, name, what, remedy in lines:
        print(f"{state:8}{name:13}{what}" + (f"; {remedy}" if remedy else ""))
    return int(any(state == MISSING for state, *_ in lines))


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a check that hangs is not waited for
