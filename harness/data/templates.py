"""A training row as the model sees it: which template it is put into, and what is in the loss.

    form         without `template`          `chat`                          a Jinja file
    instruction  Alpaca's two-form template  user: instruction and input     columns, messages
    prompt       as it is, then completion   user: prompt                    columns, messages
    messages     `chat`                      the turns                       messages
    text         as it is, all in the loss   (no turns: refused)             its column
    scienceqa    ScienceQA's own, QCM-A      user: its prompt                messages

No torch here: planning imports this file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from harness.data.chat import ControlTokens, Rendering, RowTemplate
from harness.data.jinja import DATE_STRING, writes_date
from harness.data.rows import Completion, Conversation, Instruction, Row, ScienceQuestion, Text
from harness.data.scienceqa import SCIENCEQA, SCIENCEQA_ALE, prompt_and_answer
from harness.data.turns import RowFault
from harness.errors import DataError, ModelError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALPACA, CHAT = "alpaca", "chat"
"""Names of templates; any other is one of ScienceQA's, or the text of a Jinja file."""
PAIRS = (None, ALPACA, SCIENCEQA, SCIENCEQA_ALE)
"""Templates, and none, that make a prompt and the response that follows it."""
NAMES = (ALPACA, CHAT, SCIENCEQA, SCIENCEQA_ALE)
"""What a grid may name."""


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered row."""

    text: str
    in_loss: bool


@functools.cache
def _alpaca() -> Mapping[str, str]:
    import yaml

    text = resources.files("harness.data").joinpath("prompts.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["training"])


def format_prompt(instruction: Row) -> str:
    """Alpaca's prompt of a row; the response follows it directly."""
    assert isinstance(instruction, Instruction)
    # Not str.format: a row may hold braces.
    name = "with_input" if instruction.input else "without_input"
    head, rest = _alpaca()[name].split("{instruction}")
    if instruction.input:
        middle, tail = rest.split("{input}")
        rest = middle + instruction.input + tail
    return head + instruction.instruction + rest


def template_of(row: Row, template: str | None) -> str | None:
    """The template that a row is put into; None where it stays as it is."""
    if template is not None:
        return template
    own = {Conversation: CHAT, Instruction: ALPACA, ScienceQuestion: SCIENCEQA}
    return own.get(type(row))


def prompt_and_response(row: Row, template: str | None, system: str | None) -> tuple[str, str]:
    """The two parts of a row in a template of `PAIRS`; the second is in the loss.

    Raises:
        RowFault: the template is not for rows of this form, or has no place for a system text.
    """
    if template == ALPACA and not isinstance(row, Instruction):
        raise RowFault("template alpaca is for rows with an instruction and an output; say `chat`")
    if template in (SCIENCEQA, SCIENCEQA_ALE) and not isinstance(row, ScienceQuestion):
        raise RowFault(
            f"template {template} is for rows with question, choices, answer and hint; leave it out"
        )
    if system is not None:
        raise RowFault("`system` has no place in this template; say `template: chat`")
    if isinstance(row, ScienceQuestion):
        return prompt_and_answer(row, explained=template == SCIENCEQA_ALE)
    if isinstance(row, Instruction):
        return format_prompt(row), row.output
    if isinstance(row, Completion):
        return row.prompt, row.completion
    assert isinstance(row, Text)
    return "", row.text


def row_template(
    template: str, tokenizer: PreTrainedTokenizerBase, system: str | None
) -> RowTemplate:
    """A tokenizer's chat template, or a Jinja file, with what it needs of the tokenizer.

    Raises:
        ModelError: the tokenizer has no chat template.
    """
    tokens = control_tokens(tokenizer)
    if template != CHAT:
        return RowTemplate(template, tokens, system, is_chat=False)
    found = chosen_chat_template(tokenizer.chat_template, str(tokenizer.name_or_path))
    return RowTemplate(found, tokens, system)


def used_chat_template(
    row: Row, template: str | None, tokenizer: PreTrainedTokenizerBase
) -> str | None:
    """The tokenizer's chat template, where a row is put into it.

    Raises:
        ModelError: it has none.
    """
    if template_of(row, template) != CHAT:
        return None
    return chosen_chat_template(tokenizer.chat_template, str(tokenizer.name_or_path))


def date_note(source: str) -> str | None:
    """What a reader must know of a template that writes the date."""
    if not writes_date(source):
        return None
    return f"the chat template writes the date: it is always {DATE_STRING} here"


def chosen_chat_template(found: str | Mapping[str, str] | None, place: str) -> str:
    """The chat template that is used where a tokenizer has one, or several by name.

    Raises:
        ModelError: it has none, or none that is called `default`.
    """
    if not found:
        raise ModelError(
            f"{place}: the tokenizer has no chat template, which `template: chat` (the default of "
            "messages) needs; put a chat_template.jinja beside it, give a Jinja file as "
            "data.template, or take the chat model"
        )
    if isinstance(found, str):
        return found
    if "default" not in found:
        raise ModelError(
            f"{place}: the tokenizer has chat templates by name, and none is `default`; give the "
            f"right one as a file in data.template{did_you_mean('default', found)}"
        )
    return found["default"]


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """The tokens of a tokenizer that a template may write."""
    added = tokenizer.added_tokens_decoder.values()
    named = {key: str(value) for key, value in tokenizer.special_tokens_map.items()
             if not isinstance(value, list)}  # fmt: skip
    special = {token.content for token in added if token.special} | {*tokenizer.all_special_tokens}
    return ControlTokens(named, frozenset(special), frozenset(token.content for token in added))


def render(
    row: Row,
    template: str | None,
    tokenizer: PreTrainedTokenizerBase,
    system: str | None = None,
) -> list[Segment]:
    """A row's text as the model sees it, BOS and EOS included, in pieces in and out of the loss.

    Raises:
        DataError: it cannot be put into the template.
        ModelError: the tokenizer has no chat template.
    """
    name = template_of(row, template)
    try:
        rendering = _rendering(row, name, tokenizer, system)
    except RowFault as fault:
        raise DataError(str(fault)) from fault
    text, spans = rendering.text, list(rendering.spans)
    if opens_with_bos(rendering, name, tokenizer):
        text = str(tokenizer.bos_token) + text
        spans = [(start + len(text) - len(rendering.text), end + len(text) - len(rendering.text))
                 for start, end in spans]  # fmt: skip
    if not rendering.is_closed and spans:
        text += str(tokenizer.eos_token)
        spans[-1] = spans[-1][0], len(text)
    found, place = [], 0
    for start, end in (*spans, (len(text), len(text))):
        found += [Segment(text[place:start], False), Segment(text[start:end], True)]
        place = end
    return [segment for segment in found if segment.text]


def _rendering(
    row: Row, template: str | None, tokenizer: PreTrainedTokenizerBase, system: str | None
) -> Rendering:
    if template not in PAIRS:
        assert template is not None
        return row_template(template, tokenizer, system).rendering(row)
    prompt, response = prompt_and_response(row, template, system)
    span = len(prompt), len(prompt) + len(response)
    return Rendering(prompt + response, (span,), is_closed=False)


def opens_with_bos(
    rendering: Rendering, template: str | None, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether a BOS goes before a text.

    A chat template writes it itself, where it is wanted; a Jinja file may.
    """
    if template == CHAT or tokenizer.bos_token_id is None:
        return False
    return template in PAIRS or not rendering.text.startswith(str(tokenizer.bos_token))


def fault_line(number: int, fault: RowFault, place: str) -> str:
    """A row's fault with its place; the first row is 0."""
    return f"{place}: row {number} (the first is 0): {fault}"
