"""What the hub says of a repository, before anything of it is fetched: files, sizes, terms."""

from __future__ import annotations

import contextlib
import fnmatch
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import ZbenchError, one_line, plain_message
from harness.models.checkpoint import HUB_FILES
from harness.models.encoder_files import PICKLED, SMALL_FILES, WEIGHTS
from harness.models.weight_files import SINGLE
from harness.prepare.wants import IMAGE_ENCODER, Repository

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
TRIES = 5
FIRST_WAIT_SECONDS = 1.0
"""Before the second try; doubled from one to the next."""
ANSWER_SECONDS = 20.0


class HubFault(ZbenchError):
    """Why something of the hub cannot be had, in one line."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at a commit."""

    name: str
    size: int | None
    """Bytes; None where the hub does not say."""
    sha256: str | None
    """Of a large file's content."""
    blob: str | None
    """Git's name of a small file's content."""


@dataclass(frozen=True)
class Listing:
    """A repository at the commit that a revision means, with the files of it that are read."""

    repository: Repository
    commit: str
    files: tuple[HubFile, ...]
    licence: str | None
    gate: str | None
    """What is known of its gate, in words; None where there is none."""

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where one is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def list_repository(repository: Repository, commit: str | None = None) -> Listing:
    """What the hub has of a repository, at the commit that is given or that its revision means.

    Raises:
        HubFault: there is no such repository or revision, no right to read it, or no answer.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    kind, name = repository.kind, repository.name
    info: Any = asked(
        repository,
        lambda: api.repo_info(
            name,
            repo_type=kind,
            revision=commit or repository.revision,
            files_metadata=True,
            timeout=ANSWER_SECONDS,
        ),
    )
    files = tuple(
        HubFile(
            one.rfilename,
            one.size,
            one.lfs.sha256 if one.lfs is not None else None,
            one.blob_id,
        )
        for one in info.siblings or ()
    )
    gate = _gate(api, repository) if getattr(info, "gated", None) else None
    tags = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    stated = info.card_data.get("license") if info.card_data is not None else None
    licence = ", ".join(map(str, stated)) if isinstance(stated, list) else stated
    return Listing(
        repository,
        str(info.sha),
        _files_read(repository, files),
        one_line(licence or ", ".join(tags)) or None,
        gate,
    )


def _files_read(repository: Repository, files: tuple[HubFile, ...]) -> tuple[HubFile, ...]:
    """The files of a repository that are read.

    Raises:
        HubFault: it has no weights.
    """
    if repository.kind != "model":
        return files
    if repository.used_as != IMAGE_ENCODER:
        return _model_files(repository, files)
    small = tuple(file for file in files if file.name in SMALL_FILES)
    with contextlib.suppress(HubFault):
        weights = _model_files(repository, files)
        return (*small, *(one for one in weights if one.name not in SMALL_FILES and _is_of(one)))
    pickled = tuple(file for file in files if file.name == PICKLED)
    if not pickled:
        raise HubFault(
            f"{repository.title}: has no weights (model*.safetensors or {PICKLED}); name a "
            "repository or revision that has"
        )
    return (*small, *pickled)


def _is_of(file: HubFile) -> bool:
    return any(fnmatch.fnmatchcase(file.name, pattern) for pattern in WEIGHTS)


def _model_files(repository: Repository, files: tuple[HubFile, ...]) -> tuple[HubFile, ...]:
    """The files that a model is loaded from: settings, tokenizer, and one set of weights.

    Raises:
        HubFault: it has no safetensors.
    """
    top = [file for file in files if "/" not in file.name]
    wanted = [f for f in top if any(fnmatch.fnmatchcase(f.name, p) for p in HUB_FILES)]
    if any(file.name == SINGLE for file in wanted):
        parts = [f for f in wanted if f.name.endswith(".safetensors") and f.name != SINGLE]
        wanted = [file for file in wanted if file not in parts]
    if not any(file.name.endswith(".safetensors") for file in wanted):
        raise HubFault(
            f"{repository.title}: has no weights as safetensors (model*.safetensors), which alone "
            "are read; name a repository or revision that has"
        )
    return tuple(wanted)


def _gate(api: HfApi, repository: Repository) -> str:
    """Whether we may pass the gate of a repository.

    Raises:
        HubFault: we may not.
    """
    asked(repository, lambda: api.auth_check(repository.name, repo_type=repository.kind))
    return "gated; your token has access"


def asked(repository: Repository, ask: Callable[[], T]) -> T:
    """The hub's answer, asked for again where it fails in passing.

    Raises:
        HubFault: it refuses, or does not answer.
    """
    wait = FIRST_WAIT_SECONDS
    for attempt in range(1, TRIES + 1):
        try:
            return ask()
        except Exception as fault:  # of the hub's client and its HTTP library, of many kinds
            if attempt == TRIES or not is_passing(fault):
                raise HubFault(explained(repository, fault)) from fault
        time.sleep(wait)
        wait *= 2
    raise AssertionError


def status_of(fault: BaseException) -> int | None:
    """The status of the answer that a fault is about."""
    response = getattr(fault, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def is_passing(fault: BaseException) -> bool:
    """Whether asking again may help: no answer, or a server's error."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    status = status_of(fault)
    if status is not None:
        return status in (408, 429) or status >= 500
    if isinstance(fault, HfHubHTTPError | OfflineModeIsEnabled | ValueError):
        return False
    return isinstance(fault, OSError) or "http" in type(fault).__module__


def explained(repository: Repository, fault: BaseException) -> str:
    """Why something cannot be had, in one line that says what to do."""
    from huggingface_hub import constants, errors, get_token

    place, status = repository.title, status_of(fault)
    folder = "" if repository.kind == "model" else "datasets/"
    page = f"{constants.ENDPOINT}/{folder}{repository.name}"
    signed = "your token has no access" if get_token() else "give a token (HF_TOKEN)"
    if isinstance(fault, errors.GatedRepoError):
        return f"{place}: gated; accept its terms at {page}: {signed}"
    if isinstance(fault, errors.RevisionNotFoundError):
        return f"{place}: the hub has no such revision; correct it in the grid"
    if isinstance(fault, errors.EntryNotFoundError):
        return f"{place}: the hub has a file no more; run the same command again"
    if isinstance(fault, errors.RepositoryNotFoundError):
        token = "your token may not read it" if get_token() else "a private one needs HF_TOKEN"
        return f"{place}: the hub has no such {repository.kind}, or a private one ({token})"
    if isinstance(fault, errors.OfflineModeIsEnabled):
        return f"{place}: the network is switched off (HF_HUB_OFFLINE); unset it"
    if status in (401, 403):
        return f"{place}: the hub refuses ({status}); {signed}, or see to its rights at {page}"
    if status is not None:
        return f"{place}: the hub fails ({status}); run the same command again later"
    said = plain_message(fault)
    return f"{place}: {constants.ENDPOINT} does not answer ({said}); see to the network or proxy"
