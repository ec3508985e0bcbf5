"""Opening HDF5 files and taking arrays out of them, with errors that a person can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """
    :param path: the file
    :raises ValueError: it cannot be opened, or reading it fails half-way: mostly a download that was cut off; it shows
        other files' content as its own
    """
    try:
        with h5py.File(path, "r") as file:
            outside = file.visititems_links(_outside)
            if outside is not None:
                raise ValueError(f"{path} shows as its own what is in {outside}. Copy it into one file.")
            yield file
    except (OSError, RuntimeError, MemoryError) as error:
        raise ValueError(
            f"{path} cannot be read as HDF5: it is damaged or cut off ({error}). Download or copy it again."
        ) from error


def _outside(name: str, link: object) -> str | None:
    return f"another file ({name!r} is a link into {link.filename!r})" if isinstance(link, h5py.ExternalLink) else None


def array(group: h5py.Group, name: str) -> np.ndarray:
    """
    :param group: where to look
    :param name: name of a data set
    :raises ValueError: there is none of that name; says what there is. Or its numbers are those of another file
    """
    item = group.get(name)
    if not isinstance(item, h5py.Dataset):
        raise ValueError(
            f"{group.file.filename}: {group.name} has no data set {name!r}; it holds {', '.join(group) or 'nothing'}."
        )
    if item.external or item.is_virtual:
        raise ValueError(
            f"{group.file.filename}: the data set {item.name!r} is a window on other files ("
            f"{item.external or item.virtual_sources()!s:.200}), which a file of demonstrations has no business to "
            "read. Copy its numbers into it."
        )
    return item[()]
