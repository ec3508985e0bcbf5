"""Small files that a kill leaves whole."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """
    Whoever reads the file finds the old text or the new one.

    :param path: its folder is made
    :param text: all of it
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """
    :param path: a CSV file, written as by :func:`write_whole`
    :param header: names of the columns
    :param rows: values
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    write_whole(path, text.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    """
    :param path: a CSV file
    :return: its rows by column, without one that a kill cut short
    """
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if len(row) == len(rows[0])] if rows else []
