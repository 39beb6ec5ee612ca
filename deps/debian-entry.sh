#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints "URI KEYRING" of the Debian archive that this machine's apt uses, KEYRING "-" where apt's own trust store is to
# be used. Reads one-line sources (*.list) and deb822 ones (*.sources). Where there is none, as on Ubuntu, it is Debian's
# public address, if Debian's keyring is installed to check what comes from there; else exit 1.
# APT_ETC names another folder than /etc/apt.
set -eu
etc=${APT_ETC:-/etc/apt}

# all FILE ...: those that exist, an empty line after each, so that stanzas of two files stay apart.
all() {
	for f do
		if [ -f "$f" ]; then
			cat "$f"
			echo
		fi
	done
}

one_line() {
	all "$etc/sources.list" "$etc"/sources.list.d/*.list | awk '
	$1 != "deb" && $1 != "deb-src" { next }
	{
		key = "-"
		line = $0
		if (match(line, /\[[^]]*\]/)) {
			opts = substr(line, RSTART + 1, RLENGTH - 2)
			line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
			n = split(opts, o, /[ \t]+/)
			for (i = 1; i <= n; i++)
				if (o[i] ~ /^signed-by=/)
					key = substr(o[i], 11)
		}
		$0 = line
		print $2, $3, key
	}'
}

deb822() {
	all "$etc"/sources.list.d/*.sources | awk '
	function flush(    i, j, n, m, u, s) {
		n = split(uris, u, /[ \t]+/)
		m = split(suites, s, /[ \t]+/)
		if (enabled != "no" && types ~ /deb/)
			for (i = 1; i <= n; i++)
				for (j = 1; j <= m; j++)
					if (u[i] != "" && s[j] != "")
						print u[i], s[j], key
		uris = suites = types = enabled = ""
		key = "-"
	}
	BEGIN { key = "-" }
	/^#/ { next }
	/^[ \t]*$/ { flush(); next }
	{ field = tolower($1); value = $0; sub(/^[^:]*:[ \t]*/, "", value) }
	field == "types:" { types = value }
	field == "uris:" { uris = value }
	field == "suites:" { suites = value }
	field == "enabled:" { enabled = value }
	field == "signed-by:" && value ~ /^\// { key = value }
	END { flush() }'
}

# The plain suites only: not -security, -updates, -backports, which live under other addresses or hold no sources of ours.
found=$( { one_line; deb822; } | awk '
	$1 ~ /^(https?|mirror\+https?|mirror\+file|file|cdrom|ftp|tor\+https?|copy):/ &&
	$2 ~ /^(bookworm|trixie|forky|sid|stable|testing|unstable|oldstable)$/ { print $1, $3; exit }')
uri=${found%% *} key=${found#* }
[ -n "$found" ] || uri=http://deb.debian.org/debian key=-

if [ "$key" = - ]; then
	for k in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
		if [ -f "$k" ]; then
			key=$k
			break
		fi
	done
fi
[ -n "$found" ] || [ "$key" != - ] || exit 1
printf '%s %s\n' "$uri" "$key"
