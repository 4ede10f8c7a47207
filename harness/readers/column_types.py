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
