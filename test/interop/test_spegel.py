# SPDX-License-Identifier: Apache-2.0
"""Spegel 0.7.4 before a real containerd, as a mirror: what the node has comes from the node. test_mirrors.py has the rest of what
mirrors do, before stand-ins. [servers 2.1]"""
import contextlib
import http.client
import signal
import socket

import pytest

from lib.content import Content
from lib.look import holds, sha, until
from lib.oci import push
from lib.proc import free_port
from lib.relay import Relay
from tools import Containerd, Spegel, Tool

from conftest import find_tool

MIB = 1 << 20
SPAN = MIB // 2
WEIGHTS = {"w-1.bin": Content(131, 24 * MIB + 1), "w-2.bin": Content(132, 9 * MIB), "vocabulary": Content(133, 70_001)}
# Spegel 0.7.4 takes a JSON object for a manifest, an index or an image's configuration, or for nothing that it has: 404.
OBJECTS = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b'{"version": "1.0", "model": {}}'}
FILES = WEIGHTS | OBJECTS


WARNINGS = ("warn", "warning", "error")


def size(files):
    return sum(len(value) for value in files.values())


@pytest.fixture(scope="module")
def spegel_program():
    return find_tool("spegel")


@pytest.fixture(scope="module")
def containerd(workdir):
    """containerd("name") -> a node's containerd."""
    programs = find_tool("containerd"), find_tool("ctr")
    with contextlib.ExitStack() as running:
        yield lambda name: running.enter_context(Containerd(workdir / name, *programs))


@pytest.fixture(scope="module")
def origin(registry):
    """The registry, as everybody here names it, with what it is asked."""
    with Relay(registry) as relay:
        yield relay


@pytest.fixture(scope="module")
def node(spegel_program, containerd):
    return containerd("node")


@pytest.fixture(scope="module")
def pulled(registry, origin, node):
    """An artifact that the node's containerd has pulled."""
    pushed = push(registry, "interop/spegel", "v1", FILES)
    node.fetch(pushed.on(origin))
    return pushed


@pytest.fixture
def spegel(spegel_program, node, pulled, tmp_path):
    with Spegel(tmp_path / "spegel", spegel_program, node) as server:
        yield server


@pytest.fixture
def wire(spegel, origin):
    origin.reset()
    with Relay(spegel) as relay:
        yield relay


def pull(fetcher, ref, dest, *flags, files=FILES):
    """{server: what came from it}, what was warned of."""
    return looked_at(fetcher("pull", "--output", "json", "--range-size", SPAN, *flags, ref, dest), dest, files)


def looked_at(done, dest, files):
    done.ok()
    holds(dest, files)
    return {s["name"]: s for s in done.json["servers"]}, [line["msg"] for line in done.log if line["level"] in WARNINGS]


def asked(relay):
    """{"HEAD v1", "GET sha256:..."}"""
    return {f"{r.method} {r.target.split('?')[0].rsplit('/', 1)[1]}" for r in relay.requests}


def gets(files):
    return {"GET sha256:" + sha(value) for value in files.values()}


def test_what_the_node_has(pulled, origin, wire, fetcher, dest):
    """Manifest and weights come from the node, in ranges; the tag's digest and what Spegel cannot serve from the registry."""
    seen, warned = pull(fetcher, pulled.on(origin), dest, "--plain-http", "--mirror", wire.url)
    assert asked(origin) == {"HEAD v1"} | gets(OBJECTS)
    node, registry = seen[wire.host], seen[origin.host]
    assert (node["mirror"], node["bad"], node["fallbacks"], node["misses"]) == (True, False, 0, len(OBJECTS))
    assert (node["bytes"], registry["bytes"]) == (size(WEIGHTS), size(OBJECTS))
    assert all(r.target.endswith(f"?ns={origin.host}") for r in wire.requests)
    assert len([r for r in wire.gets("/blobs/") if r.range and r.status == 206]) >= size(WEIGHTS) // SPAN
    assert warned == []


def test_what_the_node_does_not_have(registry, origin, wire, fetcher, dest):
    """Misses are no trouble: Spegel is asked for each blob, and the registry has them."""
    files = {f"{n}.bin": Content(140 + n, 3 * MIB + n) for n in range(4)}
    pushed = push(registry, "interop/spegel-other", "v1", files)
    seen, warned = pull(fetcher, pushed.on(origin), dest, "--plain-http", "--mirror", wire.url, files=files)
    node = seen[wire.host]
    assert (node["bad"], node["fallbacks"], node["misses"], node["bytes"]) == (False, 0, len(files), 0)
    assert seen[origin.host]["bytes"] == size(files)
    assert {r.status for r in wire.requests} == {404} and gets(files) < asked(wire)
    assert warned == []


def test_a_new_version_that_shares_blobs(registry, origin, wire, fetcher, dest):
    """The node knows no manifest of it, but the blob that it has in common with what it has."""
    new = {"w-2.bin": Content(150, 5 * MIB)}
    old = {"w-1.bin": WEIGHTS["w-1.bin"]}
    pushed = push(registry, "interop/spegel", "v2", old | new)
    seen, warned = pull(fetcher, pushed.on(origin), dest, "--plain-http", "--mirror", wire.url, files=old | new)
    assert (seen[wire.host]["bytes"], seen[origin.host]["bytes"]) == (size(old), size(new))
    assert (seen[wire.host]["bad"], seen[wire.host]["misses"], warned) == (False, 1, [])


def test_without_the_registry(pulled, spegel, fetcher, dest, registry, node, origin):
    """By digest, the registry away: an artifact that the node has whole."""
    pushed = push(registry, "interop/spegel-weights", "v1", WEIGHTS)
    node.fetch(pushed.on(registry))
    gone = f"127.0.0.1:{free_port()}"
    seen, warned = pull(fetcher, pushed.on(gone, tag=False), dest, "--mirror", spegel.url, files=WEIGHTS)
    assert seen[spegel.host]["bytes"] == size(WEIGHTS) and warned == []


def test_killed_before(pulled, origin, spegel, wire, fetcher, dest):
    spegel.process.kill()
    spegel.process.wait()
    seen, warned = pull(fetcher, pulled.on(origin), dest, "--plain-http", "--mirror", spegel.url)
    assert seen[spegel.host]["bad"] and seen[spegel.host]["bytes"] == 0 and seen[origin.host]["bytes"] == size(FILES)
    assert len(warned) == 1 and spegel.host in warned[0]


def half_way(fetcher, ref, dest, mirror, happens, *flags):
    """A pull through that slow mirror; happens() in the middle of the weights."""
    run = fetcher.start("pull", "--output", "json", "--range-size", SPAN, "--plain-http", "--mirror", mirror.url, *flags,
                        ref, dest)
    until(lambda: mirror.body("/blobs/") > size(FILES) // 8)
    happens()
    return looked_at(run.wait(), dest, FILES)


def taken_over(node, registry):
    """What came from the node stays; the rest, and a range that was under way on each connection, is the registry's."""
    assert node["bytes"] > size(FILES) // 16 and registry["bytes"] > size(OBJECTS)
    assert registry["bytes"] < size(FILES) - node["bytes"] + 16 * SPAN


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_ends_half_way(pulled, origin, spegel, wire, fetcher, dest, how):
    with Relay(spegel, limit=16 * MIB) as slow:
        seen, warned = half_way(fetcher, pulled.on(origin), dest, slow, lambda: spegel.process.send_signal(how),
                                "--mirror-timeout", "2s")
    taken_over(seen[slow.host], seen[origin.host])
    assert seen[slow.host]["bad"] and seen[slow.host]["fallbacks"] >= 1
    assert len(warned) == 1 and slow.host in warned[0]


def configure(program, home, mirror, *flags):
    """What Spegel's init container writes to the node; the folder."""
    folder = home / "certs.d"
    Tool(program, home)("configuration", "--containerd-registry-config-path", folder, "--mirror-targets", mirror.url, *flags)
    return folder


@pytest.mark.parametrize("tags", [True, False], ids=["tags", "digests"])
@pytest.mark.parametrize("every", [True, False], ids=["every-registry", "one-registry"])
def test_its_own_hosts_toml(pulled, origin, wire, spegel_program, fetcher, dest, tmp_path, tags, every):
    """By default Spegel resolves tags too: then the digest counts that the node's containerd found. The file for one registry
    says http://, the one for all of them says nothing of the registry."""
    folder = configure(spegel_program, tmp_path / "conf", wire, f"--resolve-tags={str(tags).lower()}",
                       *([] if every else ["--mirrored-registries", origin.url]))
    assert (folder / ("_default" if every else origin.host) / "hosts.toml").exists()
    seen, warned = pull(fetcher, pulled.on(origin), dest, "--hosts-dir", folder, *(["--plain-http"] if every else []))
    assert (seen[wire.host]["bytes"], seen[origin.host]["bytes"]) == (size(WEIGHTS), size(OBJECTS))
    assert asked(origin) == gets(OBJECTS) | (set() if tags else {"HEAD v1"})
    assert ("HEAD v1" in asked(wire)) == tags
    assert not seen[wire.host]["bad"] and warned == []


def test_prepended_to_a_hosts_toml(pulled, registry, origin, wire, spegel_program, fetcher, dest, tmp_path):
    """The node's own mirrors stay, after Spegel: the cache has what Spegel cannot serve."""
    with Relay(registry) as cache:
        place = tmp_path / "conf/certs.d" / origin.host
        place.mkdir(parents=True)
        (place / "hosts.toml").write_text(f'[host."{cache.url}"]\n  capabilities = ["pull"]\n  dial_timeout = "1s"\n')
        folder = configure(spegel_program, tmp_path / "conf", wire, "--resolve-tags=false", "--prepend-existing",
                           "--mirrored-registries", origin.url)
        seen, warned = pull(fetcher, pulled.on(origin), dest, "--hosts-dir", folder)
    assert list(seen) == [wire.host, cache.host, origin.host]
    assert [s["bytes"] for s in seen.values()] == [size(WEIGHTS), size(OBJECTS), 0]
    assert asked(origin) == {"HEAD v1"} and warned == []


def own_address():
    """An address of this machine that Spegel announces; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback, which Spegel does not announce")
        return sock.getsockname()[0]


def is_ready(server):
    connection = http.client.HTTPConnection(server.host, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def pair(node, containerd, spegel_program, tmp_path):
    """Two nodes, (with the artifact, without any)."""
    there = own_address()
    with Spegel(tmp_path / "1", spegel_program, node, address=there, router=there) as full, \
            Spegel(tmp_path / "2", spegel_program, containerd("n-" + str(free_port())), address="127.0.0.2", router=there,
                   peer=full) as empty:
        until(lambda: is_ready(full) and is_ready(empty))
        yield full, empty


def test_what_another_node_has(pulled, origin, pair, fetcher, dest):
    """The node asked has nothing: it passes on what the other one has, ranges too. Where the other one takes too long to answer
    (a tenth of a second, by its source) Spegel says 404, and the rest of that blob is the registry's: a busy machine gets more
    than one try."""
    for number in range(8):
        origin.reset()
        with Relay(pair[1]) as wire:
            seen, warned = pull(fetcher, pulled.on(origin), dest / str(number), "--plain-http", "--mirror", wire.url)
        node = seen[wire.host]
        assert not node["bad"] and warned == []
        if node["misses"] == len(OBJECTS):
            break
    assert (node["bytes"], seen[origin.host]["bytes"]) == (size(WEIGHTS), size(OBJECTS))
    assert asked(origin) == {"HEAD v1"} | gets(OBJECTS)


def test_the_other_node_is_killed_half_way(pulled, origin, pair, fetcher, dest):
    """Spegel has no node then for what follows: a miss in the middle of a blob. A body that was under way may end short, which
    is trouble. Which of the two comes first depends on the moment."""
    full, empty = pair
    with Relay(empty, limit=16 * MIB) as slow:
        seen, warned = half_way(fetcher, pulled.on(origin), dest, slow, full.process.kill)
    node = seen[slow.host]
    taken_over(node, seen[origin.host])
    assert node["misses"] > len(OBJECTS) or node["fallbacks"] > 0
    assert len(warned) == node["bad"]
