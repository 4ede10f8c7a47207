"""Prompts as chats: a tokenizer's chat template, applied as lm-eval's HFLM applies it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from types import SimpleNamespace
from typing import Any

from lm_eval.models.huggingface import HFLM

from harness.data.jinja import DATE_STRING, dated
from harness.data.templates import chosen_chat_template
from harness.errors import EvaluationError

ChatTemplate = Callable[..., str]
"""Renders a list of messages (role, content), with `add_generation_prompt`."""

PROBE = [
    {"role": "system", "content": "a"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
]
"""Two templates that render it alike are taken for the same one."""


def chat_template_of(tokenizer: Any) -> ChatTemplate:
    """A tokenizer's chat template, applied as lm-eval's HFLM does, on the day of the training rows.

    Raises:
        EvaluationError: the tokenizer has none.
    """
    check_chat_template(tokenizer)
    source = chosen_chat_template(tokenizer.chat_template, str(tokenizer.name_or_path))
    own = {"date_string": DATE_STRING, "chat_template": dated(source)}
    holder: Any = SimpleNamespace(tokenizer=tokenizer, chat_template_args=own)

    def render(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(HFLM.apply_chat_template(holder, copy.copy(messages), add_generation_prompt))

    return render


def check_chat_template(tokenizer: Any) -> None:
    """Refuses a tokenizer without a chat template.

    Raises:
        EvaluationError: it has none.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise EvaluationError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: has no chat template, and the grid sets "
            "apply_chat_template: take a chat model, or remove it"
        )


def prompts_key(settings: Mapping[str, Any]) -> Hashable:
    """What tells prompts apart that are made of one task: what lm-eval is told of them."""
    if not settings.get("apply_chat_template"):
        return settings.get("system_instruction")
    template: ChatTemplate = settings["chat_template"]
    # A template may write a system text of its own where a chat has none.
    shown = tuple(template(chat, add_generation_prompt=True) for chat in (PROBE, PROBE[1:]))
    return settings.get("system_instruction"), settings.get("fewshot_as_multiturn"), shown
