// SPDX-License-Identifier: Apache-2.0
/*
 * For the tests of notify.c: events, a record of what was told, an HTTP server on a socket of this program, and a look at
 * what is left behind.
 */
#ifndef NOTIFY_FIXTURE_H
#define NOTIFY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "notify.h"
#include "sys.h"

#define LONG_MS 20000	/* what takes so long hangs */
#define REQUESTS 32
#define DIGEST_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIGEST_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define DIGEST_C "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

static const struct notify_event __attribute__((unused)) event_a = { "r.example/m:1", DIGEST_A, "", "/models/a", 1 };
static const struct notify_event __attribute__((unused)) event_b = { "r.example/m:1", DIGEST_B, DIGEST_A, "/models/b", 2 };
static const struct notify_event __attribute__((unused)) event_c = { "r.example/m:1", DIGEST_C, DIGEST_B, "/models/c", 3 };

/* --- what is left behind --- */

static char directory[64];
static unsigned files_before, threads_before;

static inline unsigned entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static inline int before(void **state)
{
	(void)state;
	memcpy(directory, "/tmp/test_notify.XXXXXX", 24);
	assert_non_null(mkdtemp(directory));
	files_before = entries("/proc/self/fd");
	threads_before = entries("/proc/self/task");
	return 0;
}

/* No descriptor, no child, dead or alive, no thread. */
static inline int after(void **state)
{
	unsigned threads = entries("/proc/self/task");

	(void)state;
	assert_int_equal(entries("/proc/self/fd"), files_before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	for (int i = 0; i < 100 && threads != threads_before; i++, threads = entries("/proc/self/task"))
		sys_sleep_ms(10);
	assert_int_equal(threads, threads_before);
	int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(sys_remove_tree(tmp, directory + 5), 0);
	close(tmp);
	return 0;
}

/* The requests are meant for this machine, whatever the environment says. */
static inline void fx_init(void)
{
	unsetenv("http_proxy");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	signal(SIGPIPE, SIG_IGN);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, before, after)

static inline const char *in_directory(const char *name, char ret[static 128])
{
	snprintf(ret, 128, "%s/%s", directory, name);
	return ret;
}

static inline void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	fclose(f);
}

/* --- what was told --- */

static struct {
	pthread_mutex_t lock;
	unsigned good, bad;
	char order[512];	/* sinks that took it, in order */
	char errors[8192];	/* every message */
	struct err last;
} told = { .lock = PTHREAD_MUTEX_INITIALIZER };

static inline void add_text(char *to, size_t n, const char *text)
{
	size_t used = strlen(to);

	snprintf(to + used, n - used, "%s\n", text);
}

static inline void on_told(void *arg, const char *sink, const char *digest, const struct err *e)
{
	assert_ptr_equal(arg, &told);
	assert_memory_equal(digest, "sha256:", 7);
	pthread_mutex_lock(&told.lock);
	if (e) {
		told.bad++;
		told.last = *e;
		add_text(told.errors, sizeof(told.errors), e->msg);
	} else {
		told.good++;
		add_text(told.order, sizeof(told.order), sink);
	}
	pthread_mutex_unlock(&told.lock);
}

static inline unsigned told_count(bool good)
{
	pthread_mutex_lock(&told.lock);
	unsigned n = good ? told.good : told.bad;
	pthread_mutex_unlock(&told.lock);
	return n;
}

/* Has a message with that word come? */
static inline bool told_says(const char *word)
{
	pthread_mutex_lock(&told.lock);
	bool says = strstr(told.errors, word);
	pthread_mutex_unlock(&told.lock);
	return says;
}

static inline struct notify *begin(struct notify_options o)
{
	struct notify *n = NULL;
	struct err e = { 0 };

	told.good = told.bad = 0;
	told.order[0] = told.errors[0] = '\0';
	o.told = on_told;
	o.arg = &told;
	if (!o.hook_backoff_ms)
		o.hook_backoff_ms = 20;
	if (notify_new(&n, &o, &e))
		fail_msg("%s", e.msg);
	return n;
}

static inline void wait_idle(struct notify *n)
{
	for (uint64_t end = sys_now_ms() + LONG_MS; !notify_idle(n);) {
		if (sys_now_ms() > end)
			fail_msg("not taken: %s", told.errors);
		sys_sleep_ms(5);
	}
}

static inline void wait_failures(unsigned n)
{
	for (uint64_t end = sys_now_ms() + LONG_MS; told_count(false) < n;) {
		if (sys_now_ms() > end)
			fail_msg("%u failures only", told_count(false));
		sys_sleep_ms(5);
	}
}

/* notify_free must not wait for anybody. */
static inline void end_quickly(struct notify *n)
{
	uint64_t t = sys_now_ms();

	notify_free(n);
	assert_true(sys_now_ms() - t < 1000);
}

/* --- the server --- */

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
#define STATUS(line) "HTTP/1.1 " line "\r\nContent-Length: 0\r\n\r\n"
#define ANSWER(line, body) "HTTP/1.1 " line "\r\nConnection: close\r\n\r\n" body
#define HANG "hang"		/* reads, answers nothing */
#define DRIP "drip"		/* a byte of a header at a time, for ever */
#define HOLD "hold"		/* answers OK when server.release is set */

static struct server {
	int fd, wake[2];
	unsigned port;
	const char *const *answers;	/* one per connection; the last one again */
	atomic_uint n;			/* complete requests */
	atomic_bool release;
	char *requests[REQUESTS];
	pthread_t thread;
} server;

static inline void server_bind(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	memset(&server, 0, sizeof(server));
	server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(server.fd >= 0);
	assert_int_equal(bind(server.fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(server.fd, (struct sockaddr *)&a, &len), 0);
	server.port = ntohs(a.sin_port);
}

/* Waits for bytes to read, or the end of the server. */
static inline bool readable(int fd)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = server.wake[0], .events = POLLIN } };

	return poll(p, 2, -1) > 0 && !p[1].revents;
}

static inline char *read_request(int fd)
{
	char *text = calloc(1, 65536);
	size_t n = 0, want = 0;

	while (n < 65535 && (!want || n < want) && readable(fd)) {
		ssize_t got = read(fd, text + n, 65535 - n);
		if (got <= 0)
			break;
		n += (size_t)got;
		char *end = strstr(text, "\r\n\r\n");
		char *length = strstr(text, "Content-Length: ");
		if (end)
			want = (size_t)(end + 4 - text) + (length && length < end ? strtoul(length + 16, NULL, 10) : 0);
	}
	return text;
}

static inline void wait_gone(int fd)
{
	char c;

	while (readable(fd) && read(fd, &c, 1) > 0)
		;
}

static inline void send_text(int fd, const char *text)
{
	for (size_t n = strlen(text); n;) {
		ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
		if (sent <= 0)
			return;
		text += sent;
		n -= (size_t)sent;
	}
}

static inline void serve_one(int fd)
{
	static const char *const good[] = { OK, NULL };
	const char *const *list = server.answers ? server.answers : good;
	unsigned n = atomic_load(&server.n), k = 0;
	struct pollfd wake = { .fd = server.wake[0], .events = POLLIN };

	while (k < n && list[k + 1])
		k++;
	if (n >= REQUESTS)
		return;
	server.requests[n] = read_request(fd);
	atomic_store(&server.n, n + 1);
	if (strcmp(list[k], HANG) == 0) {
		wait_gone(fd);
	} else if (strcmp(list[k], DRIP) == 0) {
		send_text(fd, "HTTP/1.1 200 OK\r\nX-Slow: ");
		while (send(fd, "x", 1, MSG_NOSIGNAL) == 1 && poll(&wake, 1, 20) == 0)
			;
	} else if (strcmp(list[k], HOLD) == 0) {
		while (!atomic_load(&server.release) && poll(&wake, 1, 5) == 0)
			;
		send_text(fd, OK);
	} else {
		send_text(fd, list[k]);
	}
}

static inline void *server_main(void *arg)
{
	(void)arg;
	while (readable(server.fd)) {
		int fd = accept4(server.fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			break;
		serve_one(fd);
		close(fd);
	}
	return NULL;
}

static inline void server_listen(const char *const *answers)
{
	server.answers = answers;
	assert_int_equal(pipe2(server.wake, O_CLOEXEC), 0);
	assert_int_equal(listen(server.fd, 16), 0);
	assert_int_equal(pthread_create(&server.thread, NULL, server_main, NULL), 0);
}

static inline void server_start(const char *const *answers)
{
	server_bind();
	server_listen(answers);
}

static inline void server_stop(void)
{
	close(server.wake[1]);
	pthread_join(server.thread, NULL);
	close(server.wake[0]);
	close(server.fd);
	for (unsigned i = 0; i < REQUESTS; i++)
		free(server.requests[i]);
}

static inline void wait_requests(unsigned n)
{
	for (uint64_t end = sys_now_ms() + LONG_MS; atomic_load(&server.n) < n;) {
		if (sys_now_ms() > end)
			fail_msg("%u requests only: %s", atomic_load(&server.n), told.errors);
		sys_sleep_ms(5);
	}
}

static inline const char *server_url(const char *path, char ret[static 128])
{
	snprintf(ret, 128, "http://127.0.0.1:%u%s", server.port, path);
	return ret;
}

static inline const char *body_of(unsigned i)
{
	return strstr(server.requests[i], "\r\n\r\n") + 4;
}

#endif
