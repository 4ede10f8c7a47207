r"""ScienceQA's template: question, context and options, then the answer.

The official one (lupantech/ScienceQA, `base_prompt.py`): QCM-A, and QCM-ALE with the lecture and
the explanation behind the answer. Blanks that empty parts double are squeezed once, as there; line
breaks of a lecture are written as `\n`. No torch here: planning imports this file.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping, Sequence
from importlib import resources

from harness.data.rows import ScienceQuestion

SCIENCEQA, SCIENCEQA_ALE = "scienceqa", "scienceqa-qcm-ale"
"""Names of the templates: the answer alone is learned, or lecture and explanation too."""
LETTERS = string.ascii_uppercase
"""Of the options, in order."""


@functools.cache
def _texts() -> Mapping[str, str]:
    import yaml

    text = resources.files("harness.data").joinpath("scienceqa.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def scienceqa_prompt(question: str, hint: str, choices: Sequence[str]) -> str:
    """The prompt of a question, QCM, up to `Answer:`; the response follows it directly.

    Args:
        question: as the data has it.
        hint: the context; empty where there is none.
        choices: the options, without letters; at most 26.
    """
    texts = _texts()
    options = " ".join(
        texts["option"].format(letter=letter, text=text)
        for letter, text in zip(LETTERS, choices, strict=False)
    )
    context = hint.strip() or texts["no_context"]
    prompt = texts["prompt"].format(question=question, context=context, options=options)
    return _squeezed(prompt).lstrip()


def scienceqa_response(letter: str) -> str:
    """The response that says an option's letter: ` The answer is A.`"""
    return _texts()["answer"].format(letter=letter)


def prompt_and_answer(row: ScienceQuestion, *, explained: bool = False) -> tuple[str, str]:
    """The prompt and the response of a training row.

    Args:
        explained: whether lecture and solution follow the answer (QCM-ALE).
    """
    response = scienceqa_response(LETTERS[row.answer])
    if explained:
        lecture, solution = (text.replace("\n", "\\n") for text in (row.lecture, row.solution))
        response += _texts()["explanation"].format(lecture=lecture, solution=solution)
        response = _squeezed(response).rstrip()
    return scienceqa_prompt(row.question, row.hint, row.choices), response


def _squeezed(text: str) -> str:
    return text.replace("  ", " ")
