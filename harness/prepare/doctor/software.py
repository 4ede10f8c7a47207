"""Versions of Python, of zbench and of what it stands on, against what zbench asks for."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from harness import __version__
from harness.prepare.doctor.finding import Context, Finding

SHOWN = ("torch", "transformers", "peft", "lm-eval", "datasets", "mlflow")


def check_python(context: Context) -> Iterator[Finding]:
    """Python against the range that zbench states."""
    found = platform.python_version()
    try:
        wanted = metadata.metadata("zbench")["Requires-Python"]
    except metadata.PackageNotFoundError:
        said = f"Python {found}; zbench {__version__} runs from a folder that was not installed"
        yield Finding("python", "warning", said, "install it (`pip install .`)")
        return
    if wanted and not SpecifierSet(wanted).contains(found, prereleases=True):
        said = f"Python {found}, and zbench {__version__} needs {wanted}"
        yield Finding("python", "error", said, "make an environment of a Python in that range")
    else:
        yield Finding("python", "ok", f"Python {found}, zbench {__version__}")


def check_packages(context: Context) -> Iterator[Finding]:
    """Installed packages against the ranges that zbench states."""
    try:
        stated = metadata.requires("zbench") or []
    except metadata.PackageNotFoundError:
        return
    wrong, shown = [], []
    for text in stated:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found} is not {wanted.specifier}")
        if wanted.name in SHOWN:
            shown.append(f"{wanted.name} {found}")
    if wrong:
        advice = "install the pinned versions: `pip install -r requirements.lock`"
        yield Finding("packages", "error", "; ".join(wrong), advice)
    else:
        yield Finding("packages", "ok", ", ".join(shown))
