"""RISC's archive, read where it is: `captions.csv` and `resized/` in a zip, possibly under a folder of the archive's.

Nothing is unpacked, and no read is longer than its bound, whatever a header says. Images come as they are wanted.

1. Who packs an archive that climbs out of its folder, links, encrypts, or holds two members of one name did not pack
   RISC: one `UserError` for the whole, though nothing here would follow such a name.
2. An image that cannot be read is set aside with its reason; a table that cannot is the whole archive's fault.
3. Stored and deflated members alone: Python inflates those in bounded steps, bzip2's and LZMA's it does not.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.data.readers.captions_csv import (
    MAX_TABLE_BYTES,
    TABLE,
    Lines,
    count_captions,
    find_uncaptioned,
    make_row,
    read_table,
)
from captioning.data.readers.rows import Row, Source, Unusable, check_size, clean_images, sample_rows

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
IGNORED = "__MACOSX"
ENCRYPTED = 0x1  # of a member's flags
PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, struct.error, ValueError,
)  # fmt: skip  # what Python raises over a damaged or forged member

Members = dict[str, zipfile.ZipInfo]


def read_archive(path: Path, images: int | None = None, seed: int = 0) -> Source:
    """The images of RISC's zip: all, or a seeded draw of `images` of its rows, the same as of its folder.

    Raises `UserError` at once where the archive is none, or not what it should be.
    """
    opened = _open(path)
    members = _members(path, opened.infolist())
    table = _table(path, members)
    held = read_table(f"{path}: {table}", _read_whole(path, opened, members[table]))
    rows, top = sample_rows(held, images, seed), PurePosixPath(table).parent
    origin = {"archive": path.name, "sha256": sha256(path)}
    files = sorted({place.name for place in map(PurePosixPath, members) if place.parent in (top / "resized", top)})
    source = Source(iter(()), len(rows), len(held), count_captions(held), origin, find_uncaptioned(files, held))
    source.images = clean_images(_rows(opened, members, top, list(rows)), source)
    return source


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such archive; put RISCM.zip there, or mend data.path") from None
    except BROKEN as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path}: no zip archive, or cut short ({told}); fetch it again") from None


def _members(path: Path, listed: list[zipfile.ZipInfo]) -> Members:
    """Files by their plain names. Raises `UserError` for the archive at the first member that may not be in one."""
    kept: Members = {}
    for member in listed:
        if fault := _fault(member):
            raise UserError(f"{path}: member {member.orig_filename!r} {fault}; fetch the archive again or repack it")
        name = str(PurePosixPath(member.filename))
        if member.is_dir() or PurePosixPath(name).parts[:1] == (IGNORED,):
            continue
        if name in kept:
            raise UserError(f"{path}: two members are named {name!r}; repack it with one")
        kept[name] = member
    return kept


def _fault(member: zipfile.ZipInfo) -> str | None:
    """What no member of a harmless archive is."""
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or name[1:2] == ":":
        return "has an absolute name"
    if ".." in name.replace("\\", "/").split("/"):
        return "climbs out of the archive"
    if "\\" in name or "\0" in name:
        return "has a name with a backslash or a zero byte"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & ENCRYPTED:
        return "is encrypted"
    return None


def _table(path: Path, members: Members) -> str:
    """The name of the one table."""
    tables = [name for name in members if PurePosixPath(name).name == TABLE]
    if len(tables) > 1:
        raise UserError(f"{path}: {TABLE} is in it {len(tables)} times ({', '.join(tables[:3])}); repack it with one")
    if not tables:
        inner = next((name for name in members if name.lower().endswith(PACKED)), None)
        hint = f"take {inner!r} out of it and set data.path to that" if inner else "pack RISC's folder again"
        raise UserError(f"{path}: no {TABLE} in it; {hint}")
    return tables[0]


def _read_whole(path: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        return _read(opened, member, MAX_TABLE_BYTES)
    except Unusable as reason:
        raise UserError(f"{path}: {member.filename}: {reason}; fetch the archive again") from None


def _read(opened: zipfile.ZipFile, member: zipfile.ZipInfo, bound: int) -> bytes:
    """The member's bytes: as many as declared, no more than `bound`, and of the declared CRC. Raises `Unusable`."""
    if member.file_size > bound:
        raise Unusable(f"declares {member.file_size} bytes; at most {bound} are read")
    if member.compress_type not in METHODS:
        raise Unusable(f"compressed by method {member.compress_type}; stored and deflated are read")
    try:
        with opened.open(member) as file:
            content = file.read(member.file_size + 1)  # CRC is compared where the end is met
    except BROKEN as error:
        raise Unusable(f"unreadable in the archive: {' '.join(str(error).split()) or type(error).__name__}") from None
    if len(content) != member.file_size:
        raise Unusable(f"holds {len(content)} bytes and declares {member.file_size}")
    return content


def _rows(opened: zipfile.ZipFile, members: Members, top: PurePosixPath, rows: Lines) -> Iterator[Row]:
    with opened:
        for line, row in rows:
            yield make_row(line, row, partial(_image, opened, members, top, row["image"]))


def _image(opened: zipfile.ZipFile, members: Members, top: PurePosixPath, name: str) -> bytes:
    for place in (top / "resized" / name, top / name):
        if member := members.get(str(place)):
            check_size(member.file_size)
            return _read(opened, member, member.file_size)
    raise Unusable("no such file")
