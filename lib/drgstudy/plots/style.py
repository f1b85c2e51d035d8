"""Names, colours, markers and order, the same in every figure; brightness and shape differ too, so grey is enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.font_manager import fontManager

from drgstudy.drgs import SYSTEMS

PALETTE = sns.color_palette("colorblind").as_hex()
MODELS = {  # run: name, colour, marker
    "llama": ("DRG-LLaMA", PALETTE[0], "o"),
    "llama-two": ("DRG-LLaMA, two labels", PALETTE[5], "v"),
    "tree": ("DRG-LLaMA, tree", "#5e3c99", "*"),
    "titles": ("Titles alone", "0.6", "p"),
    "probe": ("Frozen probe", PALETTE[1], "s"),
    "bert": ("BERT", PALETTE[2], "^"),
    "caml": ("CAML", PALETTE[3], "D"),
    "tfidf": ("TF-IDF + LR", PALETTE[4], "P"),
    "lstm": ("LSTM", "0.35", "h"),
    "clinicalbert": ("ClinicalBERT", PALETTE[9], "<"),
}
PUBLISHED = {"DRG-LLaMA-7B": "llama", "ClinicalBERT": "bert", "CAML": "caml"}
"""DRG-LLaMA's published models, and the run in whose style each is drawn."""
SYSTEM_STYLES = {  # DRG system: colour, and style of its markers and lines
    "ms": (PALETTE[0], {"marker": "o", "ls": "-", "mfc": PALETTE[0]}),
    "apr": (PALETTE[3], {"marker": "s", "ls": "--", "mfc": "white"}),
}
ACCURACY_RANGES = ("< 20", "20–40", "40–60", "60–80", "> 80")  # per cent, for Figure 2b
INK, FAINT = "0.15", "0.42"
THEIRS, OURS = "#e9eef6", "#fdf3e1"
"""Backgrounds of published results and of this run's; the report uses them too."""

LINES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), ":")
"""Styles of lines, for figures in which models cross: grey is enough to tell them apart."""
FONTS = Path(__file__).parent / "fonts"
SMALL = 6  # pt: values and remarks; all other words are set in 7

for _file in sorted(FONTS.glob("*.ttf")):
    fontManager.addfont(_file)
fontManager.ttflist.sort(key=lambda font: Path(font.fname).parent != FONTS)  # before another version on the machine
plt.rcdefaults()  # the user's matplotlibrc is ignored
sns.set_theme(
    style="ticks",
    rc={
        "font.family": [
            "Liberation Sans",
            "DejaVu Sans",
        ],  # ships with the project; matplotlib's own has all other signs
        "svg.fonttype": "none",  # text stays text
        "pdf.fonttype": 42,
        "svg.hashsalt": "drgstudy",
        "figure.dpi": 130,
        "savefig.dpi": 300,
        "figure.constrained_layout.h_pad": 0.04,
        "figure.constrained_layout.w_pad": 0.04,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titleweight": "bold",
        "axes.unicode_minus": True,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        **dict.fromkeys(["font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"], 7),
        **dict.fromkeys(["xtick.labelsize", "ytick.labelsize", "figure.titlesize", "legend.title_fontsize"], 7),
        **dict.fromkeys(["axes.linewidth", "patch.linewidth", "xtick.major.width", "ytick.major.width"], 0.6),
        **dict.fromkeys(["xtick.major.size", "ytick.major.size"], 2.5),
        **dict.fromkeys(["axes.labelpad", "axes.titlepad", "xtick.major.pad", "ytick.major.pad"], 3),
    },
)


def style_of(run: str, names: Mapping[str, str] | None = None) -> tuple[str, str, str]:
    """Name, colour and marker of a run; its name is that among `names` (`names.names_of`), if it is there.

    A variant ("llama-64", "caml-ms") is drawn like its model ("llama"), and its name says what varies. A run whose
    model is not in `MODELS` keeps its own name and gets a grey cross.
    """
    model, *variant = run.split("-")
    name, *drawn = MODELS.get(run) or MODELS.get(model) or (run, "0.4", "X")
    if run not in MODELS and model in MODELS:
        name = f"{name} ({', '.join(SYSTEMS.get(word, word) for word in variant)})"
    return (names or {}).get(run, name), *drawn


def in_order(runs: Iterable[str]) -> list[str]:
    """The runs in the order in which they are always shown: that of `MODELS`, then the others by name."""
    return [run for run in MODELS if run in set(runs)] + sorted(set(runs) - set(MODELS))
