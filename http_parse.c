// SPDX-License-Identifier: Apache-2.0
/* The pure half of http.h: URLs, redirects, and header values. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "http.h"

/* --- URLs (libcurl's parser: the one that will also make the request) --- */

static void lower_ascii(char *s)
{
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s + 32);
}

/* "scheme://host:port" from a parsed URL; -1: not http(s), or user info inside. */
static int origin_of(CURLU *u, char *ret, size_t n)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL;
	int failed = -1;

	if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
	    (strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0) &&
	    curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_NO_USER) {
		int len = snprintf(ret, n, "%s://%s:%s", scheme, host, port);
		failed = len > 0 && (size_t)len < n ? 0 : -1;
		if (!failed)
			lower_ascii(ret);
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(user);
	return failed;
}

int http_origin(const char *url, char *ret, size_t n)
{
	CURLU *u = curl_url();
	int failed = -1;

	if (u && strlen(url) <= LIMIT_URL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
		failed = origin_of(u, ret, n);
	curl_url_cleanup(u);
	return failed;
}

bool http_same_origin(const char *url, const char *origin)
{
	char own[512];

	return http_origin(url, own, sizeof(own)) == 0 && strcmp(own, origin) == 0;
}

static bool clean_location(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s <= 0x20 || *s == 0x7f)
			return false;
	return true;
}

int http_redirect_target(const char *base, const char *location, char **ret, struct err *e)
{
	char from[512], to[512], what[512], *url = NULL;
	CURLU *u = curl_url();
	int failed = -1;

	http_redacted(base, what, sizeof(what));
	if (!u) {
		err_oom(e);
	} else if (strlen(location) > LIMIT_URL || !clean_location(location)) {
		err_set(e, CODE_NETWORK, "%s: redirected to a malformed location", what);
	} else if (curl_url_set(u, CURLUPART_URL, base, 0) || origin_of(u, from, sizeof(from)) ||
		   curl_url_set(u, CURLUPART_URL, location, CURLU_PATH_AS_IS) ||
		   origin_of(u, to, sizeof(to))) {
		err_set(e, CODE_NETWORK, "%s: redirected to something that is not a plain http(s) URL", what);
	} else if (strncmp(from, "https:", 6) == 0 && strncmp(to, "http:", 5) == 0) {
		err_set(e, CODE_NETWORK, "%s: redirected from https to %s, refused", what, to);
	} else if (curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) ||
		   curl_url_get(u, CURLUPART_URL, &url, 0)) {
		err_oom(e);
	} else {
		*ret = strdup(url);
		failed = *ret ? 0 : err_oom(e);
	}
	curl_free(url);
	curl_url_cleanup(u);
	return failed;
}

const char *http_redacted(const char *url, char *ret, size_t n)
{
	snprintf(ret, n, "%s", url);
	log_redact(ret);
	return ret;
}

/* Days since 1970-01-01 of a proleptic Gregorian date. */
static int64_t days_from_civil(int64_t y, unsigned m, unsigned d)
{
	y -= m <= 2;
	int64_t era = y / 400;
	unsigned yoe = (unsigned)(y - era * 400);
	unsigned doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
	unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

	return era * 146097 + (int64_t)doe - 719468;
}

static bool two_digits(const char *p, unsigned *ret)
{
	if (!isdigit((unsigned char)p[0]) || !isdigit((unsigned char)p[1]))
		return false;
	*ret = (unsigned)(p[0] - '0') * 10 + (unsigned)(p[1] - '0');
	return true;
}

/* IMF-fixdate, "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7); the obsolete forms are not worth it. */
static bool parse_http_date(const char *s, int64_t *ret)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	unsigned day, hour, min, sec, century, year, mon = 12;

	if (strlen(s) != 29 || memcmp(s + 25, " GMT", 4) != 0)
		return false;
	for (unsigned i = 0; i < 12; i++)
		if (memcmp(s + 8, months + 3 * i, 3) == 0)
			mon = i;
	if (mon == 12 || !two_digits(s + 5, &day) || !two_digits(s + 12, &century) ||
	    !two_digits(s + 14, &year) || !two_digits(s + 17, &hour) ||
	    !two_digits(s + 20, &min) || !two_digits(s + 23, &sec))
		return false;
	*ret = days_from_civil(century * 100 + year, mon + 1, day) * 86400 + hour * 3600 +
	       min * 60 + sec;
	return true;
}

uint32_t http_retry_after_ms(const char *value, int64_t now_unix)
{
	uint64_t seconds;
	int64_t date;

	if (!value)
		return 0;
	if (!str_u64(str_of(value), &seconds)) {
		if (!parse_http_date(value, &date) || date <= now_unix)
			return 0;
		seconds = (uint64_t)(date - now_unix);
	}
	return seconds > LIMIT_RETRY_AFTER_MS / 1000 ? LIMIT_RETRY_AFTER_MS : (uint32_t)seconds * 1000;
}

bool http_parse_content_range(const char *value, struct content_range *ret)
{
	struct content_range r;
	struct str s = str_of(value);

	if (s.n < 6 || !str_caseeq((struct str){ s.p, 6 }, "bytes "))
		return false;
	s.p += 6, s.n -= 6;
	const char *dash = memchr(s.p, '-', s.n), *slash = memchr(s.p, '/', s.n);
	if (!dash || !slash || dash > slash)
		return false;
	struct str total = { slash + 1, (size_t)(s.p + s.n - slash - 1) };
	if (!str_u64((struct str){ s.p, (size_t)(dash - s.p) }, &r.start) ||
	    !str_u64((struct str){ dash + 1, (size_t)(slash - dash - 1) }, &r.end))
		return false;
	if (str_eq(total, "*"))
		r.total = UINT64_MAX;
	else if (!str_u64(total, &r.total))
		return false;
	if (r.end < r.start || r.end >= r.total)
		return false;
	*ret = r;
	return true;
}
