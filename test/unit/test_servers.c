// SPDX-License-Identifier: Apache-2.0
/*
 * Mirrors of transfer.c, against servers on sockets of this program: what a mirror in trouble costs, and who sees which
 * credentials.
 */
#include "servers_fixture.h"

static void bad(const struct blob_server *s, unsigned fallbacks)
{
	assert_true(atomic_load(&s->bad));
	assert_int_equal(atomic_load(&s->fallbacks), fallbacks);
	assert_int_equal(atomic_load(&s->misses), 0);
}

static void warned_of(const char *name, const char *what, const char *next)
{
	assert_int_equal(atomic_load(&run.warned), 1);
	if (!strstr(run.warning, name) || !strstr(run.warning, what) || !strstr(run.warning, next))
		fail_msg("%s", run.warning);
}

/* --- answers --- */

static void lacks_the_first(struct answer *a)
{
	if (a->content == 0)
		a->status = 404;
}

static int status;

static void refuses(struct answer *a)
{
	a->status = status;
	a->header = "Retry-After: 100";
}

static void flips_a_bit(struct answer *a)
{
	if (a->content == 0 && a->start <= 5 * MIB && a->end > 5 * MIB)
		a->flip_at = 5 * MIB;
}

static unsigned times;

static void flips_sometimes(struct answer *a)
{
	if (a->start <= 5 * MIB && a->end > 5 * MIB && times && times--)
		a->flip_at = 5 * MIB;
}

static void stalls(struct answer *a)
{
	if (a->number >= 12) {
		a->cut_at = 100000;
		a->hang = true;
	}
}

static void silent(struct answer *a)
{
	a->wait_ms = LONG_MS;
}

static void crawls(struct answer *a)
{
	a->pace_ms = 100; /* 10 KiB/s, never silent for long */
}

static void resets_midway(struct answer *a)
{
	if (a->number >= 12) {
		a->cut_at = 100000;
		a->end_ms = 100;
		a->reset = true;
	}
}

static void resets_whole_body(struct answer *a)
{
	a->whole = true;
	a->cut_at = 3 * MIB;
	a->end_ms = 100;
	a->reset = true;
}

static void knows_no_ranges(struct answer *a)
{
	a->whole = true;
}

static void says_200(struct answer *a)
{
	a->ok = a->ranged;
	a->header = "X-Dragonfly-Task-Download-Finished: true";
}

/* 200, the range of the request, and a length that is another's: part of it would land nowhere. */
static void says_200_of_another_length(struct answer *a)
{
	says_200(a);
	if (a->ranged && a->number > 1)
		a->length = (a->end - a->start) / 2;
}

static void lies_of_lengths(struct answer *a)
{
	if (a->number > 3)
		a->length = 1000;
}

/* --- one mirror --- */

static void mirror_serves_all(void **state)
{
	struct blob_server *m = use(NULL);

	(void)state;
	add(data, BIG);
	add_as(false, data + 1, BIG - 1, DIGEST_SHA256);
	add_as(false, data + 2, 1000, DIGEST_SHA256);
	well(NULL);
	assert_int_equal(server.n_requests, 0);
	assert_int_equal(mirrors[0].n_requests, atomic_load(&m->requests));
	assert_true(atomic_load(&m->bytes) >= 2 * BIG - 1 + 1000);
	assert_false(atomic_load(&m->bad));
	assert_int_equal(atomic_load(&m->misses) + atomic_load(&m->fallbacks) + atomic_load(&m->hits), 0);
	assert_int_equal(atomic_load(&run.registry.bytes), 0);
	assert_int_equal(atomic_load(&run.warned), 0);
}

/* Nobody listens; many blobs, one line. */
static void mirror_is_dead(void **state)
{
	struct blob_server *m = use(NULL);

	(void)state;
	dead[0] = true;
	add(data, BIG);
	for (size_t i = 1; i < 30; i++)
		add_as(i % 2, data + i, 1000 * i, DIGEST_SHA256);
	well(NULL);
	assert_true(atomic_load(&m->bad));
	assert_int_equal(atomic_load(&m->bytes), 0);
	assert_in_range(atomic_load(&m->fallbacks), 1, 16); /* those that had begun; the others never asked */
	warned_of("mirror mirror-a: ", "", "registry is");
}

static char *https_url(const void *arg, const struct digest *d)
{
	const struct test_server *v = arg;
	char *url = NULL;

	(void)d;
	return asprintf(&url, "https://127.0.0.1:%u/0", v->port) < 0 ? NULL : url;
}

static char *nowhere_url(const void *arg, const struct digest *d)
{
	(void)arg;
	(void)d;
	return strdup("http://no-such-host.invalid:5000/0");
}

/* Its name is unknown, or what it speaks is no TLS: with an http of its own, as the registry's would not even try. */
static void mirror_cannot_be_reached(void **state)
{
	static char *(*const urls[])(const void *, const struct digest *) = { https_url, nowhere_url };
	const struct http_options o = { .stop = &stop, .connect_timeout_ms = 1000 };
	struct http *tls;
	struct err e;

	assert_int_equal(http_new(&tls, &o, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
		before_servers(state);
		struct blob_server *m = use(NULL);
		m->http = tls;
		m->blob_url = urls[i];
		m->first_byte_ms = 0;
		add(data, BIG);
		well(NULL);
		bad(m, 1);
		warned_of("mirror mirror-a: ", "", "registry is");
	}
	http_free(tls);
}

static void mirror_lacks_a_blob(void **state)
{
	struct blob_server *m = use(lacks_the_first);

	(void)state;
	add(data, BIG);
	add(data + 1, BIG - 1);
	well(NULL);
	assert_false(atomic_load(&m->bad));
	assert_int_equal(atomic_load(&m->misses), 1);
	assert_int_equal(atomic_load(&m->fallbacks), 0);
	assert_true(atomic_load(&m->bytes) >= BIG - 1);
	assert_true(atomic_load(&run.registry.bytes) >= BIG);
	assert_int_equal(atomic_load(&run.warned), 0);
}

static void mirror_refuses(void **state)
{
	static const int all[] = { 400, 401, 403, 407, 416, 429, 500, 502, 503 };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		before_servers(state);
		struct blob_server *m = use(refuses);
		char number[8];
		add(data, BIG);
		status = all[i];
		snprintf(number, sizeof(number), "%d", status);
		well(NULL);
		bad(m, 1);
		assert_int_equal(mirrors[0].n_requests, 1);
		warned_of("mirror mirror-a: ", number, "registry is");
	}
}

/* One flipped bit: of a stream, and of a file; once more from the registry, by ranges as ever. */
static void mirror_lies(void **state)
{
	for (int stream = 0; stream < 2; stream++) {
		before_servers(state);
		struct blob_server *m = use(flips_a_bit);
		struct sink *s = add_as(stream, data, BIG, DIGEST_SHA256);
		well(NULL);
		bad(m, 1);
		assert_int_equal(s->agains, stream);
		assert_int_equal(s->runs, 2 * stream);
		assert_true(server.n_ranged > 1);
		assert_true(atomic_load(&run.registry.bytes) >= BIG);
		warned_of("mirror mirror-a: blob sha256:", "hash to", "once more from registry");
	}
}

/* What came of others from it counts by its digest. */
static void mirror_lies_about_one_of_many(void **state)
{
	struct blob_server *m = use(flips_a_bit);

	(void)state;
	run.o.memory_budget = 32 * MIB;
	add(data, BIG);
	add(data + 1, BIG - 1);
	add_as(false, data + 2, BIG - 2, DIGEST_SHA256);
	well(NULL);
	assert_true(atomic_load(&m->bad));
	assert_int_equal(atomic_load(&run.warned), 1);
}

static void mirrors_lie_and_the_registry_once(void **state)
{
	struct blob_server *a = use(flips_a_bit), *b = use(flips_a_bit);

	(void)state;
	struct sink *s = add(data, BIG);
	times = 1;
	if (go_servers(flips_sometimes))
		fail_msg("exit %d: %s", run.e.code, run.e.msg);
	good(s);
	bad(a, 1);
	bad(b, 1);
	assert_int_equal(s->agains, 3);
	assert_int_equal(s->runs, 4);
}

static void everybody_lies(void **state)
{
	struct blob_server *m = use(flips_a_bit);

	(void)state;
	struct sink *s = add(data, BIG);
	assert_int_equal(go_servers(flips_a_bit), -1);
	assert_int_equal(run.e.code, CODE_INTEGRITY);
	assert_int_equal(s->verified, 0);
	assert_int_equal(s->agains, 3);
	assert_false(atomic_load(&run.registry.bad));
	bad(m, 1);
}

/* What came is kept: the registry sends the rest. */
static void rest_from_the_registry(void (*behave)(struct answer *), bool stream, unsigned at_most)
{
	struct blob_server *m = use(behave);

	run.o.speed_limit = 64 * KIB;
	run.o.speed_time_ms = LONG_MS;
	struct sink *s = add_as(stream, data, BIG, DIGEST_SHA256);
	well(NULL);
	bad(m, 1);
	assert_int_equal(s->agains, 0);
	assert_true(atomic_load(&run.registry.bytes) <= at_most);
	assert_int_equal(atomic_load(&run.warned), 1);
}

static void mirror_breaks_midway(void **state)
{
	static void (*const how[])(struct answer *) = { stalls, resets_midway, lies_of_lengths, resets_whole_body };

	for (size_t i = 0; i < 2 * ARRAY_SIZE(how); i++) {
		before_servers(state);
		rest_from_the_registry(how[i / 2], i % 2, BIG - RANGE);
	}
}

static void mirror_is_silent_or_crawls(void **state)
{
	static void (*const how[])(struct answer *) = { silent, crawls };

	for (size_t i = 0; i < 2 * ARRAY_SIZE(how); i++) {
		before_servers(state);
		uint64_t start = sys_now_ms();
		rest_from_the_registry(how[i / 2], i % 2, BIG + RANGE);
		assert_true(sys_now_ms() - start < LONG_MS / 2);
	}
}

/* --- slow, but never for one connection's speed limit --- */

static unsigned pace;

static void slow_until_the_registry_is_asked(struct answer *a)
{
	a->pace_ms = server.n_requests ? 0 : 10; /* 100 KiB/s of each connection */
}

static void worse(struct answer *a)
{
	a->status = status;
	a->pace_ms = pace;
}

static struct blob_server *slow_mirror(void)
{
	struct blob_server *m = use(slow_until_the_registry_is_asked);

	m->speed_limit = 16 * MIB;
	run.o.speed_time_ms = LONG_MS;
	status = 0;
	pace = 0;
	return m;
}

static void mirror_is_slow(void **state)
{
	for (int stream = 0; stream < 2; stream++) {
		before_servers(state);
		struct blob_server *m = slow_mirror();
		add_as(stream, data, BIG, DIGEST_SHA256);
		well(NULL);
		bad(m, 1);
		assert_true(atomic_load(&m->left_at) > 0);
		assert_true(atomic_load(&run.registry.bytes) > BIG / 2);
		warned_of("mirror mirror-a: ", "less than --mirror-speed-limit", "registry is");
	}
}

/* Without a limit, and where our own limit is what binds, it is kept. */
static void slow_mirror_is_kept(void **state)
{
	for (int limited = 0; limited < 2; limited++) {
		before_servers(state);
		struct blob_server *m = slow_mirror();
		if (limited)
			run.o.rate_limit = 128 * KIB;
		else
			m->speed_limit = 0;
		add(data, 2 * RANGE);
		well(NULL);
		assert_false(atomic_load(&m->bad));
		assert_int_equal(server.n_requests, 0);
	}
}

/* The registry is no help: for good, for now, or since it is slower still. */
static void slow_mirror_is_taken_back(void **state)
{
	static const struct {
		int status;
		unsigned pace;
	} how[] = { { 404, 0 }, { 403, 0 }, { 503, 0 }, { 0, 400 } };

	for (size_t i = 0; i < 2 * ARRAY_SIZE(how); i++) {
		before_servers(state);
		struct blob_server *m = slow_mirror();
		struct sink *s = add_as(i % 2, data, BIG, DIGEST_SHA256);
		status = how[i / 2].status;
		pace = how[i / 2].pace;
		if (pace)
			run.o.speed_time_ms = 1000;
		well(worse);
		assert_int_equal(s->agains, 0);
		assert_false(atomic_load(&m->bad));
		assert_true(atomic_load(&m->kept));
		assert_true(atomic_load(&run.registry.bytes) < BIG / 2);
		assert_int_equal(atomic_load(&run.warned), 2);
		assert_non_null(strstr(run.warning, "mirror mirror-a is asked again"));
	}
}

/* Going back is done once: then the registry's word counts. */
static void slow_then_missing(struct answer *a)
{
	slow_until_the_registry_is_asked(a);
	a->status = server.n_requests ? 404 : 0;
}

static void nobody_is_any_help(void **state)
{
	struct blob_server *m = slow_mirror();

	(void)state;
	behaves[0] = slow_then_missing;
	status = 403;
	add(data, BIG);
	assert_int_equal(go_servers(worse), -1);
	assert_int_equal(run.e.code, CODE_AUTH);
	assert_int_equal(atomic_load(&m->misses), 1);
}

static void mirror_without_ranges(void **state)
{
	struct blob_server *m = use(knows_no_ranges);

	(void)state;
	add(data, BIG);
	well(NULL);
	assert_false(atomic_load(&m->bad));
	assert_int_equal(server.n_requests, 0);
}

/* dfdaemon before 1.3.9. [O18] */
static void mirror_says_200_with_content_range(void **state)
{
	struct blob_server *m = use(says_200);

	(void)state;
	add(data, BIG);
	add_as(false, data + 1, BIG - 1, DIGEST_SHA256);
	well(NULL);
	assert_false(atomic_load(&m->bad));
	assert_int_equal(server.n_requests, 0);
	assert_int_equal(atomic_load(&m->hits), atomic_load(&m->requests));
	before_servers(state);
	m = use(says_200_of_another_length);
	add(data, BIG);
	well(NULL);
	bad(m, 1);
}

/* Of the registry that is no range: it is asked for the whole. */
static void registry_says_200_with_content_range(void **state)
{
	(void)state;
	add(data, BIG);
	go_well(says_200);
	assert_true(server.n_ranged < server.n_requests);
	assert_true(atomic_load(&run.stats.wire) < BIG + RANGE);
}

/* --- whole blobs --- */

static void whole_blobs(void **state)
{
	struct blob_server *m = use(says_200);

	(void)state;
	m->whole = true;
	run.o.memory_budget = 32 * MIB;
	add(data, BIG);
	add_as(false, data + 1, BIG - 1, DIGEST_SHA256);
	add_as(false, data + 2, 5 * MIB, DIGEST_SHA256);
	well(NULL);
	assert_int_equal(mirrors[0].n_requests, 3);
	assert_int_equal(mirrors[0].n_ranged, 0);
	assert_int_equal(atomic_load(&m->hits), 3);
	assert_int_equal(server.n_requests, 0);
}

static struct sink *add_resumed(uint64_t at)
{
	struct sink *s = add(data, BIG);
	struct hasher h;

	hasher_init(&h, DIGEST_SHA256);
	hasher_update(&h, data, at);
	s->start_at = hasher_export(&h, s->start_state);
	return s;
}

static uint64_t asked_start, asked_end;

static void notes_range(struct answer *a)
{
	says_200(a);
	asked_start = a->start;
	asked_end = a->end;
}

static void whole_rest_of_a_blob(void **state)
{
	struct blob_server *m = use(notes_range);

	(void)state;
	m->whole = true;
	add_resumed(2 * MIB);
	well(NULL);
	assert_int_equal(mirrors[0].n_requests, 1);
	assert_int_equal(mirrors[0].n_ranged, 1);
	assert_int_equal(asked_start, 2 * MIB);
	assert_int_equal(asked_end, BIG);
	assert_int_equal(server.n_requests, 0);
}

/* A file with two gaps: each is one request, neither more. */
static void first_half(struct answer *a)
{
	if (a->start >= 3 * MIB && a->start < 6 * MIB)
		a->status = 403;
}

static void whole_gaps_of_a_file(void **state)
{
	(void)state;
	run.o.blob.journal = true;
	run.o.connections = 1;
	add_as(false, data, BIG, DIGEST_SHA256);
	assert_int_equal(go_servers(first_half), -1);
	assert_int_equal(run.e.code, CODE_AUTH);
	before_servers(state);
	run.o.blob.journal = true;
	struct blob_server *m = use(notes_range);
	m->whole = true;
	add_as(false, data, BIG, DIGEST_SHA256);
	well(NULL);
	assert_int_equal(mirrors[0].n_requests, 1);
	assert_int_equal(asked_start, 3 * MIB);
	assert_int_equal(asked_end, BIG);
}

static void dragonfly_error(struct answer *a)
{
	a->status = 500;
	a->header = "X-Dragonfly-Error-Type: dfdaemon";
}

static void whole_goes_wrong(void **state)
{
	(void)state;
	struct blob_server *m = use(dragonfly_error);
	m->whole = true;
	add(data, BIG);
	well(NULL);
	bad(m, 1);
	warned_of("mirror-a", "Dragonfly's dfdaemon", "500");
	before_servers(state);
	m = use(resets_whole_body);
	m->whole = true;
	add(data, BIG);
	well(NULL);
	bad(m, 1);
	assert_true(atomic_load(&run.registry.bytes) <= BIG - 2 * MIB);
}

/* --- several --- */

static void second_mirror_helps(void **state)
{
	struct blob_server *a = use(NULL), *b = use(NULL);

	(void)state;
	dead[0] = true;
	add(data, BIG);
	well(NULL);
	bad(a, 1);
	assert_false(atomic_load(&b->bad));
	assert_int_equal(server.n_requests, 0);
	warned_of("mirror mirror-a: ", "", "mirror-b is");
}

static void all_are_bad(void **state)
{
	struct blob_server *a = use(resets_midway), *b = use(stalls), *c = use(flips_a_bit);

	(void)state;
	add(data, BIG);
	add_as(false, data + 1, BIG - 1, DIGEST_SHA256);
	well(NULL);
	assert_true(atomic_load(&a->bad));
	assert_true(atomic_load(&b->bad));
	(void)c;
	/* the next run does not ask them again */
	uint64_t asked = atomic_load(&a->requests) + atomic_load(&b->requests);
	run.sinks[0].verified = run.sinks[1].verified = 0;
	run.stats = (struct transfer_stats){ 0 };
	well(NULL);
	assert_int_equal(atomic_load(&a->requests) + atomic_load(&b->requests), asked);
}

/* The budget is the registry's: time that mirrors took does not count. */
static void trouble_costs_no_retry_budget(void **state)
{
	(void)state;
	use(silent);
	use(silent);
	run.o.retry_budget_ms = FIRST_BYTE_MS;
	add(data, BIG);
	if (go_servers(NULL))
		fail_msg("exit %d: %s", run.e.code, run.e.msg);
}

/* --- credentials --- */

static unsigned asked, told, taken;

static int on_authorize(void *ctx, struct buf *ret, unsigned *ret_generation, struct err *e)
{
	(void)e;
	*ret_generation = 7;
	__atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST);
	return buf_adds(ret, ctx);
}

static int on_challenged(void *ctx, const struct http_response *r, unsigned generation, struct err *e)
{
	(void)ctx;
	assert_int_equal(r->status, 401);
	assert_int_equal(generation, 7);
	return ++told > 3 ? err_set(e, CODE_AUTH, "no") : 0;
}

static void on_accepted(void *ctx, unsigned generation)
{
	(void)ctx;
	(void)generation;
	__atomic_add_fetch(&taken, 1, __ATOMIC_SEQ_CST);
}

static int cannot_authorize(void *ctx, struct buf *ret, unsigned *ret_generation, struct err *e)
{
	(void)ctx;
	(void)ret;
	(void)ret_generation;
	return err_set(e, CODE_AUTH, "the token server is on fire");
}

static struct http_authority authority = {
	.ctx = (char[]){ "Bearer of-mine" }, .authorize = on_authorize, .challenged = on_challenged, .accepted = on_accepted,
};

static unsigned with_secrets, without;

static void looks_for_secrets(const struct answer *a)
{
	bool some = strstr(a->head, "of-mine") || strstr(a->head, "X-Secret");

	with_secrets += strstr(a->head, "Authorization: Bearer of-mine\r\n") && strstr(a->head, "X-Secret: of-mirrors\r\n");
	without += !some;
}

static char where[64];

static void sends_away(struct answer *a)
{
	looks_for_secrets(a);
	a->status = 307;
	snprintf(where, sizeof(where), "http://127.0.0.1:%u/%zu", mirrors[1].port, a->content);
	a->location = where;
}

static unsigned stranger_saw;

static void is_a_stranger(struct answer *a)
{
	stranger_saw += strstr(a->head, "of-mine") || strstr(a->head, "X-Secret") || strstr(a->head, "ookie");
}

static struct blob_server *with_credentials(void (*behave)(struct answer *), bool on_behalf)
{
	static const char *const headers[] = { "X-Secret: of-mirrors", NULL };
	struct blob_server *m = use(behave);

	asked = told = taken = with_secrets = without = stranger_saw = 0;
	m->authority = &authority;
	m->on_behalf = on_behalf;
	m->headers = headers;
	/* known before the ports are: the registry's, or of the mirror when it has started */
	snprintf(authority.origin, sizeof(authority.origin), "https://registry.example:443");
	return m;
}

/* Redirect targets see neither, though they are on the same host. */
static void redirect_takes_nothing_along(void **state)
{
	struct blob_server *m = with_credentials(sends_away, true);

	(void)state;
	/* the second one is where the first one redirects to, no server of the list */
	add(data, BIG);
	start_server(&mirrors[1], is_a_stranger);
	well(NULL);
	stop_server(&mirrors[1]);
	assert_false(atomic_load(&m->bad));
	assert_int_equal(server.n_requests, 0);
	assert_int_equal(without, 0);
	assert_true(with_secrets > 0);
	assert_int_equal(stranger_saw, 0);
	assert_true(mirrors[1].n_requests > BIG / RANGE);
	assert_int_equal(taken, 0);
}

static void sends_in_circles(struct answer *a)
{
	a->status = 307;
	snprintf(where, sizeof(where), "http://127.0.0.1:%u/%zu", a->server->port, a->content);
	a->location = where;
}

static void sends_nowhere(struct answer *a)
{
	a->status = 302;
	a->location = "ftp://127.0.0.1/x";
}

static void redirect_trouble(void **state)
{
	static void (*const how[])(struct answer *) = { sends_in_circles, sends_nowhere };

	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		before_servers(state);
		struct blob_server *m = use(how[i]);
		add(data, BIG);
		well(NULL);
		bad(m, 1);
	}
}

static void wants_a_password(struct answer *a)
{
	looks_for_secrets(a);
	a->status = 401;
	a->header = "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/steal\",service=\"x\"";
}

/* Whoever names a token service gets to see a password: not a mirror. */
static void on_behalf_is_never_challenged(void **state)
{
	struct blob_server *m = with_credentials(wants_a_password, true);

	(void)state;
	add(data, BIG);
	well(NULL);
	bad(m, 1);
	assert_int_equal(told, 0);
	assert_int_equal(taken, 0);
	assert_int_equal(with_secrets, 1);
	assert_int_equal(mirrors[0].n_requests, 1);
	warned_of("mirror-a", "401", "registry is");
}

/* Without credentials of the registry the mirror may still have the blob. */
static void on_behalf_without_credentials(void **state)
{
	struct blob_server *m = with_credentials(is_a_stranger, true);

	(void)state;
	authority.authorize = cannot_authorize;
	add(data, BIG);
	well(NULL);
	authority.authorize = on_authorize;
	assert_false(atomic_load(&m->bad));
	assert_int_equal(server.n_requests, 0);
}

static void wants_it_once(struct answer *a)
{
	if (a->number < 3)
		a->status = 401;
}

static char *blob_url_and_origin(const void *arg, const struct digest *d)
{
	const struct test_server *v = arg;

	snprintf(authority.origin, sizeof(authority.origin), "http://127.0.0.1:%u", v->port);
	return blob_url(arg, d);
}

static void own_credentials(void **state)
{
	struct blob_server *m = with_credentials(wants_it_once, false);

	(void)state;
	m->blob_url = blob_url_and_origin;
	add(data, BIG);
	well(NULL);
	assert_false(atomic_load(&m->bad));
	assert_in_range(told, 1, 3);
	assert_true(taken > 0);
	assert_int_equal(server.n_requests, 0);

	before_servers(state);
	m = with_credentials(wants_a_password, false);
	m->blob_url = blob_url_and_origin;
	add(data, BIG);
	well(NULL);
	bad(m, 1);
	assert_int_equal(told, 4);

	before_servers(state);
	m = with_credentials(NULL, false);
	m->blob_url = blob_url_and_origin;
	authority.authorize = cannot_authorize;
	add(data, BIG);
	well(NULL);
	authority.authorize = on_authorize;
	bad(m, 1);
	warned_of("mirror-a", "on fire", "registry is");
}

/* An authority whose origin is another is not asked. */
static void credentials_of_another_origin(void **state)
{
	with_credentials(NULL, false);
	(void)state;
	add(data, BIG);
	well(NULL);
	assert_int_equal(asked, 0);
}

static void too_many_servers(void **state)
{
	static struct blob_server *many[LIMIT_SERVERS + 1];

	(void)state;
	add(data, BIG);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = &run.registry;
	run.o.servers = many;
	run.o.n_servers = ARRAY_SIZE(many);
	go_wrong(NULL, CODE_USAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mirror_serves_all), TEST(mirror_is_dead), TEST(mirror_cannot_be_reached),
		TEST(mirror_lacks_a_blob), TEST(mirror_refuses),
		TEST(mirror_lies), TEST(mirror_lies_about_one_of_many), TEST(mirrors_lie_and_the_registry_once),
		TEST(everybody_lies), TEST(mirror_breaks_midway), TEST(mirror_is_silent_or_crawls),
		TEST(mirror_is_slow), TEST(slow_mirror_is_kept), TEST(slow_mirror_is_taken_back), TEST(nobody_is_any_help),
		TEST(mirror_without_ranges), TEST(mirror_says_200_with_content_range),
		TEST(registry_says_200_with_content_range),
		TEST(whole_blobs), TEST(whole_rest_of_a_blob), TEST(whole_gaps_of_a_file), TEST(whole_goes_wrong),
		TEST(second_mirror_helps), TEST(all_are_bad), TEST(trouble_costs_no_retry_budget),
		TEST(redirect_takes_nothing_along), TEST(redirect_trouble), TEST(on_behalf_is_never_challenged),
		TEST(on_behalf_without_credentials), TEST(own_credentials), TEST(credentials_of_another_origin),
		TEST(too_many_servers),
	};

	return cmocka_run_group_tests(tests, begin_servers, end_servers);
}
