"""The public surface: what packages with methods of their own may import, and documents do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness.methods
import harness.testing
from harness.training.spec import TrainSpec

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLIC = {"harness", "harness.methods", "harness.testing"}


def test_the_public_names_are_frozen() -> None:
    assert harness.methods.__all__ == [
        *("ALPACA_LORA", "FAMILIES", "METHODS", "PAPER_PROMPTS", "STANFORD_ALPACA"),
        *("Family", "Method", "MethodError", "MethodOptions", "ModelError", "ModelShape"),
        "PromptConfig",
        *("TelemetryCallback", "Workload", "attach_adapter", "check_options", "insert_adapter"),
        *("replace_dropouts", "shape_of"),
    ]
    assert harness.testing.__all__ == [
        *(
            "CellAtWork",
            "Engine",
            "ExecutorLaws",
            "MethodLaws",
            "PictureLaws",
            "QuantisedLaws",
            "perturb",
            "tiny_model",
            "token_ids",
        ),
    ]


@pytest.mark.parametrize("package", [harness.methods, harness.testing], ids=lambda p: p.__name__)
def test_every_public_name_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]  # it is a package
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # type: ignore[attr-defined]  # noqa: B018  # that is what is tested


def test_the_surface_of_methods_is_light() -> None:
    code = (
        "import sys\nfrom harness.methods import METHODS, attach_adapter, insert_adapter\n"
        "print([name for name in ('torch', 'peft', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_nothing_deeper(document: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.S)
    imported = re.findall(r"^\s*(?:from|import) (harness[\w.]*)", "\n".join(code), re.M)
    # The derivation shows the simulation's own modules, which no other package builds on.
    own = {name for name in imported if name.startswith("harness.theory.")}
    assert set(imported) - own <= PUBLIC
    assert not own or document.name == "theory.md"


def test_the_document_names_every_training_setting() -> None:
    text = (ROOT / "docs/adding-a-method.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"`recipe` gives the training settings[^:]*: of (.*?)\.\n", text, re.S)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(TrainSpec.model_fields)
