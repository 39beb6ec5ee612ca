# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests. All state lies in build/integration/run-PID; it is removed
when every test passed and kept (with the servers' logs) when one failed."""

import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from faultserver import FaultServer  # noqa: E402
from lib import oci  # noqa: E402
from lib.certs import Authority  # noqa: E402
from lib.client import Fetcher  # noqa: E402
from lib.proc import TOP  # noqa: E402
from lib.registry import Haproxy, Nginx, Registry  # noqa: E402
from lib.relay import Relay  # noqa: E402
from lib.tokens import TokenServer  # noqa: E402

def _base():
    """Below build/, but tests as another uid need a way in: /var/tmp when the tree is in a closed home."""
    if "FETCHER_TEST_TMP" in os.environ:
        return pathlib.Path(os.environ["FETCHER_TEST_TMP"])
    inside = TOP / "build" / "integration"
    closed = any(p.exists() and not p.stat().st_mode & 0o001 for p in inside.parents)
    return pathlib.Path("/var/tmp/fetcher-tests") if closed and os.geteuid() == 0 else inside


BASE = _base()
CAP = 32 << 20
USERS = {"alice": "correct horse"}


def _remove_dead_runs():
    for old in BASE.glob("run-*"):
        pid = old.name[4:]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            shutil.rmtree(old, ignore_errors=True)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")
    config.addinivalue_line("markers", "big: moves or stores more than a GiB")
    if config.option.basetemp is None:
        BASE.mkdir(parents=True, exist_ok=True)
        _remove_dead_runs()
        config.option.basetemp = str(BASE / f"run-{os.getpid()}")
        config.fetcher_basetemp = config.option.basetemp


def pytest_sessionfinish(session, exitstatus):
    session.config.fetcher_status = int(exitstatus)


def pytest_unconfigure(config):
    base = getattr(config, "fetcher_basetemp", None)
    if base and getattr(config, "fetcher_status", 1) in (0, 5):
        shutil.rmtree(base, ignore_errors=True)
    elif base:
        print(f"servers' logs and folders of this run: {base}")


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    """A folder for this run. 0755 on the way, for tests that run as another uid."""
    path = tmp_path_factory.mktemp("work")
    for folder in (path, path.parent):
        folder.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def start(workdir):
    """start(Registry, "name", **options) -> server, stopped at the end of the run.
    For Registry, Nginx, Haproxy, TokenServer with a folder of their own."""
    running = []

    def go(kind, name, *args, **options):
        server = kind(workdir / name, *args, **options)
        running.append(server)
        return server
    yield go
    for server in reversed(running):
        server.stop()


@pytest.fixture(scope="session")
def authority(workdir):
    """Private CA: .ca (PEM), .issue(name, san=, expired=, client=)."""
    return Authority(workdir / "ca")


@pytest.fixture(scope="session")
def server_pair(authority):
    """Certificate for 127.0.0.1, ::1 and localhost."""
    return authority.issue("server")


@pytest.fixture(scope="session")
def registry(start):
    """Anonymous, plain HTTP."""
    return start(Registry, "registry")


@pytest.fixture(scope="session")
def registry_tls(start, registry, authority, server_pair):
    """docker-registry over HTTPS, on the same storage as `registry`."""
    return start(Registry, "registry-tls", tls=server_pair, ca=authority.ca, data=registry.data)


@pytest.fixture(scope="session")
def nginx_tls12(start, registry, authority, server_pair):
    """nginx with TLS 1.2 only before `registry`."""
    return start(Nginx, "nginx-tls12", proxy=registry.url, tls=server_pair, ca=authority.ca,
                 protocols="TLSv1.2")


@pytest.fixture(scope="session")
def nginx_tls13(start, registry, authority, server_pair):
    """nginx with TLS 1.3 only before `registry`."""
    return start(Nginx, "nginx-tls13", proxy=registry.url, tls=server_pair, ca=authority.ca,
                 protocols="TLSv1.3")


@pytest.fixture(scope="session")
def registry_htpasswd(start):
    """Basic authorisation; .user is (name, password)."""
    return start(Registry, "registry-htpasswd", users=USERS)


@pytest.fixture(scope="session")
def token_server(start):
    return start(TokenServer, "token-server", users=USERS)


@pytest.fixture(scope="session")
def registry_token(start, token_server):
    """Bearer tokens of .token_server; .user is (name, password)."""
    return start(Registry, "registry-token", token=token_server)


@pytest.fixture(scope="session")
def storage_nginx(start, registry):
    """nginx that serves the files of `registry`: where registry_redirect sends its clients."""
    return start(Nginx, "nginx-storage", files=registry.data)


@pytest.fixture(scope="session")
def registry_redirect(start, registry, storage_nginx):
    """The content of `registry`; each blob GET is a 307 to storage_nginx on another port."""
    return start(Registry, "registry-redirect", data=registry.data, redirect=storage_nginx.url)


@pytest.fixture
def registry_proxy(workdir, registry, request):
    """A cold pull-through cache of `registry`, new for each test: 200 to the first range."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    with Registry(workdir / f"proxy-{name}", proxy=registry.url) as server:
        yield server


@pytest.fixture(scope="session")
def haproxy_capped(start, registry):
    """`registry` behind a cap of 32 MiB/s per connection."""
    return start(Haproxy, "haproxy", registry, cap=CAP)


@pytest.fixture
def wire(registry):
    """A counting relay before `registry` (lib/relay.py). Pull pushed.on(wire)."""
    with Relay(registry) as relay:
        yield relay


@pytest.fixture
def faults():
    """A fault server (faultserver.py), new for each test."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def stranger(faults):
    """A second fault server with the same content, which must see no credentials."""
    with FaultServer(store=faults.store) as server:
        yield server


@pytest.fixture
def faults_tls(server_pair):
    """A fault server over TLS with the private CA's certificate."""
    with FaultServer(tls=tuple(server_pair)) as server:
        yield server


@pytest.fixture
def push():
    """push(registry, repo, tag, {title: bytes | str | Content | path}) by the real oras."""
    return oci.push


@pytest.fixture
def fetcher(tmp_path):
    """The binary under test (lib/client.py)."""
    return Fetcher(tmp_path / "run")


@pytest.fixture
def dest(tmp_path):
    """A DEST that does not exist yet."""
    return tmp_path / "dest"
