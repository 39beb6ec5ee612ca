# SPDX-License-Identifier: Apache-2.0
"""What is inside archives: names, links, kinds of entries, formats, damage, whiteouts, and which of it is taken.
Numbers such as [L12] are the cases of the reference on artifact layouts; those that need no archive are in test_pull.py,
test_faults.py and others under [L12]. What happens while layers are unpacked is in test_layers_run.py."""

import gzip
import json
import errno
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import time
import zlib

import pytest

from lib import oci, producers
from lib.content import files_in, tree
from lib.look import holds, last_words, marker, nothing_published, until
from lib.oci import descriptor
from lib.producers import (MIB, Made, directory, entry, hardlink, links_in, oras_folder, pack, serve, symlink, tar, tar_of,
                           weights, zstd, zstd_frame)

GOOD = entry("good.bin", b"good")


def archive(body, packing="tar", path=None, kind="dataset", **metadata):
    """A ModelPack artifact of one layer; packing is only said, body is the blob."""
    notes = {oci.FILEPATH: path} if path else {}
    if metadata:
        notes[oci.METADATA] = json.dumps(metadata)
    layer = descriptor(body, f"application/vnd.cncf.model.{kind}.v1.{packing}", **({"annotations": notes} if notes else {}))
    return Made(oci.manifest([layer], config=descriptor(b"{}", oci.MODELPACK_CONFIG), artifact_type=oci.MODELPACK), [body], {},
                unpacked=1)


def image_of(*layers):
    return producers.image(list(layers), {}, packing="tar")


@pytest.fixture
def pull(faults, fetcher, dest):
    """pull(made, *flags) -> Result; what lies around DEST has not changed."""
    def go(made, *flags, **how):
        ref = serve(faults, made)
        around = set(os.listdir(dest.parent))
        result = fetcher.pull(ref, dest, *flags, **how)
        assert set(os.listdir(dest.parent)) - around <= {"dest", "run"}
        return result
    return go


def refused(result, rc, dest, *words):
    text = last_words(result.exits(rc))
    for word in words:
        assert word in text, text
    nothing_published(dest)
    return text


# -- names ---------------------------------------------------------------------------------------

NAMES = {"a b/c d.txt": b"1", "\u00e9t\u00e9/\u6a21\u578b-\u00fc.bin": b"2", "e\u0301.txt": b"nfd", ".hidden": b"3", "-rf": b"4",
         "under_score-and.dot": b"5", "x/tokenizer.json": b"x", "y/tokenizer.json": b"y", "l1/l2/l3/l4/deep": b"6", "empty": b"",
         "v1..2.bin": b"7", "..data": b"8", "w[1]*?.gguf": b"9", "back\\slash": b"10", "caf\udce9.txt": b"latin-1",
         "n" * 255: b"11", "/".join(["d" * 60] * 50): b"12"}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("packing", producers.PACKINGS)
def test_names_are_kept_byte_for_byte(pull, dest, packing, format):
    """Spaces, unicode as it came, no valid UTF-8, dots, deep and long ones, an empty file. [L1-A6] [L16] [L17] [L29]"""
    entries = [entry(n, b, format=format) for n, b in NAMES.items()]
    pull(archive(pack(tar(*entries, record=10240), packing), packing)).ok()
    assert {os.fsencode(n) for n in files_in(dest)} == {os.fsencode(n) for n in NAMES}
    for name, body in NAMES.items():
        assert (dest / name).read_bytes() == body


@pytest.mark.parametrize("name, lands", [("./a", "a"), ("a//b", "a/b"), ("././a/./b", "a/b")])
def test_names_are_cleaned(pull, dest, name, lands):
    """[L9]"""
    pull(archive(tar(directory("./"), entry(name, b"x")))).ok()
    holds(dest, {lands: b"x"})


@pytest.mark.parametrize("name", ["../x", "../../x", "a/../../x", "a/../b", "/etc/x", "//x", "..", "a/..", ".fetcher/ready.json",
                                  ".FETCHER/x", ".fetcher", "current", "current/x", "a\nb", "\x1b[2J", "c" * 256, "a/" + "c" * 256,
                                  "/".join(["e" * 200] * 21), "/".join(["d"] * 200)], ids=lambda n: repr(n)[:24])
def test_names_that_are_refused(pull, dest, name):
    """[L12] [L13] [L14] [L15] [L17]; also when they would be left out."""
    made = archive(tar(GOOD, entry(name, b"x", format=tarfile.GNU_FORMAT)))
    words = refused(pull(made), 24, dest)
    assert "\x1b" not in words and "\n" not in words


def test_an_unsafe_name_does_not_hide_behind_a_glob(pull, dest):
    refused(pull(archive(tar(GOOD, entry("../x", b"x"))), "--include", "good.bin"), 24, dest)


@pytest.mark.parametrize("name", ["", "."])
def test_a_file_without_a_name(pull, dest, name):
    """Empty, or the top itself as a file (CVE-2021-29136). [L15]"""
    header = bytearray(entry("x" * max(1, len(name)), b"x"))
    header[:100] = name.encode().ljust(100, b"\0")
    header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:512])
    r = pull(archive(tar(GOOD, bytes(header))))
    assert r.rc in (22, 24), r
    nothing_published(dest)


def test_a_nul_in_a_pax_name(pull, dest):
    """libarchive and the kernel would cut it differently. [L15]"""
    r = pull(archive(tar(GOOD, entry("x", b"x", pax={"path": "good.bin\0/../../x"}))))
    assert r.rc in (0, 22, 24), r
    assert set(files_in(dest)) <= {"good.bin"} or set(files_in(dest)) == {"good.bin", "x"}


@pytest.mark.parametrize("path", ["../x", "/x", "a/../x", "", "a\0b", "c" * 256], ids=repr)
def test_the_layer_itself_has_an_unsafe_name(faults, pull, dest, path):
    """Before a byte moves. [L12] [L14] [L15] [L17]"""
    layer = descriptor(tar(GOOD), "application/vnd.cncf.model.weight.v1.tar", annotations={oci.FILEPATH: path})
    made = Made(oci.manifest([layer], artifact_type=oci.MODELPACK), [tar(GOOD)], {})
    refused(pull(made), 22 if "\0" in path else 24, dest)
    assert faults.gets("blob") == []


def test_the_layers_name_ends_with_a_slash(pull, dest):
    """"dir/" is a directory's name, which an archive may have. [L11]"""
    made = oras_folder("dir", {"a": b"1"}, title="dir/")
    pull(made).ok()
    holds(dest, made.files)
    dest2 = archive(tar(entry("x/", b"", kind=tarfile.REGTYPE), entry("x/a", b"2")))
    pull(dest2).ok()
    holds(dest, {"x/a": b"2"})


# -- collisions ----------------------------------------------------------------------------------


def two(first, second):
    """Two layers; bytes are tars, (path, body) raw files."""
    layers, blobs = [], []
    for x in (first, second):
        if isinstance(x, tuple):
            layers.append(oci.modelpack(x[1], x[0]))
            blobs.append(x[1])
        else:
            layers.append(descriptor(x, "application/vnd.cncf.model.dataset.v1.tar"))
            blobs.append(x)
    return Made(oci.manifest(layers, artifact_type=oci.MODELPACK), blobs, {})


@pytest.mark.parametrize("first, second", [
    (tar(entry("a", b"1")), tar(entry("a", b"2"))),
    (tar(entry("a", b"1")), ("a", b"2")),
    (("a//b", b"1"), tar(entry("./a/b", b"2"))),
    (tar(entry("a", b"1")), tar(entry("a/b", b"1"))),
    (("a", b"1"), tar(entry("a/b", b"1"))),
    (tar(symlink("a", "b"), directory("b")), tar(entry("a/x", b"1"))),
    (tar(symlink("a", "b")), tar(symlink("a", "c"))),
    (tar(symlink("a", "b")), ("a/x", b"1")),
], ids=["tars", "tar-and-raw", "after-cleaning", "file-and-folder", "raw-file-and-folder", "below-a-link", "links", "raw-below-a-link"])
def test_layers_that_collide(pull, dest, first, second):
    """Never the last one wins. [L8] [L9] [L10]"""
    refused(pull(two(first, second)), 24, dest)


@pytest.mark.parametrize("entries", [
    (entry("a", b"1"), entry("a", b"2")), (entry("a", b"1"), entry("./a", b"22")), (entry("a", b"1"), entry("a/b", b"1")),
    (entry("a/b", b"1"), entry("a", b"1")), (entry("a", b"1"), symlink("a", "b")), (symlink("a", "."), entry("a/x", b"1")),
], ids=["content", "size", "below", "above", "kind", "link"])
def test_entries_that_collide(pull, dest, entries):
    refused(pull(archive(tar(*entries))), 24, dest)


def test_the_same_twice_is_fine(pull, dest):
    """In one archive, in two, and beside a raw file. [L7]"""
    body = weights(1, 100_000)
    pull(archive(tar(entry("a", body), entry("a", body), entry("b/a", body), directory("b"), directory("b")))).ok()
    holds(dest, {"a": body, "b/a": body})
    pull(two(tar(entry("a", body)), tar(entry("./a", body), entry("c", b"3")))).ok()
    holds(dest, {"a": body, "c": b"3"})
    pull(two(tar(entry("a", body)), ("a", body))).ok()
    holds(dest, {"a": body})


def test_one_layer_under_two_names(registry, wire, fetcher, dest):
    """Fetched once. [L7]"""
    blob = tar(entry("w.bin", weights(1, MIB)))
    layers = [descriptor(blob, "application/vnd.cncf.model.weight.v1.tar", annotations={oci.FILEPATH: p})
              for p in ("one/w.bin", "two/w.bin")]
    p = registry.api.put_manifest("layers/twice", "v1", oci.manifest(layers, artifact_type=oci.MODELPACK), blobs=[blob])
    fetcher.pull(p.on(wire), dest).ok()
    holds(dest, {"one/w.bin": weights(1, MIB), "two/w.bin": weights(1, MIB)})
    assert wire.body("/blobs/") <= 2 * len(blob)


# -- links and other kinds -----------------------------------------------------------------------


def test_links_that_stay_inside(pull, dest):
    """[L20]"""
    made = archive(tar(entry("a/b/w.bin", b"w"), symlink("a/b/same", "w.bin"), symlink("a/up", "../top"), symlink("top", "a/b"),
                       symlink("a/dots", "./b/../b/./w.bin"), symlink("nowhere", "not/there")))
    pull(made).ok()
    holds(dest, {"a/b/w.bin": b"w"})
    for name, to in (("a/b/same", "a/b/w.bin"), ("a/dots", "a/b/w.bin"), ("top", "a/b"), ("a/up", "a/b")):
        assert os.path.realpath(dest / name) == str(dest / to), name
    assert set(links_in(dest)) == {"a/b/same", "a/up", "top", "a/dots", "nowhere"}
    assert marker(dest)["files"] == 6


@pytest.mark.parametrize("entries", [
    [symlink("a", "/etc/passwd")], [symlink("a", "../x")], [symlink("a/b", "../../x")], [symlink("a", "..")],
    [symlink("a", ".fetcher/ready.json")], [symlink("a", "current/x")], [symlink("a", "")], [symlink("a", "x" * 5000)],
    [symlink("a", "../dest.evil")],
    # GHSA-8xwf: through a link to outside or inside
    [symlink("a", "d"), entry("a/x", b"1")], [symlink("a", "."), directory("a/b"), entry("a/b/c", b"1")],
    [directory("a"), symlink("a", ".."), entry("a/x", b"1")],
], ids=range(12))
def test_links_that_are_refused(pull, dest, entries):
    """[L18] [L19] [L20] [O38]"""
    refused(pull(archive(tar(GOOD, *entries, entry("last", b"l")))), 24, dest)


@pytest.mark.parametrize("entries", [
    [directory("d"), symlink("d/up", ".."), symlink("out", "d/up/..")], [symlink("d/e", ".."), symlink("x", "d/e/../..")],
    [symlink("d/e", ".."), symlink("x", "d/e/../dest.evil")], [symlink("a/b", "../c/d"), symlink("c/d", "../e"), symlink("e", "a/b/../..")],
], ids=range(4))
def test_links_that_lead_out_one_after_another(pull, dest, entries):
    """Each looks harmless by its text (GHSA-m37j): refused, or made harmless. [L19]"""
    r = pull(archive(tar(GOOD, *entries)))
    assert r.rc in (0, 24), r
    for link in links_in(dest):
        try:
            os.stat(dest / link)
        except OSError as e:
            if e.errno == errno.ELOOP:  # goes in a circle, so nowhere
                continue
        to = os.path.realpath(dest / link)
        assert to == str(dest) or to.startswith(f"{dest}/"), (link, to)


def test_a_link_through_a_link_keeps_its_meaning(pull, dest):
    """"top/.." is not the directory of top when top is a link: the file that tar's own user would find, or a refusal. [L20]"""
    made = archive(tar(entry("a/b/w", b"1"), entry("a/x", b"right"), entry("x", b"wrong"), symlink("top", "a/b"),
                       symlink("l", "top/../x")))
    r = pull(made)
    assert r.rc == 24 or (dest / "l").read_bytes() == b"right", os.readlink(dest / "l")


def test_hard_links(pull, dest):
    """A second file with the same content; the target must have come before. [L21]"""
    body = weights(2, 300_000)
    pull(archive(tar(entry("w.bin", body, mode=0o640), hardlink("d/w2.bin", "w.bin"), hardlink("w3.bin", "./d/w2.bin")))).ok()
    holds(dest, {"w.bin": body, "d/w2.bin": body, "w3.bin": body})
    assert stat.S_IMODE((dest / "d/w2.bin").stat().st_mode) == 0o640


@pytest.mark.parametrize("entries", [
    [hardlink("a", "../x")], [hardlink("a", "/etc/passwd")], [hardlink("a", "later"), entry("later", b"1")], [hardlink("a", "a")],
    [symlink("s", "good.bin"), hardlink("a", "s")], [directory("d"), hardlink("a", "d")], [hardlink("a", "")],
    [entry("a", b"data of a hard link", kind=tarfile.LNKTYPE, link="good.bin")],
], ids=["up", "absolute", "later", "itself", "symlink", "directory", "empty", "with-data"])
def test_hard_links_that_are_refused(pull, dest, entries):
    """[L21] [O38]"""
    r = pull(archive(tar(GOOD, *entries)))
    assert r.rc in (22, 24), r
    nothing_published(dest)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE], ids=["char", "block", "fifo"])
@pytest.mark.parametrize("how", ["artifact", "image"])
def test_devices_and_fifos(pull, dest, kind, how):
    """[L21] [O38]"""
    odd = entry("models/dev", kind=kind, devmajor=1, devminor=3)
    made = archive(tar(GOOD, odd)) if how == "artifact" else image_of(tar(entry("models/a", b"1"), odd))
    refused(pull(made), 24, dest, "models/dev" if how == "artifact" else "dev")


def test_devices_outside_of_what_is_taken(pull, dest):
    """An image's /dev is nobody's concern."""
    pull(image_of(tar(entry("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), entry("models/a", b"1")))).ok()
    holds(dest, {"a": b"1"})


def test_modes_owners_and_times(pull, fetcher, dest):
    """setuid and the like go, the umask does not count, owners are ours, nanoseconds stay. [L22] [L23] [L26]"""
    modes = {"0750": 0o750, "0600": 0o600, "0444": 0o444, "setuid": 0o4755, "setgid": 0o2755, "sticky": 0o1644, "none": 0o000}
    entries = [entry(n, n.encode(), mode=m, uid=12345, gid=54321, uname="nobody", gname="daemon") for n, m in modes.items()]
    entries += [entry("ns", b"t", pax={"mtime": "1706933106.789012345"}), entry("epoch", b"e", mtime=0),
                entry("before", b"b", pax={"mtime": "-86400"}), entry("zero", b"z", pax={"mtime": "-62135596800"})]
    pull(archive(tar(*entries)), umask=0o077).ok()
    seen = {n: (dest / n).stat() for n in [*modes, "ns", "epoch", "before"]}
    want = {"0750": 0o750, "0600": 0o600, "0444": 0o444, "setuid": 0o755, "setgid": 0o755, "sticky": 0o644, "none": 0o400}
    assert {n: stat.S_IMODE(seen[n].st_mode) for n in want} == want
    assert {(s.st_uid, s.st_gid) for s in seen.values()} == {(os.getuid(), os.getgid())}
    assert seen["ns"].st_mtime_ns == 1706933106789012345 and seen["epoch"].st_mtime_ns == 0
    assert seen["before"].st_mtime_ns == -86400 * 10**9
    assert seen["0750"].st_mtime == producers.MTIME
    fetcher("verify", dest).ok()


def test_metadata_of_an_archive(pull, dest):
    """The tar's header is what counts: malformed or lying annotations change nothing. [L24] [L25]"""
    for note in ("{not json", json.dumps({"name": "x", "mode": 0o777, "size": 99999, "mtime": "yesterday", "typeflag": 0})):
        made = archive(tar(entry("w.bin", b"w", mode=0o600)), path="w.bin")
        made.layers[0]["annotations"][oci.METADATA] = note
        pull(made).ok()
        holds(dest, {"w.bin": b"w"})
        assert stat.S_IMODE((dest / "w.bin").stat().st_mode) == 0o600


def test_a_foreign_link_in_dest(faults, fetcher, tmp_path, dest):
    """A directory of the archive is a link out of DEST there: nothing is written behind it. [L18]"""
    outside = tmp_path / "outside"
    outside.mkdir()
    dest.mkdir()
    (dest / "sub").symlink_to(outside)
    r = fetcher.pull(serve(faults, archive(tar(entry("sub/w.bin", b"w"), GOOD))), dest)
    assert r.rc in (0, 24), r
    assert list(outside.iterdir()) == []


# -- what AIKit does -----------------------------------------------------------------------------


def test_labels_are_no_paths(pull, dest):
    """filepath "config" is a word; names come from the archive. [L27]"""
    pull(archive(tar_of({"config.json": b"1", "sub/tokenizer.json": b"2"}, record=10240), path="config", kind="weight.config")).ok()
    holds(dest, {"config.json": b"1", "sub/tokenizer.json": b"2"})


def test_base_name_and_nested_path(pull, dest):
    """One regular entry called as the path's last part goes where the path says; else names count. [L28]"""
    for entries, lands in (([entry("w.bin", b"w")], {"org/model/w.bin": b"w"}),
                           ([directory("./"), entry("./w.bin", b"w")], {"org/model/w.bin": b"w"}),
                           ([entry("v.bin", b"w")], {"v.bin": b"w"}),
                           ([entry("org/model/w.bin", b"w")], {"org/model/w.bin": b"w"}),
                           ([entry("w.bin", b"w"), entry("x", b"x")], {"w.bin": b"w", "x": b"x"})):
        pull(archive(tar(*entries, record=10240), path="org/model/w.bin", kind="weight")).ok()
        holds(dest, lands)


# -- formats of tar ------------------------------------------------------------------------------


def test_tars_of_gnu_and_python(faults, fetcher, tmp_path, dest):
    """Padding to 10 KiB, 1 MiB of it, long names and links. [L29] [O38]"""
    top = tmp_path / "src"
    long = "/".join(["directory-%02d" % i for i in range(20)])
    for name in ("a.bin", long + "/w.bin", "x" * 150):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(weights(name, 5000))
    (top / "link").symlink_to(long + "/w.bin")
    os.link(top / "a.bin", top / ("hard" + "y" * 140))
    for number, format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        for padding in (0, MIB):
            out = tmp_path / f"{number}-{padding}.tar"
            with tarfile.open(out, "w", format=format) as t:
                t.add(top, ".")
            body = out.read_bytes() + bytes(padding)
            fetcher.pull(serve(faults, archive(body)), dest).ok()
            assert tree(dest) == tree(top), (number, padding)


def base256(header, at, width, value):
    """A number as GNU writes those that do not fit; with the checksum."""
    header = bytearray(header)
    header[at:at + width] = b"\x80" + value.to_bytes(width - 1, "big")
    header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:512])
    return bytes(header)


def test_sizes_in_base_256(pull, dest):
    """[L29]"""
    body = weights(4, 5000)
    pull(archive(tar(base256(entry("w.bin", body)[:512], 124, 12, len(body)) + entry("w.bin", body)[512:], GOOD))).ok()
    holds(dest, {"w.bin": body, "good.bin": b"good"})


@pytest.mark.parametrize("size", [9 << 30, 1 << 62], ids=["9GiB", "4EiB"])
def test_a_size_that_the_layer_does_not_have(pull, dest, size):
    """Told as truncated or as too much; not allocated. [L29] [L30]"""
    for header in (base256(entry("w.bin")[:512], 124, 12, size), entry("w.bin", pax={"size": str(size)})):
        r = pull(archive(tar(GOOD, header, weights(1, 4096))))
        assert r.rc in (22, 23, 24), r
        nothing_published(dest)


def gnu_sparse(name, pieces, size):
    """GNU's old sparse header with up to four pieces [(offset, data)]."""
    data = b"".join(d for _, d in pieces)
    header = bytearray(entry(name, bytes(len(data)), kind=b"S", format=tarfile.GNU_FORMAT)[:512])
    for i, (offset, d) in enumerate(pieces):
        header[386 + 24 * i:386 + 24 * i + 24] = b"%011o\0%011o\0" % (offset, len(d))
    header[483:495] = b"%011o\0" % size
    header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:512])
    return bytes(header) + data + bytes(-len(data) % 512)


def test_sparse_entries(pull, fetcher, dest):
    """Holes stay holes: 64 MiB with two pages of data. [L29] [O38]"""
    size = 64 * MIB
    pieces = [(0, weights(1, 4096)), (32 * MIB, weights(2, 4096)), (size, b"")]
    pull(archive(tar(gnu_sparse("w.bin", pieces, size), GOOD))).ok()
    seen = (dest / "w.bin").stat()
    assert seen.st_size == size and seen.st_blocks * 512 < MIB
    with open(dest / "w.bin", "rb") as f:
        assert f.read(4096) == pieces[0][1] and f.read(4096) == bytes(4096)
        f.seek(32 * MIB)
        assert f.read(4096) == pieces[1][1]
    fetcher("verify", dest).ok()


def test_a_file_of_2_gib_and_a_byte(pull, dest):
    """All but its last byte is a hole. [L29] [L32]"""
    size = (1 << 31) + 1
    pull(archive(tar(gnu_sparse("w.bin", [(size - 1, b"x")], size), GOOD)), "--fsync", "never").ok()
    with open(dest / "w.bin", "rb") as f:
        f.seek(size - 3)
        assert f.read(10) == b"\0\0x"


def test_sparse_entry_of_tar_itself(pull, tmp_path, dest):
    """GNU tar --sparse, in the format of PAX 1.0. [L29]"""
    if not shutil.which("tar"):
        pytest.skip("no tar here")
    with open(tmp_path / "w.bin", "wb") as f:
        for at in (0, 5 * MIB, 40 * MIB):
            f.seek(at)
            f.write(weights(at, 10_000))
        f.truncate(48 * MIB)
    body = subprocess.run(["tar", "-C", tmp_path, "--sparse", "--format=posix", "-cf", "-", "w.bin"], check=True,
                          stdout=subprocess.PIPE).stdout
    pull(archive(body)).ok()
    assert (dest / "w.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()


# -- compressed streams --------------------------------------------------------------------------

FILES = {"w.bin": weights(7, 3 * MIB + 5), "config.json": b"{}"}
RAW = tar_of(FILES, record=10240)


def skippable(body=b"notes"):
    return struct.pack("<II", 0x184D2A53, len(body)) + body


HALF = len(RAW) // 2
STREAMS = {
    "gzip-members": ("tar+gzip", gzip.compress(RAW[:HALF], 1) + gzip.compress(b"") + gzip.compress(RAW[HALF:], 9)),
    "gzip-many-members": ("tar+gzip", b"".join(gzip.compress(RAW[i:i + 7777], 1) for i in range(0, len(RAW), 7777))),
    "gzip-stored": ("tar+gzip", gzip.compress(RAW, 0)),
    "zstd-frames": ("tar+zstd", zstd(RAW[:HALF]) + zstd(RAW[HALF:])),
    "zstd-skippable": ("tar+zstd", skippable() + zstd(RAW[:HALF]) + skippable(bytes(300_000)) + zstd(RAW[HALF:]) + skippable()),
    "zstd-stored": ("tar+zstd", zstd_frame(RAW)),
    "zstd-long": ("tar+zstd", zstd(RAW, "--long=27")),
    "zstd-19": ("tar+zstd", zstd(RAW, "-12", "--no-check")),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_in_several_pieces(pull, dest, name):
    """[L30] [O38]"""
    packing, body = STREAMS[name]
    pull(archive(body, packing)).ok()
    holds(dest, FILES)


def named_gzip(raw):
    """All optional fields of RFC 1952 2.3: extra, name, comment, header CRC."""
    head = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + struct.pack("<H", 6) + b"XX\2\0ab" + b"model.tar\0" + b"a comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    return head + deflate.compress(raw) + deflate.flush() + struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFFFFFF)


def test_gzip_with_every_header_field(pull, dest):
    """[L30]"""
    pull(archive(named_gzip(RAW), "tar+gzip")).ok()
    holds(dest, FILES)


BROKEN = {
    "tar-cut-in-data": ("tar", RAW[:HALF]),
    "tar-cut-between-entries": ("tar", entry("w.bin", b"w")),
    "tar-trailing": ("tar", RAW + b"trailing"),
    "tar-second-archive": ("tar", tar(GOOD) + tar(entry("hidden", b"x"))),
    "tar-checksum": ("tar", tar(GOOD, b"X" + entry("w", b"w")[1:])),
    "gzip-cut": ("tar+gzip", pack(RAW, "tar+gzip")[:-100_000]),
    "gzip-cut-in-trailer": ("tar+gzip", pack(RAW, "tar+gzip")[:-3]),
    "gzip-trailing": ("tar+gzip", pack(RAW, "tar+gzip") + b"trailing garbage"),
    "gzip-crc": ("tar+gzip", pack(RAW, "tar+gzip")[:-8] + b"\1\2\3\4" + pack(RAW, "tar+gzip")[-4:]),
    "gzip-second-member-cut": ("tar+gzip", pack(RAW, "tar+gzip") + gzip.compress(bytes(5000))[:-4]),
    "zstd-cut": ("tar+zstd", zstd(RAW)[:-100_000]),
    "zstd-cut-in-checksum": ("tar+zstd", zstd(RAW)[:-2]),
    "zstd-trailing": ("tar+zstd", zstd(RAW) + b"trailing garbage"),
    "zstd-damaged": ("tar+zstd", zstd(RAW)[:50_000] + bytes(64) + zstd(RAW)[50_064:]),
    "zstd-skippable-cut": ("tar+zstd", zstd(RAW) + skippable(bytes(500))[:-5]),
    "gzip-of-cut-tar": ("tar+gzip", gzip.compress(RAW[:HALF], 1)),
    "zstd-of-trailing-tar": ("tar+zstd", zstd(RAW + b"x")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_streams_that_are_broken(pull, dest, name):
    """The digest is right, the content is not: 22, and it is not tried for ever. [L30]"""
    packing, body = BROKEN[name]
    refused(pull(archive(body, packing)), 22, dest)


@pytest.mark.parametrize("packing, body, word", [
    ("tar+gzip", zstd(RAW), "zstd"), ("tar+gzip", RAW, "gzip"), ("tar+zstd", pack(RAW, "tar+gzip"), "gzip"),
    ("tar+zstd", RAW, "zstd"), ("tar", pack(RAW, "tar+gzip"), "gzip"), ("tar", zstd(RAW), "zstd"),
    ("tar", b"\xfd7zXZ\0" + bytes(2000), "xz"), ("tar", b"GGUF" + weights(1, 30_000), "tar"), ("tar", b"PK\3\4" + bytes(600), "zip"),
    ("tar+gzip", pack(b"GGUF" + weights(1, 30_000), "tar+gzip"), "tar"),
], ids=["zstd-as-gzip", "tar-as-gzip", "gzip-as-zstd", "tar-as-zstd", "gzip-as-tar", "zstd-as-tar", "xz", "gguf", "zip", "gguf.gz"])
def test_no_such_archive(pull, dest, packing, body, word):
    """[L31]; both sides are named."""
    refused(pull(archive(body, packing)), 25, dest, word)


def test_another_format_is_not_fetched_to_its_end(pull, faults, dest):
    """The first bytes say it, and no damage makes those. [L31]"""
    body = b"\xfd7zXZ\0" + bytes(64 << 20)
    refused(pull(archive(body, "tar+zstd")), 25, dest, "xz")
    assert faults.sent("blob") < len(body) / 2


@pytest.mark.parametrize("body", [b"x", b"\0" * 511, RAW[:100], b"X" + RAW[1:]],
                         ids=["one-byte", "511-zeros", "cut-in-header", "first-checksum"])
def test_hardly_an_archive(pull, dest, body):
    """[L31]"""
    r = pull(archive(body))
    assert r.rc in (22, 25), r
    nothing_published(dest)


@pytest.mark.parametrize("packing", producers.PACKINGS)
def test_an_archive_of_nothing(pull, dest, packing):
    """[L35]"""
    refused(pull(archive(pack(tar(record=10240), packing), packing)), 25, dest)


def test_a_zstd_window_beyond_all_measure(pull, dest):
    """2 GiB: refused, not allocated. [L30]"""
    frame = struct.pack("<IBB", 0xFD2FB528, 0x00, (31 - 10) << 3) + struct.pack("<I", len(b"xy") << 3 | 1)[:3] + b"xy"
    refused(pull(archive(frame, "tar+zstd")), 25, dest, "window")


def test_expansion_without_end(pull, dest):
    """2 GiB of zeros in 66 KB of zstd. [L30]"""
    block = struct.pack("<I", (128 << 10) << 3 | 1 << 1)[:3] + b"\0"  # RLE
    frame = struct.pack("<IBB", 0xFD2FB528, 0x00, (17 - 10) << 3) + block * (16384) + struct.pack("<I", 1)[:3]
    body = zstd_frame(base256(entry("w.bin")[:512], 124, 12, 2 << 30)) + frame
    began = time.monotonic()
    refused(pull(archive(body, "tar+zstd")), 24, dest, "times")
    assert time.monotonic() - began < 60


# -- oras' annotations ---------------------------------------------------------------------------


def test_unpack_false_is_a_file(pull, dest):
    """[L34]"""
    made = oras_folder("model.tar.gz", {"a": b"1"}, **{producers.UNPACK: "false"})
    pull(made).ok()
    holds(dest, {"model.tar.gz": made.blobs[0]})


def test_inner_digest_that_does_not_hold(pull, dest):
    """The layer's own digest is right, that of the tar inside is not. [L34]"""
    made = oras_folder("model", {"a": b"1"}, **{producers.INNER: "sha256:" + "0" * 64})
    refused(pull(made), 22, dest)


def test_title_dot(pull, dest):
    """[L34]"""
    made = oras_folder(".", {"a": b"1", "b/c": b"2"})
    pull(made).ok()
    holds(dest, {"a": b"1", "b/c": b"2"})


# -- choosing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags, names", [
    (["--include", "*.json"], {"config.json", "sub/tokenizer.json"}),
    (["--include", "sub/"], {"sub/tokenizer.json", "sub/w.bin"}),
    (["--exclude", "*.bin"], {"config.json", "sub/tokenizer.json", "README.md"}),
    (["--include", "*.json", "--exclude", "sub/**"], {"config.json"}),
    (["--include", r"big\[1\].bin"], {"big[1].bin"}),
    (["--include", "**/w.bin"], {"sub/w.bin"}),
], ids=lambda x: " ".join(x) if isinstance(x, list) else "")
@pytest.mark.parametrize("packing", ["tar", "tar+zstd"])
def test_globs_reach_inside(pull, dest, packing, flags, names):
    """[L48]"""
    files = {"config.json": b"c", "big[1].bin": weights(1, MIB), "sub/tokenizer.json": b"t", "sub/w.bin": b"w", "README.md": b"r"}
    made = archive(pack(tar_of(files), packing), packing)
    pull(made, *flags).ok()
    holds(dest, {n: files[n] for n in names})
    assert marker(dest)["files"] == len(names)


def test_globs_that_leave_nothing(pull, dest):
    """[L48]"""
    refused(pull(archive(tar_of({"a.bin": b"1"})), "--include", "*.gguf"), 25, dest)
    refused(pull(archive(tar_of({"a.bin": b"1"})), "--exclude", "**"), 25, dest)


def test_another_selection_of_the_same_layer(pull, dest):
    """What was left out is fetched when it is wanted, what is not wanted any more goes."""
    files = {"a.json": b"a", "b.bin": weights(1, 50_000)}
    for flags, names in ((["--include", "*.json"], ["a.json"]), ([], files), (["--exclude", "*.json"], ["b.bin"])):
        pull(archive(tar_of(files)), *flags).ok()
        holds(dest, {n: files[n] for n in names})


def asked(faults):
    return {r.digest for r in faults.gets("blob")}


@pytest.mark.parametrize("flags, kinds", [
    (["--type", "weight"], {"weight"}), (["--type", "config", "--type", "doc"], {"weight.config", "doc"}),
    (["--type", "dataset", "--type", "code"], {"dataset", "code"}),
], ids=lambda x: " ".join(x) if isinstance(x, list) else "")
@pytest.mark.parametrize("prefix", ["cncf", "cnai"])
def test_types(faults, pull, dest, prefix, flags, kinds):
    """Layers of other kinds are not fetched."""
    made = producers.modelpack_all_types(prefix)
    pull(made, *flags).ok()
    holds(dest, {n: b for n, b in made.files.items() if n.split("/")[0] in kinds})
    want = {x["digest"] for x in made.layers if x["annotations"][f"org.{prefix}.model.filepath"].split("/")[0] in kinds}
    assert asked(faults) == want


def test_types_of_kits(faults, pull, dest):
    made = producers.kitops(producers.model(size=20_000))
    pull(made, "--type", "code", "--type", "doc").ok()
    holds(dest, {n: made.files[n] for n in ("code/modeling.py", "README.md")})
    assert len(asked(faults) - {made.manifest["config"]["digest"]}) == 2
    pull(made, "--type", "nonsense").exits(2)


def test_layers_of_which_nothing_is_wanted_are_not_fetched(faults, pull, dest):
    """By the one file's path, the directory of oras, olot's annotation, the prefix of an old kit. [L48]"""
    files = producers.model(size=30_000)
    for made, more, left in ((producers.modelpack(files, "tar"), "x", 5), (producers.olot(files, "tar+gzip"), "x", 5),
                             (producers.kitops_nested_old(), "weights/", 3)):
        faults.forget()
        pull(made, "--exclude", "*.safetensors", "--exclude", "README.md", "--exclude", more).ok()
        assert not [n for n in files_in(dest) if n.endswith((".safetensors", "README.md"))]
        assert len(asked(faults) - {made.manifest["config"]["digest"]}) == left
    both = two(tar(entry("x", b"x")), ("config.json", b"{}"))
    folder = oras_folder("weights", {"w.bin": weights(1, 5000)})
    both.manifest["layers"].append(folder.layers[0])
    both.blobs.append(folder.blobs[0])
    faults.forget()
    pull(both, "--exclude", "weights/").ok()
    holds(dest, {"x": b"x", "config.json": b"{}"})
    assert folder.layers[0]["digest"] not in asked(faults)


def test_layout_as(pull, dest):
    """The same artifact by other rules. [L33]"""
    body = tar(entry("a", b"1"))
    layer = oci.titled(body, "model.tar")
    made = Made(oci.manifest([layer]), [body], {})
    for word, lands in (("auto", {"model.tar": body}), ("oras", {"model.tar": body}), ("raw", {"model.tar": body}),
                        ("modelpack", {"a": b"1"})):
        pull(made, "--layout-as", word).ok()
        holds(dest, lands)
    made = image_of(tar(entry("models/a", b"1"), entry("b", b"2")))
    pull(made, "--layout-as", "raw").ok()
    holds(dest, {oci.digest_of(made.blobs[0]).replace(":", "-"): made.blobs[0]})
    pull(made, "--layout-as", "kitops").exits(2)
    unlabelled = Made(oci.manifest([descriptor(made.blobs[0])]), made.blobs[:1], {})
    pull(unlabelled).exits(25)
    pull(unlabelled, "--layout-as", "image").ok()
    holds(dest, {"a": b"1"})


def test_strict(pull, dest):
    """A layer of unknown type without a name: a warning, or with --strict an error. [L37]"""
    made = two(tar(entry("a", b"1")), ("b", b"2"))
    made.manifest["layers"].append(descriptor(b"?", "application/vnd.example.unknown"))
    made.blobs.append(b"?")
    r = pull(made).ok()
    holds(dest, {"a": b"1", "b": b"2"})
    assert any(x["level"] == "warn" and "vnd.example.unknown" in x["msg"] for x in r.log), r
    assert "vnd.example.unknown" in last_words(pull(made, "--strict", "--exclude", "b").exits(25))


# -- images --------------------------------------------------------------------------------------

BASE = tar(directory("models/"), entry("models/a", b"a1"), entry("models/b", b"b1"), entry("models/d/x", b"x1"),
           entry("models/d/y", b"y1"), symlink("models/l", "a"), entry("usr/bin/x", b"x"))


@pytest.mark.parametrize("second, lands", [
    ([entry("models/a", b"a2")], {"a": b"a2", "b": b"b1", "d/x": b"x1", "d/y": b"y1"}),
    ([entry("models/.wh.a")], {"b": b"b1", "d/x": b"x1", "d/y": b"y1"}),
    ([entry("models/.wh.d")], {"a": b"a1", "b": b"b1"}),
    ([entry("models/d/.wh..wh..opq"), entry("models/d/z", b"z2")], {"a": b"a1", "b": b"b1", "d/z": b"z2"}),
    ([entry("models/d/z", b"z2"), entry("models/d/.wh..wh..opq")], {"a": b"a1", "b": b"b1", "d/z": b"z2"}),
    ([entry(".wh.models"), entry("models/c", b"c2")], {"c": b"c2"}),
    ([entry("models/.wh.d"), entry("models/d", b"now a file")], {"a": b"a1", "b": b"b1", "d": b"now a file"}),
    ([entry("models/d", b"now a file")], {"a": b"a1", "b": b"b1", "d": b"now a file"}),
    ([directory("models/a"), entry("models/a/x", b"x2")], {"a/x": b"x2", "b": b"b1", "d/x": b"x1", "d/y": b"y1"}),
    ([entry("models/.wh.none"), entry("models/c", b"c")], {"a": b"a1", "b": b"b1", "c": b"c", "d/x": b"x1", "d/y": b"y1"}),
    ([entry("./models/.wh..wh.aufs"), entry("/models/c", b"c")], {"a": b"a1", "b": b"b1", "c": b"c", "d/x": b"x1", "d/y": b"y1"}),
    ([entry("usr/.wh.bin")], {"a": b"a1", "b": b"b1", "d/x": b"x1", "d/y": b"y1"}),
], ids=["replace", "whiteout", "directory", "opaque", "opaque-last", "all", "whiteout-and-file", "file-over-directory",
        "directory-over-file", "of-nothing", "aufs-and-absolute", "elsewhere"])
def test_whiteouts(pull, dest, second, lands):
    """Across layers, in any order within one. [L47]"""
    pull(image_of(BASE, tar(*second))).ok()
    holds(dest, lands)


def test_a_file_left_out_hides_a_lower_directory(pull, dest):
    """It stands over the directory in the image, so nothing of that is there; directories meet. [L47]"""
    pull(image_of(BASE, tar(entry("models/d", b"now a file"))), "--exclude", "d").ok()
    holds(dest, {"a": b"a1", "b": b"b1"})
    pull(image_of(BASE, tar(directory("models/d"), entry("models/c", b"c"))), "--exclude", "d").ok()
    holds(dest, {"a": b"a1", "b": b"b1", "c": b"c", "d/x": b"x1", "d/y": b"y1"})


def test_a_whiteout_in_an_artifact_is_a_file(pull, dest):
    """Only images have whiteouts. [L47]"""
    pull(archive(tar(entry("a", b"1"), entry(".wh.a", b"")))).ok()
    holds(dest, {"a": b"1", ".wh.a": b""})


@pytest.mark.parametrize("names", ["models/{}", "./models/{}", "/models/{}", ".//models//{}"])
def test_spellings_of_the_subtree(pull, dest, names):
    """[L47]"""
    pull(image_of(tar(directory("./"), entry(names.format("a/b"), b"1"), entry("./modelsx/c", b"2")))).ok()
    holds(dest, {"a/b": b"1"})


@pytest.mark.parametrize("subdir, lands", [("/data", {"w": b"w"}), ("data/", {"w": b"w"}), ("/", {"data/w": b"w", "etc/x": b"x"}),
                                           ("data/w", None), ("/models", None)])
def test_subdir(pull, dest, subdir, lands):
    """[L47]"""
    r = pull(image_of(tar(entry("data/w", b"w"), entry("etc/x", b"x"))), "--subdir", subdir)
    if lands:
        r.ok()
        holds(dest, lands)
    else:
        refused(r, 25, dest, "--subdir")


def test_an_image_without_models(pull, dest):
    """[L35] [L47]: an error that says what to do, not success with nothing."""
    refused(pull(image_of(tar(entry("app/main.py", b"x")))), 25, dest, "models", "--subdir")


def test_links_of_images(pull, dest):
    """"/" is the image's root; what leads out of the subtree is refused. [L19] [L20]"""
    pull(image_of(tar(entry("models/d/w", b"w"), symlink("models/abs", "/models/d/w"), symlink("models/d/up", "../../models/d")))).ok()
    assert (dest / "abs").read_bytes() == b"w" and os.path.realpath(dest / "d/up") == str(dest / "d")
    for target in ("/etc/passwd", "../../etc/passwd", "../..", "/"):
        r = pull(image_of(tar(entry("models/w", b"w"), symlink("models/x", target))))
        r.exits(24)
    until(lambda: marker(dest) is not None)


def test_links_across_layers_of_an_image(pull, dest):
    """A later layer's file below an earlier layer's link would be written through it. [L19]"""
    lower = tar(entry("models/real/w", b"w"), symlink("models/l", "real"))
    refused(pull(image_of(lower, tar(entry("models/l/evil", b"x")))), 24, dest)


def test_layers_that_are_empty_or_repeat(pull, dest):
    """Build tools leave both in images."""
    nothing = tar(record=10240)
    layer = tar(entry("models/a", b"1"))
    pull(image_of(nothing, layer, nothing, tar(entry("models/.wh.a")), layer)).ok()
    holds(dest, {"a": b"1"})
