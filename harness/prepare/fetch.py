"""Fetches files of the hub into a cache folder: interrupted downloads continue, hashes are checked.

A file is put in its place once its content is the hub's: by SHA-256 where the hub gives one, else
by git's name of its content. Files are no links, so that the folder can be copied by any tool.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from harness.prepare import listing
from harness.prepare.listing import HubFault, HubFile, Listing, explained, is_passing
from harness.prepare.wants import Repository
from harness.records.files import flush, unwritable
from harness.records.prefetched import HUB_FOLDER, repository_folder

PARTS_FOLDER = ".parts"
"""In the folder: what has come of files that are not whole yet."""
CHUNK = 2**20


class WrongContent(Exception):
    """What came is not the file that the hub lists."""


def place_of_file(folder: Path, found: Listing, file: HubFile) -> Path:
    """Where a file of a repository goes in a prefetched folder.

    Raises:
        HubFault: its name leads out of the folder.
    """
    repository = found.repository
    if PurePosixPath(file.name).is_absolute() or ".." in PurePosixPath(file.name).parts:
        raise HubFault(f"{repository.title}: has a file named '{file.name}'; not fetched")
    place = repository_folder(folder / HUB_FOLDER, repository.kind, repository.name)
    return place / "snapshots" / found.commit / file.name


def is_whole(path: Path, file: HubFile) -> bool:
    """Whether a file is there with the content that the hub lists; it is read whole for that."""
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    if file.sha256 is None and file.blob is None:
        return file.size is not None
    return content_name(path, file) == (file.sha256 or file.blob)


def content_name(path: Path, file: HubFile) -> str:
    """The SHA-256 of a file's content, or git's name of it where the hub gives no SHA-256."""
    with path.open("rb") as opened:
        if file.sha256 is not None:
            return hashlib.file_digest(opened, "sha256").hexdigest()
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch_file(folder: Path, found: Listing, file: HubFile, came: Callable[[int], None]) -> None:
    """Fetches a file into its place, from where an earlier download of it stopped.

    Args:
        came: told of the bytes that came, as they come.

    Raises:
        HubFault: the hub refuses, does not answer, or sends other content twice.
        StorageError: it cannot be written.
    """
    place = place_of_file(folder, found, file)
    # By its content, so that a newer commit with the same file goes on; no two files share a part.
    one = f"{found.repository.kind} {found.repository.name} {file}"
    part = folder / PARTS_FOLDER / hashlib.sha256(one.encode()).hexdigest()
    wait, tries, wrong = listing.FIRST_WAIT_SECONDS, 0, 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            _stream(found.repository, found.commit, file, part, came)
            if not is_whole(part, file):
                part.unlink()
                raise WrongContent
            place.parent.mkdir(parents=True, exist_ok=True)
            flush(part)
            part.replace(place)
            return
        except WrongContent as fault:
            wrong += 1
            if wrong == 2:
                raise HubFault(
                    f"{found.repository.title}: {file.name} came twice with other content than "
                    "the hub lists; something between here and the hub changes it"
                ) from fault
        except Exception as fault:  # of the HTTP library and the hub's client, of many kinds
            if isinstance(fault, OSError) and fault.errno is not None and not _is_network(fault):
                raise unwritable(place, fault) from fault
            if part.exists() and part.stat().st_size > before:
                tries = 0
            tries += 1
            if tries >= listing.TRIES or not is_passing(fault):
                said = explained(found.repository, fault)
                raise HubFault(f"{said} [{file.name}]") from fault
            time.sleep(wait)
            wait = min(2 * wait, 30.0)


def _is_network(fault: OSError) -> bool:
    return isinstance(fault, ConnectionError | TimeoutError)


def _stream(
    repository: Repository, commit: str, file: HubFile, part: Path, came: Callable[[int], None]
) -> None:
    """Appends to a part of a file what it lacks."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    start = part.stat().st_size if part.exists() and file.size is not None else 0
    if file.size is not None and start >= file.size:
        return
    url = hf_hub_url(repository.name, file.name, repo_type=repository.kind, revision=commit)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream(
        "GET", url, headers=headers, timeout=timeout, follow_redirects=True
    ) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        resumed = response.status_code == 206
        with part.open("ab" if resumed else "wb") as opened:
            came(start if resumed else 0)
            for chunk in response.iter_bytes():
                opened.write(chunk)
                came(len(chunk))


def write_revision(folder: Path, found: Listing) -> None:
    """Says in the cache which commit a revision is; only then is the repository found by it.

    Raises:
        StorageError: it cannot be written.
    """
    repository = found.repository
    if repository.revision == found.commit:
        return
    place = repository_folder(folder / HUB_FOLDER, repository.kind, repository.name)
    path = place / "refs" / repository.revision
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(found.commit, encoding="utf-8")
        temporary.replace(path)
    except OSError as fault:
        raise unwritable(path, fault) from fault
