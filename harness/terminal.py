"""What zbench prints on: a terminal, a pipe or a log, of any encoding."""

from __future__ import annotations

import codecs
import sys

REPLACED = {
    **dict.fromkeys("–—‐‑−─━╴╶", "-"),
    **dict.fromkeys("│┃|", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╇╈┡┩┢", "+"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”", '"'),
    **{"×": "x", "≈": "~", "…": "...", "·": ".", "•": "*", "±": "+-", "≤": "<=", "≥": ">="},
    **{"⟦": "[[", "⟧": "]]"},
    **{"²": "^2", "³": "^3", "→": "->", "\N{NO-BREAK SPACE}": " "},
}
"""What stands for zbench's own signs where an encoding lacks them; other letters are escaped."""


def print_in_any_encoding() -> None:
    """Makes stdout and stderr replace what their encoding lacks, where they would raise."""
    codecs.register_error("zbench", _replace)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # not that of a test, nor one that is closed
            reconfigure(errors="zbench")


def _replace(fault: UnicodeError) -> tuple[str, int]:
    assert isinstance(fault, UnicodeEncodeError)
    lacking = fault.object[fault.start : fault.end]
    shown = [REPLACED.get(c) or c.encode("unicode_escape").decode("ascii") for c in lacking]
    return "".join(shown), fault.end
