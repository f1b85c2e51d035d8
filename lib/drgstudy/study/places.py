"""Where everything lies: each directory is named here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "data" / "reference"
NOTEBOOKS = ROOT / "notebooks"


@dataclass(frozen=True)
class Paths:
    """Where one study of one profile keeps what it makes.

    Attributes
    ----------
    profile : str
        "demo", a folder of ``notebooks/params``.
    study : str
        The folder of ``data/<profile>`` in which the study keeps its own, "early"; "" if that is ``data/<profile>`` itself.
        Executed notebooks, what is being run, what has failed and the report are the profile's.
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
        """The stays of a DRG system, "ms" or "apr", where a study has a cohort for each."""
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
    def executed(self) -> Path:
        return self.of_profile / "executed"

    @property
    def failed(self) -> Path:
        """Tracebacks of steps that failed: they may quote notes, so they stay here."""
        return self.of_profile / "failed"

    @property
    def running(self) -> Path:
        """One file for each step that is being run, which names the process."""
        return self.of_profile / "running"

    @property
    def report(self) -> Path:
        return ROOT / "reports" / self.profile

    @property
    def tables(self) -> Path:
        return self.report / "tables"

    @property
    def figures(self) -> Path:
        return self.report / "figures"
