// SPDX-License-Identifier: Apache-2.0
/* What transfer.c does not do to servers: more connections than a host bears, more bytes a second than were allowed, asking too early. */
#include "servers_fixture.h"

static int status;

static void lacks_the_first(struct answer *a)
{
	if (a->content == 0)
		a->status = 404;
}

static uint64_t limited_ms;
static unsigned too_early;

/* Retry-After of one answer; what was on its way already may still come. */
static void limits(struct answer *a)
{
	uint64_t now = sys_now_ms();

	if (!limited_ms && a->number == 6) {
		limited_ms = now;
		a->status = status;
		a->header = "Retry-After: 2";
	} else if (limited_ms && now > limited_ms + 500 && now < limited_ms + 1900) {
		too_early++;
	}
}

/* All connections, of all blobs, leave that host alone. [O34] */
static void retry_after_holds_all(void **state)
{
	static const int all[] = { 429, 503, 403 };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		before_servers(state);
		limited_ms = too_early = 0;
		status = all[i];
		run.o.memory_budget = 32 * MIB;
		for (size_t k = 0; k < 3; k++)
			add_as(k % 2, data + k, 4 * MIB, DIGEST_SHA256);
		go_well(limits);
		assert_true(limited_ms > 0);
		assert_int_equal(too_early, 0);
		assert_true(sys_now_ms() >= limited_ms + 1900);
		assert_int_equal(atomic_load(&run.stats.retries), 1);
	}
}

static void limits_in_words(struct answer *a)
{
	static const char *const words[] = {
		"{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"later\"}]}",
		"You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
	};

	if (a->number == 3 || a->number == 5) {
		a->status = a->number == 3 ? 400 : 403;
		a->body = words[a->number == 5];
	}
}

/* GHCR's secondary limit, and codes under odd statuses. [A8] [O33] */
static void rate_limits_in_words(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(limits_in_words);
	assert_true(atomic_load(&run.stats.retries) > 0);
}

static void forbidden(struct answer *a)
{
	a->status = 403;
	a->body = a->number % 2 ? "{\"errors\":[{\"code\":\"DENIED\"}]}" : "";
}

static void forbidden_is_no_rate_limit(void **state)
{
	(void)state;
	add(data, BIG);
	go_wrong(forbidden, CODE_AUTH);
}

static void takes_a_while(struct answer *a)
{
	a->wait_ms = 20;
}

static void connections_per_host(void **state)
{
	for (unsigned most = 1; most <= 5; most += 2) {
		before_servers(state);
		use(takes_a_while);
		run.o.max_per_host = most;
		run.o.memory_budget = 32 * MIB;
		for (size_t k = 0; k < 4; k++)
			add_as(k % 2, data + k, 5 * MIB, DIGEST_SHA256);
		behaves[0] = lacks_the_first;
		well(takes_a_while);
		assert_in_range(server.most_open, 1, most);
		assert_in_range(mirrors[0].most_open, 1, most);
	}
}

static void rate_is_kept(void **state)
{
	static const uint64_t rates[] = { 3 * MIB, 6 * MIB };

	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		before_servers(state);
		add_as(i, data, BIG, DIGEST_SHA256);
		run.o.rate_limit = rates[i];
		run.o.stall_timeout_ms = 1000;
		run.o.speed_limit = 100 * MIB; /* each second; it is we who are slow */
		run.o.speed_time_ms = 1000;
		uint64_t start = sys_now_ms();
		go_well(NULL);
		uint64_t took = sys_now_ms() - start, want = BIG * 1000 / rates[i];
		assert_true(took >= want * 9 / 10);
		assert_int_equal(atomic_load(&run.stats.retries), 0);
		assert_true(server.n_requests <= BIG / RANGE + 8); /* nothing is shared or hedged */
	}
}

static void one_body_at_a_low_rate(void **state)
{
	(void)state;
	add(data, 300 * KIB);
	run.o.rate_limit = 100 * KIB;
	uint64_t start = sys_now_ms();
	go_well(NULL);
	assert_true(sys_now_ms() - start >= 2600);
}

static void tick_stops(void *arg)
{
	(void)arg;
	if (atomic_load(&run.stats.done))
		atomic_store(&stop, CODE_SIGTERM);
}

static void stops_while_the_rate_makes_wait(void **state)
{
	(void)state;
	add(data, BIG);
	run.o.rate_limit = KIB;
	run.o.tick = tick_stops;
	go_wrong(NULL, CODE_SIGTERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(retry_after_holds_all), TEST(rate_limits_in_words), TEST(forbidden_is_no_rate_limit),
		TEST(connections_per_host), TEST(rate_is_kept), TEST(one_body_at_a_low_rate),
		TEST(stops_while_the_rate_makes_wait),
	};

	return cmocka_run_group_tests(tests, begin_servers, end_servers);
}
