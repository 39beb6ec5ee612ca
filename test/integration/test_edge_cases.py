# SPDX-License-Identifier: Apache-2.0
"""Numbered cases of the field that have no home elsewhere, and the count of all: [A1]-[A14] how clients log in, [O1]-[O42]
what other clients' fixes and threads are about ([C..] in older tests), [K27]-[K34] networks."""

import ast
import pathlib
import re
import threading

import pytest

from lib.content import data
from lib.look import holds, last_words, marker
from lib.quirks import Harbor, config

MIB = 1 << 20
HERE = pathlib.Path(__file__).parent


# -- manifests -----------------------------------------------------------------------------------


def test_nothing_asks_for_referrers(faults, fetcher, dest):
    """A subject with a sha512 digest, a registry with and without the API: no referrers tag is made up. [O14] [O31]"""
    body = data(1, 1000)
    digest = faults.blob(body, alg="sha512")
    subject = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1000}
    faults.artifact({"a": body}, subject=subject)
    for status in (404, 200):
        faults.rule("referrers", status=status, body=b"<html></html>")
        fetcher.pull(faults.ref(), dest / str(status)).ok()
    assert not any("referrers" in r.target or "sha512-" in r.target for r in faults.requests)


def test_two_repositories_of_one_registry(fetcher, tmp_path):
    """Tokens of two scopes do not overwrite each other. [O35] [A7]"""
    with Harbor(users={"u": "p"}) as harbor:
        files = {"a": data(3, 300_000)}
        harbor.artifact(files)
        path = config(tmp_path / "c.json", **{harbor.host: ("u", "p")})
        pairs = [x for n in range(3) for x in (f"{harbor.host}/team/m{n}:v1", str(tmp_path / f"d{n}"))]
        fetcher("pull", "--plain-http", "--registry-config", path, "--range-size", "64KiB", *pairs).ok()
        for n in range(3):
            holds(tmp_path / f"d{n}", files)
        assert [t["query"]["scope"] for t in harbor.token_requests] == \
            [[f"repository:team/m{n}:pull"] for n in range(3)]


# -- ranges --------------------------------------------------------------------------------------


def test_one_range_a_request(faults, fetcher, dest):
    """A server that answers several ranges with 400 never sees them. [O21]"""
    body = data(5, 4 * MIB)
    art = faults.artifact({"w": body})
    faults.rule(lambda r: "," in r.headers.get("range", ""), status=400)
    faults.rule("blob", nth={3, 5}, reset_at=1000)
    fetcher.pull(art.ref, dest, "--range-size", "256KiB").ok()
    holds(dest, {"w": body})
    ranges = [r.headers["range"] for r in faults.gets("blob") if r.has_range]
    assert ranges and all(re.fullmatch(r"bytes=\d+-\d+", value) for value in ranges)
    assert all(int(value.split("-")[1]) < len(body) for value in ranges)


def test_nothing_is_ready_before_all_of_it_was_hashed(faults, fetcher, dest):
    """Every range but one is there, behind the missing one. [O28]"""
    body = data(6, 4 * MIB)
    art = faults.artifact({"w": body})
    go = threading.Event()
    # a range that lags is asked for twice: both wait
    faults.rule(lambda r: r.kind == "blob" and r.range and r.range[0] <= MIB <= r.range[1], hold=go)
    run = fetcher.start("pull", "--plain-http", "--range-size", "256KiB", "--concurrency", "4", art.ref, dest)
    assert faults.wait(lambda f: f.sent("blob") >= len(body) - 256 * 1024 and f.stalled >= 1), run.err()
    assert marker(dest) is None and not (dest / "w").exists()
    go.set()
    run.wait().ok()
    holds(dest, {"w": body})


# -- warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value, told", [
    ('299 - "this repository moves in May"', ["this repository moves in May"]),
    ('299 - "a \\"quoted\\" \\\\ word"', ['a "quoted" \\ word']),
    ('299 - "one", 299 - "two, with a comma"', ["one", "two, with a comma"]),
    ('299 - "same", 299 - "same"', ["same"]),
    ('299 registry.example:5000 "of an agent" "Wed, 21 Oct 2026 07:28:00 GMT", 299 - "next"', ["of an agent", "next"]),
    ('199 - "of another kind"', []), ('110 proxy "Response is Stale", 299 - "after it"', ["after it"]),
    ('299 - "esc\x1b[31m tab\t del\x7f"', ["esc[31m tab del"]), ('299 - "cut off', ["cut off"]), ("299 -", []), ("", []),
    ('299 - ""', []), ("299 - " + '"' + "x" * 5000 + '"', ["x" * 511]),
    (", ".join(f'299 - "number {n}"' for n in range(40)), [f"number {n}" for n in range(16)]),
], ids=["one", "escapes", "two", "twice", "agent", "kind", "stale", "controls", "cut", "no-text", "empty", "blank", "long",
        "many"])
def test_warnings_of_a_registry(faults, fetcher, dest, value, told):
    """Told once each, as warnings, however often they come; nothing of them drives a terminal. [O32]"""
    art = faults.artifact({"a": b"x"})
    faults.rule("/v2/", headers={"Warning": value})
    r = fetcher.pull(art.ref, dest).ok()
    seen = [line["msg"].partition(" warns: ")[2] for line in r.log if line["level"] == "warn"]
    assert seen == told
    assert "\x1b" not in r.err and "\x7f" not in r.err


def test_warnings_of_strangers_are_not_told(faults, stranger, fetcher, dest):
    """[O32]"""
    art = faults.artifact({"a": b"x"})
    faults.rule("manifest", redirect=lambda r: stranger.base + r.target)
    stranger.rule(None, headers={"Warning": '299 - "buy now"'})
    assert "buy now" not in fetcher.pull(art.ref, dest, "-v").ok().err


# -- networks ------------------------------------------------------------------------------------

REALMS = ["http://127.0.0.1:1/t", "http://127.1/t", "http://2130706433/t", "http://0x7f000001/t", "http://[::1]/t",
          "http://[::ffff:127.0.0.1]/t", "http://localhost/t", "http://a.localhost/t", "http://localhost./t",
          "http://169.254.169.254/latest", "http://0.0.0.0/t", "http://[::]/t", "http://10.1.2.3/t", "http://172.16.0.1/t",
          "http://192.168.0.1/t", "http://100.64.0.1/t", "http://[fe80::1]/t", "http://[fd00::1]/t", "file:///etc/passwd",
          "ftp://other.example/t", "http://u:p@other.example/t", "javascript:1"]


@pytest.mark.parametrize("realm", REALMS)
def test_realms_of_a_registry_with_a_public_name(faults, fetcher, dest, tmp_path, realm):
    """All of them are refused before anything is sent (the public name is reached through a proxy, which would see the
    request). [K31] [A4]"""
    name = "registry.example"
    faults.artifact({"a": b"x"})
    faults.rule("/v2/", status=401, www_authenticate=f'Bearer realm="{realm}",service="x"')
    path = config(tmp_path / "c.json", **{name: ("u", "SECRET-password")})
    r = fetcher.pull(f"{name}/team/model:v1", dest, "--registry-config", path, "--retry-timeout", "300ms",
                     env={"http_proxy": faults.base}).exits(20)
    assert {q.path.split("/")[1] for q in faults.requests} == {"v2"}
    assert faults.leaks() == [] and "SECRET" not in r.err
    assert "refused" in last_words(r)


def test_a_realm_of_another_public_name_is_asked(faults, fetcher, dest, tmp_path):
    """As Docker Hub has it: registry-1.docker.io and auth.docker.io. [K31] [A4]"""
    art = faults.artifact({"a": b"x"})
    faults.auth_bearer(users={"u": "p"}, realm="http://auth.example/token")
    path = config(tmp_path / "c.json", **{"registry.example": ("u", "p")})
    fetcher.pull(f"registry.example/{art.repo}:v1", dest, "--registry-config", path, env={"http_proxy": faults.base}).ok()
    assert [r.headers["host"] for r in faults.requests if r.kind == "token"] == ["auth.example"]


# -- the count -----------------------------------------------------------------------------------

# The numbers after A also mean another list, in tests of layers and archives: only these files speak of logins.
LOGIN_FILES = ["test_auth.py", "test_registries.py", "test_edge_cases.py", "test_leaks.py", "test_auth.c",
               "test_challenge.c", "test_dockercfg.c"]
WANTED = {"A": range(1, 15), "O": range(1, 43), "K": range(27, 35)}


def words_of_tests(path):
    """Names and docstrings of a file's tests; of a C file all of it, since comments stand before the tests."""
    text = path.read_text()
    if path.suffix == ".c":
        return text
    tests = [f for f in ast.walk(ast.parse(text)) if isinstance(f, ast.FunctionDef) and f.name.startswith("test_")]
    return "\n".join(f"{f.name} {ast.get_docstring(f) or ''}" for f in tests)


def numbers_of_tests():
    """{("O", 31), ...}"""
    found = set()
    for path in [*HERE.glob("test_*.py"), *(HERE.parent / "unit").glob("test_*.c")]:
        text = words_of_tests(path)
        seen = re.findall(r"\[([AOCK])(\d+)\]", text) + re.findall(r"\btest_([COK])(\d+)", text)
        for letter, first, last in re.findall(r"\[([AOCK])(\d+)-[AOCK](\d+)\]", text):
            seen += [(letter, n) for n in range(int(first), int(last) + 1)]
        found |= {("O" if letter == "C" else letter, int(n)) for letter, n in seen
                  if letter != "A" or path.name in LOGIN_FILES}
    return found


def test_each_number_has_a_test():
    found = numbers_of_tests()
    missing = [f"{letter}{n}" for letter, numbers in WANTED.items() for n in numbers if (letter, n) not in found]
    assert missing == []
