"""The tokenizer of a checkpoint folder: checked by its files alone, and loaded.

The check needs `tokenizers` only, which is light; it does as transformers does when it loads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, plain_message, printable
from harness.models.advice import fault_line, model_error
from harness.models.settings_types import tokenizer_faults
from harness.models.text_ends import (
    TextEnds,
    end_faults,
    ending_note,
    find_text_ends,
    opening_note,
    text_ends,
)
from harness.readers.files import read_text
from harness.readers.json_files import read_json_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
OLD_SETTINGS = "special_tokens_map.json"
NAMED = ("bos_token", "eos_token")
"""Special tokens that are put into texts."""


def check_tokenizer(
    folder: Path, settings: Mapping[str, Any], vocab_size: int
) -> tuple[list[str], list[str]]:
    """The faults of a checkpoint's tokenizer, and what its user must know, one line each.

    Args:
        settings: of config.json.

    Raises:
        ModelError: there is no tokenizer.json, or it is damaged.
        Unreadable: a file cannot be read.
    """
    file = folder / FILE
    tokenizer, text = read_tokenizer(folder)
    config = _tokenizer_settings(folder)
    faults = list(tokenizer_faults(folder, config, text))
    ids: dict[str, int | None] = {}
    for key in NAMED:
        token, ids[key] = _token(config.get(key)), None
        if token or not config.get(key):  # else its type is told
            fault, ids[key] = _named_token(folder, tokenizer, key, token)
            faults += fault
    faults += _unusable_texts(folder, config)
    outside = outside_tokens(tokenizer.get_vocab(with_added_tokens=False), vocab_size)
    added = outside_tokens(_added(tokenizer, special=False), vocab_size)
    if outside or added:
        faults.append(_outside_line(file, outside or added, tokenizer.get_vocab_size(), vocab_size))

    def encode(text: str, special: bool) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=special).ids)

    with reading_tokenizer(file):
        ends = find_text_ends(
            encode, tokenizer.id_to_token, ids["bos_token"], ids["eos_token"], file
        )
    faults += end_faults(ends, vocab_size, file)
    special = outside_tokens(_added(tokenizer, special=True), vocab_size)
    special = [name for name in special if tokenizer.token_to_id(name) not in ids.values()]
    return faults, list(_notes(folder, settings, config, ends, special))


def _notes(
    folder: Path,
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
    ends: TextEnds,
    outside: list[str],
) -> Iterator[str]:
    """Yields what the user of a tokenizer must know."""
    if (note := opening_note(ends, str(settings["model_type"]), _bos_of(settings))) is not None:
        yield note
    named = {"config.json": settings.get("eos_token_id")}
    if (folder / "generation_config.json").is_file():
        found = read_json_object(folder / "generation_config.json")
        named["generation_config.json"] = found.get("eos_token_id")
    if (note := ending_note(ends, named)) is not None:
        yield note
    for key, does, role in (
        ("add_bos_token", ends.opening, "before"),
        ("add_eos_token", ends.closing, "behind"),
    ):
        asked = config.get(key)
        if isinstance(asked, bool) and asked != bool(does):
            yield (
                f"{SETTINGS} says {key}: {str(asked).lower()}, which is not read beside a {FILE}: "
                f"that one puts {'a token' if does else 'nothing'} {role} a text"
            )
    if outside:
        yield (
            f"{len(outside)} special tokens of {FILE} lie outside of the model's vocabulary "
            f"({printable(outside[0])} first): a text that spells one cannot be scored"
        )


_CONFIG_BOS = {"llama": 1, "mistral": 1, "phi3": 1, "gemma2": 2, "gemma3_text": 2, "gpt_neox": 0}
"""What transformers takes for `bos_token_id` where config.json names none."""


def _bos_of(settings: Mapping[str, Any]) -> int | None:
    default = _CONFIG_BOS.get(str(settings["model_type"]))
    found = settings.get("bos_token_id", default)
    return found if isinstance(found, int) else None


def read_tokenizer(folder: Path) -> tuple[Tokenizer, str]:
    """What tokenizer.json describes, without truncation and padding; and its text.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    from tokenizers import Tokenizer

    file = folder / FILE
    if not file.exists() and not file.is_symlink():
        if (folder / "tokenizer.model").is_file():
            raise model_error(folder, "tokenizer.model", "only tokenizer.model is there")
        raise model_error(file, "no tokenizer", "missing")
    text = read_text(file)
    with reading_tokenizer(file):
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer, text


@contextmanager
def reading_tokenizer(file: Path) -> Iterator[None]:
    """Runs a block that reads a tokenizer.

    Raises:
        ModelError: the tokenizers library fails in it.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as fault:  # the tokenizers library raises bare Exception
        raise model_error(file, "tokenizer", f"cannot be read ({plain_message(fault)})") from fault
    except BaseException as fault:  # and a panic of its Rust code, which is no Exception
        if type(fault).__name__ != "PanicException":
            raise
        raise model_error(file, "tokenizer", f"cannot be read ({plain_message(fault)})") from fault


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    """What names the special tokens, as transformers puts it together."""
    found: dict[str, Any] = {}
    if (folder / SETTINGS).exists() or (folder / SETTINGS).is_symlink():
        found = read_json_object(folder / SETTINGS)
    if "added_tokens_decoder" not in found and (folder / OLD_SETTINGS).exists():
        found |= read_json_object(folder / OLD_SETTINGS)
    return found


def named_tokens(folder: Path) -> dict[str, str]:
    """The special tokens that a checkpoint names, such as `eos_token`.

    Raises:
        Unreadable: a file cannot be read.
    """
    settings = _tokenizer_settings(folder)
    found = {key: _token(value) for key, value in settings.items() if key.endswith("_token")}
    return {key: token for key, token in found.items() if token}


def _token(value: Any) -> str | None:
    """The text of a special token, which is stored as a text or as an object with its `content`."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _named_token(
    folder: Path, tokenizer: Tokenizer, key: str, token: str | None
) -> tuple[list[str], int | None]:
    """Why a named special token is none, and its id."""
    file = folder / SETTINGS
    if token is None:
        if key == "bos_token":
            return [], None
        found = "names no eos_token: no text would end (no end-of-sequence token)"
        return [fault_line(file, "no eos", found)], None
    if not token:
        if key == "bos_token":
            return [], None  # told with all others
        return [fault_line(file, "no eos", "its eos_token is an empty text")], None
    number = tokenizer.token_to_id(token)
    if number is None:
        found = (
            f"its {key} {printable(token)[:40]!r} is not in {FILE}: it would be added behind all "
            "other tokens, as one that the model has never seen"
        )
        return [fault_line(file, "unknown token", found)], None
    return [], number


def _unusable_texts(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Other special tokens that are empty texts."""
    empty = [key for key in ("bos_token", "unk_token", "pad_token") if config.get(key) == ""]
    if not empty or config.get("eos_token") == "":
        return []  # one line for all
    return [
        fault_line(folder / SETTINGS, "unknown token", f"its {', '.join(empty)} is an empty text")
    ]


def _added(tokenizer: Tokenizer, *, special: bool) -> dict[str, int]:
    decoder = tokenizer.get_added_tokens_decoder()
    return {token.content: number for number, token in decoder.items() if token.special == special}


def outside_tokens(vocabulary: Mapping[str, int], vocab_size: int) -> list[str]:
    """The tokens whose number is none of the model's, the lowest number first."""
    outside = [(number, name) for name, number in vocabulary.items() if number >= vocab_size]
    return [name for _, name in sorted(outside)]


def _outside_line(file: Path, outside: list[str], count: int, vocab_size: int) -> str:
    found = (
        f"{count} tokens, but the model has {vocab_size}; {printable(outside[0])[:40]!r} is the "
        "first outside"
    )
    return fault_line(file, "token outside", found)


def load_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer that a checkpoint's tokenizer.json describes.

    Raises:
        ModelError: it is missing or damaged, or cannot be trained with and scored with.
    """
    from transformers import PreTrainedTokenizerFast

    with reading_tokenizer(folder / FILE):
        # Not AutoTokenizer: the class that a LLaMA checkpoint names rebuilds parts of the file.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        faults = list(end_faults(text_ends(tokenizer), vocab_size, folder / FILE))
    if faults:
        raise ModelError(faults[0])
    return tokenizer
