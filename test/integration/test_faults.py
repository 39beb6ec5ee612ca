# SPDX-License-Identifier: Apache-2.0
"""A server that lies, breaks off, stalls and storms: what can be mended is mended inside the
process, what cannot ends with the right code, and nothing unverified is ever published.
[C..] cases of the reference on clients, [L..] on layouts, [K..] on Kubernetes and security."""

import json
import socket
import threading
import time

import pytest

from faultserver import Presign, deep_json
from lib import oci
from lib.content import Content, data, files_in
from lib.look import holds, last_words, nothing_published, partials

MIB = 1 << 20
BODY = data(42, 3 * MIB + 77)
RANGES = ["--range-size", "256KiB"]
QUICK = ["--stall-timeout", "500ms", "--retry-timeout", "2s"]


@pytest.fixture
def art(faults):
    return faults.artifact({"w.bin": BODY, "config.json": b"{}\n"})


def good(r, dest):
    r.ok()
    holds(dest, {"w.bin": BODY, "config.json": b"{}\n"})
    assert partials(dest) == {}


def honest(r, dest, codes):
    """Either the right content and 0, or one of the codes and no w.bin."""
    assert r.rc in (0, *codes), r
    if r.rc == 0:
        holds(dest, {"w.bin": BODY, "config.json": b"{}\n"})
    else:
        assert "w.bin" not in files_in(dest)
        assert not (dest / ".fetcher" / "ready.json").exists()


# -- ranges --------------------------------------------------------------------------------------


def test_range_ignored(faults, art, fetcher, dest):
    """200 to a range is the whole blob, as one stream. [C18] [K27] [L39]"""
    faults.rule("blob", ignore_range=True)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)
    assert faults.sent(art.digest_of("w.bin")) <= len(BODY) * 1.5


@pytest.mark.parametrize("nth", [2, 3, 7])
def test_range_ignored_in_the_middle(faults, art, fetcher, dest, nth):
    """A 200 body is never written at an offset above 0."""
    faults.rule(art.digest_of("w.bin"), nth=nth, ignore_range=True)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


WRONG = {
    "start": lambda s, e, t: f"bytes {s + 1}-{e}/{t}",
    "end": lambda s, e, t: f"bytes {s}-{e + 1}/{t}",
    "shorter": lambda s, e, t: f"bytes {s}-{e - 1}/{t}",
    "total": lambda s, e, t: f"bytes {s}-{e}/{t + 1}",
    "missing": lambda s, e, t: None,
    "unit": lambda s, e, t: f"items {s}-{e}/{t}",
    "junk": lambda s, e, t: f"bytes {s}-{e}/{t} x",
    "huge": lambda s, e, t: f"bytes {s}-{'9' * 60}/{t}",
    "negative": lambda s, e, t: f"bytes -{s}-{e}/{t}",
    "backwards": lambda s, e, t: f"bytes {e}-{s}/{t}",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_content_range_once(faults, art, fetcher, dest, wrong):
    """[C19]"""
    faults.rule(art.digest_of("w.bin"), ranged=True, nth={1, 4}, content_range=WRONG[wrong])
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_content_range_always(faults, art, fetcher, dest, wrong):
    faults.rule(art.digest_of("w.bin"), ranged=True, content_range=WRONG[wrong])
    honest(fetcher.pull(art.ref, dest, *RANGES, *QUICK), dest, (22, 30, 31))


@pytest.mark.parametrize("how", [{"status": 200, "body": b"<html>back in a minute</html>"},
                                 {"ignore_range": True}], ids=["page", "whole"])
def test_one_wrong_answer_among_good_ranges(faults, fetcher, dest, how):
    """A 200 in the middle costs that range, not all that was fetched and all ranges to come."""
    body = data(5, 8 * MIB)
    art = faults.artifact({"w": body})
    faults.rule("blob", ranged=True, nth=100, **how)
    fetcher.pull(art.ref, dest, "--concurrency", "4", "--range-size", "64KiB").ok()
    holds(dest, {"w": body})
    assert len([r for r in faults.gets("blob") if r.range]) > len(body) // 65_536


@pytest.mark.parametrize("how", [{"status": 200, "body": b"<html>back in a minute</html>"},
                                 {"status": 416}, {"raw": b"nonsense\r\n"}], ids=["page", "416", "raw"])
def test_wrong_answers_to_all_connections_at_once(faults, fetcher, dest, how):
    """What they all get in the same moment is one failure, not one for each."""
    body = data(5, 8 * MIB)
    art = faults.artifact({"w": body})
    go = threading.Event()
    faults.rule("blob", ranged=True, delay=0.02)
    bad = faults.rule("blob", ranged=True, nth=set(range(60, 64)), hold=go, **how)
    run = fetcher.start("pull", "--plain-http", "--concurrency", "16", "--range-size", "64KiB",
                        art.ref, dest)
    assert faults.wait(lambda f: bad.hits == 4), run.err()
    go.set()
    run.wait().ok()
    holds(dest, {"w": body})


def test_unknown_total(faults, art, fetcher, dest):
    """"*" is legal; the size is known from the manifest."""
    faults.rule("blob", content_range=lambda s, e, t: f"bytes {s}-{e}/*")
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


@pytest.mark.parametrize("shift", [lambda s, e, t: (s + 3, e + 3), lambda s, e, t: (s, e - 100),
                                   lambda s, e, t: (0, e - s)],
                         ids=["shifted", "less", "from-zero"])
def test_other_bytes_than_asked_for(faults, art, fetcher, dest, shift):
    """Told honestly in the head, sometimes: no offset is taken from anywhere but what was checked."""
    faults.rule(art.digest_of("w.bin"), ranged=True, after=1, times=4, serve_range=shift)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_multipart_answer(faults, art, fetcher, dest):
    """[C20]"""
    faults.rule(art.digest_of("w.bin"), ranged=True, times=3, multipart=True)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_416_for_a_range_that_exists(faults, art, fetcher, dest):
    faults.rule(art.digest_of("w.bin"), ranged=True, nth=2, status=416)
    honest(fetcher.pull(art.ref, dest, *RANGES, *QUICK), dest, (30,))


# -- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [
    {"reset_at": 1000}, {"reset_at": 0}, {"reset_at": 262_143}, {"close_at": 1000},
    {"close_at": 0}, {"short": 1}, {"short": 100_000}, {"close": True},
], ids=lambda h: "-".join(f"{k}-{v}" for k, v in h.items()))
def test_connections_that_end_early(faults, art, fetcher, dest, how):
    """Every second answer. What arrived is kept. [C25] [K27]"""
    faults.rule(art.digest_of("w.bin"), nth=set(range(1, 60, 2)), **how)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)
    assert faults.sent(art.digest_of("w.bin")) <= len(BODY) + 64 * 262_144


def test_long_body(faults, art, fetcher, dest):
    """More than was asked for: refused, or cut without harm. [C23]"""
    faults.rule(art.digest_of("w.bin"), long=100, times=3)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_long_body_without_a_range(faults, fetcher, dest):
    body = data(3, 1000)
    faults.artifact({"a": body})
    faults.rule("blob", ignore_range=True, long=10, content_length="none")
    r = fetcher.pull(faults.ref(), dest, *QUICK)
    assert r.rc in (0, 22, 30), r
    assert files_in(dest) in ({}, {"a": oci.digest_of(body)[7:]})


def test_bytes_behind_the_body(faults, art, fetcher, dest):
    faults.rule("blob", trailing=100)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


@pytest.mark.parametrize("value", [lambda n: n + 1, lambda n: n - 1, lambda n: -1,
                                   lambda n: "9" * 40, lambda n: ""],
                         ids=["more", "less", "negative", "huge", "blank"])
def test_wrong_content_length(faults, art, fetcher, dest, value):
    """[L39]"""
    faults.rule(art.digest_of("w.bin"), times=2, content_length=value)
    honest(fetcher.pull(art.ref, dest, *RANGES, "--stall-timeout", "500ms"), dest, (30,))


def test_chunked_bodies(faults, art, fetcher, dest):
    faults.rule("blob", chunked=True)
    faults.rule("manifest", chunked=True)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_bodies_that_end_with_the_connection(faults, art, fetcher, dest):
    faults.rule("blob", http10=True, ignore_range=True, content_length="none")
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_compressed_answers(faults, art, fetcher, dest):
    """Nobody asked for them; offsets mean nothing in them. [C24]"""
    faults.rule(art.digest_of("w.bin"), times=2, gzip=True)
    honest(fetcher.pull(art.ref, dest, *RANGES, *QUICK), dest, (22, 30))
    assert all(r.headers.get("accept-encoding", "identity") == "identity" for r in faults.requests)


def test_informational_heads(faults, art, fetcher, dest):
    faults.rule(None, informational=True)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


@pytest.mark.parametrize("raw", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 999 Odd\r\n\r\n",
                                 b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
                                 b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n"
                                 b"Content-Range: bytes 0-4/5\r\nContent-Range: bytes 1-5/6\r\n\r\n"
                                 b"hello", b"SSH-2.0-OpenSSH\r\n"],
                         ids=["nothing", "garbage", "999", "many-headers", "two-ranges", "ssh"])
def test_answers_that_are_no_http(faults, art, fetcher, dest, raw):
    faults.rule(art.digest_of("w.bin"), nth={1, 3}, raw=raw)
    honest(fetcher.pull(art.ref, dest, *RANGES, *QUICK), dest, (30,))


# -- slow and silent -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1000, 262_143])
def test_stalls(faults, art, fetcher, dest, at):
    """A connection without a byte is given up and its rest asked for again. [C26]"""
    faults.rule(art.digest_of("w.bin"), nth={1, 3, 4}, stall_at=at)
    good(fetcher.pull(art.ref, dest, *RANGES, "--stall-timeout", "500ms"), dest)


def test_head_that_never_comes(faults, art, fetcher, dest):
    faults.rule(art.digest_of("w.bin"), nth={2}, delay=30)
    good(fetcher.pull(art.ref, dest, *RANGES, "--stall-timeout", "500ms"), dest)


def test_range_that_was_asked_for_twice_is_not_asked_for_again(faults, fetcher, dest):
    """One connection hangs and its range comes over another one, while the blob is not complete yet."""
    body = data(9, 8 * MIB)
    art = faults.artifact({"w": body})
    done = threading.Event()
    first = faults.rule(lambda r: r.range and r.range[0] == MIB, times=1, hold_at=(1000, done))
    faults.rule(lambda r: r.range and r.range[1] == 8 * MIB - 1, hold_at=(1000, done))
    run = fetcher.start("pull", "--plain-http", "--concurrency", "8", "--range-size", "1MiB",
                        art.ref, dest)

    def second_half():
        return [r for r in faults.gets("blob") if r.range and MIB < r.range[0] < 2 * MIB]
    assert faults.wait(lambda f: any(r.done for r in second_half())), run.err()
    time.sleep(1)  # long enough for idle connections to find what looks missing
    done.set()
    run.wait().ok()
    holds(dest, {"w": body})
    assert first.hits == 1
    assert len(second_half()) == 1, [r.range for r in faults.gets("blob")]


def test_stalled_manifest(faults, art, fetcher, dest):
    faults.rule("manifest", times=1, stall_at=10)
    good(fetcher.pull(art.ref, dest, "--stall-timeout", "500ms"), dest)


def test_everything_stalls(faults, art, fetcher, dest):
    faults.rule("blob", stall_at=0)
    r = fetcher.pull(art.ref, dest, *RANGES, *QUICK, timeout=60)
    assert r.rc in (30, 31), r
    assert "w.bin" not in files_in(dest)


def test_one_byte_a_second(faults, art, fetcher, dest):
    """Bytes do come, but so few that it is a stall. [K27]"""
    faults.rule(art.digest_of("w.bin"), nth={2, 3}, rate=1)
    good(fetcher.pull(art.ref, dest, *RANGES, "--speed-limit", "1KiB", "--speed-time", "1s"), dest)


def test_one_byte_a_second_everywhere(faults, art, fetcher, dest):
    """Some bytes on each new connection do not renew the budget."""
    faults.rule("blob", rate=1)
    r = fetcher.pull(art.ref, dest, *RANGES, "--speed-limit", "1KiB", "--speed-time", "1s",
                     "--retry-timeout", "3s", timeout=30)
    assert r.rc in (30, 31), r
    assert "w.bin" not in files_in(dest)


def test_manifest_of_one_byte_a_second(faults, art, fetcher, dest):
    faults.rule("manifest", rate=1)
    r = fetcher.pull(art.ref, dest, "--speed-limit", "1KiB", "--speed-time", "1s",
                     "--retry-timeout", "2s", timeout=30)
    assert r.rc in (30, 31), r


def test_a_slow_line_is_no_stall(faults, fetcher, dest):
    """Slower than nothing else, but above --speed-limit: patience."""
    body = data(8, 300_000)
    art = faults.artifact({"a": body})
    faults.rule("blob", rate=100_000)
    fetcher.pull(art.ref, dest, "--concurrency", "1", "--stall-timeout", "1s", "--speed-limit",
                 "1KiB", "--speed-time", "1s", "--retry-timeout", "1s").ok()
    holds(dest, {"a": body})


def test_deadline(faults, art, fetcher, dest):
    faults.rule(art.digest_of("w.bin"), rate=10_000)
    r = fetcher.pull(art.ref, dest, *RANGES, "--deadline", "1s", timeout=30).exits(31)
    assert "deadline" in last_words(r)


def test_deadline_holds_before_the_blobs(faults, art, fetcher, dest):
    """Also where the manifest is slow, refused, or comes from a server that is overloaded."""
    for how in ({"rate": 20}, {"delay": 30}, {"status": 503}, {"status": 503, "retry_after": 30}):
        faults.clear()
        faults.rule("manifest", **how)
        r = fetcher.pull(art.ref, dest, "--deadline", "1s", timeout=15).exits(31)
        assert "deadline" in last_words(r), how


@pytest.mark.parametrize("size", [600_000, 1_500_000])
def test_budget_starts_anew_with_progress(faults, fetcher, dest, size):
    """Each answer breaks off early, for longer than the retry budget in all; bytes renew it."""
    body = data(8, size)
    art = faults.artifact({"a": body})
    faults.rule("blob", reset_at=size // 30, delay=0.1)
    began = time.monotonic()
    fetcher.pull(art.ref, dest, "--concurrency", "1", "--retry-timeout", "1500ms", timeout=100).ok()
    assert time.monotonic() - began > 1.5, "the case did not outlast the budget"
    holds(dest, {"a": body})


def test_server_goes_away_and_comes_back(registry, push, wire, fetcher, dest):
    """Every connection cut at once, several times, as when a node restarts."""
    body = Content(71, 48 * MIB)
    p = push(registry, "faults/cut", "v1", {"w": body})
    wire.limit = 40 * MIB
    run = fetcher.start("pull", "--plain-http", "--range-size", "1MiB", p.on(wire), dest)
    for done in (4, 14, 25, 37):
        while wire.body("/blobs/") < done * MIB and run.alive():
            time.sleep(0.01)
        wire.cut()
    run.wait().ok()
    holds(dest, {"w": body})
    assert wire.body("/blobs/") <= 48 * MIB + 4 * 16 * MIB


def test_listener_that_never_accepts(fetcher, dest):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        r = fetcher.pull(f"127.0.0.1:{silent.getsockname()[1]}/a/b:v1", dest, "--stall-timeout",
                         "300ms", "--retry-timeout", "1s", "--connect-timeout", "300ms", timeout=30)
        assert r.rc in (30, 31), r


# -- statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blob", "manifest"])
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_statuses_that_pass(faults, art, fetcher, dest, kind, status):
    faults.rule(kind, status=status, error="UNAVAILABLE", times=2)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


@pytest.mark.parametrize("status, rc", [(400, 30), (405, 30), (416, 30), (418, 30), (451, 30),
                                        (403, 20), (404, 21), (410, 21)])
def test_statuses_that_end_it(faults, art, fetcher, dest, status, rc):
    """4xx of other kinds: no retry."""
    faults.rule("blob", status=status, error="UNKNOWN")
    r = fetcher.pull(art.ref, dest).exits(rc)
    assert str(status) in last_words(r)
    assert len(faults.gets("blob")) <= 6
    nothing_published(dest)


def test_policy_answer_of_harbor(faults, art, fetcher, dest):
    """412: the project's policy forbids it (a scan is missing); trying again does not help."""
    faults.rule("manifest", status=412, error="PROJECTPOLICYVIOLATION")
    words = last_words(fetcher.pull(art.ref, dest).exits(20))
    assert "projectpolicyviolation" in words.lower()


@pytest.mark.parametrize("value", [1, "date+2", "garbage", -5, "date-100", 0, "1.5", ""])
def test_retry_after(faults, art, fetcher, dest, value):
    """[C34]"""
    faults.rule("blob", status=429, error="TOOMANYREQUESTS", retry_after=value, times=2)
    began = time.monotonic()
    good(fetcher.pull(art.ref, dest, *RANGES, timeout=60), dest)
    if value == 1:
        first = next(r for r in faults.requests if r.status == 429)
        after = [r for r in faults.requests if r.digest == first.digest and r.n > first.n
                 and r.range == first.range]
        assert after and after[0].time - first.time >= 0.9
    assert time.monotonic() - began < 30


def test_huge_retry_after_ends_by_the_budget(faults, art, fetcher, dest):
    faults.rule("blob", status=429, retry_after=10**9)
    fetcher.pull(art.ref, dest, "--retry-timeout", "1s", timeout=30).exits(30)


def test_storm_of_503(faults, art, fetcher, dest):
    """Two of three answers, all the way; fewer connections, not more."""
    faults.rule("blob", nth=set(n for n in range(1, 90) if n % 3), status=503)
    good(fetcher.pull(art.ref, dest, *RANGES, timeout=100), dest)


def test_storm_without_end(faults, art, fetcher, dest):
    faults.rule("blob", status=503)
    r = fetcher.pull(art.ref, dest, "--retry-timeout", "1500ms", timeout=30).exits(30)
    assert "503" in last_words(r)
    assert len(faults.gets("blob")) < 300, "no backoff"
    nothing_published(dest)


def test_manifest_that_is_overloaded_without_end(faults, art, fetcher, dest):
    faults.rule("manifest", status=503)
    fetcher.pull(art.ref, dest, "--retry-timeout", "1s", timeout=30).exits(30)


# -- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(faults, stranger, art, fetcher, dest, status):
    faults.rule("blob", redirect=lambda r: stranger.base + r.target, redirect_status=status)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)
    assert stranger.leaks() == []
    # The target is kept per blob, not asked for with each range.
    assert len(faults.gets(art.digest_of("w.bin"))) < len(stranger.gets(art.digest_of("w.bin")))


def test_redirect_to_other_host_port_and_scheme(faults, stranger, art, fetcher, dest):
    """Another host name for the same address, and protocol-relative and absolute-path forms."""
    host = stranger.host.replace("127.0.0.1", "localhost")
    faults.rule(art.digest_of("w.bin"), redirect=lambda r: f"http://{host}{r.target}")
    faults.rule(art.digest_of("config.json"), redirect=lambda r: f"//{stranger.host}{r.target}")
    good(fetcher.pull(art.ref, dest, *RANGES), dest)
    assert stranger.leaks() == []


def test_ten_redirects(faults, art, fetcher, dest):
    faults.rule(art.digest_of("w.bin"), redirect=lambda r: faults.hops(9, r))
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_eleven_redirects(faults, art, fetcher, dest):
    """[K30]"""
    faults.rule(art.digest_of("w.bin"), redirect=lambda r: faults.hops(12, r))
    r = fetcher.pull(art.ref, dest, *RANGES, "--retry-timeout", "1s", timeout=30).exits(30)
    assert "redirect" in last_words(r)


@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_redirect_loop(faults, art, fetcher, dest, kind):
    faults.rule(kind, redirect=lambda r: faults.loop())
    r = fetcher.pull(art.ref, dest, "--retry-timeout", "1s", timeout=30).exits(30)
    assert "redirect" in last_words(r)
    assert len(faults.requests) < 100
    nothing_published(dest)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "",
                                    "gopher://x", "http://u:p@127.0.0.1:1/x", "http://a b/",
                                    "http://127.0.0.1:99999/x", "javascript:x"])
def test_redirects_to_nonsense(faults, art, fetcher, dest, target):
    faults.rule("blob", redirect=lambda r: target)
    r = fetcher.pull(art.ref, dest, "--retry-timeout", "1s", timeout=30).exits(30)
    assert "u:p" not in r.err
    nothing_published(dest)


def test_long_location(faults, stranger, art, fetcher, dest):
    """A session token of several KiB in the query. [C29]"""
    faults.rule("blob", redirect=lambda r: stranger.base + r.target + "?t=" + "x" * 9000)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_location_beyond_the_cap(faults, stranger, art, fetcher, dest):
    faults.rule("blob", redirect=lambda r: stranger.base + r.target + "?t=" + "x" * 40_000)
    fetcher.pull(art.ref, dest, "--retry-timeout", "1s", timeout=30).exits(30)


@pytest.mark.parametrize("seen", [True, False], ids=["told", "untold"])
def test_presigned_url_that_expires_by_use(faults, stranger, art, fetcher, dest, seen):
    """403 from storage: resolved again at the registry, what is there is kept. [K29] [L40]"""
    faults.rule(art.digest_of("w.bin"), redirect=Presign(stranger, uses=3, expires_seen=seen))
    good(fetcher.pull(art.ref, dest, *RANGES), dest)
    asked = len(faults.gets(art.digest_of("w.bin")))
    assert 3 <= asked <= 20
    assert stranger.sent("presigned") <= len(BODY) + 16 * 262_144


def test_presigned_url_that_expires_by_time(faults, stranger, fetcher, dest):
    body = data(5, 2 * MIB)
    art = faults.artifact({"w": body})
    faults.rule("blob", redirect=Presign(stranger, seconds=0.6, expires_seen=False))
    stranger.rule("presigned", rate=500_000)
    fetcher.pull(art.ref, dest, "--concurrency", "2", *RANGES).ok()
    holds(dest, {"w": body})
    assert len(faults.gets("blob")) >= 2


def test_presigned_url_that_is_dead_at_once(faults, stranger, art, fetcher, dest):
    """Fresh ones are refused as well: an end, not a loop; the signature is not logged."""
    faults.rule(art.digest_of("w.bin"), redirect=Presign(stranger, uses=0))
    r = fetcher.pull(art.ref, dest, "--retry-timeout", "1s", "-v", timeout=30)
    assert r.rc in (20, 30), r
    assert "X-Amz-Signature=" not in r.err
    assert len(faults.gets(art.digest_of("w.bin"))) < 60


def test_presigned_url_that_expires_under_many_connections(faults, stranger, fetcher, dest):
    """All of them are refused at once: one asks for the new place, and its redirect is one hop."""
    body = data(5, 10 * MIB)
    art = faults.artifact({"w": body})
    faults.rule("blob", delay=0.05, redirect=Presign(stranger, uses=40, expires_seen=False))
    stranger.rule("presigned", delay=0.2)
    fetcher.pull(art.ref, dest, "--concurrency", "32", "--range-size", "64KiB").ok()
    holds(dest, {"w": body})
    assert len(faults.gets("blob")) <= 12


def test_presigned_urls_on_the_registrys_own_host(faults, art, fetcher, dest):
    """403 for one that ran out is no refusal of our credentials, though host and port are the same."""
    faults.rule("blob", redirect=Presign(faults, uses=3, expires_seen=False))
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_registry_forgets_the_blob_behind_the_redirect(faults, stranger, art, fetcher, dest):
    faults.rule(art.digest_of("w.bin"), redirect=lambda r: stranger.base + r.target)
    stranger.rule(art.digest_of("w.bin"), nth=3, status=404)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


# -- wrong bytes ---------------------------------------------------------------------------------


def test_wrong_digest_once(faults, art, fetcher, dest):
    """One wrong bit in one range: fetched once more by a single stream. [C27]"""
    faults.rule(art.digest_of("w.bin"), ranged=True, nth=3, flip=list(range(0, len(BODY), 1000)))
    r = fetcher.pull(art.ref, dest, *RANGES)
    good(r, dest)
    assert any(line["level"] == "warn" for line in r.log), r
    last = faults.gets(art.digest_of("w.bin"))[-1]
    assert last.range is None or last.range[0] == 0 and last.range[1] in (None, len(BODY) - 1)


def test_wrong_digest_in_what_arrives_in_order(faults, art, fetcher, dest):
    faults.rule(art.digest_of("w.bin"), times=1, flip=5)
    good(fetcher.pull(art.ref, dest, "--concurrency", "1"), dest)


def test_wrong_digest_twice(faults, art, fetcher, dest):
    """22, nothing published, and the next run does not believe what is left. [K40] [L38]"""
    rule = faults.rule(art.digest_of("w.bin"), flip=1_234_567)
    r = fetcher.pull(art.ref, dest, *RANGES).exits(22)
    words = last_words(r)
    assert art.digest_of("w.bin")[7:19] in words or "w.bin" in words
    assert "w.bin" not in files_in(dest)
    assert not (dest / ".fetcher" / "ready.json").exists()
    assert faults.sent(art.digest_of("w.bin")) <= 2.2 * len(BODY)
    assert rule.hits >= 2
    fetcher("probe", dest).exits(21)
    faults.clear()
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


def test_one_flipped_bit_in_a_small_file(faults, fetcher, dest):
    art = faults.artifact({"config.json": b"x" * 100, "other": b"y"})
    faults.rule(art.digest_of("config.json"), flip=50)
    fetcher.pull(art.ref, dest).exits(22)
    assert "config.json" not in files_in(dest)


def test_other_blob_of_the_same_size(faults, art, fetcher, dest):
    faults.blobs[art.digest_of("w.bin")] = data(43, len(BODY))
    fetcher.pull(art.ref, dest, *RANGES).exits(22)
    assert "w.bin" not in files_in(dest)


@pytest.mark.parametrize("size", [0, 1, len(BODY) - 1, len(BODY) + 1, 2 * len(BODY)])
def test_blob_of_another_size(faults, art, fetcher, dest, size):
    """Less or more than the manifest says, by server that is honest about it. [K28]"""
    faults.blobs[art.digest_of("w.bin")] = (BODY * 2)[:size]
    r = fetcher.pull(art.ref, dest, *RANGES, *QUICK, timeout=60)
    assert r.rc in (22, 30), r
    assert "w.bin" not in files_in(dest)


def test_blob_header_that_lies_is_ignored(faults, art, fetcher, dest):
    """Docker-Content-Digest of a blob proves nothing either way."""
    faults.rule("blob", digest_header="sha256:" + "0" * 64)
    good(fetcher.pull(art.ref, dest, *RANGES), dest)


# -- manifests that lie --------------------------------------------------------------------------


def test_manifest_other_than_its_digest(faults, art, fetcher, dest):
    """[K40]"""
    real = faults.manifests[art.digest].body
    faults.manifests[art.digest] = type(faults.manifests[art.digest])(
        real.replace(b"config.json", b"konfig.json"))
    fetcher.pull(art.ref_digest, dest).exits(22)
    nothing_published(dest)
    assert faults.gets("blob") == []


def test_manifest_header_that_lies(faults, art, fetcher, dest):
    """The tag announces a digest that the bytes do not have."""
    faults.rule("manifest", digest_header="sha256:" + "0" * 64)
    r = fetcher.pull(art.ref, dest)
    assert r.rc in (0, 21, 22), r
    if r.rc == 0:
        assert json.loads((dest / ".fetcher/ready.json").read_text())["digest"] == art.digest


def test_index_entry_other_than_its_digest(faults, fetcher, dest):
    art = faults.artifact({"a": b"x"})
    entry = {"mediaType": oci.MANIFEST, "digest": art.digest,
             "size": len(faults.manifests[art.digest].body)}
    faults.manifest(oci.index([entry]), tag="top")
    faults.manifests[art.digest] = type(faults.manifests[art.digest])(
        faults.manifests[art.digest].body + b" ")
    fetcher.pull(faults.ref("top"), dest).exits(22)
    nothing_published(dest)


def test_index_entry_of_another_size(faults, fetcher, dest):
    art = faults.artifact({"a": b"x"})
    entry = {"mediaType": oci.MANIFEST, "digest": art.digest, "size": 5}
    faults.manifest(oci.index([entry]), tag="top")
    fetcher.pull(faults.ref("top"), dest).exits(22)


def layer(**keys):
    return {**oci.titled(b"x", "a"), **keys}


BAD_MANIFESTS = {
    "empty": (b"", 22), "null": (b"null", 22), "array": (b"[]", 22), "text": (b'"x"', 22),
    "cut": (b'{"schemaVersion":2,"layers":[', 22), "html": (b"<html><body>hello</body></html>", 22),
    "deep": (deep_json(), 22), "utf-8": (b'{"schemaVersion":2,"layers":[],"x":"\xff"}', 22),
    "binary": (bytes(range(256)) * 10, 22),
    "both": (json.dumps({"schemaVersion": 2, "layers": [layer()], "manifests": []}).encode(), 22),
    "neither": (b'{"schemaVersion":2}', None),
    "twice": (b'{"schemaVersion":2,"layers":[],"layers":[]}', 22),
    "type-differs": (json.dumps(oci.manifest([layer()], mediaType=oci.INDEX)).encode(), 22),
    "layers-object": (b'{"schemaVersion":2,"layers":{}}', 22),
    "layers-of-numbers": (b'{"schemaVersion":2,"layers":[1,2]}', 22),
    "schema-1": (json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode(), 25),
    "negative-size": (json.dumps(oci.manifest([layer(size=-1)])).encode(), 22),
    "huge-size": (json.dumps(oci.manifest([layer(size=2**62)])).encode(), 22),
    "size-2^64": (json.dumps(oci.manifest([layer(size=2**64)])).encode(), 22),
    "size-text": (json.dumps(oci.manifest([layer(size="1")])).encode(), 22),
    "size-float": (json.dumps(oci.manifest([layer(size=1.5)])).encode(), 22),
    "no-size": (json.dumps(oci.manifest([{k: v for k, v in layer().items() if k != "size"}]))
                .encode(), 22),
    "digest-path": (json.dumps(oci.manifest([layer(digest="sha256:../../x")])).encode(), 22),
    "digest-upper": (json.dumps(oci.manifest([layer(digest="sha256:" + "A" * 64)])).encode(), 22),
    "digest-63": (json.dumps(oci.manifest([layer(digest="sha256:" + "a" * 63)])).encode(), 22),
    "digest-65": (json.dumps(oci.manifest([layer(digest="sha256:" + "a" * 65)])).encode(), 22),
    "digest-empty": (json.dumps(oci.manifest([layer(digest="")])).encode(), 22),
    "digest-number": (json.dumps(oci.manifest([layer(digest=5)])).encode(), 22),
    "sizes-overflow": (json.dumps(oci.manifest([layer(size=2**46 - 1)] * 400)).encode(), 22),
    "title-number": (json.dumps(oci.manifest([layer(annotations={oci.TITLE: 5})])).encode(), 22),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_manifests_that_are_refused(faults, fetcher, dest, name):
    """Before any URL or path is built of them. [K34-K36] [C6] [C7] [C9]"""
    body, rc = BAD_MANIFESTS[name]
    faults.blob(b"x")
    faults.manifest(body, oci.MANIFEST, tag="v1")
    r = fetcher.pull(faults.ref(), dest, "--retry-timeout", "1s", timeout=30)
    assert r.rc == rc if rc else r.rc in (22, 25), r
    assert faults.gets("blob") == []
    assert not any(".." in q.target for q in faults.requests)
    nothing_published(dest)


def test_giant_manifest(faults, fetcher, dest):
    """Reading stops at the cap. [C17]"""
    faults.manifest(b"{", tag="v1")
    faults.rule("manifest", forever=True)
    fetcher.pull(faults.ref(), dest, timeout=30).exits(22)
    assert faults.wait(lambda f: f.open == 0)
    assert all(r.sent < 40 * MIB for r in faults.requests)


def test_manifest_beyond_the_cap_that_is_told(faults, fetcher, dest):
    faults.artifact({"a": b"x"}, annotations={"x": "y" * (4 * MIB)})
    fetcher.pull(faults.ref(), dest).exits(22)


def test_manifest_just_below_the_cap(faults, fetcher, dest):
    faults.artifact({"a": b"x"}, annotations={"x": "y" * (4 * MIB - 4096)})
    fetcher.pull(faults.ref(), dest).ok()


def test_manifest_that_breaks_off(faults, art, fetcher, dest):
    faults.rule("manifest", nth={1, 2}, reset_at=20)
    good(fetcher.pull(art.ref, dest), dest)


def test_tag_that_moves_between_requests(faults, fetcher, dest):
    """HEAD says one digest, GET of the tag would give another: what is published is one of both,
    whole, and the marker says which."""
    a = faults.artifact({"a": b"old"})
    old = faults.manifests["v1"]
    b = faults.artifact({"a": b"new"})
    new = faults.manifests["v1"]
    faults.manifests["v1"] = old
    moved = threading.Event()

    def move(request, reply):
        if not moved.is_set():
            moved.set()
            faults.manifests["v1"] = new
    faults.rule("manifest", handler=move)
    fetcher.pull(a.ref, dest).ok()
    mark = json.loads((dest / ".fetcher/ready.json").read_text())
    want = {a.digest: b"old", b.digest: b"new"}[mark["digest"]]
    holds(dest, {"a": want})


def test_error_body_without_end(faults, art, fetcher, dest):
    """[K34]"""
    faults.rule("manifest", status=500, forever=True)
    fetcher.pull(art.ref, dest, "--retry-timeout", "1s", "--stall-timeout", "1s", timeout=60
                 ).exits(30)
    assert all(r.sent < 40 * MIB for r in faults.requests)


def test_port_is_closed_in_the_middle(registry, push, fetcher, dest):
    """Retries exhausted: 30, what was fetched stays, and the next run goes on there."""
    from lib.relay import Relay
    body = Content(72, 24 * MIB)
    p = push(registry, "faults/closed", "v1", {"w": body})
    with Relay(registry, limit=30 * MIB) as wire:
        # two connections: what a closed one had in its buffers, at most a range, is lost
        run = fetcher.start("pull", "--plain-http", "--range-size", "1MiB", "--retry-timeout", "1s",
                            "--concurrency", "2", p.on(wire), dest)
        while wire.body("/blobs/") < 16 * MIB and run.alive():
            time.sleep(0.01)
    run.wait(60).exits(30)
    nothing_published(dest)
    kept = sum(partials(dest).values())
    assert kept > 0
    with Relay(registry) as again:
        fetcher.pull(p.on(again), dest).ok()
        assert again.body("/blobs/") < 20 * MIB
    holds(dest, {"w": body})
