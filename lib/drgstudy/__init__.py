"""Small, tested library behind the notebooks: predicting MS-DRGs from clinical text."""

__version__ = "0.1.0"
