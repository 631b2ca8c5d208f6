"""Text that fits where it goes."""

from __future__ import annotations


def shorten(text: str, limit: int) -> str:
    """Cut ``text`` to ``limit`` code points, the last of them ``…``; shorter text stays."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
