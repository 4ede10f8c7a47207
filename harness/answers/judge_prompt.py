"""What a judge is asked of two answers, and how its verdict is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from harness.records.files import sha256_of_json

Choice = Literal["A", "B", "C"]
"""The first answer shown is better, the second, or neither."""
_MARK = re.compile(r"\[\[([ABC])\]\]")
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_UNENDED = re.compile(r"^\s*<think(?:ing)?>", re.IGNORECASE)


@dataclass(frozen=True)
class JudgePrompt:
    """The texts and settings of a request to a judge."""

    system: str
    user: str
    """With the fields `instruction`, `answer_a` and `answer_b`."""
    temperature: float
    max_tokens: int

    @property
    def sha256(self) -> str:
        """The identity of the texts."""
        return sha256_of_json([self.system, self.user])

    @property
    def settings(self) -> str:
        """How the judge answers, in words."""
        return f"temperature {self.temperature:g}, at most {self.max_tokens} tokens"

    def messages(self, instruction: str, first: str, second: str) -> list[dict[str, str]]:
        """The messages that show two answers in this order."""
        asked = self.user.format(instruction=instruction, answer_a=first, answer_b=second)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": asked}]

    def body(self, model: str, instruction: str, first: str, second: str) -> dict[str, Any]:
        """The JSON of a request to `/chat/completions`."""
        return {
            "model": model,
            "messages": self.messages(instruction, first, second),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }


@cache
def judge_prompt() -> JudgePrompt:
    """The prompt that ships: `judge.yaml`."""
    import yaml

    text = resources.files("harness.answers").joinpath("judge.yaml").read_text(encoding="utf-8")
    said = yaml.safe_load(text)
    return JudgePrompt(said["system"], said["user"], **said["settings"])


def choice_of(text: str) -> Choice | None:
    """The verdict in a judge's text; None where it has none, or several that differ.

    What a reasoning model thought before (up to `</think>`) does not count; nor does anything where
    it was cut while it thought.
    """
    said = _THOUGHT.sub("", text)
    found = set() if _UNENDED.match(said) else set(_MARK.findall(said))
    return found.pop() if len(found) == 1 else None
