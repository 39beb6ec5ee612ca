# SPDX-License-Identifier: Apache-2.0
"""Mirrors: hosts.toml and --mirror before real registries and lying ones. Whatever a mirror does, the bytes are the registry's
artifact, and nobody's credentials go to somebody else."""

import base64
import json
import re
import socket
import threading

import pytest

from faultserver import FaultServer
from lib.content import Content, data
from lib.look import holds, last_words, marker
from lib.proc import free_port
from lib.registry import Nginx, Registry
from lib.relay import Relay

MIB = 1 << 20
FILES = {"config.json": b"{}", "w.bin": Content(91, 9 * MIB)}
FAULT_FILES = {"a.json": b"{}", "w.bin": data(92, 3 * MIB)}


def hosts(folder, host, text):
    """DIR/HOST/hosts.toml; the DIR."""
    place = folder / "certs.d" / host
    place.mkdir(parents=True, exist_ok=True)
    (place / "hosts.toml").write_text(text)
    return folder / "certs.d"


def underscored(host):
    return host.replace(":", "_") + "_"


@pytest.fixture(scope="module")
def full(start, registry):
    """A mirror that has everything: another docker-registry on the same storage."""
    return start(Registry, "mirror-full", data=registry.data)


@pytest.fixture(scope="module")
def void(start):
    """A mirror that has nothing and says 404, as Spegel does on a miss."""
    return start(Registry, "mirror-void")


@pytest.fixture(scope="module")
def pushed(registry):
    from lib import oci
    return oci.push(registry, "mirrors/model", "v1", FILES)


@pytest.fixture
def lying(faults):
    """A second fault server with the same content."""
    with FaultServer(store=faults.store) as server:
        yield server


def servers(result):
    return {s["name"]: s for s in result.json["servers"]}


def pulled(result, dest, files=FILES):
    result.ok()
    holds(dest, files)
    return result


# -- --mirror ------------------------------------------------------------------------------------


def test_a_mirror_that_has_everything(pushed, registry, full, fetcher, dest):
    """The tag is resolved at the registry; manifest and blobs come from the mirror, with ns=."""
    with Relay(registry) as origin, Relay(full) as mirror:
        r = pulled(fetcher.pull(pushed.on(origin), dest, "--mirror", mirror.url, "--output", "json"), dest)
        assert {(q.method, q.target.split("/")[-2]) for q in origin.requests} == {("HEAD", "manifests")}
        assert origin.body() == 0
        assert mirror.gets("/blobs/") and mirror.gets("/manifests/sha256:")
        assert all(q.target.endswith(f"?ns={origin.host}") for q in mirror.requests)
        assert not [q for q in mirror.requests if "/manifests/v1" in q.target]
    seen = servers(r)
    assert list(seen) == [mirror.host, origin.host]
    assert [s["mirror"] for s in seen.values()] == [True, False]
    assert not any(s["bad"] for s in seen.values())
    assert marker(dest)["ref"] == pushed.on(origin)
    assert set(seen[mirror.host]) == {"name", "mirror", "bytes", "requests", "misses", "fallbacks", "hits", "bad"}
    assert seen[mirror.host]["bytes"] == sum(len(v) for v in FILES.values()) and seen[origin.host]["bytes"] == 0
    told = [line for line in r.log if line["msg"] == "blobs came from"]
    assert len(told) == 1 and mirror.host in told[0]["servers"]


def test_without_mirrors_nothing_is_said_of_servers(pushed, fetcher, dest):
    r = fetcher.pull(pushed.ref, dest, "--output", "json").ok()
    assert "servers" not in r.json and "blobs came from" not in r.err


def test_a_digest_needs_no_registry(pushed, full, fetcher, dest):
    """The reference has the digest: a registry that is away is not missed."""
    gone = f"127.0.0.1:{free_port()}"
    pulled(fetcher.pull(pushed.on(gone, tag=False), dest, "--mirror", full.url), dest)


def test_a_dead_mirror(pushed, registry, fetcher, dest):
    gone = f"127.0.0.1:{free_port()}"
    r = pulled(fetcher.pull(pushed.ref, dest, "--mirror", f"http://{gone}", "--output", "json", timeout=60), dest)
    assert servers(r)[gone]["bad"] and gone in r.err
    assert servers(r)[registry.host]["bytes"] == sum(len(v) for v in FILES.values())
    # told once, however many blobs there are
    assert len([line for line in r.log if line["level"] == "warning" or line["level"] == "warn"]) == 1


def test_a_mirror_without_it(pushed, registry, void, fetcher, dest):
    """404 is a miss: no trouble, no warning. Spegel answers so. [servers 2.1]"""
    r = pulled(fetcher.pull(pushed.ref, dest, "--mirror", void.url, "--output", "json"), dest)
    seen = servers(r)[void.host]
    assert not seen["bad"] and seen["fallbacks"] == 0 and seen["misses"] >= 1
    assert not [line for line in r.log if line["level"].startswith("warn")]


def test_several_mirrors_in_order(pushed, void, full, fetcher, dest):
    with Relay(void) as first, Relay(full) as second:
        r = pulled(fetcher.pull(pushed.ref, dest, "--mirror", first.url, "--mirror", second.url, "--output", "json"), dest)
        assert first.gets("/manifests/") and second.gets("/manifests/")
        assert list(servers(r))[:2] == [first.host, second.host]


def test_a_mirror_by_the_environment(pushed, full, fetcher, dest):
    with Relay(full) as mirror:
        pulled(fetcher.pull(pushed.ref, dest, env={"FETCHER_MIRROR": mirror.url}), dest)
        assert mirror.gets("/blobs/")


def test_a_pull_through_cache(pushed, registry_proxy, fetcher, dest):
    """Cold: 200 to the first range; then 206. [servers 2.3]"""
    pulled(fetcher.pull(pushed.ref, dest, "--mirror", registry_proxy.url, "--range-size", "1MiB"), dest)
    pulled(fetcher.pull(pushed.ref, dest / "again", "--mirror", registry_proxy.url), dest / "again")


@pytest.mark.parametrize("url", ["http://u:p@m.example", "http://m.example?x=1", "ftp://m.example", "http://", "http://m .x",
                                 "dragonfly+ftp://m.example"])
def test_unusable_mirrors(fetcher, dest, url):
    words = last_words(fetcher.pull("r.example/x:1", dest, "--mirror", url).exits(2))
    assert "--mirror" in words and "u:p" not in words


def test_resolve_and_ls_through_a_mirror(pushed, full, void, fetcher, tmp_path):
    with Relay(full) as mirror:
        assert fetcher("resolve", "--plain-http", "--mirror", mirror.url, pushed.ref).ok().out.strip() == pushed.digest
        assert mirror.requests == []
        assert "w.bin" in fetcher("ls", "--plain-http", "--mirror", mirror.url, pushed.ref_digest).ok().out
        assert mirror.gets("/manifests/")


def test_metrics_by_server(pushed, full, fetcher, dest, tmp_path):
    path = tmp_path / "m.prom"
    fetcher.pull(pushed.ref, dest, "--mirror", full.url, "--metrics-file", path).ok()
    text = path.read_text()
    for name in ("bytes", "requests", "misses", "fallbacks", "hits"):
        assert f"# TYPE fetcher_server_{name}_total counter" in text
        assert f'fetcher_server_{name}_total{{server="{full.host}"}}' in text
    bytes_ = re.search(rf'fetcher_server_bytes_total{{server="{re.escape(full.host)}"}} (\d+)', text)[1]
    assert int(bytes_) == sum(len(v) for v in FILES.values())


# -- hosts.toml ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [underscored, str, lambda host: "_default"], ids=["underscores", "colon", "default"])
def test_directory_names(pushed, registry, full, fetcher, dest, tmp_path, name):
    with Relay(full) as mirror:
        folder = hosts(tmp_path, name(registry.host), f'[host."{mirror.url}"]\ncapabilities = ["pull"]\n')
        pulled(fetcher.pull(pushed.ref, dest, "--hosts-dir", folder), dest)
        assert mirror.gets("/blobs/")


def test_order_of_directories(pushed, registry, full, void, fetcher, dest, tmp_path):
    """HOST_PORT_ before HOST:PORT before _default; only the first counts."""
    with Relay(full) as one, Relay(full) as two, Relay(full) as three:
        for name, relay in ((underscored(registry.host), one), (registry.host, two), ("_default", three)):
            folder = hosts(tmp_path, name, f'[host."{relay.url}"]\n')
        pulled(fetcher.pull(pushed.ref, dest, "--hosts-dir", folder), dest)
        assert one.requests and not two.requests and not three.requests


def test_docker_hub(registry, push, full, fetcher, dest, tmp_path):
    """docker.io is the directory of Docker Hub, and its namespace."""
    push(registry, "library/thing", "v1", FILES)
    with Relay(full) as mirror:
        folder = hosts(tmp_path, "docker.io", f'server = "https://docker.io"\n[host."{mirror.url}"]\n')
        pulled(fetcher("pull", "docker.io/thing:v1", dest, "--hosts-dir", folder), dest)
        assert mirror.requests and all(q.target.endswith("?ns=docker.io") for q in mirror.requests)


def test_tags_only_where_they_may_be_resolved(pushed, registry, full, fetcher, dest, tmp_path):
    with Relay(full) as pulls, Relay(full) as resolves, Relay(registry) as origin:
        folder = hosts(tmp_path, "_default", f'[host."{pulls.url}"]\ncapabilities = ["pull"]\n'
                                             f'[host."{resolves.url}"]\ncapabilities = ["resolve"]\n')
        pulled(fetcher.pull(pushed.on(origin), dest, "--hosts-dir", folder), dest)
        assert not [q for q in pulls.requests if q.target.split("?")[0].endswith("/v1")]
        assert {q.target.split("?")[0].rsplit("/", 1)[1] for q in resolves.requests} == {"v1"}
        assert origin.requests == [] and pulls.gets("/blobs/")


def test_a_tag_that_the_resolving_mirror_lacks(pushed, void, fetcher, dest, tmp_path):
    folder = hosts(tmp_path, "_default", f'[host."{void.url}"]\ncapabilities = ["pull", "resolve"]\n')
    pulled(fetcher.pull(pushed.ref, dest, "--hosts-dir", folder), dest)


def test_nobody_resolves(pushed, full, fetcher, dest, tmp_path):
    folder = hosts(tmp_path, "_default", f'server = "{full.url}"\ncapabilities = ["pull"]\n')
    words = last_words(fetcher.pull(pushed.ref, dest, "--hosts-dir", folder).exits(2))
    assert "hosts.toml" in words and "resolve" in words
    pulled(fetcher.pull(pushed.ref_digest, dest, "--hosts-dir", folder), dest)


def test_another_server_in_the_registrys_place(pushed, registry, full, fetcher, dest, tmp_path):
    """As containerd: the registry itself is not asked at all then."""
    with Relay(registry) as origin, Relay(full) as other:
        folder = hosts(tmp_path, "_default", f'server = "{other.url}"\n')
        pulled(fetcher.pull(pushed.on(origin), dest, "--hosts-dir", folder), dest)
        assert origin.requests == []
        assert all(q.target.endswith(f"?ns={origin.host}") for q in other.requests)


def test_the_server_is_the_registry(pushed, registry, fetcher, dest, tmp_path):
    """http:// in the file is plain HTTP without --plain-http, and no ns= goes to the registry itself."""
    with Relay(registry) as origin:
        for number, text in enumerate((f'server = "{origin.url}"\n', f'[host."{origin.url}"]\n')):
            folder = hosts(tmp_path / str(number), origin.host, text)
            pulled(fetcher("pull", pushed.on(origin), dest / str(number), "--hosts-dir", folder), dest / str(number)) \
                if number == 0 else None
        assert origin.requests and not [q for q in origin.requests if "ns=" in q.target]


def test_own_ca(pushed, registry, registry_tls, fetcher, dest, tmp_path):
    """TLS by a CA that only the file names; relative to the file."""
    text = f'[host."{registry_tls.url}"]\nca = "CA"\n'
    for number, ca in enumerate(("ca.pem", str(registry_tls.ca))):
        folder = hosts(tmp_path, registry.host, text.replace("CA", ca))
        (folder / registry.host / "ca.pem").write_bytes(registry_tls.ca.read_bytes())
        r = pulled(fetcher.pull(pushed.ref, dest / str(number), "--hosts-dir", folder, "--output", "json"), dest / str(number))
        assert not servers(r)[registry_tls.host]["bad"]
    folder = hosts(tmp_path, registry.host, text.replace('ca = "CA"', ""))
    r = pulled(fetcher.pull(pushed.ref, dest / "none", "--hosts-dir", folder, "--output", "json"), dest / "none")
    assert servers(r)[registry_tls.host]["bad"]
    folder = hosts(tmp_path, registry.host, text.replace("CA", "missing.pem"))
    words = last_words(fetcher.pull(pushed.ref, dest / "miss", "--hosts-dir", folder).exits(2))
    assert "missing.pem" in words and "hosts.toml, line 1" in words


def test_skip_verify(pushed, registry, registry_tls, fetcher, dest, tmp_path):
    folder = hosts(tmp_path, registry.host, f'[host."{registry_tls.url}"]\nskip_verify = true\n')
    r = pulled(fetcher.pull(pushed.ref, dest, "--hosts-dir", folder, "--output", "json"), dest)
    assert not servers(r)[registry_tls.host]["bad"] and "skip_verify" in r.err


def test_insecure_is_for_the_registry_only(pushed, registry_tls, fetcher, dest):
    r = pulled(fetcher.pull(pushed.ref, dest, "--insecure", "--mirror", registry_tls.url, "--output", "json"), dest)
    assert servers(r)[registry_tls.host]["bad"]


def test_client_certificate(pushed, registry, start, authority, server_pair, fetcher, dest, tmp_path):
    """One file with both, a pair, and none at all; --cert-file is not shown to a mirror."""
    mirror = start(Nginx, "nginx-mtls-" + tmp_path.name, proxy=registry.url, tls=server_pair, ca=authority.ca,
                   client_ca=authority.ca)
    client = authority.issue("mirror-client", client=True)
    both = tmp_path / "both.pem"
    both.write_bytes(client.cert.read_bytes() + client.key.read_bytes())
    ways = {f'"{both}"': False, f'["{both}"]': False, f'[["{client.cert}", "{client.key}"]]': False, None: True}
    for number, (way, bad) in enumerate(ways.items()):
        folder = hosts(tmp_path / str(number), registry.host, f'[host."{mirror.url}"]\nca = "{authority.ca}"\n'
                       + (f"client = {way}\n" if way else ""))
        flags = [] if way else ["--cert-file", client.cert, "--key-file", client.key]
        r = pulled(fetcher.pull(pushed.ref, dest / str(number), "--hosts-dir", folder, "--output", "json", *flags),
                   dest / str(number))
        assert servers(r)[mirror.host]["bad"] == bad, way


def test_headers_reach_the_mirror_alone(pushed, registry, full, fetcher, dest, tmp_path):
    with Relay(registry) as origin, Relay(full) as mirror, Relay(full) as other:
        folder = hosts(tmp_path, "_default",
                       f'[host."{mirror.url}"]\ncapabilities = ["pull"]\n[host."{mirror.url}".header]\n'
                       f'x-key = "secret-1"\nx-more = ["a", "b"]\nRange = "bytes=0-1"\n[host."{other.url}"]\n')
        r = pulled(fetcher.pull(pushed.on(origin), dest, "-v", "--hosts-dir", folder), dest)
        assert mirror.requests and all(q.headers.get("x-key") == "secret-1" for q in mirror.requests)
        assert not [q for q in origin.requests + other.requests if "x-key" in q.headers or "x-more" in q.headers]
        assert "secret-1" not in r.err and "Range" in r.err


def test_override_path(pushed, registry, start, fetcher, dest, tmp_path):
    """The URL's path stands in place of /v2."""
    nginx = start(Nginx, "nginx-path-" + tmp_path.name, proxy=registry.url, extra="rewrite ^/api/oci/(.*)$ /v2/$1 break;")
    folder = hosts(tmp_path, registry.host, f'[host."{nginx.url}/api/oci"]\noverride_path = true\n')
    r = pulled(fetcher.pull(pushed.ref, dest, "--hosts-dir", folder, "--output", "json"), dest)
    seen = nginx.requests(lambda rows: len(rows) >= 3)
    assert seen and all(row["uri"].startswith("/api/oci/mirrors/model/") for row in seen)
    assert not servers(r)[nginx.host]["bad"]


def test_a_path_before_v2(pushed, registry, start, fetcher, dest, tmp_path):
    nginx = start(Nginx, "nginx-prefix-" + tmp_path.name, proxy=registry.url, extra="rewrite ^/mirror/(.*)$ /$1 break;")
    pulled(fetcher.pull(pushed.ref, dest, "--mirror", nginx.url + "/mirror"), dest)
    assert all(row["uri"].startswith("/mirror/v2/mirrors/model/") for row in nginx.requests(lambda rows: len(rows) >= 3))


def test_unknown_keys_are_told(pushed, registry, full, fetcher, dest, tmp_path):
    folder = hosts(tmp_path, registry.host, f'proxies = 1.5\n[host."{full.url}"]\ncolour = "blue"\n')
    r = pulled(fetcher.pull(pushed.ref, dest, "--hosts-dir", folder), dest)
    assert "hosts.toml, line 1: 'proxies'" in r.err and "hosts.toml, line 3: 'colour'" in r.err


@pytest.mark.parametrize("text, line, what", [
    ('[host."http://a"]\nca = [1]\n', 2, "instead of"), ('\n\nserver = \n', 3, "value"), ('server = "a\n', 1, "does not end"),
    ('[host."http://a"]\n[host."http://a"]\n', 2, "already"), ('[host."ftp://a"]\n', 1, "usable"),
    ('[host."http://a"]\ncapabilities = ["pull", "fly"]\n', 2, "fly"), ('skip_verify = "yes"\n', 1, "true or false"),
    ('[host."http://a"]\ndial_timeout = "soon"\n', 2, "dial_timeout"), ('[[host]]\n', 1, "arrays of tables"),
    ('client = [["a"]]\n', 1, "pairs"), ('[header]\n"a b" = "1"\n', 2, "header"), ('[header]\na = "1\\r\\nb: 2"\n', 2, "control"),
    ('host = "a"\n', 1, "a table"), ('server = true\n', 1, "a string"), ('server = "http://x" y\n', 1, "end of the line"),
])
def test_malformed(fetcher, dest, tmp_path, text, line, what):
    """File and line; and nothing is asked of anybody."""
    folder = hosts(tmp_path, "_default", text)
    words = last_words(fetcher.pull("r.example/x:1", dest, "--hosts-dir", folder).exits(2))
    assert f"{folder}/_default/hosts.toml, line {line}: " in words and what in words


def test_hosts_dir_that_is_missing(pushed, fetcher, dest, tmp_path):
    assert str(tmp_path / "no") in last_words(fetcher.pull(pushed.ref, dest, "--hosts-dir", tmp_path / "no").exits(2))
    (tmp_path / "empty").mkdir()
    pulled(fetcher.pull(pushed.ref, dest, "--hosts-dir", tmp_path / "empty"), dest)


def test_dockers_certificate_files(registry_tls, pushed, fetcher, dest, tmp_path):
    """Without a hosts.toml: *.crt of the directory are the registry's CAs."""
    place = tmp_path / "certs.d" / registry_tls.host
    place.mkdir(parents=True)
    (place / "own.crt").write_bytes(registry_tls.ca.read_bytes())
    pulled(fetcher("pull", pushed.on(registry_tls), dest, "--hosts-dir", tmp_path / "certs.d"), dest)


def test_the_registrys_own_ca_by_hosts_toml(registry_tls, pushed, fetcher, dest, tmp_path):
    """The registry named as a host, as people do: what is said there is how the registry is reached."""
    for number, text in enumerate((f'[host."{registry_tls.url}"]\nca = "{registry_tls.ca}"\n',
                                   f'server = "{registry_tls.url}"\nca = ["{registry_tls.ca}"]\n')):
        folder = hosts(tmp_path / str(number), registry_tls.host, text)
        r = pulled(fetcher("pull", "--output", "json", pushed.on(registry_tls), dest / str(number), "--hosts-dir", folder),
                   dest / str(number))
        assert "servers" not in r.json


# -- mirrors that lie, hang, crawl ---------------------------------------------------------------


def flags(mirror, *more):
    return ("--mirror", mirror.base, "--mirror-timeout", "1s", "--output", "json", *more)


def test_a_mirror_with_other_manifests(faults, lying, fetcher, dest):
    art = faults.artifact(FAULT_FILES)
    lying.rule("manifest", flip=5)
    r = pulled(fetcher.pull(art.ref, dest, *flags(lying)), dest, FAULT_FILES)
    assert servers(r)[lying.host]["bad"] and "digest" in r.err


def test_a_mirror_with_other_bytes(faults, lying, fetcher, dest):
    art = faults.artifact(FAULT_FILES)
    lying.rule("blob", flip=1)
    r = pulled(fetcher.pull(art.ref, dest, *flags(lying)), dest, FAULT_FILES)
    assert servers(r)[lying.host]["bad"]
    assert servers(r)[faults.host]["bytes"] >= 3 * MIB


@pytest.mark.parametrize("what", ["manifest", "blob"])
@pytest.mark.parametrize("how", [{"stall_at": 0}, {"rate": 1}, {"status": 500}, {"status": 429, "retry_after": 60},
                                 {"status": 403}, {"status": 401, "www_authenticate": "Basic"}, {"reset_at": 1},
                                 {"raw": b"hello\r\n"}, {"short": 1}],
                         ids=["stall", "1B", "500", "429", "403", "401", "reset", "no-http", "short"])
def test_a_mirror_in_trouble(faults, lying, fetcher, dest, what, how):
    """Seconds, not the pull: the registry has everything."""
    art = faults.artifact(FAULT_FILES)
    lying.rule(what, **how)
    r = pulled(fetcher.pull(art.ref, dest, *flags(lying, "--speed-time", "2s"), timeout=60), dest, FAULT_FILES)
    assert servers(r)[lying.host]["bad"], r


def test_a_mirror_that_hangs_before_its_head(faults, lying, fetcher, dest):
    art = faults.artifact(FAULT_FILES)
    go = threading.Event()
    lying.rule(None, hold=go)
    try:
        r = pulled(fetcher.pull(art.ref, dest, *flags(lying), timeout=60), dest, FAULT_FILES)
    finally:
        go.set()
    assert servers(r)[lying.host]["bad"]
    assert len(lying.requests) <= 2     # left for the rest of the run


def test_a_mirror_that_accepts_and_says_nothing(faults, fetcher, dest):
    """No HTTP at all behind the port: a firewall that swallows, a listener without an accept."""
    art = faults.artifact(FAULT_FILES)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        pulled(fetcher.pull(art.ref, dest, "--mirror", url, "--mirror-timeout", "1s", timeout=60), dest, FAULT_FILES)


def test_a_media_type_of_the_mirrors_own(faults, lying, fetcher, dest):
    """The bytes are right: what the mirror calls them does not count."""
    art = faults.artifact(FAULT_FILES)
    lying.rule("manifest", content_type="application/vnd.oci.image.index.v1+json")
    r = pulled(fetcher.pull(art.ref, dest, *flags(lying)), dest, FAULT_FILES)
    assert not servers(r)[lying.host]["bad"]
    assert marker(dest)["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


def test_when_the_registry_refuses_too(faults, void, fetcher, dest):
    """What is reported is what the registry said."""
    faults.artifact(FAULT_FILES)
    words = last_words(fetcher.pull(f"{faults.host}/test/model:none", dest, "--mirror", void.url).exits(21))
    assert faults.host in words


# -- credentials ---------------------------------------------------------------------------------


def basic(user, password):
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def config(path, entries):
    path.write_text(json.dumps({"auths": {host: {"auth": basic(*pair)} for host, pair in entries.items()}}))
    return path


@pytest.mark.parametrize("login", ["basic", "bearer"])
def test_the_registrys_credentials_stay_there(faults, lying, fetcher, dest, tmp_path, login):
    art = faults.artifact(FAULT_FILES)
    (faults.auth_basic if login == "basic" else faults.auth_bearer)({"u": "registry-secret"})
    (tmp_path / "pw").write_text("registry-secret")
    r = pulled(fetcher.pull(art.ref, dest, *flags(lying, "-v", "--username", "u", "--password-file", tmp_path / "pw")), dest,
               FAULT_FILES)
    assert lying.requests and lying.leaks() == [] and "registry-secret" not in r.err


def test_a_mirror_that_asks_gets_none_of_the_registrys(faults, lying, fetcher, dest, tmp_path):
    """401 of a mirror without credentials of its own: it is left, and sees neither name nor password, nor a token file's token."""
    art = faults.artifact(FAULT_FILES)
    faults.auth_basic({"u": "registry-secret"})
    lying.auth_basic({"u": "registry-secret"})
    path = config(tmp_path / "c.json", {faults.host: ("u", "registry-secret")})
    pulled(fetcher.pull(art.ref, dest / "1", *flags(lying, "--registry-config", path)), dest / "1", FAULT_FILES)
    (tmp_path / "pw").write_text("registry-secret")
    r = pulled(fetcher.pull(art.ref, dest / "2", *flags(lying, "--username", "u", "--password-file", tmp_path / "pw")),
               dest / "2", FAULT_FILES)
    assert lying.requests and lying.leaks() == [] and servers(r)[lying.host]["bad"]


@pytest.mark.parametrize("login", ["basic", "bearer"])
def test_a_mirrors_own_credentials(faults, lying, fetcher, dest, tmp_path, login):
    """Looked up by the mirror's own name; the registry never sees them."""
    art = faults.artifact(FAULT_FILES)
    (lying.auth_basic if login == "basic" else lying.auth_bearer)({"m": "mirror-secret"})
    path = config(tmp_path / "c.json", {lying.host: ("m", "mirror-secret")})
    r = pulled(fetcher.pull(art.ref, dest, *flags(lying, "--registry-config", path)), dest, FAULT_FILES)
    assert not servers(r)[lying.host]["bad"] and lying.leaks()
    assert faults.requests and faults.leaks() == [] and "mirror-secret" not in r.err


def test_a_redirecting_mirror_gives_nothing_away(faults, lying, fetcher, dest, tmp_path):
    """Headers and credentials of the mirror end at the mirror."""
    art = faults.artifact(FAULT_FILES)
    lying.auth_basic({"m": "mirror-secret"})
    path = config(tmp_path / "c.json", {lying.host: ("m", "mirror-secret")})
    folder = hosts(tmp_path, "_default", f'[host."{lying.base}"]\ncapabilities = ["pull"]\n[host."{lying.base}".header]\n'
                                         'x-key = "header-secret"\n')
    with FaultServer(store=faults.store) as storage:
        lying.rule("blob", redirect=lambda r: storage.base + r.target)
        lying.rule("manifest", redirect=lambda r: storage.base + r.target)
        pulled(fetcher.pull(art.ref, dest, "--hosts-dir", folder, "--registry-config", path), dest, FAULT_FILES)
        assert storage.gets("blob") and storage.gets("manifest") and storage.leaks() == []
        assert not [q for q in storage.requests + faults.requests if "x-key" in q.headers]
