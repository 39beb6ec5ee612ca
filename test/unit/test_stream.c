// SPDX-License-Identifier: Apache-2.0
/* Streaming items of transfer.c against a server on sockets of this program: the bytes a consumer sees, whatever happens. */
#include "stream_fixture.h"

/* --- answers --- */

static unsigned times;	/* how often the answers below are bad */

static void ignores_ranges(struct answer *a)
{
	a->whole = true;
}

static void ignores_ranges_later(struct answer *a)
{
	a->whole = a->number > 2;
}

static void flips(struct answer *a)
{
	if (a->start <= 5 * MIB && a->end > 5 * MIB && times && times--)
		a->flip_at = 5 * MIB;
}

static void cuts(struct answer *a)
{
	if (a->number % 3 == 0)
		a->cut_at = 100000;
}

static void resets(struct answer *a)
{
	a->cut_at = a->number % 2 ? 70000 : UINT64_MAX;
	a->reset = true;
}

/* The whole body each time, and only the fourth time all of it. */
static void cuts_whole(struct answer *a)
{
	a->whole = true;
	if (a->number < 4)
		a->cut_at = a->number * 2 * MIB;
}

static void cuts_whole_once(struct answer *a)
{
	a->whole = true;
	if (a->number == 1)
		a->cut_at = 2 * MIB;
}

static void says_less(struct answer *a)
{
	if (a->number == 2)
		a->length = 1000;
}

static void hangs_once(struct answer *a)
{
	if (a->number == 4) {
		a->cut_at = 1000;
		a->hang = true;
	}
}

/* Two hang, each with half of its range; what is behind them fills the window. */
static void hangs_together(struct answer *a)
{
	if (a->start >= 2 * MIB && a->start < 4 * MIB && a->start % MIB == 0) {
		a->cut_at = (a->end - a->start) / 2;
		a->hang = true;
	}
}

static void hangs(struct answer *a)
{
	a->cut_at = 3 * MIB;
	a->hang = true;
	a->whole = true;
}

static char elsewhere[64];

static void redirects(struct answer *a)
{
	if (a->content != 0)
		return;
	a->status = 307;
	snprintf(elsewhere, sizeof(elsewhere), "http://127.0.0.1:%u/1", server.port);
	a->location = elsewhere;
}

static void overloaded(struct answer *a)
{
	if (a->number == 3 || a->number == 5)
		a->status = 503;
}

/* --- right bytes --- */

static void ranges_in_parallel(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	go_well(NULL);
	assert_int_equal(s->runs, 1);
	assert_int_equal(s->starts, 1);
	assert_int_equal(s->agains, 0);
	assert_int_equal(server.n_ranged, server.n_requests);
	assert_true(server.n_requests >= BIG / RANGE);
	assert_true(server.n_sockets > 1);
}

static void default_options(void **state)
{
	(void)state;
	add(data, BIG);
	run.o.range_size = run.o.memory_budget = run.o.connections = run.o.lanes = 0;
	go_well(NULL);
}

static void callbacks_are_optional(void **state)
{
	(void)state;
	add(data, BIG);
	run.streams[0].start = NULL;
	run.streams[0].again = NULL;
	times = 1;
	go_well(flips);
	assert_int_equal(run.sinks[0].runs, 2);
}

/* Nothing beyond the window is asked for while the consumer has its first piece. */
static void look_at_window(struct sink *s)
{
	uint64_t read = atomic_load(&s->read);

	wait_for_done(WINDOW - RANGE);
	sys_sleep_ms(200);
	assert_true(atomic_load(&run.stats.done) <= WINDOW);
	assert_int_equal(atomic_load(&s->read), read);
}

static atomic_uint beyond;	/* ranges that the window has no place for */

static void watches_ends(struct answer *a)
{
	if (a->end > atomic_load(&run.sinks[0].read) + WINDOW)
		atomic_fetch_add(&beyond, 1);
}

static void window_bounds_ranges(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	atomic_store(&beyond, 0);
	s->slow = look_at_window;
	go_well(watches_ends);
	assert_int_equal(atomic_load(&beyond), 0);
}

/* A whole body: the connection waits for the consumer, longer than a stall may last, and is not asked for again. */
static void linger(struct sink *s)
{
	look_at_window(s);
	sys_sleep_ms(1500);
}

static void whole_body_waits(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	s->slow = linger;
	run.o.stall_timeout_ms = 500;
	run.o.speed_limit = 100 * MIB;
	run.o.speed_time_ms = 500;
	run.o.retry_budget_ms = 500;
	go_well(ignores_ranges);
	assert_int_equal(server.n_requests, 1);
	assert_int_equal(atomic_load(&run.stats.retries), 0);
}

static void rest(struct sink *s)
{
	(void)s;
	sys_sleep_ms(1500);
}

/* A consumer that takes its time after a retry: the network has no time budget to exceed meanwhile. */
static void slow_after_trouble(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	s->slow = rest;
	s->slow_at = 3 * MIB;
	run.o.retry_budget_ms = 700;
	go_well(cuts_whole_once);
	assert_int_equal(atomic_load(&run.stats.retries), 1);
}

static void ranges_forgotten(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(ignores_ranges_later);
}

static void bodies_end_early(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(cuts);
	assert_true(atomic_load(&run.stats.retries) > 0);
}

static void connections_reset(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(resets);
	assert_true(atomic_load(&run.stats.retries) > 0);
}

/* What was consumed is sent again and dropped. */
static void whole_bodies_end_early(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	go_well(cuts_whole);
	assert_int_equal(s->runs, 1);
	assert_int_equal(server.n_requests, 4);
}

static void wrong_length(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(says_less);
}

static void hedged(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(hangs_once);
}

static void hedged_where_the_window_ends(void **state)
{
	(void)state;
	run.o.range_size = MIB;
	add(data, BIG);
	go_well(hangs_together);
	assert_int_equal(atomic_load(&run.stats.retries), 0); /* no stall was waited for */
}

/* --- a consumer that is slower than the line --- */

#define HUGE (40 * MIB)	/* too large for a single plain request */

static uint64_t slow_until;
static atomic_uint beyond_window, inside_window;	/* requests for more than the window holds, and for less after these */

static void takes_its_time(struct sink *s)
{
	sys_sleep_ms(50);
	if (atomic_load(&s->read) < slow_until)
		s->slow = takes_its_time;
}

static void count_long(struct answer *a)
{
	if (a->end - a->start > WINDOW)
		atomic_fetch_add(&beyond_window, 1);
	else if (atomic_load(&beyond_window))
		atomic_fetch_add(&inside_window, 1);
}

/* The first request beyond the window: it stops in the middle. */
static void hangs_when_long(struct answer *a)
{
	count_long(a);
	if (a->end - a->start <= WINDOW || atomic_load(&beyond_window) > 1)
		return;
	a->cut_at = WINDOW;
	a->hang = true;
}

static void go_slowly(uint64_t until, void (*behave)(struct answer *))
{
	uint8_t *huge = malloc(HUGE);

	assert_non_null(huge);
	for (size_t at = 0; at < HUGE; at += MIB)
		memcpy(huge + at, data + at % (8 * MIB), MIB);
	struct sink *s = add(huge, HUGE);
	run.o.range_size = 0;
	s->slow = takes_its_time;
	slow_until = until;
	atomic_store(&beyond_window, 0);
	atomic_store(&inside_window, 0);
	go_well(behave);
	free(huge);
}

/* One connection, which waits for the consumer, and not a request for each MiB. */
static void few_requests_for_a_slow_consumer(void **state)
{
	(void)state;
	go_slowly(HUGE, count_long);
	assert_true(atomic_load(&beyond_window) >= 1);
	assert_true(server.n_requests < HUGE / MIB / 2);
}

/* Then the consumer waits for that connection: others are asked for what is behind its next bytes. */
static void a_long_range_is_cut_back(void **state)
{
	(void)state;
	go_slowly(8 * MIB, hangs_when_long);
	assert_true(atomic_load(&beyond_window) >= 1);
	assert_true(atomic_load(&inside_window) >= 1);
	assert_int_equal(atomic_load(&run.stats.retries), 0); /* no stall was waited for */
}

static void redirected(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	server.content[1] = server.content[0];
	server.n_content = 2;
	go_well(redirects);
	assert_int_equal(s->runs, 1);
}

static void refused_for_now(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(overloaded);
}

static void sizes(void **state)
{
	static const size_t n[] = { 1, 10, 63, 64, 65, 65535, 65536, 65537, RANGE, RANGE + 1, MIB, MIB + 1,
				    4 * MIB, 4 * MIB + 1 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(n); i++)
		add(data + i, n[i]);
	go_well(NULL);
}

static void sha512(void **state)
{
	(void)state;
	add_as(true, data, BIG, DIGEST_SHA512);
	go_well(NULL);
}

/* Two streams and files, large and small, at once. */
static void beside_files(void **state)
{
	(void)state;
	run.o.memory_budget = 32 * MIB;
	run.o.blob.journal = true;
	add(data, BIG);
	add_as(false, data + 1, BIG - 1, DIGEST_SHA256);
	add(data + 2, BIG - 2);
	for (size_t i = 3; i < 12; i++)
		add_as(i % 2, data + i, 1000 * i, DIGEST_SHA256);
	go_well(cuts);
}

static void wait_a_little(struct sink *s)
{
	(void)s;
	sys_sleep_ms(50);
}

static void little_memory(void **state)
{
	(void)state;
	for (size_t i = 0; i < 4; i++)
		add(data + i, 5 * MIB)->slow = wait_a_little;
	go_well(NULL);
	assert_int_equal(atomic_load(&sinks_most), 1); /* a budget of 4 MiB is one window */
}

static void no_more_than_lanes(void **state)
{
	(void)state;
	run.o.memory_budget = 64 * MIB;
	for (size_t i = 0; i < 8; i++)
		add(data + i, 5 * MIB)->slow = wait_a_little;
	go_well(NULL);
	assert_in_range(atomic_load(&sinks_most), 2, 3);
}

static void one_connection(void **state)
{
	(void)state;
	run.o.connections = 1;
	run.o.memory_budget = 32 * MIB;
	for (size_t i = 0; i < 3; i++)
		add(data + i, 5 * MIB)->slow = wait_a_little;
	go_well(ignores_ranges);
}

static void many(void **state)
{
	(void)state;
	run.o.memory_budget = 16 * MIB;
	for (size_t i = 0; i < CONTENTS; i++)
		add(data + i, 2000 + 10 * i);
	go_well(NULL);
}

/* --- wrong bytes --- */

static void wrong_once(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	times = 1;
	go_well(flips);
	assert_int_equal(s->runs, 2);
	assert_int_equal(s->agains, 1);
	assert_int_equal(s->starts, 1);
	assert_int_equal(server.n_requests, server.n_ranged + 1); /* the second time as one stream */
	assert_int_equal(atomic_load(&run.warned), 1);
}

static void wrong_twice(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	times = 2;
	go_wrong(flips, CODE_INTEGRITY);
	assert_non_null(strstr(run.e.msg, "hash to sha256:"));
	assert_int_equal(s->runs, 2);
	assert_int_equal(s->agains, 2);
	assert_int_equal(s->verified, 0);
}

/* What the consumer says of wrong bytes is not to be believed. */
static void judged_by_wrong_bytes(void **state)
{
	static const enum code codes[] = { CODE_INTEGRITY, CODE_UNSAFE, CODE_UNSUPPORTED };

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		before(state);
		struct sink *s = add(data, BIG);
		s->fail_at = 5 * MIB;
		s->fail_code = codes[i];
		s->fail_runs = 1;
		times = 1;
		go_well(flips);
		assert_int_equal(s->runs, 2);
		assert_int_equal(s->agains, 1);
	}
}

/* --- consumers --- */

static void judged_by_right_bytes(void **state)
{
	static const enum code codes[] = { CODE_INTEGRITY, CODE_UNSAFE, CODE_UNSUPPORTED };

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		before(state);
		struct sink *s = add(data, BIG);
		s->fail_at = 100;
		s->fail_code = codes[i];
		go_wrong(NULL, codes[i]);
		assert_string_equal(run.e.msg, "the consumer does not like it");
		assert_int_equal(s->runs, 1);
		assert_int_equal(s->agains, codes[i] == CODE_INTEGRITY);
		assert_int_equal(s->verified, 0);
		assert_int_equal(atomic_load(&run.stats.done), BIG);
	}
}

/* What it says holds whatever the digest: the rest is not waited for. */
static void judged_by_first_bytes(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	s->fail_at = 100;
	s->fail_code = CODE_UNSUPPORTED;
	s->fail_certain = true;
	go_wrong(NULL, CODE_UNSUPPORTED);
	assert_int_equal(s->runs, 1);
	assert_true(atomic_load(&run.stats.done) < BIG);
}

static void consumer_fails(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	s->fail_at = 100;
	s->fail_code = CODE_SPACE;
	go_wrong(NULL, CODE_SPACE);
	assert_string_equal(run.e.msg, "the consumer does not like it");
	assert_int_equal(s->runs, 1);
	assert_int_equal(s->agains, 0);
	assert_true(atomic_load(&run.stats.done) < BIG);
}

static void consumer_has_enough(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	s->end_at = 1;
	go_well(NULL);
	assert_true(atomic_load(&s->read) < BIG);
}

static void consumer_has_enough_of_wrong_bytes(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	s->end_at = 1;
	times = 2;
	go_wrong(flips, CODE_INTEGRITY);
	assert_int_equal(s->runs, 2);
}

/* --- ends --- */

static void tick_stops(void *arg)
{
	(void)arg;
	if (atomic_load(&run.sinks[0].read) >= 2 * MIB)
		atomic_store(&stop, CODE_SIGTERM);
}

static void stop_while_consumer_waits(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	run.o.tick = tick_stops;
	go_wrong(hangs, CODE_SIGTERM);
	assert_int_equal(s->last_read, -1);
	assert_int_equal(s->stop.code, CODE_SIGTERM);
	assert_int_equal(s->runs, 1);
	assert_int_equal(s->agains, 0);
}

static void stop_now(struct sink *s)
{
	look_at_window(s);
	atomic_store(&stop, CODE_SIGINT);
	for (unsigned ms = 0; ms < 300; ms++) /* as somebody who writes a large file */
		sys_sleep_ms(1);
}

static void stop_while_paused(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	s->slow = stop_now;
	go_wrong(ignores_ranges, CODE_SIGINT);
	assert_int_equal(s->last_read, -1);
	assert_int_equal(s->verified, 0);
}

static void deadline(void **state)
{
	struct sink *s = add(data, BIG);

	(void)state;
	run.o.deadline_ms = sys_now_ms() + 500;
	go_wrong(hangs, CODE_DEADLINE);
	assert_int_equal(s->stop.code, CODE_DEADLINE);
}

/* One item's failure ends the consumers of the others. */
static void failure_elsewhere(void **state)
{
	struct sink *s = add(data, BIG), *other = add(data + 1, BIG - 1);

	(void)state;
	run.o.memory_budget = 16 * MIB;
	other->fail_at = 1;
	other->fail_code = CODE_LOCAL;
	go_wrong(hangs, CODE_LOCAL);
	assert_int_equal(s->verified, 0);
	if (s->runs)
		assert_int_equal(s->stop.code, CODE_LOCAL);
}

static void keeps_failing(void **state)
{
	(void)state;
	add(data, BIG);
	run.o.stall_timeout_ms = 200;
	run.o.retry_budget_ms = 1000;
	go_wrong(hangs, CODE_DEADLINE);
}

/* --- checkpoints --- */

static struct {
	uint64_t asked, at;
	uint8_t state[HASHER_STATE_MAX];
	int behind;	/* what was said of a place too far back */
} point;

static void take_checkpoint(struct sink *s)
{
	uint64_t at;
	uint8_t state[HASHER_STATE_MAX];

	point.asked = atomic_load(&s->read) - 10;
	assert_int_equal(transfer_stream_state(s->src, point.asked, &point.at, point.state), 0);
	point.behind = s->begins > 0 ? transfer_stream_state(s->src, s->begins - 1, &at, state) : -1;
}

static void check_state(enum digest_alg alg)
{
	struct hasher h;
	struct digest got;

	assert_true(point.at <= point.asked);
	assert_int_equal(point.at % (alg == DIGEST_SHA512 ? 128 : 64), 0);
	hasher_import(&h, alg, point.at, point.state);
	hasher_update(&h, data + point.at, BIG - point.at);
	hasher_final(&h, &got);
	assert_true(digest_equal(&run.items[0].digest, &got));
}

/* A run fails after a checkpoint; the next one goes on from there, and from a checkpoint of its own. */
static void resumes_with(void (*behave)(struct answer *), enum digest_alg alg, void **state)
{
	uint64_t at = 0;

	memset(&point, 0, sizeof(point));
	for (uint64_t part = 1; part <= 3; part++) {
		before(state);
		struct sink *s = add_as(true, data, BIG, alg);
		s->start_at = at;
		memcpy(s->start_state, point.state, sizeof(s->start_state));
		s->slow = take_checkpoint;
		s->slow_at = part * 3 * MIB + 77;
		if (part == 3) {
			go_well(behave);
		} else {
			s->fail_at = s->slow_at;
			s->fail_code = CODE_LOCAL;
			go_wrong(behave, CODE_LOCAL);
		}
		check_state(alg);
		assert_int_equal(point.behind, -1);
		assert_true(point.at > at);
		at = point.at;
	}
}

static void resumes(void **state)
{
	resumes_with(NULL, DIGEST_SHA256, state);
	assert_true(atomic_load(&run.stats.wire) < 6 * MIB);
	resumes_with(NULL, DIGEST_SHA512, state);
	resumes_with(cuts, DIGEST_SHA256, state);
	resumes_with(ignores_ranges, DIGEST_SHA256, state);
}

static struct sink *add_resumed(uint64_t at, const uint8_t *before_it, size_t n)
{
	struct sink *s = add(data, n);
	struct hasher h;

	hasher_init(&h, DIGEST_SHA256);
	hasher_update(&h, before_it, at);
	s->start_at = hasher_export(&h, s->start_state);
	return s;
}

static void resumes_at_the_end(void **state)
{
	(void)state;
	struct sink *s = add_resumed(2 * MIB, data, 2 * MIB);
	assert_int_equal(s->start_at, 2 * MIB);
	go_well(NULL);
	assert_int_equal(server.n_requests, 0);
}

/* The checkpoint was of other bytes: from the start, without asking for it again. */
static void resumes_on_wrong_bytes(void **state)
{
	(void)state;
	struct sink *s = add_resumed(2 * MIB, data + 1, BIG);
	go_well(NULL);
	assert_int_equal(s->runs, 2);
	assert_int_equal(s->agains, 1);
	assert_int_equal(s->starts, 1);
	assert_int_equal(s->begins, 0);
}

static void resumes_nowhere(void **state)
{
	static const uint64_t bad[] = { 1, 65, BIG + 64 - BIG % 64, UINT64_MAX - 63 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		before(state);
		struct sink *s = add(data, BIG);
		s->start_at = bad[i];
		go_wrong(NULL, CODE_INTERNAL);
		assert_int_equal(s->runs, 0);
	}
}

/* Eight pieces back states are known; before that there is none. */
static void ask_far_back(struct sink *s)
{
	uint64_t at;
	uint8_t state[HASHER_STATE_MAX];

	assert_int_equal(transfer_stream_state(s->src, 0, &at, state), -1);
	assert_int_equal(transfer_stream_state(s->src, UINT64_MAX, &at, state), 0);
	assert_true(at < atomic_load(&s->read));
}

static void state_too_far_back(void **state)
{
	(void)state;
	struct sink *s = add(data, BIG);
	s->slow = ask_far_back;
	s->slow_at = BIG;
	go_well(NULL);
}

#define TEST(f) cmocka_unit_test_setup(f, before)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ranges_in_parallel), TEST(default_options), TEST(callbacks_are_optional),
		TEST(window_bounds_ranges), TEST(whole_body_waits), TEST(slow_after_trouble), TEST(ranges_forgotten),
		TEST(bodies_end_early), TEST(connections_reset), TEST(whole_bodies_end_early),
		TEST(wrong_length), TEST(hedged), TEST(hedged_where_the_window_ends), TEST(few_requests_for_a_slow_consumer),
		TEST(a_long_range_is_cut_back), TEST(redirected), TEST(refused_for_now), TEST(sizes),
		TEST(sha512), TEST(beside_files), TEST(little_memory), TEST(no_more_than_lanes),
		TEST(one_connection), TEST(many),
		TEST(wrong_once), TEST(wrong_twice), TEST(judged_by_wrong_bytes),
		TEST(judged_by_right_bytes), TEST(judged_by_first_bytes), TEST(consumer_fails), TEST(consumer_has_enough),
		TEST(consumer_has_enough_of_wrong_bytes),
		TEST(stop_while_consumer_waits), TEST(stop_while_paused), TEST(deadline),
		TEST(failure_elsewhere), TEST(keeps_failing),
		TEST(resumes), TEST(resumes_at_the_end), TEST(resumes_on_wrong_bytes),
		TEST(resumes_nowhere), TEST(state_too_far_back),
	};

	return cmocka_run_group_tests(tests, begin_all, end_all);
}
