"""What a grid says of its training data: a set of the hub, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from harness.spec import Fault, Spec, UserPath, is_hub_name, place_of

ALPACA = "tatsu-lab/alpaca"
"""The data set of a grid that says nothing of its data."""
ALPACA_FILE = "alpaca/train.parquet"
"""Where it lies under a data root."""


class DataSpec(Spec):
    """The instructions that cells train on, in Stanford Alpaca's form.

    Without `source` and `path` they are Alpaca's; with `path` alone they are a file of one's own,
    which is held to no published version; with both, the file is said to be a copy of `source`.
    """

    source: str | None = ALPACA
    """Hub data set."""
    path: UserPath | None = None
    """Parquet file, absolute or under the data root. Alpaca's alone has one of itself:
    `alpaca/train.parquet`, read instead of the hub where a data root is given."""
    revision: str = "main"
    num_rows: Annotated[int, Field(ge=1, le=10**10)] | None = None
    """Stated size, checked when the data is read; lets `plan` count steps without the data."""

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

    @property
    def hub_name(self) -> str | None:
        """What names the rows of a set of the hub; None of files of one's own."""
        return None if self.source is None else f"{self.source}@{self.revision}"


_FILE_ENDINGS = (".parquet", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".arrow", ".zip", ".gz")


def data_file(spec: DataSpec, data_root: Path | None) -> Path | None:
    """The file that a data set is read from; None where that is the hub, or no folder is given."""
    return place_of(spec.path, data_root)
