"""Figures of an earlier report that need not be drawn again, as nothing that they show has changed.

Drawing takes most of a report's time. The page keeps the key of what its figures were drawn from:
the results, and the code and the library that drew them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from harness.analysis.findings import Findings
from harness.report.figures import FORMATS, Drawing

_KEY = re.compile(r'<meta name="figures" content="(\w+)">')
_FIGURE = re.compile(r'<figure id="([^"]+)">(.*?)</figure>', re.DOTALL)
_IMAGE = re.compile(r'src="data:image/svg\+xml;base64,([^"]+)"')


def figures_key(findings: Findings) -> str:
    """SHA-256 of all that the figures of a grid are drawn from."""
    digest = hashlib.sha256(version("matplotlib").encode())
    for package in ("harness.analysis", "harness.report"):
        sources = (path for path in files(package).iterdir() if path.name.endswith(".py"))
        for path in sorted(sources, key=lambda path: path.name):
            digest.update(path.read_bytes())
    data = findings.data
    digest.update(repr((data.tables, findings.measured.layout, data.tunings)).encode())
    gates = [frame for found in findings.gates for frame in (found.last, found.means)]
    for frame in (data.scores, data.cells, data.losses, *gates):
        digest.update(frame.to_csv().encode())
    return digest.hexdigest()


def earlier_images(page: Path, key: str, drawings: Sequence[Drawing]) -> dict[str, list[str]]:
    """Images on an earlier page by drawing, of those that are unchanged and have all their files.

    The page need not be there; the key is that of the figures as they are now.
    """
    text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    found = _KEY.search(text)
    if found is None or found[1] != key:
        return {}
    names = {drawing.name: len(drawing.panels) for drawing in drawings}
    return {
        name: images
        for name, body in _FIGURE.findall(text)
        if len(images := _IMAGE.findall(body)) == names.get(name)
        and all((page.parent / f"{name}.{suffix}").is_file() for suffix in FORMATS)
    }
