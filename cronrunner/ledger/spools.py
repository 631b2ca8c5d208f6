"""Where spools wait: known without what reads and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

SUFFIX: Final = ".spool"


def left_behind(folder: Path) -> Sequence[Path]:
    """Return the spools in a folder, those of live runs included, the oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))
