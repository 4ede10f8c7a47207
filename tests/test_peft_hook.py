"""`import harness` and `import peft` in either order, and after PEFT was only looked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

KNOWN = "import peft; print(hasattr(peft.PeftType, 'ZERO_INIT_PROMPT'))"


@pytest.mark.parametrize(
    "before",
    [
        "import harness",
        "import peft, harness",
        *(
            pytest.param(program, marks=pytest.mark.slow)
            for program in (
                "import harness, importlib.util; importlib.util.find_spec('peft')",
                "import harness.methods.zero_init.tuner",
                "import harness.methods.zero_init.attention",
                "import harness, sys; harness.register_when_peft_is_there()",
            )
        ),
    ],
)
def test_peft_knows_the_prompt_methods(before: str) -> None:
    program = f"{before}; {KNOWN}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


def test_import_harness_imports_nothing_heavy() -> None:
    program = (
        "import harness, sys\n"
        "print([name for name in ('torch', 'peft', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
