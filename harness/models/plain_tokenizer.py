"""A checkpoint's tokenizer as its files describe it, without transformers: planning reads it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.models.tokenizer_files import (
    FILE,
    named_tokens,
    read_tokenizer,
    reading_tokenizer,
)
from harness.readers.files import read_text
from harness.readers.json_files import read_json_object

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding

CHAT_TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True)
class Encodings:
    """What a call of the tokenizer gives, as transformers' does."""

    encodings: Sequence[Encoding]

    def __getitem__(self, key: str) -> list[list[int]]:
        assert key == "input_ids"
        return [encoding.ids for encoding in self.encodings]


class PlainTokenizer:
    """What of a tokenizer is needed to tokenise rows; named as transformers names it.

    Raises:
        ModelError: there is no tokenizer.json, or it is damaged.
        Unreadable: a file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.name_or_path = str(folder)
        self._backend, _ = read_tokenizer(folder)
        self._file = folder / FILE
        self.special_tokens_map = named_tokens(folder)
        self.chat_template = chat_templates(folder)
        self.added_tokens_decoder: Mapping[int, AddedToken] = (
            self._backend.get_added_tokens_decoder()
        )
        self.all_special_tokens = list(self.special_tokens_map.values())
        self.bos_token, self.bos_token_id = self._named("bos_token")
        self.eos_token, self.eos_token_id = self._named("eos_token")

    def _named(self, key: str) -> tuple[str | None, int | None]:
        token = self.special_tokens_map.get(key)
        return token, None if token is None else self._backend.token_to_id(token)

    def __call__(self, texts: list[str], *, split_special_tokens: bool, **_: Any) -> Encodings:
        self._backend.encode_special_tokens = split_special_tokens
        with reading_tokenizer(self._file):
            return Encodings(self._backend.encode_batch(texts, add_special_tokens=False))

    def decode(self, ids: list[int], **_: Any) -> str:
        """The text of tokens, special ones included."""
        return str(self._backend.decode(ids, skip_special_tokens=False))


def chat_templates(folder: Path) -> str | dict[str, str] | None:
    """A checkpoint's chat template, or its templates by name; None where it has none.

    Raises:
        Unreadable: a file cannot be read.
    """
    found: dict[str, str] = {}
    if (folder / CHAT_TEMPLATE).is_file():
        found["default"] = read_text(folder / CHAT_TEMPLATE)
    for file in sorted((folder / MORE_TEMPLATES).glob("*.jinja")):
        found[file.stem] = read_text(file)
    if not found and (folder / "tokenizer_config.json").is_file():
        stated = read_json_object(folder / "tokenizer_config.json").get("chat_template")
        if isinstance(stated, str):
            return stated
        named = stated if isinstance(stated, list) else []
        found = {str(one.get("name")): str(one.get("template"))
                 for one in named if isinstance(one, Mapping)}  # fmt: skip
    return found["default"] if list(found) == ["default"] else found or None
