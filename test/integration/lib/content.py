# SPDX-License-Identifier: Apache-2.0
"""File contents that are reproducible, quick to make, and different at every page.

Content(seed, size) stands for bytes without holding them: a random MiB repeated, with the page's
number and the seed in each 4 KiB page, so that a page at the wrong place changes the digest.
sparse=True leaves holes between single pages: a big file that costs little disk.
"""

import hashlib
import os
import random
import struct

MIB = 1 << 20
PAGE = 4096
PER_MIB = MIB // PAGE


class Content:
    def __init__(self, seed, size, sparse=False):
        self.seed = seed
        self.size = size
        self.sparse = sparse
        self._sha256 = None

    def __len__(self):
        return self.size

    def chunks(self):
        """The bytes, a MiB at a time."""
        block = bytearray(MIB)
        if not self.sparse:
            block[:] = random.Random(self.seed).randbytes(MIB)
        number = self.seed << 40 if isinstance(self.seed, int) else 0
        for index in range((self.size + MIB - 1) // MIB):
            pages = range(0, MIB, MIB) if self.sparse else range(0, MIB, PAGE)
            if not self.sparse or index % 16 == 0:
                for at in pages:
                    struct.pack_into("<Q", block, at,
                                     (number + index * PER_MIB + at // PAGE) & (2**64 - 1))
            elif index % 16 == 1:
                block[:8] = bytes(8)
            left = self.size - index * MIB
            yield bytes(block) if left >= MIB else bytes(block[:left])

    def bytes(self):
        return b"".join(self.chunks())

    def write_to(self, path):
        """Writes the file (with holes when sparse) and returns its path."""
        digest = hashlib.sha256()
        with open(path, "wb") as f:
            for chunk in self.chunks():
                digest.update(chunk)
                if self.sparse and not any(chunk[:8]):
                    f.seek(len(chunk), os.SEEK_CUR)
                else:
                    f.write(chunk)
            f.truncate(self.size)
        self._sha256 = digest.hexdigest()
        return path

    @property
    def sha256(self):
        if self._sha256 is None:
            digest = hashlib.sha256()
            for chunk in self.chunks():
                digest.update(chunk)
            self._sha256 = digest.hexdigest()
        return self._sha256

    @property
    def digest(self):
        return "sha256:" + self.sha256


def data(seed, size):
    """Plain random bytes."""
    return random.Random(seed).randbytes(size)


def file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def tree(path, hidden=False):
    """{relative name: sha256 or link target or "dir"} of everything below path; without .fetcher
    unless hidden."""
    seen = {}
    for base, dirs, files in os.walk(path):
        if not hidden and base == str(path) and ".fetcher" in dirs:
            dirs.remove(".fetcher")
        for name in dirs + files:
            full = os.path.join(base, name)
            key = os.path.relpath(full, path)
            if os.path.islink(full):
                seen[key] = "-> " + os.readlink(full)
            elif os.path.isdir(full):
                seen[key] = "dir"
            else:
                seen[key] = file_sha256(full)
    return seen


def files_in(path, hidden=False):
    """{relative name: sha256}: tree() without directories and links."""
    return {k: v for k, v in tree(path, hidden).items() if v != "dir" and not v.startswith("-> ")}
