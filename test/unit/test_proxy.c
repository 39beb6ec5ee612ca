// SPDX-License-Identifier: Apache-2.0
/* Which proxy a URL goes through [K33] [O42], and which hosts are spared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http.h"
#include "proxy.h"

static const char *const variables[] = { "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy",
					 "ALL_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD" };
static struct proxy_env *env;
static struct err err;

static int drop(void **state)
{
	(void)state;
	proxy_env_free(env);
	env = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	return 0;
}

static const struct proxy *ask(const char *url)
{
	proxy_env_free(env);
	env = NULL;
	assert_int_equal(proxy_env_new(&env, &err), 0);
	return proxy_for(env, url);
}

static void goes(const char *url, const char *name, const char *variable)
{
	const struct proxy *p = ask(url);

	assert_non_null(p);
	assert_null(p->fault);
	assert_string_equal(p->name, name);
	assert_string_equal(p->variable, variable);
}

static void bypass(void **state)
{
	static const struct { const char *list, *host; unsigned port; bool want; } cases[] = {
		{ "*", "a.example", 443, true },
		{ "x,*", "a.example", 443, true },
		{ "", "a.example", 443, false },
		{ "example.com", "example.com", 443, true },
		{ "example.com", "www.example.com", 443, true },
		{ "example.com", "nonexample.com", 443, false },
		{ "example.com", "example.com.evil", 443, false },
		{ ".example.com", "example.com", 443, true },
		{ ".example.com", "a.b.example.com", 443, true },
		{ "*.example.com", "a.example.com", 443, true },
		{ "*.example.com", "nonexample.com", 443, false },
		{ "EXAMPLE.com.", "example.COM", 443, true },
		{ "example.com", "example.com.", 443, true },
		{ "a,b , c\td\nexample.com", "example.com", 443, true },
		{ "example.com:443", "example.com", 443, true },
		{ "example.com:443", "example.com", 5000, false },
		{ "example.com:0", "example.com", 0, false },
		{ "example.com:x", "example.com", 443, false },
		{ ".svc:5000,.cluster.local", "registry.ns.svc", 5000, true },
		{ ".svc,.cluster.local", "registry.ns.svc.cluster.local", 80, true },
		{ "svc", "registrysvc", 80, false },
		{ ".", "a", 80, false },
		{ "10.1.2.3", "10.1.2.3", 80, true },
		{ "10.1.2.3", "10.1.2.33", 80, false },
		{ "1.2.3", "0.1.2.3", 80, false }, /* a name's end is no address's */
		{ "10.1.2.3:80", "10.1.2.3", 80, true },
		{ "10.1.2.3:80", "10.1.2.3", 81, false },
		{ "10.0.0.0/8", "10.255.0.1", 80, true },
		{ "10.0.0.0/8", "11.0.0.1", 80, false },
		{ "10.96.0.0/12", "10.111.255.255", 80, true },
		{ "10.96.0.0/12", "10.112.0.0", 80, false },
		{ "10.0.0.0/8:80", "10.0.0.1", 80, true },
		{ "10.0.0.0/8:80", "10.0.0.1", 81, false },
		{ "0.0.0.0/0", "8.8.8.8", 80, true },
		{ "8.8.8.8/32", "8.8.8.8", 80, true },
		{ "8.8.8.8/33", "8.8.8.8", 80, false },
		{ "8.8.8.8/", "8.8.8.8", 80, false },
		{ "8.8.8.8/-1", "8.8.8.8", 80, false },
		{ "10.0.0.0/8", "ten.example", 80, false },
		{ "0.0.0.0/0", "fd00::1", 80, false },
		{ "fd00::1", "fd00:0:0::1", 80, true },
		{ "[fd00::1]", "fd00::1", 80, true },
		{ "[fd00::1]:80", "fd00::1", 80, true },
		{ "[fd00::1]:80", "fd00::1", 81, false },
		{ "[fd00::1", "fd00::1", 80, false },
		{ "fd00::/8", "fdff::1", 80, true },
		{ "[fd00::]/8", "fdff::1", 80, true },
		{ "fd00::/8", "fe80::1", 80, false },
		{ "fd00::/9", "fd7f::1", 80, true },
		{ "fd00::/9", "fd80::1", 80, false },
		{ "::/0", "2001:db8::1", 80, true },
		{ "10.0.0.0/8", "::ffff:10.1.1.1", 80, true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (proxy_bypassed(cases[i].list, cases[i].host, cases[i].port) != cases[i].want)
			fail_msg("no_proxy '%s', %s:%u: not %d", cases[i].list, cases[i].host, cases[i].port, cases[i].want);
}

static void variable(void **state)
{
	(void)state;
	assert_null(ask("https://r.example/"));
	setenv("http_proxy", "http://p:3128", 1);
	goes("http://r.example/", "http://p:3128", "http_proxy");
	assert_null(ask("https://r.example/"));
	setenv("ALL_PROXY", "socks5h://s", 1);
	goes("https://r.example/", "socks5h://s:1080", "ALL_PROXY");
	goes("http://r.example/", "http://p:3128", "http_proxy");
	setenv("HTTPS_PROXY", "https://q", 1);
	goes("https://r.example/", "https://q:443", "HTTPS_PROXY");
	assert_true(proxy_env_wants_tls(env));
	setenv("https_proxy", "", 1); /* empty is not set */
	goes("https://r.example/", "https://q:443", "HTTPS_PROXY");
	setenv("https_proxy", "q:8080/", 1);
	goes("HTTPS://r.example/", "http://q:8080", "https_proxy");
	unsetenv("http_proxy");
	setenv("HTTP_PROXY", "u", 1);
	goes("http://r.example/", "http://u:80", "HTTP_PROXY");
	setenv("REQUEST_METHOD", "GET", 1);
	goes("http://r.example/", "socks5h://s:1080", "ALL_PROXY");
}

static void loopback_is_direct(void **state)
{
	static const char *const hosts[] = { "127.0.0.1", "127.1.2.3:5000", "localhost", "LOCALHOST:5000", "[::1]:5000",
					     "[::ffff:127.0.0.1]" };
	char url[100];

	(void)state;
	setenv("http_proxy", "http://p:3128", 1);
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		snprintf(url, sizeof(url), "http://%s/v2/", hosts[i]);
		if (ask(url))
			fail_msg("%s goes through the proxy", url);
	}
	goes("http://localhost.example/", "http://p:3128", "http_proxy");
	goes("http://[::2]/", "http://p:3128", "http_proxy");
	setenv("no_proxy", "[fd00::1]:5000,r.example:80", 1);
	assert_null(ask("http://[fd00::1]:5000/v2/"));
	assert_null(ask("http://r.example/v2/"));
	assert_non_null(ask("http://r.example:5000/v2/"));
}

static void user_info(void **state)
{
	const struct proxy *p;

	(void)state;
	setenv("https_proxy", "http://us%40er:p%3Aa%2Fss@[fd00::9]:3128/", 1);
	p = ask("https://r.example/");
	assert_non_null(p);
	assert_string_equal(p->user, "us@er");
	assert_string_equal(p->password, "p:a/ss");
	assert_string_equal(p->name, "http://[fd00::9]:3128");
	assert_string_equal(p->host, "fd00::9");
	assert_int_equal(p->port, 3128);
}

static void faults(void **state)
{
	static const char *const bad[] = { "http://", "ftp://p:1", "http://u:secret@[::1", "http://u:se%0acret@p:1", "http://p:99999",
					   "://", "http://a b/", "file:///etc/passwd" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		setenv("http_proxy", bad[i], 1);
		const struct proxy *p = ask("http://r.example/");
		if (!p || !p->fault || strstr(p->fault, "secret"))
			fail_msg("'%s' was taken, or repeated", bad[i]);
	}
}

/* Metadata services are no proxy's business: the request fails where it is, and the message does not know of a proxy. */
static void request_without_proxy(void **state)
{
	const struct http_options o = { .plain = true };
	struct http_request q = { .method = "GET", .url = "http://169.254.169.254.invalid:1/", .no_proxy = true };
	const char *const resolve[] = { "*:1:127.0.0.1", NULL };
	struct http_options with = o;
	struct http_response r = { 0 };
	struct http *h;

	(void)state;
	setenv("http_proxy", "http://proxy.invalid:1", 1);
	with.resolve = resolve;
	assert_int_equal(http_new(&h, &with, &err), 0);
	assert_int_equal(http_fetch(h, &q, &r, &err), -1);
	assert_null(strstr(err.msg, "proxy"));
	q.no_proxy = false;
	assert_int_equal(http_fetch(h, &q, &r, &err), -1);
	if (!strstr(err.msg, "proxy.invalid:1 (from http_proxy)"))
		fail_msg("%s", err.msg);
	assert_true(err.retryable);
	http_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(bypass, drop),
		cmocka_unit_test_teardown(variable, drop),
		cmocka_unit_test_teardown(loopback_is_direct, drop),
		cmocka_unit_test_teardown(user_info, drop),
		cmocka_unit_test_teardown(faults, drop),
		cmocka_unit_test_teardown(request_without_proxy, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
