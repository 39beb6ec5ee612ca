# SPDX-License-Identifier: Apache-2.0
"""zot that fetches from the registry on demand, as a mirror. It fetches an artifact whole when it is asked for the manifest, and
answers afterwards."""
import pytest

from lib.content import Content
from lib.look import holds, until
from lib.oci import push
from lib.relay import Relay
from tools import Zot

from conftest import find_tool

MIB = 1 << 20
FILES = {"config.json": b'{"layers": 2}', "w.bin": Content(161, 16 * MIB + 1), "vocabulary": Content(162, 70_001)}
SIZE = sum(len(value) for value in FILES.values())


@pytest.fixture
def upstream(registry):
    """What zot asks of the registry."""
    with Relay(registry) as relay:
        yield relay


@pytest.fixture
def zot(registry, upstream, tmp_path):
    with Zot(tmp_path / "zot", find_tool("zot"), upstream) as server:
        probe = push(registry, "interop/zot-probe", "v1", {"a": b"a"})
        if server.api.request("GET", f"/v2/{probe.repo}/manifests/v1")[0] != 200:
            pytest.skip("this zot was built without sync")
        upstream.reset()
        yield server


def servers(done, dest):
    done.ok()
    holds(dest, FILES)
    return [{key: s[key] for key in ("bytes", "bad", "misses", "fallbacks")} for s in done.json["servers"]]


def test_cold_and_warm(registry, upstream, zot, fetcher, dest):
    """Every byte of both pulls from zot; the registry gives them out once."""
    pushed = push(registry, "interop/zot-mirror", "v1", FILES)
    with Relay(registry) as origin, Relay(zot) as mirror:
        for name in ("cold", "warm"):
            done = fetcher.pull(pushed.on(origin), dest / name, "--mirror", mirror.url, "--output", "json", "--range-size", MIB)
            assert servers(done, dest / name) == [{"bytes": SIZE, "bad": False, "misses": 0, "fallbacks": 0},
                                                  {"bytes": 0, "bad": False, "misses": 0, "fallbacks": 0}]
        assert {r.method for r in origin.requests} == {"HEAD"}
        assert len([r for r in mirror.gets("/blobs/") if r.status == 206]) >= 32
    assert SIZE <= upstream.body("/blobs/") < 2 * SIZE


def test_patience_ends_while_it_fetches(registry, upstream, zot, fetcher, dest):
    """An artifact that takes zot longer than --mirror-timeout: this pull is the registry's, the next one finds it there."""
    pushed = push(registry, "interop/zot-slow", "v1", FILES)
    upstream.limit = 4 * MIB
    with Relay(registry) as origin:
        flags = ("--mirror", zot.url, "--output", "json", "--mirror-timeout", "1s")
        done = fetcher.pull(pushed.on(origin), dest / "1", *flags)
        mirror, direct = servers(done, dest / "1")
        assert mirror["bad"] and mirror["bytes"] == 0 and direct["bytes"] == SIZE
        upstream.limit = None
        until(lambda: zot.api.has_blob(pushed.repo, FILES["w.bin"].digest), 60, 0.2)
        assert servers(fetcher.pull(pushed.on(origin), dest / "2", *flags), dest / "2")[0]["bytes"] == SIZE


def test_the_registry_lacks_it_too(registry, zot, fetcher, dest):
    pushed = push(registry, "interop/zot-mirror", "v2", {"a": b"a"})
    gone = pushed.on(registry, tag=False)[:-8] + "00000000"
    assert fetcher.pull(gone, dest, "--mirror", zot.url).exits(21)
