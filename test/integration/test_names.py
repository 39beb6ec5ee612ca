# SPDX-License-Identifier: Apache-2.0
"""Names and addresses: --resolve, several addresses, bad ones, name servers in trouble."""

import signal
import socket
import threading
import time

import pytest

from faultserver import FaultServer
from lib import oci
from lib.content import Content, data
from lib.look import holds, last_words
from lib.names import NameServer
from lib.proc import free_port
from lib.registry import Nginx, Registry
from lib.relay import Relay

MIB = 1 << 20
NAME = "registry.test"


@pytest.fixture(scope="module")
def sample(registry):
    files = {"config.json": b"{}", "w.bin": Content(7, 24 * MIB)}
    return oci.push(registry, "names/model", "v1", files), files


def port_of(server):
    return server.host.rpartition(":")[2]


def at_name(server, pushed, name=NAME):
    return f"{name}:{port_of(server)}/{pushed.ref.split('/', 1)[1]}"


@pytest.fixture
def twins(registry):
    """Two relays before `registry` with the same port on 127.0.0.2 and .3, and that port's number."""
    first = Relay(registry, host="127.0.0.2", limit=30 * MIB)
    second = object.__new__(Relay)
    while True:
        port = int(port_of(first))
        create = socket.create_server
        try:
            socket.create_server = lambda address, **how: create((address[0], port), **how)
            second.__init__(registry, host="127.0.0.3", limit=30 * MIB)
            break
        except OSError:
            first.stop()
            socket.create_server = create
            first = Relay(registry, host="127.0.0.2", limit=30 * MIB)
        finally:
            socket.create_server = create
    with first, second:
        yield first, second, port


# -- --resolve -----------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["{name}:{port}:127.0.0.1", "+{name}:{port}:127.0.0.1", "*:{port}:127.0.0.1",
                                   "{name}:*:127.0.0.1", "REGISTRY.test:{port}:127.0.0.1",
                                   "{name}:{port}:[::1],127.0.0.1", "{name}:{port}:::1,127.0.0.1"])
def test_resolve(registry, sample, fetcher, dest, entry):
    """An address on which nobody listens (::1) costs nothing but a try."""
    p, files = sample
    fetcher.pull(at_name(registry, p), dest, "--resolve",
                 entry.replace("{name}", NAME).replace("{port}", port_of(registry))).ok()
    holds(dest, files)


def test_resolve_by_the_variable(registry, sample, fetcher):
    """The commas of a list and those between addresses are told apart."""
    port = port_of(registry)
    env = {"FETCHER_RESOLVE": f"other.test:1:127.0.0.9,{NAME}:{port}:127.0.0.9,127.0.0.1"}
    fetcher("resolve", "--plain-http", at_name(registry, sample[0]), env=env).ok()


def test_the_later_entry_holds(registry, sample, fetcher):
    port = port_of(registry)
    fetcher("resolve", "--plain-http", "--resolve", f"{NAME}:{port}:127.0.0.9", "--resolve",
            f"{NAME}:{port}:127.0.0.1", at_name(registry, sample[0])).ok()


def test_the_name_stays_the_name(start, registry, authority, sample, fetcher, dest):
    """SNI, Host and the certificate's check are those of the name, not of the address."""
    server = start(Nginx, "nginx-resolve", proxy=registry.url, tls=authority.issue("resolve", san=f"DNS:{NAME}"),
                   ca=authority.ca)
    p, files = sample
    flags = ["--ca-file", authority.ca, "--retry-timeout", "500ms", "--resolve", "*:*:127.0.0.1"]
    fetcher("pull", *flags, at_name(server, p), dest).ok()
    holds(dest, files)
    fetcher("pull", *flags, at_name(server, p, "other.test"), dest).exits(30)


@pytest.mark.parametrize("entry", ["", "x", "x:1", "x:1:", "x::127.0.0.1", "x:0:127.0.0.1", "x:65536:127.0.0.1",
                                   "x:1:example.com", "x:1:127.0.0.1,", "x:1:,127.0.0.1", ":1:127.0.0.1",
                                   "x:1:[::1", "127.0.0.1", "x:1:" + ",".join(f"10.0.0.{i}" for i in range(99))])
def test_resolve_that_is_none(fetcher, dest, entry):
    assert "--resolve" in last_words(fetcher.pull("r.test/a:b", dest, "--resolve", entry).exits(2))


# -- several addresses ---------------------------------------------------------------------------


def test_connections_are_spread(sample, twins, fetcher, dest):
    first, second, port = twins
    p, files = sample
    fetcher.pull(f"{NAME}:{port}/{p.ref.split('/', 1)[1]}", dest, "--range-size", "1MiB",
                 "--resolve", f"{NAME}:{port}:127.0.0.2,127.0.0.3").ok()
    holds(dest, files)
    assert first.body("blobs") > MIB and second.body("blobs") > MIB


def test_an_address_where_nobody_listens(sample, twins, fetcher, dest):
    """All goes to the others, and no retry is told."""
    first, second, port = twins
    second.stop()
    p, files = sample
    r = fetcher.pull(f"{NAME}:{port}/{p.ref.split('/', 1)[1]}", dest, "--range-size", "1MiB",
                     "--resolve", f"{NAME}:{port}:127.0.0.2,127.0.0.3,127.0.0.4").ok()
    holds(dest, files)
    assert not [x for x in r.log if x["level"] == "warn"], r


def test_an_address_that_is_a_black_hole(sample, twins, fetcher, dest):
    """A SYN without an answer: the connection goes on to the next address, later ones begin there."""
    first, second, port = twins
    p, files = sample
    hole = socket.create_server(("127.0.0.5", port), backlog=0)
    fillers = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.5", port))
        fillers.append(s)
    try:
        r = fetcher.pull(f"{NAME}:{port}/{p.ref.split('/', 1)[1]}", dest, "-v", "--connect-timeout", "2s",
                         "--range-size", "1MiB", "--concurrency", "4",
                         "--resolve", f"{NAME}:{port}:127.0.0.5,127.0.0.2", timeout=60).ok()
    finally:
        for s in [hole, *fillers]:
            s.close()
    holds(dest, files)
    assert any("127.0.0.5 is avoided" in x["msg"] for x in r.log), r


@pytest.mark.parametrize("how", ["reset", "stall", "silent"])
def test_an_address_that_breaks_off(fetcher, dest, how):
    """It is avoided after its first failure; the good one serves. What stalls may be rescued before that is a failure."""
    body = data(5, 8 * MIB)
    with FaultServer(host="127.0.0.2") as good:
        with FaultServer(host="127.0.0.3", port=int(port_of(good)), store=good.store) as bad:
            good.artifact({"w": body})
            bad.rule("blob", **{"reset": {"reset_at": 1000}, "stall": {"stall_at": 1000},
                                "silent": {"delay": 5}}[how])
            port = port_of(good)
            r = fetcher.pull(f"{NAME}:{port}/test/model:v1", dest, "-v", "--range-size", "256KiB",
                             "--stall-timeout", "500ms",
                             "--resolve", f"{NAME}:{port}:127.0.0.2,127.0.0.3").ok()
            assert len(good.gets("blob")) > 8
    holds(dest, {"w": body})
    if how == "reset" and bad.gets("blob"):
        assert any("127.0.0.3 is avoided" in x["msg"] for x in r.log), r


def test_all_addresses_are_bad(fetcher, dest):
    port = free_port()
    words = last_words(fetcher.pull(f"{NAME}:{port}/a:b", dest, "--retry-timeout", "500ms",
                                    "--resolve", f"{NAME}:{port}:127.0.0.2,127.0.0.3").exits(30))
    assert NAME in words


def test_a_server_that_comes_up_late(sample, registry, fetcher, dest):
    """Connection refused at the start of a Pod: the mesh's sidecar or the proxy is not there yet."""
    p, files = sample
    port = free_port()
    running = fetcher.start("pull", "--plain-http", f"127.0.0.1:{port}/{p.ref.split('/', 1)[1]}", dest)
    time.sleep(2)
    create = socket.create_server
    try:
        socket.create_server = lambda address, **how: create((address[0], port), **how)
        late = Relay(registry)
    finally:
        socket.create_server = create
    with late:
        r = running.wait(60).ok()
    assert any("trying again" in x["msg"] for x in r.log if x["level"] == "warn")
    holds(dest, files)


# -- name servers --------------------------------------------------------------------------------


def test_two_addresses_of_a_name_server(sample, twins, fetcher, dest, tmp_path):
    first, second, port = twins
    p, files = sample
    with NameServer({NAME: ["127.0.0.2", "127.0.0.3"]}) as server:
        fetcher.pull(f"{NAME}:{port}/{p.ref.split('/', 1)[1]}", dest, "--range-size", "1MiB",
                     wrap=server.wrap(tmp_path)).ok()
        # one lookup for all connections
        assert len([x for x in server.asked if x[1] == 1]) <= 2, server.asked
    holds(dest, files)
    assert first.body("blobs") > MIB and second.body("blobs") > MIB


def test_one_dead_address_of_two(sample, twins, fetcher, dest, tmp_path):
    first, second, port = twins
    second.stop()
    p, files = sample
    with NameServer({NAME: ["127.0.0.3", "127.0.0.2"]}) as server:
        fetcher.pull(f"{NAME}:{port}/{p.ref.split('/', 1)[1]}", dest, wrap=server.wrap(tmp_path)).ok()
    holds(dest, files)


def test_answer_over_tcp(registry, sample, fetcher, dest, tmp_path):
    """More records than a datagram holds: UDP is truncated, TCP has them."""
    p, files = sample
    zone = {NAME: ["127.0.0.1"] + [f"127.9.{i // 200}.{i % 200 + 1}" for i in range(60)]}
    with NameServer(zone, tcp_only=True) as server:
        fetcher.pull(at_name(registry, p), dest, wrap=server.wrap(tmp_path)).ok()
        assert any(way == "tcp" for _, _, way in server.asked)
    holds(dest, files)


@pytest.mark.parametrize("how", ["aaaa", "literal"])
def test_ipv6_only(start, sample, registry, fetcher, dest, tmp_path, how):
    server6 = start(Registry, "registry6-" + how, data=registry.data, host="::1")
    p, files = sample
    if how == "literal":
        fetcher.pull(f"[::1]:{port_of(server6)}/{p.ref.split('/', 1)[1]}", dest).ok()
    else:
        with NameServer({NAME: ["::1"]}) as server:
            fetcher.pull(at_name(server6, p), dest, wrap=server.wrap(tmp_path)).ok()
    holds(dest, files)


def test_silent_name_server(fetcher, dest, tmp_path):
    with NameServer({NAME: "silent"}) as server:
        before = time.monotonic()
        words = last_words(fetcher.pull(f"{NAME}:5000/a:b", dest, "--dns-timeout", "700ms", "--retry-timeout", "500ms",
                                        wrap=server.wrap(tmp_path)).exits(31))
        assert time.monotonic() - before < 4, "musl itself waits for 5 s"
    assert f"name lookup of {NAME} took longer than 700 ms" in words


def test_stop_while_the_name_server_is_silent(fetcher, dest, tmp_path):
    with NameServer({NAME: "silent"}) as server:
        running = fetcher.start("pull", "--plain-http", f"{NAME}:5000/a:b", dest, wrap=server.wrap(tmp_path))
        until = time.monotonic() + 20
        while not server.asked and time.monotonic() < until:
            time.sleep(0.02)
        before = time.monotonic()
        running.signal(signal.SIGTERM)
        running.wait(30).exits(143)
        assert time.monotonic() - before < 3


@pytest.mark.parametrize("kind,says", [(None, "no such host"), ("fail", "name server"), ([], "")])
def test_name_that_is_not_known(fetcher, dest, tmp_path, kind, says):
    zone = {} if kind is None else {NAME: kind}
    with NameServer(zone) as server:
        words = last_words(fetcher.pull(f"{NAME}:5000/a:b", dest, "--retry-timeout", "700ms",
                                        wrap=server.wrap(tmp_path), timeout=30).exits(30))
    assert f"name lookup of {NAME} failed" in words and says in words and "DNS" in words


def test_names_of_a_starting_pod(registry, sample, fetcher, dest, tmp_path):
    """The first answers may be wrong: it is asked again within the budget."""
    p, files = sample
    with NameServer({}) as server:
        timer = threading.Timer(2, lambda: server.zone.update({NAME: ["127.0.0.1"]}))
        timer.start()
        r = fetcher.pull(at_name(registry, p), dest, wrap=server.wrap(tmp_path)).ok()
    assert any("no such host" in x["msg"] for x in r.log if x["level"] == "warn")
    holds(dest, files)


def test_name_of_a_redirect_target(registry, fetcher, dest, tmp_path):
    """Storage has names, too; the one that is not known yet is looked up without holding others up."""
    body = data(5, 4 * MIB)
    with FaultServer() as front, FaultServer(store=front.store) as storage:
        front.artifact({"w": body})
        front.rule("blob", redirect=lambda r: f"http://storage.test:{port_of(storage)}{r.target}")
        with NameServer({NAME: ["127.0.0.1"], "storage.test": ["127.0.0.9", "127.0.0.1"]}) as server:
            fetcher.pull(f"{NAME}:{port_of(front)}/test/model:v1", dest, "--range-size", "256KiB",
                         wrap=server.wrap(tmp_path)).ok()
    holds(dest, {"w": body})
