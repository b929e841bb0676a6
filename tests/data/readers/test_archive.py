"""RISC's zip reads as its folder does; an unsafe or damaged archive is refused, or its image set aside."""

import csv
import io
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.data.readers.archive import read_archive
from captioning.data.readers.captions_csv import COLUMNS
from captioning.data.readers.folder.forms import read_folder

CAPTIONS = ["A port .", "Boats in a port .", "There is a port .", "It is a port .", "A port with boats ."]
Member = tuple[str | zipfile.ZipInfo, bytes]


def make_jpeg(seed: int = 0, size: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (size, size), random.Random(seed).randbytes(3 * size * size)).save(buffer, "JPEG")
    return buffer.getvalue()


def make_table(*names: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *(["UCM", "train", name, *CAPTIONS] for name in names)])
    return text.getvalue().encode()


def make_members(top: str = "") -> list[Member]:
    table = (f"{top}captions.csv", make_table("a.jpg", "b.jpg"))
    return [table, (f"{top}resized/a.jpg", make_jpeg(1)), (f"{top}b.jpg", make_jpeg(2))]


def pack(path: Path, members: list[Member], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def forge(path: Path, member: str, **fields: int) -> Path:
    """Change fields of a member in the central directory."""
    layout = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "packed": (20, "<I"), "size": (24, "<I")}
    content = bytearray(path.read_bytes())
    header = content.index(member.encode(), content.index(b"PK\1\2")) - 46
    for name, value in fields.items():
        offset, kind = layout[name]
        struct.pack_into(kind, content, header + offset, value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("top", ["", "RISCM/", "./"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_reads_as_its_folder_without_being_unpacked(tmp_path: Path, top: str, method: int) -> None:
    members = make_members(top)
    members += [("__MACOSX/._a.jpg", b"?"), (f"__MACOSX/{top}captions.csv", b"?"), (f"{top}empty/", b"")]
    members += [(f"{top}._captions.csv", b"?"), (f"{top}resized/._a.jpg", b"?"), (f"{top}resized/Thumbs.db", b"?")]
    path = pack(tmp_path / "RISCM.zip", members, method)
    (tmp_path / "raw/resized").mkdir(parents=True)
    for name, content in make_members():
        (tmp_path / "raw" / str(name)).write_bytes(content)
    files = sorted(tmp_path.rglob("*"))
    source, folder = read_archive(path), read_folder(tmp_path / "raw")
    assert list(source) == list(folder)
    assert list(read_archive(path, 1, 3)) == list(read_folder(tmp_path / "raw", 1, 3)), "another sample"
    assert (source.rows, source.captions, source.set_aside, source.fired_rules) == (2, 10, [], folder.fired_rules)
    assert source.origin == {"archive": "RISCM.zip", "sha256": sha256(path)}
    assert sorted(tmp_path.rglob("*")) == files


def make_link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("resized/c.jpg")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


NAMES = ("../over.jpg", "a/../../over.jpg", "..\\over.jpg", "/over.jpg", "C:\\over.jpg", "resized\\c.jpg")
REFUSED_MEMBERS = [
    *((name, "does not have a plain relative name") for name in NAMES),
    (make_link(), "member 'resized/c.jpg' is a link or a device"),
    ("resized/a.jpg", "two members are named 'resized/a.jpg'"),
    ("./resized/a.jpg", "two members are named 'resized/a.jpg'"),
    ("more/captions.csv", "captions.csv is in it 2 times"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("name", "fault"), REFUSED_MEMBERS)
def test_an_unsafe_member_refuses_the_archive(tmp_path: Path, name: str | zipfile.ZipInfo, fault: str) -> None:
    path = pack(tmp_path / "RISCM.zip", [*make_members(), (name, b"content")])
    with pytest.raises(UserError) as caught:
        read_archive(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and fault in line and "\n" not in line and "repack it" in line


FORGED = [
    ({"crc": 7}, "unreadable in the archive: Bad CRC-32"),
    ({"size": 10}, "unreadable in the archive: Bad CRC-32"),  # more than it declares: no more is read
    ({"size": 1 << 20}, "declares 1048576"),
    ({"size": 65 << 20}, "68157440 bytes; an image has at most 67108864"),
    ({"packed": 9}, "unreadable in the archive: "),
    ({"method": 12}, "compressed by method 12; stored and deflated are read"),
    ({"method": 0}, "unreadable in the archive: Bad CRC-32"),
]


@pytest.mark.parametrize(("fields", "reason"), FORGED)
def test_an_image_with_a_wrong_header_is_set_aside(tmp_path: Path, fields: dict[str, int], reason: str) -> None:
    source = read_archive(forge(pack(tmp_path / "RISCM.zip", make_members()), "resized/a.jpg", **fields))
    assert [image.id for image in source] == ["b"]
    assert [(aside.image, reason in aside.reason) for aside in source.set_aside] == [("a.jpg", True)]


def test_no_more_bytes_are_inflated_than_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 MiB of zeros declared as 100 bytes, and 4 MiB that are declared, beyond the bound."""
    bomb = b"\0" * (4 << 20)
    path = pack(tmp_path / "RISCM.zip", [*make_members()[:1], ("resized/a.jpg", bomb), ("b.jpg", bomb)])
    forge(path, "resized/a.jpg", size=100)
    monkeypatch.setattr("captioning.data.readers.rows.MAX_IMAGE_BYTES", 1 << 20)
    sizes = []
    read = zipfile.ZipExtFile._read1  # type: ignore[attr-defined]

    def count_bytes(file: zipfile.ZipExtFile, size: int) -> bytes:
        sizes.append(len(content := read(file, size)))
        return content

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", count_bytes)
    source = read_archive(path)
    assert list(source) == [] and sum(sizes) < 10_000
    reasons = ["unreadable in the archive", "4194304 bytes; an image has at most 1048576"]
    assert [aside.reason.split(":")[0] for aside in source.set_aside] == reasons


TABLE_FAULTS = [
    ({"size": 257 << 20}, "captions.csv: declares 269484032 bytes; at most 268435456 are read"),
    ({"crc": 1}, "captions.csv: unreadable in the archive: Bad CRC-32"),
    ({"method": 14}, "captions.csv: compressed by method 14"),
    ({"flags": 1}, "member 'captions.csv' is encrypted"),
]


@pytest.mark.parametrize(("fields", "fault"), TABLE_FAULTS)
def test_a_table_with_a_wrong_header_refuses_the_archive(tmp_path: Path, fields: dict[str, int], fault: str) -> None:
    path = forge(pack(tmp_path / "RISCM.zip", make_members()), "captions.csv", **fields)
    with pytest.raises(UserError) as caught:
        read_archive(path)
    assert f"{path}: {fault}" in str(caught.value) and "fetch the archive again" in str(caught.value)


def test_what_is_not_an_archive_of_risc_is_refused(tmp_path: Path) -> None:
    content = pack(tmp_path / "RISCM.zip", make_members()).read_bytes()
    for part in (content[:-30], b"no archive"):
        (tmp_path / "part.zip").write_bytes(part)
        with pytest.raises(UserError, match=r"part\.zip: not a zip archive, or incomplete"):
            read_archive(tmp_path / "part.zip")
    with pytest.raises(UserError, match="no such archive; put"):
        read_archive(tmp_path / "none.zip")
    with pytest.raises(UserError, match=r"no captions\.csv in it"):
        read_archive(pack(tmp_path / "nested.zip", [("data/RISCM.zip", content)]))
    table = make_table("a.jpg").replace(b",train,", b",night,")
    with pytest.raises(UserError, match=r"a\.zip: captions\.csv:2: split 'night'"):
        read_archive(pack(tmp_path / "a.zip", [("captions.csv", table)]))


def test_random_damage_never_raises_another_error(tmp_path: Path) -> None:
    """Five hundred archives with three changed bytes each are refused, lose images, or read well."""
    content = pack(tmp_path / "a.zip", make_members("top/")).read_bytes()
    rng, outcomes = random.Random(1), set()
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "b.zip").write_bytes(damaged)
        try:
            outcomes.add(len(list(read_archive(tmp_path / "b.zip"))))
        except UserError as error:
            assert str(tmp_path / "b.zip") in str(error)
            outcomes.add(-1)
    assert {-1, 0, 1, 2} >= outcomes >= {-1, 1}
