"""Whether training rows go into their template, and have the pictures that methods take."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from harness.data.instructions import tokenize
from harness.data.places import is_here
from harness.data.scienceqa import SCIENCEQA, SCIENCEQA_ALE
from harness.data.sets import inspect_data, read_instructions
from harness.data.spec import DataSpec
from harness.data.templates import (
    ALPACA,
    CHAT,
    PAIRS,
    chosen_chat_template,
    date_note,
    fault_line,
    row_template,
)
from harness.data.turns import RowFault
from harness.errors import DataError, ModelError
from harness.evaluation.tasks import TaskSpec
from harness.grid.inputs import DataInput
from harness.grid.names import data_place
from harness.models.checkpoint import ModelSpec, local_folder
from harness.models.plain_tokenizer import PlainTokenizer, chat_templates
from harness.models.tokenizer_files import FILE

CHECKED_ROWS = 100_000
"""So many are put into the template before a run; training looks at all of them."""
TOKENIZED_ROWS = 50
"""Of these so many are tokenised too: what a template does to one row it does to most."""


def check_texts(
    data: DataSpec, place: str, name: str, model: ModelSpec, data_root: Path | None
) -> list[str]:
    """Looks whether a model's tokenizer can make texts of a set, as far as both are here.

    Rows in Alpaca's template or ScienceQA's, and prompts and texts as they are, always go in.

    Args:
        place: what the grid file calls the set.
        name: of the model.

    Returns:
        What a reader must know of them.

    Raises:
        ZbenchError: there is no chat template, or a row does not go into it.
    """
    folder = local_folder(model, data_root)
    if folder is None or not (folder / FILE).is_file() or data.template in PAIRS[1:]:
        return []  # of the hub: told when it is loaded; without the file: told already
    here = is_here(data, data_root)
    facts = inspect_data(data, data_root) if here else None
    form = facts.report.form if facts and facts.report else ""
    wants_chat = data.template == CHAT or (data.template is None and form == "messages")
    if not wants_chat and data.template is None and data.system is None:
        return []
    source = data.template or ""
    if wants_chat:
        source = chosen_chat_template(chat_templates(folder), f"models.{name}: {folder}")
    if facts is not None:
        fault = _first_fault(data, folder, source, data_root, str(facts.sha256))
        if fault is not None:
            said = fault_line(fault[0], fault[1], place + data.numbering)
            raise DataError(f"{said} (models.{name})")
    note = date_note(source) if wants_chat else None
    return [] if note is None else [f"{name}: {note}"]


def check_chats(task: TaskSpec, name: str, model: ModelSpec, data_root: Path | None) -> list[str]:
    """Refuses a model without a chat template for a benchmark that is asked in one, where it is
    here.

    Returns:
        What a reader must know of the template.

    Raises:
        ModelError: it has none.
    """
    folder = local_folder(model, data_root) if task.apply_chat_template else None
    if folder is None or not (folder / FILE).is_file():
        return []
    if (found := chat_templates(folder)) is None:
        raise ModelError(
            f"models.{name}: {folder}: its tokenizer has no chat template, and {task.name} sets "
            "apply_chat_template; take a chat model, or remove that"
        )
    note = date_note(chosen_chat_template(found, f"models.{name}: {folder}"))
    return [] if note is None else [f"{name}: {note}"]


FORM_OF = {ALPACA: "instruction", SCIENCEQA: "scienceqa", SCIENCEQA_ALE: "scienceqa"}
"""The form of the rows that a template is for."""


def check_rows(data: DataInput, data_root: Path | None) -> list[str]:
    """Looks whether local rows are of the form of their template, and have the pictures that the
    methods take.

    Returns:
        What a reader must know of pictures that nothing looks at, or that are not there.

    Raises:
        DataError: they are of another form.
    """
    report = inspect_data(data.spec, data_root).report if is_here(data.spec, data_root) else None
    if report is None or not report.form:
        return []
    place, template = data_place(data.name), str(data.spec.template)
    if (due := FORM_OF.get(template, report.form)) != report.form:
        raise DataError(
            f"{place}: template {template} is for rows of the form {due}, and these are of the "
            f"form {report.form}; leave `template` out"
        )
    if report.pictures and not data.takes_pictures:
        return [
            f"{place}: {report.pictures:,} of {report.rows:,} rows have a picture, and no method "
            "has an `image_encoder`: the texts alone are trained on"
        ]
    if data.takes_pictures and not report.pictures:
        columns = data.spec.columns
        mapped = "" if columns is None or columns.image else "; map it by `columns: {image: ...}`"
        return [f"{place}: a method has an `image_encoder`, and no row has a picture{mapped}"]
    return []


@functools.lru_cache(maxsize=64)
def _first_fault(
    data: DataSpec, folder: Path, source: str, data_root: Path | None, _sha256: str
) -> tuple[int, RowFault] | None:
    """The first row that does not go in, and why."""
    rows = read_instructions(data, data_root=data_root).rows[:CHECKED_ROWS]
    tokenizer: Any = PlainTokenizer(folder)
    if source:
        template = row_template(data.template or CHAT, tokenizer, data.system)
        for number, row in enumerate(rows):
            try:
                template.check(row)
            except RowFault as fault:
                return number, fault
    for number in range(0, len(rows), max(1, len(rows) // TOKENIZED_ROWS)):
        try:
            tokenize([rows[number]], tokenizer, 1 << 30, template=data.template, system=data.system)
        except DataError as fault:
            return number, RowFault(str(fault).partition("(the first is 0): ")[2])
    return None
