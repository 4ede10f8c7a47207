"""YAML from outside: what is taken, what is refused and where, and that both end soon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from harness.readers import yaml_files
from harness.readers.files import Unreadable
from harness.readers.yaml_files import MAX_DEPTH, MAX_VALUES, parse_yaml, read_yaml_text

FILE = Path("g.yaml")


def content_of(text: str) -> Any:
    parsed = parse_yaml(text, FILE)
    assert parsed.faults == {}
    return parsed.content


def refusal_of(text: str) -> str:
    with pytest.raises(Unreadable) as caught:
        parse_yaml(text, FILE)
    said = str(caught.value)
    assert said.startswith("g.yaml: ")
    assert "\n" not in said
    assert len(said) < 300
    return said


@pytest.fixture(params=["libyaml", "python"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads with libyaml, and as where PyYAML was installed without it."""
    if request.param == "python":
        monkeypatch.setattr(yaml_files, "SafeLoader", yaml_files.yaml.SafeLoader)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("a: [1, 2.5, true, ~, x, '010', 1e-4]", {"a": [1, 2.5, True, None, "x", "010", "1e-4"]}),
        ("no: 1\n10: 2\n~: 3", {"no": 1, "10": 2, "~": 3}),
        ("a: &a {x: 1}\nb: *a", {"a": {"x": 1}, "b": {"x": 1}}),
        ("&k a: 1\nb: *k", {"a": 1, "b": "a"}),
        ("a: {x: 1}\r\nb: 2\r\n", {"a": {"x": 1}, "b": 2}),
        ("a: [1_000, 0x10, 0, 08]", {"a": [1000, 16, 0, "08"]}),
        ("a: !!str 010", {"a": "010"}),
        ("--- {a: 1}\n...\n", {"a": 1}),
    ],
)
@pytest.mark.usefixtures("either")
def test_what_is_taken(text: str, content: object) -> None:
    assert content_of(text) == content


@pytest.mark.parametrize(
    ("merge", "merged"),
    [
        ("<<: *a\n  y: 3", {"x": 1, "y": 3}),
        ("y: 3\n  <<: *a", {"x": 1, "y": 3}),
        ("<<: [*b, *a]", {"x": 5, "y": 2, "z": 6}),
        ("<<: *c\n  z: 1", {"x": 1, "y": 4, "z": 1}),
    ],
)
def test_a_merged_mapping_yields_to_own_keys_and_earlier_ones(
    merge: str, merged: dict[str, int]
) -> None:
    text = f"a: &a {{x: 1, y: 2}}\nb: &b {{x: 5, z: 6}}\nc: &c {{<<: *a, y: 4}}\nd:\n  {merge}\n"
    assert content_of(text)["d"] == merged


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", ": is no valid YAML"),
        ("a: 1\na: 2", "line 2, column 1: is no valid YAML (key 'a' stands twice)"),
        ("1: 2\n'1': 3", "line 2, column 1: is no valid YAML (key '1' stands twice)"),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}", "key '<<' stands twice; give it a list"),
        ("? [a]\n: 1", "a key must be plain text"),
        ("a: *b", "line 1, column 4: is no valid YAML (there is no anchor '&b')"),
        ("a: &a [*a]", "stands within what it names"),
        ("a: &a {<<: *a}", "stands within what it names"),
        ("a: 1\n---\nb: 2", "line 2, column 1: another document begins"),
        ("a:\n\t- 1", "line 2, column 1: is no valid YAML"),
        ("a: 1\nb: \x00", "line 2, column 4: is no valid YAML (the character '\\x00')"),
        ("a: @x", "line 1, column 4"),
        ("x: " + "[" * 200_000 + "]" * 200_000, f"is nested more than {MAX_DEPTH} deep"),
        ("x: " + "{a: " * 3000, f"is nested more than {MAX_DEPTH} deep"),
        ("- " * 3000, f"is nested more than {MAX_DEPTH} deep"),
    ],
)
@pytest.mark.usefixtures("either")
def test_what_is_no_yaml_is_told_with_line_and_column(text: str, said: str) -> None:
    assert said in refusal_of(text)


def test_a_tab_is_named_as_the_cause_and_blanks_are_its_cure() -> None:
    said = refusal_of("a:\n\t- 1")
    assert "a tab; use blanks" in said
    assert content_of("a:\n  - 1") == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("a: 2020-99-99", "a", "line 1, column 4: is no valid YAML ('2020-99-99' is no timestamp)"),
        ("a: {b: [1, !!int x]}", "a.b[1]", "'x' is no int"),
        ("a: !!bool x", "a", "'x' is no bool"),
        ("a: !!float x", "a", "'x' is no float"),
        ("a: !!python/object:os.system x", "a", "the tag tag:yaml.org,2002:python/object:os.sys"),
        ("a: !mine {b: 1}", "a", "the tag !mine is not known here"),
        ("a: !!binary aGVsbG8=", "a", "binary is not known here"),
        ("a: {<<: 3}", "a.<<", "merges a mapping"),
        ("seeds: [010]", "seeds[0]", "010 is 8 in YAML (octal); write 8 or 10"),
        ("epochs: 1:30", "epochs", "1:30 is 90 in YAML (to base 60)"),
        ("n: " + "9" * 5000, "n", "a number of 5000 characters is beyond reason"),
        ("n: " + "9" * 400, "n", "a number of 400 characters is beyond reason"),
        ('a: ["x\\0y"]', "a[0]", "holds the control character '\\x00'"),
        ('a: "\\e[31m"', "a", "holds the control character '\\x1b'"),
        ('"k\\e[31m": 1', "k\\x1b[31m", "a key holds the control character '\\x1b'"),
        ("'': 1", "", "a key is empty"),
    ],
)
@pytest.mark.usefixtures("either")
def test_a_value_that_does_not_fit_is_told_with_its_place(text: str, place: str, said: str) -> None:
    ((where, fault),) = parse_yaml(text, FILE).faults.items()
    assert where == place
    assert fault.startswith("line 1, column ")
    assert said in fault
    assert fault.isprintable()


def test_all_values_that_do_not_fit_are_told_at_once() -> None:
    parsed = parse_yaml("a: 010\nb: {c: 2020-99-99, d: 3}\n", FILE)
    assert list(parsed.faults) == ["a", "b.c"]
    assert parsed.content == {"a": None, "b": {"c": None, "d": 3}}


def bomb(levels: int) -> str:
    lines = ["notes:", " - &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f" - &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, "blocks:", f"  - models: [*a{levels - 1}]"])


@pytest.mark.parametrize("levels", [8, 40])
def test_an_alias_that_explodes_is_told_where_it_stands(levels: int) -> None:
    begun = time.process_time()
    said = refusal_of(bomb(levels))
    assert said.startswith("g.yaml: blocks[0].models[0]: the alias stands for ")
    assert f"at most {MAX_VALUES:,} are read" in said
    assert time.process_time() - begun < 1


def test_merged_mappings_that_explode_are_refused() -> None:
    lines = ["a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(99)) + "}"]
    merges = "<<: [" + ", ".join(["*a{0}"] * 9) + "]"
    lines += [f"a{i}: &a{i} {{{merges.format(i - 1)}}}" for i in range(1, 9)]
    assert "the alias stands for" in refusal_of("\n".join(lines))


def test_many_values_and_long_lines_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "MAX_VALUES", 5000)
    begun = time.process_time()
    assert "more than 5,000 values" in refusal_of("x: [" + "1," * 500_000 + "]")
    assert len(content_of("x: " + "a" * 3_000_000)["x"]) == 3_000_000
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_of_other_editors_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "g.yaml"
    file.write_bytes("a: é\r\nb: 1\rc: 2\n".encode(encoding))
    assert read_yaml_text(file) == "a: é\nb: 1\nc: 2\n"


def test_other_encodings_are_told_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_bytes("a: 1\nb: é\n".encode("latin-1"))
    with pytest.raises(Unreadable, match=r"is no UTF-8 text \(byte 0xe9 in line 2\); store it"):
        read_yaml_text(file)
    file.write_bytes("a: 1".encode("utf-16")[:-1])
    with pytest.raises(Unreadable, match="is no UTF-16 text"):
        read_yaml_text(file)
    file.write_bytes(b"#" * (yaml_files.MAX_BYTES + 1))
    with pytest.raises(Unreadable, match="is too large"):
        read_yaml_text(file)
