"""Test items that the training rows hold: by 13 words in a row, and by the whole question.

Words are as in GPT-3's study of contamination (Brown et al. 2020, "Language Models are Few-Shot
Learners", appendix C) and in lm-eval's `decontamination/janitor.py`: lower case, punctuation
removed, split at blanks; 13 of them are an n-gram there too. Of an item its question counts (its
`question`, else what lm-eval's task names for decontamination, else its prompt), without options
and answer. A question of fewer than 13 words can be found whole alone; one about a picture only in
a row with the same picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
from numpy.typing import NDArray

from harness.data.rows import Row, picture_of, texts_of
from harness.evaluation.pictures import one_picture

if TYPE_CHECKING:
    from harness.evaluation.kept_tasks import KeptTask
    from harness.evaluation.loading import LoadedBenchmark

WORDS = 13
"""Words of an n-gram."""
Hashes = NDArray[np.uint64]

_PLAIN = str.maketrans({mark: None for mark in string.punctuation})


def words_of(text: str) -> list[str]:
    """The words of a text: lower case, without punctuation."""
    return text.lower().translate(_PLAIN).split()


class _Codes(dict[str, int]):
    """A 64-bit number for each word, the same in every process."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        return self.setdefault(word, int.from_bytes(digest, "big"))


@dataclass(frozen=True)
class TrainingText:
    """What training rows hold, as hashes."""

    ngrams: Hashes
    """Of every WORDS words in a row, sorted."""
    texts: frozenset[int]
    """Of every whole text of a row, such as an instruction or a turn; and of its first two. Each
    with the row's picture where there is one."""


@dataclass(frozen=True)
class Asked:
    """An item's question."""

    task: str
    """lm-eval's name of its task."""
    doc_id: int
    question: str
    picture: str | None = None
    """SHA-256 of the picture that it is about."""


def training_text(rows: Iterable[Row]) -> TrainingText:
    """Hashes the texts of rows; n-grams reach over the texts of one row.

    4 seconds of a CPU for Alpaca's 52,002 rows; MMLU's 14,042 items then take another.
    """
    codes, whole = _Codes(), set()
    row_codes: list[list[int]] = []
    for row in rows:
        image = picture_of(row)
        picture = None if image is None else image.sha256
        parts = [[codes[word] for word in words_of(text)] for text in texts_of(row)]
        row_codes.append([code for part in parts for code in part])
        whole |= {_hash(part, picture) for part in parts}
        whole.add(_hash([code for part in parts[:2] for code in part], picture))
    ngrams, _ = _ngrams(row_codes)
    return TrainingText(np.unique(ngrams), frozenset(whole - {hash(())}))


def _hash(codes: Sequence[int], picture: str | None) -> int:
    return hash(tuple(codes) if picture is None else (*codes, picture))


def _ngrams(texts: Sequence[Sequence[int]]) -> tuple[Hashes, NDArray[np.int64]]:
    """The hashes of every WORDS codes in a row of a text, and the number of each one's text."""
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    flat = np.fromiter((code for text in texts for code in text), np.uint64, int(sizes.sum()))
    owner = np.repeat(np.arange(len(texts)), sizes)
    count = len(flat) - WORDS + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    hashes = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):  # modulo 2**64
        for place in range(WORDS):
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + flat[place : place + count]
    within = owner[:count] == owner[WORDS - 1 :]
    return hashes[within], owner[:count][within]


def overlap_frame(asked: Sequence[Asked], training: TrainingText) -> pandas.DataFrame:
    """One row per item: `task`, `doc_id`, and whether `ngram` and `question` are in the rows."""
    codes = _Codes()
    texts = [[codes[word] for word in words_of(one.question)] for one in asked]
    hashes, owner = _ngrams(texts)
    hits = np.zeros(len(texts), bool)
    if len(training.ngrams):
        places = np.searchsorted(training.ngrams, hashes).clip(max=len(training.ngrams) - 1)
        hits[owner[training.ngrams[places] == hashes]] = True
    return pandas.DataFrame(
        {
            "task": [one.task for one in asked],
            "doc_id": [one.doc_id for one in asked],
            "ngram": hits,
            "question": [
                _hash(text, one.picture) in training.texts
                for text, one in zip(texts, asked, strict=True)
            ],
        }
    )


def questions_of(loaded: LoadedBenchmark) -> list[Asked]:
    """The question of every item of a benchmark, whatever its `limit`."""
    return [
        Asked(name, number, _question(task, doc), _picture(task, doc, f"{name}: item {number}"))
        for name, task in loaded.tasks.items()
        for number, doc in enumerate(task.eval_docs)
    ]


def _picture(task: KeptTask, doc: Mapping[str, Any], place: str) -> str | None:
    found = one_picture(task.doc_to_image(doc), place) if task.shows_pictures else None
    return None if found is None else found.sha256


def _question(task: Any, doc: Mapping[str, Any]) -> str:
    if isinstance(found := doc.get("question"), str):
        return found
    if task.should_decontaminate():
        with contextlib.suppress(SyntaxError, ValueError):  # lm-eval takes a text for Python
            return str(task.doc_to_decontamination_query(doc))
    return str(task.doc_to_text(doc))
