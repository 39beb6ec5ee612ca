// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,-u,mbedtls_gcm_init
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "mirrors.h"
#include "sys.h"

static char top[64];
static struct buf warned = { .max = 64 * KIB };

static void on_warn(void *arg, const char *text)
{
	(void)arg;
	buf_adds(&warned, text);
	buf_addc(&warned, '\n');
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", top, dir);
	int fd = sys_open_dir(path, 0755);
	assert_true(fd >= 0);
	assert_int_equal(sys_replace_file(fd, name, text, strlen(text), 0644, false), 0);
	cleanup_close_fn(&fd);
}

static int read_for(const char *registry, const char *const *urls, bool plain, struct mirrors *ret, struct err *e)
{
	const struct mirrors_options o = { .urls = urls, .hosts_dir = top, .plain_http = plain, .warn = on_warn };
	char text[200];
	struct ref ref;

	snprintf(text, sizeof(text), "%s/a/b:1", registry);
	assert_int_equal(ref_parse(text, &ref, e), 0);
	buf_clear(&warned);
	return mirrors_read(ret, &ref, &o, e);
}

static struct mirrors of(const char *registry, const char *toml, bool plain, const char *const *urls)
{
	struct mirrors m = { 0 };
	struct err e = { 0 };

	put(registry, "hosts.toml", toml);
	if (read_for(registry, urls, plain, &m, &e))
		fail_msg("%s", e.msg);
	return m;
}

static void refused(const char *toml, const char *why)
{
	struct mirrors m = { 0 };
	struct err e = { 0 };

	put("bad.example", "hosts.toml", toml);
	assert_int_equal(read_for("bad.example", NULL, false, &m, &e), -1);
	assert_int_equal(e.code, CODE_USAGE);
	assert_int_equal(m.n, 0);
	if (!strstr(e.msg, "bad.example/hosts.toml, line ") || !strstr(e.msg, why))
		fail_msg("%s", e.msg);
}

static const struct mirror_host *last(const struct mirrors *m)
{
	return &m->hosts[m->n - 1];
}

static void test_none(void **state)
{
	(void)state;
	struct mirrors m = { 0 };
	struct err e;

	assert_int_equal(read_for("none.example:5000", NULL, true, &m, &e), 0);
	assert_int_equal(m.n, 1);
	assert_string_equal(m.hosts[0].base, "http://none.example:5000/v2");
	assert_string_equal(m.hosts[0].name, "none.example:5000");
	assert_true(m.hosts[0].registry && m.hosts[0].pull && m.hosts[0].resolve && !m.hosts[0].from);
	mirrors_release(&m);
}

static void test_fields(void **state)
{
	(void)state;
	struct mirrors m = of("f.example", "server = \"f.example\"\nca = \"/root.pem\"\n"
		"[host.\"https://M.example:5000/p/\"]\ncapabilities = [\"PULL\"]\nca = [\"a.pem\", \"/b.pem\"]\n"
		"client = [[\"c\", \"k\"], \"d\"]\nskip_verify = true\ndial_timeout = \"200ms\"\ncolour = 1\n"
		"[host.\"https://M.example:5000/p/\".header]\nx-a = \"1\"\nx-b = [\"2\", \"3\"]\nrange = \"x\"\n"
		"[host.\"http://n\"]\noverride_path = true\n[host.\"o/v2\"]\nclient = \"both\"\n", false, NULL);
	const struct mirror_host *h = m.hosts;
	char path[200];

	assert_int_equal(m.n, 4);
	assert_string_equal(h->base, "https://M.example:5000/p/v2");
	assert_string_equal(h->name, "m.example:5000");
	assert_string_equal(h->origin, "https://m.example:5000");
	assert_true(h->pull && !h->resolve && h->skip_verify && !h->registry && !h->dragonfly);
	snprintf(path, sizeof(path), "%s/f.example/a.pem", top);
	assert_string_equal(h->ca[0], path);
	assert_string_equal(h->ca[1], "/b.pem");
	assert_null(h->ca[2]);
	assert_true(strstr(h->cert, "/c") && strstr(h->key, "/k"));
	assert_int_equal(h->dial_timeout_ms, 200);
	assert_string_equal(h->headers[0], "x-a: 1");
	assert_string_equal(h->headers[2], "x-b: 3");
	assert_null(h->headers[3]);
	assert_string_equal(m.hosts[1].base, "http://n");
	assert_true(m.hosts[1].pull && m.hosts[1].resolve);
	assert_string_equal(m.hosts[2].base, "https://o/v2");
	assert_string_equal(m.hosts[2].cert, m.hosts[2].key);
	assert_string_equal(last(&m)->ca[0], "/root.pem");
	assert_true(last(&m)->registry);
	assert_string_equal(m.ns, "ns=f.example");
	for (const char *const *w = (const char *const[]){ "'colour'", "range", "first client certificate", "skip_verify", NULL }; *w; w++)
		assert_non_null(strstr(buf_cstr(&warned), *w));
	mirrors_release(&m);
}

static void test_the_registry_itself(void **state)
{
	(void)state;
	static const struct {
		const char *toml, *base;
		size_t n;
		bool registry;
	} cases[] = {
		{ "server = \"http://s.example\"\n", "http://s.example/v2", 1, true },
		{ "server = \"https://s.example:443\"\n", "https://s.example/v2", 1, true },
		{ "server = \"https://s.example:444\"\n", "https://s.example:444/v2", 1, false },
		{ "server = \"https://other\"\n", "https://other/v2", 1, false },
		{ "[host.\"https://s.example\"]\nskip_verify = true\n", "https://s.example/v2", 1, true },
		{ "[host.\"https://s.example\"]\ncapabilities = [\"pull\"]\n", "https://s.example/v2", 2, true },
		{ "[host.\"https://s.example\"]\n[host.\"https://m\"]\n", "https://s.example/v2", 3, true },
		{ "server = \"https://s.example/x\"\noverride_path = true\n", "https://s.example/x", 1, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mirrors m = of("s.example", cases[i].toml, false, NULL);
		assert_int_equal(m.n, cases[i].n);
		assert_string_equal(last(&m)->base, cases[i].base);
		assert_int_equal(last(&m)->registry, cases[i].registry);
		mirrors_release(&m);
	}
	struct mirrors m = of("s.example", "[host.\"https://s.example\"]\nskip_verify = true\n", true, NULL);
	/* --plain-http, and TLS by the file: two ways to the registry */
	assert_int_equal(m.n, 2);
	assert_false(last(&m)->skip_verify);
	mirrors_release(&m);
}

static void test_docker_hub(void **state)
{
	(void)state;
	struct mirrors m = of("docker.io", "server = \"https://docker.io\"\n[host.\"https://m\"]\n"
					   "[host.\"https://registry-1.docker.io\"]\n", false, NULL);

	assert_int_equal(m.n, 2);
	assert_string_equal(last(&m)->base, "https://registry-1.docker.io/v2");
	assert_string_equal(last(&m)->name, "docker.io");
	assert_string_equal(m.ns, "ns=docker.io");
	mirrors_release(&m);
}

static void test_directories(void **state)
{
	(void)state;
	struct mirrors m = { 0 };
	struct err e;
	static const char *const order[] = { "_default", "d.example:5000", "d.example_5000_" };

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		char text[100];
		snprintf(text, sizeof(text), "[host.\"https://h%zu\"]\n", i);
		put(order[i], "hosts.toml", text);
		assert_int_equal(read_for("d.example:5000", NULL, false, &m, &e), 0);
		snprintf(text, sizeof(text), "h%zu", i);
		assert_string_equal(m.hosts[0].name, text);
		mirrors_release(&m);
	}
	put("[::1]_5000_", "hosts.toml", "server = \"https://v6\"\n");
	assert_int_equal(read_for("[::1]:5000", NULL, false, &m, &e), 0);
	assert_string_equal(m.hosts[0].name, "v6");
	assert_string_equal(m.ns, "ns=%5B::1%5D:5000");
	mirrors_release(&m);
	/* Docker's files */
	put("c.example", "b.crt", "");
	put("c.example", "me.cert", "");
	put("c.example", "me.key", "");
	assert_int_equal(read_for("c.example", NULL, false, &m, &e), 0);
	assert_int_equal(m.n, 1);
	assert_true(m.hosts[0].registry && strstr(m.hosts[0].ca[0], "/b.crt") && strstr(m.hosts[0].cert, "/me.cert") &&
		    strstr(m.hosts[0].key, "/me.key"));
	mirrors_release(&m);
}

static const char *header(const struct mirror_host *h, const char *name)
{
	for (size_t i = 0; h->headers && h->headers[i]; i++)
		if (strncmp(h->headers[i], name, strlen(name)) == 0)
			return h->headers[i] + strlen(name) + 2;
	return "";
}

static void test_urls_and_dragonfly(void **state)
{
	(void)state;
	const char *urls[] = { "dragonfly+http://10.0.0.1:4001", "m.example", NULL };
	struct mirrors m = of("u.example:5000", "[host.\"http://q\".header]\nX-Dragonfly-Registry = \"https://u.example:5000\"\n"
			      "[host.\"http://r\".header]\nx-dragonfly-registry = \"https://evil\"\n", false, urls);

	assert_int_equal(m.n, 5);
	assert_true(m.hosts[0].dragonfly && m.hosts[0].on_behalf && m.hosts[0].pull && !m.hosts[0].resolve);
	assert_string_equal(m.hosts[0].base, "http://10.0.0.1:4001/v2");
	assert_string_equal(header(&m.hosts[0], "X-Dragonfly-Registry"), "https://u.example:5000");
	assert_string_equal(header(&m.hosts[0], "X-Dragonfly-Use-P2P"), "true");
	assert_string_equal(header(&m.hosts[0], "X-Dragonfly-Enable-Task-ID-Based-Blob-Digest"), "true");
	assert_string_equal(m.hosts[1].base, "https://m.example/v2");
	assert_true(m.hosts[1].pull && !m.hosts[1].resolve && !m.hosts[1].dragonfly && !m.hosts[1].headers);
	assert_true(m.hosts[2].dragonfly && m.hosts[2].on_behalf && !m.hosts[2].resolve);
	/* whoever gets what dfdaemon asks for must be the one that we know */
	assert_true(m.hosts[3].dragonfly && !m.hosts[3].on_behalf);
	mirrors_release(&m);
	static const char *const bad[] = { "http://u:p@x", "x y", "http://", "http://x?y", "http://x#y", "ftp://x", "dragonfly+s3://x", "" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err e = { 0 };
		assert_int_equal(read_for("u.example:5000", (const char *const[]){ bad[i], NULL }, false, &m, &e), -1);
		assert_true(e.code == CODE_USAGE && strstr(e.msg, "--mirror") && !strstr(e.msg, "u:p"));
	}
}

static void test_refused(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(64 * KIB);

	refused("x", "'='");
	refused("server = 1\n", "an integer instead of a string");
	refused("[host.\"http://a\"]\nca = 1\n", "line 2: 'ca'");
	refused("client = [1]\n", "pairs");
	refused("client = [[\"a\", \"b\", \"c\"]]\n", "pairs");
	refused("header = \"x\"\n", "a table");
	refused("[header]\n\"x:\" = \"y\"\n", "no name of a header");
	refused("[header]\nx = \"a\\nb: c\"\n", "control character");
	refused("[header]\nx = 1\n", "a string");
	refused("capabilities = \"fly\"\n", "an array");
	refused("capabilities = [\"fly\"]\n", "'fly'");
	refused("dial_timeout = \"5\"\n", "dial_timeout");
	refused("dial_timeout = 5\n", "dial_timeout");
	refused("skip_verify = 1\n", "true or false");
	refused("override_path = 1\n", "true or false");
	refused("host = 1\n", "a table");
	refused("[host]\na = 1\n", "a table");
	refused("[host.\"https://u:p@x\"]\n", "no usable address");
	for (int i = 0; i < LIMIT_MIRRORS + 1; i++)
		buf_addf(&b, "[host.\"http://h%d\"]\n", i);
	refused(buf_cstr(&b), "more than");
	buf_release(&b);
}

static int make_top(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/tmp/test-mirrors-XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int remove_top(void **state)
{
	(void)state;
	buf_release(&warned);
	int fd = sys_open_dir("/tmp", 0);
	int rc = sys_remove_tree(fd, top + 5);
	cleanup_close_fn(&fd);
	return rc;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none), cmocka_unit_test(test_fields), cmocka_unit_test(test_the_registry_itself),
		cmocka_unit_test(test_docker_hub), cmocka_unit_test(test_directories), cmocka_unit_test(test_urls_and_dragonfly),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("test_mirrors", tests, make_top, remove_top);
}
