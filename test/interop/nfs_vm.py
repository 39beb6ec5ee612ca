# SPDX-License-Identifier: Apache-2.0
"""A virtual machine with an NFS server and clients in it, for kernels that have no NFS and users who may not mount.

qemu (TCG: no rights are needed) runs Debian's kernel with an initramfs made here: busybox, the NFS tools, fetcher. The packages
come as those of test/parts.sh do, are unpacked below build/interop/vm, and nothing is installed.

Inside are one server, which exports a tmpfs, and two nodes, "a" and "b": each has a host name, a network, mounts and a boot id of
its own, so the server sees two clients, and each has its own page and attribute cache. /nfs is the export by NFSv4.2 (each node's
own mount). The host itself ("") has it by NFSv3 twice, at /v3a and /v3b (nosharecache; statd and lockd). The tests' loopback is
10.0.2.2. The machine runs what comes over a TCP port that only the loopback reaches; its console is console.log.
"""
import lzma
import os
import pathlib
import platform
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.parse

import pytest

from lib.client import binary
from lib.proc import PARTS, TOP, die_with_parent, free_port

DIR = TOP / "build" / "interop" / "vm"
PACKAGES = ["qemu-system-x86", "nfs-kernel-server", "busybox-static", "iproute2"]
MODULES = ["virtio_pci", "virtio_net", "veth", "nfsd", "nfsv3", "nfsv4"]
PROGRAMS = ["rpcbind", "rpc.statd", "rpc.mountd", "rpc.nfsd", "exportfs", "mount.nfs", "ip"]
LOADER = "lib64/ld-linux-x86-64.so.2"
PORT = 7000    # inside
BOOT = 240     # seconds: a hang, not a measure

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run/rpcbind /export /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/v4recovery
/bin/busybox --install -s /bin
export PATH=/bin:/usr/sbin:/usr/bin
ip=/usr/sbin/ip    # busybox has a smaller one
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
for m in $(cat /modules.order); do insmod /modules/$m.ko $(cat /modules/$m.args 2>/dev/null); done
hostname server
$ip link set lo up
$ip link set eth0 up; $ip addr add 10.0.2.15/24 dev eth0; $ip route add default via 10.0.2.2
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/xtab /var/lib/nfs/state
mount -t nfsd nfsd /proc/fs/nfsd
mount -t tmpfs -o size=600m,mode=0777 export /export
rpcbind -w
rpc.statd
touch /etc/exports
exportfs -o rw,fsid=0,no_root_squash,no_subtree_check,insecure '*:/export'
rpc.mountd
rpc.nfsd -G 10 -L 10 4
echo Y >/proc/fs/nfsd/v4_end_grace

node() { # NAME NUMBER
	mkdir -p /node /nfs
	cat /proc/sys/kernel/random/uuid >/node/$1.boot
	unshare -m -u -n sh -c "mount --make-rprivate / 2>/dev/null
		hostname node-$1; mount --bind /node/$1.boot /proc/sys/kernel/random/boot_id
		until $ip link show n$1 >/dev/null 2>&1; do sleep 0.1; done
		$ip link set lo up; $ip link set n$1 up; $ip addr add 10.9.$2.2/24 dev n$1; sleep 0.2
		mount.nfs 10.9.$2.1:/ /nfs -o vers=4.2,nosharecache; echo mount of $1: \\$?; grep nfs4 /proc/mounts
		echo ready >/node/$1.ready
		exec sleep 100000" &
	echo $! >/node/$1.pid
	sleep 0.3
	$ip link add h$1 type veth peer name n$1 netns $!
	$ip addr add 10.9.$2.1/24 dev h$1; $ip link set h$1 up
	for i in $(seq 300); do [ -e /node/$1.ready ] && break; sleep 0.1; done
}
node a 1
node b 2
mkdir -p /v3a /v3b
for d in /v3a /v3b; do mount.nfs 127.0.0.1:/export $d -o vers=3,nosharecache; echo mount of $d: $?; done
grep ' nfs ' /proc/mounts
echo the machine is up
exec nc -ll -p 7000 -e /agent
"""
AGENT = """#!/bin/sh
script=$(cat)
sh -c "$script" </dev/null 2>&1
echo "
rc=$?"
"""
FILES = {
    "etc/passwd": "root:x:0:0::/:/bin/sh\n_rpc:x:101:101::/:/bin/sh\nstatd:x:102:102::/:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost server\n10.9.1.2 node-a\n10.9.2.2 node-b\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\nrpc: files\n",
    "etc/protocols": "ip 0 IP\ntcp 6 TCP\nudp 17 UDP\n",
    "etc/services": "sunrpc 111/tcp portmapper\nsunrpc 111/udp portmapper\nnfs 2049/tcp\nnfs 2049/udp\n",
    "etc/rpc": "portmapper 100000 portmap sunrpc\nnfs 100003 nfsprog\nmountd 100005\nnlockmgr 100021\nstatus 100024\n",
}


def _run(argv, **how):
    return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, **how)


def _get(name, *words, cwd):
    done = _run(["apt-get", "-q", "-c", DIR / "apt" / "apt.conf", *words], cwd=cwd)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        pytest.skip(f"no {name} from Debian: {lines[-1][:200] if lines else done.returncode}")
    return done.stdout


def _kernel(new):
    """Debian's newest kernel: vmlinuz and modules/NAME.ko with what they need, in the order of loading."""
    _run(["dpkg-deb", "-x", next(new.glob("linux-image*.deb")), new / "kernel"], check=True)
    shutil.move(next((new / "kernel" / "boot").glob("vmlinuz-*")), new / "vmlinuz")
    tree = next((new / "kernel").rglob("modules.builtin")).parent
    files = {p.name.split(".ko")[0].replace("-", "_"): p for p in tree.rglob("*.ko*")}
    builtin = {pathlib.Path(line).stem.replace("-", "_") for line in (tree / "modules.builtin").read_text().split()}
    (new / "modules").mkdir()
    order = []

    def need(name):
        if name in order or name in builtin:
            return
        body = files[name].read_bytes()
        body = lzma.decompress(body) if files[name].suffix == ".xz" else body
        for other in re.search(rb"\0depends=([^\0]*)\0", body)[1].decode().split(","):
            if other:
                need(other.replace("-", "_"))
        order.append(name)
        (new / "modules" / f"{name}.ko").write_bytes(body)
    for name in MODULES:
        need(name)
    (new / "modules" / "lockd.args").write_text("nlm_grace_period=1\n")
    (new / "modules.order").write_text("\n".join(order) + "\n")
    shutil.rmtree(new / "kernel")


def packages():
    """build/interop/vm/parts: root/ (unpacked packages), vmlinuz, modules/. Skips where they cannot be had."""
    if platform.machine() != "x86_64" or len(binary()) > 1:
        pytest.skip(f"the machine is made for x86_64, not {platform.machine()} or {binary()[0]}")
    parts = DIR / "parts"
    stamp = f"{PACKAGES} {MODULES}"
    if (parts / "stamp").exists() and (parts / "stamp").read_text() == stamp:
        return parts
    conf = PARTS / "apt" / "apt.conf"
    if not conf.exists() or not shutil.which("dpkg-deb"):
        pytest.skip("no Debian packages here (test/parts.sh was not run, or there is no dpkg-deb)")
    apt = DIR / "apt"
    for old in (apt, parts, DIR / "new"):
        shutil.rmtree(old, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d"):
        (apt / folder).mkdir(parents=True)
    (apt / "state" / "status").touch()
    shutil.copy(PARTS / "apt" / "etc" / "sources.list", apt / "etc")
    (apt / "apt.conf").write_text(conf.read_text().replace(str(PARTS / "apt"), str(apt)))
    new = DIR / "new"
    new.mkdir()
    _get("package lists", "update", cwd=new)
    uris = _get("the kernel", "install", "--print-uris", "-y", "linux-image-amd64", cwd=new)
    kernel = re.search(r"linux-image-(\d[^ _]*-amd64)_", uris)
    if not kernel:
        pytest.skip("Debian's list names no linux-image")
    _get("the kernel", "download", f"linux-image-" + urllib.parse.unquote(kernel[1]), cwd=new)
    _get("qemu", "install", "--download-only", "-y", *PACKAGES, cwd=new)
    (new / "root").mkdir()
    for deb in (apt / "cache" / "archives").glob("*.deb"):
        _run(["dpkg-deb", "-x", deb, new / "root"], check=True)
    _kernel(new)
    for deb in new.glob("*.deb"):
        deb.unlink()
    shutil.rmtree(apt)
    (new / "stamp").write_text(stamp)
    new.rename(parts)
    return parts


def _libraries(root):
    lib = root / "usr/lib/x86_64-linux-gnu"
    return f"{lib}:{lib / 'systemd'}"


def _find(root, program):
    for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
        if (root / folder / program).exists():
            return root / folder / program
    raise FileNotFoundError(program)


def _loader(root):
    return next(p for p in (root / "usr/lib64/ld-linux-x86-64.so.2", root / LOADER,
                            root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2") if p.exists())


def _put(tree, name, body, mode=0o644):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(body, pathlib.Path):
        shutil.copy(body, path)
    else:
        path.write_text(body)
    path.chmod(mode)


def initramfs(parts, tree):
    """Makes the root file system below `tree`, and tree.cpio of it."""
    root = parts / "root"
    _put(tree, "init", INIT, 0o755)
    _put(tree, "agent", AGENT, 0o755)
    _put(tree, "bin/busybox", _find(root, "busybox"), 0o755)
    _put(tree, "usr/bin/fetcher", pathlib.Path(binary()[-1]), 0o755)
    _put(tree, "modules.order", parts / "modules.order")
    _put(tree, "etc/netconfig", root / "etc/netconfig")
    for path in (parts / "modules").iterdir():
        _put(tree, f"modules/{path.name}", path)
    for name, body in FILES.items():
        _put(tree, name, body)
    _put(tree, LOADER, _loader(root), 0o755)
    for name in PROGRAMS:
        path = _find(root, name)
        _put(tree, f"usr/sbin/{name}", path, 0o755)
        done = _run([_loader(root), "--library-path", _libraries(root), "--list", path], check=True)
        for library in re.findall(rf"=> ({re.escape(str(root))}\S+)", done.stdout):
            _put(tree, f"usr/lib/x86_64-linux-gnu/{pathlib.Path(library).name}", pathlib.Path(library), 0o755)
    cpio = tree.with_suffix(".cpio")
    names = "\n".join(["."] + sorted(str(p.relative_to(tree)) for p in tree.rglob("*")))
    with open(cpio, "wb") as out:
        subprocess.run([str(_find(root, "busybox")), "cpio", "-o", "-H", "newc", "-R", "0:0"], cwd=tree, check=True, stdout=out,
                       stderr=subprocess.DEVNULL, input=names.encode() + b"\n")
    return cpio


class Done:
    def __init__(self, script, rc, out):
        self.script, self.rc, self.out = script, rc, out

    def ok(self):
        assert self.rc == 0, f"exit {self.rc}\n{self.script}\n---\n{self.out[-6000:]}"
        return self.out


class Machine:
    """with Machine(folder) as vm: vm.sh("ls /nfs", node="a").ok() -> what it printed."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.parts = packages()
        root = self.parts / "root"
        cpio = initramfs(self.parts, self.folder / "initramfs")
        shutil.rmtree(self.folder / "initramfs")
        self.port = free_port()
        self.console = self.folder / "console.log"
        argv = [_loader(root), "--library-path", _libraries(root), _find(root, "qemu-system-x86_64"),
                "-L", root / "usr/share/qemu", "-L", root / "usr/share/seabios",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536",
                "-kernel", self.parts / "vmlinuz", "-initrd", cpio,
                "-append", "console=ttyS0 panic=-1 quiet mitigations=off audit=0 selinux=0 apparmor=0",
                "-serial", f"file:{self.console}",
                "-netdev", f"user,id=n,ipv6=off,restrict=off,hostfwd=tcp:127.0.0.1:{self.port}-:{PORT}",
                "-device", "virtio-net-pci,netdev=n,romfile="]
        log = open(self.folder / "qemu.log", "wb")
        with log:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=self._prepare, env={"PATH": "/usr/bin:/bin"})
        try:
            self._wait_up()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def _prepare():
        os.nice(10)
        die_with_parent()

    def text(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def _wait_up(self):
        give_up = time.monotonic() + BOOT
        while "the machine is up" not in self.text():
            said = (self.folder / "qemu.log").read_text()
            assert self.process.poll() is None, f"qemu ended: {said[-2000:]}\n{self.text()[-4000:]}"
            assert time.monotonic() < give_up, f"it does not boot: {said[-2000:]}\n{self.text()[-6000:]}"
            time.sleep(0.2)
        for _ in range(50):
            try:
                self.sh("true").ok()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("nobody answers")

    def sh(self, script, node="", timeout=120):
        """Runs a script of busybox's sh on node "a" or "b", or on the machine itself. What it leaves in the background must
        not have its output. Host names and boot ids are the node's; the network is the machine's, which has the way out."""
        if node:
            script = f"exec nsenter -t $(cat /node/{node}.pid) -m -u sh -c {shlex.quote(script)}"
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock:
            sock.settimeout(timeout)
            sock.sendall(script.encode() + b"\n")
            sock.shutdown(socket.SHUT_WR)
            out = b""
            while piece := sock.recv(65536):
                out += piece
        text, found, rc = out.decode(errors="replace").rpartition("\nrc=")
        if not found:
            raise ConnectionError(f"no answer to {script!r}: {out!r}")
        return Done(script, int(rc), text)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
