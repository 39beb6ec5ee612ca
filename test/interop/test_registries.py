# SPDX-License-Identifier: Apache-2.0
"""Registries other than docker-registry 2.8: ranges, a second pull, a kill, wrong names."""
import pytest

from lib.content import Content
from lib.look import holds, last_words, until
from lib.relay import Relay
from tools import Crane, Distribution, Zot

from conftest import find_tool

KINDS = {"distribution": Distribution, "zot": Zot, "crane": Crane}
MIB = 1 << 20
SPAN = 2 * MIB


@pytest.fixture(scope="module", params=KINDS)
def other(request, workdir):
    program = find_tool(request.param)
    with KINDS[request.param](workdir / f"other-{request.param}", program) as server:
        yield server


@pytest.fixture
def wire(other):
    with Relay(other) as relay:
        yield relay


FILES = {"config.json": b'{"layers": 2}', "weights/model 1.bin": Content(61, 24 * MIB + 1), "empty": b"",
         "tokenizer.json": Content(62, 70_001)}


def test_pull_by_ranges(other, wire, push, fetcher, dest):
    pushed = push(other, "interop/model", "v1", FILES)
    fetcher.pull(pushed.on(wire), dest, "--range-size", SPAN).ok()
    holds(dest, FILES)
    parts = [r for r in wire.gets("blobs") if r.range]
    # without an answer: the end of a slow range that an idle connection was to take over, when it was already there
    assert len(parts) >= 12 and {r.status for r in parts} <= {206, None}, parts
    total = sum(len(value) for value in FILES.values())
    assert total <= wire.body("blobs") <= total + len(parts) // 2 * SPAN
    assert fetcher("resolve", "--plain-http", pushed.ref).ok().out.split()[0].endswith(pushed.digest)


def test_second_pull_asks_for_no_blob(other, wire, push, fetcher, dest):
    pushed = push(other, "interop/model", "v2", FILES)
    fetcher.pull(pushed.ref, dest).ok()
    fetcher.pull(pushed.on(wire), dest).ok()
    assert wire.gets("blobs") == []


def test_goes_on_after_a_kill(other, push, fetcher, dest):
    size = 96 * MIB
    pushed = push(other, "interop/model", "v3", {"w.bin": Content(63, size)})
    with Relay(other, limit=48 * MIB) as slow:
        run = fetcher.start("pull", "--plain-http", "--range-size", SPAN, pushed.on(slow), dest)
        until(lambda: slow.body("blobs") > size // 2)
        run.kill()
        first = slow.body("blobs")
    assert not (dest / "w.bin").exists()
    with Relay(other) as rest:
        fetcher.pull(pushed.on(rest), dest, "--range-size", SPAN).ok()
        # what was under way when it died: a range per connection at most
        assert rest.body("blobs") <= size - first + 16 * SPAN
    holds(dest, {"w.bin": Content(63, size)})


def test_what_is_not_there(other, push, fetcher, dest):
    push(other, "interop/model", "v4", {"a": b"a"})
    assert "no-such-tag" in last_words(fetcher.pull(f"{other.host}/interop/model:no-such-tag", dest).exits(21))
    assert "interop/nothing" in last_words(fetcher.pull(f"{other.host}/interop/nothing:v1", dest).exits(21))
