"""From what a YAML file says to a dataclass: the names of its keys, and the kinds and sizes of their values."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

_KINDS: dict[type, str] = {str: "a text", bool: "true or false", dict: "keys and values", type(None): "nothing"}


def record(where: str, content: Any, kind: type) -> Any:
    """
    :param where: its place in the file
    :param content: what stands there
    :param kind: a dataclass
    :raises ValueError: keys or values that it does not take
    """
    check_keys(f"`{where}`", content, kind)
    check_values(f"{where}.", content, kind)
    return kind(**content)


def check_keys(where: str, content: Any, kind: type) -> None:
    """
    :param where: how an error calls the place
    :param content: what stands there
    :param kind: a dataclass
    :raises ValueError: no keys at all, unknown ones, or some are missing
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where} is {content!r}, expected keys and values.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(map(str, content.keys() - fields.keys()))
    if unknown:
        raise ValueError(f"{where} has the unknown key(s) {', '.join(unknown)}; it takes {', '.join(fields)}.")
    optional = {name for name, field in fields.items() if field.default is not dataclasses.MISSING}
    optional |= {name for name, field in fields.items() if field.default_factory is not dataclasses.MISSING}
    missing = sorted(fields.keys() - content.keys() - optional)
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")


def check_values(where: str, content: Mapping[str, Any], kind: type) -> None:
    """
    YAML reads 1e4 as a text, and 1.0e+4 as a float.

    :param where: before the name of each
    :param content: some of the dataclass's keys, and their values
    :param kind: the dataclass; whole numbers are at least 1, but seeds 0
    :raises ValueError: a value of another kind, or a number that is too small
    """
    hints = get_type_hints(kind)
    for name, value in content.items():
        hint, least = hints[name], 0 if name == "seed" else 1
        parts = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        expected: list[type] = [get_origin(part) or part for part in parts]
        if type(value) not in expected or (type(value) is int and value < least):
            told = {**_KINDS, int: f"a whole number of {least} or more, in digits: 10_000, not 1e4"}
            raise ValueError(
                f"`{where}{name}` is {value!r} ({type(value).__name__}), expected "
                f"{' or '.join(told[part] for part in expected)}."
            )
