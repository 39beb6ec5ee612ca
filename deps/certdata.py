#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes ca_bundle.c and ca_bundle.h from Mozilla's certdata.txt.

usage: certdata.py CERTDATA OUTDIR

Taken is every certificate whose trust record names it a trusted delegator for TLS servers and sets no date after which
its new certificates are distrusted: Mozilla sets such a date when it removes a root, and a TLS library without a notion
of that date can only take the root or leave it. The order is that of the file, so the output follows from it alone.
"""
import os
import re
import sys

HEADER = """\
// SPDX-License-Identifier: MPL-2.0
/* Made by deps/certdata.py from Mozilla's certdata.txt: the root certificates trusted for TLS servers. */
"""


def records(lines):
    """Yields one dict of attribute name to value per object; octal blocks become bytes."""
    obj = {}
    lines = iter(lines)
    for line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        kind, _, value = rest.partition(" ")
        if name == "CKA_CLASS" and obj:
            yield obj
            obj = {}
        if kind == "MULTILINE_OCTAL":
            data = bytearray()
            for part in lines:
                part = part.strip()
                if part == "END":
                    break
                digits = re.findall(r"\\([0-7]{3})", part)
                if len(digits) * 4 != len(part):
                    sys.exit(f"certdata.py: not octal: {part!r}")
                data += bytes(int(d, 8) for d in digits)
            value = bytes(data)
        obj[name] = value
    if obj:
        yield obj


def roots(lines):
    certs, trusted = [], set()
    for obj in records(lines):
        key = (obj.get("CKA_ISSUER"), obj.get("CKA_SERIAL_NUMBER"))
        if obj.get("CKA_CLASS") == "CKO_CERTIFICATE":
            dated = isinstance(obj.get("CKA_NSS_SERVER_DISTRUST_AFTER"), bytes)
            certs.append((key, obj["CKA_LABEL"].strip('"'), obj["CKA_VALUE"], dated))
        elif obj.get("CKA_CLASS") == "CKO_NSS_TRUST":
            if obj.get("CKA_TRUST_SERVER_AUTH") == "CKT_NSS_TRUSTED_DELEGATOR":
                trusted.add(key)
    return [(label, der) for key, label, der, dated in certs if key in trusted and not dated]


def comment(label):
    """A label as text that cannot end a comment; some are UTF-8 written as \\x escapes."""
    text = label.encode("ascii", "replace").decode("ascii")
    return re.sub(r"\*/|[^ -~]", "?", text).replace("\\", "/")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: certdata.py CERTDATA OUTDIR")
    with open(sys.argv[1], encoding="utf-8") as f:
        text = f.read().split("BEGINDATA", 1)[1]
    found = roots(text.splitlines())
    if not 80 <= len(found) <= 400:
        sys.exit(f"certdata.py: {len(found)} roots found, that cannot be right")

    out = [HEADER, '#include "ca_bundle.h"\n\n', "const unsigned char ca_bundle_der[] = {\n"]
    size = 0
    for label, der in found:
        if len(der) >= 1 << 24:
            sys.exit(f"certdata.py: {label}: too large")
        data = len(der).to_bytes(3, "big") + der
        size += len(data)
        out.append(f"/* {comment(label)} */\n")
        for i in range(0, len(data), 32):
            out.append(",".join(str(b) for b in data[i:i + 32]) + ",\n")
    out.append("};\n\nconst size_t ca_bundle_der_len = sizeof(ca_bundle_der);\n")
    head = [HEADER, f"""\
#ifndef FETCHER_CA_BUNDLE_H
#define FETCHER_CA_BUNDLE_H

#include <stddef.h>

/*
 * {len(found)} certificates, one after the other: 3 bytes of length, big endian, then that many bytes of DER. The array is
 * constant and lives as long as the process, so mbedtls_x509_crt_parse_der_nocopy() may point into it.
 */
extern const unsigned char ca_bundle_der[];
extern const size_t ca_bundle_der_len;	/* {size} */

#endif
"""]
    os.makedirs(sys.argv[2], exist_ok=True)
    for name, parts in (("ca_bundle.h", head), ("ca_bundle.c", out)):
        with open(os.path.join(sys.argv[2], name), "w", encoding="ascii") as f:
            f.write("".join(parts))
    print(f"ca bundle: {len(found)} roots, {size} bytes")


if __name__ == "__main__":
    main()
