"""Raw files: located, verified, downloaded and resumed; harmful archives are rejected; tfrecord."""

import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest

from csbp_jax.config import ConfigError
from csbp_jax.data.download import archives
from csbp_jax.data.download.fetch import RawFile, fetch
from csbp_jax.data.images import tfrecord
from tests.support import formats
from tests.support.formats import quiet
from tests.support.server import serving

CONTENT = bytes(range(256)) * 20_000  # 5 MB: more than one block


def raw_file(name="a.gz", content=CONTENT, url="http://example.invalid/a.gz", **more):
    return RawFile(name, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}", url, **more)


@pytest.fixture
def server():
    with serving({"a.gz": CONTENT}) as handler:
        handler.url += "/a.gz"
        yield handler


def test_the_unpacked_form_is_accepted(tmp_path):
    (tmp_path / "a").write_bytes(b"plain")
    wanted = raw_file(unpacked=raw_file("a", b"plain"))
    assert fetch([wanted], tmp_path, tmp_path / "d", True, quiet) == {"a.gz": tmp_path / "a"}
    (tmp_path / "a").write_bytes(b"plaim")
    with pytest.raises(ConfigError, match="its sha256"):
        fetch([wanted], tmp_path, tmp_path / "d", True, quiet)


def test_all_missing_files_are_named_at_once(tmp_path):
    wanted = [raw_file(), raw_file("b.tar", b"x", "https://example.invalid/", download=False)]
    with pytest.raises(ConfigError) as error:
        fetch(wanted, tmp_path, tmp_path / "d", True, quiet)
    assert str(error.value) == (
        f"missing in {tmp_path}: a.gz (5,120,000 bytes, from http://example.invalid/a.gz), b.tar (1 bytes, after "
        "registration at https://example.invalid/); put them into it under these names, or name their "
        "directory (make: FROM=, --from)"
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (
            CONTENT[:-1],
            r"has 5,119,999 bytes, the published file 5,120,000; fetch it again from http://example.invalid/a.gz, or",
        ),
        (
            CONTENT[:-1] + b"!",
            r"its sha256 is [0-9a-f]{64}, that of the published file [0-9a-f]{64}; fetch it again from",
        ),
    ],
)
def test_other_files_are_rejected_unless_verification_is_off(tmp_path, content, message):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        fetch([raw_file()], tmp_path, tmp_path / "d", True, quiet)
    assert fetch([raw_file()], tmp_path, tmp_path / "d", False, quiet) == {"a.gz": tmp_path / "a.gz"}


def test_download(tmp_path, server):
    wanted = raw_file(url=server.url)
    for _ in range(2):  # the second time it is local
        assert fetch([wanted], None, tmp_path / "d", True, quiet)["a.gz"].read_bytes() == CONTENT
    assert server.requested == [None] and os.listdir(tmp_path / "d") == ["a.gz"]


def test_a_continued_download_without_a_length(tmp_path, server):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.gz.part").write_bytes(CONTENT[:1000])
    server.sizes, wanted = (), dataclasses.replace(raw_file(url=server.url), size=None)
    path = fetch([wanted], None, tmp_path / "d", False, quiet)["a.gz"]
    assert path.read_bytes() == CONTENT and server.requested == ["bytes=1000-"]
    # Its range states the size, so that a broken connection is noticed.
    server.sizes, server.fails = ("Content-Range",), 2_000_000
    path.rename(tmp_path / "d" / "a.gz.part")
    os.truncate(tmp_path / "d" / "a.gz.part", 1000)
    with pytest.raises(ConfigError, match="the connection broke after 2,000,000 of 5,120,000 bytes"):
        fetch([wanted], None, tmp_path / "d", False, quiet)


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_continues_or_starts_again(tmp_path, server, ranges, size):
    wanted = dataclasses.replace(raw_file(url=server.url), size=size)
    server.fails, server.ranges = 3_000_000, ranges
    with pytest.raises(ConfigError, match=r"the connection broke after 3,000,000 of 5,120,000 bytes; run again"):
        fetch([wanted], None, tmp_path, True, quiet)
    assert os.listdir(tmp_path) == ["a.gz.part"]
    assert fetch([wanted], None, tmp_path, True, quiet)["a.gz"].read_bytes() == CONTENT
    assert server.requested == [None, "bytes=3000000-"]


@pytest.mark.parametrize("size, answer, reason", [
    *((size, {"status": status}, f".*{status}.*") for size in (None, len(CONTENT)) for status in (202, 404)),
    (None, {"stated_length": "x"}, "invalid literal.*"),
    *((None, {"sizes": sizes}, "it has more than 1,000 bytes.*") for sizes in (("Content-Length",), ())),
])  # fmt: skip
def test_an_answer_without_the_file_or_its_end(tmp_path, server, monkeypatch, size, answer, reason):
    monkeypatch.setattr("csbp_jax.data.download.fetch.MAX_UNSTATED", 1000)
    for name, value in answer.items():
        setattr(server, name, value)
    with pytest.raises(ConfigError, match=rf"a.gz cannot be downloaded \({reason}\); run again to continue, or fetch "):
        fetch([dataclasses.replace(raw_file(url=server.url), size=size)], None, tmp_path, True, quiet)
    assert all(file.stat().st_size <= 2**20 for file in tmp_path.iterdir())


@pytest.mark.parametrize("size, requested", [(len(CONTENT), []), (None, ["bytes=5120000-"])])
def test_a_download_that_was_complete_but_not_yet_verified(tmp_path, server, size, requested):
    wanted = dataclasses.replace(raw_file(url=server.url), size=size)
    (tmp_path / "a.gz.part").write_bytes(CONTENT)
    assert fetch([wanted], None, tmp_path, True, quiet)["a.gz"].read_bytes() == CONTENT
    assert server.requested == requested
    (tmp_path / "a.gz").unlink()
    (tmp_path / "a.gz.part").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(ConfigError, match="its sha256"):
        fetch([wanted], None, tmp_path, True, quiet)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("published, message, left", [
    (CONTENT[:-1] + b"!", "its sha256", []),
    (CONTENT[:-9], "has 5,", []),
    (CONTENT + b"more", "the connection broke", ["a.gz.part"]),
])  # fmt: skip
def test_a_wrong_download_is_removed_and_accepted_without_verification(tmp_path, server, published, message, left):
    wanted = raw_file(content=published, url=server.url)
    with pytest.raises(ConfigError, match=message):
        fetch([wanted], None, tmp_path, True, quiet)
    assert os.listdir(tmp_path) == left
    assert fetch([wanted], None, tmp_path, False, quiet)["a.gz"].read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["a.gz"]


def test_offline(tmp_path):
    wanted = [raw_file(url="http://127.0.0.1:9/a.gz"), raw_file("b.gz", url="http://127.0.0.1:9/b.gz")]
    with pytest.raises(ConfigError) as error:
        fetch(wanted, None, tmp_path, True, quiet)
    assert "cannot be downloaded" in str(error.value) and "b.gz (5,120,000 bytes" in str(error.value)
    assert "\n" not in str(error.value)


def member(name, kind=tarfile.REGTYPE, link="", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field in fields.items():
        setattr(info, *field)
    return info


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_extract(tmp_path, form):
    files = {"a/b.txt": b"b", "c": CONTENT}
    pack(tmp_path / f"a.{form}", files)
    archives.extract(tmp_path / f"a.{form}", tmp_path / "t", len(CONTENT) + 1)
    assert {name: (tmp_path / "t" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_an_archive_of_more_members_than_any_published_one(tmp_path, monkeypatch, form):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    pack(tmp_path / f"a.{form}", {str(n): b"" for n in range(3)})
    archives.extract(tmp_path / f"a.{form}", tmp_path / "t", 100)
    pack(tmp_path / f"b.{form}", {str(n): b"" for n in range(4)})
    with pytest.raises(ConfigError, match=r"damaged or truncated \(more than 3 members\)"):
        archives.extract(tmp_path / f"b.{form}", tmp_path / "u", 100)
    if form != "zip":
        with open(tmp_path / f"b.{form}", "rb") as file, pytest.raises(ConfigError, match="more than 3 members"):
            list(archives.members(file, "b"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_twice_in_a_zip(tmp_path):
    for name, content in (("same.zip", b"one"), ("other.zip", b"two")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("c", b"one")
            archive.writestr("c", content)
    archives.extract(tmp_path / "same.zip", tmp_path / "t", 100)
    assert (tmp_path / "t" / "c").read_bytes() == b"one"
    with pytest.raises(ConfigError, match=r"other.zip: contains c twice, with different contents; fetch it again"):
        archives.extract(tmp_path / "other.zip", tmp_path / "u", 100)


def tampered(header, directory, value):
    """A zip of a file c, with another value at these offsets of its header and of its entry in the directory."""
    content = bytearray(formats.zipped({"c": b"content"}))
    content[header] = content[content.index(b"PK\1\2") + directory] = value
    return bytes(content)


def stating(kind, size):
    """The header of a member, with these bytes for its size."""
    block = bytearray(member("a", kind).tobuf())
    block[124:136], block[148:156] = size, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


LONG = tarfile.GNUTYPE_LONGNAME
FIRST = member("first", tarfile.DIRTYPE).tobuf()
NOISE = {"c": np.random.default_rng(0).bytes(100_000)}
LARGE = {"small": b"x", "large": bytes(50_000_000)}
OUTSIDE = ".* would be written outside its directory"
IMPOSSIBLE = r"damaged or truncated \(.*impossible size.*\); fetch it again"
CUT = r"damaged or truncated \([^\n]+\); fetch it again"
TOO_MUCH = "has more than 1,000,000 bytes when unpacked, so it is not the published file"
TWO = formats.tarred({"a": b"a", "b": b"b"}, "w")


@pytest.mark.parametrize("suffix, content, message", [
    (".tar", formats.tarred({"../evil": b"x"}, "w"), OUTSIDE),
    (".tar", formats.tarred({"link": member("link", tarfile.SYMTYPE, "/etc/passwd")}, "w"), OUTSIDE),
    (".tar", formats.tarred({"file": b"x", "link": member("link", tarfile.SYMTYPE, "file")}, "w"), OUTSIDE),
    (".tar", formats.tarred({"link": member("link", tarfile.SYMTYPE, "../..")}, "w"), OUTSIDE),
    (".tar", formats.tarred({"link": member("link", tarfile.LNKTYPE, "../evil")}, "w"), OUTSIDE),
    (".tar", formats.tarred({"device": member("device", tarfile.CHRTYPE)}, "w"), OUTSIDE),
    *((".zip", formats.zipped({name: b"x"}), OUTSIDE) for name in ("../evil", "/evil", "a/../../evil", "..\\evil")),
    (".zip", formats.zipped(LARGE), TOO_MUCH),
    (".tar.gz", formats.tarred(LARGE), TOO_MUCH),
    (".zip", formats.zipped(NOISE)[:50_000], CUT),
    (".tar.gz", formats.tarred(NOISE)[:50_000], CUT),
    *((".tar", TWO[:length], CUT) for length in (0, 1024, 2048)),
    (".zip", tampered(6, 8, 1), r"c cannot be unpacked \(.*encrypted.*\); fetch it again"),
    (".zip", tampered(8, 10, 77), r"c cannot be unpacked \(.*not supported.*\); fetch it again"),
    (".zip", tampered(4, 6, 99), r"damaged or truncated \(.*version 9.9.*\); fetch it again"),
    *(
        (suffix, pack({name: b"x" for name in names}), rf"{names[1]} cannot be unpacked \([\w ]+\); fetch it again")
        for suffix, pack in ((".tar", formats.tarred), (".zip", formats.zipped))
        for names in (("a", "a/b"), ("a/b", "a"), ("a", "n" * 300))
    ),
    (".tar", FIRST + stating(tarfile.DIRTYPE, b"\xff" * 12), IMPOSSIBLE),  # -1
    (".tar", FIRST + stating(tarfile.REGTYPE, b"\xff" * 12), IMPOSSIBLE),
    (".tar", FIRST + stating(tarfile.REGTYPE, b"\x80\0\0\0\0\0\4\0\0\0\0\0"), IMPOSSIBLE),  # 4 TiB
    (".tar", FIRST + member("a", tarfile.DIRTYPE, pax_headers={"size": "-1000000000"}).tobuf(), IMPOSSIBLE),
    (".tar", FIRST + member("name", LONG, size=2**20 + 1).tobuf() + bytes(2**20 + 512), IMPOSSIBLE),
    (".tar", FIRST + member("name", LONG).tobuf() * 1000, r"damaged or truncated \(.*recursion.*\); fetch it again"),
])  # fmt: skip
def test_archives_that_are_refused_leave_nothing_outside_and_little_inside(tmp_path, suffix, content, message):
    path, limit = tmp_path / f"a{suffix}", 1_000_000 if message == TOO_MUCH else 2**50
    path.write_bytes(content + bytes(20_480) * content.startswith(FIRST))
    with pytest.raises(ConfigError, match=f"{path.name}: {message}"):
        archives.extract(path, tmp_path / "in" / "target", limit)
    reached = {file.name for pattern in ("*", "in/*") for file in tmp_path.glob(pattern)}
    assert reached <= {path.name, "in", "target.part"}
    assert sum(file.stat().st_size for file in tmp_path.glob("in/**/*") if file.is_file()) <= 100_000


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_an_archive_is_not_blamed_for_a_disk_that_is_full(tmp_path, name, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pack(tmp_path / name, {"a": b"x"})
    monkeypatch.setattr("shutil.copyfileobj", fail)
    monkeypatch.setattr("tarfile.copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        archives.extract(tmp_path / name, tmp_path / "t", 100)


def test_a_slash_at_the_beginning_of_a_name_is_left_out(tmp_path):
    formats.tar(tmp_path / "a.tar", {"/csbp_evil": b"x"})
    archives.extract(tmp_path / "a.tar", tmp_path / "t", 100)
    assert (tmp_path / "t" / "csbp_evil").exists() and not os.path.exists("/csbp_evil")


@pytest.mark.parametrize("length", [0, 1024, 2048])
def test_a_tar_cut_between_two_members_is_not_read_to_its_end(length):
    with pytest.raises(ConfigError, match=r"x: damaged or truncated"):
        list(archives.members(io.BytesIO(TWO[:length]), "x"))


def pack(path, files):
    path.write_bytes((formats.zipped if path.suffix == ".zip" else formats.tarred)(files))


def test_members_are_read_without_unpacking():
    files = {"../evil": b"x", "/etc/evil": b"yy"}
    packed = formats.tarred(files | {"link": member("link", tarfile.SYMTYPE, "/etc/passwd")})
    assert {info.name: content.read() for info, content in archives.members(io.BytesIO(packed), "a")} == files


def test_a_file_that_unpacks_to_too_much():
    packed = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(bytes(10_000))))
    with pytest.raises(ConfigError, match=r"a: has more than 9,999 bytes when unpacked"):
        archives.read(packed, "a", 9_999)


def test_crc32c():
    # RFC 3720, B.4, and the check value of the catalogue of CRCs.
    known = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}
    assert {data: tfrecord.crc32c(data) for data in known} == known
    random = np.random.default_rng(0)
    for length in [*range(70), 1000, 4097]:
        data = random.bytes(length)
        assert tfrecord.crc32c(data) == formats.bitwise_crc32c(data)


PAYLOADS = [b"", b"a", bytes(1000), b"last"]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "x-train.tfrecord-00000-of-00001"
    path.write_bytes(b"".join(map(formats._framed, PAYLOADS)))
    return path


def test_a_tfrecord_cut_within_a_record_is_rejected(shard):
    intact = shard.read_bytes()
    ends = list(np.cumsum([len(payload) + 16 for payload in PAYLOADS]))
    for length in [1, 8, 11, 12, 15, 20, 100, 1000, len(intact) - 1]:
        shard.write_bytes(intact[:length])
        with pytest.raises(ConfigError, match=rf"ends inside record {np.searchsorted(ends, length, 'right')};"):
            list(tfrecord.read(shard))


@pytest.mark.parametrize(
    "at, message", [(0, "of its length is wrong"), (9, "of its length is wrong"), (28, "its checksum is wrong")]
)
def test_a_flipped_bit_in_a_tfrecord(shard, at, message):
    content = bytearray(shard.read_bytes())
    content[at] ^= 4
    shard.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"tfrecord-00000-of-00001: record [01]: .*{message}; copy the file again"):
        list(tfrecord.read(shard))


@pytest.mark.parametrize("lengths, stated", [({"shardLengths": ["3", "4"]}, r"\[3, 4\]"), ({}, r"\[\]")])
def test_a_missing_shard_is_an_error(shard, tmp_path, lengths, stated):
    """Of a split without records, protobuf leaves the lengths out."""
    info = {"name": "x", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [{"name": "train", **lengths}]}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match=rf"train has shards of \[4\] records, but dataset_info.json says {stated}"):
        tfrecord.convert(tmp_path, tmp_path / "target", quiet)
