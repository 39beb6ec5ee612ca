# SPDX-License-Identifier: Apache-2.0
"""Volumes and processes as Kubernetes hands them out: full, read-only, of another uid, without a
home, with few descriptors, with a strict seccomp filter."""

import ctypes
import os
import platform
import resource
import shutil
import stat
import struct
import subprocess
import threading

import pytest

from lib import oci
from lib.client import binary
from lib.content import Content, data, files_in
from lib.look import Reader, holds, last_words, marker, nothing_published, sha

MIB = 1 << 20
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (mount, setuid)")


@pytest.fixture
def tmpfs(tmp_path):
    """tmpfs("16m", ...) mounts a small file system and returns its path."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mounted = []

    def go(options):
        path = tmp_path / f"mnt{len(mounted)}"
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "fetcher-test", str(path)],
                              capture_output=True, text=True)
        if done.returncode:
            pytest.skip("mount: " + done.stderr.strip())
        mounted.append(path)
        return path
    yield go
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], capture_output=True)


@pytest.fixture
def open_path(tmp_path):
    """tmp_path, reachable by every uid; skips where a folder above it is not."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            try:
                if folder == tmp_path or tmp_path.parent == folder or folder.name.startswith("run-"):
                    folder.chmod(0o755)
                    continue
            except OSError:
                pass
            pytest.skip(f"{folder} cannot be entered by other users; set FETCHER_TEST_TMP")
    return tmp_path


# -- full ----------------------------------------------------------------------------------------


def test_disk_is_too_small(tmpfs, registry, push, wire, fetcher):
    """Told before the first byte. [K14] [L50]"""
    dest = tmpfs("size=8m") / "dest"
    p = push(registry, "volume/big", "v1", {"w": Content(1, 20 * MIB), "c": b"x"})
    words = last_words(fetcher.pull(p.on(wire), dest).exits(23))
    assert "MiB" in words or "bytes" in words
    assert wire.gets("/blobs/") == []
    nothing_published(dest)


def test_disk_is_large_enough_by_a_little(tmpfs, registry, push, fetcher):
    """No second copy, no reserve that nobody needs: 1x the artifact."""
    dest = tmpfs("size=21m") / "dest"
    files = {"w": Content(1, 20 * MIB), "c": b"x"}
    p = push(registry, "volume/big", "v1", files)
    fetcher.pull(p.ref, dest).ok()
    holds(dest, files)


def test_resumed_bytes_count_as_there(tmpfs, faults, fetcher):
    """A disk that holds the half-finished file is large enough for the rest."""
    dest = tmpfs("size=14m") / "dest"
    body = data(3, 10 * MIB)
    art = faults.artifact({"w": body})
    go = threading.Event()
    faults.rule("blob", nth=6, hold_at=(1000, go))
    run = fetcher.start("pull", "--plain-http", "--range-size", "1MiB", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), run.err()
    run.terminate(5).exits(143)
    go.set()
    fetcher.pull(art.ref, dest).ok()
    holds(dest, {"w": body})


def test_reused_files_count_as_there(tmpfs, registry, push, fetcher):
    dest = tmpfs("size=24m") / "dest"
    big = Content(1, 16 * MIB)
    one = push(registry, "volume/reuse", "one", {"w": big, "c": b"1"})
    two = push(registry, "volume/reuse", "two", {"w": big, "c": b"2"})
    fetcher.pull(one.ref, dest, "--layout", "versions").ok()
    fetcher.pull(two.ref, dest, "--layout", "versions").ok()
    holds(dest / "current", {"w": big, "c": b"2"})


def test_disk_fills_up_in_the_middle(tmpfs, faults, fetcher):
    """A neighbour takes the space: 23, what is there stays, and when there is space it goes on."""
    mount = tmpfs("size=32m")
    dest = mount / "dest"
    files = {f"w{i}": data(i, 3 * MIB) for i in range(8)}
    art = faults.artifact(files)
    go = threading.Event()
    faults.rule("blob", hold_at=(1000, go))
    run = fetcher.start("pull", "--plain-http", "--fsync", "never", "--concurrency", "2", art.ref,
                        dest)
    assert faults.wait(lambda f: f.stalled >= 1), run.err()
    room = os.statvfs(mount)
    filler = mount / "filler"
    with open(filler, "wb") as f:
        f.write(bytes(max(0, room.f_bavail * room.f_bsize - 100_000)))
    go.set()
    r = run.wait(60)
    if r.rc == 0:  # everything had been reserved before
        holds(dest, files)
        return
    r.exits(23)
    assert marker(dest) is None
    for name, digest in files_in(dest).items():
        assert digest == sha(files[name])
    filler.unlink()
    fetcher.pull(art.ref, dest).ok()
    holds(dest, files)


def test_no_inodes_left(tmpfs, faults, fetcher):
    dest = tmpfs("size=8m,nr_inodes=40") / "dest"
    art = faults.artifact({f"f{i}": b"%d" % i for i in range(100)})
    fetcher.pull(art.ref, dest).exits(23)
    assert marker(dest) is None


def test_file_size_limit(registry, push, fetcher, dest):
    """SIGXFSZ is not how a pull ends."""
    p = push(registry, "volume/big", "v1", {"w": Content(1, 20 * MIB), "c": b"x"})
    r = fetcher.pull(p.ref, dest, limits={resource.RLIMIT_FSIZE: 4 * MIB})
    assert r.rc in (23, 40), r
    assert marker(dest) is None


# -- not ours ------------------------------------------------------------------------------------


def test_read_only(tmpfs, registry, push, fetcher, wire):
    mount = tmpfs("size=8m")
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    p = push(registry, "volume/small", "v1", {"c": b"x"})
    for dest in (mount, mount / "dest"):
        words = last_words(fetcher.pull(p.on(wire), dest).exits(40))
        assert str(mount) in words and "ead-only" in words
    assert wire.gets("/blobs/") == []


def test_read_only_volume_can_be_probed(tmpfs, registry, push, fetcher):
    """The server's container mounts it read-only."""
    mount = tmpfs("size=8m")
    p = push(registry, "volume/small", "v1", {"c": b"x"})
    fetcher.pull(p.ref, mount).ok()
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    fetcher("probe", mount).ok()
    fetcher("verify", mount).ok()
    fetcher("wait", mount, "--", "/bin/true").ok()


@root_only
def test_dest_of_another_uid(open_path, registry, push, fetcher):
    """Says uid, gid and mode. [K12]"""
    p = push(registry, "volume/small", "v1", {"c": b"x"})
    dest = open_path / "theirs"
    dest.mkdir()
    dest.chmod(0o755)
    for place in (dest, dest / "below"):
        words = last_words(fetcher.pull(p.ref, place, uid=12345).exits(40))
        assert "uid 12345" in words and "gid 12345" in words and "0755" in words
        assert "0:0" in words
    assert list(dest.iterdir()) == []


@root_only
@pytest.mark.parametrize("uid", [1, 65532, 1000650000, 2**31 - 2])
def test_random_uid_without_a_home(open_path, registry, push, fetcher, uid):
    """OpenShift gives a uid that no passwd knows; an emptyDir is 0777. [K11]"""
    files = {"c": b"x", "d/w": Content(2, 3 * MIB)}
    p = push(registry, "volume/uid", "v1", files)
    dest = open_path / f"dest-{uid}"
    dest.mkdir()
    dest.chmod(0o777)
    fetcher.pull(p.ref, dest, uid=uid, umask=0o022).ok()
    holds(dest, files)
    assert {f.stat().st_uid for f in dest.rglob("*")} == {uid}
    fetcher.pull(p.ref, dest, uid=uid).ok()


@root_only
def test_home_that_cannot_be_read(open_path, registry, push, fetcher):
    p = push(registry, "volume/small", "v1", {"c": b"x"})
    home = open_path / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text("{}")
    (home / ".docker").chmod(0o700)
    dest = open_path / "dest"
    dest.mkdir()
    dest.chmod(0o777)
    fetcher.pull(p.ref, dest, uid=12345, env={"HOME": str(home)}).ok()


@root_only
def test_group_writable_dest(open_path, registry, push, fetcher):
    """fsGroup: the folder belongs to root and a group, setgid, 2775."""
    p = push(registry, "volume/small", "v1", {"c": b"x"})
    dest = open_path / "dest"
    dest.mkdir()
    os.chown(dest, 0, 12345)
    dest.chmod(0o2775)
    fetcher.pull(p.ref, dest, uid=12345).ok()
    assert (dest / "c").stat().st_gid == 12345


@root_only
def test_published_files_can_be_read_by_others(open_path, registry, push, fetcher):
    """The server runs as another uid than the init container."""
    p = push(registry, "volume/uid", "v1", {"c": b"x", "d/w": Content(2, 3 * MIB)})
    dest = open_path / "dest"
    dest.mkdir()
    dest.chmod(0o777)
    for layout in ("flat", "versions"):
        place = dest / layout
        fetcher.pull(p.ref, place, "--layout", layout, uid=1111, umask=0o022).ok()
        fetcher("probe", place, uid=2222).ok()
        fetcher("verify", place, uid=2222).ok()


def test_umask_is_obeyed_for_default_modes(registry, push, fetcher, dest):
    p = push(registry, "volume/small", "v1", {"c": b"x"})
    fetcher.pull(p.ref, dest, umask=0o027).ok()
    assert stat.S_IMODE((dest / "c").stat().st_mode) == 0o640


# -- few of everything ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [25, 32, 64])
def test_few_descriptors(registry, fetcher, dest, number):
    """[K16]"""
    files = {f"d{i % 40}/f{i}": b"%d" % i * 100 for i in range(300)}
    files.update({f"w{i}": Content(60 + i, 4 * MIB) for i in range(6)})
    layers = [oci.titled(v, n) for n, v in files.items()]
    p = registry.api.put_manifest("volume/nofile", "v1", oci.manifest(layers),
                                  blobs=list(files.values()))
    fetcher.pull(p.ref, dest, "--concurrency", "64", "--range-size", "256KiB",
                 limits={resource.RLIMIT_NOFILE: number}).ok()
    holds(dest, files)


def test_few_descriptors_over_tls(registry, registry_tls, push, fetcher, dest):
    files = {f"w{i}": Content(60 + i, 4 * MIB) for i in range(6)}
    p = push(registry, "volume/nofile-tls", "v1", files)
    fetcher("pull", "--ca-file", registry_tls.ca, "--range-size", "256KiB", p.on(registry_tls), dest,
            limits={resource.RLIMIT_NOFILE: 64}).ok()
    holds(dest, files)


def test_little_address_space(registry, push, fetcher, dest):
    """Memory is a budget, not the size of the model."""
    files = {"w": Content(1, 200 * MIB)}
    p = push(registry, "volume/as", "v1", files)
    fetcher.pull(p.ref, dest, "--fsync", "never", limits={resource.RLIMIT_AS: 160 * MIB}).ok()
    holds(dest, files)


def test_peak_memory_with_tls_connections(registry, nginx_tls13, push, fetcher, dest):
    """16 TLS connections within 32 MiB."""
    from lib.relay import Relay
    p = push(registry, "volume/as", "v1", {"w": Content(1, 200 * MIB)})
    with Relay(nginx_tls13, limit=120 * MIB) as wire:
        run = fetcher.start("pull", "--ca-file", nginx_tls13.ca, "--fsync", "never", "--range-size",
                            "1MiB", p.on(wire), dest)
        peak = 0
        while run.alive():
            try:
                peak = max(peak, run.rss_kib())
                run.process.wait(0.02)
            except (OSError, IndexError, subprocess.TimeoutExpired):
                continue
        run.wait().ok()
    assert 0 < peak <= 32 << 10, f"{peak} KiB"


# -- seccomp -------------------------------------------------------------------------------------


def filter_out(calls, error):
    """A seccomp filter for this process and its children: these calls fail with error."""
    libc = ctypes.CDLL(None, use_errno=True)

    def op(code, yes, no, k):
        return struct.pack("HBBI", code, yes, no, k)
    program = op(0x20, 0, 0, 0)  # load the call's number
    for number in calls:
        program += op(0x15, 0, 1, number) + op(0x06, 0, 0, 0x00050000 | error)
    program += op(0x06, 0, 0, 0x7fff0000)
    text = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    what = Program(len(program) // 8, ctypes.addressof(text))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(what)):
        raise OSError(ctypes.get_errno(), "seccomp")


def test_default_seccomp_profile_of_an_old_runtime(registry, push, dest, tmp_path):
    """openat2, io_uring, statx, copy_file_range, clone3 refused with EPERM. [K11]"""
    numbers = {"x86_64": [437, 425, 426, 427, 332, 326, 435, 439, 436],
               "aarch64": [437, 425, 426, 427, 291, 285, 435, 439, 436]}[platform.machine()]
    script = tmp_path / "filtered.py"
    script.write_text("import os, sys\nsys.path.insert(0, sys.argv[1])\n"
                      "from test_volume import filter_out\n"
                      f"filter_out({numbers}, 1)\nos.execv(sys.argv[2], sys.argv[2:])\n")
    here = os.path.dirname(os.path.abspath(__file__))
    files = {"c": b"x", "a/b/w": Content(2, 3 * MIB), "a/b/twin": Content(2, 3 * MIB)}
    p = push(registry, "volume/seccomp", "v1", files)
    done = subprocess.run([shutil.which("python3"), script, here, *binary(), "pull", "--plain-http",
                           p.ref, dest], env={"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
                          text=True, timeout=60)
    if "seccomp" in done.stderr and "OSError" in done.stderr:
        pytest.skip("no seccomp filter to be had here")
    assert done.returncode == 0, done.stderr
    holds(dest, files)
    # A link in the way is still not followed without openat2.
    outside = tmp_path / "outside"
    outside.mkdir()
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "a").symlink_to(outside)
    done = subprocess.run([shutil.which("python3"), script, here, *binary(), "pull", "--plain-http",
                           p.ref, trap], env={"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode in (24, 40), done.stderr
    assert list(outside.iterdir()) == []


# -- readers -------------------------------------------------------------------------------------


def test_reader_loop_during_failures(faults, fetcher, dest):
    """Flipped bits, resets, a kill, a signal: nobody ever sees an unverified file."""
    files = {"w.bin": data(1, 4 * MIB), "v.bin": data(2, 2 * MIB), "c": b"config"}
    art = faults.artifact(files)
    known = {n: sha(v) for n, v in files.items()}
    with Reader(dest, known, complete=lambda m: list(files)) as reader:
        faults.rule(art.digest_of("w.bin"), flip=2_000_000)
        fetcher.pull(art.ref, dest, "--range-size", "256KiB").exits(22)
        faults.clear()
        faults.rule("blob", rate=3 * MIB)
        run = fetcher.start("pull", "--plain-http", "--range-size", "256KiB", art.ref, dest)
        seen = faults.sent("blob")
        assert faults.wait(lambda f: f.sent("blob") > seen + MIB), run.err()
        run.kill()
        faults.clear()
        faults.rule("blob", nth=set(range(1, 40, 2)), reset_at=100_000)
        fetcher.pull(art.ref, dest, "--range-size", "256KiB").ok()
        done = reader.rounds
        while reader.rounds < done + 3:
            pass
    assert reader.wrong == []
    assert reader.seen == set(files)


def test_file_systems_by_name(registry, push, fetcher, tmpfs):
    """The same on tmpfs as on the disk of the other tests."""
    files = {"w": Content(1, 5 * MIB), "twin": Content(1, 5 * MIB), "e": b""}
    p = push(registry, "volume/tmpfs", "v1", files)
    for layout in ("flat", "versions"):
        dest = tmpfs("size=32m") / "m"
        fetcher.pull(p.ref, dest, "--layout", layout).ok()
        fetcher("verify", dest).ok()
        fetcher("gc", dest).ok()
        holds(dest if layout == "flat" else dest / "current", files)
