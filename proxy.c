// SPDX-License-Identifier: Apache-2.0
#include "proxy.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "buf.h"
#include "secret.h"

struct proxy_env {
	struct proxy http, https;	/* variable NULL = none */
	char *bypass;			/* no_proxy, or NULL */
};

/* --- no_proxy --- */

struct address {
	unsigned char bytes[16];
	unsigned bits;		/* 32, 128; 0 = no address */
};

/* IPv4 in IPv6's clothes counts as IPv4. */
static struct address parse_address(struct str s)
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct address a = { 0 };
	char text[INET6_ADDRSTRLEN];

	if (s.n >= sizeof(text))
		return a;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	if (inet_pton(AF_INET, text, a.bytes) == 1) {
		a.bits = 32;
	} else if (inet_pton(AF_INET6, text, a.bytes) == 1) {
		a.bits = 128;
		if (memcmp(a.bytes, mapped, sizeof(mapped)) == 0) {
			memmove(a.bytes, a.bytes + 12, 4);
			a.bits = 32;
		}
	}
	return a;
}

static bool same_prefix(const struct address *a, const struct address *b, uint64_t bits)
{
	unsigned rest = bits % 8;

	if (a->bits != b->bits || bits > a->bits || memcmp(a->bytes, b->bytes, bits / 8) != 0)
		return false;
	return !rest || !((a->bytes[bits / 8] ^ b->bytes[bits / 8]) & (0xff << (8 - rest) & 0xff));
}

/* Takes ":PORT" off an entry. Returns 0 for none, UINT64_MAX for one that is none. */
static uint64_t take_port(struct str *s)
{
	const char *colon = memrchr(s->p, ':', s->n);
	uint64_t port;

	if (s->n && s->p[0] == '[') {
		const char *end = memchr(s->p, ']', s->n);
		if (!end || (end + 1 < s->p + s->n && end[1] != ':' && end[1] != '/'))
			return UINT64_MAX;
		if (end + 1 == s->p + s->n || end[1] == '/')
			return 0;
		colon = end + 1;
	} else if (!colon || memchr(s->p, ':', (size_t)(colon - s->p))) {
		return 0; /* none, or an IPv6 address without brackets */
	}
	if (!str_u64((struct str){ colon + 1, (size_t)(s->p + s->n - colon - 1) }, &port) || !port || port > 65535)
		return UINT64_MAX;
	s->n = (size_t)(colon - s->p);
	return port;
}

static bool address_matches(struct str entry, const struct address *host)
{
	const char *slash = memchr(entry.p, '/', entry.n);
	struct str text = { entry.p, slash ? (size_t)(slash - entry.p) : entry.n };
	uint64_t bits;

	if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
		text.p++, text.n -= 2;
	struct address a = parse_address(text);
	if (!slash)
		return a.bits && same_prefix(&a, host, a.bits);
	return a.bits && str_u64((struct str){ slash + 1, (size_t)(entry.p + entry.n - slash - 1) }, &bits) &&
	       same_prefix(&a, host, bits);
}

static bool name_matches(struct str entry, struct str host)
{
	if (entry.n >= 2 && entry.p[0] == '*' && entry.p[1] == '.')
		entry.p++, entry.n--;
	if (entry.n && entry.p[0] == '.')
		entry.p++, entry.n--;
	if (entry.n && entry.p[entry.n - 1] == '.')
		entry.n--;
	if (!entry.n || entry.n > host.n || strncasecmp(host.p + host.n - entry.n, entry.p, entry.n) != 0)
		return false;
	return entry.n == host.n || host.p[host.n - entry.n - 1] == '.';
}

bool proxy_bypassed(const char *list, const char *host, unsigned port)
{
	struct address address = parse_address(str_of(host));
	struct str name = str_of(host);

	if (name.n && name.p[name.n - 1] == '.')
		name.n--;
	for (const char *p = list; *p;) {
		struct str entry = { p, strcspn(p, ", \t\r\n") };
		p += entry.n + (p[entry.n] != '\0');
		if (str_eq(entry, "*"))
			return true;
		uint64_t only = take_port(&entry);
		if (!entry.n || (only && only != port))
			continue;
		if (address.bits ? address_matches(entry, &address) : name_matches(entry, name))
			return true;
	}
	return false;
}

/* --- the variables --- */

static const char *from_environment(const char *const *names, const char **ret_name)
{
	for (; *names; names++) {
		const char *value = getenv(*names);
		if (value && *value) {
			*ret_name = *names;
			return value;
		}
	}
	return NULL;
}

static void proxy_release(struct proxy *p)
{
	free(p->name);
	free(p->host);
	secret_free(p->user);
	secret_free(p->password);
}

static bool known_scheme(const char *scheme, unsigned *ret_port)
{
	static const struct { const char *scheme; unsigned port; } known[] = {
		{ "http", 80 }, { "https", 443 }, { "socks4", 1080 }, { "socks4a", 1080 },
		{ "socks5", 1080 }, { "socks5h", 1080 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcasecmp(scheme, known[i].scheme) == 0) {
			*ret_port = known[i].port;
			return true;
		}
	}
	return false;
}

/* A part of the URL as a copy of ours; NULL: it has none, or no memory. */
static char *url_part(CURLU *u, CURLUPart which, unsigned flags)
{
	char *part = NULL, *copy;

	if (curl_url_get(u, which, &part, flags) != CURLUE_OK)
		return NULL;
	copy = strdup(part);
	explicit_bzero(part, strlen(part));
	curl_free(part);
	return copy;
}

/* libcurl decodes none that holds a control character: that would be a second header line. */
static bool has(CURLU *u, CURLUPart which)
{
	char *part = NULL;
	bool there = curl_url_get(u, which, &part, 0) == CURLUE_OK;

	if (there)
		explicit_bzero(part, strlen(part));
	curl_free(part);
	return there;
}

static const char *parse_parts(struct proxy *p, CURLU *u)
{
	_cleanup_free_ char *scheme = url_part(u, CURLUPART_SCHEME, 0), *port = url_part(u, CURLUPART_PORT, 0);
	uint64_t number;

	p->host = url_part(u, CURLUPART_HOST, 0);
	p->user = url_part(u, CURLUPART_USER, CURLU_URLDECODE);
	p->password = url_part(u, CURLUPART_PASSWORD, CURLU_URLDECODE);
	if (!scheme || !p->host || !*p->host)
		return "it names no host";
	if (!known_scheme(scheme, &p->port))
		return "its scheme is none of http, https, socks4, socks4a, socks5, socks5h";
	if (port && str_u64(str_of(port), &number) && number <= 65535)
		p->port = (unsigned)number;
	if ((!p->user && has(u, CURLUPART_USER)) || (!p->password && has(u, CURLUPART_PASSWORD)))
		return "its user name or password holds a control character";
	p->tls = strcasecmp(scheme, "https") == 0;
	if (asprintf(&p->name, "%s://%s:%u", scheme, p->host, p->port) < 0) {
		p->name = NULL;
		return "out of memory";
	}
	size_t n = strlen(p->host);
	if (n > 2 && p->host[0] == '[') {
		memmove(p->host, p->host + 1, n - 2);
		p->host[n - 2] = '\0';
	}
	return NULL;
}

static int parse_proxy(struct proxy *p, const char *value, struct err *e)
{
	CURLU *u = curl_url();
	char *url = NULL;

	if (!u || asprintf(&url, "%s%s", strstr(value, "://") ? "" : "http://", value) < 0) {
		curl_url_cleanup(u);
		return err_oom(e);
	}
	if (strlen(url) > LIMIT_URL || curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		p->fault = "it is no URL such as http://proxy.example.com:3128";
	else
		p->fault = parse_parts(p, u);
	curl_url_cleanup(u);
	secret_free(url);
	return 0;
}

int proxy_env_new(struct proxy_env **ret, struct err *e)
{
	static const char *const http[] = { "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", NULL };
	static const char *const http_cgi[] = { "http_proxy", "all_proxy", "ALL_PROXY", NULL };
	static const char *const https[] = { "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", NULL };
	static const char *const none[] = { "no_proxy", "NO_PROXY", NULL };
	struct proxy_env *env = calloc(1, sizeof(*env));
	const char *value, *name;

	if (!env)
		return err_oom(e);
	value = from_environment(getenv("REQUEST_METHOD") ? http_cgi : http, &env->http.variable);
	if (value && parse_proxy(&env->http, value, e))
		goto fail;
	value = from_environment(https, &env->https.variable);
	if (value && parse_proxy(&env->https, value, e))
		goto fail;
	value = from_environment(none, &name);
	if (value && !(env->bypass = strdup(value))) {
		err_oom(e);
		goto fail;
	}
	*ret = env;
	return 0;
fail:
	proxy_env_free(env);
	return -1;
}

void proxy_env_free(struct proxy_env *env)
{
	if (!env)
		return;
	proxy_release(&env->http);
	proxy_release(&env->https);
	free(env->bypass);
	free(env);
}

bool proxy_env_wants_tls(const struct proxy_env *env)
{
	return (env->http.variable && env->http.tls) || (env->https.variable && env->https.tls);
}

static bool is_loopback(const char *host)
{
	static const unsigned char one[16] = { [15] = 1 };
	struct address a = parse_address(str_of(host));

	if (a.bits == 32)
		return a.bytes[0] == 127;
	if (a.bits == 128)
		return memcmp(a.bytes, one, sizeof(one)) == 0;
	return strcasecmp(host, "localhost") == 0 || strcasecmp(host, "localhost.") == 0;
}

const struct proxy *proxy_for(const struct proxy_env *env, const char *url)
{
	const struct proxy *p = strncasecmp(url, "https:", 6) == 0 ? &env->https : &env->http;
	char *host = NULL, *port = NULL;
	uint64_t number = 0;

	if (!p->variable)
		return NULL;
	CURLU *u = curl_url();
	if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK) {
		host = url_part(u, CURLUPART_HOST, 0);
		port = url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
	}
	curl_url_cleanup(u);
	if (host && port && str_u64(str_of(port), &number)) {
		size_t n = strlen(host);
		if (n > 2 && host[0] == '[') {
			memmove(host, host + 1, n - 2);
			host[n - 2] = '\0';
		}
		if (is_loopback(host) || (env->bypass && proxy_bypassed(env->bypass, host, (unsigned)number)))
			p = NULL;
	}
	free(host);
	free(port);
	return p;
}
