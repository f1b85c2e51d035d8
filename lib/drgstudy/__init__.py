"""Small, tested library behind the notebooks: predicting MS-DRGs from clinical text."""

__version__ = "0.1.0"

import sys

# jsonschema, which nbformat imports, would compile a grammar of URLs here, for two seconds in each process; no notebook needs it.
sys.modules.setdefault("rfc3987_syntax", None)
