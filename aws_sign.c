// SPDX-License-Identifier: Apache-2.0
#include "aws.h"

#include <string.h>
#include <time.h>

#include <nettle/hmac.h>

#include "secret.h"
#include "verify.h"

#define HEADERS_MAX 8

void aws_date(int64_t unix_time, char ret[static AWS_DATE_MAX])
{
	time_t t = (time_t)unix_time;
	struct tm tm = { 0 };

	gmtime_r(&t, &tm);
	strftime(ret, AWS_DATE_MAX, "%Y%m%dT%H%M%SZ", &tm);
}

static void hmac(const uint8_t *key, size_t key_len, const void *p, size_t n, uint8_t ret[static SHA256_DIGEST_SIZE])
{
	struct hmac_sha256_ctx ctx;

	hmac_sha256_set_key(&ctx, key_len, key);
	hmac_sha256_update(&ctx, n, p);
	hmac_sha256_digest(&ctx, SHA256_DIGEST_SIZE, ret);
	explicit_bzero(&ctx, sizeof(ctx));
}

static void add_hex(struct buf *b, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_addf(b, "%02x", p[i]);
}

static void add_sha256(struct buf *b, const void *p, size_t n)
{
	struct digest d;

	digest_of(DIGEST_SHA256, p, n, &d);
	add_hex(b, d.bytes, SHA256_DIGEST_SIZE);
}

static void sort_headers(const struct aws_call *c, const struct aws_header *ret[static HEADERS_MAX])
{
	for (size_t i = 0; i < c->n_headers; i++) {
		size_t at = i;

		for (; at && strcmp(ret[at - 1]->name, c->headers[i].name) > 0; at--)
			ret[at] = ret[at - 1];
		ret[at] = &c->headers[i];
	}
}

static void add_names(struct buf *b, const struct aws_header *const *h, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_addf(b, "%s%s", i ? ";" : "", h[i]->name);
}

/* The key of one day, region and service: a chain that starts with the secret. */
static int signing_key(const char *secret, const char *const *steps, uint8_t ret[static SHA256_DIGEST_SIZE])
{
	_cleanup_secret_buf_ struct buf first = BUF_INIT(LIMIT_TOKEN);
	const uint8_t *key;
	size_t n;

	buf_addf(&first, "AWS4%s", secret);
	if (first.failed)
		return -1;
	key = (const uint8_t *)first.data;
	n = first.len;
	for (; *steps; steps++) {
		uint8_t next[SHA256_DIGEST_SIZE];

		hmac(key, n, *steps, strlen(*steps), next);
		memcpy(ret, next, sizeof(next));
		explicit_bzero(next, sizeof(next));
		key = ret;
		n = SHA256_DIGEST_SIZE;
	}
	return 0;
}

int aws_sign(const struct aws_keys *k, const struct aws_call *c, struct buf *ret)
{
	_cleanup_secret_buf_ struct buf request = BUF_INIT(LIMIT_TOKEN * 2), text = BUF_INIT(LIMIT_TOKEN);
	_cleanup_buf_ struct buf scope = BUF_INIT(512);
	const struct aws_header *sorted[HEADERS_MAX];
	uint8_t key[SHA256_DIGEST_SIZE], signature[SHA256_DIGEST_SIZE];
	char day[9] = "";

	if (c->n_headers > HEADERS_MAX || strlen(c->date) < sizeof(day))
		return -1;
	memcpy(day, c->date, sizeof(day) - 1);
	sort_headers(c, sorted);
	/* the request in its canonical form; the empty line is the query */
	buf_addf(&request, "%s\n%s\n\n", c->method, c->path);
	for (size_t i = 0; i < c->n_headers; i++)
		buf_addf(&request, "%s:%s\n", sorted[i]->name, sorted[i]->value);
	buf_addc(&request, '\n');
	add_names(&request, sorted, c->n_headers);
	buf_addc(&request, '\n');
	add_sha256(&request, c->body, c->body_len);

	buf_addf(&scope, "%s/%s/%s/aws4_request", day, c->region, c->service);
	buf_addf(&text, "AWS4-HMAC-SHA256\n%s\n%s\n", c->date, buf_cstr(&scope));
	add_sha256(&text, buf_cstr(&request), request.len);
	if (request.failed || scope.failed || text.failed ||
	    signing_key(k->secret, (const char *[]){ day, c->region, c->service, "aws4_request", NULL }, key) < 0)
		return -1;
	hmac(key, sizeof(key), buf_cstr(&text), text.len, signature);
	explicit_bzero(key, sizeof(key));

	buf_addf(ret, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=", k->id, buf_cstr(&scope));
	add_names(ret, sorted, c->n_headers);
	buf_adds(ret, ", Signature=");
	add_hex(ret, signature, sizeof(signature));
	return ret->failed ? -1 : 0;
}
