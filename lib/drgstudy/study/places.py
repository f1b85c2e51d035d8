"""Where everything lies: each directory is named here and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "data" / "reference"
NOTEBOOKS = ROOT / "notebooks"

_PLACE = re.compile(r"(?:[~/\\]|\.{1,2}[/\\]|[A-Za-z]:[\\/]).*|\S+[/\\]\S*", re.DOTALL)


def without_places(value):
    """A value as readers may see it: of each path or model id in it, the last part, for the rest tells of a machine."""
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    is_place = isinstance(value, str | Path) and _PLACE.fullmatch(str(value))
    return (re.findall(r"[^/\\]+", str(value)) or [""])[-1] if is_place else value


@dataclass(frozen=True)
class Paths:
    """Where one study of one profile keeps what it makes.

    Attributes
    ----------
    profile : str
        A folder of ``notebooks/params``, such as "demo".
    study : str
        The folder below ``data/<profile>`` in which the study keeps its files, such as "early"; "" for
        ``data/<profile>`` itself. All studies of a profile share `executed`, `failed`, `running` and the report.
    """

    profile: str
    study: str = ""

    @property
    def of_profile(self) -> Path:
        return ROOT / "data" / self.profile

    @property
    def data(self) -> Path:
        return self.of_profile / self.study

    @property
    def raw(self) -> Path:
        return self.data / "raw"

    @property
    def source(self) -> Path:
        return self.data / "source.json"

    @property
    def drgs(self) -> Path:
        return self.data / "drgs.parquet"

    @property
    def stays(self) -> Path:
        return self.data / "stays.parquet"

    def cohort(self, system: str) -> Path:
        """The stays of a DRG system, "ms" or "apr", if the study has a cohort for each system."""
        return self.data / f"{system}.parquet"

    @property
    def notes(self) -> Path:
        return self.data / "notes.parquet"

    @property
    def measurements(self) -> Path:
        return self.data / "measurements.npz"

    @property
    def flow(self) -> Path:
        return self.data / "flow.json"

    @property
    def runs(self) -> Path:
        return self.data / "runs"

    @property
    def explained(self) -> Path:
        """What each run said of the words of a text, kept for those who have its released predictions alone."""
        return self.data / "explained"

    @property
    def review(self) -> Path:
        """What people read and fill in. It may hold notes, and what people wrote: `make clean` leaves it alone."""
        return self.data / "review"

    @property
    def executed(self) -> Path:
        return self.of_profile / "executed"

    @property
    def failed(self) -> Path:
        """Tracebacks of steps that failed. They may quote notes, so they stay below ``data``, which git ignores."""
        return self.of_profile / "failed"

    @property
    def running(self) -> Path:
        """Locks: one file for each step that is being run, which names the process."""
        return self.of_profile / "running"

    @property
    def seconds(self) -> Path:
        """How long each step took when it last ran."""
        return self.of_profile / "seconds"

    @property
    def report(self) -> Path:
        return ROOT / "reports" / self.profile

    @property
    def released(self) -> Path:
        return self.report / "released"

    @property
    def tables(self) -> Path:
        return self.report / "tables"

    @property
    def figures(self) -> Path:
        return self.report / "figures"
