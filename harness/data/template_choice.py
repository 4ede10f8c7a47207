"""The template that a grid names for its rows: a known name, or a Jinja file, read as it is named.

What a file holds goes into the grid, not its path: the cells then are what they are on any machine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from harness.data.scienceqa import SCIENCEQA
from harness.data.templates import ALPACA, NAMES
from harness.errors import ZbenchError, did_you_mean
from harness.readers.files import read_text, user_path
from harness.spec import Fault

LONGEST = 200_000
"""Characters of a Jinja text."""


def template_settings(template: str | None, system: str | None) -> dict[str, str]:
    """What is stated of template and system text, without what is so by default.

    A Jinja text is known by its hash.
    """
    found = {}
    if template not in (None, ALPACA, SCIENCEQA):  # each the default where it can be stated
        found["template"] = (
            str(template) if template in NAMES else f"sha256:{jinja_sha256(str(template))}"
        )
    return found if system is None else found | {"system": system}


def jinja_sha256(source: str) -> str:
    """The identity of a Jinja text."""
    return hashlib.sha256(source.encode()).hexdigest()


def _is_jinja(template: str) -> bool:
    return "{{" in template or "{%" in template


def _read(template: str | None, info: ValidationInfo) -> str | None:
    """The template's name, or the Jinja text of its file, or that text as it is given."""
    if template is None or template in NAMES:
        return template
    text = str(template)
    if not _is_jinja(text):
        text = _text_of(text, getattr(info.context, "folder", None) or Path())
    try:
        from harness.data.jinja import names_in

        names_in(text)
    except ZbenchError as fault:
        raise Fault(str(fault)) from fault
    return text


def _text_of(path: str, folder: Path) -> str:
    """The Jinja text of a file beside the grid file."""
    try:
        file = folder / user_path(path)
        if not file.is_file():
            near = did_you_mean(path, NAMES)
            raise Fault(f"neither {' nor '.join(NAMES)}, and no Jinja file {file}{near}")
        text = read_text(file)
    except ZbenchError as fault:
        raise Fault(str(fault)) from fault
    if not _is_jinja(text):
        raise Fault(f"{file} holds no {{{{ }}}}: nothing of a row would be in the text")
    return text


GridTemplate = Annotated[
    Annotated[str, Field(min_length=1, max_length=LONGEST)] | None, AfterValidator(_read)
]
"""A name (`NAMES`), a Jinja text, or a file that holds one, which is read and put in its place."""
