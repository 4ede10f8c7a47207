"""Packages with methods: a broken one is named, and stops nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import MethodError, ModelError, printable
from harness.methods import METHODS
from harness.methods.plug_ins import GROUP, Registry
from tests.fixtures.tiny_models import shape

Write = Callable[[str, str, str], None]

GOOD = """
from harness.methods import Method, MethodOptions
METHOD = Method(name="mine", title="Mine", options=MethodOptions, recipe={},
                apply=lambda model, options, seed: model,
                count_parameters=lambda shape, options: 5)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a package: its name, its code, and the text of its entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def written(name: str, code: str, entries: str) -> None:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_bytes(entries.encode("latin-1"))
        (tmp_path / f"module_{name}.py").write_text(code)
        monkeypatch.delitem(__import__("sys").modules, f"module_{name}", raising=False)

    return written


def entry(package: str, name: str = "mine") -> str:
    return f"[{GROUP}]\n{name} = module_{package}:METHOD\n"


@pytest.fixture
def registry() -> Registry:
    return Registry([METHODS["lora"]])


@pytest.mark.parametrize(
    ("code", "entries", "said"),
    [
        ("import nothing_of_this_name", None, "No module named"),
        ("raise SystemExit(3)", None, "cannot be imported"),
        ("def", None, "cannot be imported"),
        ("", None, "no attribute 'METHOD'"),
        ("METHOD = 3", None, "is int, not a harness.methods.Method"),
        (GOOD.replace("options=MethodOptions", "options=dict"), None, "options are no class"),
        (GOOD.replace('"Mine"', "None"), None, "title is no text"),
        (GOOD.replace("recipe={}", "recipe=None"), None, "recipe is no mapping"),
        (GOOD.replace("lambda shape, options: 5", "5"), None, "count_parameters is no function"),
        ("raise ValueError('a\\x1b[31m\\nb')", None, r"value: a\x1b[31m b"),
        (GOOD, f"[{GROUP}]\nmine = a b ::\n", "cannot be imported"),
        (GOOD, f"[{GROUP}]\nmine\n", "entry points cannot be read"),
        (GOOD, f"\xff[{GROUP}]\nmine = x:y\n", "entry points cannot be read"),
    ],
)
def test_a_broken_package_is_one_line_beside_a_good_one(
    write: Write, registry: Registry, code: str, entries: str | None, said: str
) -> None:
    write("bad", code, entries or entry("bad"))
    write("good", GOOD.replace('"mine"', '"other"'), entry("good", "other"))
    (line,) = registry.broken()
    assert said in line
    assert "bad" in line
    assert line.endswith("correct the package, or uninstall it")
    assert "\n" not in line
    assert printable(line) == line
    assert registry["other"].title == "Mine"
    assert registry["lora"] is METHODS["lora"]


def test_what_a_package_prints_is_not_in_the_output(
    write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    write("loud", "print('hello')\n" + GOOD, entry("loud"))
    assert registry.broken() == []
    assert capsys.readouterr().out == ""
    print(json.dumps({}))


def test_two_packages_of_one_name_are_told_where_it_is_used(
    write: Write, registry: Registry
) -> None:
    write("one", GOOD, entry("one"))
    write("two", GOOD, entry("two"))
    with pytest.raises(MethodError, match="one: .* and two: .* both have a method 'mine'"):
        registry["mine"]
    assert len(registry.broken()) == 1


@pytest.mark.parametrize("field", ["apply", "count_parameters", "workload"])
def test_what_fails_within_a_package_names_it(write: Write, registry: Registry, field: str) -> None:
    code = GOOD + (
        "import dataclasses\n"
        "def fail(*given):\n    return {}['key']\n"
        f"METHOD = dataclasses.replace(METHOD, {field}=fail)\n"
    )
    write("odd", code, entry("odd"))
    method = registry["mine"]
    with pytest.raises(MethodError, match="^odd: entry point 'mine' .*key: 'key'; correct the"):
        getattr(method, field)(*[None] * (3 if field == "apply" else 2))


def test_memory_and_errors_in_words_pass_as_they_are(write: Write, registry: Registry) -> None:
    code = GOOD + (
        "import dataclasses\nfrom harness.errors import ModelError\n"
        "def apply(model, options, seed):\n"
        "    raise ModelError('in words') if seed else MemoryError()\n"
        "METHOD = dataclasses.replace(METHOD, apply=apply)\n"
    )
    write("full", code, entry("full"))
    method = registry["mine"]
    assert method.count_parameters(shape(), method.options()) == 5
    with pytest.raises(MemoryError):
        method.apply(None, None, 0)  # type: ignore[arg-type]  # it looks at neither
    with pytest.raises(ModelError, match="^in words$"):
        method.apply(None, None, 1)  # type: ignore[arg-type]  # it looks at neither
