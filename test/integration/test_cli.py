# SPDX-License-Identifier: Apache-2.0
"""The command line and what people and machines see: usage errors, help, exit codes, logs, the
termination message, the bar, resolve and ls."""

import json
import os
import pty
import re
import select
import stat
import subprocess

import pytest

from lib import oci
from lib.client import binary
from lib.content import Content, data
from lib.look import KEYS, holds, last_words, marker, nothing_published
from lib.proc import free_port

COMMANDS = ["pull", "probe", "wait", "verify", "resolve", "ls", "gc", "install", "version", "help"]


@pytest.fixture(scope="module")
def sample(registry):
    files = {"config.json": b"{}\n", "dir/w 1 \u00e9.bin": Content(1, 3 << 20), "empty": b""}
    return oci.push(registry, "cli/sample", "v1", files), files


# -- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("args, hint", [
    ([], ""),
    (["pull"], ""),
    (["pull", "example.com/a:b"], "DEST"),
    (["pull", "example.com/a:b", "/x", "example.com/a:c"], "DEST"),
    (["pul", "example.com/a:b", "/x"], "pull"),
    (["pull", "--concurency", "3", "example.com/a:b", "/x"], "--concurrency"),
    (["pull", "--concurrency", "0", "example.com/a:b", "/x"], "--concurrency"),
    (["pull", "--concurrency", "many", "example.com/a:b", "/x"], "many"),
    (["pull", "--stall-timeout", "30", "example.com/a:b", "/x"], "30s"),
    (["pull", "--range-size", "8MBytes", "example.com/a:b", "/x"], "64MiB"),
    (["pull", "--range-size", "-1", "example.com/a:b", "/x"], "--range-size"),
    (["pull", "--max-bytes", "99999999999999999999", "example.com/a:b", "/x"], "--max-bytes"),
    (["pull", "--layout", "tree", "example.com/a:b", "/x"], "versions"),
    (["pull", "--plain-http=maybe", "example.com/a:b", "/x"], "--plain-http"),
    (["pull", "--password", "secret-word", "example.com/a:b", "/x"], "--password-file"),
    (["pull", "--password=secret-word", "example.com/a:b", "/x"], "--password-file"),
    (["pull", "--token=secret-word", "example.com/a:b", "/x"], "--token-file"),
    (["pull", "--cert-file", "/c", "example.com/a:b", "/x"], "--key-file"),
    (["pull", "--platform", "//", "example.com/a:b", "/x"], "platform"),
    (["pull", "--include", "a", "--include"], "--include"),
    (["probe"], "DEST"),
    (["probe", "/x", "/y"], ""),
    (["probe", "--concurrency", "3", "/x"], "--concurrency"),
    (["wait", "--timeout", "soon", "/x"], "soon"),
    (["resolve"], "REF"),
    (["help", "nothing"], "nothing"),
], ids=lambda x: " ".join(x)[:40] if isinstance(x, list) else "")
def test_usage_errors(fetcher, args, hint):
    r = fetcher(*args, env={"FETCHER_LOG_FORMAT": "text"}).exits(2)
    assert r.out == ""
    assert hint in r.err
    assert "secret-word" not in r.err
    assert len(r.err.splitlines()) == 1, r


@pytest.mark.parametrize("ref, part", [
    ("", "empty"),
    ("model:v1", "model"),
    ("/repo:tag", "registry"),
    ("repo/model:v1", "repo"),
    ("127.0.0.1:5000", "repository"),
    ("127.0.0.1:5000/", "repository"),
    ("127.0.0.1:v1/a", "v1"),
    ("127.0.0.1:70000/a", "70000"),
    ("[1::2::3]:5000/a", "1::2::3"),
    ("::1/a", "::1"),
    ("[::1]5000/a", "::1"),
    ("127.0.0.1/UPPER", "upper"),
    ("127.0.0.1/a//b", "empty component"),
    ("127.0.0.1/-a", "-a"),
    ("127.0.0.1/a___b", "a___b"),
    ("127.0.0.1/a/../b", ".."),
    ("127.0.0.1/a:", "tag"),
    ("127.0.0.1/a:-x", "-x"),
    ("127.0.0.1/a:" + "t" * 129, "128"),
    ("127.0.0.1/a:b:c", "b:c"),
    ("127.0.0.1/a@", "digest"),
    ("127.0.0.1/a@@sha256:" + "0" * 64, "@"),
    ("127.0.0.1/a@sha256:" + "0" * 63, "64"),
    ("127.0.0.1/a@sha256:" + "0" * 65, "64"),
    ("127.0.0.1/a@sha256:" + "A" * 64, "lower-case"),
    ("127.0.0.1/a@sha512:" + "0" * 64, "128"),
    ("127.0.0.1/a@md5:" + "0" * 32, "md5"),
    ("127.0.0.1/a@sha256:../../../etc/passwd", "digest"),
    ("127.0.0.1/a:v1 @sha256:" + "0" * 64, "space"),
    ("user:pw@127.0.0.1/a", "user"),
    ("http://127.0.0.1/a:v1", "--plain-http"),
    ("ftp://127.0.0.1/a:v1", "ftp"),
    ("127.0.0.1/a?x=1:v1", "?"),
    ("127.0.0.1/\u00e9:v1", "ASCII"),
], ids=lambda x: x[:30])
def test_bad_references(fetcher, dest, ref, part):
    """The message points at the bad part. [client cases 1-5]"""
    for command in (["pull", ref, dest], ["resolve", ref]):
        words = last_words(fetcher(*command).exits(2))
        assert part in words
    assert not dest.exists()


def test_unknown_variable_is_an_error_that_names_the_nearest(fetcher, dest):
    r = fetcher("probe", dest, env={"FETCHER_CONCURENCY": "3"}).exits(2)
    assert "FETCHER_CONCURENCY" in r.err and "FETCHER_CONCURRENCY" in r.err
    r = fetcher("probe", dest, env={"FETCHER_PEROID": "3s"}).exits(2)
    assert "FETCHER_PEROID" in r.err


def test_service_links_are_ignored(fetcher, dest):
    """Kubernetes sets these for a Service that is called fetcher. [K53]"""
    env = {"FETCHER_PORT": "tcp://10.0.0.1:80", "FETCHER_SERVICE_HOST": "10.0.0.1",
           "FETCHER_SERVICE_PORT": "80", "FETCHER_SERVICE_PORT_HTTP": "80",
           "FETCHER_PORT_80_TCP": "tcp://10.0.0.1:80", "FETCHER_PORT_80_TCP_PROTO": "tcp",
           "FETCHER_PORT_80_TCP_PORT": "80", "FETCHER_PORT_80_TCP_ADDR": "10.0.0.1",
           "FETCHER_METRICS_PORT": "tcp://10.0.0.1:9090", "FETCHER_METRICS_SERVICE_HOST": "10.1.1.1"}
    fetcher("probe", dest, env=env).exits(21)


def test_flag_beats_variable(fetcher, dest):
    env = {"FETCHER_LOG_FORMAT": "json"}
    assert fetcher("probe", dest, env=env).exits(21).log
    assert not fetcher("probe", "--log-format", "text", dest, env=env).exits(21).log
    env = {"FETCHER_TIMEOUT": "300s"}
    fetcher("wait", "--timeout", "1ms", dest, env=env, timeout=30).exits(31)


def test_bad_variable_names_itself(fetcher, dest):
    r = fetcher("pull", "127.0.0.1:1/a", dest, env={"FETCHER_STALL_TIMEOUT": "soon"}).exits(2)
    assert "FETCHER_STALL_TIMEOUT" in r.err and "soon" in r.err


def test_list_variable(fetcher, sample, dest):
    p, files = sample
    fetcher.pull(p.ref, dest, env={"FETCHER_INCLUDE": "config.json, empty"}).ok()
    holds(dest, {"config.json": files["config.json"], "empty": b""})


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS + [None])
def test_help(fetcher, command):
    """On stdout, at most 80 columns, with examples; the same by `help X` and `X --help`."""
    text = fetcher("help", *([command] if command else [])).ok()
    assert text.err == ""
    assert max(len(line) for line in text.out.splitlines()) <= 80
    other = fetcher(*([command] if command else []), "--help").ok()
    assert other.err == ""
    if command != "help":
        assert other.out == text.out
    if command is None:
        for name in COMMANDS:
            assert re.search(rf"^ +{name}\b", text.out, re.M), name
    else:
        assert "fetcher " + command in text.out


def test_help_on_credentials(fetcher):
    """One screen; the man page has it as well."""
    lines = fetcher("help", "auth").ok().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for word in ("--username", "--token-file", "--registry-config", "DOCKER_CONFIG", ".docker", "REGISTRY_AUTH_FILE",
                 ".dockerconfigjson", "dockercfg", "HOST/team", "ECR", "GCR", "ACR", "--cloud-login", "mirror"):
        assert word in text, word
    assert "SH CREDENTIALS" in fetcher("help", "--man").ok().out


def test_help_needs_no_sane_environment(fetcher):
    fetcher("help", env={"FETCHER_NONSENSE": "1"}).ok()
    fetcher("pull", "--help", env={"FETCHER_STALL_TIMEOUT": "x"}).ok()


def test_help_of_pull_names_flags_and_defaults(fetcher):
    text = fetcher("pull", "--help").ok().out
    for flag in ("--plain-http", "--insecure", "--ca-file", "--concurrency", "--layout", "--fsync",
                 "--include", "--registry-config", "--stall-timeout", "--max-bytes"):
        assert flag in text
    assert "16" in text and "30s" in text
    assert "--timeout" not in re.findall(r"--[a-z-]+", text)


def test_man_page(fetcher):
    text = fetcher("help", "--man").ok().out
    assert re.match(r'(\.\\".*\n)*\.TH ', text)
    for section in ("NAME", "SYNOPSIS", "EXIT STATUS"):
        assert re.search(rf'^\.SH "?{section}', text, re.M), section
    assert r"\-\-concurrency" in text or r"\-\-concurrency" in text.replace("\\fB", "")


def test_every_exit_code_is_told(fetcher):
    text = fetcher("help", "--markdown").ok().out
    for code in (0, 2, 3, 20, 21, 22, 23, 24, 25, 30, 31, 40, 41, 130, 143):
        assert re.search(rf"^\| *{code} *\|", text, re.M), code


# -- what is printed -----------------------------------------------------------------------------


def test_quiet_says_nothing(fetcher, sample, dest):
    p, _ = sample
    for args in (["pull", "--plain-http", "-q", p.ref, dest], ["probe", "-q", dest],
                 ["verify", "-q", dest], ["gc", "-q", dest]):
        r = fetcher(*args).ok()
        assert (r.out, r.err) == ("", ""), r


def test_quiet_still_says_what_failed(fetcher, registry, dest):
    r = fetcher.pull(f"{registry.host}/cli/none:v1", dest, "--quiet").exits(21)
    assert len(r.log) == 1


def test_verbose_says_requests_and_no_secrets(fetcher, registry_htpasswd, push, dest, tmp_path):
    p = push(registry_htpasswd, "cli/verbose", "v1", {"a": b"x"})
    secret = tmp_path / "pw"
    secret.write_text(p.registry.user[1])
    r = fetcher.pull(p.ref, dest, "-v", "--username", p.registry.user[0], "--password-file", secret
                     ).ok()
    assert "/manifests/v1" in r.err and "401" in r.err
    assert p.registry.user[1] not in r.err
    assert "YWxpY2U6" not in r.err  # the Basic value


def test_json_log_lines(fetcher, sample, dest):
    p, _ = sample
    r = fetcher.pull(p.ref, dest).ok()
    lines = r.err.splitlines()
    assert lines and len(r.log) == len(lines)
    for line in r.log:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("debug", "info", "warn", "error") and line["msg"]
    assert any(p.digest in json.dumps(line) for line in r.log)


def test_text_log_lines(fetcher, sample, dest, registry):
    p, _ = sample
    r = fetcher.pull(p.ref, dest, "--log-format", "text").ok()
    assert r.err and not r.log
    r = fetcher.pull(f"{registry.host}/cli/none:v1", dest, "--log-format", "text").exits(21)
    assert len(r.err.splitlines()) == 1
    assert r.err.startswith("fetcher: ") and "(exit 21)" in r.err


def test_output_json_of_pull(fetcher, sample, dest):
    p, files = sample
    r = fetcher.pull(p.ref, dest, "--output", "json").ok()
    assert len(r.out.splitlines()) == 1
    assert [k for k in r.json if k in KEYS] == [k for k in KEYS if k in r.json]
    assert r.json["digest"] == p.digest
    assert r.json["upToDate"] is False and r.json["downloaded"] == (3 << 20) + 3
    again = fetcher.pull(p.ref, dest, "--output", "json").ok().json
    assert again["upToDate"] is True
    assert again["publishedAt"] == r.json["publishedAt"] == marker(dest)["publishedAt"]


def test_output_text_of_pull_is_on_stderr(fetcher, sample, dest):
    p, _ = sample
    r = fetcher.pull(p.ref, dest).ok()
    assert r.out == "" and p.digest in r.err


HOSTILE = "dest \x1b[31m \"quote\" \\ \r {json} \u202e.bin"


def test_hostile_words_stay_one_json_line(fetcher, faults, tmp_path):
    """Registry's messages, header values and folder names reach the log escaped. [K50]"""
    faults.artifact({"a": b"x"})
    faults.rule("manifest", status=403, error="DENIED\x1b[2J\"}\n{\"level\":\"info\"",
                headers={"X": "y"})
    r = fetcher.pull(faults.ref(), tmp_path / HOSTILE).exits(20)
    assert len(r.err.splitlines()) == len(r.log) and "\x1b" not in r.err
    r = fetcher.pull(faults.ref(), tmp_path / HOSTILE, "--log-format", "text").exits(20)
    assert len(r.err.splitlines()) == 1 and "\x1b" not in r.err
    words = {"code": 3, "message": {"not": "text"}, "detail": ["\x1b]0;x\x07"]}
    faults.clear()
    faults.rule("manifest", status=403, body=json.dumps({"errors": [words]}).encode())
    assert "\x1b" not in fetcher.pull(faults.ref(), tmp_path / "x").exits(20).err


def test_error_bodies_of_proxies(fetcher, faults, dest):
    """HTML is not poured into the log; the status is told. [C33]"""
    faults.artifact({"a": b"x"})
    faults.rule("manifest", status=403, content_type="text/html",
                body=b"<html><body>" + b"denied " * 5000 + b"</body></html>")
    words = last_words(fetcher.pull(faults.ref(), dest).exits(20))
    assert "403" in words and len(words) < 600


# -- the termination message ---------------------------------------------------------------------


def test_termination_log(fetcher, registry, tmp_path):
    log = tmp_path / "termination-log"
    log.write_text("")
    r = fetcher.pull(f"{registry.host}/cli/none:v1", tmp_path / "d", "--termination-log", log)
    text = log.read_text()
    assert last_words(r.exits(21)) in text and "(exit 21)" in text
    assert len(text.encode()) <= 1000 and len(text.splitlines()) == 1


def test_termination_log_of_usage_errors(fetcher, tmp_path):
    log = tmp_path / "termination-log"
    log.write_text("old")
    fetcher("pull", "--nonsense", env={"FETCHER_TERMINATION_LOG": str(log)}).exits(2)
    assert "nonsense" in log.read_text()


def test_termination_log_is_short_valid_and_without_secrets(fetcher, faults, tmp_path):
    """At most 1000 bytes of valid UTF-8, one line, nothing of a query string. [K49] [K51]"""
    log = tmp_path / "termination-log"
    faults.artifact({"a": b"x"})
    message = ("\u00e9\u6a21" * 3000 + " https://u:hunter2@h/x?X-Amz-Signature=hunter2 \n")
    faults.rule("manifest", status=403,
                body=json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode())
    faults.rule("manifest", nth=2, redirect=lambda r: "http://127.0.0.1:1/x?sig=hunter2")
    for _ in range(2):
        log.write_text("")
        r = fetcher.pull(faults.ref(), tmp_path / "d", "--termination-log", log,
                         "--retry-timeout", "1ms")
        assert r.rc in (20, 30), r
        text = log.read_bytes().decode()
        assert 20 < len(text.encode()) <= 1000
        assert len(text.splitlines()) == 1
        assert "hunter2" not in text + r.err


def test_termination_log_is_neither_made_nor_followed(fetcher, tmp_path):
    missing, link, victim = tmp_path / "none", tmp_path / "link", tmp_path / "victim"
    victim.write_text("untouched")
    link.symlink_to(victim)
    for path in (missing, link, tmp_path):
        fetcher("pull", "--termination-log", path, "bad reference", "/x").exits(2)
    assert not missing.exists() and victim.read_text() == "untouched"


def test_success_leaves_the_termination_log_alone(fetcher, sample, dest, tmp_path):
    log = tmp_path / "termination-log"
    log.write_text("")
    fetcher.pull(sample[0].ref, dest, "--termination-log", log).ok()
    assert log.read_text() == ""


# -- outcomes that no other file of tests has ----------------------------------------------------


def test_nobody_listens(fetcher, dest):
    r = fetcher.pull(f"127.0.0.1:{free_port()}/a/b:v1", dest, "--retry-timeout", "300ms").exits(30)
    assert "127.0.0.1" in last_words(r)
    nothing_published(dest)


def test_name_that_does_not_resolve(fetcher, dest):
    r = fetcher.pull("registry.invalid/a/b:v1", dest, "--retry-timeout", "300ms").exits(30)
    assert "registry.invalid" in last_words(r)


# -- resolve and ls ------------------------------------------------------------------------------


def test_resolve(fetcher, sample, wire):
    p, _ = sample
    r = fetcher("resolve", "--plain-http", p.on(wire)).ok()
    assert r.out == p.digest + "\n"
    assert not wire.gets("/blobs/") and len(wire.requests) <= 2
    wire.reset()
    assert fetcher("resolve", "--plain-http", f"{wire.host}/{p.repo}@{p.digest}").ok().out == r.out
    assert wire.requests == []
    assert fetcher("resolve", "--plain-http", "--output", "json", p.ref).ok().json["digest"] == \
        p.digest


def test_resolve_does_not_trust_the_header(fetcher, faults):
    """HEAD without Docker-Content-Digest, and with nonsense in it: the bytes decide. [C15]"""
    art = faults.artifact({"a": b"x"})
    for value in (None, "sha256:zz", "", "garbage"):
        faults.clear()
        faults.rule("manifest", headers={"Docker-Content-Digest": value})
        assert fetcher("resolve", "--plain-http", art.ref).ok().out.strip() == art.digest
    faults.clear()
    faults.rule("manifest", method="HEAD", status=405)
    assert fetcher("resolve", "--plain-http", art.ref).ok().out.strip() == art.digest


def test_ls_table(fetcher, sample, wire):
    p, files = sample
    r = fetcher("ls", "--plain-http", p.on(wire)).ok()
    assert not wire.gets("/blobs/")
    for name, body in files.items():
        line = next(x for x in r.out.splitlines() if name in x)
        digest = body.digest if isinstance(body, Content) else oci.digest_of(body)
        assert digest[:19] in line
    assert "3.0 MiB" in r.out or str(3 << 20) in r.out


def test_ls_json(fetcher, sample):
    p, files = sample
    seen = fetcher("ls", "--plain-http", "--output", "json", p.ref).ok().json
    assert seen["digest"] == p.digest
    got = {f["path"]: (f["size"], f["digest"]) for f in seen["files"]}
    assert got == {n: (len(b), b.digest if isinstance(b, Content) else oci.digest_of(b))
                   for n, b in files.items()}


def test_ls_takes_globs(fetcher, sample):
    p, _ = sample
    seen = fetcher("ls", "--plain-http", "--output", "json", "--exclude", "*.bin", p.ref).ok().json
    assert {f["path"] for f in seen["files"]} == {"config.json", "empty"}
    fetcher("ls", "--plain-http", "--include", "nothing", p.ref).exits(25)


def test_ls_escapes_names(fetcher, faults):
    """Right-to-left marks cannot turn a name around on a terminal."""
    art = faults.artifact({"a": b"x"}, annotate=lambda t: {oci.TITLE: "evil\u202egnp.exe"})
    assert "\u202e" not in fetcher("ls", "--plain-http", art.ref).ok().out


def test_nothing_is_written_by_looking(fetcher, sample, tmp_path):
    p, _ = sample
    fetcher("ls", "--plain-http", p.ref, cwd=tmp_path).ok()
    fetcher("resolve", "--plain-http", p.ref, cwd=tmp_path).ok()
    fetcher("probe", tmp_path / "x").exits(21)
    assert [x.name for x in tmp_path.iterdir() if x.name != "run"] == []


def test_closed_output(sample):
    """A reader that went away is no crash."""
    p, _ = sample
    done = subprocess.run(["sh", "-c", '"$@" | true', "x", *binary(), "ls", "--plain-http", p.ref],
                          env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=60)
    assert done.returncode == 0


# -- the bar -------------------------------------------------------------------------------------


def on_terminal(args, env=None, size=(24, 90), timeout=60):
    """(exit code, everything that was written to the terminal)."""
    import fcntl
    import struct
    import termios
    try:
        leader, follower = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine gives no pseudo terminal: {error}")
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen([*binary(), *map(str, args)], stdin=subprocess.DEVNULL,
                               stdout=follower, stderr=follower, env=env or {})
    os.close(follower)
    seen = b""
    try:
        while True:
            ready, _, _ = select.select([leader], [], [], timeout)
            assert ready, "the terminal stays silent"
            try:
                chunk = os.read(leader, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
        return process.wait(timeout), seen.decode("utf-8", "replace")
    finally:
        os.close(leader)
        if process.poll() is None:
            process.kill()
            process.wait()


def test_bar_on_a_terminal(haproxy_capped, registry, push, dest):
    """Bytes, per-file lines, text log lines; hostile names cannot move the cursor."""
    body = Content(91, 40 << 20)
    p = push(registry, "cli/bar", "v1", {"weights.bin": body, "small.json": b"{}"})
    rc, text = on_terminal(["pull", "--plain-http", "--concurrency", "2",
                            p.on(haproxy_capped), dest])
    assert rc == 0, text
    assert "weights.bin" in text and "small.json" in text
    assert re.search(r"\d+ ?%", text) and "MiB" in text
    assert '"level"' not in text
    for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)):
        if "%" in line:
            assert len(line) <= 90
    holds(dest, {"weights.bin": body, "small.json": b"{}"})


def test_no_bar_where_nobody_looks(fetcher, haproxy_capped, registry, push, dest, tmp_path):
    p = push(registry, "cli/bar", "v1", {"weights.bin": Content(91, 40 << 20),
                                         "small.json": b"{}"})
    r = fetcher.pull(p.on(haproxy_capped), dest, "--concurrency", "2").ok()
    assert "\r" not in r.err and "\x1b" not in r.err
    rc, text = on_terminal(["pull", "--plain-http", "--progress", "never", p.ref, tmp_path / "x"])
    assert rc == 0 and "%" not in text


def test_bar_escapes_names(faults, dest):
    art = faults.artifact({"a": data(1, 1000)}, annotate=lambda t: {
        oci.TITLE: "bidi\u202e and \u009b31m.bin"})
    rc, text = on_terminal(["pull", "--plain-http", art.ref, dest])
    assert rc in (0, 24)
    assert "\u202e" not in text and "\u009b" not in text


# -- proxies -------------------------------------------------------------------------------------


def test_http_proxy_and_no_proxy(fetcher, faults, dest, tmp_path):
    """[C42] [K33]"""
    art = faults.artifact({"a": data(1, 1000)})
    env = {"http_proxy": faults.base}
    fetcher.pull(f"registry.invalid/{art.repo}:v1", dest, env=env).ok()
    holds(dest, {"a": data(1, 1000)})
    seen = len(faults.requests)
    assert seen
    env = {"http_proxy": f"http://127.0.0.1:{free_port()}", "no_proxy": "registry.invalid"}
    ref = art.ref.replace("127.0.0.1", "registry.invalid")
    known = ["--retry-timeout", "200ms", "--resolve", "registry.invalid:*:127.0.0.1"]
    fetcher.pull(ref, tmp_path / "direct", *known, env=env).ok()
    env["no_proxy"] = "example.com"
    fetcher.pull(ref, tmp_path / "proxied", *known, env=env).exits(30)
    fetcher.pull(art.ref, tmp_path / "loopback", *known, env=env).ok()


# -- install -------------------------------------------------------------------------------------


def test_install(fetcher, tmp_path):
    fetcher("install", tmp_path / "tool").ok()
    (tmp_path / "bin").mkdir()
    fetcher("install", tmp_path / "bin", umask=0o077).ok()
    own = open(binary()[-1], "rb").read()
    for path in (tmp_path / "tool", tmp_path / "bin" / "fetcher"):
        assert path.read_bytes() == own
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        subprocess.run([path, "version"], check=True, capture_output=True, env={})
    fetcher("install", tmp_path / "tool").ok()  # over itself
    fetcher("install", tmp_path / "no" / "such" / "folder").exits(40)
    left = sorted(x.name for x in tmp_path.iterdir() if x.name != "run")
    assert left == ["bin", "tool"]


def test_installed_while_it_runs(fetcher, tmp_path):
    """Replaced by rename: a copy that is executing is no obstacle (ETXTBSY)."""
    fetcher("install", tmp_path / "tool").ok()
    process = subprocess.Popen([tmp_path / "tool", "wait", tmp_path / "never"], env={},
                               stderr=subprocess.DEVNULL)
    try:
        fetcher("install", tmp_path / "tool").ok()
    finally:
        process.kill()
        process.wait()
