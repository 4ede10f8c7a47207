"""What a site's scheduler wants to be told: its own file, beside the grid; see docs/clusters.md."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from harness.errors import UsageError
from harness.readers.files import Unreadable, user_path
from harness.readers.yaml_files import parse_yaml, read_yaml_text
from harness.spec import Fault, Spec, describe_faults


class Site(Spec):
    """The keys of a site file. None of them is part of a cell's identity."""

    executor: str | None = None
    """Who places the cells, where the command line does not say so: local, slurm, ray."""
    sbatch: tuple[str, ...] = ()
    """Words of every `sbatch` call, in a list or in one text: `--partition gpu --time 8:00:00`."""
    setup: tuple[str, ...] = ()
    """Lines of the job's script before zbench: `module load cuda`, `source venv/bin/activate`."""
    max_parallel: Annotated[int, Field(ge=1, le=4_000_000)] | None = None
    """Cells of a submission that run at the same time; None for as many as the site allows."""
    warn_seconds: Annotated[int, Field(ge=1, le=65_535)] = 120
    """How long before its time limit a job is told to write a checkpoint."""
    max_requeues: Annotated[int, Field(ge=0, le=1000)] = 5
    """How often a cell is placed anew in a row without having come further."""

    @field_validator("sbatch", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _words(cls, value: object) -> object:
        try:
            return tuple(shlex.split(value)) if isinstance(value, str) else value
        except ValueError as fault:
            raise Fault(f"cannot be split into words ({fault})") from fault

    @field_validator("setup", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _lines(cls, value: object) -> object:
        return tuple(value.splitlines()) if isinstance(value, str) else value


def read_site(path: Path) -> Site:
    """The site of a file.

    Raises:
        UsageError: it cannot be read, or has faults; one line for each.
    """
    try:
        place = user_path(path)
        parsed = parse_yaml(read_yaml_text(place), Path(place.name))
    except Unreadable as fault:
        raise UsageError(f"--cluster {fault}") from fault
    faults = [str(fault) for fault in parsed.faults]
    if not faults and not isinstance(parsed.content, dict):
        faults = [f"{place.name}: is no mapping; its keys are {', '.join(Site.model_fields)}"]
    if not faults:
        try:
            return Site.model_validate(parsed.content)
        except ValidationError as error:
            faults = describe_faults(error, place.name, Site)
    raise UsageError("\n".join(faults))
