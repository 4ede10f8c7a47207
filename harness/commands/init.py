"""`zbench init`: a first grid file, of what flags say and of answers where there is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import typer

from harness.data.spec import ALPACA
from harness.errors import UsageError, ZbenchError
from harness.prepare.first_grid import (
    BENCHMARKS_TO_BEGIN_WITH,
    FirstGrid,
    check_answers,
    check_new,
    choose_data,
    choose_model,
    default_methods,
    shipped_models,
    write_first_grid,
)

Value = TypeVar("Value")


def init_command(
    file: Path,
    *,
    model: str | None,
    data: str | None,
    methods: str | None,
    benchmarks: str | None,
    fractions: str | None,
    seeds: str | None,
    yes: bool,
) -> int:
    """Writes a first grid."""
    check_new(file)
    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    folder = file.parent

    def answer(
        given: str | None, question: str, default: str | None, read: Callable[[str], Value]
    ) -> Value:
        """What a flag says; else what the user answers, asked again while it is wrong; else the
        default."""
        while True:
            text = given
            if text is None and asks:
                text = str(typer.prompt(question, default=default)).strip()
            elif text is None:
                text = default or ""
            try:
                return read(text)
            except ZbenchError as fault:
                if given is not None or not asks:
                    raise
                print(f"  {fault}", file=sys.stderr)

    if model is None and not asks:
        names = ", ".join(shipped_models())
        raise UsageError(
            f"--model is missing; give a checkpoint folder, owner/name of the hub, or {names}"
        )
    chosen = answer(
        model, "Model (a checkpoint folder, owner/name of the hub, or a shipped one)", None,
        lambda text: choose_model(text, folder),
    )  # fmt: skip
    rows = answer(
        data, "Training data (a file of yours, or owner/name of the hub)", ALPACA,
        lambda text: choose_data(text, folder),
    )  # fmt: skip
    if asks:
        print(f"  {rows.found}")

    def ask(
        so_far: FirstGrid, key: str, given: str | None, question: str, default: str,
        read: Callable[[str], object],
    ) -> FirstGrid:  # fmt: skip
        """The answers with one more, which make a grid without faults where one is asked."""

        def read_checked(text: str) -> FirstGrid:
            more = replace(so_far, **{key: read(text)})  # type: ignore[arg-type]  # by its key
            if asks:
                check_answers(file, more)
            return more

        return answer(given, question, default, read_checked)

    methods_of, tasks = default_methods(chosen.shape), BENCHMARKS_TO_BEGIN_WITH
    answers = FirstGrid(chosen, rows, methods_of, tasks)
    for key, given, question, default, read in (
        ("methods", methods, "Methods", ",".join(methods_of), _words("--methods")),
        ("benchmarks", benchmarks, "Benchmarks", ",".join(tasks), _words("--benchmarks")),
        ("fractions", fractions, "Fractions of the data", "1.0", _numbers("--fractions", float)),
        ("seeds", seeds, "Seeds", "0", _numbers("--seeds", int)),
    ):
        answers = ask(answers, key, given, question, default, read)
    written = write_first_grid(file, answers)
    print(f"wrote {' and '.join(map(str, written))}; {rows.found}")
    print(f"next: zbench plan {file}")
    return 0


def _words(option: str) -> Callable[[str], Sequence[str]]:
    def read(text: str) -> list[str]:
        found = [word for word in text.replace(",", " ").split() if word]
        if not found:
            raise UsageError(f"{option}: is empty; give names with commas between them")
        return found

    return read


def _numbers(option: str, kind: type[Value]) -> Callable[[str], list[Value]]:
    def read(text: str) -> list[Value]:
        try:
            return [kind(word) for word in _words(option)(text)]  # type: ignore[call-arg]  # of a text
        except ValueError as fault:
            raise UsageError(
                f"{option} {text}: must be numbers with commas between them"
            ) from fault

    return read
