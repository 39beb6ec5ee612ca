# SPDX-License-Identifier: Apache-2.0
"""Dockerfile.scratch, built and run with podman. No image is downloaded: the builder stage's base is a debootstrapped
Debian of the machine's own archive, under the name that the Dockerfile uses."""
import json
import os
import re
import shutil
import subprocess
import tarfile

import pytest

from lib.client import binary

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BASE = "docker.io/library/debian:trixie-slim"
IMAGE = "localhost/fetcher:under-test"
PROBE = "localhost/fetcher:probe"
STORE = os.path.join(TOP, "build", "podman")
MIB = 1 << 20

pytestmark = pytest.mark.slow

# Old podman with hybrid cgroups knows neither crun nor systemd there; in a container it may not raise limits.
CONF = """\
[containers]
default_ulimits=["nofile=1024:1024","nproc=1024:1024"]
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
"""


class Podman:
    def __init__(self, folder):
        self.folder = folder
        self.env = dict(os.environ)
        if shutil.which("runc"):
            conf = os.path.join(folder, "containers.conf")
            with open(conf, "w", encoding="ascii") as f:
                f.write(CONF)
            self.env["CONTAINERS_CONF"] = conf

    def try_(self, *args, **more):
        # From a folder that has no entry named like the image: old podman would take that for it.
        return subprocess.run(["podman", "--root", STORE, *args], cwd=self.folder, env=self.env, check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def __call__(self, *args, **more):
        done = self.try_(*args, **more)
        assert done.returncode == 0, f"podman {' '.join(args)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout


def release_store():
    """A podman that failed leaves its store mounted onto itself, and nobody could remove it then."""
    subprocess.run(["umount", os.path.join(STORE, "overlay")], check=False, stderr=subprocess.DEVNULL)


def why_not(podman):
    """Why podman cannot work here (in a plain chroot, say, it can unpack no layer), or None: an image of one file is made
    and run."""
    done = podman.try_("info")
    if done.returncode != 0 and "mismatch" in done.stderr:    # the tree was moved: the store knows its old path
        release_store()
        shutil.rmtree(STORE)
        done = podman.try_("info")
    if done.returncode == 0:
        path = os.path.join(podman.folder, "probe.tar")
        with tarfile.open(path, "w") as tar:
            tar.add(os.path.realpath(binary()[-1]), "fetcher")
        done = podman.try_("import", path, PROBE)
    if done.returncode == 0:
        done = podman.try_("run", "--rm", "--network=none", PROBE, "/fetcher", "version")
        podman.try_("rmi", "-f", PROBE)
    return (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1] if done.returncode != 0 else None


def make_base(podman, folder):
    entry = subprocess.run([os.path.join(TOP, "deps", "debian-entry.sh")], check=False, stdout=subprocess.PIPE, text=True)
    if entry.returncode != 0:
        pytest.skip("no Debian archive to make the base image from")
    root = os.path.join(folder, "root")
    subprocess.run(["debootstrap", "--variant=minbase", "trixie", root, entry.stdout.split()[0]], check=True,
                   stdout=subprocess.DEVNULL)
    # The machine's own apt settings (a proxy, a cache) hold in the base as well.
    for name in os.listdir("/etc/apt/apt.conf.d"):
        with open(os.path.join("/etc/apt/apt.conf.d", name), encoding="utf-8", errors="replace") as f:
            text = f.read()
        if "Acquire" in text and "Dpkg" not in text and "DPkg" not in text:
            with open(os.path.join(root, "etc/apt/apt.conf.d", name), "w", encoding="utf-8") as f:
                f.write(text)
    tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    podman("import", "-", BASE, stdin=tar.stdout)
    assert tar.wait() == 0
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    for tool in ("podman", "debootstrap"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("debootstrap wants root")
    folder = str(tmp_path_factory.mktemp("podman"))
    tool = Podman(folder)
    reason = why_not(tool)
    if reason:
        pytest.skip("podman does not work here: " + reason)
    if tool.try_("image", "exists", BASE).returncode != 0:
        make_base(tool, folder)
    yield tool
    release_store()


@pytest.fixture(scope="module")
def image(podman):
    podman("build", "--layers=false", "--pull=never", "--network=host", "-f", os.path.join(TOP, "Dockerfile.scratch"), "-t", IMAGE, TOP)
    yield IMAGE
    podman("rmi", "-f", IMAGE)
    podman("image", "prune", "-f")    # the builder stage; the base stays for the next run


def test_image_is_small_and_bare(podman, image):
    info = json.loads(podman("image", "inspect", image))[0]
    assert info["Size"] < 4 * MIB
    assert info["Config"]["User"] == "65532:65532"
    assert info["Config"]["Entrypoint"] == ["/fetcher"]
    assert info["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(info["RootFS"]["Layers"]) == 1


def test_image_pulls_unprivileged(podman, image, registry, push, tmp_path_factory):
    from lib.content import Content

    pushed = push(registry, "image/model", "v1", {"weights.bin": Content(41, 3 << 20), "config.json": b"{}"})
    dest = tmp_path_factory.mktemp("volume")
    dest.chmod(0o777)
    out = podman("run", "--rm", "--network=host", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
                 "--user=12345:12345", "-v", f"{dest}:/out", image, "pull", "--plain-http", pushed.ref, "/out")
    assert (dest / "weights.bin").stat().st_size == 3 << 20, out
    assert (dest / "config.json").read_bytes() == b"{}"
    assert (dest / ".fetcher" / "ready.json").exists()


def test_image_has_the_version(podman, image):
    with open(os.path.join(TOP, "Makefile"), encoding="ascii") as f:
        version = re.search(r"^VERSION := (\S+)$", f.read(), re.M).group(1)
    assert version in podman("run", "--rm", "--network=none", image, "version")
