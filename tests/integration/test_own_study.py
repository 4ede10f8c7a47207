"""docs/your-own-study.md is so: its files are written, its commands run.

Fragments of it and of the pages that it leads to are resolved as parts of its grid.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from harness.cli import app
from harness.grid.resolver import resolve_grid
from harness.grid.trials import unfold
from harness.methods import METHODS
from tests.fixtures.chat_models import write_chat_model
from tests.fixtures.own_study import CAPITALS_TASK, write_study
from tests.integration.test_end_to_end import PACKAGE, command, environment

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # of all commands, on a busy machine
STUDY = "your-own-study"
PAGES = (
    STUDY,
    "training-data",
    "benchmarks",
    "methods",
    "tables",
    "comparing",
    "statistics",
    "noise",
)


def blocks(page: str) -> list[tuple[str, str]]:
    text = (PACKAGE / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.S | re.M)


BLOCKS = blocks(STUDY)


def files() -> dict[str, str]:
    """Returns the files that the page shows whole, by name."""
    named = (re.match(r"# (\S+\.yaml)\n", text) for kind, text in BLOCKS if kind == "yaml")
    texts = (text for kind, text in BLOCKS if kind == "yaml")
    return {found[1]: text for found, text in zip(named, texts, strict=True) if found}


def fragments() -> list[str]:
    """Returns the parts of a grid that the pages show."""
    found = [text for page in PAGES for kind, text in blocks(page) if kind == "yaml"]
    return [text for text in found if not re.match(r"# \S+\.yaml\n", text)]


def joined(study: dict, part: dict) -> dict:
    """Returns the page's grid with a part of another; what only the one of both has stays."""
    if "blocks" in part:  # other methods, of which nothing is claimed
        study = {key: value for key, value in study.items() if key not in ("claims", "tables")}
    named = any("data" in block for block in part.get("blocks", ()))
    if "data" in part or ("blocks" in part and not named):
        study["data"] = study.pop("datasets")["table"]
        study["blocks"] = [{**block, "data": None} for block in study["blocks"]]
    for key, value in part.items():
        known = study.get(key)
        study[key] = {**known, **value} if isinstance(known, dict) and key != "data" else value
    return study


def commands(page: str) -> list[str]:
    return [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the page has it."""
    study = tmp_path_factory.mktemp("study")
    write_study(study)
    for name, kind in (("tiny-qwen3", "qwen3"), ("tiny-llama3", "llama3")):
        write_chat_model(study / "models" / name, kind)
    for name, text in files().items():
        (study / name).write_text(text, encoding="utf-8")
    (jinja,) = (text for kind, text in blocks("training-data") if kind == "jinja")
    (study / "question.jinja").write_text(jinja, encoding="utf-8")
    return study


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Returns the context in which the folder is the current one, and its package is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder / "my_method"))
        vars(METHODS).pop("_entry_points", None)  # looked up before, by another test
        yield
    vars(METHODS).pop("_entry_points", None)


def zbench(folder: Path, *arguments: str) -> str:
    """Returns what a command prints; all but a run of the grid are called in this process, which
    has imported what they need.
    """
    if arguments[0] != "run-grid":
        printed = io.StringIO()
        with installed(folder), contextlib.redirect_stdout(printed):
            assert not app(list(arguments), standalone_mode=False), printed.getvalue()
        return printed.getvalue()
    variables = environment(folder)
    variables["PYTHONPATH"] += f":{folder / 'my_method'}"
    done = subprocess.run(
        command(*arguments), cwd=folder, env=variables, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def outputs(folder: Path) -> dict[str, str]:
    """What each command of the page printed; each ends well."""
    split = (shlex.split(line, comments=True) for line in commands(STUDY))
    return {shlex.join(words): zbench(folder, *words[1:]) for words in split}


def results(folder: Path) -> Iterator[tuple[str, dict]]:
    for path in sorted(folder.glob("runs/cells/*/result.json")):
        yield path.parent.name.rpartition("--")[0], json.loads(path.read_text())


def test_the_task_that_it_shows_is_the_one_that_is_run() -> None:
    shown = files()["my_tasks/capitals.yaml"]
    assert yaml.safe_load(shown) == yaml.safe_load(CAPITALS_TASK)


def test_every_cell_is_trained_and_scored_on_every_benchmark(
    folder: Path, outputs: dict[str, str]
) -> None:
    found = dict(results(folder))
    assert len(found) == 16
    for label, result in found.items():
        metrics = {f"{score['task']}/{score['metric']}" for score in result["scores"]}
        assert metrics == {
            *("capitals/acc", "capitals/acc_norm", "winogrande/acc"),
            *("gsm8k/exact_match,strict-match", "gsm8k/exact_match,flexible-extract"),
            *("wikitext/word_perplexity", "wikitext/byte_perplexity", "wikitext/bits_per_byte"),
        }, label
        by_metric = {score["metric"]: score for score in result["scores"]}
        assert by_metric["word_perplexity"]["unit"] == "word_perplexity"
        assert by_metric["word_perplexity"]["value"] > 1
        assert by_metric["word_perplexity"]["higher_is_better"] is False
    chats = [result["train"] for label, result in found.items() if "chats" in label]
    assert [len(train["validation_losses"]) for train in chats] == [2, 2]
    assert [train["examples"] for train in chats] == [36, 36]


def test_the_preview_is_the_one_that_the_page_shows(outputs: dict[str, str]) -> None:
    shown = next(text for kind, text in BLOCKS if kind == "text" and text.startswith("Training"))
    (printed,) = (text for line, text in outputs.items() if "preview" in line)
    assert shown.strip() in printed


def test_the_report_has_the_grids_tables_and_claims(folder: Path, outputs: dict[str, str]) -> None:
    (printed,) = (text for line, text in outputs.items() if line.startswith("zbench report"))
    assert "What the adapters know" in printed
    assert "What they forget" in printed
    assert "wikitext ↓" in printed
    assert "the margin of 2 points: " in printed
    tables = [(folder / f"reports/capitals/table{n}.csv").read_text() for n in (1, 2)]
    assert all("tiny-llama3" in table and "oft" in table for table in tables)
    page = (folder / "reports/capitals/index.html").read_text()
    assert "⟦" not in page


def test_every_run_is_in_mlflow(folder: Path, outputs: dict[str, str]) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs/mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'capitals'")
    found = client.search_runs([experiment.experiment_id])
    runs = [run for run in found if "zbench.cell_id" in run.data.tags]
    assert len(runs) == 16
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(any("word_perplexity" in name for name in run.data.metrics) for run in runs)


@pytest.mark.parametrize("text", fragments(), ids=lambda text: text.splitlines()[0][:40])
def test_every_fragment_is_a_part_of_a_grid(folder: Path, text: str) -> None:
    part = yaml.safe_load(text)
    study = part if "name" in part else joined(yaml.safe_load(files()["study.yaml"]), part)
    with installed(folder):
        assert resolve_grid(study, place="study.yaml", folder=folder).blocks


def test_the_comparison_that_holds_tunes_repeats_and_states_its_margin(folder: Path) -> None:
    (part,) = (yaml.safe_load(text) for text in fragments() if "tune:" in text)
    study = joined(yaml.safe_load(files()["study.yaml"]), part)
    with installed(folder):
        grid = resolve_grid(study, place="study.yaml", folder=folder)
        labels = [cell.label for cell in unfold(grid, {}, lambda _: None).cells]
    for method in ("lora", "oft"):
        trials = {label.split("/")[1] for label in labels if f"/{method}[trial-" in label}
        assert len(trials) == 4
        assert any(f"/{method}@table/100%/seed2" in label for label in labels)
    assert any(label.endswith("/repeat1") for label in labels)
    (claim,) = grid.claims
    assert (claim.better, claim.than, claim.margin) == ("oft[tuned]", "lora[tuned]", 2)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_pages_is_one_of_zbench(page: str) -> None:
    known = typer.main.get_command(app).commands
    for line in commands(page):
        for part in re.split(r"&&|;", line):
            name, *arguments = shlex.split(part, comments=True) or ["#"]
            assert name in ("zbench", "cp", "rm", "#")
            if name == "zbench":
                context = known[arguments[0]].make_context(arguments[0], arguments[1:])
                assert not context.args
