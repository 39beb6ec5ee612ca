// SPDX-License-Identifier: Apache-2.0
/* For the tests of mirrors and limits: more servers, and a transfer that asks them before the registry. */
#ifndef SERVERS_FIXTURE_H
#define SERVERS_FIXTURE_H

#include "stream_fixture.h"

#define MIRRORS 3
#define FIRST_BYTE_MS 400

static struct test_server mirrors[MIRRORS] = {
	{ .lock = PTHREAD_MUTEX_INITIALIZER }, { .lock = PTHREAD_MUTEX_INITIALIZER }, { .lock = PTHREAD_MUTEX_INITIALIZER },
};
static struct blob_server mirror[MIRRORS];
static struct blob_server *list[MIRRORS + 1];
static void (*behaves[MIRRORS])(struct answer *a);
static bool dead[MIRRORS];
static size_t n_mirrors;
static struct http *own;	/* of the mirrors */

static inline int begin_servers(void **state)
{
	const struct http_options o = { .plain = true, .stop = &stop, .user_agent = "fetcher/mirror", .connect_timeout_ms = 2000 };
	struct err e;

	return begin_all(state) || http_new(&own, &o, &e);
}

static inline int end_servers(void **state)
{
	http_free(own);
	return end_all(state);
}

/* One mirror more, before the registry. */
static inline struct blob_server *use(void (*behave)(struct answer *))
{
	static const char *const names[] = { "mirror-a", "mirror-b", "mirror-c" };
	size_t i = n_mirrors++;

	mirror[i] = (struct blob_server){
		.name = names[i], .http = own, .blob_url = blob_url, .arg = &mirrors[i], .mirror = true, .first_byte_ms = FIRST_BYTE_MS,
	};
	behaves[i] = behave;
	dead[i] = false;
	list[i] = &mirror[i];
	list[i + 1] = &run.registry;
	run.o.servers = list;
	run.o.n_servers = n_mirrors + 1;
	return &mirror[i];
}

static inline int before_servers(void **state)
{
	n_mirrors = 0;
	return before(state);
}

static inline int go_servers(void (*behave)(struct answer *))
{
	for (size_t i = 0; i < n_mirrors; i++) {
		start_server(&mirrors[i], behaves[i]);
		if (dead[i])
			stop_server(&mirrors[i]);
	}
	int rc = go(behave);
	for (size_t i = 0; i < n_mirrors; i++)
		if (!dead[i])
			stop_server(&mirrors[i]);
	return rc;
}

/* All is there and right, and no retry was needed. */
static inline void well(void (*behave)(struct answer *))
{
	if (go_servers(behave))
		fail_msg("exit %d: %s", run.e.code, run.e.msg);
	for (size_t i = 0; i < run.n; i++) {
		assert_int_equal(run.sinks[i].verified, 1);
		if (run.items[i].stream)
			good(&run.sinks[i]);
	}
	assert_int_equal(atomic_load(&run.stats.retries), 0);
}

#define TEST(f) cmocka_unit_test_setup(f, before_servers)

#endif
