#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the generated tables of README.md anew: what `fetcher help --markdown` prints, between the same markers."""
import os
import re
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    binary = os.environ.get("FETCHER_BIN", os.path.join(TOP, "build", "fetcher"))
    made = subprocess.run([binary, "help", "--markdown"], check=True, stdout=subprocess.PIPE, text=True).stdout
    path = os.path.join(TOP, "README.md")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    for block, name in re.findall(r"(<!-- ([a-z][a-z ]*) -->\n.*?<!-- /\2 -->)", made, re.S):
        text, n = re.subn(rf"<!-- {name} -->\n.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.S)
        assert n == 1, f"README.md has no place for the table of {name}"
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
