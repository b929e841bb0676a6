"""Read RISC's zip archive: `captions.csv` and `resized/`, possibly inside a folder of the archive.

Nothing is unpacked, images are read when they are needed, and every read has a bound, whatever a header claims.

1. An archive with a member that leaves its folder, is a link, is encrypted, or has the name of another member was not
   made by RISC. It is refused with one `UserError`, although nothing here would follow such a name.
2. An image that cannot be read is set aside with the reason. A table that cannot be read is a fault of the archive.
3. Only stored and deflated members are read: Python inflates those in bounded steps, but not bzip2 and LZMA.
"""

import stat
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.data.readers import captions_csv
from captioning.data.readers.captions_csv import TABLE
from captioning.data.readers.files import ImageFiles
from captioning.data.readers.folder.tables import annotate
from captioning.data.readers.names import Unusable, is_system_file
from captioning.data.readers.rows import Source, check_size, open_annotations

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
ENCRYPTED = 0x1  # bit of a member's flags
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, struct.error, ValueError)  # of zipfile

Members = dict[str, zipfile.ZipInfo]  # files by their normal names


def read_archive(path: Path, images: int | None = None, seed: int = 0) -> Source:
    """Read all rows, or a seeded sample as of the folder. Raises `UserError` at once if the archive is unusable."""
    archive = _open(path)
    members = _list_members(path, archive.infolist())
    table_name = _find_table(path, members)
    try:
        content = _read_member(archive, members[table_name], captions_csv.MAX_TABLE_BYTES)
    except Unusable as reason:
        raise UserError(f"{path}: {table_name}: {reason}; fetch the archive again") from None
    table = captions_csv.parse_csv(f"{path}: {table_name}", content)
    files = ImageFiles(members, partial(_read_image, archive, members))
    source = open_annotations(annotate(table, table_name, path.stem), files, images, seed)
    source.origin = {"archive": path.name, "sha256": sha256(path)}
    return source


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such archive; put RISCM.zip there, or correct data.path") from None
    except READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a zip archive, or incomplete ({reason}); fetch it again") from None


def _list_members(path: Path, infos: list[zipfile.ZipInfo]) -> Members:
    """Return the files in the archive. Raises `UserError` at the first member that is not allowed."""
    members: Members = {}
    for member in infos:
        if fault := _member_fault(member):
            raise UserError(f"{path}: member {member.orig_filename!r} {fault}; fetch the archive again or repack it")
        name = str(PurePosixPath(member.filename))
        if member.is_dir() or is_system_file(name):
            continue
        if name in members:
            raise UserError(f"{path}: two members are named {name!r}; repack it with one")
        members[name] = member
    return members


def _member_fault(member: zipfile.ZipInfo) -> str | None:
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or ".." in name.split("/") or any(mark in name for mark in "\\\0") or name[1:2] == ":":
        return "does not have a plain relative name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return "is encrypted" if member.flag_bits & ENCRYPTED else None


def _find_table(path: Path, members: Members) -> str:
    tables = [name for name in members if PurePosixPath(name).name == TABLE]
    if len(tables) > 1:
        raise UserError(f"{path}: {TABLE} is in it {len(tables)} times ({', '.join(tables[:3])}); repack it with one")
    if not tables:
        raise UserError(f"{path}: no {TABLE} in it; set data.path to RISC's archive, or pack its folder again")
    return tables[0]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """Return the member's bytes. Raises `Unusable` unless they have the declared size and CRC."""
    if member.file_size > max_bytes:
        raise Unusable(f"declares {member.file_size} bytes; at most {max_bytes} are read")
    if member.compress_type not in METHODS:
        raise Unusable(f"compressed by method {member.compress_type}; stored and deflated are read")
    try:
        with archive.open(member) as file:
            content = file.read(member.file_size + 1)  # Python compares the CRC only at the end of the member
    except READ_ERRORS as error:
        raise Unusable(f"unreadable in the archive: {' '.join(str(error).split()) or type(error).__name__}") from None
    if len(content) != member.file_size:
        raise Unusable(f"holds {len(content)} bytes and declares {member.file_size}")
    return content


def _read_image(archive: zipfile.ZipFile, members: Members, path: str) -> bytes:
    check_size(members[path].file_size)
    return _read_member(archive, members[path], members[path].file_size)
