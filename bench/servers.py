# SPDX-License-Identifier: Apache-2.0
"""The server side of the bench: one docker-registry on tmpfs and what stands in front of it."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "test" / "integration"))

from lib import oci  # noqa: E402
from lib.certs import Authority  # noqa: E402
from lib.content import Content, data  # noqa: E402
from lib.proc import Server, free_port, part  # noqa: E402
from lib.registry import Haproxy, Registry  # noqa: E402

MIB = 1 << 20
GIB = 1 << 30
CAP = 32 * MIB  # per connection, scenario D
REPO = "bench"
SUITE = "TLS_AES_128_GCM_SHA256"
TICK = os.sysconf("SC_CLK_TCK")


class TlsFront(Server):
    """nginx before the registry: TLS 1.3 with one suite. Blobs come straight from the registry's
    storage, so that the server costs as little as it can and the clients show; the rest is
    passed on."""

    name = "nginx-tls"

    def __init__(self, dir, registry, pair, ca):
        super().__init__(dir)
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        self.scheme = "https"
        self.url = f"https://{self.host}"
        self.ca = ca
        blobs = registry.data / "docker/registry/v2/blobs/sha256"
        conf = self.dir / "nginx.conf"
        conf.write_text(f"""
            daemon off; master_process off; pid {self.dir}/nginx.pid; error_log stderr warn;
            events {{ worker_connections 1024; }}
            http {{
                log_format seen escape=json '{{"method":"$request_method","uri":"$request_uri",'
                    '"status":$status,"sent":$body_bytes_sent,"peer":"$remote_port",'
                    '"tls":"$ssl_protocol $ssl_cipher"}}';
                access_log {self.dir}/access.log seen;
                client_body_temp_path {self.dir}/t1; proxy_temp_path {self.dir}/t2;
                fastcgi_temp_path {self.dir}/t3; uwsgi_temp_path {self.dir}/t4;
                scgi_temp_path {self.dir}/t5;
                default_type application/octet-stream; keepalive_requests 100000;
                server {{
                    listen {self.host} ssl;
                    ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};
                    ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {SUITE};
                    location / {{
                        proxy_pass {registry.url}; proxy_http_version 1.1;
                        proxy_set_header Connection ''; proxy_set_header Host $http_host;
                        proxy_set_header X-Forwarded-Proto https;
                    }}
                    location ~ "^/v2/.+/blobs/sha256:(?<two>[0-9a-f][0-9a-f])(?<rest>[0-9a-f]+)$" {{
                        alias {blobs}/$two/$two$rest/data; output_buffers 2 512k;
                    }}
                }}
            }}""")
        self.launch([part("nginx"), "-p", str(self.dir), "-e", "stderr", "-c", str(conf)], port)


class Artifact:
    """What a client pulls. items: (title, digest, size)."""

    def __init__(self, tag, items, digest):
        self.tag = tag
        self.items = items
        self.digest = digest
        self.size = sum(size for _, _, size in items)
        self.sizes = {digest.split(":")[1]: size for _, digest, size in items}  # of files that land


class Stage:
    """What a scenario talks to: the front server, all servers whose CPU time counts, the one whose
    access log counts (kind "registry" or "nginx")."""

    def __init__(self, front, servers, logged, kind, ca=None):
        self.front = front
        self.servers = servers
        self.log_path = logged.dir / "access.log" if kind == "nginx" else logged.log_path
        self.kind = kind
        self.ca = ca

    @property
    def host(self):
        return self.front.host

    @property
    def url(self):
        return self.front.url

    def ref(self, artifact):
        return f"{self.host}/{REPO}:{artifact.tag}"

    def cpu_seconds(self):
        total = 0
        for server in self.servers:
            stat = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text()
            fields = stat.rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def log_end(self):
        try:
            return self.log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def seen_since(self, offset):
        """Seen of the lines after offset, once they come no more: a line follows its answer."""
        size = self.log_end()
        for _ in range(50):
            time.sleep(0.03)
            now = self.log_end()
            if now == size:
                break
            size = now
        with open(self.log_path, "rb") as f:
            f.seek(offset)
            text = f.read().decode(errors="replace")
        return Seen.of_nginx(text) if self.kind == "nginx" else Seen.of_registry(text)


class Seen:
    """What the server saw of one run: requests by kind, body bytes, connections."""

    def __init__(self, lines, connections, suites=()):
        self.blob_gets = sum(m == "GET" and "/blobs/" in u for m, u, _, _ in lines)
        self.requests = len(lines)
        self.bytes = sum(sent for m, _, _, sent in lines if m == "GET")
        self.errors = sum(status >= 400 for _, _, status, _ in lines)
        self.connections = connections
        self.suites = sorted(set(suites))

    @classmethod
    def of_registry(cls, text):
        lines = [(m, u, int(status), int(sent)) for m, u, status, sent in
                 re.findall(r'"([A-Z]+) (\S+) HTTP/1\.\d" (\d+) (\d+)', text)]
        return cls(lines, len(set(re.findall(r'http\.request\.remoteaddr="([^"]+)"', text))))

    @classmethod
    def of_nginx(cls, text):
        rows = [json.loads(line) for line in text.splitlines()]
        return cls([(r["method"], r["uri"], r["status"], r["sent"]) for r in rows],
                   len({r["peer"] for r in rows}), [r["tls"] for r in rows])


class Backends:
    """The registry and its fronts, each started when first asked for, and the content."""

    def __init__(self, dir, tls_server="nginx"):
        self.dir = pathlib.Path(dir)
        self.tls_server = tls_server
        self.registry = Registry(self.dir / "registry")
        self._fronts = {}
        self._authority = None
        self._artifacts = {}

    def stop(self):
        for stage in self._fronts.values():
            stage.front.stop()
        self.registry.stop()

    def plain(self):
        return Stage(self.registry, [self.registry], self.registry, "registry")

    def capped(self):
        """HAProxy: CAP bytes a second per connection; requests are those the registry saw."""
        if "capped" not in self._fronts:
            front = Haproxy(self.dir / "haproxy", self.registry, cap=CAP)
            self._fronts["capped"] = Stage(front, [front, self.registry], self.registry,
                                           "registry")
        return self._fronts["capped"]

    def tls(self):
        if "tls" not in self._fronts:
            authority = Authority(self.dir / "ca", name="bench CA")
            pair = authority.issue("server")
            if self.tls_server == "nginx":
                front = TlsFront(self.dir / "nginx", self.registry, pair, authority.ca)
                stage = Stage(front, [front, self.registry], front, "nginx", authority.ca)
            else:
                front = Registry(self.dir / "registry-tls", tls=pair, ca=authority.ca,
                                 data=self.registry.data)
                stage = Stage(front, [front], front, "registry", authority.ca)
            self._fronts["tls"] = stage
        return self._fronts["tls"]

    def artifact(self, tag, contents):
        """Puts {title: content} under tag; made once. Blobs of other tags are used again."""
        if tag not in self._artifacts:
            api = self.registry.api
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda c: api.put_blob(REPO, c), contents.values()))
            layers = [oci.titled(c, title) for title, c in contents.items()]
            pushed = api.put_manifest(REPO, tag, oci.manifest(layers))
            items = [(title, layer["digest"], layer["size"])
                     for title, layer in zip(contents, layers)]
            self._artifacts[tag] = Artifact(tag, items, pushed.digest)
        return self._artifacts[tag]

    def adopt(self, artifact):
        """One that somebody else has pushed; returned."""
        self._artifacts[artifact.tag] = artifact
        return artifact

    def keep_only(self, tags):
        """Frees the memory of blobs that only other tags use."""
        kept = {d for tag in tags if tag in self._artifacts
                for _, d, _ in self._artifacts[tag].items}
        store = self.registry.data / "docker/registry/v2"
        for tag in [tag for tag in self._artifacts if tag not in tags]:
            for _, digest, _ in self._artifacts.pop(tag).items:
                if digest not in kept:
                    hexa = digest.split(":")[1]
                    shutil.rmtree(store / "blobs/sha256" / hexa[:2] / hexa, ignore_errors=True)
                    shutil.rmtree(store / f"repositories/{REPO}/_layers/sha256" / hexa,
                                  ignore_errors=True)


# Contents by tag. "two" and "one" share a blob; every file differs from every other.
def contents_of(tag, big_gib=4):
    if tag == "two":
        return {"model-1-of-2.bin": Content(1, GIB), "model-2-of-2.bin": Content(2, GIB)}
    if tag == "one":
        return {"model-1-of-2.bin": Content(1, GIB)}
    if tag == "large":
        return {"model.bin": Content(3, 2 * GIB)}
    if tag == "many":
        return {f"part-{i:04d}.bin": data(1000 + i, 16 << 10) for i in range(2000)}
    if tag == "giant":
        return {"model.bin": Content(4, big_gib * GIB)}
    raise ValueError(tag)


def size_of(tag, big_gib=4):
    return {"two": 2 * GIB, "one": GIB, "large": 2 * GIB, "many": 32 * MIB,
            "giant": big_gib * GIB}[tag]
