# SPDX-License-Identifier: Apache-2.0
"""Runs the fetcher binary under test, with nothing of the caller's environment."""

import json
import os
import pathlib
import resource
import shlex
import shutil
import signal
import subprocess

from .proc import TOP, die_with_parent


def binary():
    """The command as a list: FETCHER_BIN (may be "qemu-aarch64-static .../fetcher") or build's."""
    words = shlex.split(os.environ.get("FETCHER_BIN", str(TOP / "build" / "fetcher")))
    if not os.path.exists(words[-1]):
        raise FileNotFoundError(f"{words[-1]} is missing: run make first, or set FETCHER_BIN")
    return words


class Result:
    """rc (negative: killed by that signal), out, err (text), seconds, cmd; json: out parsed."""

    def __init__(self, cmd, rc, out, err):
        self.cmd = cmd
        self.rc = rc
        self.out = out
        self.err = err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def log(self):
        """The lines of stderr that are JSON objects."""
        lines = []
        for line in self.err.splitlines():
            if line.startswith("{"):
                lines.append(json.loads(line))
        return lines

    def ok(self):
        """Itself if it ended with 0; an AssertionError that shows its output otherwise."""
        return self.exits(0)

    def exits(self, rc):
        assert self.rc == rc, f"exit {self.rc}, wanted {rc}\n{self}"
        return self

    def __repr__(self):
        return f"$ {' '.join(self.cmd)}\nexit {self.rc}\n--- out\n{self.out[-4000:]}\n" \
               f"--- err\n{self.err[-6000:]}"


class Running:
    """A fetcher that runs. Output goes to files, so that nobody has to read it meanwhile."""

    def __init__(self, cmd, process, out, err):
        self.cmd = cmd
        self.process = process
        self.pid = process.pid
        self._out = out
        self._err = err

    def err(self):
        return self._err.read_text(errors="replace")

    def out(self):
        return self._out.read_text(errors="replace")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9; returns the Result."""
        self.process.kill()
        return self.wait(30)

    def terminate(self, timeout=30):
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def alive(self):
        return self.process.poll() is None

    def wait(self, timeout=120):
        try:
            rc = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still running after {timeout} s: {' '.join(self.cmd)}\n"
                                 f"{self.err()[-6000:]}") from None
        return Result(self.cmd, rc, self.out(), self.err())

    def rss_kib(self):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0])


class Fetcher:
    """fetcher("pull", "--plain-http", ref, dest) -> Result; fetcher.start(...) -> Running.

    env      the whole environment (default: empty; PATH, HOME and FETCHER_* are not there)
    limits   {resource.RLIMIT_X: value}
    uid      run as this uid (and gid); only as root
    wrap     words before the command (["unshare", "-n"], ["setpriv", ...])
    """

    def __init__(self, dir):
        self.dir = pathlib.Path(dir)
        self._count = 0

    def _open_binary(self):
        """A copy that another uid can reach: the tree may lie in a closed home."""
        *emulator, path = binary()
        copy = self.dir / "fetcher"
        if not copy.exists():
            shutil.copy(path, copy)
            copy.chmod(0o755)
        return [*emulator, str(copy)]

    def start(self, *args, env=None, cwd=None, limits=None, uid=None, wrap=(), stdin=None,
              umask=None):
        self._count += 1
        self.dir.mkdir(parents=True, exist_ok=True)
        program = binary() if uid is None else self._open_binary()
        cmd = [*map(str, wrap), *program, *map(str, args)]
        out = self.dir / f"{self._count:03d}.out"
        err = self.dir / f"{self._count:03d}.err"

        def prepare():
            for which, value in (limits or {}).items():
                resource.setrlimit(which, (value, value))
            if umask is not None:
                os.umask(umask)
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            die_with_parent()

        with open(out, "wb") as o, open(err, "wb") as e:
            process = subprocess.Popen(cmd, stdout=o, stderr=e, stdin=stdin or subprocess.DEVNULL,
                                       env=dict(env or {}), cwd=cwd, preexec_fn=prepare)
        return Running(cmd, process, out, err)

    def __call__(self, *args, timeout=120, **how):
        return self.start(*args, **how).wait(timeout)

    def pull(self, ref, dest, *flags, **how):
        """Over plain HTTP."""
        return self("pull", "--plain-http", *flags, ref, dest, **how)
