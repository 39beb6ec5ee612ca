# SPDX-License-Identifier: Apache-2.0
"""The hooks around a publication, with real servers, processes and programs: webhook, signal,
touched file, command, and the veto before. By watch and by pull. [K..] cases of the reference on
Kubernetes and security."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from lib.content import data
from lib.look import holds, last_words, marker, nothing_published, partials, until
from lib.sidecar import ANY, Sidecar, Webhook
from test_watch_life import pid_namespaces

FAR = ("--period", "1h")
QUICK = ("--hook-backoff", "20ms")
VERSIONS = ("--layout", "versions")


def files(n):
    return {"config.json": b'{"n": %d}' % n, "w.bin": data(n, 20_000)}


@pytest.fixture
def hook():
    with Webhook() as server:
        yield server


@pytest.fixture
def script(tmp_path):
    """script(name, text) -> path of a program for /bin/sh; $D is the test's folder."""
    def make(name, text):
        path = tmp_path / (name + ".sh")
        path.write_text(f"#!/bin/sh\nD={tmp_path}\n{text}\n")
        path.chmod(0o755)
        return path
    return make


def version_dir(dest, art):
    return str(dest / ".fetcher/versions" / art.digest.replace(":", "-"))


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- webhooks ------------------------------------------------------------------------------------


def test_webhook_post(faults, hook, fetcher, dest):
    """All facts, once a version; the path is that of the version, not the link."""
    one = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--webhook-url", hook.url + "/told?x=1") as s:
        until(lambda: hook.seen)
        two = faults.artifact(files(2))
        s.hup()
        until(lambda: len(hook.seen) == 2)
        for _ in range(3):  # looks that find nothing new tell nobody
            s.hup()
            time.sleep(0.05)
        s.terminate(ANY)
    first, second = hook.seen
    assert first["method"] == "POST" and first["path"] == "/told?x=1"
    assert first["headers"]["content-type"] == "application/json"
    assert first["json"] == {"ref": faults.ref(), "digest": one.digest, "previous": "",
                             "path": version_dir(dest, one), "generation": 1}
    assert second["json"] == {"ref": faults.ref(), "digest": two.digest, "previous": one.digest,
                              "path": version_dir(dest, two), "generation": 2}


def test_webhook_sglang(faults, hook, fetcher, dest):
    """update_weights_from_disk; "success": false is no success whatever the status."""
    one = faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--webhook-preset", "sglang",
                 "--webhook-url", hook.url) as s:
        until(lambda: hook.seen)
        assert hook.seen[0]["path"] == "/update_weights_from_disk"
        assert hook.seen[0]["json"] == {"model_path": version_dir(dest, one)}
        s.terminate(ANY)


def test_webhook_triton(faults, hook, fetcher, dest):
    faults.artifact(files(1))
    url = hook.url + "/v2/repository/models/llama/load"
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--webhook-preset", "triton", "--webhook-url",
                 url) as s:
        until(lambda: hook.seen)
        assert hook.seen[0]["path"] == "/v2/repository/models/llama/load"
        assert hook.seen[0]["method"] == "POST"
        s.terminate(ANY)


def test_webhook_of_ones_own(faults, hook, fetcher, tmp_path, dest):
    """Method, headers from files (read each time), body template, status, DEST as the server has
    it."""
    one = faults.artifact(files(1))
    header = tmp_path / "header"
    header.write_text("Authorization: Bearer hunter2\nX-Model: a\n")
    hook.status = 418
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--webhook-url", hook.url, "--webhook-method", "PUT",
                 "--webhook-header-file", header, "--webhook-success-status", "418", "--notify-dest",
                 "/models", "--webhook-body", '{"p":"{path}","d":"{digest}","g":{generation},"x":"{y}"}',
                 "-v") as s:
        until(lambda: hook.seen)
        s.says("notified", by="webhook")
        header.write_text("Authorization: Bearer hunter3\n")
        faults.artifact(files(2))
        s.hup()
        until(lambda: len(hook.seen) == 2)
        r = s.terminate(ANY)
    first, second = hook.seen
    leaf = one.digest.replace(":", "-")
    assert first["method"] == "PUT" and first["headers"]["x-model"] == "a"
    assert first["headers"]["authorization"] == "Bearer hunter2"
    assert second["headers"]["authorization"] == "Bearer hunter3" and second["json"]["g"] == 2
    assert first["json"] == {"p": f"/models/.fetcher/versions/{leaf}", "d": one.digest, "g": 1,
                             "x": "{y}"}
    assert "hunter" not in r.err + r.out


def test_webhook_is_told_until_it_takes_it(faults, hook, fetcher, dest):
    """500, 503, then 200: tried with backoff, counted, told once it worked."""
    one = faults.artifact(files(1))
    hook.answers = [500, 503, 404]
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--webhook-url", hook.url, http=True) as s:
        s.listens().says("notified", by="webhook", digest=one.digest)
        assert [x["status"] for x in hook.seen] == [500, 503, 404, 200]
        m = s.metrics()
        assert m['fetcher_notify_total{sink="webhook",result="success"}'] == 1
        assert m['fetcher_notify_total{sink="webhook",result="error"}'] == 3
        assert len(s.said("notification failed", level="warn")) == 3
        assert s.get("/readyz")[0] == 200 and s.counted("error") == 0
        s.terminate(ANY)


def test_webhook_last_value_wins(faults, hook, fetcher, dest):
    """What a newer version overtook is not told any more; what stands is, in the end."""
    faults.artifact(files(1))
    hook.status = 500
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--hook-backoff", "100ms", "--webhook-url",
                 hook.url) as s:
        until(lambda: hook.seen)
        for n in range(2, 6):
            last = faults.artifact(files(n))
            s.hup()
            s.published(last.digest)
        until(lambda: hook.seen[-1]["json"]["digest"] == last.digest)
        hook.status = 200
        s.says("notified", digest=last.digest)
        n = len(hook.seen)
        time.sleep(0.3)
        assert len(hook.seen) == n and hook.seen[-1]["json"]["generation"] == 5
        assert len(s.said("notified")) == 1
        s.terminate(ANY)


def test_webhook_hangs(faults, hook, fetcher, dest):
    """A server that says nothing stops nobody: the next version is published meanwhile. Both come
    in the end, and the end comes within a second."""
    faults.artifact(files(1))
    hook.hang = threading.Event()
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--webhook-timeout", "500ms",
                 "--webhook-url", hook.url) as s:
        until(lambda: hook.seen)
        two = faults.artifact(files(2))
        s.hup()
        s.published(two.digest)
        s.says("notification failed", by="webhook")
        hook.hang.set()
        s.says("notified", digest=two.digest)
        hook.hang.clear()
        faults.artifact(files(3))
        n = len(hook.seen)
        s.hup()
        until(lambda: len(hook.seen) > n)
        s.terminate(ANY)


def test_webhook_again_after_a_restart(faults, hook, fetcher, dest):
    """The server may have restarted too, or the news was lost: what stands is told at each
    start."""
    one = faults.artifact(files(1))
    for n in range(1, 4):
        with Sidecar(fetcher, faults.ref(), dest, *FAR, "--webhook-url", hook.url) as s:
            until(lambda: len(hook.seen) == n)
            s.terminate(ANY)
    assert {(x["json"]["digest"], x["json"]["generation"]) for x in hook.seen} == {(one.digest, 1)}


def test_webhook_over_tls(faults, fetcher, authority, server_pair, start, tmp_path, dest):
    """With the CA of --ca-file; another one is a failure, not a reason to look away."""
    from lib.registry import Nginx
    with Webhook() as hook:
        nginx = start(Nginx, "nginx-hook", proxy=hook.url, tls=server_pair)
        faults.artifact(files(1))
        flags = (*FAR, *QUICK, "--webhook-url", nginx.url + "/told")
        with Sidecar(fetcher, faults.ref(), dest, *flags) as s:
            s.says("notification failed", by="webhook")
            assert not hook.seen
            s.terminate(ANY)
        with Sidecar(fetcher, faults.ref(), dest, *flags, "--ca-file", authority.ca) as s:
            s.says("notified", by="webhook")
            s.terminate(ANY)
        assert hook.seen[0]["path"] == "/told"


@pytest.mark.parametrize("flags", [
    ["--webhook-url", "ftp://127.0.0.1/"], ["--webhook-url", "http://u:hunter2@127.0.0.1/"],
    ["--webhook-url", "http://127.0.0.1/", "--webhook-method", "P OST"],
    ["--webhook-url", "http://127.0.0.1/", "--webhook-preset", "triton"],
    ["--signal", "nginx"], ["--signal", "nginx:SIGNONE"], ["--signal", "/usr/bin/nginx:HUP"],
    ["--exec-hook", "relative"], ["--exec-hook", "[1]"], ["--exec-hook", "[\"/bin/x\""],
    ["--pre-publish-hook", "[]"],
], ids=lambda x: " ".join(x)[:40])
def test_options_that_make_no_sense(faults, fetcher, dest, flags):
    """Known before anything is fetched, and without repeating a secret."""
    faults.artifact(files(1))
    r = fetcher("watch", "--plain-http", *flags, faults.ref(), dest, timeout=20).exits(2)
    assert flags[0] in last_words(r) or flags[-2] in last_words(r)
    assert "hunter2" not in r.err and faults.requests == []


# -- signals, files ------------------------------------------------------------------------------


SERVER = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
got = lambda *_: open(sys.argv[2], "a").write("x")
signal.signal(signal.SIGUSR1, got)
open(sys.argv[2], "w")
while True:
    time.sleep(60)
"""


def test_signal_to_a_process_by_name(faults, fetcher, tmp_path, dest):
    """As in a Pod with a shared PID namespace; also one that starts later."""
    name, seen = f"mdl-{os.getpid()}"[:15], tmp_path / "seen"
    faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--signal", f"{name}:USR1") as s:
        s.says("notification failed", by="signal")
        assert marker(dest)["generation"] == 1
        server = subprocess.Popen([sys.executable, "-c", SERVER, name, str(seen)])
        try:
            until(lambda: seen.exists() and seen.read_text() == "x")
            faults.artifact(files(2))
            s.hup()
            until(lambda: seen.read_text() == "xx")
            assert server.poll() is None
            s.terminate(ANY)
        finally:
            server.kill()
            server.wait()


def test_touch_file(faults, fetcher, tmp_path, dest):
    """Made, then touched; not what stands in it changes."""
    told = tmp_path / "told"
    faults.artifact(files(1))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--touch-file", told) as s:
        s.until(told.exists)
        told.write_text("mine")
        os.utime(told, (5, 5))
        faults.artifact(files(2))
        s.hup()
        s.until(lambda: told.stat().st_mtime > 1_000_000)
        assert told.read_text() == "mine"
        s.terminate(ANY)


def test_all_of_them_and_one_fails(faults, hook, fetcher, script, tmp_path, dest):
    """The others are told all the same, and once."""
    faults.artifact(files(1))
    run = script("run", "echo run >> $D/ran")
    hook.status = 500
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--touch-file", tmp_path / "told",
                 "--exec-hook", run, "--webhook-url", hook.url, "--signal", "nobody-is-called:HUP") as s:
        s.says("notified", by="touch-file")
        s.says("notified", by="exec-hook")
        s.says("notification failed", by="webhook", times=3)
        s.says("notification failed", by="signal", times=3)
        assert (tmp_path / "ran").read_text() == "run\n"
        assert len(s.said("notified")) == 2
        s.terminate(ANY)


# -- commands ------------------------------------------------------------------------------------


def test_exec_hook(faults, fetcher, script, tmp_path, dest):
    """Environment, arguments, stdin, and that its output is not ours."""
    one = faults.artifact(files(1))
    run = script("run", 'env > $D/env; echo "$@" > $D/args; cat > $D/stdin; echo out; echo err >&2; '
                        'touch $D/done')
    words = f'["{run}", "a b", "$HOME"]'
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--exec-hook", words,
                 env={"PATH": "/usr/bin:/bin", "OTHER": "kept"}) as s:
        s.says("notified", by="exec-hook")
        env = dict(x.split("=", 1) for x in (tmp_path / "env").read_text().splitlines())
        assert env["FETCHER_REF"] == faults.ref() and env["FETCHER_DIGEST"] == one.digest
        assert env["FETCHER_PREVIOUS"] == "" and env["FETCHER_GENERATION"] == "1"
        assert env["FETCHER_PATH"] == version_dir(dest, one) and env["OTHER"] == "kept"
        assert (tmp_path / "args").read_text() == "a b $HOME\n"
        assert (tmp_path / "stdin").read_text() == ""
        r = s.terminate(ANY)
    assert r.out == "" and all(x["msg"] not in ("out", "err") for x in r.log)


def test_exec_hook_fails_at_first(faults, fetcher, script, tmp_path, dest):
    """Again with backoff; its last words stand in the log, escaped."""
    faults.artifact(files(1))
    run = script("run", 'echo x >> $D/n; [ $(wc -l < $D/n) -ge 3 ] || '
                        '{ printf "no \\033[31m\\"room\\"\\n" >&2; exit 9; }')
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--exec-hook", run) as s:
        s.says("notified", by="exec-hook")
        failed = s.said("notification failed", by="exec-hook")
        assert len(failed) == 2 and "status 9" in failed[0]["reason"] and "room" in failed[0]["reason"]
        assert "\x1b" not in s.run.err()
        s.terminate(ANY)


@pytest.mark.parametrize("which", ["--exec-hook", "--pre-publish-hook"])
def test_a_hook_that_hangs(faults, fetcher, script, tmp_path, dest, which):
    """Killed at its timeout with all it started; the loop goes on. [K22]"""
    one = faults.artifact(files(1))
    run = script("run", 'trap "" TERM; echo $$ >> $D/pids; [ -e $D/fine ] && exit 0; '
                        'sleep 61 & echo $! >> $D/pids; while :; do sleep 62; done')
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--init-period", "100ms", "--hook-timeout",
                 "300ms", which, run, http=True) as s:
        s.listens().until(lambda: any("ran longer" in str(x) for x in s.log if x["level"] == "warn"))
        assert s.get("/healthz")[0] == 200
        if which == "--pre-publish-hook":
            assert s.marker is None and s.counted("veto") >= 1
        else:
            s.published(one.digest)
            two = faults.artifact(files(2))
            s.hup()
            s.published(two.digest)
        (tmp_path / "fine").touch()
        s.until(lambda: s.marker)
        until(lambda: not any(alive(p) for p in (tmp_path / "pids").read_text().split()))
        s.terminate(ANY)


@pytest.mark.parametrize("which", ["--exec-hook", "--pre-publish-hook"])
def test_end_while_a_hook_runs(faults, fetcher, script, tmp_path, dest, which):
    """Within a second, and nothing of it is left behind. [K9]"""
    faults.artifact(files(1))
    run = script("run", 'trap "" TERM; sleep 61 & echo $$ $! > $D/pids; touch $D/runs; wait; sleep 62')
    with Sidecar(fetcher, faults.ref(), dest, *FAR, which, run) as s:
        s.until((tmp_path / "runs").exists)
        s.terminate(ANY if which == "--exec-hook" else 143)
    until(lambda: not any(alive(p) for p in (tmp_path / "pids").read_text().split()), timeout=5)
    assert (marker(dest) is None) == (which == "--pre-publish-hook")


def test_no_zombies_as_pid_1(faults, fetcher, script, tmp_path, dest):
    """Whoever lost its parent becomes ours there, and is reaped. [K10]"""
    if not pid_namespaces():
        pytest.skip("no pid namespace to be had here")
    run = script("run", "setsid sh -c 'setsid sleep 0.05 & sleep 0.02 & exit 0' & echo x >> $D/n")
    faults.artifact(files(0))
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--exec-hook", run, "--pre-publish-hook", "/bin/true",
                 pid_1=True) as s:
        s.says("notified")
        for n in range(1, 6):
            faults.artifact(files(n))
            s.hup()
            s.says("notified", times=n + 1)
            time.sleep(0.1)  # the orphans have ended by then

        def zombies():
            pids = pathlib.Path(f"/proc/{s.pid}/task/{s.pid}/children").read_text().split()
            return sum(not alive(p) for p in pids)
        # those of the last hook wait for the next sweep
        assert zombies() <= 3
        s.terminate(ANY)


# -- the veto ------------------------------------------------------------------------------------


def test_veto(faults, fetcher, script, tmp_path, dest):
    """Link and marker stay, it is asked again with backoff, nothing is fetched again, and
    accepted in the end. [K21]"""
    one = faults.artifact(files(1))
    run = script("run", 'env > $D/env; pwd > $D/pwd; cat config.json > $D/saw; echo x >> $D/n; '
                        'grep -q 1 config.json || [ -e $D/allow ]')
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--pre-publish-hook", run,
                 env={"PATH": "/usr/bin:/bin"}, http=True) as s:
        s.listens().published(one.digest)
        two = faults.artifact(files(2))
        s.hup()
        s.says("pre-publish-hook", error="policy", level="warn", times=4)
        pauses = [x["nextTrySeconds"] for x in s.said("pre-publish-hook", error="policy")]
        assert pauses == sorted(pauses)
        assert marker(dest)["digest"] == one.digest
        assert os.readlink(dest / "current").endswith(one.digest.replace(":", "-"))
        assert s.get("/readyz")[0] == 200 and s.counted("veto") >= 4 and s.counted("error") == 0
        assert s.status()["lastError"]["code"] == 14
        env = dict(x.split("=", 1) for x in (tmp_path / "env").read_text().splitlines())
        assert env["FETCHER_DIGEST"] == two.digest and env["FETCHER_PREVIOUS"] == one.digest
        assert env["FETCHER_PATH"] == (tmp_path / "pwd").read_text().strip()
        assert env["FETCHER_REF"] == faults.ref()
        assert (tmp_path / "saw").read_bytes() == b'{"n": 2}'
        assert len(faults.gets(two.digest_of("w.bin"))) == 1
        (tmp_path / "allow").touch()
        s.published(two.digest)
        holds(dest / "current", files(2))
        assert len(faults.gets(two.digest_of("w.bin"))) == 1 and marker(dest)["generation"] == 2
        s.terminate(ANY)


def test_veto_is_asked_for_what_the_tag_names_now(faults, fetcher, script, tmp_path, dest):
    """A version that was kept back and overtaken is forgotten."""
    one = faults.artifact(files(1))
    run = script("run", "grep -q 2 config.json && exit 1; exit 0")
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--pre-publish-hook", run) as s:
        s.published(one.digest)
        faults.artifact(files(2))
        s.hup()
        s.says("pre-publish-hook", error="policy")
        three = faults.artifact(files(3))
        s.published(three.digest)  # by the retry
        assert marker(dest)["previous"] == one.digest
        s.until(lambda: partials(dest) == {})
        s.terminate(ANY)


def test_veto_is_not_asked_again_for_what_stands(faults, fetcher, script, tmp_path, dest):
    """Neither at a restart nor at a look."""
    one = faults.artifact(files(1))
    run = script("run", "echo x >> $D/n")
    for _ in range(2):
        with Sidecar(fetcher, faults.ref(), dest, *FAR, "--pre-publish-hook", run, "--touch-file",
                     tmp_path / "told") as s:
            s.published(one.digest)
            s.says("notified")
            s.hup()
            time.sleep(0.1)
            s.terminate(ANY)
    assert (tmp_path / "n").read_text() == "x\n"


def test_veto_hook_that_changes_files(faults, fetcher, script, dest):
    """It may look, not touch: what was verified is what is published."""
    art = faults.artifact(files(1))
    run = script("run", "echo evil > config.json")
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--init-period", "100ms", "--pre-publish-hook",
                 run) as s:
        s.says("config.json", level="warn")
        nothing_published(dest)
        run.write_text("#!/bin/sh\nexit 0\n")
        s.published(art.digest)
        holds(dest / "current", files(1))
        s.terminate(ANY)


def test_veto_hook_that_is_not_there(faults, fetcher, tmp_path, dest):
    """Nobody has said yes: closed, and again when it is there."""
    art = faults.artifact(files(1))
    run = tmp_path / "later"
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "--init-period", "100ms",
                 "--pre-publish-hook", run) as s:
        s.says("cannot run", level="warn", times=2)
        nothing_published(dest)
        run.write_text("#!/bin/sh\nexit 0\n")
        run.chmod(0o755)
        s.published(art.digest)
        s.terminate(ANY)


# -- pull ----------------------------------------------------------------------------------------


def test_pull_tells_once(faults, hook, fetcher, script, tmp_path, dest):
    """Everybody before it ends; the same digest again: once more, without a download. [K2]"""
    one = faults.artifact(files(1))
    run = script("run", "echo x >> $D/n")
    for n in (1, 2):
        fetcher.pull(faults.ref(), dest, *VERSIONS, "--webhook-url", hook.url, "--exec-hook", run,
                     "--touch-file", tmp_path / "told").ok()
        assert len(hook.seen) == n and (tmp_path / "n").read_text() == "x\n" * n
        assert (tmp_path / "told").exists()
    assert hook.seen[1]["json"]["digest"] == one.digest
    assert len(faults.gets("blob")) == 2


def test_pull_in_layout_flat_tells_dest(faults, hook, fetcher, dest):
    faults.artifact(files(1))
    fetcher.pull(faults.ref(), dest, "--webhook-url", hook.url).ok()
    assert hook.seen[0]["json"]["path"] == str(dest)


def test_pull_tries_until_it_is_taken(faults, hook, fetcher, dest):
    faults.artifact(files(1))
    hook.answers = [500, 500]
    fetcher.pull(faults.ref(), dest, *QUICK, "--webhook-url", hook.url).ok()
    assert len(hook.seen) == 3


def test_pull_whom_nobody_hears(faults, hook, fetcher, tmp_path, dest):
    """Published, and yet a failure: whoever restarts it has another try. [K49]"""
    faults.artifact(files(1))
    hook.status = 500
    words = tmp_path / "termination-log"
    words.write_text("")
    r = fetcher.pull(faults.ref(), dest, *QUICK, "--retry-timeout", "300ms", "--webhook-url", hook.url,
                     "--termination-log", words).exits(30)
    assert "published" in last_words(r) and "500" in words.read_text()
    holds(dest, files(1))
    fetcher("probe", dest).ok()


def test_pull_vetoed(faults, hook, fetcher, script, dest):
    """Exit 14; nothing stands, nobody is told, and the next try fetches nothing."""
    faults.artifact(files(1))
    no = script("no", "echo not today >&2; exit 3")
    for _ in range(2):
        r = fetcher.pull(faults.ref(), dest, *VERSIONS, "--pre-publish-hook", no, "--webhook-url",
                         hook.url).exits(14)
        assert "not today" in last_words(r) and "status 3" in last_words(r)
    nothing_published(dest)
    assert hook.seen == []
    fetcher.pull(faults.ref(), dest, *VERSIONS, "--pre-publish-hook", "/bin/true").ok()
    holds(dest / "current", files(1))
    assert len(faults.gets("blob")) == 2


def test_pull_ended_while_it_tells(faults, hook, fetcher, dest):
    """A hook that hangs or a server that says nothing is no reason to stay."""
    faults.artifact(files(1))
    hook.hang = threading.Event()
    run = fetcher.start("pull", "--plain-http", "--webhook-url", hook.url, faults.ref(), dest)
    until(lambda: hook.seen)
    began = time.monotonic()
    run.terminate(10).exits(143)
    assert time.monotonic() - began < 2
    fetcher("probe", dest).ok()


# -- secrets -------------------------------------------------------------------------------------


def test_no_secret_reaches_a_hook(faults, hook, fetcher, script, tmp_path, dest):
    """Neither arguments nor environment nor log nor status have the password, the header or the
    URL's query. [K51]"""
    faults.artifact(files(1))
    faults.auth_basic({"u": "hunter2-password"})
    faults.rule("blob", redirect=lambda r: faults.base + r.target + "?X-Amz-Signature=hunter2-query",
                method="GET", times=1)
    (tmp_path / "password").write_text("hunter2-password")
    (tmp_path / "header").write_text("Authorization: Bearer hunter2-header\n")
    hook.answers = [401]
    run = script("run", "env > $D/env; tr '\\0' ' ' < /proc/$$/cmdline > $D/argv; cat /proc/$PPID/environ "
                        "/proc/$PPID/cmdline > $D/ours")
    with Sidecar(fetcher, faults.ref(), dest, *FAR, *QUICK, "-v", "--username", "u", "--password-file",
                 tmp_path / "password", "--webhook-url", hook.url + "/?token=hunter2-token",
                 "--webhook-header-file", tmp_path / "header", "--exec-hook", run, "--pre-publish-hook",
                 run, env={"PATH": "/usr/bin:/bin"}, http=True) as s:
        s.listens().says("notified", by="webhook")
        s.says("notified", by="exec-hook")
        seen = "".join((tmp_path / n).read_text(errors="replace") for n in ("env", "argv"))
        seen += (dest / ".fetcher/ready.json").read_text() + s.get("/status")[2].decode()
        seen += s.get("/metrics")[2].decode()
        r = s.terminate(ANY)
    assert "FETCHER_DIGEST" in seen and hook.seen[-1]["headers"]["authorization"].endswith("header")
    assert "hunter2" not in seen + r.err + r.out
