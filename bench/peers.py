# SPDX-License-Identifier: Apache-2.0
"""The clients that are compared: what each is called with, and how one run of it is measured."""

import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

from servers import MIB, REPO, part

SPAWN = pathlib.Path(__file__).with_name("spawn.py")
CORES = os.cpu_count()
TICK = os.sysconf("SC_CLK_TCK")
RUN_SECONDS = 600
STRACE_SECONDS = 60


class Job:
    """One artifact to be pulled from one stage into dest. scratch: for configurations."""

    def __init__(self, stage, artifact, dest, scratch, connections=None):
        self.stage = stage
        self.artifact = artifact
        self.dest = pathlib.Path(dest)
        self.scratch = pathlib.Path(scratch)
        self.connections = connections
        self.many = len(artifact.items) > 16

    def url(self, digest):
        return f"{self.stage.url}/v2/{REPO}/blobs/{digest}"

    def write(self, name, text):
        path = self.scratch / name
        path.write_text(text)
        return path


class Peer:
    """name; argv(job): the command; ready(): why it cannot run, or None."""

    makes_dest = False  # else the bench makes the folder, before the clock starts

    def __init__(self, name):
        self.name = name

    def ready(self):
        return None

    def names(self, job):
        """{file below dest: its sha256}"""
        return {title: digest.split(":")[1] for title, digest, _ in job.artifact.items}


class Fetcher(Peer):
    makes_dest = True

    def __init__(self, name, words):
        super().__init__(name)
        self.words = words

    def ready(self):
        return None if os.access(self.words[0], os.X_OK) else f"{self.words[0]} is missing"

    def argv(self, job):
        trust = ["--ca-file", str(job.stage.ca)] if job.stage.ca else ["--plain-http"]
        lanes = ["--concurrency", str(job.connections)] if job.connections else []
        return [os.path.abspath(self.words[0]), "pull", *trust, *lanes, *self.words[1:],
                job.stage.ref(job.artifact), str(job.dest)]


class Oras(Peer):
    def argv(self, job):
        trust = ["--ca-file", str(job.stage.ca)] if job.stage.ca else ["--plain-http"]
        return [part("oras"), "pull", "--no-tty", *trust, "-o", str(job.dest),
                job.stage.ref(job.artifact)]


class Skopeo(Peer):
    def argv(self, job):
        trust = "--src-tls-verify=false"
        if job.stage.ca:
            folder = job.scratch / "certs"
            folder.mkdir(exist_ok=True)
            shutil.copy(job.stage.ca, folder / "ca.crt")
            trust = f"--src-cert-dir={folder}"
        return [part("skopeo"), "--insecure-policy", "--tmpdir", str(job.scratch), "copy", "-q",
                trust, f"docker://{job.stage.ref(job.artifact)}", f"dir:{job.dest}"]

    def names(self, job):
        return {digest.split(":")[1]: digest.split(":")[1] for _, digest, _ in job.artifact.items}


class Aria2(Peer):
    """Knows nothing of registries: it is given the blobs' addresses and checksums."""

    def __init__(self, name, split=8):
        super().__init__(name)
        self.split = split

    def argv(self, job):
        listed = "".join(f"{job.url(digest)}\n out={title}\n"
                         f" checksum=sha-256={digest.split(':')[1]}\n"
                         for title, digest, _ in job.artifact.items)
        trust = [f"--ca-certificate={job.stage.ca}"] if job.stage.ca else []
        return [part("aria2c"), "--no-conf", "--quiet", f"-x{self.split}", f"-s{self.split}",
                "-k1M", f"-j{16 if job.many else len(job.artifact.items)}",
                "--file-allocation=falloc", "-d", str(job.dest), *trust,
                "-i", str(job.write("aria2.list", listed))]


def _curl(job):
    trust = f"--cacert {job.stage.ca} " if job.stage.ca else ""
    return f"curl -q -sS --fail {trust}"


def _curl_config(job):
    return job.write("curl.list", "".join(f'url = "{job.url(digest)}"\noutput = "{title}"\n'
                                          for title, digest, _ in job.artifact.items))


def _sums(job):
    return job.write("sums", "".join(f"{digest.split(':')[1]} *{title}\n"
                                     for title, digest, _ in job.artifact.items))


def _in_parallel(commands):
    """A script that starts all commands at once and fails if one of them does."""
    lines = [f"{{ {command}\n}} &\np{i}=$!" for i, command in enumerate(commands)]
    return "\n".join([*lines, *(f"wait $p{i} || exit 1" for i in range(len(commands)))])


class CurlSum(Peer):
    """curl piped through tee into openssl dgst, one pipeline a blob; for many small files one
    parallel curl and then openssl over all of them."""

    def argv(self, job):
        cd = f"cd {job.dest} || exit 1\n"
        if job.many:
            listed = job.write("titles", "".join(f"{t}\n" for t, _, _ in job.artifact.items))
            text = (f"{_curl(job)} --parallel --parallel-max 16 -K {_curl_config(job)} && "
                    f"xargs {part('openssl')} dgst -sha256 -r <{listed} | cmp - {_sums(job)}")
        else:
            text = _in_parallel([
                f"{_curl(job)} {job.url(digest)} | tee {shlex.quote(title)} | "
                f"{part('openssl')} dgst -sha256 -r | grep -q ^{digest.split(':')[1]}"
                for title, digest, _ in job.artifact.items])
        return ["/bin/sh", "-c", cd + text]


class FloorReceive(Peer):
    """Receive and write, no hash: one curl a blob."""

    def argv(self, job):
        cd = f"cd {job.dest} || exit 1\n"
        if job.many:
            text = f"{_curl(job)} --parallel --parallel-max 16 -K {_curl_config(job)}"
        else:
            text = _in_parallel([f"{_curl(job)} -o {shlex.quote(title)} {job.url(digest)}"
                                 for title, digest, _ in job.artifact.items])
        return ["/bin/sh", "-c", cd + text]


class FloorHash(Peer):
    """Hash only: openssl over what FloorReceive left, one process a blob."""

    def argv(self, job):
        cd = f"cd {job.dest} || exit 1\n"
        titles = [title for title, _, _ in job.artifact.items]
        tool = f"{part('openssl')} dgst -sha256 -r"
        if job.many:
            listed = job.write("titles", "".join(f"{title}\n" for title in titles))
            return ["/bin/sh", "-c", f"{cd}xargs {tool} <{listed}"]
        return ["/bin/sh", "-c",
                cd + _in_parallel([f"{tool} {shlex.quote(title)}" for title in titles])]


class Failed(Exception):
    pass


class Run:
    """What one run cost. Seconds and bytes; rss in bytes; wchar: given to write calls; seen as in servers.Seen; foreign: share
    of the machine that was neither this client's nor the servers'."""

    def __init__(self, values, server, seen, busy):
        self.wall = float(values["wall"])
        self.cpu = float(values["user"]) + float(values["sys"])
        self.wchar = int(values["wchar"])
        self.server = server
        self.seen = seen
        # maxrss is exact unless the launcher itself was larger; then the reading every 20 ms.
        maxrss, hwm, own = (int(values[k]) for k in ("maxrss", "hwm", "own"))
        exact = maxrss > own * 1.25
        self.rss = (max(maxrss, hwm) if exact else hwm) << 10
        self.foreign = min(1.0, max(0.0, busy - self.cpu - server) / (self.wall * CORES))

    def as_dict(self):
        own = {k: v for k, v in vars(self).items() if k != "seen"}
        return {**own, **vars(self.seen)}


def busy_seconds():
    """CPU seconds of the machine that were not idle; time stolen by the host counts."""
    with open("/proc/stat") as f:
        fields = [int(word) for word in f.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICK


def clean_environment(scratch):
    return {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch),
            "DOCKER_CONFIG": str(scratch)}


def _spawn(job, argv, seconds=RUN_SECONDS):
    result, err = job.scratch / "result", job.scratch / "err"
    launcher = subprocess.Popen([sys.executable, "-I", "-S", str(SPAWN), str(result), str(seconds),
                                 str(job.scratch / "out"), str(err), *argv],
                                env=clean_environment(job.scratch), cwd=job.scratch,
                                stdin=subprocess.DEVNULL)
    try:
        status = launcher.wait()
    except BaseException:  # the bench is told to stop: the client must not go on
        launcher.terminate()
        launcher.wait()
        raise
    if status != 0:
        raise RuntimeError(f"bench/spawn.py ended with {status}")
    values = dict(line.split() for line in result.read_text().splitlines())
    if values["status"] != "0":
        lines = err.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise Failed(f"status {values['status']}: {lines[-1][:300]}")
    return values


def measure(peer, job):
    """One run of peer into job.dest, which is not there yet or (a second pull) is its own."""
    if not peer.makes_dest:
        job.dest.mkdir(parents=True, exist_ok=True)
    argv = peer.argv(job)
    offset = job.stage.log_end()
    server = job.stage.cpu_seconds()
    busy = busy_seconds()
    values = _spawn(job, argv)
    busy = busy_seconds() - busy
    server = job.stage.cpu_seconds() - server
    return Run(values, server, job.stage.seen_since(offset), busy)


def check(peer, job, deep):
    """Raises unless every file stands in dest with its size, and (deep) its digest."""
    sizes = job.artifact.sizes
    for name, sha in peer.names(job).items():
        path = job.dest / name
        if not path.is_file() or path.stat().st_size != sizes[sha]:
            raise Failed(f"{name} is missing or has another size")
        if deep:
            with open(path, "rb") as f:
                digest = hashlib.sha256()
                while chunk := f.read(MIB):
                    digest.update(chunk)
            if digest.hexdigest() != sha:
                raise Failed(f"{name} has another digest")


def remove(path):
    """Away with it, also where a tool left folders that are not writable."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.exists(path):
        subprocess.run(["/bin/sh", "-c", f"chmod -R u+rwX {shlex.quote(str(path))}"], check=False)
        shutil.rmtree(path)


def syscalls(peer, job):
    """Calls of one run under strace, which slows it down: counted, never timed. None without."""
    strace = shutil.which("strace")
    if not strace:
        return None
    if not peer.makes_dest:
        job.dest.mkdir(parents=True, exist_ok=True)
    out = job.scratch / "strace"
    _spawn(job, [strace, "-f", "-c", "-qq", "-o", str(out), *peer.argv(job)],
           STRACE_SECONDS)
    for line in reversed(out.read_text().splitlines()):
        words = line.split()
        if words and words[-1] == "total":
            return int(words[3])
    return None


def wait_quiet(limit, seconds):
    """Waits until others use less than limit of the machine; the share that was last seen."""
    give_up = time.monotonic() + seconds
    while True:
        before = busy_seconds()
        time.sleep(0.5)
        share = (busy_seconds() - before) / (0.5 * CORES)
        if share <= limit or time.monotonic() > give_up:
            return share
