"""Reading YAML from outside: bounded in size, depth and number of values, faults with their place.

Built from the parser's events, without recursion. A key is always a name, so its text is taken as
it stands (`no`, `10`); a value is what YAML 1.1 reads, but what few people mean is refused: 010 as
8, 1:30 as 90. `<<` merges mappings; own keys win.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from harness.errors import one_line, printable, shortened
from harness.readers.files import Unreadable, decode, read_bytes

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml: slower, the same values
    from yaml import SafeLoader

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 50
MAX_VALUES = 100_000
"""Once every alias is written out."""
LONGEST_NUMBER = 40
"""Characters; no setting has as many digits."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp")}
_COLLECTIONS = {None, "!", f"{_TAG}map", f"{_TAG}seq"}
_MERGE = f"{_TAG}merge"
_OCTAL = re.compile(r"[-+]?0[0-7_]*[0-7][0-7_]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and what they begin; that of UTF-32 begins with that of UTF-16."""


@dataclass
class Parsed:
    """What a YAML text holds, with the faults of its values.

    Attributes:
        content: mappings, lists and plain values; None in the place of a value that has a fault.
        faults: what is wrong, by place: `data.num_rows`.
    """

    content: Any
    faults: dict[str, str] = field(default_factory=dict)


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file in UTF-8, or in UTF-16 or UTF-32 with its byte order mark.

    Lines end with a line feed.

    Raises:
        Unreadable: it cannot be read, is too large, or is no such text.
    """
    content = read_bytes(path, max_bytes=MAX_BYTES)
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    return decode(content, path, encoding).replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, path: Path) -> Parsed:
    """What a YAML text means; `path` is what to call its file.

    Raises:
        Unreadable: it is no YAML, is nested too deeply, or stands for too many values.
    """
    if (odd := yaml.reader.Reader.NON_PRINTABLE.search(text)) is not None:
        before = text[: odd.start()]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        _refuse(path, line, column, f"is no valid YAML (the character {odd[0]!r})")
    try:
        return _Builder(text, path).document()
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None) or getattr(fault, "context_mark", None)
        problem = getattr(fault, "problem", None) or getattr(fault, "context", None) or fault
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        at = mark.index if mark and mark.buffer is None else None  # of libyaml: in characters
        tab = text[at : at + 1] == "\t" if at is not None else "'\\t'" in str(problem)
        hint = ": a tab; use blanks" if tab and " tab " not in str(problem) else ""
        said = f"is no valid YAML ({one_line(problem)}{hint})"
        _refuse(path, line, column, said, fault)


def _refuse(
    path: Path, line: int, column: int, said: str, fault: Exception | None = None
) -> NoReturn:
    raise Unreadable(path, "content", f"line {line}, column {column}: {said}") from fault


@dataclass
class _Open:
    """A mapping or list that is not closed yet."""

    content: dict[str, Any] | list[Any]
    anchor: str | None
    place: str
    size: int = 1
    """Values in it, itself included, once every alias is written out."""
    key: str | None = None
    """Of the value that comes next, in a mapping."""
    merged: dict[str, Any] = field(default_factory=dict)
    merges: yaml.Event | None = None
    """The key `<<` whose value comes next."""
    has_merged: bool = False

    @property
    def awaits_key(self) -> bool:
        """Whether what comes next is a key."""
        return isinstance(self.content, dict) and self.key is None and self.merges is None


class _Builder:
    """Makes plain values from the events of one document."""

    def __init__(self, text: str, path: Path) -> None:
        self.path = path
        self.loader = SafeLoader(text)
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int] | None] = {}
        """Value and size; None while it is open."""
        self.faults: dict[str, str] = {}
        self.root: Any = None
        self.num_events = 0
        self.largest: tuple[int, str] = (0, "")
        """Size and place of the alias that stands for the most values."""

    def document(self) -> Parsed:
        """Reads all events.

        Raises:
            Unreadable: there is more than is read, or a second document.
            yaml.YAMLError: the text is no YAML.
        """
        documents = size = 0
        try:
            while self.loader.check_event():
                event = self.loader.get_event()
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._stop(event, "another document begins; keep one")
                elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                    size = self._take(event) or size
        finally:
            self.loader.dispose()
        if size > MAX_VALUES:
            count, place = self.largest
            shown = f"{count:,}" if count < 10**15 else "more than 10^15"
            raise Unreadable(
                self.path,
                "too large",
                f"{place}: the alias stands for {shown} values, at most {MAX_VALUES:,} are read",
            )
        return Parsed(self.root, self.faults)

    def _take(self, event: yaml.Event) -> int | None:
        """Takes a value or the end of one; returns the size of the document where it ends."""
        self.num_events += 1
        if self.num_events > 2 * MAX_VALUES:
            self._stop(event, f"more than {MAX_VALUES:,} values", "too large")
        if isinstance(event, yaml.CollectionEndEvent):
            return self._close()
        if self.open and self.open[-1].awaits_key:
            self._take_key(event, self.open[-1])
            return None
        if isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
            return None
        if isinstance(event, yaml.AliasEvent):
            value, size = self._alias(event)
        else:
            value, size = self._scalar(event), 1
            if event.anchor is not None:
                self.anchors[event.anchor] = value, size
        return self._put(value, size)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if len(self.open) >= MAX_DEPTH:
            self._stop(event, f"is nested more than {MAX_DEPTH} deep", "too deep")
        place = self._place()
        if event.tag not in _COLLECTIONS:
            self._fault(event, f"the tag {event.tag} is not known here; leave it out")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        new: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self.open.append(_Open(new, event.anchor, place))

    def _close(self) -> int | None:
        done = self.open.pop()
        content = done.content
        if isinstance(content, dict) and done.has_merged:
            content = done.merged | content
        if done.anchor is not None:
            self.anchors[done.anchor] = content, done.size
        return self._put(content, done.size)

    def _put(self, value: Any, size: int) -> int | None:
        """Puts a value where it belongs; returns the size where it is the whole document."""
        if not self.open:
            self.root = value
            return size
        parent = self.open[-1]
        parent.size = min(parent.size + size, 10**18)
        if isinstance(parent.content, list):
            parent.content.append(value)
        elif parent.merges is not None:
            key, parent.merges = parent.merges, None
            self._merge(parent, value, key)
        else:
            assert parent.key is not None
            parent.content[parent.key] = value
            parent.key = None
        return None

    def _merge(self, parent: _Open, value: Any, key: yaml.Event) -> None:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            said = "'<<' merges a mapping, or a list of mappings, and this is neither"
            self._fault(key, said, _join(parent.place, "<<"))
            return
        for source in sources:
            for name, entry in source.items():
                parent.merged.setdefault(name, entry)
        parent.has_merged = True

    def _take_key(self, event: yaml.Event, parent: _Open) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(event, "is no valid YAML (a key must be plain text)")
        if event.anchor is not None:
            self.anchors[event.anchor] = event.value, 1
        key = str(event.value)
        if self._tag_of(event) == _MERGE:
            if parent.has_merged:
                self._stop(event, "is no valid YAML (key '<<' stands twice; give it a list)")
            parent.merges = event
            return
        parent.key = key
        place = _join(parent.place, key)
        if not key:
            self._fault(event, "a key is empty", place)
        elif found := _CONTROL.search(key):
            self._fault(event, f"a key holds the control character {found[0]!r}", place)
        elif key in parent.content:
            self._stop(event, f"is no valid YAML (key '{shortened(key)}' stands twice)")

    def _alias(self, event: yaml.AliasEvent) -> tuple[Any, int]:
        if event.anchor not in self.anchors:
            self._stop(event, f"is no valid YAML (there is no anchor '&{shortened(event.anchor)}')")
        known = self.anchors[event.anchor]
        if known is None:
            self._stop(event, f"the alias '*{shortened(event.anchor)}' stands within what it names")
        if known[1] >= self.largest[0]:
            self.largest = known[1], self._place()
        return known

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        """The value of a plain or quoted text; None where it has a fault, which is noted."""
        tag, text = self._tag_of(event), str(event.value)
        if tag == _MERGE:
            tag = f"{_TAG}str"
        number = tag in (f"{_TAG}int", f"{_TAG}float")
        if tag not in _SCALARS:
            return self._fault(event, f"the tag {tag} is not known here; leave it out")
        if found := _CONTROL.search(text):
            said = f"holds the control character {found[0]!r}; remove it"
            return self._fault(event, said)
        if number and len(text) > LONGEST_NUMBER:
            return self._fault(event, f"a number of {len(text)} characters is beyond reason")
        node = yaml.ScalarNode(tag, text, event.start_mark, event.end_mark)
        try:
            value = self.loader.construct_object(node)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError, IndexError):
            # what PyYAML raises of a text that does not fit its tag, such as 2020-99-99
            kind = tag.removeprefix(_TAG)
            return self._fault(event, f"is no valid YAML ('{shortened(text)}' is no {kind})")
        if number and not event.style:
            if ":" in text:
                said = f"{text} is {value} in YAML (to base 60); write the number, or quote it"
                return self._fault(event, said)
            if _OCTAL.fullmatch(text) and value != 0:
                ten = int(text, 10)
                said = f"{text} is {value} in YAML (octal); write {value} or {ten}, or quote it"
                return self._fault(event, said)
        return value

    def _tag_of(self, event: yaml.ScalarEvent) -> str:
        if event.tag is not None and event.tag != "!":
            return str(event.tag)
        return str(self.loader.resolve(yaml.ScalarNode, event.value, event.implicit))

    def _place(self) -> str:
        """The place of the value that comes next."""
        if not self.open:
            return ""
        parent = self.open[-1]
        if isinstance(parent.content, list):
            return f"{parent.place}[{len(parent.content)}]"
        return _join(parent.place, "<<" if parent.merges is not None else parent.key or "")

    def _fault(self, event: yaml.Event, said: str, place: str | None = None) -> None:
        place = self._place() if place is None else place
        self.faults.setdefault(place, _at(event, said))

    def _stop(self, event: yaml.Event, said: str, cause: Any = "content") -> NoReturn:
        raise Unreadable(self.path, cause, _at(event, said))


def _at(event: yaml.Event, said: str) -> str:
    mark = event.start_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {printable(said)}"


def _join(place: str, key: str) -> str:
    shown = shortened(key)
    return f"{place}.{shown}" if place else shown
