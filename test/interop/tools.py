# SPDX-License-Identifier: Apache-2.0
"""Registries and clients that do not come from Debian, each as test/integration/lib has its own."""
import json
import os
import pathlib
import subprocess

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
    name = "zot"

    def argv(self):
        return [self.program, "serve", self.configure("zot.json", {
            "distSpecVersion": "1.1.1", "storage": {"rootDirectory": str(self.data)},
            "http": {"address": "127.0.0.1", "port": str(self.port)}, "log": {"level": "info"}})]


class Crane(OtherRegistry):
    """The small registry inside crane."""

    name = "crane"

    def argv(self):
        return [self.program, "registry", "serve", "--address", self.host, "--disk", str(self.data)]


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
