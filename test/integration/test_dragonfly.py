# SPDX-License-Identifier: Apache-2.0
"""--mirror dragonfly+http://...: lib/dfdaemon.py stands for dfdaemon, before real registries. Numbers are sections of what is
known of Dragonfly's client: 1.2 requests, 1.4 ranges, 1.5 authorisation, 1.6 when parts die."""

import threading

import pytest

from lib import oci
from lib.content import Content
from lib.dfdaemon import Dfdaemon
from lib.look import holds
from lib.registry import Registry
from lib.relay import Relay

MIB = 1 << 20
BIG, BIGGER = Content(95, 9 * MIB), Content(96, 23 * MIB)
FILES = {"config.json": b"{}", "small.bin": Content(97, 2 * MIB), "w1.bin": BIG, "w2.bin": BIGGER}
LARGE = 32 * MIB


@pytest.fixture
def dfdaemon():
    with Dfdaemon() as server:
        yield server


@pytest.fixture(scope="module")
def pushed(registry):
    return oci.push(registry, "p2p/model", "v1", FILES)


def pull(fetcher, ref, dest, dfdaemon, *flags, **how):
    r = fetcher.pull(ref, dest, "--mirror", dfdaemon.mirror, "--mirror-timeout", "2s", "--output", "json", *flags, timeout=90,
                     **how).ok()
    holds(dest, FILES)
    return r, {s["name"]: s for s in r.json["servers"]}


def test_hit(pushed, registry, dfdaemon, fetcher, dest):
    """1.2-1.4: large blobs are tasks of one request each, without small ranges; the second pull finds them finished."""
    with Relay(registry) as origin:
        r, seen = pull(fetcher, pushed.on(origin), dest / "1", dfdaemon)
        assert seen[dfdaemon.host]["bytes"] == sum(len(v) for v in FILES.values())
        tasks = dfdaemon.of("task")
        assert len(tasks) == 2
        for t in tasks:
            h = t["headers"]
            assert h["x-dragonfly-registry"] == f"http://{origin.host}" and h["x-dragonfly-use-p2p"] == "true"
            assert h["x-dragonfly-enable-task-id-based-blob-digest"] == "true" and t["path"].endswith(f"?ns={origin.host}")
        # manifests are the registry's alone
        assert not [q for q in dfdaemon.requests if "/manifests/" in q["path"]]
        assert origin.gets("/manifests/") and seen[dfdaemon.host]["hits"] == 0
        before = origin.body("/blobs/")
        r, seen = pull(fetcher, pushed.on(origin), dest / "2", dfdaemon)
        assert seen[dfdaemon.host]["hits"] == 2 and not seen[dfdaemon.host]["bad"]
        assert origin.body("/blobs/") - before <= 3 * MIB   # what is small bypasses the peers


def test_by_hosts_toml(pushed, registry, dfdaemon, fetcher, dest, tmp_path):
    """1.7: the file as dfdaemon's own init container writes it."""
    place = tmp_path / "certs.d" / registry.host
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(f'server = "{registry.url}"\n[host."{dfdaemon.url}"]\ncapabilities = ["pull", "resolve"]\n'
                                      f'[host."{dfdaemon.url}".header]\nX-Dragonfly-Registry = "{registry.url}"\n')
    r = fetcher("pull", pushed.ref, dest, "--hosts-dir", tmp_path / "certs.d", "--output", "json").ok()
    holds(dest, FILES)
    assert {s["name"]: s for s in r.json["servers"]}[dfdaemon.host]["bytes"] > 30 * MIB
    assert len(dfdaemon.of("task")) == 2 and not [q for q in dfdaemon.requests if "/manifests/" in q["path"]]


def test_old_ranges(pushed, dfdaemon, fetcher, dest):
    """1.4: 200 with Content-Range, after a body that was cut off."""
    dfdaemon.old = True
    dfdaemon.truncate, dfdaemon.truncations = 5 * MIB, 1
    pull(fetcher, pushed.ref, dest, dfdaemon)


@pytest.mark.parametrize("times", [1, None])
def test_truncated(pushed, registry, dfdaemon, fetcher, dest, times):
    """1.4: after the first piece an error only ends the connection. What came is kept; once, or again and again."""
    dfdaemon.truncate, dfdaemon.truncations = 5 * MIB, times
    with Relay(registry) as origin:
        pull(fetcher, pushed.on(origin), dest, dfdaemon)
        # never more than the blobs once more, less what had come
        assert origin.body("/blobs/") <= sum(len(v) for v in FILES.values()) * 2


def test_stuck(pushed, registry, dfdaemon, fetcher, dest):
    """1.6: a scheduler that thinks for hours. The registry has it after --mirror-timeout."""
    dfdaemon.stuck = threading.Event()
    r, seen = pull(fetcher, pushed.ref, dest, dfdaemon)
    assert seen[dfdaemon.host]["bad"] and seen[registry.host]["bytes"] >= len(BIGGER)


def test_gone(pushed, registry, dfdaemon, fetcher, dest):
    """1.6: connection refused."""
    dfdaemon.stop()
    r, seen = pull(fetcher, pushed.ref, dest, dfdaemon)
    assert seen[dfdaemon.host]["bad"] and seen[registry.host]["bytes"] == sum(len(v) for v in FILES.values())


@pytest.mark.parametrize("status, kind", [(429, "proxy"), (403, "proxy"), (500, "dfdaemon")])
def test_refused(pushed, registry, dfdaemon, fetcher, dest, status, kind):
    """1.3: the rate limit, the block list, an error of its own: the registry has it, and the message says whose error it was."""
    dfdaemon.refuse = (status, kind)
    r, seen = pull(fetcher, pushed.ref, dest, dfdaemon)
    assert seen[dfdaemon.host]["bad"] and seen[registry.host]["bytes"] >= len(BIGGER)
    assert str(status) in r.err and kind in r.err


def test_wrong_bytes(pushed, registry, dfdaemon, fetcher, dest):
    """A peer that has other bytes: the digest decides, and the registry has the right ones."""
    dfdaemon.flip = 4 * MIB + 5
    r, seen = pull(fetcher, pushed.ref, dest, dfdaemon)
    assert seen[dfdaemon.host]["bad"] and seen[registry.host]["bytes"] >= len(BIGGER)


@pytest.mark.parametrize("kind", ["registry_htpasswd", "registry_token"])
def test_authorisation(request, kind, dfdaemon, fetcher, dest, tmp_path):
    """1.5: dfdaemon gets the value that the registry would get, and nothing to ask a token service with."""
    registry = request.getfixturevalue(kind)
    pushed = oci.push(registry, "p2p/private", "v1", FILES)
    config = registry.docker_config(tmp_path / "c.json")
    r, seen = pull(fetcher, pushed.ref, dest, dfdaemon, "--registry-config", config)
    assert not seen[dfdaemon.host]["bad"] and seen[dfdaemon.host]["bytes"] == sum(len(v) for v in FILES.values())
    word = "Basic " if kind == "registry_htpasswd" else "Bearer "
    assert all(q["headers"].get("authorization", "").startswith(word) for q in dfdaemon.requests)


def test_not_authorised(start, dfdaemon, registry, fetcher, dest, tmp_path):
    """1.5: a finished task is served to anybody: without the registry's word there is no manifest, and so nothing."""
    from test_auth import SECRET
    private = start(Registry, "registry-p2p-" + tmp_path.name, users={"alice": SECRET})
    pushed = oci.push(private, "p2p/secret", "v1", FILES)
    config = private.docker_config(tmp_path / "c.json")
    pull(fetcher, pushed.ref, dest / "1", dfdaemon, "--registry-config", config)
    assert len(dfdaemon.tasks) == 2
    before = len(dfdaemon.requests)
    fetcher.pull(pushed.ref, dest / "2", "--mirror", dfdaemon.mirror).exits(20)
    assert len(dfdaemon.requests) == before


def test_another_registrys_header(pushed, registry, dfdaemon, fetcher, dest, tmp_path, request):
    """A file that sends dfdaemon to another registry: it does not get our registry's authorisation."""
    private = request.getfixturevalue("registry_htpasswd")
    ours = oci.push(private, "p2p/model", "v1", FILES)
    config = private.docker_config(tmp_path / "c.json")
    place = tmp_path / "certs.d" / "_default"
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(f'server = "{private.url}"\n[host."{dfdaemon.url}".header]\n'
                                      f'X-Dragonfly-Registry = "{registry.url}"\n')
    fetcher.pull(ours.ref, dest, "--hosts-dir", tmp_path / "certs.d", "--registry-config", config).ok()
    holds(dest, FILES)
    assert dfdaemon.requests and not [q for q in dfdaemon.requests if "authorization" in q["headers"]]


def test_backend_401(start, dfdaemon, fetcher, dest, tmp_path):
    """1.3: the registry's 401 is relayed. It is not dfdaemon's business to name a token service: the registry is asked."""
    from test_auth import SECRET
    private = start(Registry, "registry-p2p-" + tmp_path.name, users={"alice": SECRET})
    pushed = oci.push(private, "p2p/relayed", "v1", FILES)
    config = private.docker_config(tmp_path / "c.json")
    place = tmp_path / "certs.d" / "_default"
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(f'server = "{private.url}"\n[host."{dfdaemon.url}".header]\n'
                                      f'X-Dragonfly-Registry = "http://localhost:{private.host.split(":")[1]}"\n')
    r = fetcher.pull(pushed.ref, dest, "--hosts-dir", tmp_path / "certs.d", "--registry-config", config).ok()
    holds(dest, FILES)
    assert [q for q in dfdaemon.requests if q["status"] == 401] and "401" in r.err
