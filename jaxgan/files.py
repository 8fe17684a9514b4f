"""Files that may come from strangers, opened so that reading one ends, and takes no more than it may."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a file for reading; a pipe or a device, which might never end, is not opened.

    Raises:
        OSError: there is none, it can't be read, or it is something else than a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe's other end is not waited for
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def read_regular(path: str | os.PathLike, most: int) -> bytes:
    """Returns a file's bytes, of which there may be at most so many.

    Raises:
        OSError: as for `open_regular`, or there are more.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if size > most or len(data) > most:  # it may also grow
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(Path(path)))
    return data
