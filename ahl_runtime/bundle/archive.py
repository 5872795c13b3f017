"""The zip file of a bundle, in one fixed layout, so that every byte can be checked.

Members are stored one after another, without compression, comments, extra fields or gaps. Their names are ASCII.
Any zip program can list and read the file. Only `pack` can write it: a file from another program is refused.
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

MAX_MEMBERS = 256

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20
_DATE = 0x21  # 1 January 1980: the same members always give the same bytes
_MODE = 0o100644 << 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_DAMAGED = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    OSError,
    EOFError,
    OverflowError,
    NotImplementedError,
    MemoryError,
)


class Refused(Exception):  # noqa: N818 (internal: bundle.py turns it into a BundleError)
    """The reason why these bytes are not the zip of a bundle."""


def check_name(name: str) -> str:
    """Return `name`. Refused, unless it is a plain relative path inside the bundle."""
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise Refused(
            f"member {name[:200]!r} is not a plain relative path (letters, digits, '.', '_', '-', '/'; no '..')"
        )
    return name


def pack(members: Mapping[str, bytes]) -> Iterator[bytes]:
    """The bytes of the zip, in order. All members together must be smaller than 4 GiB."""
    central = b""
    offset = 0
    for name, body in members.items():
        crc = zlib.crc32(body)
        local = _local(name, len(body), crc)
        central += _central_entry(name, len(body), crc, offset)
        offset += len(local) + len(body)
        yield local
        yield body
    yield central + _end(len(members), len(central), offset)


def unpack(file: BinaryIO, max_bytes: int) -> dict[str, bytes]:
    """The members of a zip that `pack` wrote, in its order. `file`: can be searched (`seek`). Refused, with the reason.

    Each member is read once, and only these bytes are checked and returned: it does not matter if the file changes.
    """
    size = file.seek(0, os.SEEK_END)
    if size > max_bytes:
        raise Refused(f"larger than {max_bytes} bytes")
    members: dict[str, bytes] = {}
    central = b""
    offset = 0
    infos = _listed(file, size)
    file.seek(0)
    for info in infos:
        name = info.filename
        found = file.read(_LOCAL.size + len(name))
        body = file.read(info.file_size)
        crc = zlib.crc32(body)
        local = _local(name, len(body), crc)
        if found != local:
            raise Refused(f"member {name!r} is damaged or was packed again by another program")
        central += _central_entry(name, len(body), crc, offset)
        members[name] = body
        offset += len(local) + len(body)
    end = central + _end(len(members), len(central), offset)
    if file.read(len(end) + 1) != end:
        raise Refused("it has bytes outside its members: it was cut, appended to, or packed again")
    return members


def _listed(file: BinaryIO, size: int) -> list[zipfile.ZipInfo]:
    """The members that the zip lists. Refused if a bundle cannot hold one of them."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _DAMAGED as error:
        raise Refused(f"not a bundle, or a bundle that was cut short ({error})") from error
    if len(infos) > MAX_MEMBERS:
        raise Refused(f"{len(infos)} members, the limit is {MAX_MEMBERS}")
    seen: set[str] = set()
    for info in infos:
        name = check_name(info.orig_filename)
        if name in seen:
            raise Refused(f"member {name!r} appears twice")
        seen.add(name)
        if info.flag_bits & 1:
            raise Refused(f"member {name!r} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise Refused(f"member {name!r} is compressed: it was packed again by another program")
        if info.file_size > size:
            raise Refused(f"member {name!r} claims {info.file_size} bytes, more than the file has")
    return infos


def _local(name: str, size: int, crc: int) -> bytes:
    head = _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0)
    return head + name.encode("ascii")


def _central_entry(name: str, size: int, crc: int, offset: int) -> bytes:
    made_by = 3 << 8 | _VERSION  # Unix, so that unpacked members are readable files
    head = _CENTRAL.pack(
        b"PK\1\2", made_by, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0, 0, 0, 0, _MODE, offset
    )
    return head + name.encode("ascii")


def _end(count: int, size: int, offset: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, size, offset, 0)
