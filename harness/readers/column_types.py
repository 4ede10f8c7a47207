"""What a column of a table may hold: Arrow has many forms of text and of lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow


def is_text(kind: pyarrow.DataType) -> bool:
    """Whether a column of this type holds text, in any of Arrow's forms."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_plain(kind: pyarrow.DataType) -> bool:
    """Whether JSON can say what a column of this type holds."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(is_plain(field.type) for field in kind)
    if is_list(kind):
        return is_plain(kind.value_type)
    return bool(
        is_text(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def is_bytes(kind: pyarrow.DataType) -> bool:
    """Whether a column of this type holds bytes, in any of Arrow's forms."""
    from pyarrow import types

    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def may_hold_pictures(kind: pyarrow.DataType) -> bool:
    """Whether it may be pictures: bytes, base64, `{bytes, path}`, or a list of these."""
    from pyarrow import types

    if types.is_struct(kind):
        return {field.name for field in kind} <= {"bytes", "path"}
    if is_list(kind):
        return may_hold_pictures(kind.value_type)
    return bool(is_bytes(kind) or is_text(kind) or types.is_null(kind))


def holds_bytes(kind: pyarrow.DataType) -> bool:
    """Whether bytes stand in it, at any depth."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(holds_bytes(field.type) for field in kind)
    return holds_bytes(kind.value_type) if is_list(kind) else is_bytes(kind)


def is_list(kind: pyarrow.DataType) -> bool:
    """Whether it is a list, of any of Arrow's forms."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def plain_type(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The same type with texts as plain strings."""
    import pyarrow

    if is_text(kind):
        return pyarrow.string()
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([(field.name, plain_type(field.type)) for field in kind])
    if is_list(kind):
        return pyarrow.list_(plain_type(kind.value_type))
    return kind
