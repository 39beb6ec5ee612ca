# SPDX-License-Identifier: Apache-2.0
"""Registries and clients that do not come from Debian, each as test/integration/lib has its own."""
import json
import os
import pathlib
import socket
import subprocess

from lib.look import until
from lib.oci import Api
from lib.proc import Server, free_port


class OtherRegistry(Server):
    """A registry on a loopback port, plain HTTP, anonymous. Subclasses say how it starts."""

    scheme = "http"
    ca = user = None

    def __init__(self, dir, program):
        super().__init__(dir)
        self.program = program
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.data = self.dir / "data"
        self.data.mkdir()
        self.api = Api(self)
        self.launch(self.argv(), self.port)

    def configure(self, name, body):
        path = self.dir / name
        path.write_text(json.dumps(body, indent=1))    # JSON is YAML
        return str(path)

    def oras_flags(self):
        return ["--plain-http"]


class Distribution(OtherRegistry):
    """distribution 3: what the image registry:3 runs."""

    name = "distribution"

    def argv(self):
        return [self.program, "serve", self.configure("registry.yml", {
            "version": 0.1, "log": {"level": "info"}, "http": {"addr": self.host},
            "storage": {"filesystem": {"rootdirectory": str(self.data)}}})]


class Zot(OtherRegistry):
    """upstream: a server whose artifacts it fetches when it is asked for them (zot's sync, on demand)."""

    name = "zot"

    def __init__(self, dir, program, upstream=None):
        self.upstream = upstream
        super().__init__(dir, program)

    def argv(self):
        sync = {"enable": True, "registries": [{"urls": [self.upstream.url], "onDemand": True, "tlsVerify": False,
                                                "content": [{"prefix": "**"}]}]} if self.upstream else None
        return [self.program, "serve", self.configure("zot.json", {
            "distSpecVersion": "1.1.1", "storage": {"rootDirectory": str(self.data)},
            "http": {"address": "127.0.0.1", "port": str(self.port)}, "log": {"level": "info"},
            **({"extensions": {"sync": sync}} if sync else {})})]


class Crane(OtherRegistry):
    """The small registry inside crane."""

    name = "crane"

    def argv(self):
        return [self.program, "registry", "serve", "--address", self.host, "--disk", str(self.data)]


class Containerd(Server):
    """A node's containerd, with nothing but its store, all of it in one folder. fetch(ref) leaves there what a kubelet's pull
    leaves."""

    name = "containerd"
    # what looks at the machine, or writes outside of root and state; the later names are those of containerd 2
    unwanted = ["internal.v1.opt", "internal.v1.restart", "runtime.v1.linux", "runtime.v2.task", "monitor.v1.cgroups",
                "grpc.v1.tasks", "service.v1.tasks-service", "grpc.v1.cri", "cri.v1.images", "cri.v1.runtime", "nri.v1.nri",
                "tracing.processor.v1.otlp", "internal.v1.tracing", "monitor.task.v1.cgroups", "podsandbox.controller.v1",
                *(f"snapshotter.v1.{name}" for name in ("aufs", "blockfile", "btrfs", "devmapper", "erofs", "overlayfs", "zfs"))]

    def __init__(self, dir, program, ctr):
        super().__init__(dir)
        self.socket = self.dir / "s"    # short: a socket's path has 107 characters at most
        self.content = self.dir / "root/io.containerd.content.v1.content"
        owner = {"uid": os.getuid(), "gid": os.getgid()}
        toml = ["version = 2", f'root = "{self.dir}/root"', f'state = "{self.dir}/state"',
                f"disabled_plugins = {json.dumps(['io.containerd.' + name for name in self.unwanted])}"]
        for table, address in (("grpc", self.socket), ("ttrpc", self.dir / "t")):
            toml += [f"[{table}]", f'address = "{address}"', *(f"{key} = {value}" for key, value in owner.items())]
        (self.dir / "config.toml").write_text("\n".join(toml) + "\n")
        self.ctr = Tool(ctr, self.dir / "ctr", "--address", self.socket, "--namespace", "k8s.io")
        self.launch([program, "--config", str(self.dir / "config.toml")], str(self.socket))

    def _wait_port(self, host, port):
        def ready():
            assert self.process.poll() is None, self.log()[-3000:]
            with socket.socket(socket.AF_UNIX) as sock:
                return sock.connect_ex(port) == 0
        until(ready)

    def fetch(self, ref):
        self.ctr("content", "fetch", "--plain-http", ref)


class Spegel(OtherRegistry):
    """Spegel before that containerd. What neither it nor another node has is a 404.

    address    where the registry listens, and router the peers' protocol; others find a node whose addresses are not loopback
    peer       another node, of another address: Spegel takes its own port for that of all nodes, so this one gets that port
    """

    name = "spegel"

    def __init__(self, dir, program, node, address="127.0.0.1", router="127.0.0.1", peer=None):
        self.node = node
        self.address = address
        self.router = router
        self.peer = peer
        self.bootstrap = f"127.0.0.1:{free_port()}"
        super().__init__(dir, program)

    def argv(self):
        if self.peer:
            self.port = self.peer.port
        self.host = f"{self.address}:{self.port}"
        self.url = f"http://{self.host}"
        return [self.program, "registry", "--registry-addr", self.host, "--router-addr", f"{self.router}:0",
                "--bootstrap-kind", "http", "--http-bootstrap-addr", self.bootstrap,
                "--http-bootstrap-peer", f"http://{(self.peer or self).bootstrap}", "--mirror-resolve-timeout", "2s",
                "--metrics-addr", f"127.0.0.1:{free_port()}", "--data-dir", str(self.data),
                "--containerd-sock", str(self.node.socket), "--containerd-content-path", str(self.node.content)]

    def _wait_port(self, host, port):
        super()._wait_port(self.address, self.port)


class Tool:
    """A command-line client: tool("push", ...) -> what it printed; a failure is an AssertionError that shows it."""

    def __init__(self, program, home, *flags):
        self.program = program
        self.home = pathlib.Path(home)
        self.flags = flags
        self.home.mkdir(parents=True, exist_ok=True)

    def argv(self, *args):
        return [self.program, *self.flags, *map(str, args)]

    def env(self):
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.home)}

    def start(self, *args, cwd=None):
        with open(self.home / "out", "ab") as out:
            return subprocess.Popen(self.argv(*args), cwd=cwd or self.home, env=self.env(), stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=out)

    def run(self, *args, cwd=None, timeout=300):
        return subprocess.run(self.argv(*args), cwd=cwd or self.home, env=self.env(), stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False)

    def __call__(self, *args, **how):
        done = self.run(*args, **how)
        assert done.returncode == 0, f"{' '.join(self.argv(*args))}: exit {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout.strip()


def modctl(program, home):
    home = pathlib.Path(home)
    return Tool(program, home, "--no-progress", "--storage-dir", home / "storage", "--log-dir", home / "log")


def stage(folder, files):
    """Writes {name: bytes | Content} below a new folder."""
    for name, value in files.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            value.write_to(path)
        os.utime(path, (1700000000, 1700000000))
    return pathlib.Path(folder)
