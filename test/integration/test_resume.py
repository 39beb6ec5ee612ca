# SPDX-License-Identifier: Apache-2.0
"""A pull that dies goes on where it was: kill -9 at random moments, signals, damage of what was
left behind."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from lib import oci
from lib.client import binary
from lib.content import Content, data, file_sha256, files_in
from lib.look import holds, last_words, marker, nothing_published, partials, sha, until
from lib.proc import free_port

MIB = 1 << 20
KILLS = 50
# An exit within a second is promised; a loaded test machine gets a second more.
STOP = 2.0


@pytest.fixture(scope="module")
def gib(registry):
    """1 GiB in three files and two small ones."""
    files = {"a.safetensors": Content(101, 512 * MIB), "b.safetensors": Content(102, 384 * MIB),
             "c.safetensors": Content(103, 128 * MIB), "config.json": b"{}", "empty": b""}
    return oci.push(registry, "resume/gib", "v1", files), files


@pytest.mark.slow
@pytest.mark.big
def test_fifty_kills_over_one_gib(gib, wire, fetcher, dest):
    """kill -9 at random moments; each restart goes on, the marker never appears early, and the
    bytes on the wire over all runs stay within 1.05x the artifact plus one range per connection
    and kill."""
    p, files = gib
    total = sum(len(v) for v in files.values())
    span, connections = MIB, 8
    chance = random.Random(20260101)
    done = {}
    killed = 0
    while killed < KILLS:
        # About as far on average that the kills are spread over the whole artifact.
        stop_at = wire.body("/blobs/") + chance.random() * 2 * 0.9 * total / KILLS
        patience = time.monotonic() + chance.choice([0.01, 0.05, 5, 5, 5, 5])
        run = fetcher.start("pull", "--plain-http", "--range-size", span, "--concurrency",
                            connections, "--fsync", "never", p.on(wire), dest)
        while run.alive() and wire.body("/blobs/") < stop_at and time.monotonic() < patience:
            time.sleep(0.001)
        if not run.alive():
            run.wait().ok()
            break
        run.kill()
        killed += 1
        assert marker(dest) is None
        for name in files_seen(dest) - set(done):
            done[name] = file_sha256(dest / name)
            assert done[name] == sha(files[name]), f"{name} stood there before it was verified"
    assert killed == KILLS, f"complete after {killed} kills"
    fetcher.pull(p.on(wire), dest, "--range-size", span).ok()
    used = wire.body("/blobs/")
    holds(dest, files)
    print(f"{killed} kills, {used / total:.3f} x the artifact on the wire")
    assert used <= 1.05 * total + killed * connections * span
    assert partials(dest) == {}


def files_seen(dest):
    if not dest.exists():
        return set()
    return {str(p.relative_to(dest)) for p in dest.rglob("*")
            if p.is_file() and ".fetcher" not in p.parts}


def check(dest, both, number):
    """What may stand in DEST after a kill: whole and right if the marker is there."""
    contents = {p.digest: content for p, content in both}
    right = {}
    for content in contents.values():
        for name, value in content.items():
            right.setdefault(name, set()).add(sha(value))
    for name, digest in files_in(dest).items():
        assert digest in right[name], f"kill {number}: {name} is not what it should be"
    mark = marker(dest)
    if not mark:
        return
    digest = mark["digest"]
    if mark["path"] == "current":
        # Link and marker are two renames: between them the link names the new version, which is
        # whole, and a probe says so: a restart must not take a server out of service.
        linked = os.path.basename(os.readlink(dest / "current")).replace("-", ":")
        if linked != digest:
            assert fetch_probe(dest) == 0
            digest = linked
    seen = files_in(dest / mark["path"])
    missing = [n for n, value in contents[digest].items() if seen.get(n) != sha(value)]
    assert not missing, f"kill {number}: the marker is there, {missing[:5]} is not"


def fetch_probe(dest):
    return subprocess.run([*binary(), "probe", "-q", str(dest)], env={}).returncode


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_kills_while_publishing(registry, fetcher, tmp_path, layout):
    """Small files, so that most of the time goes into placing them: whenever it dies, a marker
    means that all of them are there, and every name has the right content. [K3] [K4]"""
    files = {f"d{i % 5}/{i:03d}": b"file %d" % i * 50 for i in range(60)}
    later = {**{n: v for n, v in list(files.items())[::2]}, "new": b"n", "d0/000": b"changed"}
    both = []
    for tag, content in (("a", files), ("b", later)):
        layers = [oci.titled(v, n) for n, v in content.items()]
        both.append((registry.api.put_manifest("resume/small", tag, oci.manifest(layers),
                                               blobs=list(content.values())), content))
    dest = tmp_path / "dest"
    began = time.monotonic()
    fetcher.pull(both[0][0].ref, dest, "--layout", layout).ok()
    lasts = time.monotonic() - began
    chance = random.Random(7)
    finished = 0
    for number in range(60):
        p, content = both[number % 2]
        if layout == "versions" and number % 4 == 0:
            fetcher("gc", dest).ok()  # else both versions are there soon, and nothing is to do
        run = fetcher.start("pull", "--plain-http", "--layout", layout, p.ref, dest)
        time.sleep(chance.random() * lasts * 1.1)
        finished += not run.alive()
        run.kill()
        check(dest, both, number)
    assert finished < 60, "no run was killed"
    p, content = both[1]
    fetcher.pull(p.ref, dest, "--layout", layout).ok()
    holds(dest if layout == "flat" else dest / "current", content)
    fetcher("verify", dest).ok()
    # what the killed pulls of the other digest left goes with gc
    fetcher("gc", dest).ok()
    assert partials(dest) == {}


@pytest.mark.parametrize("kills", [1, 4])
def test_kills_between_two_versions_leave_nothing_of_the_old(faults, fetcher, dest, kills):
    """Layout flat: killed on the way to a new digest, files that only the old one had go in the end."""
    old = {f"old-{i:02d}": b"%d" % i for i in range(90)}
    new = {f"new-{i:02d}": b"n%d" % i for i in range(90)}
    new["last"] = data(5, 300_000)
    one = faults.artifact(old, tag="one")
    two = faults.artifact(new, tag="two")
    fetcher.pull(one.ref, dest).ok()
    for _ in range(kills):
        go = threading.Event()
        rule = faults.rule(two.digest_of("last"), hold_at=(1000, go))
        run = fetcher.start("pull", "--plain-http", two.ref, dest)
        assert faults.wait(lambda f: f.stalled == 1), run.err()
        run.kill()
        go.set()
        faults.rules.remove(rule)
        assert faults.wait(lambda f: f.stalled == 0)
    fetcher.pull(two.ref, dest).ok()
    holds(dest, new)


@pytest.mark.parametrize("kill", [5, 40, 63, 64, 65])
def test_files_of_a_version_that_never_was_ready_go_as_well(faults, fetcher, dest, kill):
    """Killed after some of many small files of one digest were placed; then the tag moves."""
    first = {f"first-{i:02d}": b"%d" % i for i in range(80)}
    one = faults.artifact(first, tag="one")
    two = faults.artifact({"second": b"2"}, tag="two")
    go = threading.Event()
    faults.rule("blob", after=kill, hold=go)
    run = fetcher.start("pull", "--plain-http", "--concurrency", "1", one.ref, dest)
    assert faults.wait(lambda f: f.stalled == 1), run.err()
    until(lambda: len(files_in(dest)) >= kill - 1)
    run.kill()
    go.set()
    faults.clear()
    fetcher.pull(two.ref, dest).ok()
    holds(dest, {"second": b"2"})


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, rc", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_stops_at_once_and_keeps_the_journal(faults, fetcher, dest, number, rc):
    """Within a second, and what had arrived is not asked for again. [K9] [L53]"""
    body = data(9, 24 * MIB)
    art = faults.artifact({"w": body, "config.json": b"{}"})
    faults.rule(art.digest_of("w"), rate=4 * MIB)
    run = fetcher.start("pull", "--plain-http", "--range-size", "1MiB", "--concurrency", "4",
                        art.ref, dest)
    assert faults.wait(lambda f: f.sent(art.digest_of("w")) > 9 * MIB), run.err()
    began = time.monotonic()
    run.signal(number)
    run.wait(10).exits(rc)
    assert time.monotonic() - began < STOP
    sent = faults.sent(art.digest_of("w"))
    assert marker(dest) is None and "w" not in files_in(dest)
    faults.clear()
    faults.forget()
    fetcher.pull(art.ref, dest, "--range-size", "1MiB").ok()
    holds(dest, {"w": body, "config.json": b"{}"})
    # What was in flight on four connections is lost, nothing else.
    assert sent + faults.sent(art.digest_of("w")) <= len(body) + 4 * MIB


@pytest.mark.parametrize("where", ["connecting", "stalled", "retrying", "manifest", "token"])
def test_signal_in_every_state(faults, fetcher, dest, where):
    """Also while nothing moves."""
    art = faults.artifact({"w": data(9, MIB)})
    ref = art.ref
    if where == "connecting":
        ref = "192.0.2.1:5000/a/b:v1"  # nobody answers there
    elif where == "stalled":
        faults.rule("blob", stall_at=100)
    elif where == "retrying":
        faults.rule("blob", status=503, retry_after=60)
    elif where == "manifest":
        faults.rule("manifest", stall_at=10)
    else:
        faults.auth_bearer(users=None)
        faults.rule("token", stall_at=0)
    run = fetcher.start("pull", "--plain-http", ref, dest)
    if where == "connecting":
        time.sleep(0.3)
        if not run.alive():
            pytest.skip("this network answers for 192.0.2.1 at once")
    elif where == "retrying":
        assert faults.wait(lambda f: any(r.status == 503 for r in f.requests)), run.err()
    else:
        assert faults.wait(lambda f: f.stalled), run.err()
    began = time.monotonic()
    run.terminate(10).exits(143)
    assert time.monotonic() - began < STOP
    nothing_published(dest)


def test_as_pid_1(faults, fetcher, dest):
    """TERM has no default action there. [K10]"""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-pf", "true"], capture_output=True).returncode:
        pytest.skip("no pid namespace to be had here")
    art = faults.artifact({"w": data(9, MIB)})
    faults.rule("blob", stall_at=100)
    run = fetcher.start("pull", "--plain-http", art.ref, dest, wrap=[unshare, "-pf"])
    assert faults.wait(lambda f: f.stalled), run.err()
    child = int(pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0])
    assert "\t1\n" in [x for x in pathlib.Path(f"/proc/{child}/status").read_text()
                       .splitlines(True) if x.startswith("NSpid")][0]
    began = time.monotonic()
    os.kill(child, signal.SIGTERM)
    r = run.wait(10)
    assert time.monotonic() - began < STOP
    assert r.rc == 143, r


def test_hangup_and_pipe_are_no_end(faults, fetcher, dest):
    art = faults.artifact({"w": data(9, MIB)})
    go = threading.Event()
    faults.rule("blob", nth=1, hold_at=(1000, go))
    run = fetcher.start("pull", "--plain-http", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), run.err()
    for number in (signal.SIGHUP, signal.SIGPIPE):
        run.signal(number)
    go.set()
    run.wait(20).ok()


def test_two_signals(faults, fetcher, dest):
    art = faults.artifact({"w": data(9, MIB)})
    faults.rule("blob", stall_at=100)
    run = fetcher.start("pull", "--plain-http", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), run.err()
    run.signal(signal.SIGINT)
    run.signal(signal.SIGTERM)
    assert run.wait(10).rc in (130, 143)


# -- what was left behind ------------------------------------------------------------------------


BODY = data(77, 12 * MIB + 5)


@pytest.fixture
def half(faults, fetcher, dest):
    """An artifact that was stopped about half-way, with the marker of where: (art, bytes sent)."""
    art = faults.artifact({"w": BODY, "c": b"x"})
    faults.rule(art.digest_of("w"), rate=2 * MIB)
    run = fetcher.start("pull", "--plain-http", "--range-size", "512KiB", "--concurrency", "4",
                        art.ref, dest)
    assert faults.wait(lambda f: f.sent(art.digest_of("w")) > 6 * MIB), run.err()
    run.terminate(10).exits(143)
    sent = faults.sent(art.digest_of("w"))
    faults.clear()
    faults.forget()
    return art, sent


def journal(dest):
    found = [p for p in (dest / ".fetcher" / "partial").iterdir() if p.name.endswith(".journal")]
    assert len(found) == 1, partials(dest)
    return found[0]


def part(dest):
    return journal(dest).with_suffix("")


def finish(half, fetcher, faults, dest):
    art, _ = half
    r = fetcher.pull(art.ref, dest, "--range-size", "512KiB", "--output", "json").ok()
    holds(dest, {"w": BODY, "c": b"x"})
    assert partials(dest) == {}
    return r, faults.sent(art.digest_of("w"))


def test_resume(half, fetcher, faults, dest):
    r, again = finish(half, fetcher, faults, dest)
    assert again <= len(BODY) - half[1] + 4 * 512 * 1024
    assert r.json["reused"] > 0


def test_resume_with_another_range_size_and_url(half, fetcher, stranger, dest):
    """The journal knows bytes, not requests: another size, mirror and tag go on all the same."""
    art, sent = half
    stranger.store.manifests["mirror"] = stranger.store.manifests["v1"]
    fetcher.pull(stranger.ref("mirror"), dest, "--range-size", "1MiB", "--concurrency", "3").ok()
    holds(dest, {"w": BODY, "c": b"x"})
    assert stranger.sent(art.digest_of("w")) <= len(BODY) - sent + 4 * 512 * 1024


@pytest.mark.parametrize("how", ["empty", "cut", "garbage", "deleted", "flipped", "huge", "folder",
                                 "link", "pipe"])
def test_journal_that_is_broken(half, fetcher, faults, dest, how, tmp_path):
    """It is never more than a hint: the digest decides. What is no plain file is not written to."""
    path = journal(dest)
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "link":
        path.unlink()
        (tmp_path / "victim").write_bytes(content)
        path.symlink_to(tmp_path / "victim")
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes({"empty": b"", "cut": content[:len(content) // 2],
                          "garbage": os.urandom(len(content)), "huge": content * 3000,
                          "flipped": bytes(b ^ (i % 7 == 0) for i, b in enumerate(content))}[how])
    if how not in ("folder", "link"):
        finish(half, fetcher, faults, dest)
        return
    r = fetcher.pull(half[0].ref, dest)
    assert r.rc in (0, 40), r
    assert r.rc == 0 or "journal" in last_words(r)
    if how == "link":
        assert (tmp_path / "victim").read_bytes() == content
    fetcher("gc", dest).ok()
    finish(half, fetcher, faults, dest)


@pytest.mark.parametrize("how", ["flipped", "zeros", "cut", "grown", "deleted", "other-inode"])
def test_partial_file_that_is_broken(half, fetcher, faults, dest, how):
    """The machine died and the file system lost what the journal had said. [L41]"""
    path = part(dest)
    if how == "deleted":
        path.unlink()
    elif how == "other-inode":
        path.unlink()
        path.write_bytes(bytes(len(BODY)))
    elif how == "cut":
        os.truncate(path, 1000)
    elif how == "grown":
        os.truncate(path, len(BODY) + 1000)
    else:
        with open(path, "r+b") as f:
            for at in range(0, len(BODY), 100_000):
                f.seek(at)
                f.write(b"\0" * 5000 if how == "zeros" else b"~")
    finish(half, fetcher, faults, dest)


def test_partial_file_that_is_a_link(half, fetcher, dest, tmp_path):
    """A neighbour on the volume swaps it: nothing is written behind the link. [K42]"""
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    path = part(dest)
    path.unlink()
    path.symlink_to(victim)
    art, _ = half
    r = fetcher.pull(art.ref, dest)
    assert r.rc in (0, 24, 40), r
    assert victim.read_bytes() == b"untouched"
    if r.rc == 0:
        holds(dest, {"w": BODY, "c": b"x"})


def test_partials_of_another_digest_do_not_hinder(half, fetcher, faults, dest):
    """The tag moved while the pull was dead. Nobody is going to want them, so they go."""
    other = faults.artifact({"w": b"quite another", "d": b"y"})
    assert partials(dest) != {}
    fetcher.pull(other.ref, dest).ok()
    holds(dest, {"w": b"quite another", "d": b"y"})
    assert partials(dest) == {}


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_sweep_takes_only_what_it_knows(half, fetcher, faults, dest, layout):
    """Blobs and journals of other digests; a failed pull sweeps nothing, and what cannot go is no failure."""
    kept = partials(dest)
    folder = dest / ".fetcher" / "partial"
    other = faults.artifact({"w": b"quite another", "d": b"y"})
    faults.rule("blob", flip=0)
    fetcher.pull(other.ref, dest, "--layout", layout).exits(22)
    assert kept.items() <= partials(dest).items()
    faults.clear()
    strange = ["sha256-" + "A" * 64, "sha256-" + "a" * 63, "notes.journal", "sha256-.journal"]
    for name in strange:
        (folder / name).write_bytes(b"?")
    (folder / ("sha256-" + "a" * 64)).mkdir()
    fetcher.pull(other.ref, dest, "--layout", layout).ok()
    assert {name for name in partials(dest) if not name.endswith(".placed")} == set(strange)
    assert (folder / ("sha256-" + "a" * 64)).is_dir()


def test_resume_of_one_file_among_finished_ones(registry, push, wire, fetcher, dest):
    """Files that were placed before the death are not fetched again."""
    files = {f"f{i}": Content(200 + i, 4 * MIB) for i in range(6)}
    p = push(registry, "resume/several", "v1", files)
    wire.limit = 30 * MIB
    run = fetcher.start("pull", "--plain-http", "--range-size", "512KiB", p.on(wire), dest)
    until(lambda: len(files_in(dest)) >= 2 or not run.alive())
    run.kill()
    wire.limit = None
    before = wire.body("/blobs/")
    fetcher.pull(p.on(wire), dest).ok()
    holds(dest, files)
    assert wire.body("/blobs/") - before <= 24 * MIB - 8 * MIB + MIB
    assert wire.body("/blobs/") <= 24 * MIB * 1.05 + 16 * 512 * 1024


def test_blob_that_was_complete_but_not_published(faults, fetcher, dest):
    """Its last record says that all is hashed; the directory of the file could not be made. [O21]"""
    body = data(78, 8 * MIB)
    art = faults.artifact({"d/w": body})
    go = threading.Event()
    faults.rule(art.digest_of("d/w"), nth=2, hold_at=(MIB, go))
    flags = ["--plain-http", "--range-size", "4MiB", "--concurrency", "1"]
    run = fetcher.start("pull", *flags, art.ref, dest)
    assert faults.wait(lambda f: len(f.gets(art.digest_of("d/w"))) == 2), run.err()
    (dest / "d").write_bytes(b"in the way")
    go.set()
    assert run.wait(30).rc in (24, 40)
    (dest / "d").unlink()
    faults.forget()
    fetcher("pull", *flags, art.ref, dest, timeout=30).ok()
    holds(dest, {"d/w": body})
    assert faults.sent("blob") == 0
    assert partials(dest) == {}


def test_nothing_listens_at_the_restart(half, fetcher, faults, dest):
    """A failed restart keeps what was there."""
    kept = partials(dest)
    fetcher.pull(f"127.0.0.1:{free_port()}/a/b:v1", dest, "--retry-timeout", "200ms").exits(30)
    assert partials(dest) == kept
    _, again = finish(half, fetcher, faults, dest)
    assert again <= len(BODY) - half[1] + 4 * 512 * 1024
