# SPDX-License-Identifier: Apache-2.0
"""fetcher watch and what may happen to it: kill -9 at any time, a volume that others changed,
clocks that jump, a thousand swaps. Readers look on all the while. [K..] cases of the reference on
Kubernetes and security; what git-sync's end-to-end tests do after a crash."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time

import pytest

from lib.content import data
from lib.look import holds, marker, partials, sha, until
from lib.sidecar import ANY, LinkReader, MappedReader, Sidecar, Versions, Webhook

FAR = ("--period", "1h")
SWAPS = 1000
KILLS = 200


@pytest.fixture
def versions(registry, request):
    """A repository of its own for each test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return Versions(registry, "crash/" + name.strip("-"))


@pytest.fixture
def memory(tmp_path):
    """A DEST in memory where there is such a thing: what counts here is the order of things, not
    the disk."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(prefix="fetcher-test-", dir=base) as folder:
        yield pathlib.Path(folder) / "dest"


def files(n):
    """Two that change, one that stays, an empty one."""
    return {"config.json": b'{"n": %d}' % n, "w-1.bin": data(n, 10_000), "w-2.bin": data(0, 20_000),
            "empty": b""}


def ready(s, version):
    """Published, and old versions were looked for too: nothing is under way on the volume."""
    s.published(version)
    s.until(lambda: s.status()["digest"] == version.digest and s.metrics()["fetcher_versions"] >= 1)


# -- a thousand swaps ----------------------------------------------------------------------------


def footprint(s):
    """KiB resident, descriptors, threads; of a sidecar that may be about to end a look."""
    few = [(s.fds(), s.threads()) for _ in range(40) if not time.sleep(0.005)]
    return s.rss_kib(), min(x[0] for x in few), min(x[1] for x in few)


@pytest.mark.slow
def test_a_thousand_swaps(versions, fetcher, tmp_path, memory):
    """A reader that maps and hashes, one that opens each file through the link: never a missing
    file, never a mixture, and what is mapped never changes. Memory and descriptors stay where
    they were. [K18] [K19] [K52]"""
    made = [versions.make(files(n)) for n in range(25)]
    versions.move(made[0])
    with Sidecar(fetcher, versions.ref, memory, *FAR, "--keep-versions", "2", "--touch-file",
                 tmp_path / "told", "-q") as s:
        s.published(made[0])
        with MappedReader(memory, made) as mapped, LinkReader(memory, made) as linked:
            for n in range(1, SWAPS + 1):
                v = versions.move(made[n % len(made)])
                before = mapped.rounds, linked.rounds
                s.hup()
                assert s.published(v)["generation"] == n + 1
                # neither reader falls behind by more versions than are kept
                until(lambda: mapped.rounds > before[0] and linked.rounds > before[1], pause=0.001)
                if n == SWAPS // 10:
                    until((tmp_path / "told").exists)
                    early = footprint(s)
            s.until(lambda: len(s.versions()) == 3)
            late = footprint(s)
        assert mapped.wrong[:5] == [] and linked.wrong[:5] == []
        assert len(mapped.seen) == len(made)
        assert late[0] <= early[0] + 256, f"KiB resident after {SWAPS // 10} and {SWAPS} swaps"
        assert late[1:] == early[1:], "descriptors, threads"
        assert partials(memory) == {}
        s.terminate(ANY)


# -- kill -9 -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_kills_at_random_points_of_swaps(versions, fetcher, memory):
    """Whenever it dies: readers see whole versions, the marker names what stands, the next one
    goes on. [K3] [K4] [K19]"""
    made = [versions.make(files(n)) for n in range(9)]
    versions.move(made[0])
    flags = ("--keep-versions", "2", "-q")
    chance = random.Random(11)
    with Sidecar(fetcher, versions.ref, memory, *FAR, *flags) as s:
        s.published(made[0])
        began = time.monotonic()
        versions.move(made[1])
        s.hup()
        s.published(made[1])
        lasts = time.monotonic() - began
        s.kill()
    killed = set()
    with MappedReader(memory, made) as mapped, LinkReader(memory, made) as linked:
        for n in range(KILLS):
            before = marker(memory)["digest"]
            v = versions.move(made[n % len(made)])
            with Sidecar(fetcher, versions.ref, memory, *FAR, *flags) as s:
                time.sleep(chance.random() * lasts * 1.5)
                s.kill()
            m = marker(memory)
            assert m["digest"] in (before, v.digest)
            killed.add((m["digest"] == v.digest, os.readlink(memory / "current").endswith(v.leaf)))
            # no version is half there, whether a marker names it or not
            for name in os.listdir(memory / ".fetcher/versions"):
                whole = next(x for x in made if x.leaf == name)
                assert set(os.listdir(memory / ".fetcher/versions" / name)) == set(whole.files)
            mapped.next_round(), linked.next_round()
            assert mapped.wrong == [] and linked.wrong == []
    assert {(False, False), (True, True)} <= killed, "killed only before, or only after"
    v = versions.move(made[-1])
    with Sidecar(fetcher, versions.ref, memory, *FAR, *flags) as s:
        s.published(v)
        # nothing of two hundred crashes is left
        s.until(lambda: len(s.versions()) == 3 and partials(memory) == {})
        assert {p.name for p in (memory / ".fetcher").iterdir()} == {
            "ready.json", "lock", "partial", "versions", "meta"}
        assert {p.name for p in memory.iterdir()} == {".fetcher", "current"}
        s.terminate(ANY)
    fetcher("verify", memory).ok()


def test_told_again_after_a_crash(versions, fetcher, dest):
    """Published, killed before anybody took the news: the next one brings it. (git-sync:
    exechook_startup_after_crash, webhook_startup_after_crash)"""
    one = versions.push(files(1))
    with Webhook(status=500) as hook:
        with Sidecar(fetcher, versions.ref, dest, *FAR, "--webhook-url", hook.url) as s:
            until(lambda: hook.seen)
            s.kill()
        hook.status = 200
        hook.seen.clear()
        with Sidecar(fetcher, versions.ref, dest, *FAR, "--webhook-url", hook.url) as s:
            until(lambda: hook.seen)
            assert hook.seen[0]["json"]["digest"] == one.digest
            s.terminate(ANY)


def test_killed_while_the_veto_hook_thinks(versions, fetcher, tmp_path, dest):
    """Everything was fetched: the next one asks again and fetches nothing."""
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\n[ -e allow ] || exec sleep 60\n".replace("allow", str(tmp_path / "allow")))
    hook.chmod(0o755)
    one = versions.push(files(1))
    flags = (*FAR, "--pre-publish-hook", hook)
    with Sidecar(fetcher, versions.ref, dest, *flags) as s:
        staged = dest / ".fetcher/partial" / (one.leaf + ".d")
        s.until(lambda: staged.exists() and set(os.listdir(staged)) == set(one.files))
        time.sleep(0.2)
        s.kill()
    assert marker(dest) is None and not (dest / "current").exists()
    (tmp_path / "allow").touch()
    with Sidecar(fetcher, versions.ref, dest, *flags) as s:
        assert s.published(one)["downloaded"] == 0
        holds(dest / "current", one.files)
        s.terminate(ANY)


# -- what a crash or a neighbour left --------------------------------------------------------------


def test_stale_temporary_names(versions, fetcher, dest):
    """A link that was made and never renamed, a marker half written, a staging directory. [K4]"""
    one, two = versions.push(files(1)), versions.make(files(2))
    with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
        s.published(one)
        s.terminate(ANY)
    top = dest / ".fetcher"
    for n in range(3):
        os.symlink(f".fetcher/versions/{two.leaf}", top / f".tmp-{n:016x}")
        (top / f".tmp-1{n:015x}").write_text('{"schema":')
    staged = top / "partial" / (two.leaf + ".d")
    staged.mkdir(parents=True)
    (staged / "config.json").write_bytes(b"half")
    versions.move(two)
    with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
        s.published(two)
        holds(dest / "current", two.files)
        s.until(lambda: partials(dest) == {})
        assert {p.name for p in top.iterdir()} == {"ready.json", "lock", "partial", "versions", "meta"}
        s.terminate(ANY)


def harm_link_deleted(dest, one, other):
    (dest / "current").unlink()


def harm_link_elsewhere(dest, one, other):
    (dest / "current").unlink()
    (dest / "current").symlink_to(f".fetcher/versions/{other.leaf}")


def harm_dangling_link(dest, one, other):
    (dest / "current").unlink()
    (dest / "current").symlink_to(".fetcher/versions/sha256-" + "0" * 64)


def harm_version_deleted(dest, one, other):
    shutil.rmtree(dest / ".fetcher/versions" / one.leaf)


def harm_file_deleted(dest, one, other):
    (dest / ".fetcher/versions" / one.leaf / "config.json").unlink()


def harm_file_truncated(dest, one, other):
    os.truncate(dest / ".fetcher/versions" / one.leaf / "w-1.bin", 100)


def harm_file_overwritten(dest, one, other):
    with open(dest / ".fetcher/versions" / one.leaf / "w-1.bin", "r+b") as f:
        f.write(b"evil")


def harm_marker_deleted(dest, one, other):
    (dest / ".fetcher/ready.json").unlink()


def harm_marker_garbage(dest, one, other):
    (dest / ".fetcher/ready.json").write_bytes(b'{"schema": 1, "dig\0')


def harm_marker_of_another_digest(dest, one, other):
    path = dest / ".fetcher/ready.json"
    path.write_text(path.read_text().replace(one.digest, other.digest).replace(one.leaf, other.leaf))


def harm_meta_deleted(dest, one, other):
    (dest / ".fetcher/meta" / (one.leaf + ".json")).unlink()


def harm_meta_garbage(dest, one, other):
    (dest / ".fetcher/meta" / (one.leaf + ".json")).write_bytes(b"\0\1\2")


def harm_everything_deleted(dest, one, other):
    shutil.rmtree(dest / ".fetcher")


def harm_dest_deleted(dest, one, other):
    shutil.rmtree(dest)


HARMS = {k[5:]: v for k, v in list(globals().items()) if k.startswith("harm_")}


@pytest.mark.parametrize("when", ["running", "restarted"])
@pytest.mark.parametrize("harm", list(HARMS))
def test_damage_is_seen_and_mended(versions, fetcher, dest, harm, when):
    """By the next look, without any change of the tag. [K5] (git-sync: sync_repo_worktree_deleted,
    existing_root_is_corrupt)"""
    one, other = versions.push(files(1)), versions.make(files(2))
    with Sidecar(fetcher, versions.ref, dest, *FAR, http=True) as s:
        ready(s.listens(), one)
        if when == "running":
            HARMS[harm](dest, one, other)
            s.hup()
            mended(s, fetcher, one)
        s.terminate(ANY)
    if when == "restarted":
        HARMS[harm](dest, one, other)
        with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
            mended(s, fetcher, one)
            s.terminate(ANY)


def mended(s, fetcher, one):
    link = s.dest / "current"

    def right():
        try:
            return os.readlink(link).endswith(one.leaf) and s.marker["digest"] == one.digest and all(
                sha((link / n).read_bytes()) == h for n, h in one.hashes.items())
        except (OSError, TypeError, ValueError):
            return False
    s.until(right)
    s.until(lambda: fetcher("verify", s.dest).rc == 0)


@pytest.mark.parametrize("what", ["file", "folder", "link out", "link to a foreign folder"])
def test_something_else_at_current(versions, fetcher, tmp_path, dest, what):
    """Refused or replaced, and nothing outside the volume is touched; gone again, it goes on.
    [K6]"""
    one = versions.push(files(1))
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "config.json").write_text("untouched")
    dest.mkdir()
    current = dest / "current"
    if what == "file":
        current.write_text("mine")
    elif what == "folder":
        current.mkdir()
        (current / "x").write_text("mine")
    else:
        current.symlink_to(victim if what == "link out" else "../victim")
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--init-period", "100ms") as s:
        s.says("current", error="unsafe", level="warn")
        assert s.marker is None
        if what == "folder":
            assert (current / "x").read_text() == "mine"
            shutil.rmtree(current)
        else:
            assert not current.is_file() or current.read_text() == "mine"
            current.unlink()
        s.published(one)
        holds(current, one.files)
        # and while it runs
        current.unlink()
        current.symlink_to(victim)
        s.hup()
        s.says("current", error="unsafe", level="warn", times=2)
        assert os.readlink(current) == str(victim)
        s.terminate(ANY)
    assert (victim / "config.json").read_text() == "untouched" and len(os.listdir(victim)) == 1


def test_a_version_name_that_is_taken(versions, fetcher, tmp_path, dest):
    """A link of that name leads nowhere we write. [K6]"""
    one = versions.push(files(1))
    victim = tmp_path / "victim"
    victim.mkdir()
    folder = dest / ".fetcher/versions"
    folder.mkdir(parents=True)
    (folder / one.leaf).symlink_to(victim)
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--init-period", "100ms") as s:
        s.until(lambda: s.marker or [x for x in s.log if x["level"] == "warn"])
        if s.marker is None:
            (folder / one.leaf).unlink()
        s.published(one)
        holds(dest / "current", one.files)
        s.terminate(ANY)
    assert os.listdir(victim) == []


# -- clocks --------------------------------------------------------------------------------------


def stamp(dest, version, at):
    os.utime(dest / ".fetcher/meta" / (version.leaf + ".json"), (at, at))


@pytest.mark.parametrize("ahead", [3600, 10 * 365 * 86400])
def test_a_clock_that_went_back(versions, fetcher, dest, ahead):
    """Times of the volume lie in the future: an old version neither goes at once nor stays for
    ever. [K17]"""
    one, two = versions.push(files(1)), versions.make(files(2))
    flags = (*FAR, "--keep-versions", "0", "--stale-timeout", "2s")
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--stale-timeout", "1h") as s:
        s.published(one)
        versions.move(two)
        s.hup()
        s.published(two)
        s.terminate(ANY)
    for v in (one, two):
        stamp(dest, v, time.time() + ahead)
    with Sidecar(fetcher, versions.ref, dest, *flags, http=True) as s:
        s.listens().until(lambda: s.counted("noop"))
        assert s.versions() == {one.leaf, two.leaf}
        s.until(lambda: s.versions() == {two.leaf}, timeout=20)
        s.terminate(ANY)


def test_a_clock_that_went_forward(versions, fetcher, dest):
    """A node whose clock was in 1970 when the versions were written: what stands goes on
    standing."""
    one, two = versions.push(files(1)), versions.make(files(2))
    with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
        s.published(one)
        versions.move(two)
        s.hup()
        s.published(two)
        s.terminate(ANY)
    for v in (one, two):
        stamp(dest, v, 5)
    flags = (*FAR, "--keep-versions", "0", "--stale-timeout", "1h")
    with Sidecar(fetcher, versions.ref, dest, *flags) as s:
        s.until(lambda: s.versions() == {two.leaf})
        holds(dest / "current", two.files)
        assert s.marker["digest"] == two.digest
        s.terminate(ANY)


@pytest.mark.parametrize("uptime", [1, 100 * 365 * 86400])
def test_monotonic_clock_of_another_time(versions, fetcher, dest, uptime):
    """A machine that has just started, and one that has run for a century: periods and timeouts
    hold."""
    try:
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        wrap = ["unshare", "-T", "--monotonic", str(int(uptime - now) or 1)]
        works = subprocess.run([*wrap, "true"], capture_output=True).returncode == 0
    except OSError:
        works = False
    if not works:
        pytest.skip("no time namespace to be had here")
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, "--period", "100ms", "--keep-versions", "0",
                 "--stale-timeout", "1s", wrap=wrap) as s:
        s.published(one)
        two = versions.push(files(2))
        s.published(two)
        s.until(lambda: s.versions() == {two.leaf})
        assert not s.run.err().count('"level":"warn"')
        s.terminate(ANY)


# -- git-sync's cases that are left ----------------------------------------------------------------


def test_a_root_with_anything_in_it(versions, fetcher, dest):
    """Files of other tools, also some that look like ours. (git-sync:
    existing_root_is_not_empty)"""
    for name in (".git/config", "tmp-link", ".fetcher-old/x", "sha256-" + "0" * 64 + "/y"):
        path = dest / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--keep-versions", "0") as s:
        s.published(one)
        versions.move(versions.make(files(2)))
        s.hup()
        s.until(lambda: s.marker["generation"] == 2 and len(s.versions()) == 1)
        s.terminate(ANY)
    for name in (".git/config", "tmp-link", ".fetcher-old/x", "sha256-" + "0" * 64 + "/y"):
        assert (dest / name).read_text() == name


def test_ready_at_once_after_a_restart(versions, fetcher, dest):
    """Nothing changed: ready again without a publication. (git-sync: http_after_restart)"""
    one = versions.push(files(1))
    for n in range(3):
        with Sidecar(fetcher, versions.ref, dest, *FAR, http=True) as s:
            s.listens().published(one)
            s.until(lambda: s.get("/readyz")[0] == 200)
            s.until(lambda: s.status()["phase"] == "idle")
            assert json.loads(s.get("/readyz")[2])["generation"] == 1
            s.terminate()


def test_seen_through_another_mount(versions, fetcher, tmp_path, dest):
    """The link is relative: the volume may be mounted elsewhere for the reader. (git-sync:
    relative link)"""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
        s.published(one)
        os.rename(dest, tmp_path / "elsewhere")
        holds(tmp_path / "elsewhere/current", one.files)
        os.rename(tmp_path / "elsewhere", dest)
        s.terminate(ANY)


def test_dest_reached_through_a_link(versions, fetcher, tmp_path):
    """(git-sync: root is a symlink)"""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, tmp_path / "link", *FAR) as s:
        s.published(one)
        s.terminate(ANY)
    holds(tmp_path / "real/current", one.files)
    assert pathlib.Path(tmp_path / "link").is_symlink()
