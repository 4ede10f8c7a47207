"""Names: what a grid and its models may be called, and that no two share a file."""

from __future__ import annotations

import pytest

from harness.grid.names import LONGEST_NAME
from tests.grid.test_loader import GRID, faults_of, grid_with

MODEL = grid_with({})["models"]["a"]  # type: ignore[index]  # it is a mapping


def models(*names: str) -> dict[str, object]:
    methods = {"methods": ["base"]}
    return grid_with({"models": dict.fromkeys(names, MODEL), "blocks": [methods]})


@pytest.mark.parametrize(
    "name",
    ["org/model", "a b", "a%b", "a#b", "a?b", "[/x]", "'a'", '"', "模型", "модель", "x<b>y</b>",
     "a\n", "", " ", "..", "-a", "~", "a\x1b[31m", "a\u202eb", "a:b", "a\\b"],
)  # fmt: skip
def test_a_models_name_is_refused_by_name(name: str) -> None:
    (fault,) = faults_of(models(name))
    assert "a model's name has letters (a to z), digits and . _ - = , + [ ], nothing else" in fault
    assert fault.isprintable()
    assert len(fault) < 300


def test_of_a_hub_repositorys_name_it_is_said_where_it_stands() -> None:
    (fault,) = faults_of(models("org/model"))
    assert fault.endswith("(a hub repository's name stands in its `source`)")


def test_a_long_name_is_refused_with_the_limit() -> None:
    (fault,) = faults_of(models("a" * 300))
    assert f"has at most {LONGEST_NAME} characters, not 300" in fault
    assert len(fault) < 300


@pytest.mark.parametrize(("one", "other"), [("a=b", "a-b"), ("A", "a"), ("x+y", "x,y")])
def test_two_models_that_would_share_a_file_are_refused(one: str, other: str) -> None:
    (fault,) = faults_of(models(one, other))
    assert fault == f"g.yaml: models.{other}: would share its files with '{one}'; rename one"


@pytest.mark.parametrize(
    "name", ["..", "../x", "a/b", "", "theory", "Theory", "theory.", "CON", "nul.txt", "a.", "a ",
             "a" * 81, "ü", "a%b", "[x]", "a\nb"]
)  # fmt: skip
def test_a_grids_name_is_a_folders_name_everywhere(name: str) -> None:
    (fault,) = faults_of(grid_with({"name": name}))
    assert fault.startswith("g.yaml: name: ")
    assert len(fault) < 300


@pytest.mark.parametrize("label", ["a b", "[/x]", "x" * 81, "模", "a/b", "a\x1b", ["x"], 3, True])
def test_a_methods_label_is_refused_with_its_place(label: object) -> None:
    (fault,) = faults_of(grid_with({"blocks": [{"methods": [{"method": "lora", "label": label}]}]}))
    assert fault.startswith("g.yaml: blocks[0].methods[0].label: ")
    assert fault.isprintable()
    assert len(fault) < 300


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"blocks": [{"methods": [["lora"]]}]}, "blocks[0].methods[0]"),
        ({"blocks": [{"methods": [{"method": {"a": 1}}]}]}, "blocks[0].methods[0]"),
        ({"blocks": [{"methods": [{"method": "adapter", "adapter": ["x"]}]}]}, "adapter"),
        ({"blocks": [{"methods": "lora"}]}, "blocks[0].methods"),
        ({"blocks": ["lora"]}, "blocks[0]"),
        ({"blocks": {"methods": ["lora"]}}, "blocks"),
        ({"tasks": [{"name": ["arc_easy"]}]}, "tasks[0]"),
        ({"tasks": [["arc_easy"]]}, "tasks[0]"),
        ({"tasks": "arc_easy"}, "tasks"),
        ({"models": ["a"]}, "models"),
        ({"models": {"a": "path"}}, "models.a"),
        ({"models": {}}, "models"),
        ({"methods": ["lora"]}, "methods"),
        ({"methods": {"x": "lora"}}, "methods.x"),
        ({"data": "train.parquet"}, "data"),
        ({"data": {"source": None, "path": ["x"]}}, "data.path"),
        ({"train": ["epochs"]}, "train"),
        ({"title": ["x"]}, "title"),
        ({"title": "x" * 501}, "title"),
        ({"notes": "x"}, "notes"),
        ({"name": 3}, "name"),
    ],
)
def test_a_list_or_mapping_where_a_name_is_due_is_told_with_its_place(
    entry: dict[str, object], place: str
) -> None:
    for fault in faults_of(grid_with(entry)):
        assert place in fault
        assert "Error" not in fault
        assert "Input should" not in fault
        assert len(fault) < 500


@pytest.mark.parametrize("path", ["x\0y", "x" * 300, "~no-such-user/x", "", "a\ud800"])
@pytest.mark.parametrize("key", ["data", "models", "adapter"])
def test_a_path_that_no_file_can_have_is_told_with_its_place(key: str, path: str) -> None:
    changes: dict[str, dict[str, object]] = {
        "data": {"data": {"source": None, "path": path, "num_rows": 200}},
        "models": {"models": {"a": {**MODEL, "path": path}}},  # type: ignore[dict-item]
        "adapter": {"blocks": [{"methods": [{"adapter": path}]}]},
    }
    place = {"data": "data.path", "models": "models.a.path"}.get(key, "methods[0].adapter")
    (fault,) = faults_of(grid_with(changes[key]))
    assert f"{place}: " in fault
    assert fault.isprintable()
    assert len(fault) < 300


def test_the_home_folder_stands_for_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.grid.resolver import resolve_grid

    monkeypatch.setenv("HOME", "/home/me")
    raw = grid_with({"data": {"source": None, "path": "~/d.parquet", "num_rows": 200}})
    raw["models"] = {"a": {**MODEL, "path": "~/m"}}  # type: ignore[dict-item]
    grid = resolve_grid(raw, place="g.yaml", text=GRID)
    assert grid.data.path == "/home/me/d.parquet"
    assert grid.models["a"].path == "/home/me/m"
