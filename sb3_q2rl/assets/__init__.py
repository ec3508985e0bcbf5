"""Files shipped with the package: demonstrations and policies, found by name. README.md tells how each was made."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent
