"""Set-up files: what is installed is what is here, at versions that fit the stated ranges."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK, IMAGE, TRACKERS = "requirements.lock", "requirements-image.lock", "requirements-trackers.lock"


def lines_of(lock: str) -> list[str]:
    return (ROOT / lock).read_text(encoding="utf-8").splitlines()


def locked_by(*locks: str) -> dict[str, str]:
    """Returns the versions that lock files pin, by the packages' canonical names."""
    pinned = [line.partition("==") for lock in locks for line in lines_of(lock)]
    return {canonicalize_name(name): version for name, _, version in pinned if version}


LOCKED = locked_by(LOCK)
EXTRAS = {"dev": (LOCK,), "ray": (IMAGE,), "quantised": (IMAGE,)}
EXTRAS |= {"wandb": (TRACKERS,), "tensorboard": (TRACKERS,)}
"""Which file pins an extra, beside requirements.lock."""
UNPINNED = {"trackio": "wants pillow below 13, and requirements.lock has 13"}


@pytest.mark.parametrize("lock", [LOCK, IMAGE, TRACKERS])
def test_locks_hold_names_and_exact_versions_only(lock: str) -> None:
    for line in lines_of(lock):
        assert line.startswith("# ") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line), (
            line
        )


def test_locks_agree_where_they_pin_the_same() -> None:
    image, trackers = locked_by(IMAGE), locked_by(TRACKERS)
    assert not LOCKED.keys() & (image.keys() | trackers.keys())
    shared = image.keys() & trackers.keys()
    assert {name: image[name] for name in shared} == {name: trackers[name] for name in shared}


def test_every_extra_is_pinned_at_a_version_that_fits() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == EXTRAS.keys() | UNPINNED.keys()
    for extra, locks in EXTRAS.items():
        pinned = locked_by(LOCK, *locks)
        for requirement in map(Requirement, extras[extra]):
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), (extra, requirement)


def test_lock_fits_the_stated_ranges() -> None:
    stated = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    for requirement in map(Requirement, stated):
        version = LOCKED[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_container_has_the_locked_torch() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"BASE=pytorch/pytorch:([0-9.]+)-", text)
    assert set(bases) == {LOCKED["torch"]}


def test_container_has_ray_and_bitsandbytes_and_nothing_that_only_tests_need() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (install,) = re.findall(r"pip install .*--requirement .*", text)
    assert re.findall(r"--requirement (\S+)", install) == [LOCK, IMAGE]
    assert {"ray", "bitsandbytes"} <= locked_by(IMAGE).keys()
    assert not {"wandb", "psycopg2-binary"} & locked_by(LOCK, IMAGE).keys()


def test_container_has_what_its_build_copies() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()]
    assert len(copied) == 7
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in kept


def test_compose_images_are_pinned() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name


def test_compose_server_is_of_the_locked_mlflow() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    image = services["mlflow"]["image"]
    assert f":v{LOCKED['mlflow'].rpartition('.')[0]}." in image


def test_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "harness", source / "harness", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "harness").rglob("*")
        if path.is_file()
    }
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "-w", str(tmp_path), str(source)], capture_output=True, text=True
    )
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("zbench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("harness/")}
    assert held == expected
