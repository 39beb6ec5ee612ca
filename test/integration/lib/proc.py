# SPDX-License-Identifier: Apache-2.0
"""Programs of build/parts, as servers that end with the test run and as commands."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parents[3]
PARTS = pathlib.Path(os.environ.get("FETCHER_PARTS", TOP / "build" / "parts"))

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def part(name):
    """Path of an unpacked program."""
    path = PARTS / "bin" / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run test/parts.sh (or test/parts.sh bench)")
    return str(path)


def die_with_parent():
    """In the child before exec: no server outlives the test run, however that ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port(host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]


def command(name, *args, env=None, cwd=None, check=True, input=None, timeout=300):
    """Runs an unpacked program to its end; CompletedProcess with text output."""
    clean = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(cwd or "/nonexistent")}
    clean.update(env or {})
    done = subprocess.run([part(name), *map(str, args)], env=clean, cwd=cwd, input=input,
                          capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{name} {' '.join(map(str, args))}: exit {done.returncode}\n"
                           f"{done.stdout}{done.stderr}")
    return done


class Server:
    """A child process that listens. Subclasses write the configuration and name the command."""

    name = "server"

    def __init__(self, dir):
        self.dir = pathlib.Path(dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self.dir / f"{self.name}.log"
        self.process = None

    def launch(self, argv, port, host="127.0.0.1"):
        log = open(self.log_path, "ab")
        with log:
            self.process = subprocess.Popen(
                argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir,
                preexec_fn=die_with_parent, env={"PATH": "/usr/bin:/bin", "HOME": str(self.dir)})
        self._wait_port(host, port)

    def _wait_port(self, host, port):
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((host, port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError(f"{self.name} does not listen:\n{self.log()[-3000:]}")
                time.sleep(0.02)

    def log(self):
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def rss_kib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
