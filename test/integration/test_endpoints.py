# SPDX-License-Identifier: Apache-2.0
"""--http-bind, --metrics-file and the last words, of watch and of pull. [K..] cases of the
reference on Kubernetes and security."""

import json
import os
import re
import socket
import threading
import time

import pytest

from lib.content import MIB, data
from lib.look import marker, until
from lib.proc import free_port
from lib.sidecar import ANY, Sidecar, get, samples
from faultserver import TITLE

FAR = ("--period", "1h")


def files(n):
    return {"config.json": b'{"n": %d}' % n, "w.bin": data(n, 20_000)}


@pytest.fixture
def slow(faults):
    """An artifact whose larger file stops half-way until .go is set."""
    art = faults.artifact({"small": b"s", "w.bin": data(1, 2 * MIB)})
    art.go = threading.Event()
    faults.rule(art.digest_of("w.bin"), nth=1, hold_at=(MIB, art.go))
    yield art
    art.go.set()


def stands_still(faults, art):
    assert faults.wait(lambda f: f.stalled)


# -- what they say -------------------------------------------------------------------------------


def test_during_a_slow_first_pull(faults, slow, fetcher, dest):
    """Not ready, healthy, and how far it is."""
    with Sidecar(fetcher, slow.ref, dest, *FAR, http=True) as s:
        stands_still(faults, slow)
        s.listens()
        for path in ("/readyz", "/"):
            code, headers, body = s.get(path)
            assert code == 503 and body and headers["Content-Type"].startswith("text/plain")
        assert s.get("/healthz")[0] == 200
        s.until(lambda: s.status()["pull"] and s.status()["pull"]["bytes"] >= MIB)
        st = s.status()
        assert st["phase"] == "pulling" and st["ref"] == slow.ref and st["dest"] == str(dest)
        assert st["digest"] is None and st["generation"] == 0 and st["lastSuccess"] is None
        assert st["pull"]["digest"] == slow.digest and st["pull"]["total"] == 2 * MIB + 1
        assert (st["pull"]["files"], st["pull"]["filesTotal"]) == (1, 2)
        m = s.metrics()
        assert m["fetcher_bytes_expected"] == 2 * MIB + 1 and m["fetcher_bytes_done"] >= MIB
        assert m["fetcher_bytes_total"] >= MIB and m["fetcher_files_done"] == 1
        assert "kaito_model_download_speed_bytes_per_second" in m
        assert "kaito_model_download_remaining_seconds" in m
        slow.go.set()
        s.published(slow.digest)
        s.until(lambda: s.status()["phase"] == "idle")
        assert s.get("/readyz")[0] == 200 and s.status()["pull"] is None
        assert s.metrics()["fetcher_bytes_done"] == 2 * MIB + 1
        s.terminate()


def test_during_a_slow_later_pull(faults, fetcher, dest):
    """The old version stays ready meanwhile, and /status tells of both."""
    one = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, http=True) as s:
        s.listens().published(one.digest)
        two = faults.artifact({"w.bin": data(1, 2 * MIB)})
        go = threading.Event()
        faults.rule(two.digest_of("w.bin"), nth=1, hold_at=(MIB, go))
        s.hup()
        stands_still(faults, two)
        s.until(lambda: s.status()["phase"] == "pulling")
        st = s.status()
        assert st["digest"] == one.digest and st["pull"]["digest"] == two.digest
        assert s.get("/readyz")[0] == 200 and json.loads(s.get("/readyz")[2])["digest"] == one.digest
        go.set()
        s.published(two.digest)
        s.until(lambda: s.status()["digest"] == two.digest)
        assert s.status()["previous"] == one.digest
        s.terminate(ANY)


def test_at_rest(faults, fetcher, dest):
    """The marker as it stands on the volume, numbers that add up."""
    art = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, http=True) as s:
        s.listens().published(art.digest)
        s.until(lambda: s.metrics()["fetcher_versions"] == 1 and s.status()["phase"] == "idle")
        code, headers, body = s.get("/readyz")
        assert code == 200 and headers["Content-Type"].startswith("application/json")
        assert json.loads(body) == marker(dest)
        st = s.status()
        assert st["digest"] == art.digest and st["generation"] == 1 and st["lastError"] is None
        assert st["files"] == 2 and st["bytes"] == 20_008 and st["failures"] == 0
        assert st["results"] == {"success": 1, "noop": 0, "error": 0, "veto": 0}
        assert 3500 < st["nextCheckSeconds"] <= 3600 and st["versions"] == 1
        s.hup()
        s.until(lambda: s.counted("noop") == 1)
        m = s.metrics()
        assert m['fetcher_sync_total{result="success"}'] == 1
        assert m["fetcher_sync_duration_seconds_count"] == 2
        assert m["fetcher_published_bytes"] == m["fetcher_bytes_expected"] == 20_008
        assert m["fetcher_versions_bytes"] >= 20_008 and m["fetcher_generation"] == 1
        assert abs(m["fetcher_last_success_timestamp_seconds"] - time.time()) < 60
        assert abs(m["fetcher_published_timestamp_seconds"] - time.time()) < 60
        assert [k for k in m if k.startswith("fetcher_info{") and art.digest in k]
        assert 0 < m["process_resident_memory_bytes"] < 64 * MIB and 3 < m["process_open_fds"] < 64
        s.terminate(ANY)


def test_ready_is_what_stands_on_the_volume(faults, fetcher, dest):
    """Not what was once: without the link it is not ready, and the next look mends it."""
    art = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, http=True) as s:
        s.listens().published(art.digest)
        (dest / "current").unlink()
        assert s.get("/readyz")[0] == 503
        assert s.get("/sync", method="POST")[0] == 202
        s.until(lambda: s.get("/readyz")[0] == 200)
        s.terminate(ANY)


def test_pull_can_be_scraped(faults, slow, fetcher, dest):
    """The same pages while an init container pulls; no /sync there."""
    url = f"http://127.0.0.1:{free_port()}"
    run = fetcher.start("pull", "--plain-http", "--http-bind", url[7:], slow.ref, dest)
    stands_still(faults, slow)
    assert get(url + "/readyz")[0] == 503 and get(url + "/healthz")[0] == 200
    until(lambda: json.loads(get(url + "/status")[2])["phase"] == "pulling")
    assert samples(get(url + "/metrics")[2].decode())["fetcher_bytes_expected"] == 2 * MIB + 1
    assert get(url + "/sync", method="POST")[0] == 404
    slow.go.set()
    run.wait().ok()
    with pytest.raises(OSError):
        get(url + "/healthz")


def test_methods_and_paths(faults, fetcher, dest):
    art = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, http=True) as s:
        s.listens().published(art.digest)
        assert s.get("/metrics", method="HEAD")[2] == b""
        for method, path, code in (("POST", "/metrics", 405), ("DELETE", "/readyz", 405),
                                   ("GET", "/sync", 405), ("GET", "/nothing", 404),
                                   ("GET", "/readyz/", 404), ("GET", "/%72eadyz", 404),
                                   ("GET", "/../etc/passwd", 404), ("GET", "/readyz?x=1", 200)):
            assert s.get(path, method=method)[0] == code, (method, path)
        assert s.get("/sync", method="POST", body=b"x" * 5000)[0] == 413
        assert s.get("/sync", method="POST", body=b"{}")[0] == 202
        s.terminate(ANY)


def test_clients_that_say_nothing(faults, fetcher, dest):
    """Connections that never ask take nobody's place."""
    art = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, http=True) as s:
        s.listens().published(art.digest)
        host, port = s.url[7:].split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(100)]
        try:
            for _ in range(5):
                assert s.get("/readyz")[0] == 200
            s.terminate(ANY)
        finally:
            for sock in idle:
                sock.close()


# -- where they listen ---------------------------------------------------------------------------


def own_address():
    """An address of this machine that is not loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("198.51.100.1", 9))
            address = sock.getsockname()[0]
        except OSError:
            return None
    return None if address.startswith("127.") else address


def has_v6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.mark.parametrize("form", [":{}", "{}", "[::]:{}", "0.0.0.0:{}", "[::1]:{}", "127.0.0.1:{}"])
def test_addresses(faults, fetcher, dest, form):
    """Without a host both families; with one that one alone."""
    if "::" in form and not has_v6():
        pytest.skip("no IPv6 to be had here")
    art = faults.artifact(files(1))
    port = free_port()
    reached = {"127.0.0.1": form in (":{}", "{}", "0.0.0.0:{}", "127.0.0.1:{}")}
    if has_v6():
        reached["[::1]"] = form in (":{}", "{}", "[::]:{}", "[::1]:{}")
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--http-bind", form.format(port)) as s:
        s.published(art.digest)
        for host, yes in reached.items():
            if yes:
                assert get(f"http://{host}:{port}/readyz")[0] == 200
                assert get(f"http://{host}:{port}/sync", method="POST")[0] == 202
            elif form != "[::]:{}":  # there it is the system that decides
                with pytest.raises(OSError):
                    get(f"http://{host}:{port}/readyz")
        s.terminate(ANY)


def test_sync_is_for_neighbours_only(faults, fetcher, dest):
    """From another address of the machine everything but POST /sync."""
    address = own_address()
    if not address:
        pytest.skip("this machine has loopback only")
    art = faults.artifact(files(1))
    port = free_port()
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--http-bind", f":{port}") as s:
        s.published(art.digest)
        away, near = f"http://{address}:{port}", f"http://127.0.0.1:{port}"
        assert get(away + "/readyz")[0] == 200 and get(away + "/metrics")[0] == 200
        n = len(faults.requests)
        assert get(away + "/sync", method="POST")[0] == 403
        time.sleep(0.2)  # nothing is what has to happen
        assert len(faults.requests) == n
        assert get(away + "/sync", method="POST", headers={"X-Forwarded-For": "127.0.0.1",
                                                           "Host": "localhost"})[0] == 403
        assert get(near + "/sync", method="POST")[0] == 202
        assert faults.wait(lambda f: len(f.requests) > n)
        s.terminate(ANY)


def test_binds_that_cannot_be_had(faults, fetcher, dest):
    """Told before anything is fetched."""
    faults.artifact(files(1))
    for bind in ("nonsense", "127.0.0.1", "localhost:80", "127.0.0.1:70000", "::1:80"):
        fetcher("watch", "--plain-http", "--http-bind", bind, faults.ref(), dest, timeout=20).exits(2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fetcher("watch", "--plain-http", "--http-bind", f"127.0.0.1:{taken.getsockname()[1]}",
                faults.ref(), dest, timeout=20).exits(40)
    assert faults.requests == []


def test_restart_takes_the_same_port_at_once(faults, fetcher, dest):
    """Though connections of the one before linger."""
    faults.artifact(files(1))
    bind = f"127.0.0.1:{free_port()}"
    for _ in range(3):
        with Sidecar(fetcher, faults.ref(), dest, *FAR, "--http-bind", bind) as s:
            s.until(lambda: s.marker)
            s.url = f"http://{bind}"
            s.listens()
            assert s.get("/readyz")[0] == 200
            s.kill()


# -- the file for node_exporter --------------------------------------------------------------------


def test_metrics_file(faults, fetcher, tmp_path, dest):
    """Replaced in one step: whoever reads it finds one whole text, always."""
    folder = tmp_path / "textfile"
    folder.mkdir()
    path = folder / "fetcher.prom"
    art = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, "--period", "100ms", "--metrics-file", path) as s:
        s.published(art.digest)
        s.until(path.exists)
        wrong, inodes = [], set()

        def look():
            with open(path) as f:
                inodes.add(os.fstat(f.fileno()).st_ino)
                seen = samples(f.read())
            if "fetcher_generation" not in seen or [k for k in seen if k.startswith("process_")]:
                wrong.append(seen)
            return seen['fetcher_sync_total{result="noop"}'] >= 3
        s.until(look, pause=0)
        assert wrong == [] and len(inodes) > 1
        faults.rule("manifest", status=404)
        s.until(lambda: samples(path.read_text())["fetcher_consecutive_failures"] >= 2)
        assert path.stat().st_mode & 0o444 == 0o444
        s.terminate(ANY)
    assert os.listdir(folder) == ["fetcher.prom"]


def test_metrics_file_of_pull(faults, fetcher, tmp_path, dest):
    """Also of one that fails."""
    path = tmp_path / "p.prom"
    faults.artifact(files(1))
    fetcher.pull(faults.ref(), dest, "--metrics-file", path).ok()
    assert samples(path.read_text())['fetcher_sync_total{result="success"}'] == 1
    fetcher.pull(faults.ref("none"), dest, "--metrics-file", path).exits(21)
    assert samples(path.read_text())['fetcher_sync_total{result="error"}'] == 1


def test_metrics_file_that_cannot_be_written(faults, fetcher, tmp_path, dest):
    """A warning; the model matters more."""
    art = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--metrics-file", tmp_path / "none/x.prom") as s:
        s.published(art.digest)
        s.says("metrics-file", level="warn")
        s.terminate(ANY)


# -- hostile words -------------------------------------------------------------------------------


HOSTILE = "a\x1b[31m\r\n\"\\{}\u202e"


def test_hostile_words_in_logs_status_and_metrics(faults, fetcher, tmp_path, dest):
    """Titles, registry's words, names of folders: single valid JSON lines, text that a scraper
    can read. [K50]"""
    folder = tmp_path / "d \x1b[2J\"\\\r{x=\"y\"}"
    one = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), folder, *FAR, http=True) as s:
        s.listens().published(one.digest)
        faults.artifact({"w": b"x"}, annotate=lambda t: {TITLE: HOSTILE})
        s.hup()
        s.says("", error="unsafe", level="warn")
        rule = faults.rule("manifest", status=403, body=json.dumps(
            {"errors": [{"code": "DENIED\n\x1b[2J", "message": HOSTILE + "\n{\"level\":\"info\"}"}]}).encode())
        s.hup()
        s.says("", error="auth", level="warn")
        seen = s.get("/status")[2] + s.get("/metrics")[2] + s.get("/readyz")[2]
        assert s.status()["lastError"]["code"] == 20 and s.metrics()
        faults.rules.remove(rule)
        r = s.terminate(ANY)
    assert b"\x1b" not in seen and "\x1b" not in r.err
    assert all(len(json.loads(line)) for line in r.err.splitlines())


# -- last words ----------------------------------------------------------------------------------


def fails_usage(f):
    return 2, ["--on-failure", "sometimes"]


def fails_hook_option(f):
    return 2, ["--exec-hook", "relative"]


def fails_auth(f):
    f.rule("manifest", status=401, www_authenticate='Basic realm="hunter2"')
    return 20, []


def fails_forbidden(f):
    f.rule("manifest", status=403, error="DENIED")
    return 20, []


def fails_not_found(f):
    return 21, ["REF", f.ref("none")]


def fails_integrity(f):
    f.rule("blob", flip=3)
    return 22, []


def fails_manifest_integrity(f):
    f.manifest(b'{"schemaVersion": 2', tag="v1")
    return 22, []


def fails_space(f):
    return 23, ["--max-bytes", "10KiB"]


def fails_unsafe(f):
    f.artifact({"w": b"x"}, annotate=lambda t: {TITLE: "../\x1b" + "\u6a21" * 60})
    return 24, []


def fails_unsupported(f):
    f.artifact({})
    return 25, []


def fails_network(f):
    f.rule("manifest", status=503)
    return 30, []


def fails_redirect(f):
    f.rule("blob", redirect=lambda r: "http://127.0.0.1:1/x?X-Amz-Signature=hunter2")
    return 30, []


def fails_deadline(f):
    f.rule("blob", stall_at=10)
    return 31, ["--deadline", "300ms"]


def fails_local(f):
    return 40, ["DEST", "/dev/null/dest"]


FAILS = {k[6:]: v for k, v in list(globals().items()) if k.startswith("fails_")}


@pytest.mark.parametrize("command", ["pull", "watch"])
@pytest.mark.parametrize("kind", list(FAILS))
def test_last_words_of_every_kind(faults, fetcher, tmp_path, dest, kind, command):
    """One line of valid UTF-8, at most 1000 bytes, the exit code, no secret; also where `watch`
    is told to end with a failure. [K49] [K51]"""
    faults.artifact(files(1))
    rc, flags = FAILS[kind](faults)
    words = tmp_path / "termination-log"
    words.write_text("")
    where = {"REF": faults.ref(), "DEST": dest}
    for name in where:
        if name in flags:
            where[name] = flags.pop(flags.index(name) + 1)
            flags.remove(name)
    if command == "watch":
        flags = ["--on-failure", "exit", *flags] if kind != "usage" else flags
    elif kind == "usage":
        flags = ["--progress", "sometimes"]
    r = fetcher(command, "--plain-http", "--retry-timeout", "200ms", "--termination-log", words, *flags,
                where["REF"], where["DEST"], timeout=30).exits(rc)
    text = words.read_bytes().decode()
    assert 20 < len(text.encode()) <= 1000 and len(text.splitlines()) == 1
    assert f"(exit {rc})" in text and "hunter2" not in text + r.err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text.rstrip("\n"))


def test_success_has_no_last_words(faults, fetcher, tmp_path, dest):
    """An end at rest leaves the termination log as it is. [K49]"""
    art = faults.artifact(files(1))
    words = tmp_path / "termination-log"
    words.write_text("")
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--termination-log", words, http=True) as s:
        s.listens().published(art.digest)
        s.until(lambda: s.status()["phase"] == "idle")
        s.terminate(0)
    assert words.read_text() == ""


# -- environment ---------------------------------------------------------------------------------


def test_watch_from_the_environment(faults, fetcher, tmp_path, dest):
    """All by variables, beside the service links of a Service that is called fetcher. [K53]"""
    art = faults.artifact(files(1))
    bind = f"127.0.0.1:{free_port()}"
    env = {"FETCHER_PLAIN_HTTP": "1", "FETCHER_PERIOD": "1h", "FETCHER_HTTP_BIND": bind,
           "FETCHER_TOUCH_FILE": str(tmp_path / "told"), "FETCHER_DEST": str(dest),
           "FETCHER_TERMINATION_LOG": "",
           "FETCHER_PORT": "tcp://10.0.0.1:8080", "FETCHER_SERVICE_HOST": "10.0.0.1",
           "FETCHER_SERVICE_PORT": "8080", "FETCHER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
           "FETCHER_PORT_8080_TCP_ADDR": "10.0.0.1"}
    run = fetcher.start("watch", faults.ref(), env=env)
    try:
        until(lambda: (m := marker(dest)) and m["digest"] == art.digest)
        until((tmp_path / "told").exists)
        assert get(f"http://{bind}/readyz")[0] == 200
    finally:
        run.terminate()
    env["FETCHER_PEROID"] = "1h"
    r = fetcher("watch", faults.ref(), env=env, timeout=20).exits(2)
    assert "FETCHER_PEROID" in r.err and "FETCHER_PERIOD" in r.err
