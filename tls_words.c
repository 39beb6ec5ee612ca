// SPDX-License-Identifier: Apache-2.0
/* What is wrong with a certificate, in words that lead to what is to be done. Belongs to tls.h. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "json.h"
#include "sys.h"
#include "tls_internal.h"

#define NAMES_SHOWN 5

/* A subject or issuer, cut and escaped: whoever sent the certificate chose it. */
static const char *show_dn(const mbedtls_x509_name *dn, char *ret, size_t n)
{
	char text[512];

	/* 3.6 refuses a name that does not fit: then the shorter text is none */
	if (mbedtls_x509_dn_gets(text, sizeof(text), dn) <= 0)
		snprintf(text, sizeof(text), "(a name that cannot be shown)");
	return json_show(str_of(text), ret, n);
}

static void show_time(const mbedtls_x509_time *t, char *ret, size_t n)
{
	snprintf(ret, n, "%04d-%02d-%02dT%02d:%02d:%02dZ", t->year, t->mon, t->day, t->hour, t->min, t->sec);
}

static bool same_name(const mbedtls_x509_crt *crt)
{
	return crt->subject_raw.len == crt->issuer_raw.len &&
	       memcmp(crt->subject_raw.p, crt->issuer_raw.p, crt->subject_raw.len) == 0;
}

/* The names a certificate is for: DNS names and addresses, the first few. */
static void show_names(const mbedtls_x509_crt *crt, struct buf *b)
{
	unsigned shown = 0;

	for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s && s->buf.p; s = s->next) {
		int type = s->buf.tag & MBEDTLS_ASN1_TAG_VALUE_MASK;
		char text[80] = "";
		if (type == MBEDTLS_X509_SAN_DNS_NAME)
			json_show((struct str){ (const char *)s->buf.p, s->buf.len }, text, sizeof(text));
		else if (type == MBEDTLS_X509_SAN_IP_ADDRESS && (s->buf.len == 4 || s->buf.len == 16))
			inet_ntop(s->buf.len == 4 ? AF_INET : AF_INET6, s->buf.p, text, sizeof(text));
		if (!*text)
			continue;
		if (shown++ == NAMES_SHOWN) {
			buf_adds(b, ", ...");
			return;
		}
		buf_addf(b, "%s%s", shown > 1 ? ", " : "", text);
	}
	if (!shown)
		buf_adds(b, "no name at all (a CN does not count)");
}

static void about_dates(const mbedtls_x509_crt *crt, uint32_t flags, struct buf *b)
{
	char when[48], now[32];

	sys_timestamp(now);
	if (flags & MBEDTLS_X509_BADCERT_EXPIRED) {
		show_time(&crt->valid_to, when, sizeof(when));
		buf_addf(b, "; expired: it was valid until %s, and this machine's clock says %s", when, now);
	}
	if (flags & MBEDTLS_X509_BADCERT_FUTURE) {
		show_time(&crt->valid_from, when, sizeof(when));
		buf_addf(b, "; not yet valid: it is valid from %s, and this machine's clock says %s", when, now);
	}
}

static void about_trust(const mbedtls_x509_crt *crt, int depth, struct buf *b)
{
	char issuer[200];

	show_dn(&crt->issuer, issuer, sizeof(issuer));
	if (same_name(crt) && depth == 0)
		buf_adds(b, "; self-signed, and not among the trusted ones");
	else if (same_name(crt))
		buf_adds(b, "; a CA that is not trusted");
	else
		buf_addf(b, "; signed by an unknown CA, \"%s\"%s", issuer,
			 depth ? "" : ", or the server leaves out an intermediate certificate");
}

static void about_rest(uint32_t flags, struct buf *b)
{
	const uint32_t usage = MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE |
			       MBEDTLS_X509_BADCERT_NS_CERT_TYPE;
	const uint32_t weak = MBEDTLS_X509_BADCERT_BAD_MD | MBEDTLS_X509_BADCERT_BAD_PK |
			      MBEDTLS_X509_BADCERT_BAD_KEY;
	const uint32_t told = usage | weak | MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE |
			      MBEDTLS_X509_BADCERT_NOT_TRUSTED | MBEDTLS_X509_BADCERT_CN_MISMATCH;

	if (flags & usage)
		buf_adds(b, "; its key usage does not allow it to be a server's");
	if (flags & weak)
		buf_adds(b, "; its key or signature is too weak");
	if (flags & ~told)
		buf_addf(b, "; verification failed (flags 0x%x)", (unsigned)(flags & ~told));
}

void tls_complain(struct tls_peer *peer, const mbedtls_x509_crt *crt, int depth, uint32_t flags)
{
	_cleanup_buf_ struct buf b = BUF_INIT(2048);
	char subject[160];

	peer->flags |= flags;
	buf_addf(&b, "%s\"%s\"", *peer->words ? "; and " : "", show_dn(&crt->subject, subject, sizeof(subject)));
	if (flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED)
		about_trust(crt, depth, &b);
	about_dates(crt, flags, &b);
	if (flags & MBEDTLS_X509_BADCERT_CN_MISMATCH) {
		buf_adds(&b, "; not for this host: it names ");
		show_names(crt, &b);
	}
	about_rest(flags, &b);
	size_t have = strlen(peer->words);
	snprintf(peer->words + have, sizeof(peer->words) - have, "%s", buf_cstr(&b));
}

const char *tls_advice(const struct tls_peer *peer)
{
	const uint32_t dates = MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE;

	if (peer->flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED)
		return peer->proxy ? "name the proxy's CA with --proxy-ca-file" :
				     "name your registry's CA with --ca-file, or with --extra-ca-file beside the others";
	if (peer->flags & dates)
		return "if this clock is wrong, set it; else the certificate must be renewed";
	if (peer->flags & MBEDTLS_X509_BADCERT_CN_MISMATCH)
		return "use one of its names, or have a certificate made for this one";
	return "the server's certificate cannot be used";
}
