# SPDX-License-Identifier: Apache-2.0
"""fetcher watch: the first pass, swaps, what travels, when it looks, old versions. [K..] cases of
the reference on Kubernetes and security."""

import mmap
import os
import pathlib
import threading
import time

import pytest

from lib.content import MIB, Content, data
from lib.look import holds, marker, sha, until
from lib.sidecar import ANY, Sidecar, Versions

FAR = ("--period", "1h")


def files(n, **more):
    return {"config.json": b'{"n": %d}' % n, "w.bin": data(n, 50_000), **more}


@pytest.fixture
def versions(registry, request):
    """A repository of its own for each test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return Versions(registry, "watch/" + name.strip("-"))


def link(dest):
    return os.path.basename(os.readlink(pathlib.Path(dest) / "current"))


# -- the first pass ------------------------------------------------------------------------------


def test_first_pass_is_a_pull(versions, fetcher, dest):
    """Empty root: published, marker, layout versions. [K1]"""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
        m = s.published(one)
        assert m["path"] == "current" and m["generation"] == 1 and m["previous"] is None
        holds(dest / "current", one.files)
        assert link(dest) == one.leaf
        fetcher("probe", dest).ok()
        assert s.says("pulled", digest=one.digest)
        s.terminate()
    fetcher("verify", dest).ok()


def test_restart_brings_nothing_again(versions, wire, fetcher, dest):
    """Same digest: no blob, the marker stays as it is. [K2]"""
    one = versions.push(files(1))
    for number in range(2):
        with Sidecar(fetcher, versions.on(wire), dest, "--touch-file", dest.parent / "told",
                     *FAR) as s:
            s.published(one)
            s.says("notified", by="touch-file")
            text = (dest / ".fetcher/ready.json").read_bytes()
            s.terminate()
        if number:
            assert [r.method for r in wire.requests] == ["HEAD"] and text == before
        before = text
        wire.reset()


def test_foreign_files_are_tolerated(versions, fetcher, dest):
    """lost+found and others' data. [K7]"""
    (dest / "lost+found").mkdir(parents=True)
    (dest / "mine").write_text("mine")
    versions.push(files(0))
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--keep-versions", "0") as s:
        s.until(lambda: s.marker)
        for n in range(1, 4):
            step(s, versions, n)
        assert (dest / "mine").read_text() == "mine" and (dest / "lost+found").is_dir()
        assert {p.name for p in dest.iterdir()} == {".fetcher", "current", "mine", "lost+found"}
        s.terminate()


def test_layout_flat_is_for_those_who_ask(versions, fetcher, dest):
    """And replaces by rename: an open file keeps what it had."""
    one = versions.push({**files(1), "gone": b"g"})
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--layout", "flat") as s:
        assert s.published(one)["path"] == "."
        holds(dest, one.files)
        with open(dest / "w.bin", "rb") as held:
            mapped = mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ)
            two = versions.push(files(2))
            s.hup()
            s.published(two)
            assert sha(bytes(mapped)) == one.hashes["w.bin"]
        holds(dest, two.files)
        s.terminate()


def test_usage_errors_end_it(fetcher, dest, tmp_path):
    """What stands on the command line does not get better by waiting."""
    for words in (["127.0.0.1/a?b:v1", dest], [dest], ["127.0.0.1/a:v1", dest, "127.0.0.1/b:v1", dest],
                  ["--period", "0s", "127.0.0.1/a:v1", dest],
                  ["--max-failures", "3", "127.0.0.1/a:v1", dest],
                  ["--ref-file", tmp_path / "ref", "127.0.0.1/a:v1", dest],
                  ["--layout", "flat", "--pre-publish-hook", "/bin/true", "127.0.0.1/a:v1", dest]):
        fetcher("watch", "--plain-http", *words, timeout=20).exits(2)
    assert not dest.exists()


# -- swaps ---------------------------------------------------------------------------------------


def test_a_tag_that_moves(versions, fetcher, dest):
    """The link flips once; open files and maps of the old version go on. [K18]"""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, "--period", "100ms") as s:
        s.published(one)
        held = open(dest / "current/w.bin", "rb")
        mapped = mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ)
        flips, done = [link(dest)], threading.Event()

        def look():
            while not done.is_set():
                now = link(dest)
                if now != flips[-1]:
                    flips.append(now)
        thread = threading.Thread(target=look)
        thread.start()
        two = versions.push(files(2))
        m = s.published(two)
        until(lambda: flips[-1] == two.leaf)
        done.set()
        thread.join()
        assert flips == [one.leaf, two.leaf]
        assert m["generation"] == 2 and m["previous"] == one.digest
        holds(dest / "current", two.files)
        assert sha(bytes(mapped)) == sha(held.read()) == one.hashes["w.bin"]
        held.close()
        s.terminate(ANY)


def test_only_what_changed_crosses_the_wire(versions, wire, fetcher, dest):
    """1 of 8 shards: that shard and the manifest, the others are linked."""
    shards = {f"model-{i}-of-8.safetensors": Content(i, MIB) for i in range(8)}
    one = versions.push(shards)
    with Sidecar(fetcher, versions.on(wire), dest, *FAR) as s:
        s.published(one)
        name = "model-3-of-8.safetensors"
        two = versions.push({**shards, name: Content(99, MIB)})
        wire.reset()
        s.hup()
        m = s.published(two)
        assert {r.target.rsplit("/", 1)[1] for r in wire.gets("/blobs/")} == {two.files[name].digest}
        assert wire.body("/blobs/") == MIB == m["downloaded"]
        assert [(r.method, "/manifests/" in r.target) for r in wire.requests
                if "/blobs/" not in r.target] == [("HEAD", True), ("GET", True)]
        holds(dest / "current", two.files)
        folder = dest / ".fetcher/versions"
        for shard in shards:
            same = os.path.samefile(folder / one.leaf / shard, folder / two.leaf / shard)
            assert same == (shard != name)
        s.terminate()


def test_back_to_a_version_that_stands(versions, wire, fetcher, dest):
    """A rollback is a new link, no download."""
    one, two = versions.make(files(1)), versions.make(files(2))
    versions.move(one)
    with Sidecar(fetcher, versions.on(wire), dest, *FAR) as s:
        s.published(one)
        versions.move(two)
        s.hup()
        s.published(two)
        wire.reset()
        versions.move(one)
        s.hup()
        assert s.published(one)["generation"] == 3
        assert wire.gets("/blobs/") == [] and link(dest) == one.leaf
        s.terminate()


def test_a_broken_new_version_changes_nothing(faults, fetcher, dest):
    """One wrong bit: the old one stands, the reason is told, and the next good one is taken."""
    one = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, http=True) as s:
        s.listens().published(one.digest)
        two = faults.artifact(files(2))
        rule = faults.rule(two.digest_of("w.bin"), flip=77)
        s.hup()
        s.says("", error="integrity", level="warn")
        assert link(dest) == one.digest.replace(":", "-") and marker(dest)["digest"] == one.digest
        assert s.status()["lastError"]["code"] == 22 and s.counted("error") == 1
        assert s.metrics()["fetcher_verify_failures_total"] == 1
        faults.rules.remove(rule)
        s.hup()
        s.published(two.digest)
        s.until(lambda: s.status()["failures"] == 0)
        s.terminate()


# -- looking -------------------------------------------------------------------------------------


def test_one_head_a_period(versions, wire, fetcher, dest):
    """Nothing else while nothing changes."""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.on(wire), dest, "--period", "100ms") as s:
        s.published(one)
        wire.reset()
        s.until(lambda: len(wire.requests) > 5)
        assert {(r.method, r.status) for r in wire.requests[:5]} == {("HEAD", 200)}
        assert len(s.said("pulled")) == 1 and not s.said("up to date")
        s.terminate(ANY)


def test_a_pinned_digest_idles(versions, wire, fetcher, dest):
    """No request after the first pull, and no end. [K25]"""
    one = versions.push(files(1))
    ref = f"{wire.host}/{versions.repo}:live@{one.digest}"
    with Sidecar(fetcher, ref, dest, "--period", "100ms") as s:
        s.published(one)
        wire.reset()
        versions.push(files(2))
        time.sleep(0.7)  # nothing is what has to happen
        s.hup()
        time.sleep(0.2)
        assert wire.requests == [] and marker(dest)["digest"] == one.digest
        s.terminate()


def test_hangup_and_sync_look_now(versions, fetcher, dest):
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR, http=True) as s:
        s.listens().published(one)
        two = versions.push(files(2))
        s.hup()
        s.published(two)
        three = versions.push(files(3))
        assert s.get("/sync", method="POST")[0] == 202
        s.published(three)
        assert s.get("/sync")[0] == 405
        s.terminate()


def test_a_look_asked_for_during_a_pull_is_not_lost(faults, fetcher, dest):
    one, go = faults.artifact(files(1)), threading.Event()
    faults.rule(one.digest_of("w.bin"), hold=go)
    with Sidecar(fetcher, faults.ref(), dest, *FAR) as s:
        assert faults.wait(lambda f: f.gets(one.digest_of("w.bin")))
        two = faults.artifact(files(2))
        s.hup()
        time.sleep(0.1)  # until the signal has surely arrived
        go.set()
        s.published(two.digest)
        s.terminate()


# -- old versions --------------------------------------------------------------------------------


def step(s, versions, n):
    v = versions.push(files(n))
    s.hup()
    s.published(v)
    return v


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_keep_versions(versions, fetcher, dest, keep):
    versions.push(files(0))
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--keep-versions", keep) as s:
        s.until(lambda: s.marker)
        made = [step(s, versions, n) for n in range(1, 6)]
        want = {v.leaf for v in made[-1 - keep:]}
        s.until(lambda: s.versions() == want)
        s.until(lambda: {p.stem for p in (dest / ".fetcher/meta").iterdir()} == want)
        s.terminate()


def test_keep_bytes(versions, fetcher, dest):
    """Of the versions that --keep-versions spares; the oldest go first."""
    big = [{"w": data(n, 2 * MIB)} for n in range(4)]
    made = [versions.push(big[0])]
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--keep-versions", "9", "--keep-bytes", "5MiB") as s:
        s.published(made[0])
        for content in big[1:]:
            made.append(versions.push(content))
            s.hup()
            s.published(made[-1])
        s.until(lambda: s.versions() == {v.leaf for v in made[-3:]})
        s.terminate()


def test_stale_timeout(versions, fetcher, dest):
    """An old version stays so long after it was replaced, and goes without any event. [K18]"""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--keep-versions", "0", "--stale-timeout", "3s") as s:
        s.published(one)
        two = step(s, versions, 2)
        replaced = time.monotonic()
        time.sleep(1)
        assert s.versions() == {one.leaf, two.leaf}
        s.until(lambda: s.versions() == {two.leaf})
        assert time.monotonic() - replaced > 1.9
        s.says("dropped old versions")
        s.terminate()


def test_stale_timeout_survives_a_restart(versions, fetcher, dest):
    """The age is that of the volume, not of the process. [K18]"""
    flags = [*FAR, "--keep-versions", "0", "--stale-timeout"]
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *flags, "1h") as s:
        s.published(one)
        two = step(s, versions, 2)
        s.terminate()
    with Sidecar(fetcher, versions.ref, dest, *flags, "1h", http=True) as s:
        s.listens().until(lambda: s.counted("noop"))
        assert s.versions() == {one.leaf, two.leaf}
        s.terminate()
    old = time.time() - 3601
    os.utime(dest / ".fetcher/meta" / (one.leaf + ".json"), (old, old))
    with Sidecar(fetcher, versions.ref, dest, *flags, "1h") as s:
        s.until(lambda: s.versions() == {two.leaf})
        s.terminate()


def test_a_lease_keeps_a_version(versions, fetcher, dest):
    """A server that `fetcher wait` became reads on in what it found."""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--keep-versions", "0") as s:
        s.published(one)
        reader = fetcher.start("wait", dest, "--", "/bin/sleep", "60")
        until(lambda: "sleep" in pathlib.Path(f"/proc/{reader.pid}/comm").read_text())
        two = step(s, versions, 2)
        s.until(lambda: one.leaf in s.versions() and s.marker["digest"] == two.digest)
        three = step(s, versions, 3)
        assert s.versions() >= {one.leaf, three.leaf}
        reader.kill()
        s.hup()
        s.until(lambda: s.versions() == {three.leaf})
        s.terminate(ANY)
