"""Files by their names, whatever they lie in: a folder, a zip file or a tar file, which is not unpacked.

Archives aren't trusted. The names in them are only names: nothing is written, a leading slash and `..`
mean nothing, links and devices are left out, and of two files with one name the last one counts.
"""

import bz2
import copy
import gzip
import io
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from jaxgan.files import open_regular

Wanted = Callable[[str], bool]
Opener = Callable[[], BinaryIO]

MOST_BYTES = 2**29  # of a file
_MOST_FILES = 2**22  # in an archive
_MOST_NAMES = 2**28  # bytes of a zip file's directory
_MOST_HEADER = 2**20  # bytes of a name in a tar file
_CHUNK = 2**20
_MOST_UNPACKING = 2**28  # bytes that xz may take for it, by what the file says; of xz -9 it is a quarter
_BATCH, _BATCH_BYTES = 1024, 2**26  # files that are opened before the next ones are; bytes in memory
_BLOCK = 512  # bytes, of which everything in a tar file is a multiple
_DAMAGE = (OSError, EOFError, ValueError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
           RuntimeError)  # which zipfile raises of a compression it doesn't know, or of a password
_RECORD = re.compile(rb"(\d{1,9}) ([^=]{1,100})=")  # of a pax header; it begins with its length
_EMPTY = b"123456"  # links, devices and folders: they have no contents, whatever they say
_UNPACKERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open),
              (b"\xfd7zXZ\0", lambda packed: io.BufferedReader(_Xz(packed), _CHUNK)))


class Tree(ABC):
    """Files by their names: relative paths with slashes.

    Attributes:
        path: what they lie in.
        is_sequential: whether they are found by reading all of it, from the start.
    """

    is_sequential = False

    def __init__(self, path: Path, entries: dict[str, Any]):
        self.path = path
        self._entries = dict(sorted(entries.items()))

    @property
    def names(self) -> list[str]:
        """The names, sorted."""
        return [*self._entries]

    def within(self, folder: str) -> "Tree":
        """Returns the files below a folder, by their names from there."""
        inner = copy.copy(self)
        inner._entries = {name.removeprefix(f"{folder}/"): entry for name, entry in self._entries.items()
                          if name.startswith(f"{folder}/")}
        return inner

    @abstractmethod
    def size(self, name: str) -> int:
        """How many bytes a file says that it has."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Opens a file, from several threads if need be.

        Raises:
            OSError, ValueError: it can't be read, or is larger than `MOST_BYTES`.
        """

    def each(self, names: Collection[str]) -> Iterator[tuple[str, Opener, int]]:
        """Yields files: the name, what opens it, and how many bytes of it are in memory already."""
        for name in names:
            yield name, partial(self.open, name), 0

    def batches(self, names: Sequence[str]) -> Iterator[list[tuple[int, Opener]]]:
        """Yields files, a few at a time: which of the names it is, and what opens it.

        Of a tree that is read in its own order, no name may come twice.
        """
        number = {name: i for i, name in enumerate(names)} if self.is_sequential else {}
        batch, held = [], 0
        for i, (name, opener, size) in enumerate(self.each(names)):
            batch.append((number.get(name, i), opener))
            held += size
            if len(batch) == _BATCH or held > _BATCH_BYTES:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch


def open_tree(path: Path, wanted: Wanted) -> Tree:
    """Opens a folder, a zip file or a tar file, which may be compressed by gzip, bzip2 or xz.

    Args:
        path: where it is.
        wanted: which files count, by their names without folders.

    Raises:
        OSError: it can't be read.
        ValueError: it is none of these, damaged, or holds more files than are read.
    """
    if path.is_dir():
        return _Folder(path, wanted)
    with open_regular(path) as file:
        head = file.read(_BLOCK)
        file.seek(0)
        is_zip = head[:2] == b"PK" or zipfile.is_zipfile(file)
    unpack = next((unpack for mark, unpack in _UNPACKERS if head.startswith(mark)), None)
    if not head:
        raise ValueError(f"{path} is empty: give a folder, or a zip or tar file, of images")
    if not (is_zip or unpack or _is_header(head)):
        raise ValueError(f"{path} is neither a folder nor a zip or tar file: give one of these")
    try:
        if is_zip:
            return _Zip(path, wanted)
        return _Packed(path, wanted, unpack) if unpack else _Tar(path, wanted)
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged, or isn't read ({error}): fetch it or make it again"
                         ) from error


class _Folder(Tree):
    """The files below a folder; links are followed, each folder is entered once."""

    def __init__(self, path: Path, wanted: Wanted):
        def refuse(error: OSError):
            raise error

        found, entered = {}, set()
        for folder, subfolders, names in os.walk(path, followlinks=True, onerror=refuse):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                subfolders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in names:
                if not name.startswith(".") and wanted(name):
                    file = Path(folder, name)
                    found[file.relative_to(path).as_posix()] = file
        super().__init__(path, found)

    def size(self, name: str) -> int:
        try:
            return self._entries[name].stat().st_size
        except OSError:
            return 0

    def open(self, name: str) -> BinaryIO:
        path = self._entries[name]
        try:
            file = open_regular(path)
        except OSError:
            if path.is_file():
                raise
            raise OSError("not a file") from None
        try:
            _check_size(os.fstat(file.fileno()).st_size)
        except ValueError:
            file.close()
            raise
        return file


class Single(_Folder):
    """A file, as if it were all that is in its folder."""

    def __init__(self, path: Path):
        Tree.__init__(self, path, {path.name: path})


class _Zip(Tree):
    """The files in a zip file, stored or deflated."""

    def __init__(self, path: Path, wanted: Wanted):
        self._archive = zipfile.ZipFile(_Kept(path))
        super().__init__(path, {
            name: info for info in self._archive.infolist()
            if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
            and (name := _plain(info.filename.replace("\\", "/"), wanted))})

    def size(self, name: str) -> int:
        return self._entries[name].file_size

    def open(self, name: str) -> BinaryIO:
        info = self._entries[name]
        _check_size(info.file_size)
        if info.flag_bits & 1:
            raise ValueError("encrypted: give a zip file without a password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The others are unpacked without a bound.
            raise ValueError("compressed in a way that isn't read: make the zip file anew")
        try:
            with self._archive.open(info) as file:
                data = file.read(info.file_size)
                if len(data) < info.file_size or file.read(1):
                    raise ValueError("cut off")
        except _DAMAGE as error:
            raise ValueError(f"damaged in the zip file: {error}") from error
        return io.BytesIO(data)


class _Kept(io.BufferedReader):
    """An archive that stays open as long as it is of use."""

    def __init__(self, path: Path):
        super().__init__(open_regular(path).detach())  # pyright: ignore[reportAttributeAccessIssue]

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_NAMES:  # a zip file's directory says how long it is
            raise ValueError(f"a directory of {size} bytes is too long")
        return super().read(size)

    def __del__(self):
        self.close()


class _Tar(Tree):
    """The files in a tar file that isn't compressed."""

    def __init__(self, path: Path, wanted: Wanted):
        self._file = _Kept(path)
        super().__init__(path, {name: (start, size)
                                for name, start, size in _members(self._file, wanted)})

    def size(self, name: str) -> int:
        return self._entries[name][1]

    def open(self, name: str) -> BinaryIO:
        start, size = self._entries[name]
        _check_size(size)
        data = os.pread(self._file.fileno(), size, start)  # by its place, which threads don't share
        if len(data) < size:
            raise ValueError("cut off")
        return io.BytesIO(data)


class _Packed(Tree):
    """The files in a compressed tar file, read through for each look at them; one file is in memory."""

    is_sequential = True

    def __init__(self, path: Path, wanted: Wanted, unpack: Callable[..., Any]):
        self._unpack, self._wanted = unpack, wanted
        with open_regular(path) as packed, unpack(packed) as file:
            super().__init__(path, {name: (start, size)
                                    for name, start, size in _members(file, wanted)})

    def size(self, name: str) -> int:
        return self._entries[name][1]

    def open(self, name: str) -> BinaryIO:
        (_, opener, _), = self.each([name])
        return opener()

    def each(self, names: Collection[str]) -> Iterator[tuple[str, Opener, int]]:
        at = {self._entries[name][0]: name for name in names}
        try:
            with open_regular(self.path) as packed, self._unpack(packed) as file:
                for _, start, size in _members(file, self._wanted):
                    if start in at:
                        data = file.read(size) if size <= MOST_BYTES else b""
                        yield at.pop(start), partial(_whole, data, size), len(data)
                    if not at:
                        return
        except _DAMAGE as error:
            raise ValueError(f"{self.path} can't be read any more ({error}): bring it back") from error
        for name in at.values():
            yield name, partial(_whole, b"", 1), 0


class _Xz(io.RawIOBase):
    """The contents of an xz file, unpacked in bounded memory, for which `lzma.open` has no argument."""

    def __init__(self, packed: BinaryIO):
        self._blocks, self._block, self._at = _unpacked(packed), b"", 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        self._block = self._block or next(self._blocks, b"")
        count = min(len(buffer), len(self._block))
        buffer[:count], self._block = self._block[:count], self._block[count:]
        self._at += count
        return count


def _unpacked(packed: BinaryIO) -> Iterator[bytes]:
    """Yields what the streams of an xz file hold, block by block.

    Raises:
        EOFError, ValueError, lzma.LZMAError: it is cut off, damaged, or takes too much memory.
    """
    data = packed.read(_CHUNK)
    while data:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_UNPACKING)
        while not decoder.eof:
            try:
                block = decoder.decompress(data, _CHUNK)
            except lzma.LZMAError as error:
                if "Memory usage" not in str(error):
                    raise
                raise ValueError(f"xz takes more than {_MOST_UNPACKING >> 20} MiB of memory to unpack "
                                 "it: pack it with xz -9 or less") from error
            if block:
                yield block
            data = packed.read(_CHUNK) if decoder.needs_input else b""
            if decoder.needs_input and not data:
                raise EOFError("it is cut off")
        data = decoder.unused_data.lstrip(b"\0")
        while not data and (more := packed.read(_CHUNK)):  # zeros may follow each stream
            data = more.lstrip(b"\0")


def _whole(data: bytes, size: int) -> BinaryIO:
    _check_size(size)
    if len(data) < size:
        raise ValueError("cut off")
    return io.BytesIO(data)


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(f"{size} bytes are too many")


def _plain(name: str, wanted: Wanted) -> str:
    """A name in an archive as a relative path; "" if it is hidden or isn't wanted."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    is_wanted = parts and not any(part.startswith(".") for part in parts) and wanted(parts[-1])
    return "/".join(parts) if is_wanted else ""


def _members(file: BinaryIO, wanted: Wanted) -> Iterator[tuple[str, int, int]]:
    """Yields what a tar file holds: the name, where its bytes begin, and how many there are.

    In between, the file stands where they begin; it may be read until where they end.

    Source: POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU tar's long names and sizes.

    Raises:
        ValueError: it is damaged, or holds too many files, or one with holes.
    """
    at, count, long_name, pax = 0, 0, None, {}
    while len(header := file.read(_BLOCK)) == _BLOCK and any(header):
        if not _is_header(header):
            raise ValueError(f"there is no header at byte {at}")
        at += _BLOCK
        kind = header[156:157]
        size = _number(header[124:136]) if kind not in _EMPTY else 0
        if kind in b"xL":
            if size > _MOST_HEADER:
                raise ValueError(f"a name of {size} bytes is too long")
            text = file.read(size)
            if kind == b"L":
                long_name = _decoded(text)
            else:
                pax = _records(text)
        else:
            is_sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in pax)
            if kind in b"07\0S":
                size = _number(b"%o" % int(pax["size"])) if "size" in pax else size
                name = pax.get("GNU.sparse.name") or pax.get("path") or long_name or _ustar_name(header)
                if is_sparse:  # its bytes begin with a list of holes
                    raise ValueError(f"{name} is stored with holes: make the tar file without --sparse")
                name = _plain(name, wanted)
                if name and not header[:100].rstrip(b"\0").endswith(b"/"):
                    count += 1
                    if count > _MOST_FILES:
                        raise ValueError(f"it holds more than {_MOST_FILES} files")
                    yield name, at, size
            if kind not in b"gK":
                long_name, pax = None, {}
        at += -(-size // _BLOCK) * _BLOCK
        _skip_to(file, at)
    if len(header) < _BLOCK:
        raise ValueError("it ends without the mark of its end")


def _is_header(block: bytes) -> bool:
    """Whether a block of a tar file has the sum that it says."""
    if len(block) < _BLOCK:
        return False
    try:
        return sum(block[:148]) + sum(block[156:]) + 8 * ord(" ") == _number(block[148:156])
    except ValueError:
        return False


def _number(field: bytes) -> int:
    """A number in a header: octal digits, or big-endian bytes behind the bit 0x80."""
    number = (int.from_bytes(field[1:], "big") if field[0] & 0x80
              else int(field.partition(b"\0")[0].strip() or b"0", 8))
    if not 0 <= number < 2**60:
        raise ValueError(f"{number} is no number of bytes")
    return number


def _ustar_name(header: bytes) -> str:
    name, prefix = _decoded(header[:100]), _decoded(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _records(text: bytes) -> dict[str, str]:
    """A pax header's records, "LENGTH KEY=VALUE" and a line end each."""
    found, at = {}, 0
    while match := _RECORD.match(text, at):
        end = at + int(match[1])
        if not match.end() < end <= len(text):
            raise ValueError("a pax header is cut off")
        found[_decoded(match[2])] = _decoded(text[match.end():end - 1])
        at = end
    return found


def _decoded(text: bytes) -> str:
    return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _skip_to(file: BinaryIO, at: int) -> None:
    """Goes forward to a place; past the end, to the end."""
    if isinstance(file, _Kept):
        file.seek(at)
        return
    while (left := at - file.tell()) > 0 and file.read(min(left, _CHUNK)):
        pass
