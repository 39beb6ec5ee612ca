# SPDX-License-Identifier: Apache-2.0
"""A volume that several Pods share (ReadWriteMany): one downloads, the others wait and see the
result, also when the one that downloads dies or hangs."""

import os
import signal
import time

import pytest

from lib import oci
from lib.content import Content
from lib.look import holds, last_words, marker, until
from lib.relay import Relay

MIB = 1 << 20
FILES = {"model-1.bin": Content(71, 64 * MIB), "model-2.bin": Content(72, 32 * MIB), "config.json": b"{}",
         "d/tokenizer.json": b"tok"}
TOTAL = sum(len(v) for v in FILES.values())
SPAN = 4 * MIB
CONNECTIONS = 4
SLACK = CONNECTIONS * SPAN  # what a kill may cost: one range per connection
WAITING = "another fetcher is at work"


@pytest.fixture(scope="module")
def model(registry):
    return oci.push(registry, "shared/model", "v1", FILES)


@pytest.fixture
def line(registry):
    """The registry behind a line that is slow enough for others to come in the middle."""
    with Relay(registry, limit=48 * MIB) as relay:
        yield relay


@pytest.fixture(params=["flat", "versions"])
def layout(request):
    return request.param


@pytest.fixture
def pull(fetcher, model, line, dest, layout):
    """pull(*flags) -> a fetcher at work on DEST."""
    def go(*flags):
        return fetcher.start("pull", "--plain-http", "--layout", layout, "--range-size", SPAN,
                             "--concurrency", CONNECTIONS, *flags, model.on(line), dest)
    return go


def files_of(dest, layout):
    return dest if layout == "flat" else dest / "current"


def under_way(line, run, share):
    """Waits until that share of the artifact crossed the wire."""
    until(lambda: line.body("/blobs/") >= share * TOTAL or not run.alive())
    assert run.alive(), run.err()


def wait_in_line(runs):
    for run in runs:
        until(lambda: WAITING in run.err() or not run.alive())
        assert run.alive(), run.err()


def holder_of(dest):
    """The pid that the lock file tells."""
    return int((dest / ".fetcher" / "lock").read_text().split('"pid":')[1].split(",")[0])


def test_six_at_once(pull, line, dest, layout, fetcher):
    """One download; all of them succeed, and what they say agrees."""
    runs = [pull("--output", "json") for _ in range(6)]
    results = [run.wait(120).ok() for run in runs]
    holds(files_of(dest, layout), FILES)
    assert line.body("/blobs/") <= 1.05 * TOTAL
    done = [r.json for r in results]
    assert len({r["digest"] for r in done}) == 1 and {r["generation"] for r in done} == {1}
    assert [r["upToDate"] for r in done].count(False) == 1
    assert sorted(r["downloaded"] > 0 for r in done) == [False] * 5 + [True]
    assert sum(WAITING in r.err for r in results) == 5
    # and one that comes later asks for no blob at all
    line.reset()
    pull().wait().ok()
    assert line.gets("/blobs/") == []


def test_each_blob_once_in_the_access_log(registry, model, fetcher, dest):
    """What the registry itself counted: one plain request for each blob, however many want them."""
    files = {f"f{i}": b"small %d" % i for i in range(8)}
    small = oci.push(registry, "shared/small", "v1", files)
    before = registry.gets("blobs")
    runs = [fetcher.start("pull", "--plain-http", small.ref, dest) for _ in range(6)]
    for run in runs:
        run.wait(60).ok()
    holds(dest, files)
    until(lambda: registry.gets("blobs") - before >= len(files))
    assert registry.gets("blobs") - before == len(files)


def test_holder_is_killed(pull, line, dest, layout):
    """A waiter takes over where the dead one was; the others see the result."""
    holder = pull()
    under_way(line, holder, 0.5)
    waiters = [pull("--output", "json") for _ in range(4)]
    wait_in_line(waiters)
    holder.kill()
    assert marker(dest) is None
    results = [run.wait(120).ok().json for run in waiters]
    holds(files_of(dest, layout), FILES)
    assert line.body("/blobs/") <= 1.05 * TOTAL + SLACK
    assert [r["upToDate"] for r in results].count(False) == 1
    assert max(r["downloaded"] for r in results) < TOTAL


def test_one_holder_after_the_other_is_killed(pull, line, dest, layout):
    """Whoever took over dies as well, twice."""
    first = pull()
    under_way(line, first, 0.3)
    runs = {run.pid: run for run in [pull() for _ in range(3)]}
    wait_in_line(runs.values())
    first.kill()
    for share in (0.6, 0.9):
        until(lambda: line.body("/blobs/") >= share * TOTAL)
        pid = holder_of(dest)
        runs.pop(pid).kill()
        assert marker(dest) is None
    (last,) = runs.values()
    last.wait(120).ok()
    holds(files_of(dest, layout), FILES)
    assert line.body("/blobs/") <= 1.05 * TOTAL + 3 * SLACK


def test_holder_hangs(pull, line, dest, layout):
    """A process that stands still has the lock; those who wait give up at --lock-timeout and say
    whom they waited for."""
    holder = pull()
    under_way(line, holder, 0.3)
    holder.signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        waiters = [pull("--lock-timeout", "1s"), pull("--lock-timeout", "0"), pull("--lock-timeout", "300ms")]
        for run in waiters:
            words = last_words(run.wait(30).exits(41))
            assert f"pid {holder.pid} on host {os.uname().nodename[:64]} since 20" in words
        assert time.monotonic() - start > 0.9
        assert marker(dest) is None
        patient = pull()
        wait_in_line([patient])
    finally:
        holder.signal(signal.SIGCONT)
    holder.wait(120).ok()
    patient.wait(120).ok()
    holds(files_of(dest, layout), FILES)
    assert line.body("/blobs/") <= 1.05 * TOTAL + SLACK


def test_waiters_can_be_stopped(pull, line, dest):
    """SIGTERM to one that waits ends only that one."""
    holder = pull()
    under_way(line, holder, 0.2)
    waiter, other = pull(), pull()
    wait_in_line([waiter, other])
    waiter.terminate(5).exits(143)
    other.terminate(5).exits(143)
    holder.wait(120).ok()
    assert line.body("/blobs/") <= 1.05 * TOTAL


def test_reader_waits_for_another_pods_download(pull, line, dest, layout, fetcher):
    """`fetcher wait` in the server's container: not before the last file, also over a takeover."""
    dest.mkdir()
    reader = fetcher.start("wait", dest, "--", "/bin/sh", "-c", f"cat {files_of(dest, layout)}/config.json "
                           f"{files_of(dest, layout)}/d/tokenizer.json && test -s {dest}/.fetcher/ready.json")
    holder = pull()
    under_way(line, holder, 0.3)
    waiter = pull()
    wait_in_line([waiter])
    fetcher("wait", "--timeout", "200ms", dest).exits(31)
    assert reader.alive()
    holder.kill()
    until(lambda: line.body("/blobs/") >= 0.7 * TOTAL)
    assert reader.alive() or marker(dest)
    waiter.wait(120).ok()
    assert reader.wait(30).ok().out == "{}tok"
    fetcher("wait", dest).ok()
    holds(files_of(dest, layout), FILES)


def test_another_digest_waits_its_turn(registry, pull, line, dest, layout, fetcher):
    """Two Pods of two releases: one after the other, and the files are those of one of them."""
    files = {**FILES, "config.json": b"{2}"}
    newer = oci.push(registry, "shared/model", "v2", files)
    holder = pull()
    under_way(line, holder, 0.3)
    second = fetcher.start("pull", "--plain-http", "--layout", layout, newer.on(line), dest)
    wait_in_line([second])
    holder.wait(120).ok()
    second.wait(120).ok()
    holds(files_of(dest, layout), files)
    assert marker(dest)["generation"] == 2
    assert line.body("/blobs/") <= 1.05 * TOTAL
