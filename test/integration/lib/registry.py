# SPDX-License-Identifier: Apache-2.0
"""docker-registry in every guise the tests need, with nginx and HAProxy around it."""

import base64
import json
import pathlib
import re
import time

from .oci import Api
from .proc import Server, command, free_port, part


class Registry(Server):
    """docker-registry 2.8 with filesystem storage below dir.

    tls        Pair: HTTPS with that certificate; ca: the authority's PEM, for clients
    users      {name: password}: htpasswd (bcrypt)
    token      TokenServer: Bearer tokens
    redirect   base URL: blob GETs are answered 307 to redirect + the file's path below data
    proxy      URL of another registry: pull-through cache
    data       storage folder (default dir/data); several registries may share one

    .host "127.0.0.1:PORT"  .url  .scheme  .ca  .user (name, password) or None  .api  .data
    """

    name = "registry"

    def __init__(self, dir, tls=None, ca=None, users=None, token=None, redirect=None, proxy=None,
                 data=None, read_only=False, host="127.0.0.1"):
        super().__init__(dir)
        self.data = pathlib.Path(data or self.dir / "data")
        self.data.mkdir(parents=True, exist_ok=True)
        port = free_port(host)
        self.host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.scheme = "https" if tls else "http"
        self.url = f"{self.scheme}://{self.host}"
        self.ca = ca
        self.user = next(iter(users.items())) if users else None
        self.token_server = token
        if token and token.users:
            self.user = next(iter(token.users.items()))
        self.api = Api(self)
        config = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False},
                                "readonly": {"enabled": read_only}},
            },
            "http": {"addr": self.host},
        }
        if tls:
            config["http"]["tls"] = {"certificate": str(tls.cert), "key": str(tls.key)}
        if users:
            lines = [command("htpasswd", "-nbB", "-C", "4", *pair).stdout.strip()
                     for pair in users.items()]
            (self.dir / "htpasswd").write_text("\n".join(lines) + "\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self.dir / "htpasswd")}}
        if token:
            config["auth"] = {"token": {"realm": token.realm, "service": token.service,
                                        "issuer": token.issuer,
                                        "rootcertbundle": str(token.certificate)}}
        if redirect:
            config["middleware"] = {"storage": [{"name": "redirect",
                                                 "options": {"baseurl": redirect}}]}
        if proxy:
            config["proxy"] = {"remoteurl": proxy}
        conf = self.dir / "registry.yml"
        conf.write_text(json.dumps(config, indent=1))  # JSON is YAML
        self.launch([part("docker-registry"), "serve", str(conf)], port, host)

    def oras_flags(self):
        flags = ["--plain-http"] if self.scheme == "http" else ["--ca-file", str(self.ca)]
        if self.user:
            flags += ["--username", self.user[0], "--password", self.user[1]]
        return flags

    def docker_config(self, path):
        """Writes a docker config.json with this registry's user; returns the file's path."""
        auth = base64.b64encode(":".join(self.user).encode()).decode()
        path = pathlib.Path(path)
        path.write_text(json.dumps({"auths": {self.host: {"auth": auth}}}))
        return path

    def gets(self, kind="blobs"):
        """Number of GETs of blobs (or manifests) in the access log so far."""
        return len(re.findall(rf'"GET /v2/[^ ]+/{kind}/[^ ]+ HTTP', self.log()))


class Nginx(Server):
    """nginx with one server block.

    files      folder to serve;   proxy  URL to pass everything to
    tls        Pair;  protocols "TLSv1.2" / "TLSv1.3" / both;  ciphers for TLS 1.2
    client_ca  PEM: clients must show a certificate of this authority
    extra      text put into the location block (limit_rate 10m; ...)
    """

    name = "nginx"

    def __init__(self, dir, files=None, proxy=None, tls=None, protocols="TLSv1.2 TLSv1.3",
                 ciphers=None, client_ca=None, ca=None, extra="", host="127.0.0.1"):
        super().__init__(dir)
        port = free_port(host)
        self.host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.scheme = "https" if tls else "http"
        self.url = f"{self.scheme}://{self.host}"
        self.ca = ca
        self.user = None
        self.api = Api(self)
        lines = [f"listen {self.host}{' ssl' if tls else ''};"]
        if tls:
            lines += [f"ssl_certificate {tls.cert};", f"ssl_certificate_key {tls.key};",
                      f"ssl_protocols {protocols};"]
            if ciphers:
                lines.append(f"ssl_ciphers {ciphers};")
            if client_ca:
                lines += [f"ssl_client_certificate {client_ca};", "ssl_verify_client on;"]
        if files:
            place = f"root {files};"
        else:
            place = (f"proxy_pass {proxy}; proxy_http_version 1.1; proxy_set_header Connection '';"
                     "proxy_set_header Host $http_host; proxy_buffering off;"
                     f"proxy_set_header X-Forwarded-Proto {self.scheme}; client_max_body_size 0;"
                     "proxy_request_buffering off;")
        conf = self.dir / "nginx.conf"
        conf.write_text(f"""
            daemon off; master_process off; pid {self.dir}/nginx.pid; error_log stderr warn;
            events {{ worker_connections 1024; }}
            http {{
                log_format seen escape=json '{{"method":"$request_method","uri":"$request_uri",'
                    '"status":$status,"sent":$body_bytes_sent,"range":"$http_range",'
                    '"authorization":"$http_authorization","peer":$remote_port,'
                    '"tls":"$ssl_protocol $ssl_cipher"}}';
                access_log {self.dir}/access.log seen;
                client_body_temp_path {self.dir}/t1; proxy_temp_path {self.dir}/t2;
                fastcgi_temp_path {self.dir}/t3; uwsgi_temp_path {self.dir}/t4;
                scgi_temp_path {self.dir}/t5;
                default_type application/octet-stream; sendfile on; keepalive_requests 100000;
                server {{ {' '.join(lines)}
                    location / {{ {place} {extra} }} }}
            }}""")
        self.launch([part("nginx"), "-p", str(self.dir), "-e", "stderr", "-c", str(conf)],
                    port, host)

    def oras_flags(self):
        return ["--plain-http"] if self.scheme == "http" else ["--ca-file", str(self.ca)]

    def requests(self, until=None):
        """Access log as dicts: method uri status sent range authorization peer tls.

        nginx writes a line after the answer has gone: until(list) -> bool says when the lines
        that the test looks for are there (waits 10 s at most).
        """
        give_up = time.monotonic() + 10
        while True:
            text = (self.dir / "access.log").read_text()
            seen = [json.loads(line) for line in text.splitlines()]
            if until is None or until(seen) or time.monotonic() > give_up:
                return seen
            time.sleep(0.02)


class Haproxy(Server):
    """HAProxy before a registry: at most `cap` bytes a second per connection."""

    name = "haproxy"

    def __init__(self, dir, backend, cap=32 << 20, host="127.0.0.1"):
        super().__init__(dir)
        port = free_port(host)
        self.host = f"{host}:{port}"
        self.scheme = "http"
        self.url = f"http://{self.host}"
        self.user = None
        self.ca = None
        self.api = Api(self)
        conf = self.dir / "haproxy.cfg"
        conf.write_text(f"""
global
    maxconn 2000
defaults
    mode http
    timeout connect 10s
    timeout client 120s
    timeout server 120s
frontend front
    bind {self.host}
    filter bwlim-out cap default-limit {cap} default-period 1s
    http-response set-bandwidth-limit cap
    default_backend back
backend back
    server registry {backend.host}
""")
        self.launch([part("haproxy"), "-db", "-f", str(conf)], port, host)

    def oras_flags(self):
        return ["--plain-http"]
