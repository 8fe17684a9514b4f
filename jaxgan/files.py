"""Files of folders that aren't trusted: read without waiting, written without following links.

What is read is a regular file of a bounded size: a FIFO or a device is none. What is written takes a
link's place and never goes to where it points.
"""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

_DEPTH = 64  # of JSON in files: what prints or compares a value goes down as deep


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a file for reading; a pipe or a device, which might never end, is not opened.

    Raises:
        OSError: there is none, it can't be read, or it is something else than a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # to open a FIFO would wait for its writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def read(path: str | os.PathLike, limit: int) -> bytes:
    """Returns the bytes of a regular file.

    Args:
        path: the file, or a link to it.
        limit: how many bytes it may have.

    Raises:
        OSError: it isn't there, can't be read, is no regular file or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
    if max(size, len(data)) > limit:  # it may also grow
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return data


def read_json(path: str | Path, limit: int) -> Any:
    """Returns the JSON value in a file; arguments as of `read`.

    Raises:
        OSError: as of `read`.
        ValueError: it is no JSON, nested too deeply, or has a number of thousands of digits.
    """
    value = parse_json(read(path, limit))
    level = [value]
    for _ in range(_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def parse_json(text: bytes) -> Any:
    """Returns the JSON value that a text says; ValueError if it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens what takes a file's place when it is whole, or never; of a link, the link's."""
    partial = path.with_name(path.name + ".partial")
    remove(partial)
    try:
        with open(partial, "xb") as file:  # "x" follows no link
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def open_to_append(path: Path) -> IO[str]:
    """Opens a regular file to read and to append to, made if it isn't there.

    Raises:
        OSError: it is a link, or no regular file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "a+", encoding="utf-8")


def remove(path: Path) -> None:
    """Removes a file, a folder and what is in it, or a link, but never what that points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """What an error says, in a short line."""
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return text.splitlines()[0][:200] if text else repr(error)[:200]
