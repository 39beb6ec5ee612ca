// SPDX-License-Identifier: Apache-2.0
/*
 * For the tests of streams: an HTTP server on sockets of this program, whose answers a test decides one by one, and a
 * consumer that compares what it reads, and a transfer with these.
 */
#ifndef STREAM_FIXTURE_H
#define STREAM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys.h"
#include "transfer.h"

#define LONG_MS 30000	/* what takes so long hangs */
#define CONTENTS 64
#define SOCKETS 256

/* --- server --- */

struct test_server;

struct answer {
	struct test_server *server;
	const char *head;	/* of the request */
	unsigned number;	/* of the request, from 1 */
	size_t content;		/* which of server.content */
	bool ranged;
	uint64_t start, end;	/* asked for; the whole without Range */
	/* what the test may set */
	bool whole;		/* ignore the Range */
	int status;		/* this instead, with this body, or none */
	const char *body;
	const char *location;
	const char *header;	/* one more, "Name: value" */
	bool ok;		/* 200 with the Content-Range */
	unsigned wait_ms;	/* before the head */
	unsigned pace_ms;	/* between two pieces of the body of 1 KiB */
	uint64_t cut_at;	/* so many body bytes, then the connection ends... */
	bool reset;		/* ... with RST, which takes what was not read yet along; */
	unsigned end_ms;	/* so much later */
	bool hang;		/* ... or does not: nothing more comes */
	uint64_t length;	/* Content-Length, when not the truth */
	uint64_t flip_at;	/* this byte of the content is wrong */
};

static struct test_server {
	int fd;
	uint16_t port;
	pthread_t thread;
	struct {
		const uint8_t *data;
		size_t n;
	} content[CONTENTS];
	size_t n_content;	/* of server alone: all have the same */
	void (*behave)(struct answer *a);	/* one at a time; NULL = always right */
	pthread_mutex_t lock;
	int sockets[SOCKETS];
	pthread_t threads[SOCKETS];
	size_t n_sockets;
	unsigned n_requests, n_ranged, n_open, most_open;
	atomic_bool stopping;
} server = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* A connection of one of them. */
struct socket {
	struct test_server *v;
	size_t i;
};

static inline bool send_all(int fd, const void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t k = send(fd, (const uint8_t *)p + at, n - at, MSG_NOSIGNAL);
		if (k <= 0)
			return false;
		at += (size_t)k;
	}
	return true;
}

static inline bool read_head(int fd, char *head, size_t room)
{
	size_t n = 0;

	while (n < room - 1) {
		ssize_t k = recv(fd, head + n, room - 1 - n, 0);
		if (k <= 0)
			return false;
		n += (size_t)k;
		head[n] = '\0';
		if (strstr(head, "\r\n\r\n"))
			return true;
	}
	return false;
}

static inline bool send_body(int fd, const struct answer *a, uint64_t from, uint64_t to)
{
	uint64_t piece = a->pace_ms ? 1024 : 65536;
	const uint8_t *data = server.content[a->content].data;
	uint64_t stop = from + MIN(to - from, a->cut_at);

	for (uint64_t at = from; at < stop;) {
		bool wrong = a->flip_at >= at && a->flip_at < stop;
		uint64_t n = wrong ? a->flip_at - at : MIN(stop - at, piece);
		uint8_t bad = wrong ? data[a->flip_at] ^ 1 : 0;
		n = MIN(n, piece);
		if (!send_all(fd, data + at, (size_t)n))
			return false;
		for (unsigned ms = 0; ms < a->pace_ms && !atomic_load(&a->server->stopping); ms++)
			sys_sleep_ms(1);
		at += n;
		if (wrong && at == a->flip_at) {
			if (!send_all(fd, &bad, 1))
				return false;
			at++;
		}
	}
	if (stop == to)
		return true;
	while (a->hang && !atomic_load(&a->server->stopping) && recv(fd, &(char){ 0 }, 1, 0) > 0)
		;
	for (unsigned ms = 0; ms < a->end_ms && !atomic_load(&a->server->stopping); ms++)
		sys_sleep_ms(1);
	if (a->reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	return false;
}

static inline bool answer_one(struct test_server *v, int fd, const char *head)
{
	struct answer a = { .server = v, .head = head, .cut_at = UINT64_MAX, .length = UINT64_MAX, .flip_at = UINT64_MAX };
	unsigned long long start, end;
	char line[512];
	unsigned content;

	if (sscanf(head, "GET /%u", &content) != 1 || content >= server.n_content)
		return false;
	a.content = content;
	const char *range = strstr(head, "\r\nRange: bytes=");
	a.ranged = range && sscanf(range, "\r\nRange: bytes=%llu-%llu", &start, &end) == 2;
	a.start = a.ranged ? start : 0;
	a.end = a.ranged ? end + 1 : server.content[content].n;
	pthread_mutex_lock(&v->lock);
	a.number = ++v->n_requests;
	v->n_ranged += a.ranged;
	if (v->behave)
		v->behave(&a);
	pthread_mutex_unlock(&v->lock);
	for (unsigned ms = 0; ms < a.wait_ms && !atomic_load(&v->stopping); ms++)
		sys_sleep_ms(1);
	if (a.status) {
		const char *body = a.body ? a.body : "";
		snprintf(line, sizeof(line), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s%s\r\n%s\r\n\r\n%s", a.status,
			 strlen(body), a.location ? "Location: " : "X: y", a.location ? a.location : "",
			 a.header ? a.header : "Y: z", body);
		return send_all(fd, line, strlen(line));
	}
	bool part = a.ranged && !a.whole;
	uint64_t from = part ? a.start : 0, to = part ? a.end : server.content[content].n;
	uint64_t length = a.length != UINT64_MAX ? a.length : to - from;
	int n = snprintf(line, sizeof(line), "HTTP/1.1 %s\r\nContent-Length: %llu\r\n%s\r\n",
			 part && !a.ok ? "206 P" : "200 OK", (unsigned long long)length, a.header ? a.header : "X: y");
	if (part)
		n += snprintf(line + n, sizeof(line) - (size_t)n, "Content-Range: bytes %llu-%llu/%llu\r\n",
			      (unsigned long long)from, (unsigned long long)to - 1,
			      (unsigned long long)server.content[content].n);
	snprintf(line + n, sizeof(line) - (size_t)n, "\r\n");
	return send_all(fd, line, strlen(line)) && send_body(fd, &a, from, to);
}

static inline void *serve_connection(void *arg)
{
	struct socket *of = arg;
	struct test_server *v = of->v;
	size_t i = of->i;
	char head[8192];

	free(of);
	pthread_mutex_lock(&v->lock);
	int fd = v->sockets[i];
	v->most_open = MAX(v->most_open, ++v->n_open);
	pthread_mutex_unlock(&v->lock);
	while (read_head(fd, head, sizeof(head)) && answer_one(v, fd, head))
		;
	pthread_mutex_lock(&v->lock);
	v->sockets[i] = -1;
	v->n_open--;
	close(fd);
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

static inline void *serve(void *arg)
{
	struct test_server *v = arg;
	int fd;

	while ((fd = accept4(v->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct socket *of = malloc(sizeof(*of));
		assert_non_null(of);
		pthread_mutex_lock(&v->lock);
		*of = (struct socket){ v, v->n_sockets++ };
		assert_true(of->i < SOCKETS);
		v->sockets[of->i] = fd;
		assert_int_equal(pthread_create(&v->threads[of->i], NULL, serve_connection, of), 0);
		pthread_mutex_unlock(&v->lock);
	}
	return NULL;
}

static inline void start_server(struct test_server *v, void (*behave)(struct answer *))
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);

	v->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(v->fd >= 0);
	assert_int_equal(bind(v->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(v->fd, 64), 0);
	assert_int_equal(getsockname(v->fd, (struct sockaddr *)&a, &n), 0);
	v->port = ntohs(a.sin_port);
	v->behave = behave;
	v->n_sockets = v->n_requests = v->n_ranged = v->n_open = v->most_open = 0;
	atomic_store(&v->stopping, false);
	assert_int_equal(pthread_create(&v->thread, NULL, serve, v), 0);
}

static inline void stop_server(struct test_server *v)
{
	atomic_store(&v->stopping, true);
	shutdown(v->fd, SHUT_RDWR);
	pthread_join(v->thread, NULL);
	close(v->fd);
	pthread_mutex_lock(&v->lock);
	size_t n = v->n_sockets;
	for (size_t i = 0; i < n; i++)
		if (v->sockets[i] >= 0)
			shutdown(v->sockets[i], SHUT_RDWR);
	pthread_mutex_unlock(&v->lock);
	for (size_t i = 0; i < n; i++)
		pthread_join(v->threads[i], NULL);
}

/* --- consumer --- */

struct sink {
	const uint8_t *data;
	size_t n;
	/* what it does; a test sets some */
	uint64_t start_at;		/* with start_state; for start() */
	uint8_t start_state[HASHER_STATE_MAX];
	uint64_t end_at;		/* returns 0 after so many bytes; 0 = reads all */
	uint64_t fail_at;		/* fails after so many, with fail_code; 0 = never */
	enum code fail_code;
	bool fail_certain;		/* run says 1, not -1 */
	unsigned fail_runs;		/* only the first so many runs; 0 = each */
	uint64_t slow_at;		/* when so many came: */
	void (*slow)(struct sink *s);	/* called once */
	/* what came of it */
	atomic_uint_fast64_t read;	/* bytes handed out, this run */
	uint64_t begins;		/* where this run began */
	bool wrong;			/* a byte was not as it should be, this run */
	unsigned runs, agains, starts, verified;
	int last_read;			/* what src->read said at last: 0, or -1 */
	struct err stop;		/* what it said then */
	const struct unpack_source *src;
};

static atomic_uint sinks_running, sinks_most;

static inline int sink_start(void *arg, uint64_t *ret_at, uint8_t state[HASHER_STATE_MAX], struct err *e)
{
	struct sink *s = arg;

	(void)e;
	s->starts++;
	s->begins = s->start_at;
	*ret_at = s->start_at;
	memcpy(state, s->start_state, HASHER_STATE_MAX);
	return 0;
}

static inline int sink_again(void *arg, struct err *e)
{
	struct sink *s = arg;

	(void)e;
	s->agains++;
	s->begins = 0;
	return 0;
}

static inline int sink_loop(struct sink *s, struct err *e)
{
	const void *p;
	size_t n;

	for (uint64_t at = s->begins;; at += n) {
		if ((s->last_read = s->src->read(s->src->arg, &p, &n, e)))
			return -1;
		if (n == 0)
			return at == s->n ? 0 : err_set(e, CODE_INTERNAL, "the end at byte %llu", (unsigned long long)at);
		if (at + n > s->n || n > MIB)
			return err_set(e, CODE_INTERNAL, "%zu bytes at %llu", n, (unsigned long long)at);
		s->wrong = s->wrong || memcmp(p, s->data + at, n) != 0;
		atomic_store(&s->read, at + n);
		if (s->slow && at + n >= s->slow_at) {
			void (*slow)(struct sink *) = s->slow;
			s->slow = NULL;
			slow(s);
		}
		if (s->fail_at && at + n >= s->fail_at && (!s->fail_runs || s->runs <= s->fail_runs))
			return err_set(e, s->fail_code, "the consumer does not like it");
		if (s->end_at && at + n >= s->end_at)
			return 0;
	}
}

static inline int sink_run(void *arg, const struct unpack_source *src, struct err *e)
{
	struct sink *s = arg;

	s->runs++;
	s->wrong = false;
	s->src = src;
	atomic_store(&s->read, s->begins);
	unsigned running = atomic_fetch_add(&sinks_running, 1) + 1;
	if (running > atomic_load(&sinks_most))
		atomic_store(&sinks_most, running);
	int rc = sink_loop(s, e);
	if (s->last_read)
		s->stop = *e;
	atomic_fetch_sub(&sinks_running, 1);
	return rc && s->fail_certain ? 1 : rc;
}

#define BIG (9 * MIB + 12345)	/* more than two of the smallest windows */
#define RANGE (256 * KIB)
#define WINDOW (4 * MIB)	/* of BIG with the smallest budget */

static uint8_t *data;
static int dir = -1;
static char dir_name[64];
static struct http *http;
static atomic_int stop;

static struct {
	struct transfer_item items[CONTENTS];
	struct transfer_stream streams[CONTENTS];
	struct sink sinks[CONTENTS];
	struct blob_server registry;
	struct blob_server *registries[1];
	size_t n;
	struct transfer_stats stats;
	struct transfer_options o;
	struct err e;
	atomic_uint verified, warned;
	char warning[2400];	/* the last one */
} run;

/* --- a run --- */

static inline int begin_all(void **state)
{
	const struct http_options o = { .plain = true, .stop = &stop, .user_agent = "fetcher/test" };
	struct err e;
	uint32_t x = 3;

	(void)state;
	unsetenv("http_proxy");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	signal(SIGPIPE, SIG_IGN);
	data = malloc(BIG);
	assert_non_null(data);
	for (size_t i = 0; i < BIG; i++)
		data[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
	snprintf(dir_name, sizeof(dir_name), "/tmp/fetcher-stream-XXXXXX");
	assert_non_null(mkdtemp(dir_name));
	dir = open(dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 || http_new(&http, &o, &e);
}

static inline int end_all(void **state)
{
	(void)state;
	http_free(http);
	close(dir);
	free(data);
	int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int failed = sys_remove_tree(tmp, dir_name + 5);
	close(tmp);
	return failed;
}

static inline int on_verified(void *arg, size_t item, struct blob *b, struct err *e)
{
	(void)arg;
	(void)e;
	struct sink *s = &run.sinks[item];
	assert_true((b == NULL) == (run.items[item].stream != NULL));
	if (b) {
		uint8_t *got = malloc(s->n);
		assert_int_equal(sys_pread_full(blob_fd(b), got, s->n, 0), s->n);
		assert_memory_equal(got, s->data, s->n);
		free(got);
	}
	s->verified++;
	atomic_fetch_add(&run.verified, 1);
	return 0;
}

static inline char *blob_url(const void *arg, const struct digest *d)
{
	const struct test_server *v = arg;
	char url[64];
	size_t i = 0;

	while (i < run.n && !digest_equal(&run.items[i].digest, d))
		i++;
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/%zu", v->port, i);
	return strdup(url);
}

static inline void on_warn(void *arg, const char *text)
{
	(void)arg;
	snprintf(run.warning, sizeof(run.warning), "%s", text);
	atomic_fetch_add(&run.warned, 1);
}

static inline int before(void **state)
{
	(void)state;
	memset(&run, 0, sizeof(run));
	run.o = (struct transfer_options){
		.connections = 8, .lanes = 2, .range_size = RANGE, .memory_budget = 4 * MIB, .stall_timeout_ms = LONG_MS,
		.retry_budget_ms = LONG_MS, .partial_dirfd = dir, .verified = on_verified, .warn = on_warn,
	};
	run.registry = (struct blob_server){ .name = "registry", .http = http, .blob_url = blob_url, .arg = &server };
	run.registries[0] = &run.registry;
	run.o.servers = run.registries;
	run.o.n_servers = 1;
	server.n_content = 0;
	atomic_store(&stop, 0);
	atomic_store(&sinks_most, 0);
	return 0;
}

static inline struct sink *add_as(bool stream, const uint8_t *p, size_t n, enum digest_alg alg)
{
	size_t i = run.n++;
	struct sink *s = &run.sinks[i];

	server.content[i].data = p;
	server.content[i].n = n;
	server.n_content = run.n;
	s->data = p;
	s->n = n;
	run.streams[i] = (struct transfer_stream){ sink_run, sink_start, sink_again, s };
	run.items[i] = (struct transfer_item){ .size = n, .stream = stream ? &run.streams[i] : NULL };
	digest_of(alg, p, n, &run.items[i].digest);
	return s;
}

static inline struct sink *add(const uint8_t *p, size_t n)
{
	return add_as(true, p, n, DIGEST_SHA256);
}

/* transfer_run, with a server that lives as long. */
static inline int go(void (*behave)(struct answer *))
{
	start_server(&server, behave);
	int rc = transfer_run(http, run.items, run.n, &run.o, &run.stats, &run.e);
	stop_server(&server);
	assert_int_equal(atomic_load(&sinks_running), 0);
	return rc;
}

static inline void good(const struct sink *s)
{
	assert_int_equal(s->verified, 1);
	assert_false(s->wrong);
	assert_int_equal(s->last_read, 0);
}

static inline void go_well(void (*behave)(struct answer *))
{
	if (go(behave))
		fail_msg("exit %d: %s", run.e.code, run.e.msg);
	uint64_t sum = 0;
	for (size_t i = 0; i < run.n; i++) {
		assert_int_equal(run.sinks[i].verified, 1);
		if (run.items[i].stream)
			good(&run.sinks[i]);
		sum += run.sinks[i].n;
	}
	assert_int_equal(atomic_load(&run.stats.done), sum);
	assert_int_equal(atomic_load(&run.stats.verified_items), run.n);
}

static inline void go_wrong(void (*behave)(struct answer *), enum code code)
{
	assert_int_equal(go(behave), -1);
	if (run.e.code != code)
		fail_msg("exit %d, not %d: %s", run.e.code, code, run.e.msg);
}

static inline void wait_for_done(uint64_t bytes)
{
	for (unsigned ms = 0; atomic_load(&run.stats.done) < bytes; ms++) {
		assert_true(ms < LONG_MS);
		sys_sleep_ms(1);
	}
}

#endif
