"""Instructions as a cell's model is asked them: in the template of its training data.

A prompt is made by tokenising a training row up to its response, so that it has the same tokens as
in training: BOS, the template, a system text. What ends an answer is what ended the responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.answers.store import Entry
from harness.data.instructions import tokenize
from harness.data.jinja import names_in
from harness.data.places import is_here
from harness.data.rows import Completion, Conversation, Instruction, Row, Turn
from harness.data.scienceqa import SCIENCEQA
from harness.data.sets import read_instructions
from harness.data.spec import ALPACA as ALPACA_SET
from harness.data.spec import DataSpec
from harness.data.template_choice import jinja_sha256
from harness.data.templates import ALPACA, CHAT, NAMES, template_of
from harness.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNBOUNDED = 1 << 30
"""Tokens at which nothing is cut: what the model has room for is known where it generates."""
ANSWER = "x"
"""Stands for the response where a template decides what goes before one."""
PLAIN = "none"
"""In the place of a template's name: the instruction as it is."""


@dataclass(frozen=True)
class PromptForm:
    """What an instruction is put into."""

    template: str | None
    """`alpaca`, `chat`, or a Jinja text; None for the instruction as it is."""
    system: str | None = None

    @property
    def name(self) -> str:
        """For a reader: a Jinja text by the beginning of its hash."""
        if self.template is None or self.template in NAMES:
            return self.template or PLAIN
        return f"jinja {jinja_sha256(self.template)[:8]}"

    @property
    def identity(self) -> dict[str, str | None]:
        """What answers to other prompts would differ in."""
        named = self.template is None or self.template in NAMES
        template = self.name if named else jinja_sha256(str(self.template))
        return {"template": template, "system": self.system}


def prompt_form(data: DataSpec, recorded: str | None, data_root: Path | None) -> PromptForm:
    """What a training set puts its rows into.

    Args:
        data: the set.
        recorded: the template's name as a training on it has recorded it, where one has.
        data_root: what the set's path is relative to; it is read where nothing else tells the form
            of its rows.

    Raises:
        ZbenchError: it cannot be read, or its rows have no place for an instruction.
    """
    template = data.template
    if template is None and recorded in NAMES:
        template = recorded
    elif template is None and recorded != PLAIN:
        template = _default_template(data, data_root)
    _row(Entry("", "a"), template)
    return PromptForm(template, data.system)


def _default_template(data: DataSpec, data_root: Path | None) -> str | None:
    """The template of rows for which the set states none."""
    forms = data.columns.forms if data.columns is not None else []
    if not forms and data.source == ALPACA_SET:
        forms = ["instruction"]
    if len(forms) == 1:
        return {"instruction": ALPACA, "messages": CHAT, "scienceqa": SCIENCEQA}.get(forms[0])
    if not is_here(data, data_root):
        raise DataError(
            f"data: {data.source or data.path} is not here, and nothing else tells what its rows "
            "are put into; give --data-root, or state `template` in the grid"
        )
    return template_of(read_instructions(data, data_root=data_root).rows[0], None)


def _row(entry: Entry, template: str | None) -> Row:
    """An instruction as a training row.

    Raises:
        DataError: the template has no place for it.
    """
    if template == ALPACA:
        return Instruction(entry.instruction, entry.input, "")
    if template is None:
        return Completion(entry.text, "")
    if template == CHAT:
        return Conversation((Turn("user", entry.text), Turn("assistant", ANSWER)))
    if template in NAMES:
        raise DataError(f"its template ({template}) takes questions with options, no instructions")
    names = names_in(template)
    if "instruction" in names:
        return Instruction(entry.instruction, entry.input, ANSWER)
    if "prompt" in names or "messages" in names:
        return Completion(entry.text, ANSWER)
    raise DataError(
        f"its template ({PromptForm(template).name}) has no place for an instruction: it names "
        f"{', '.join(sorted(names)) or 'nothing'}, and none of instruction, prompt and messages"
    )


@dataclass(frozen=True)
class Asked:
    """Prompts as tokens."""

    prompts: tuple[tuple[int, ...], ...]
    end_tokens: frozenset[int]
    """Any of them ends an answer, as it ended the responses in training."""


def ask(
    entries: Sequence[Entry], form: PromptForm, tokenizer: PreTrainedTokenizerBase, place: str
) -> Asked:
    """The prompts of entries; `place` is what a fault calls the set.

    Raises:
        ZbenchError: the tokenizer has no EOS or no chat template, or the template refuses an entry.
    """
    rows = [_row(entry, form.template) for entry in entries]
    examples = tokenize(
        rows, tokenizer, UNBOUNDED, template=form.template, system=form.system, place=place
    )
    prompts = tuple(one.token_ids[: one.num_prompt_tokens] for one in examples)
    return Asked(prompts, frozenset(one.token_ids[-1] for one in examples))
