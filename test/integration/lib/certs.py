# SPDX-License-Identifier: Apache-2.0
"""A private certificate authority, made with the openssl program."""

import pathlib

from .proc import command


class Pair:
    """One certificate with its key (PEM files)."""

    def __init__(self, cert, key):
        self.cert = pathlib.Path(cert)
        self.key = pathlib.Path(key)

    def __iter__(self):
        return iter((str(self.cert), str(self.key)))


class Authority:
    """.ca is the PEM file to trust. issue() makes leaves below it."""

    def __init__(self, dir, name="fetcher test CA"):
        self.dir = pathlib.Path(dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.ca = self.dir / "ca.pem"
        self.key = self.dir / "ca.key"
        command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout", self.key, "-out", self.ca, "-config", self._config())

    def _config(self):
        path = self.dir / "openssl.cnf"
        path.write_text("[req]\ndistinguished_name=dn\n[dn]\n")
        return path

    def issue(self, name, san="IP:127.0.0.1,IP:::1,DNS:localhost", expired=False, client=False,
              rsa=False, future=False):
        """Pair for a server (or a client). expired: it ended in 2020; future: it begins in 2090. san: subjectAltName."""
        base = self.dir / name
        cert, key, request = f"{base}.pem", f"{base}.key", f"{base}.csr"
        kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command("openssl", "req", "-newkey", *kind, "-nodes", "-subj", f"/CN={name}",
                "-keyout", key, "-out", request, "-config", self._config())
        extensions = pathlib.Path(f"{base}.ext")
        usage = "clientAuth" if client else "serverAuth"
        extensions.write_text(f"basicConstraints=CA:FALSE\nextendedKeyUsage={usage}\n"
                              + (f"subjectAltName={san}\n" if san else ""))
        span = ["-days", "20"]
        if expired:
            span = ["-not_before", "20200101000000Z", "-not_after", "20200201000000Z"]
        if future:
            span = ["-not_before", "20900101000000Z", "-not_after", "20910101000000Z"]
        command("openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key,
                "-CAcreateserial", *span, "-extfile", extensions, "-out", cert)
        return Pair(cert, key)
