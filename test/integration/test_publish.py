# SPDX-License-Identifier: Apache-2.0
"""The volume: layouts, marker, lock, second pulls, changes of digest, damage, probe, wait, verify,
gc. [K..] cases of the reference on Kubernetes and security."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import threading
import time

import pytest

from lib import oci
from lib.content import Content, data, files_in, tree
from lib.look import KEYS, Reader, holds, last_words, marker, nothing_published, partials, sha, \
    until

MIB = 1 << 20
OLD = {"config.json": b"old", "same.bin": Content(1, 2 * MIB), "gone/only-old": b"o"}
NEW = {"config.json": b"new!", "same.bin": Content(1, 2 * MIB), "moved/twin.bin": Content(1, 2 * MIB),
       "added": b"n"}


def leaf(digest):
    return digest.replace(":", "-")


@pytest.fixture(scope="module")
def old(registry):
    return oci.push(registry, "publish/model", "old", OLD)


@pytest.fixture(scope="module")
def new(registry):
    return oci.push(registry, "publish/model", "new", NEW)


# -- the marker ----------------------------------------------------------------------------------


def test_marker(old, fetcher, dest):
    """Stable keys in a stable order."""
    fetcher.pull(old.ref, dest).ok()
    text = (dest / ".fetcher" / "ready.json").read_text()
    m = json.loads(text)
    assert [k for k in m if k in KEYS] == KEYS
    assert m["schema"] == 1 and m["ref"] == old.ref and m["digest"] == old.digest
    assert m["mediaType"] == oci.MANIFEST and m["path"] == "."
    assert m["artifactType"] == "application/vnd.unknown.artifact.v1"
    assert (m["files"], m["bytes"], m["downloaded"]) == (3, 2 * MIB + 4, 2 * MIB + 4)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", m["publishedAt"])
    assert m["durationMs"] >= 0 and m["previous"] is None and m["generation"] == 1
    assert m["fetcher"] and text.endswith("\n")
    assert (dest / ".fetcher" / "ready.json").stat().st_mode & 0o777 == 0o644


def test_only_our_names_stand_outside(old, fetcher, dest):
    """Nothing of fetcher's is outside .fetcher/ but current. (Design 3)"""
    fetcher.pull(old.ref, dest).ok()
    assert {p.name for p in dest.iterdir()} == {".fetcher", "config.json", "same.bin", "gone"}
    assert {p.name for p in (dest / ".fetcher").iterdir()} <= {
        "ready.json", "lock", "partial", "versions", "meta"}
    assert partials(dest) == {}


def test_marker_is_never_partly_readable(old, new, fetcher, dest):
    """[K52] and never names a digest whose files are not there."""
    known = {n: {sha(v)} | ({sha(NEW[n])} if n in NEW else set()) for n, v in OLD.items()}
    known.update({n: {sha(v)} for n, v in NEW.items() if n not in OLD})
    names = {old.digest: list(OLD), new.digest: list(NEW)}
    with Reader(dest, known, complete=lambda m: names[m["digest"]]) as reader:
        for pushed in (old, new, old, new):
            fetcher.pull(pushed.ref, dest).ok()
        until(lambda: reader.rounds > 20)
    assert reader.wrong == []
    assert reader.seen == set(OLD) | set(NEW)


# -- second pulls --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_second_pull_moves_nothing(old, wire, fetcher, dest, layout):
    """[K2]: no blob, at most one or two questions about the manifest, the marker untouched."""
    fetcher.pull(old.on(wire), dest, "--layout", layout).ok()
    before = (dest / ".fetcher" / "ready.json").stat()
    seen = tree(dest)
    wire.reset()
    r = fetcher.pull(old.on(wire), dest, "--layout", layout, "--output", "json").ok()
    assert r.json["upToDate"] is True
    assert wire.gets("/blobs/") == [] and len(wire.requests) <= 2
    after = (dest / ".fetcher" / "ready.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert tree(dest) == seen


def test_second_pull_by_digest_asks_nobody(old, wire, fetcher, dest):
    ref = old.on(wire, tag=False)
    fetcher.pull(ref, dest).ok()
    wire.reset()
    fetcher.pull(ref, dest).ok()
    assert len(wire.requests) <= 1 and wire.gets("/blobs/") == []


def test_changed_digest_reuses_blobs(old, new, wire, fetcher, dest):
    """What is on the volume is not fetched again, also under another name; files that only the old
    version had go; the generation counts. """
    fetcher.pull(old.on(wire), dest).ok()
    inode = (dest / "same.bin").stat().st_ino
    wire.reset()
    r = fetcher.pull(new.on(wire), dest, "--output", "json").ok()
    holds(dest, NEW)
    assert not (dest / "gone").exists()
    assert wire.body("/blobs/") == len(b"new!") + len(b"n")
    assert (dest / "same.bin").stat().st_ino == inode
    m = marker(dest)
    assert (m["previous"], m["generation"], m["digest"]) == (old.digest, 2, new.digest)
    assert r.json["reused"] >= 2 * MIB and m["downloaded"] == 5


def test_changed_digest_reuses_blobs_in_versions(old, new, wire, fetcher, dest):
    fetcher.pull(old.on(wire), dest, "--layout", "versions").ok()
    wire.reset()
    fetcher.pull(new.on(wire), dest, "--layout", "versions").ok()
    holds(dest / "current", NEW)
    assert wire.body("/blobs/") == len(b"new!") + len(b"n")
    holds(dest / ".fetcher/versions" / leaf(old.digest), OLD)


def test_back_and_forth(old, new, wire, fetcher, dest):
    """A version that is still on the volume is published again without a byte."""
    for pushed in (old, new):
        fetcher.pull(pushed.on(wire), dest, "--layout", "versions").ok()
    wire.reset()
    fetcher.pull(old.on(wire), dest, "--layout", "versions").ok()
    holds(dest / "current", OLD)
    assert wire.gets("/blobs/") == []
    assert marker(dest)["generation"] == 3


def test_marker_goes_first_when_the_digest_changes(faults, fetcher, dest):
    """While DEST is between two versions nobody takes it for ready. (Design 3)"""
    one = faults.artifact({"a": b"1", "b": b"keep"}, tag="one")
    two = faults.artifact({"a": data(2, 100_000), "b": b"keep"}, tag="two")
    fetcher.pull(one.ref, dest).ok()
    go = threading.Event()
    faults.rule(two.digest_of("a"), hold_at=(5000, go))
    run = fetcher.start("pull", "--plain-http", two.ref, dest)
    assert faults.wait(lambda f: f.stalled), run.err()
    assert marker(dest) is None
    fetcher("probe", dest).exits(21)
    go.set()
    run.wait().ok()
    holds(dest, {"a": data(2, 100_000), "b": b"keep"})
    assert marker(dest)["previous"] == one.digest


def test_versions_keep_the_old_one_ready_until_the_new_one_is(faults, fetcher, dest):
    one = faults.artifact({"a": b"1"}, tag="one")
    two = faults.artifact({"a": data(2, 100_000)}, tag="two")
    fetcher.pull(one.ref, dest, "--layout", "versions").ok()
    go = threading.Event()
    faults.rule(two.digest_of("a"), hold_at=(5000, go))
    run = fetcher.start("pull", "--plain-http", "--layout", "versions", two.ref, dest)
    assert faults.wait(lambda f: f.stalled), run.err()
    holds(dest / "current", {"a": b"1"})
    go.set()
    run.wait().ok()
    holds(dest / "current", {"a": data(2, 100_000)})


def test_file_appears_when_it_is_verified(faults, fetcher, dest):
    """Layout flat: each as soon as it is verified, the marker last."""
    big = data(2, 2 * MIB)
    art = faults.artifact({"small": b"s", "big": big})
    go = threading.Event()
    faults.rule(art.digest_of("big"), nth=3, hold_at=(100, go))
    run = fetcher.start("pull", "--plain-http", "--range-size", "256KiB", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), run.err()
    until(lambda: (dest / "small").exists())
    assert files_in(dest) == {"small": sha(b"s")}
    assert marker(dest) is None
    go.set()
    run.wait().ok()
    holds(dest, {"small": b"s", "big": big})


def test_no_reader_sees_a_half_file(haproxy_capped, registry, push, fetcher, dest):
    """A reader loop while files arrive, are replaced and removed, in both layouts."""
    one = {"w.bin": Content(5, 12 * MIB), "c": b"1"}
    two = {"w.bin": Content(6, 12 * MIB), "c": b"2", "extra": b"x"}
    a = push(registry, "publish/reader", "a", one)
    b = push(registry, "publish/reader", "b", two)
    names = {a.digest: list(one), b.digest: list(two)}
    known = {n: {sha(v) for s in (one, two) if n in s for v in [s[n]]} for n in {*one, *two}}
    with Reader(dest, known, complete=lambda m: names[m["digest"]]) as reader:
        for pushed in (a, b):
            fetcher.pull(pushed.on(haproxy_capped), dest, "--range-size", "1MiB").ok()
    assert reader.wrong == [] and reader.rounds > 5


def test_link_is_never_missing_while_it_swaps(old, new, fetcher, dest):
    """[K19]: always the one version or the other, whole."""
    fetcher.pull(old.ref, dest, "--layout", "versions").ok()
    wrong, done = [], threading.Event()
    whole = {leaf(old.digest): set(OLD), leaf(new.digest): set(NEW)}

    def read():
        while not done.is_set():
            try:
                fd = os.open(dest / "current", os.O_RDONLY | os.O_DIRECTORY)
            except OSError as e:
                wrong.append(e)
                continue
            try:
                name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
                seen = {n for n in whole[name] if os.access(n, os.R_OK, dir_fd=fd)}
                if seen != whole[name]:
                    wrong.append((name, seen))
            finally:
                os.close(fd)
    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(4):
        fetcher.pull(new.ref, dest, "--layout", "versions").ok()
        fetcher.pull(old.ref, dest, "--layout", "versions").ok()
    done.set()
    thread.join()
    assert wrong == []


def test_open_files_keep_the_old_content(old, new, fetcher, dest):
    """Replaced by rename, never rewritten in place. [L54] [C39]"""
    fetcher.pull(old.ref, dest).ok()
    with open(dest / "config.json", "rb") as held:
        fetcher.pull(new.ref, dest).ok()
        assert held.read() == b"old"
    assert (dest / "config.json").read_bytes() == b"new!"


# -- layout versions -----------------------------------------------------------------------------


def test_versions(old, fetcher, dest):
    fetcher.pull(old.ref, dest, "--layout", "versions").ok()
    assert os.readlink(dest / "current") == f".fetcher/versions/{leaf(old.digest)}"
    holds(dest / "current", OLD)
    m = marker(dest)
    assert m["path"] == "current" and m["digest"] == old.digest
    assert {p.name for p in dest.iterdir()} == {".fetcher", "current"}
    fetcher("probe", dest).ok()
    fetcher("verify", dest).ok()


def test_a_selection_has_a_version_of_its_own(old, fetcher, dest):
    fetcher.pull(old.ref, dest, "--layout", "versions").ok()
    fetcher.pull(old.ref, dest, "--layout", "versions", "--include", "*.json").ok()
    holds(dest / "current", {"config.json": b"old"})
    assert re.fullmatch(leaf(old.digest) + "-[0-9a-f]{8}", os.path.basename(
        os.readlink(dest / "current")))
    holds(dest / ".fetcher/versions" / leaf(old.digest), OLD)


def test_from_flat_to_versions_and_back(old, wire, fetcher, dest):
    fetcher.pull(old.on(wire), dest).ok()
    wire.reset()
    fetcher.pull(old.on(wire), dest, "--layout", "versions").ok()
    holds(dest / "current", OLD)
    fetcher("verify", dest).ok()
    fetcher.pull(old.on(wire), dest).ok()
    holds(dest, OLD)
    fetcher("verify", dest).ok()
    assert wire.gets("/blobs/") == []


# -- what stands in the way ----------------------------------------------------------------------


def test_foreign_files_are_not_touched(old, new, fetcher, dest):
    """[K7] [L49]"""
    (dest / "lost+found").mkdir(parents=True)
    (dest / "mine.txt").write_text("mine")
    (dest / "gone").mkdir()
    (dest / "gone" / "mine-too").write_text("mine")
    fetcher.pull(old.ref, dest).ok()
    fetcher.pull(new.ref, dest).ok()
    fetcher("gc", dest).ok()
    assert (dest / "lost+found").is_dir()
    assert (dest / "mine.txt").read_text() == "mine"
    assert (dest / "gone" / "mine-too").read_text() == "mine"
    assert not (dest / "gone" / "only-old").exists()


def test_a_file_the_user_changed_is_not_removed(old, new, fetcher, dest):
    """Only what is still as it was published goes with its version."""
    fetcher.pull(old.ref, dest).ok()
    (dest / "gone" / "only-old").write_text("now it is mine")
    fetcher.pull(new.ref, dest).ok()
    assert (dest / "gone" / "only-old").read_text() == "now it is mine"
    holds(dest, {**NEW, "gone/only-old": b"now it is mine"})


def test_a_folder_in_the_place_of_a_file(old, fetcher, dest):
    (dest / "config.json" / "x").mkdir(parents=True)
    r = fetcher.pull(old.ref, dest)
    assert r.rc in (24, 40), r
    assert "config.json" in last_words(r)
    assert (dest / "config.json" / "x").is_dir() and marker(dest) is None


def test_a_link_in_the_place_of_a_file(old, fetcher, dest, tmp_path):
    """Replaced or refused; never followed. [K6] [K42]"""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    dest.mkdir()
    (dest / "config.json").symlink_to(victim)
    r = fetcher.pull(old.ref, dest)
    assert r.rc in (0, 24, 40), r
    assert victim.read_text() == "untouched"
    if r.rc == 0:
        assert not (dest / "config.json").is_symlink()
        holds(dest, OLD)


def test_a_link_in_the_place_of_a_folder(old, fetcher, dest, tmp_path):
    """A parent that leads out of DEST. [L18] [C37]"""
    outside = tmp_path / "outside"
    outside.mkdir()
    dest.mkdir()
    (dest / "gone").symlink_to(outside)
    r = fetcher.pull(old.ref, dest)
    assert r.rc in (24, 40), r
    assert list(outside.iterdir()) == []
    assert marker(dest) is None


@pytest.mark.parametrize("name", [".fetcher", ".fetcher/partial", ".fetcher/meta", ".fetcher/lock",
                                  ".fetcher/versions"])
def test_links_within_our_own_folder(old, fetcher, dest, tmp_path, name):
    """A neighbour on the volume cannot lead the writer away."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("untouched")
    (dest / name).parent.mkdir(parents=True, exist_ok=True)
    (dest / name).symlink_to(outside / "file" if name.endswith("lock") else outside)
    r = fetcher.pull(old.ref, dest, "--layout", "versions")
    assert r.rc in (0, 24, 40), r
    assert [p.name for p in outside.iterdir()] == ["keep"]
    assert (outside / "keep").read_text() == "untouched"


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_something_in_the_place_of_current(old, fetcher, dest, tmp_path, what):
    """[K6]"""
    outside = tmp_path / "outside"
    outside.mkdir()
    dest.mkdir()
    if what == "file":
        (dest / "current").write_text("mine")
    elif what == "folder":
        (dest / "current" / "mine").mkdir(parents=True)
    else:
        (dest / "current").symlink_to(outside)
    r = fetcher.pull(old.ref, dest, "--layout", "versions")
    assert r.rc in (0, 24, 40), r
    assert list(outside.iterdir()) == []
    if what == "folder":
        assert (dest / "current" / "mine").is_dir()
    if r.rc == 0:
        holds(dest / "current", OLD)


def test_dest_is_a_file(old, fetcher, tmp_path):
    (tmp_path / "file").write_text("x")
    r = fetcher.pull(old.ref, tmp_path / "file").exits(40)
    assert "file" in last_words(r)
    assert (tmp_path / "file").read_text() == "x"


def test_odd_things_in_the_place_of_a_file(old, fetcher, dest):
    """A FIFO or a socket does not hang the writer."""
    dest.mkdir()
    os.mkfifo(dest / "config.json")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.getcwd()
        os.chdir(dest)
        try:
            sock.bind("same.bin")
        finally:
            os.chdir(here)
        r = fetcher.pull(old.ref, dest, timeout=30)
    assert r.rc in (0, 24, 40), r


# -- damage --------------------------------------------------------------------------------------


DAMAGE = {
    "file deleted": lambda d: (d / "config.json").unlink(),
    "file truncated": lambda d: os.truncate(d / "same.bin", 100),
    "file grown": lambda d: open(d / "same.bin", "ab").write(b"x"),
    "file rewritten": lambda d: (d / "config.json").write_bytes(b"OLD"),
    "folder deleted": lambda d: shutil.rmtree(d / "gone"),
    "meta deleted": lambda d: shutil.rmtree(d / ".fetcher" / "meta"),
    "meta garbage": lambda d: [p.write_text("{") for p in (d / ".fetcher" / "meta").iterdir()],
    "marker deleted": lambda d: (d / ".fetcher" / "ready.json").unlink(),
    "marker garbage": lambda d: (d / ".fetcher" / "ready.json").write_text("{\"schema\":1,"),
    "marker empty": lambda d: (d / ".fetcher" / "ready.json").write_text(""),
    "marker of nothing": lambda d: (d / ".fetcher" / "ready.json").write_text(
        (d / ".fetcher" / "ready.json").read_text().replace("sha256:", "sha256:0", 1)),
    "all of .fetcher": lambda d: shutil.rmtree(d / ".fetcher"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_repaired(old, wire, fetcher, dest, what):
    """[K5]: the next pull sees it and mends it."""
    fetcher.pull(old.on(wire), dest).ok()
    wire.reset()
    DAMAGE[what](dest)
    fetcher.pull(old.on(wire), dest).ok()
    holds(dest, OLD)
    assert marker(dest)["digest"] == old.digest
    fetcher("verify", dest).ok()
    if what in ("file deleted", "folder deleted", "file rewritten"):
        assert wire.body("/blobs/") < 1000, "more was fetched than was lost"


def test_a_file_that_became_a_link_is_not_written_through(old, fetcher, dest):
    """Somebody put it there: it is named and left alone."""
    fetcher.pull(old.ref, dest).ok()
    (dest / "config.json").unlink()
    (dest / "config.json").symlink_to("same.bin")
    assert "config.json" in last_words(fetcher.pull(old.ref, dest).exits(24))
    assert sha(OLD["same.bin"]) == files_in(dest)["same.bin"]


VERSION_DAMAGE = {
    "link deleted": lambda d, v: (d / "current").unlink(),
    "link to nothing": lambda d, v: ((d / "current").unlink(),
                                     (d / "current").symlink_to(
                                         ".fetcher/versions/sha256-" + "0" * 64)),
    "version deleted": lambda d, v: shutil.rmtree(v),
    "file of it deleted": lambda d, v: (v / "config.json").unlink(),
    "file of it truncated": lambda d, v: os.truncate(v / "same.bin", 5),
}


@pytest.mark.parametrize("what", VERSION_DAMAGE)
def test_damage_of_versions_is_repaired(old, fetcher, dest, what):
    fetcher.pull(old.ref, dest, "--layout", "versions").ok()
    VERSION_DAMAGE[what](dest, dest / ".fetcher/versions" / leaf(old.digest))
    if "file of it" not in what:
        fetcher("probe", dest).exits(21)
    fetcher.pull(old.ref, dest, "--layout", "versions").ok()
    holds(dest / "current", OLD)
    fetcher("verify", dest).ok()


def test_stale_temporary_names_are_swept(old, fetcher, dest):
    """[K4]: what a crash left does not wedge the next run and does not stay."""
    fetcher.pull(old.ref, dest).ok()
    for folder in (dest / ".fetcher", dest / ".fetcher" / "partial", dest):
        (folder / ".tmp-0123456789abcdef").write_text("left")
        (folder / ".tmp-fedcba9876543210").symlink_to("nowhere")
    (dest / "config.json").unlink()
    fetcher.pull(old.ref, dest).ok()
    assert not (dest / ".fetcher" / ".tmp-0123456789abcdef").exists()
    assert partials(dest) == {}


# -- the lock ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_second_fetcher_waits_and_finds_the_work_done(faults, fetcher, dest, layout):
    """[K8] [L52]"""
    art = faults.artifact({"w": data(2, MIB), "c": b"x"})
    go = threading.Event()
    faults.rule(art.digest_of("w"), nth=1, hold_at=(1000, go))
    args = ["pull", "--plain-http", "--layout", layout, "--range-size", "256KiB", "--output", "json",
            art.ref, dest]
    first = fetcher.start(*args)
    assert faults.wait(lambda f: f.stalled), first.err()
    second = fetcher.start(*args)
    until(lambda: "lock" in second.err() or "wait" in second.err())
    assert second.alive() and marker(dest) is None
    go.set()
    assert first.wait().ok().json["upToDate"] is False
    assert second.wait().ok().json["upToDate"] is True
    assert len([r for r in faults.gets("blob") if r.digest == art.digest_of("c")]) == 1


def test_many_fetchers_at_once(old, wire, fetcher, dest):
    runs = [fetcher.start("pull", "--plain-http", old.on(wire), dest) for _ in range(6)]
    for run in runs:
        run.wait().ok()
    holds(dest, OLD)
    assert wire.body("/blobs/") == 2 * MIB + 4
    assert marker(dest)["generation"] == 1


def test_lock_timeout_names_the_holder(faults, fetcher, dest):
    art = faults.artifact({"w": data(2, MIB)})
    go = threading.Event()
    faults.rule("blob", nth=1, hold_at=(1000, go))
    first = fetcher.start("pull", "--plain-http", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), first.err()
    for limit in ("0", "200ms"):
        r = fetcher.pull(art.ref, dest, "--lock-timeout", limit, timeout=30).exits(41)
        assert str(first.pid) in last_words(r)
    assert fetcher("gc", "--lock-timeout", "0", dest).rc == 41
    go.set()
    first.wait().ok()


def test_lock_of_a_dead_fetcher_is_no_lock(faults, fetcher, dest):
    art = faults.artifact({"w": data(2, MIB)})
    go = threading.Event()
    faults.rule("blob", nth=1, hold_at=(1000, go))
    first = fetcher.start("pull", "--plain-http", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), first.err()
    first.kill()
    fetcher.pull(art.ref, dest, "--lock-timeout", "0").ok()
    go.set()


def test_waiting_for_the_lock_can_be_stopped(faults, fetcher, dest):
    art = faults.artifact({"w": data(2, MIB)})
    go = threading.Event()
    faults.rule("blob", nth=1, hold_at=(1000, go))
    first = fetcher.start("pull", "--plain-http", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), first.err()
    second = fetcher.start("pull", "--plain-http", art.ref, dest)
    until(lambda: "lock" in second.err() or "wait" in second.err())
    second.terminate(5).exits(143)
    go.set()
    first.wait().ok()


# -- probe, wait, verify -------------------------------------------------------------------------


def test_probe(old, fetcher, dest, tmp_path):
    for place in (tmp_path / "nothing", tmp_path):
        assert "" != fetcher("probe", place).exits(21).err
    r = fetcher("probe", "-q", tmp_path / "nothing").exits(21)
    assert r.out == ""
    assert not (tmp_path / "nothing").exists()
    fetcher.pull(old.ref, dest).ok()
    assert old.digest in fetcher("probe", dest).ok().out
    r = fetcher("probe", "-q", dest).ok()
    assert (r.out, r.err) == ("", "")
    assert fetcher("probe", "--output", "json", dest).ok().json["digest"] == old.digest


def test_probe_needs_no_network_and_no_write(old, fetcher, dest):
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-n", "true"], capture_output=True).returncode:
        pytest.skip("no network namespace to be had here")
    fetcher.pull(old.ref, dest).ok()
    before = tree(dest, hidden=True)
    fetcher("probe", dest, wrap=[unshare, "-n"]).ok()
    assert tree(dest, hidden=True) == before


def test_wait_blocks_until_ready(faults, fetcher, dest):
    art = faults.artifact({"w": data(2, MIB)})
    go = threading.Event()
    faults.rule("blob", nth=1, hold_at=(1000, go))
    waiters = [fetcher.start("wait", dest), fetcher.start(
        "wait", dest, "--", "/bin/sh", "-c", f"cat {dest}/.fetcher/ready.json; exit 7")]
    time.sleep(0.3)  # both look at a DEST that does not exist
    pull = fetcher.start("pull", "--plain-http", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), pull.err()
    assert all(w.alive() for w in waiters)
    go.set()
    pull.wait().ok()
    waiters[0].wait(10).ok()
    r = waiters[1].wait(10).exits(7)
    assert json.loads(r.out)["digest"] == art.digest


def test_wait_becomes_the_command(old, fetcher, dest):
    """exec: the same process, its arguments as they are."""
    fetcher.pull(old.ref, dest).ok()
    run = fetcher.start("wait", dest, "--", "/bin/sh", "-c", 'echo $$ "$1"', "x", "a  b --quiet")
    pid = run.pid
    assert run.wait(10).ok().out == f"{pid} a  b --quiet\n"
    r = fetcher("wait", dest, "--", "/no/such/program")
    assert r.rc in (2, 40, 127), r
    assert "/no/such/program" in r.err


def test_wait_gives_the_command_clean_signals(old, fetcher, dest):
    """The model server gets TERM as if fetcher had never been there."""
    fetcher.pull(old.ref, dest).ok()
    look = ["/bin/sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status"]
    r = fetcher("wait", dest, "--", *look).ok()
    # what whoever started the tests ignores (nohup) is inherited by right
    without = subprocess.run(look, capture_output=True, text=True, check=True).stdout
    for line, base in zip(r.out.splitlines(), without.splitlines(), strict=True):
        bits = int(line.split()[1], 16) & ~int(base.split()[1], 16)
        assert bits & (1 << 14 | 1 << 1 | 1 << 12) == 0, r.out  # TERM, INT, PIPE


def test_wait_times_out(fetcher, dest):
    r = fetcher("wait", "--timeout", "300ms", dest, timeout=10).exits(31)
    assert str(dest) in last_words(r)
    assert not dest.exists()


def test_wait_ends_with_a_signal(fetcher, dest):
    run = fetcher.start("wait", dest)
    time.sleep(0.2)
    run.terminate(5).exits(143)


def test_verify(old, fetcher, dest):
    fetcher.pull(old.ref, dest).ok()
    r = fetcher("verify", "--output", "json", dest).ok()
    assert (r.json["ok"], r.json["files"], r.json["bytes"]) == (True, 3, 2 * MIB + 4)
    stamp = (dest / "same.bin").stat()
    with open(dest / "same.bin", "r+b") as f:
        f.seek(MIB)
        byte = f.read(1)
        f.seek(MIB)
        f.write(bytes([byte[0] ^ 1]))
    os.utime(dest / "same.bin", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (dest / "config.json").unlink()
    r = fetcher("verify", dest).exits(22)
    assert "same.bin" in r.err and "config.json" in r.err
    assert fetcher("verify", "--output", "json", dest).exits(22).json["ok"] is False


def test_verify_of_nothing(fetcher, dest, tmp_path):
    fetcher("verify", dest).exits(21)
    fetcher("verify", tmp_path).exits(21)


# -- gc ------------------------------------------------------------------------------------------


def test_gc_drops_old_versions(old, new, registry, push, fetcher, dest):
    third = push(registry, "publish/model", "third", {"only": b"three"})
    for pushed in (old, new, third):
        fetcher.pull(pushed.ref, dest, "--layout", "versions").ok()
    versions = dest / ".fetcher" / "versions"
    assert len(list(versions.iterdir())) == 3
    fetcher("gc", "--keep-versions", "1", dest).ok()
    assert {p.name for p in versions.iterdir()} == {leaf(new.digest), leaf(third.digest)}
    fetcher("gc", dest).ok()
    assert [p.name for p in versions.iterdir()] == [leaf(third.digest)]
    assert [p.stem for p in (dest / ".fetcher" / "meta").iterdir()] == [leaf(third.digest)]
    holds(dest / "current", {"only": b"three"})
    fetcher("probe", dest).ok()


def test_gc_drops_partial_files(faults, fetcher, dest):
    art = faults.artifact({"w": data(2, 20 * MIB)})
    go = threading.Event()
    faults.rule("blob", nth=9, hold_at=(1000, go))
    run = fetcher.start("pull", "--plain-http", "--range-size", "512KiB", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), run.err()
    run.terminate(5)
    go.set()
    assert sum(partials(dest).values()) > 0
    r = fetcher("gc", "--output", "json", dest).ok()
    assert partials(dest) == {}
    assert r.json
    faults.clear()
    fetcher.pull(art.ref, dest).ok()


def test_gc_of_flat_leaves_the_files(old, new, fetcher, dest):
    fetcher.pull(old.ref, dest).ok()
    fetcher.pull(new.ref, dest).ok()
    fetcher("gc", dest).ok()
    holds(dest, NEW)
    fetcher("verify", dest).ok()


def test_gc_without_anything(fetcher, dest, tmp_path):
    r = fetcher("gc", tmp_path)
    assert r.rc in (0, 21), r
    assert not (tmp_path / ".fetcher" / "ready.json").exists()
    assert fetcher("gc", dest).rc in (0, 21, 40)


# -- order on disk -------------------------------------------------------------------------------


def strace():
    path = shutil.which("strace")
    if not path or subprocess.run([path, "-o", "/dev/null", "true"], capture_output=True).returncode:
        pytest.skip("strace is not to be had here")
    return path


def calls(fetcher, dest, ref, log, *flags):
    fetcher.pull(ref, dest, *flags, wrap=[strace(), "-f", "-y", "-o", log, "-e",
                                          "trace=fsync,fdatasync,syncfs,sync_file_range,rename,"
                                          "renameat,renameat2,link,linkat,symlinkat"]).ok()
    return [line for line in log.read_text().splitlines() if "resumed" not in line]


def test_data_is_synced_before_the_marker(old, fetcher, dest, tmp_path):
    """Design 3: data fsync, rename, directory fsync, then the marker, then its directory."""
    seen = calls(fetcher, dest, old.ref, tmp_path / "strace")
    at = next(i for i, line in enumerate(seen) if "rename" in line and "ready.json" in line)
    before, after = seen[:at], seen[at + 1:]
    assert any("syncfs(" in line for line in before) or all(
        any(re.search(rf"f(data)?sync\(.*({name}|{OLD_DIGESTS[name]})", line) for line in before)
        for name in OLD_DIGESTS), seen
    assert any("fsync(" in line and "/.fetcher>" in line for line in after), after


OLD_DIGESTS = {name: sha(value) for name, value in OLD.items()}


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_marker_is_the_last_name_to_appear(old, new, fetcher, dest, tmp_path, layout):
    """Renamed into place once, after every file and after the link."""
    fetcher.pull(old.ref, dest, "--layout", layout).ok()
    seen = calls(fetcher, dest, new.ref, tmp_path / "strace", "--layout", layout)
    names = [line for line in seen if re.search(r"\b(rename|link|symlink)", line)
             and "= -1" not in line]
    at = [i for i, line in enumerate(names) if re.search(r'"ready\.json"[^"]*$', line)]
    assert len(at) == 1, names
    assert at[0] == len(names) - 1, names[at[0]:]
    want = '"current"' if layout == "versions" else '"config.json"'
    assert any(want in line for line in names[:at[0]]), names


def test_fsync_never(old, fetcher, dest, tmp_path):
    seen = calls(fetcher, dest, old.ref, tmp_path / "strace", "--fsync", "never")
    assert not any("sync" in line.split("(")[0] for line in seen), seen


def test_fsync_always(old, fetcher, dest, tmp_path):
    """Each file's data before its rename."""
    seen = calls(fetcher, dest, old.ref, tmp_path / "strace", "--fsync", "always")
    for name in ("config.json", "same.bin"):
        placed = next(i for i, x in enumerate(seen)
                      if ("rename" in x or "link" in x) and f'"{name}"' in x)
        assert any(re.search(r"f(data)?sync\(", line) for line in seen[:placed]), name


@pytest.mark.parametrize("fsync", ["end", "always"])
def test_fsync_that_fails(faults, fetcher, dest, tmp_path, fsync):
    """The kernel tells a lost write once; what it was about is fetched again, not believed."""
    body = data(61, 9 * MIB)
    art = faults.artifact({"w": body})
    path = dest / "w" if fsync == "end" else dest / ".fetcher" / "partial" / leaf(art.digest_of("w"))
    fetcher.pull(art.ref, dest, "--fsync", fsync, "--range-size", "1MiB",
                 wrap=[strace(), "-f", "-o", tmp_path / "strace", "-P", path, "-e", "trace=fsync",
                       "-e", "inject=fsync:error=EIO"]).exits(40)
    nothing_published(dest)
    faults.forget()
    fetcher.pull(art.ref, dest, "--fsync", fsync, "--range-size", "1MiB").ok()
    holds(dest, {"w": body})
    assert faults.sent("blob") == len(body)


def test_modes_of_our_own_files(old, fetcher, dest):
    fetcher.pull(old.ref, dest, umask=0o022).ok()
    top = dest / ".fetcher"
    assert stat.S_IMODE(top.stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "partial").stat().st_mode) == 0o700
    for path in top.rglob("*"):
        assert not path.stat().st_mode & 0o022, f"{path} is writable by others"


def test_nothing_is_left_of_a_reference_that_is_none(fetcher, registry, dest):
    """A reference that does not exist leaves no marker and no files."""
    fetcher.pull(f"{registry.host}/publish/none:v1", dest).exits(21)
    nothing_published(dest)
