"""What a cell's process logs is in the cell's folder, whatever becomes of the disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.execution.worker import MaskedText, logging_beside_the_screen

logger = logging.getLogger("harness.somewhere")


def test_what_is_logged_is_appended_and_nothing_stays_set(tmp_path: Path) -> None:
    path, root = tmp_path / "cell" / "log.txt", logging.getLogger()
    before = (root.level, list(root.handlers))
    for text in ("first", "second"):
        with logging_beside_the_screen(path):
            logger.info(text)
    with logging_beside_the_screen(path):
        pass
    assert (root.level, root.handlers) == before
    assert [line.split(": ")[-1] for line in path.read_text().splitlines()] == ["first", "second"]


def test_nothing_is_opened_where_nothing_is_logged(tmp_path: Path) -> None:
    with logging_beside_the_screen(tmp_path / "cell" / "log.txt"):
        pass
    assert list((tmp_path / "cell").iterdir()) == []


def test_a_full_disk_costs_lines_of_the_log_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with logging_beside_the_screen(tmp_path / "log.txt"):
        logger.info("x" * 100_000)
        logger.info("short")  # it stays in the file's buffer, and is written when that is closed
    assert "Traceback" not in capsys.readouterr().err


def test_a_log_that_cannot_be_opened_costs_its_lines_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").mkdir()
    before = list(logging.getLogger().handlers)
    went_on = False
    with logging_beside_the_screen(tmp_path / "log.txt"):
        logger.info("lost")
        went_on = True
    assert went_on
    assert "Traceback" not in capsys.readouterr().err
    assert list((tmp_path / "log.txt").iterdir()) == []
    assert logging.getLogger().handlers == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "cell").write_text("no folder")
    with (
        pytest.raises(StorageError, match="choose another folder"),
        logging_beside_the_screen(tmp_path / "cell" / "log.txt"),
    ):
        pass


SECRET = "http://anna:geheim77@hub/?token=tok88"


def test_no_secret_passes_what_a_worker_prints() -> None:
    reading, writing = os.pipe()
    stream = MaskedText(writing)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger = logging.Logger("worker")
        logger.addHandler(logging.StreamHandler(stream))
        logger.exception("größe %s", SECRET)
    print(SECRET, file=stream)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        text = file.read()
    assert "größe http://***@hub/?token=***" in text
    assert "ValueError" in text
    assert not [secret for secret in ("anna", "geheim77", "tok88") if secret in text]


def test_nor_what_a_cell_of_this_process_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_beside_the_screen(tmp_path / "log.txt"):
        logging.getLogger("x").error("%s", SECRET)
    text = (tmp_path / "log.txt").read_text() + capsys.readouterr().err
    assert "http://***@hub" in text
    assert "geheim77" not in text
