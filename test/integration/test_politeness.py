# SPDX-License-Identifier: Apache-2.0
"""What a server bears: a rate that all connections share, so many connections to one host, and what one of them is told
(429, Retry-After) holds for all. [A..] and [O..] cases of the reference on clients, sections 3 and 6."""

import signal
import time

import pytest

from lib.content import data
from lib.look import holds, last_words, partials

MIB = 1 << 20
KIB = 1 << 10
BODY = data(42, 6 * MIB + 77)
RANGES = ["--range-size", "256KiB"]


@pytest.fixture
def art(faults):
    return faults.artifact({"w.bin": BODY, "x.bin": BODY[:3 * MIB], "config.json": b"{}\n"})


def good(r, dest):
    r.ok()
    holds(dest, {"w.bin": BODY, "x.bin": BODY[:3 * MIB], "config.json": b"{}\n"})
    assert partials(dest) == {}


# -- rate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], RANGES, ["--concurrency", "1"]], ids=["auto", "ranges", "one"])
def test_rate_limit(faults, art, fetcher, dest, more):
    """Not faster than was allowed; that is no stall and no trouble, and costs no more requests."""
    size = len(BODY) + 3 * MIB
    start = time.monotonic()
    r = fetcher.pull(art.ref, dest, "--rate-limit", "3MiB", "--stall-timeout", "1s", "--speed-limit", "1GiB",
                     "--speed-time", "1s", *more)
    took = time.monotonic() - start
    good(r, dest)
    assert took >= 0.9 * size / (3 * MIB)
    assert "again" not in r.err
    assert len(faults.gets("blob")) <= size // (256 * KIB) + 8
    assert faults.sent("blob") <= size * 1.2


def test_rate_limit_of_one_stream(faults, art, fetcher, dest):
    """A server without ranges."""
    faults.rule("blob", ignore_range=True)
    start = time.monotonic()
    good(fetcher.pull(art.ref, dest, "--rate-limit", "3MiB"), dest)
    assert time.monotonic() - start >= 0.9 * 3


def test_signal_while_the_rate_makes_wait(faults, art, fetcher, dest):
    run = fetcher.start("pull", "--plain-http", "--rate-limit", "1KiB", art.ref, dest)
    assert faults.wait(lambda f: f.gets("blob")), run.err()
    time.sleep(0.5)
    start = time.monotonic()
    run.signal(signal.SIGTERM)
    r = run.wait()
    assert r.rc == 143, r
    assert time.monotonic() - start < 5


def test_no_limit(art, fetcher, dest):
    good(fetcher.pull(art.ref, dest, "--rate-limit", "none", "--max-connections-per-host", "none"), dest)


@pytest.mark.parametrize("args", [["--rate-limit", "fast"], ["--rate-limit", "1"], ["--max-connections-per-host", "x"],
                                  ["--max-connections-per-host", "65"], ["--max-connections-per-host", "-1"]])
def test_nonsense(art, fetcher, dest, args):
    assert args[0] in last_words(fetcher.pull(art.ref, dest, *args).exits(2))


# -- connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 5])
def test_connections_per_host(faults, art, fetcher, dest, most):
    faults.rule("blob", delay=0.02)
    good(fetcher.pull(art.ref, dest, "--max-connections-per-host", str(most), "--concurrency", "16", *RANGES), dest)
    assert len({r.peer for r in faults.gets("blob")}) <= most
    assert faults.open_max <= most + 1  # and the one that the manifest came by


def test_storage_counts_by_itself(faults, stranger, art, fetcher, dest):
    """The registry redirects to another host, which has a limit of its own."""
    stranger.rule("blob", delay=0.02)
    faults.rule("blob", delay=0.02, redirect=lambda r: stranger.base + r.target)
    good(fetcher.pull(art.ref, dest, "--max-connections-per-host", "3", "--concurrency", "16", *RANGES), dest)
    assert len({r.peer for r in faults.gets("blob")}) <= 3
    assert len({r.peer for r in stranger.gets("blob")}) <= 3
    assert faults.open_max <= 4
    assert stranger.open_max <= 3


# -- told to wait --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"status": 429, "retry_after": 2}, {"status": 429, "retry_after": "date+3"},
                                 {"status": 503, "retry_after": 2}, {"status": 403, "retry_after": 2}],
                         ids=["429", "429-date", "503", "403"])
def test_retry_after_holds_all_back(faults, art, fetcher, dest, how):
    """No connection, of whatever blob, asks that host before it said. [O34] [A8]"""
    faults.rule("blob", delay=0.02)
    rule = faults.rule(art.digest_of("w.bin"), nth=8, **how)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)
    assert rule.hits == 1
    told = next(r.time for r in faults.gets("blob") if r.status == how["status"])
    early = [r for r in faults.gets("blob") if told + 0.5 < r.time < told + 1.8]
    assert early == []


def test_retry_after_of_storage_leaves_the_registry_alone(faults, stranger, art, fetcher, dest):
    """One host's limit is not another's: blobs that the registry itself has go on."""
    w, x = art.digest_of("w.bin"), art.digest_of("x.bin")
    faults.rule(w, redirect=lambda r: stranger.base + r.target)
    faults.rule(x, delay=0.3)
    stranger.rule("blob", times=1, status=429, retry_after=3)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)
    told = next(r.time for r in stranger.gets("blob") if r.status == 429)
    assert [r for r in stranger.gets("blob") if told + 0.5 < r.time < told + 2.8] == []
    assert [r for r in faults.gets("blob") if r.digest == x and told + 0.1 < r.time < told + 2.8]


@pytest.mark.parametrize("body", [b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}',
                                  b"You have exceeded a secondary rate limit and have been temporarily blocked"])
def test_rate_limit_by_403(faults, art, fetcher, dest, body):
    """GHCR refuses too many small requests with 403. [A8] [O33]"""
    faults.rule("blob", nth={2, 3, 4}, status=403, body=body)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_rate_limit_by_403_for_ever(faults, art, fetcher, dest):
    """The budget ends it, and the words do not blame the credentials."""
    faults.rule("blob", status=403, error="TOOMANYREQUESTS")
    r = fetcher.pull(art.ref, dest, "--retry-timeout", "1s").exits(30)
    words = last_words(r)
    assert "limits how often it may be asked, 403 (TOOMANYREQUESTS" in words
    assert "may not read" not in words and "forbidden" not in words


def test_403_is_no_rate_limit(faults, art, fetcher, dest):
    faults.rule("blob", status=403, error="DENIED")
    fetcher.pull(art.ref, dest).exits(20)
    assert len(faults.gets("blob")) <= 16
