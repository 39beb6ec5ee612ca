# SPDX-License-Identifier: Apache-2.0
"""fetcher watch through its life: references from files, a remote that is away, downgrades,
credentials that change, neighbours on the volume, ends. [K..] cases of the reference on
Kubernetes and security."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from lib.content import MIB, data
from lib.look import last_words, marker, nothing_published, until
from lib.proc import free_port
from lib.registry import Registry
from lib.sidecar import ANY, LinkReader, Sidecar, Versions
from faultserver import FaultServer

FAR = ("--period", "1h")
CREATED = "org.opencontainers.image.created"


def files(n, **more):
    return {"config.json": b'{"n": %d}' % n, "w.bin": data(n, 50_000), **more}


@pytest.fixture
def versions(registry, request):
    """A repository of its own for each test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return Versions(registry, "life/" + name.strip("-"))


def pid_namespaces():
    unshare = shutil.which("unshare")
    return unshare and not subprocess.run([unshare, "-pf", "true"], capture_output=True).returncode


class ConfigMap:
    """A mounted ConfigMap with the key "ref", swapped as the kubelet does it: a new directory, a
    link to it renamed over ..data, the old directory removed. .file is what --ref-file is
    given."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "ref"
        self._n = 0
        folder.mkdir()

    def write(self, text):
        self._n += 1
        new = self.folder / f"..2026_{self._n}"
        new.mkdir()
        if text is not None:
            (new / "ref").write_bytes(text if isinstance(text, bytes) else text.encode())
        tmp = self.folder / "..data_tmp"
        tmp.symlink_to(new.name)
        data_link = self.folder / "..data"
        old = os.readlink(data_link) if data_link.is_symlink() else None
        os.rename(tmp, data_link)
        if not self.file.is_symlink():
            self.file.symlink_to("..data/ref")
        if old:
            shutil.rmtree(self.folder / old)
        return self


# -- references from files -----------------------------------------------------------------------


def test_ref_file_through_a_data_swap(registry, fetcher, tmp_path, dest):
    """A ConfigMap's change is taken up although the period is an hour. [K23]"""
    a, b = Versions(registry, "life/cm", "a"), Versions(registry, "life/cm", "b")
    one, two = a.push(files(1)), b.push(files(2))
    config = ConfigMap(tmp_path / "config").write(a.ref + "\n")
    with Sidecar(fetcher, None, dest, *FAR, "--ref-file", config.file) as s:
        s.published(one)
        for ref, v in ((b.ref, two), (f"  {a.ref}\r\n", one), (b.ref, two)):
            config.write(ref)
            assert s.published(v, timeout=5)["ref"] == ref.strip()
        s.terminate()


def test_ref_file_between_remove_and_create(registry, fetcher, tmp_path, dest):
    """Who looks at the wrong moment keeps what there is, and takes the new one when it is there.
    [K23]"""
    a, b = Versions(registry, "life/rc", "a"), Versions(registry, "life/rc", "b")
    one, two = a.push(files(1)), b.push(files(2))
    file = tmp_path / "ref"
    file.write_text(a.ref)
    with Sidecar(fetcher, None, dest, *FAR, "--ref-file", file, http=True) as s:
        s.listens().published(one)
        file.unlink()
        s.hup()
        s.says("cannot read --ref-file")
        assert marker(dest)["digest"] == one.digest and s.status()["failures"] == 1
        file.write_text("")
        time.sleep(0.1)  # a writer that has opened it and written nothing yet
        with open(file, "w") as f:
            f.write(b.ref[:9])
            f.flush()
            time.sleep(0.1)
            f.write(b.ref[9:])
        s.published(two, timeout=5)
        s.until(lambda: s.status()["failures"] == 0)
        s.terminate()


def test_ref_file_while_a_slow_pull_runs(faults, fetcher, tmp_path, dest):
    """The pull of what nobody wants any more ends; what it brought stays for another time.
    [K23]"""
    slow = faults.artifact({"w": data(1, MIB)}, tag="slow")
    quick = faults.artifact(files(2), tag="quick")
    faults.rule(slow.digest_of("w"), stall_at=1000)
    config = ConfigMap(tmp_path / "config").write(slow.ref)
    with Sidecar(fetcher, None, dest, *FAR, "--ref-file", config.file, http=True) as s:
        assert faults.wait(lambda f: f.stalled), s.run.err()
        config.write(quick.ref)
        s.published(quick.digest, timeout=5)
        s.until(lambda: s.status()["phase"] == "idle")
        assert s.counted("error") == 0 and s.status()["lastError"] is None
        assert not [line for line in s.log if line["level"] in ("warn", "error")]
        s.terminate()


def test_ref_file_while_the_veto_hook_thinks(faults, fetcher, tmp_path, dest):
    """Its verdict is about what nobody wants any more: it is ended, and the new one is asked
    about. [K23]"""
    first = faults.artifact(files(1), tag="first")
    second = faults.artifact(files(2), tag="second")
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\ngrep -q 2 config.json || exec sleep 60\n")
    hook.chmod(0o755)
    config = ConfigMap(tmp_path / "config").write(first.ref)
    with Sidecar(fetcher, None, dest, *FAR, "--ref-file", config.file, "--pre-publish-hook", hook,
                 "--hook-timeout", "50s", http=True) as s:
        staged = dest / ".fetcher/partial" / (first.digest.replace(":", "-") + ".d")
        s.listens().until(lambda: staged.exists() and len(os.listdir(staged)) == 2)
        time.sleep(0.2)  # until the hook surely runs
        config.write(second.ref)
        s.published(second.digest, timeout=5)
        assert s.counted("veto") == 0
        s.terminate(ANY)


@pytest.mark.parametrize("wrong", [None, b"", b"\n", b"two\nlines\n", b"not a reference at all",
                                   b"h/r:v\0x", b"\xff\xfe", b"x" * 70_000,
                                   b"\x1b[31mh/\"r\\\r{}:v"], ids=lambda x: repr(x)[:16])
def test_ref_file_is_garbage(versions, fetcher, tmp_path, dest, wrong):
    """Missing, empty or no reference: told, counted, waited for; what stands goes on standing."""
    config = ConfigMap(tmp_path / "config").write(wrong)
    with Sidecar(fetcher, None, dest, *FAR, "--ref-file", config.file, "--init-period", "100ms") as s:
        s.until(lambda: len([x for x in s.log if x["level"] == "warn"]) > 1)
        assert "\x1b" not in s.run.err()
        nothing_published(dest)
        one = versions.push(files(1))
        config.write(versions.ref)
        s.published(one)
        config.write(wrong)
        s.hup()
        s.until(lambda: s.log[-1]["level"] == "warn" and s.log[-1]["failures"])
        assert marker(dest)["digest"] == one.digest
        s.terminate()


def test_ref_file_in_a_folder_that_comes_later(versions, fetcher, tmp_path, dest):
    one = versions.push(files(1))
    with Sidecar(fetcher, None, dest, *FAR, "--ref-file", tmp_path / "late/ref", "--init-period",
                 "1h") as s:
        s.says("cannot read --ref-file")
        ConfigMap(tmp_path / "late").write(versions.ref)
        s.published(one, timeout=10)
        s.terminate()


def test_ref_file_in_a_folder_that_is_replaced(versions, fetcher, tmp_path, dest):
    other = Versions(versions.registry, versions.repo, "other")
    one, two = versions.push(files(1)), other.push(files(2))
    ConfigMap(tmp_path / "c").write(versions.ref)
    with Sidecar(fetcher, None, dest, *FAR, "--ref-file", tmp_path / "c/ref") as s:
        s.published(one)
        ConfigMap(tmp_path / "new").write(other.ref)
        os.rename(tmp_path / "c", tmp_path / "old")
        os.rename(tmp_path / "new", tmp_path / "c")
        s.published(two, timeout=10)
        s.terminate()


# -- failures ------------------------------------------------------------------------------------


def test_remote_down_and_back(start, fetcher, dest, request):
    """The old version is served, the probe is fine, failures are counted; then it goes on.
    [K20]"""
    registry = start(Registry, "registry-away")
    v = Versions(registry, "life/away")
    one = v.push(files(1))
    argv, port = list(registry.process.args), int(registry.host.rsplit(":", 1)[1])
    with Sidecar(fetcher, v.ref, dest, "--period", "200ms", http=True) as s, \
            LinkReader(dest, [one]) as reader:
        s.listens().published(one)
        reader.wrong.clear()
        registry.stop()
        s.until(lambda: s.counted("error") >= 3)
        assert s.metrics()["fetcher_consecutive_failures"] >= 3
        assert s.get("/readyz")[0] == 200 and s.get("/healthz")[0] == 200
        assert s.status()["phase"] in ("failing", "checking")
        assert s.status()["lastError"]["name"] == "network"
        fetcher("probe", dest).ok()
        registry.launch(argv, port)
        two = v.make(files(2))
        reader.versions.append(two)
        v.move(two)
        s.published(two)
        s.until(lambda: s.metrics()["fetcher_consecutive_failures"] == 0)
        assert reader.wrong == []
        s.terminate(ANY)


def test_remote_down_from_the_start(faults, fetcher, tmp_path, dest):
    """A restart while the registry is away: what stands is served, told again, and no failure.
    [K20]"""
    one = faults.artifact(files(1))
    fetcher.pull(faults.ref(), dest, "--layout", "versions").ok()
    faults.rule("manifest", status=503)
    with Sidecar(fetcher, faults.ref(), dest, "--period", "300ms", "--init-period", "100ms",
                 "--touch-file", tmp_path / "told", "--retry-timeout", "100ms", http=True) as s:
        s.listens().until((tmp_path / "told").exists)
        assert s.get("/readyz")[0] == 200 and s.status()["digest"] == one.digest
        s.until(lambda: s.counted("error") >= 2)
        faults.clear()
        two = faults.artifact(files(2))
        s.published(two.digest)
        s.terminate(ANY)


def test_remote_comes_late(fetcher, dest):
    """Connection refused at first, as before an Istio proxy is up: tried again every
    --init-period."""
    port = free_port()
    with Sidecar(fetcher, f"127.0.0.1:{port}/test/model:v1", dest, *FAR, "--init-period", "100ms",
                 "--retry-timeout", "200ms") as s:
        s.until(lambda: len([x for x in s.log if x["level"] == "warn"]) >= 2)
        with FaultServer(port=port) as late:
            s.published(late.artifact(files(1)).digest)
            s.terminate()


def test_on_failure_exit(faults, fetcher, tmp_path, dest):
    """With the code of the failure that was one too many; the termination message says which."""
    one = faults.artifact(files(1))
    words = tmp_path / "termination-log"
    words.write_text("")
    with Sidecar(fetcher, faults.ref(), dest, "--period", "100ms", "--on-failure", "exit",
                 "--max-failures", "2", "--termination-log", words) as s:
        s.published(one.digest)
        faults.rule("manifest", status=404, error="MANIFEST_UNKNOWN", times=4)  # HEAD and GET: two looks
        s.until(lambda: len([x for x in s.log if x["level"] == "warn"]) == 2)
        two = faults.artifact(files(2))
        s.published(two.digest)  # good again: the count begins anew
        faults.rule("manifest", status=404, error="MANIFEST_UNKNOWN")
        r = s.exits(21)
    warned = [x for x in r.log if x["level"] == "warn"]
    assert [x["failures"] for x in warned] == [1, 2, 1, 2]
    assert last_words(r) in words.read_text()
    assert marker(dest)["digest"] == two.digest


def test_on_failure_exit_at_once(faults, fetcher, dest):
    faults.artifact(files(1))
    fetcher("watch", "--plain-http", "--on-failure", "exit", faults.ref("none"), dest,
            timeout=20).exits(21)


def test_on_failure_keep_is_the_default(faults, fetcher, dest):
    """Whatever it is: not found, not authorised, too large, nothing to lay out."""
    faults.artifact({})
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--init-period", "100ms", "--max-bytes", "1MiB") as s:
        s.says("", error="unsupported", level="warn")
        faults.artifact({"w": data(1, 2 * MIB)})
        s.says("", error="space", level="warn")
        rule = faults.rule("manifest", status=401)
        s.says("", error="auth", level="warn")
        faults.rules.remove(rule)
        s.published(faults.artifact(files(1)).digest)
        s.terminate()


@pytest.fixture
def small(tmp_path):
    """small(SIZE) mounts a file system of that size in memory and returns a DEST on it."""
    mounted = []

    def make(size):
        path = tmp_path / "small"
        path.mkdir()
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "fetcher-test",
                                           path], capture_output=True).returncode:
            pytest.skip("mounting a small tmpfs needs root")
        mounted.append(path)
        return path / "dest"
    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", path], capture_output=True)


def test_disk_full(versions, fetcher, small):
    """Told before the first byte, the old version stands, and it goes on when there is room.
    [K14]"""
    dest = small("6m")
    one = versions.push({"w": data(1, 3 * MIB)})
    with Sidecar(fetcher, versions.ref, dest, *FAR, http=True) as s:
        s.listens().published(one)
        filler = dest.parent / "filler"
        filler.write_bytes(bytes(2 * MIB))
        two = versions.push({"w": data(2, 2 * MIB)})
        s.hup()
        s.says("bytes free", error="space", level="warn")
        assert s.get("/readyz")[0] == 200 and marker(dest)["digest"] == one.digest
        filler.unlink()
        s.hup()
        s.published(two)
        s.terminate(ANY)


def test_a_full_volume_makes_room(versions, fetcher, small):
    """The version that only --keep-versions spares goes early, rather than no new one ever coming."""
    dest = small("7m")
    with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
        for n in range(3):
            one = versions.push({"w": data(90 + n, 3 * MIB)})
            if n:
                s.hup()
            s.published(one)
        s.terminate(ANY)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes uid")
def test_volume_that_becomes_writable(versions, fetcher, tmp_path):
    """fsGroup forgotten: says who we are and what it is, and goes on when it was mended. A uid
    without a name, no capabilities. [K11] [K12]"""
    base = pathlib.Path(tempfile.mkdtemp(prefix="fetcher-test-"))
    try:
        base.chmod(0o755)
        theirs = base / "theirs"
        theirs.mkdir(mode=0o755)
        one = versions.push(files(1))
        run = type(fetcher)(base / "run")
        with Sidecar(run, versions.ref, theirs / "dest", *FAR, "--init-period", "100ms", "--touch-file",
                     theirs / "told", uid=65532) as s:
            words = s.says("", error="local", level="warn")[0]["msg"]
            assert "uid 65532" in words and "gid 65532" in words and "0755" in words
            theirs.chmod(0o777)
            s.published(one)
            s.until((theirs / "told").exists)
            assert "CapEff:\t0000000000000000" in pathlib.Path(f"/proc/{s.pid}/status").read_text()
            s.terminate(ANY)
    finally:
        shutil.rmtree(base)


def test_a_flood_of_signals(versions, fetcher, dest):
    """Many wishes to look now become a few looks; none is the end."""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR, http=True) as s:
        s.listens().published(one)
        for _ in range(500):
            s.hup()
        two = versions.push(files(2))
        for _ in range(500):
            s.hup()
        s.published(two)
        s.until(lambda: s.status()["phase"] == "idle")
        assert s.counted("error") == 0
        s.terminate(ANY)


def test_idle_is_idle(versions, fetcher, dest):
    """No thread of it wakes up between two looks."""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--touch-file", dest.parent / "told", http=True) as s:
        s.listens().published(one)
        s.until(lambda: s.status()["phase"] == "idle" and s.said("notified"))

        def switches():
            text = "".join(p.read_text() for p in pathlib.Path(f"/proc/{s.pid}/task").glob("*/status"))
            return sum(int(n) for n in re.findall(r"ctxt_switches:\t(\d+)", text))
        time.sleep(1.5)  # the connection that asked, and what is looked at a second later, are over
        before = switches()
        time.sleep(1)
        assert switches() - before <= 2
        s.terminate()


# -- downgrades ----------------------------------------------------------------------------------


def dated(text):
    return {CREATED: text} if text else None


@pytest.mark.parametrize("first, second, taken", [
    ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", False),
    ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z", True),
    ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00+14:00", True),
    ("2026-01-02T00:00:00Z", "2026-01-02T12:00:00+14:00", False),
    ("2026-01-02T00:00:00Z", "yesterday", True),
    (None, "2001-01-01T00:00:00Z", True),
], ids=["older", "same", "newer", "zone", "garbage", "undated"])
def test_deny_downgrade_by_date(versions, fetcher, dest, first, second, taken):
    """By the annotation, where both have one. [K26]"""
    one = versions.push(files(1), dated(first))
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--deny-downgrade", http=True) as s:
        s.listens().published(one)
        two = versions.push(files(2), dated(second))
        s.hup()
        if taken:
            s.published(two)
        else:
            s.says("deny-downgrade", error="policy", level="warn")
            assert s.counted("veto") == 1 and s.get("/readyz")[0] == 200
            assert marker(dest)["digest"] == one.digest and two.leaf not in s.versions()
            # a newer one is taken afterwards
            three = versions.push(files(3), dated("2026-02-01T00:00:00Z"))
            s.hup()
            s.published(three)
        s.terminate()


def test_deny_downgrade_of_a_tag_that_is_set_back(versions, fetcher, dest):
    """Without dates: what the published one replaced is older. [K26]"""
    one, two = versions.make(files(1)), versions.make(files(2))
    versions.move(one)
    with Sidecar(fetcher, versions.ref, dest, *FAR, "--deny-downgrade") as s:
        s.published(one)
        versions.move(two)
        s.hup()
        s.published(two)
        versions.move(one)
        s.hup()
        s.says("deny-downgrade", error="policy")
        assert marker(dest)["digest"] == two.digest
        s.terminate()
    # also by pull, and only when it is asked for
    flags = ("--layout", "versions")
    fetcher.pull(versions.ref, dest, *flags, "--deny-downgrade").exits(14)
    fetcher.pull(versions.ref, dest, *flags).ok()
    assert marker(dest)["digest"] == one.digest


# -- credentials ---------------------------------------------------------------------------------


def test_password_file_rotated_between_two_looks(faults, fetcher, tmp_path, dest):
    """Read again for each look; in between a refusal is a failure like others. [K24]"""
    one = faults.artifact(files(1))
    faults.auth_basic({"u": "first"})
    password = tmp_path / "password"
    password.write_text("first\n")
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--username", "u", "--password-file",
                 password, http=True) as s:
        s.listens().published(one.digest)
        faults.auth_basic({"u": "second"})
        two = faults.artifact(files(2))
        s.hup()
        s.says("", error="auth")
        assert s.get("/readyz")[0] == 200
        password.write_text("second\n")
        s.hup()
        s.published(two.digest)
        assert "first" not in s.run.err() and "second" not in s.run.err()
        s.terminate()


def test_docker_config_rotated_through_a_secret(registry_htpasswd, fetcher, tmp_path, dest):
    """A mounted dockerconfigjson, swapped as the kubelet does it. [K24]"""
    v = Versions(registry_htpasswd, "life/secret")
    good = registry_htpasswd.docker_config(tmp_path / "good").read_bytes()
    secret = ConfigMap(tmp_path / "secret").write(b'{"auths": {}}')
    one = v.make(files(1))
    registry_htpasswd.api.put_manifest(v.repo, v.tag, one.body)
    with Sidecar(fetcher, v.ref, dest, *FAR, "--registry-config", secret.file, "--init-period",
                 "100ms") as s:
        s.says("", error="auth")
        secret.write(good)
        s.published(one)
        s.terminate()


# -- neighbours ----------------------------------------------------------------------------------


def test_two_watchers_on_one_volume(versions, fetcher, tmp_path, dest):
    """One downloads, both notify their own. [K8]"""
    one = versions.push(files(1))
    told = [tmp_path / "told-a", tmp_path / "told-b"]
    flags = [[*FAR, "--touch-file", path] for path in told]
    with Sidecar(fetcher, versions.ref, dest, *flags[0]) as a, \
            Sidecar(fetcher, versions.ref, dest, *flags[1]) as b:
        for n in range(2, 9):
            for s in (a, b):
                s.published(one)
            until(lambda: all(path.exists() for path in told))
            for path in told:
                path.unlink()
            one = versions.push(files(n))
            a.hup(), b.hup()
        until(lambda: all(path.exists() for path in told))
        assert marker(dest)["generation"] == 8
        received = [line["downloaded"] for s in (a, b) for line in s.said("pulled")]
        assert len(received) == 8, "each version was published once"
        a.terminate(), b.terminate()
    fetcher("verify", dest).ok()


def test_a_pull_beside_a_watcher(versions, fetcher, dest):
    """gc and pull of the same volume at any time."""
    one = versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, "--period", "100ms") as s:
        s.published(one)
        for n in range(2, 6):
            v = versions.push(files(n))
            fetcher.pull(versions.ref, dest, "--layout", "versions").ok()
            fetcher("gc", dest).ok()
            assert s.published(v)["generation"] == n
        s.terminate(ANY)


# -- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, rc", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_end_in_mid_pull(faults, fetcher, dest, number, rc):
    """Of the first version and of a later one. [K9]"""
    for n in (1, 2):
        art = faults.artifact({"w": data(n, MIB)})
        rule = faults.rule(art.digest_of("w"), stall_at=100_000)
        with Sidecar(fetcher, faults.ref(), dest, *FAR) as s:
            assert faults.wait(lambda f: f.stalled), s.run.err()
            r = s.terminate(rc, number)
            assert len([x for x in r.log if x["level"] == "error"]) == 1
        faults.rules.remove(rule)
        fetcher.pull(faults.ref(), dest, "--layout", "versions").ok()


def test_end_at_idle(versions, fetcher, dest):
    """Nothing was under way: that is no failure."""
    one = versions.push(files(1))
    for number in (signal.SIGTERM, signal.SIGINT):
        with Sidecar(fetcher, versions.ref, dest, *FAR, http=True) as s:
            s.listens().published(one)
            s.until(lambda: s.status()["phase"] == "idle")
            r = s.terminate(0, number)
            assert not [x for x in r.log if x["level"] in ("warn", "error")]


def test_end_before_anything_stands(fetcher, dest):
    """While it waits for its next try."""
    with Sidecar(fetcher, f"127.0.0.1:{free_port()}/a/b:v1", dest, *FAR, "--init-period", "1h",
                 "--retry-timeout", "50ms") as s:
        s.says("", level="warn")
        s.terminate(143)


def test_end_while_it_waits_for_the_lock(versions, faults, fetcher, dest):
    """Another fetcher is at work on the volume."""
    art = faults.artifact({"w": data(1, MIB)})
    faults.rule("blob", stall_at=100)
    holder = fetcher.start("pull", "--plain-http", art.ref, dest)
    assert faults.wait(lambda f: f.stalled), holder.err()
    versions.push(files(1))
    with Sidecar(fetcher, versions.ref, dest, *FAR) as s:
        s.says("another fetcher is at work")
        s.terminate(143)
    holder.kill()


def test_end_while_the_registry_says_nothing(faults, fetcher, dest):
    """A HEAD without an answer, with a version that stands."""
    one = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR) as s:
        s.published(one.digest)
        faults.rule("manifest", hold=threading.Event())
        n = len(faults.requests)
        s.hup()
        assert faults.wait(lambda f: len(f.requests) > n)
        s.terminate(143)


@pytest.mark.parametrize("state", ["idle", "pulling"])
def test_as_pid_1(faults, fetcher, dest, state):
    """TERM has no default action there. [K10]"""
    if not pid_namespaces():
        pytest.skip("no pid namespace to be had here")
    art = faults.artifact({"w": data(9, MIB)})
    if state == "pulling":
        faults.rule("blob", stall_at=100)
    with Sidecar(fetcher, art.ref, dest, *FAR, pid_1=True) as s:
        assert "\t1\n" in [x for x in pathlib.Path(f"/proc/{s.pid}/status").read_text()
                           .splitlines(True) if x.startswith("NSpid")][0]
        if state == "pulling":
            assert faults.wait(lambda f: f.stalled), s.run.err()
            s.terminate(143)
        else:
            s.published(art.digest)
            s.terminate(0)
