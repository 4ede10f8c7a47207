"""Makes the text of `demo_forgetting`: `python -m scripts.make_demo_text --output FILE`.

Ten seconds on one core. Documents of the embedded world from the stream that its model was
pre-trained on (`scripts.demo_world.corpus`), behind the last one that it has read; its facts are
those that it knows.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from scripts.demo_world.corpus import documents
from scripts.demo_world.people import build_world

FIRST = 150_000
"""The model has read 4.9 million tokens, about 129,000 documents of 38 each."""
NUMBER = 200


def build_text() -> str:
    """The content of the file: JSON Lines of `text`."""
    chosen = itertools.islice(documents(build_world()), FIRST, FIRST + NUMBER)
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in chosen)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.make_demo_text", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.parse_args().output.write_text(build_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
