"""What a grid says of its training data: a set of the hub, or files of one's own."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from harness.data.template_choice import GridTemplate, template_settings
from harness.data.templates import PAIRS
from harness.records.prefetched import is_prefetched
from harness.spec import Fault, Spec, UserPath, is_hub_name, place_of

ALPACA = "tatsu-lab/alpaca"
"""The data set of a grid that says nothing of its data."""
ALPACA_FILE = "alpaca/train.parquet"
"""Where it lies under a data root."""


class ValidationSpec(Spec):
    """Rows that no cell trains on, and the loss on which is measured after every epoch."""

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of all rows, drawn once: before a cell's `fraction` and `seed` choose of the rest, so
    that every cell of the data set has the same validation rows."""
    split: str | None = Field(default=None, pattern=r"^\w+(\.\w+)*$")
    """Or another split of the same set, whole."""
    path: UserPath | None = None
    """Or a file of rows, found as the training data's `path`."""
    sha256: SkipJsonSchema[str | None] = Field(default=None, exclude_if=lambda value: value is None)
    """Of the files that they are read from, once these are found; no grid says it."""

    @field_validator("sha256")
    @classmethod
    def _not_of_a_grid(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if sha256 is not None and info.context is not None:  # which a grid file alone has
            raise ValueError("is found with the files; leave it out")
        return sha256

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        stated = (self.fraction, self.split, self.path)
        if sum(value is not None for value in stated) != 1:
            raise Fault("needs one of `fraction`, `split` or `path`, such as `{fraction: 0.02}`")
        return self

    def identity(self) -> dict[str, Any]:
        """What stands of it in a cell's id: the files' content, else that which is stated."""
        whole = self.model_dump(exclude_none=True)
        return whole if self.sha256 is None else {"sha256": self.sha256}


FORMS = {
    "instruction": ("instruction", "input", "output", "image"),
    "completion": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
    "scienceqa": ("question", "choices", "answer", "hint", "lecture", "solution", "image"),
}
"""The forms of a row, and the columns that each has."""
MAY_LACK = ("input", "lecture", "solution", "image")
"""Those that may be absent."""


def _unset(value: object) -> bool:
    return value is None


class Columns(Spec):
    """Which column stands for which of a form's, where they are called otherwise."""

    instruction: str | None = Field(default=None, exclude_if=_unset)
    input: str | None = Field(default=None, exclude_if=_unset)
    output: str | None = Field(default=None, exclude_if=_unset)
    prompt: str | None = Field(default=None, exclude_if=_unset)
    completion: str | None = Field(default=None, exclude_if=_unset)
    messages: str | None = Field(default=None, exclude_if=_unset)
    text: str | None = Field(default=None, exclude_if=_unset)
    question: str | None = Field(default=None, exclude_if=_unset)
    choices: str | None = Field(default=None, exclude_if=_unset)
    answer: str | None = Field(default=None, exclude_if=_unset)
    hint: str | None = Field(default=None, exclude_if=_unset)
    lecture: str | None = Field(default=None, exclude_if=_unset)
    solution: str | None = Field(default=None, exclude_if=_unset)
    image: str | None = Field(default=None, exclude_if=_unset)
    """Of a picture's bytes. Rows of instructions that are mapped have one only where it is mapped
    too."""

    @property
    def named(self) -> dict[str, str]:
        """The column that stands for each of a form's that is mapped."""
        return {name: column for name, column in self if column is not None}

    @property
    def forms(self) -> list[str]:
        """The forms that they are columns of."""
        return [form for form, columns in FORMS.items() if set(self.named) <= set(columns)]

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        named = self.named
        if not named or not self.forms:
            forms = "; ".join(", ".join(columns) for columns in FORMS.values())
            raise Fault(f"must map the columns of one form ({forms})")
        if len(set(named.values())) < len(named):
            raise Fault("maps one column twice; name another")
        return self


class Where(Spec):
    """What selects rows, beside a condition over their columns."""

    max_characters: Annotated[int, Field(ge=1, le=10**9)]
    """Of all texts of a row together."""


ODD_ROWS = {
    "dropped": "dropped as bad",
    "filled": "kept without a text where one is due",
    "left_out": "left out by `where`",
    "empty": "with an empty response",
}
"""What is counted of rows, as a reader is told of it."""
ROW_SETTINGS = ("subset", "split", "columns", "where", "on_bad_rows")
"""Settings that say which rows a set has, and are part of its identity where they are stated."""


class DataSpec(Spec):
    """The rows that cells train on.

    Without `source` and `path` they are Alpaca's; with `path` alone they are files of one's own,
    which are held to no published version; with both, the file is said to be a copy of `source`.
    """

    source: str | None = ALPACA
    """Hub data set."""
    path: UserPath | None = None
    """File, folder or glob: absolute, beside the grid file, or under the data root. Alpaca's alone
    has one of itself: `alpaca/train.parquet`, read instead of the hub with a data root."""
    subset: str | None = Field(default=None, pattern=r"^[\w.-]{1,96}$", exclude_if=_unset)
    """Configuration of a hub data set; folder of that name in a local one."""
    split: str | None = Field(default=None, pattern=r"^\w+(\.\w+)*$", exclude_if=_unset)
    """`train` where absent, as far as there are splits."""
    columns: Columns | None = Field(default=None, exclude_if=_unset)
    """Which columns to read, where they are not called as a form has them."""
    where: Where | str | None = Field(default=None, exclude_if=_unset)
    """Which rows to take: `max_characters`, or a Jinja condition over their columns."""
    on_bad_rows: Literal["fail", "drop", "keep"] | None = Field(default=None, exclude_if=_unset)
    """What to do with rows that have no text where one is due, or an empty response. Where absent:
    `fail` for the former, `keep` for the latter."""
    revision: str = "main"
    num_rows: Annotated[int, Field(ge=1, le=10**10)] | None = None
    """Stated size, checked when the data is read; lets `plan` count steps without the data."""
    template: GridTemplate = Field(default=None, exclude_if=_unset)
    """`alpaca`, `chat` (the tokenizer's chat template), `scienceqa` or `scienceqa-qcm-ale`, or a
    Jinja text, which a grid gives as a file beside it. Where absent, the one of the rows' form: see
    `harness.data.templates`."""
    system: Annotated[str, Field(min_length=1, max_length=20_000)] | None = Field(
        default=None, exclude_if=_unset
    )
    """The system text of conversations without one."""
    loss: Literal["response", "all"] | None = Field(
        default=None, exclude_if=lambda value: value in (None, "response")
    )
    """What of a row is in the loss: what the model is to write, or `all` of its text, the prompt
    too; part of a cell's id where it is `all`."""
    validation: ValidationSpec | None = Field(default=None, exclude_if=lambda value: value is None)
    """Rows to measure the loss on after every epoch; part of a cell's id where it is stated."""
    _beside: Path | None = PrivateAttr(default=None)
    """The folder of the grid file that states the path."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        raw = dict(raw)
        if raw.get("path") is not None:
            raw.setdefault("source", None)
        if raw.get("source", ALPACA) == ALPACA:
            raw.setdefault("path", ALPACA_FILE)
        return raw

    @field_validator("source")
    @classmethod
    def _name_of_the_hub(cls, source: str | None) -> str | None:
        if source is None or (is_hub_name(source) and not source.endswith(_FILE_ENDINGS)):
            return source
        raise ValueError(
            "must be a data set of the hub, as owner/name; a file of your own is `path`"
        )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.source is None and self.path is None:
            raise Fault("needs `source`, a data set of the hub, or `path`, a file of your own")
        return self

    @model_validator(mode="after")
    def _system_has_a_place(self) -> Self:
        if self.system is not None and self.template in PAIRS[1:]:
            raise Fault(f"system has no place in template {self.template}; say `template: chat`")
        return self

    @property
    def text_settings(self) -> dict[str, str]:
        """What is stated of the text that a row becomes, for its identity: content, no paths."""
        found = template_settings(self.template, self.system)
        return found | {"loss": "all"} if self.all_in_loss else found

    @property
    def all_in_loss(self) -> bool:
        """Whether the prompt is in the loss too."""
        return self.loss == "all"

    @field_validator("where", mode="before")
    @classmethod
    def _where(cls, where: Any) -> Any:
        if isinstance(where, str):
            from harness.data.conditions import Condition

            Condition(where)
        return Where.model_validate(where) if isinstance(where, Mapping) else where

    @property
    def row_settings(self) -> dict[str, Any]:
        """What is stated of which rows it has, for its identity, without what is so by default."""
        names = set(ROW_SETTINGS) - ({"on_bad_rows"} if self.on_bad_rows == "fail" else set())
        names -= {"split"} if self.split == "train" else set()
        return self.model_dump(mode="json", include=names, exclude_none=True)

    @property
    def numbering(self) -> str:
        """What a fault says of the rows that it numbers, where they are not all of the file's."""
        chosen = self.where is not None or self.on_bad_rows == "drop"
        return " (rows that are left out or dropped are not counted)" if chosen else ""

    @property
    def stated(self) -> dict[str, Any]:
        """All that is stated of its rows and of their text, for a cell's id.

        Which of one's own files are read, by `subset` and `split`, their content says.
        """
        files = {"subset", "split"} if self.source is None else set()
        rows = {name: value for name, value in self.row_settings.items() if name not in files}
        held_out = {} if self.validation is None else {"validation": self.validation.identity()}
        return rows | held_out | self.text_settings

    @property
    def published(self) -> str | None:
        """The hub's set that it is, whole and unchanged; None where it is not."""
        return None if self.row_settings else self.source

    @property
    def hub_name(self) -> str | None:
        """What names the rows of a set of the hub; None of files of one's own."""
        if self.source is None:
            return None
        settings = self.row_settings
        return f"{self.source}@{self.revision}" + (f" {json.dumps(settings)}" if settings else "")

    def beside(self, folder: Path) -> Self:
        """The same, of a grid file in this folder, which its path may be relative to."""
        copied = self.model_copy()
        copied._beside = folder
        return copied

    @property
    def grid_folder(self) -> Path | None:
        """The folder of the grid file that states it, which a record of it does not hold."""
        return self._beside


_FILE_ENDINGS = (".parquet", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".arrow", ".zip", ".gz")


def data_file(spec: DataSpec, data_root: Path | None) -> Path | None:
    """The file, folder or glob that a data set is read from.

    That is the one beside the grid file, where there is one, else the one under the data root. None
    where the hub is read, or its copy in a prefetched data root, or no folder is given.
    """
    beside, under = data_places(spec, data_root)
    if beside is not None and is_there(beside):
        return beside
    in_hub = spec.source is not None and is_prefetched(data_root)
    return None if in_hub and under is not None and not is_there(under) else under


def data_places(spec: DataSpec, data_root: Path | None) -> tuple[Path | None, Path | None]:
    """Where a relative path may mean: beside the grid file, and under the data root."""
    under = place_of(spec.path, data_root)
    if spec.path is None or spec._beside is None or Path(spec.path).is_absolute():
        return None, under
    return spec._beside / spec.path, under


def is_glob(path: Path) -> bool:
    """Whether a path stands for all files that match it."""
    return glob.has_magic(str(path)) and not path.exists()


def is_there(path: Path) -> bool:
    """Whether there is a file or folder, or one that matches."""
    return path.exists() or (is_glob(path) and bool(glob.glob(str(path), recursive=True)))
