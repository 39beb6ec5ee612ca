// SPDX-License-Identifier: Apache-2.0
/* The endpoints over real sockets: every page, who may sync, and clients that mean no good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "json.h"
#include "metrics.h"
#include "prometheus_text.h"
#include "serve.h"
#include "sys.h"

#define PATIENCE_MS 30000	/* longer is a hang */

static struct serve *server;
static atomic_int is_ready, synced;
static bool had_fd[1024];	/* before the server came */

static int on_ready(void *arg, struct buf *ret)
{
	(void)arg;
	buf_adds(ret, atomic_load(&is_ready) ? "{\"schema\":1,\"path\":\"current\"}" : "nothing is published yet");
	return atomic_load(&is_ready);
}

static void on_sync(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static struct serve *start(const char *bind, bool with_sync)
{
	struct serve_options o = {
		.bind = bind, .ready = on_ready, .sync = with_sync ? on_sync : NULL, .sync_arg = &synced,
	};
	struct serve *s = NULL;
	struct err e = { 0 };

	if (serve_start(&s, &o, &e))
		fail_msg("%s", e.msg);
	assert_true(serve_port(s) > 0);
	return s;
}

/* --- the client --- */

static int dial(const char *host, unsigned port)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	bool v6 = inet_pton(AF_INET6, host, &in6.sin6_addr) == 1;
	int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (!v6)
		assert_int_equal(inet_pton(AF_INET, host, &in.sin_addr), 1);
	if (connect(fd, v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in, v6 ? sizeof(in6) : sizeof(in)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Until the server closes. -1 = it does not. */
static int read_all(int fd, struct buf *ret)
{
	uint64_t end = sys_now_ms() + PATIENCE_MS;
	char chunk[4096];

	buf_clear(ret);
	while (sys_now_ms() < end) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, 1000) <= 0)
			continue;
		ssize_t n = recv(fd, chunk, sizeof(chunk), 0);
		if (n <= 0)
			return 0;	/* a reset is an end as well */
		buf_add(ret, chunk, (size_t)n);
	}
	return -1;
}

static struct buf reply = BUF_INIT(8 << 20);

static const char *send_to(const char *host, const void *request, size_t n)
{
	int fd = dial(host, serve_port(server));
	const char *p = request;

	if (fd < 0)
		fail_msg("connect to %s: %s", host, strerror(errno));
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k <= 0)
			break;		/* it has heard enough */
		p += k;
		n -= (size_t)k;
	}
	if (read_all(fd, &reply))
		fail_msg("the connection stays open");
	close(fd);
	return buf_cstr(&reply);
}

static const char *ask(const char *request)
{
	return send_to("127.0.0.1", request, strlen(request));
}

static unsigned status_of(const char *answer)
{
	uint64_t v = 0;

	if (strncmp(answer, "HTTP/1.1 ", 9) != 0 && strncmp(answer, "HTTP/1.0 ", 9) != 0)
		return 0;
	str_u64((struct str){ answer + 9, 3 }, &v);
	return (unsigned)v;
}

static const char *body_of(const char *answer)
{
	const char *p = strstr(answer, "\r\n\r\n");

	assert_non_null(p);
	return p + 4;
}

static void want_status(const char *request, unsigned want)
{
	const char *answer = ask(request);

	if (status_of(answer) != want)
		fail_msg("wanted %u for\n%s\ngot\n%s", want, request, answer);
}

static void still_alive(void)
{
	want_status("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 200);
}

static size_t count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Closing happens on the server's thread, a moment later. */
static void want_fds(size_t most)
{
	for (int i = 0; i < PATIENCE_MS / 10 && count_fds() > most; i++)
		sys_sleep_ms(10);
	if (count_fds() > most)
		fail_msg("%zu descriptors are open, %zu expected", count_fds(), most);
}

/* --- pages --- */

static void pages(void **state)
{
	struct json_doc d;
	struct err e = { 0 };
	double v;

	(void)state;
	atomic_store(&is_ready, 0);
	const char *answer = ask("GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n");
	assert_int_equal(status_of(answer), 503);
	assert_string_equal(body_of(answer), "nothing is published yet\n");
	want_status("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 503);
	atomic_store(&is_ready, 1);
	answer = ask("GET /readyz?verbose HTTP/1.1\r\nHost: h\r\n\r\n");
	assert_int_equal(status_of(answer), 200);
	assert_string_equal(body_of(answer), "{\"schema\":1,\"path\":\"current\"}\n");
	assert_non_null(strstr(answer, "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(answer, "\r\nConnection: close\r\n"));
	want_status("GET / HTTP/1.0\r\n\r\n", 200);

	answer = ask("GET /metrics HTTP/1.1\r\nHost: h\r\nAccept: application/openmetrics-text\r\n\r\n");
	assert_int_equal(status_of(answer), 200);
	assert_non_null(strstr(answer, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
	const char *wrong = prometheus_check(body_of(answer));
	if (wrong)
		fail_msg("%s in\n%s", wrong, answer);
	assert_true(prometheus_value(body_of(answer), "fetcher_generation", &v));
	assert_true(prometheus_value(body_of(answer), "process_open_fds", &v));

	answer = ask("GET /status HTTP/1.1\r\nHost: h\r\n\r\n");
	assert_int_equal(status_of(answer), 200);
	assert_int_equal(json_parse(body_of(answer), strlen(body_of(answer)), "the status", &d, &e), 0);
	json_release(&d);
	still_alive();
}

static void head_is_get_without_body(void **state)
{
	static const char *const paths[] = { "/", "/readyz", "/healthz", "/status" };
	char request[100], length[100];

	(void)state;
	atomic_store(&is_ready, 1);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", paths[i]);
		const char *answer = ask(request);
		assert_int_equal(status_of(answer), 200);
		snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n", strlen(body_of(answer)));
		assert_true(strlen(body_of(answer)) > 0);
		snprintf(request, sizeof(request), "HEAD %s HTTP/1.1\r\nHost: h\r\n\r\n", paths[i]);
		answer = ask(request);
		assert_int_equal(status_of(answer), 200);
		assert_string_equal(body_of(answer), "");
		assert_non_null(strstr(answer, length));
	}
	want_status("HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n", 200);
	assert_string_equal(body_of(buf_cstr(&reply)), "");
}

static void stalled_is_unhealthy(void **state)
{
	(void)state;
	metrics_begin("r", "/d");
	metrics_allowance(1);
	sys_sleep_ms(50);
	want_status("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 503);
	metrics_allowance(0);
	still_alive();
}

static void what_there_is_not(void **state)
{
	static const char *const paths[] = {
		"/x", "/metrics/", "//metrics", "/METRICS", "/../metrics", "/%6detrics", "/metrics%00",
		"/readyz%0d%0aX-Evil:%20yes", "/etc/passwd", "/.fetcher/ready.json", "*", "metrics", "/sync/",
	};
	char request[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", paths[i]);
		want_status(request, 404);
		assert_null(strstr(buf_cstr(&reply), "Evil"));
	}
	/* http://h/metrics is the form for proxies */
	const char *answer = ask("GET http://h/metrics HTTP/1.1\r\nHost: h\r\n\r\n");
	assert_true(status_of(answer) == 404 || status_of(answer) == 200);
}

static void other_methods(void **state)
{
	static const char *const methods[] = { "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW",
					       "get", "G" };
	char request[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		snprintf(request, sizeof(request), "%s /metrics HTTP/1.1\r\nHost: h\r\n\r\n", methods[i]);
		want_status(request, 405);
		assert_non_null(strstr(buf_cstr(&reply), "\r\nAllow: GET, HEAD\r\n"));
	}
	want_status("POST /readyz HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", 405);
	want_status("GET /sync HTTP/1.1\r\nHost: h\r\n\r\n", 405);
	assert_non_null(strstr(buf_cstr(&reply), "\r\nAllow: POST\r\n"));
	want_status("HEAD /sync HTTP/1.1\r\nHost: h\r\n\r\n", 405);
}

/* --- POST /sync --- */

static void sync_from_loopback(void **state)
{
	static const char request[] = "POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
	int before = atomic_load(&synced);

	(void)state;
	want_status(request, 202);		/* ::ffff:127.0.0.1 for a server of both families */
	assert_int_equal(atomic_load(&synced), before + 1);
	assert_int_equal(status_of(send_to("127.9.9.9", request, strlen(request))), 202);
	assert_int_equal(atomic_load(&synced), before + 2);
	int fd = dial("::1", serve_port(server));
	if (fd < 0) {
		print_message("no IPv6 here: ::1 was not tried\n");
	} else {
		close(fd);
		assert_int_equal(status_of(send_to("::1", request, strlen(request))), 202);
		assert_int_equal(atomic_load(&synced), before + 3);
	}
	want_status("POST /sync HTTP/1.0\r\n\r\n", 202);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nsome=body", 202);
	/* curl asks first whether its body is wanted */
	static const char asks[] = "POST /sync HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
	char first[64] = "";
	fd = dial("127.0.0.1", serve_port(server));
	assert_true(send(fd, asks, strlen(asks), MSG_NOSIGNAL) > 0);
	assert_true(recv(fd, first, sizeof(first) - 1, 0) > 0);
	assert_int_equal(status_of(first), 100);
	assert_true(send(fd, "some=body", 9, MSG_NOSIGNAL) == 9);
	assert_int_equal(read_all(fd, &reply), 0);
	assert_int_equal(status_of(buf_cstr(&reply)), 202);
	close(fd);
}

/* An own address that is not loopback, as a neighbour on the network has one. */
static bool own_address(int family, char ret[static INET6_ADDRSTRLEN])
{
	struct ifaddrs *list = NULL;
	bool found = false;

	if (getifaddrs(&list))
		return false;
	for (struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != family || i->ifa_flags & IFF_LOOPBACK)
			continue;
		const struct sockaddr_in6 *in6 = (const void *)i->ifa_addr;
		if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
			continue;
		const void *from = family == AF_INET ? (const void *)&((struct sockaddr_in *)i->ifa_addr)->sin_addr
						     : (const void *)&in6->sin6_addr;
		found = inet_ntop(family, from, ret, INET6_ADDRSTRLEN) != NULL;
	}
	freeifaddrs(list);
	return found;
}

static void sync_from_elsewhere(void **state)
{
	static const char request[] = "POST /sync HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n"
				      "Forwarded: for=127.0.0.1\r\nContent-Length: 0\r\n\r\n";
	char host[INET6_ADDRSTRLEN];
	int before = atomic_load(&synced), tried = 0;

	(void)state;
	for (int i = 0; i < 2; i++) {
		if (!own_address(i ? AF_INET6 : AF_INET, host))
			continue;
		tried++;
		assert_int_equal(status_of(send_to(host, request, strlen(request))), 403);
	}
	assert_int_equal(atomic_load(&synced), before);
	if (!tried)
		skip();
}

static void bodies(void **state)
{
	static char request[12000];
	int before = atomic_load(&synced);

	(void)state;
	int n = snprintf(request, sizeof(request), "POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 4096\r\n\r\n%04096d", 0);
	assert_true(n > 4096);
	want_status(request, 202);
	assert_int_equal(atomic_load(&synced), ++before);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 4097\r\n\r\n", 413);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551614\r\n\r\n", 413);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
	want_status("GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n", 413);
	assert_int_equal(atomic_load(&synced), before);
	/* what follows a request on the same connection is not answered: no smuggling past a proxy */
	ask("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nPOST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
	assert_int_equal(status_of(buf_cstr(&reply)), 200);
	still_alive();
	assert_int_equal(atomic_load(&synced), before);
}

static void no_sync_without_callback(void **state)
{
	struct serve *with = server;

	(void)state;
	server = start("127.0.0.1:0", false);
	want_status("POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 404);
	still_alive();
	serve_stop(server);
	server = with;
}

/* --- clients that mean no good --- */

static void broken_requests(void **state)
{
	static const char *const bad[] = {
		"\r\n\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",	/* no Host */
		"GET / HTTP/9.9\r\nHost: h\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\nHost: h\n\n",
		"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost : h\r\n\r\n", "GET / HTTP/1.1\r\n: h\r\n\r\n",
		"GET / HTTP/1.1\r\n Host: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", "GET / HTTP/1.1\rHost: h\r\n\r\n",
		"\x16\x03\x01\x02\x01\x01\x01\x01\xfc\x03\x03", "\xff\xfe\xfd\r\n\r\n", "%s%n%s%n / HTTP/1.1\r\nHost: h\r\n\r\n",
	};
	static const char nul[] = "GET /\0/ HTTP/1.1\r\nHost: h\0h\r\n\r\n";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = dial("127.0.0.1", serve_port(server));
		assert_true(fd >= 0);
		assert_true(send(fd, bad[i], strlen(bad[i]), MSG_NOSIGNAL) > 0);
		shutdown(fd, SHUT_WR);
		assert_int_equal(read_all(fd, &reply), 0);
		close(fd);
		unsigned code = status_of(buf_cstr(&reply));
		if (code && code != 200 && code < 400)
			fail_msg("%u for\n%s", code, bad[i]);
	}
	send_to("127.0.0.1", nul, sizeof(nul) - 1);
	assert_true(status_of(buf_cstr(&reply)) != 200);
	still_alive();
}

static void giants(void **state)
{
	static char request[300000];

	(void)state;
	/* one header of 256 KiB, a path of that size, and many headers */
	memset(request, 'a', sizeof(request));
	int n = snprintf(request, sizeof(request), "GET /healthz HTTP/1.1\r\nHost: h\r\nX: ");
	request[n] = 'a';
	memcpy(request + 256 * KIB, "\r\n\r\n", 5);
	unsigned code = status_of(send_to("127.0.0.1", request, 256 * KIB + 4));
	assert_true(code == 0 || code == 431);
	n = snprintf(request, sizeof(request), "GET /");
	request[n] = 'a';
	memcpy(request + 256 * KIB, " HTTP/1.1\r\nHost: h\r\n\r\n", 23);
	code = status_of(send_to("127.0.0.1", request, 256 * KIB + 22));
	assert_true(code == 0 || code == 414 || code == 431);
	n = snprintf(request, sizeof(request), "GET /healthz HTTP/1.1\r\nHost: h\r\n");
	while (n < (int)(256 * KIB))
		n += snprintf(request + n, sizeof(request) - (size_t)n, "A: b\r\n");
	memcpy(request + n, "\r\n", 3);
	code = status_of(send_to("127.0.0.1", request, (size_t)n + 2));
	assert_true(code == 0 || code == 431);
	still_alive();
}

/*
 * Requests that just fit: the server gives back what is left behind the last element, which is an argument without value
 * when there are no headers (deps/patches/libmicrohttpd-requests.patch).
 */
static void just_fitting(void **state)
{
	static char request[20000];
	static const char *const ends[] = { "?a", "?a=", "?a=b&c", "?", "" };

	(void)state;
	for (size_t e = 0; e < ARRAY_SIZE(ends); e++) {
		for (size_t n = 15000; n < 16500; n += e ? 101 : 13) {
			memset(request, 'a', n);
			memcpy(request, "GET /", 5);
			int k = snprintf(request + n, sizeof(request) - n, "%s HTTP/1.0\r\n\r\n", ends[e]);
			unsigned code = status_of(send_to("127.0.0.1", request, n + (size_t)k));
			assert_true(code == 0 || code == 404 || code == 414 || code == 431);
		}
	}
	/* a body behind them, so that something has to be moved */
	for (size_t n = 15000; n < 16300; n += 17) {
		memset(request, 'a', n);
		memcpy(request, "POST /", 6);
		int k = snprintf(request + n, sizeof(request) - n, "?a HTTP/1.0\r\n\r\nbody");
		send_to("127.0.0.1", request, n + (size_t)k);
	}
	still_alive();
}

enum { MANY = 300 };
static atomic_int crowd_fds[MANY], n_crowd;
static atomic_bool crowd_over;

/* A byte now and then, so that no timeout ever ends these connections. */
static void *trickle(void *arg)
{
	(void)arg;
	while (!atomic_load(&crowd_over)) {
		for (int i = 0; i < atomic_load(&n_crowd); i++)
			send(atomic_load(&crowd_fds[i]), "a", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		sys_sleep_ms(500);
	}
	return NULL;
}

/* More than there are places, none of them ends by itself: whoever comes last is still served. */
static void crowd(void **state)
{
	size_t before = count_fds();
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, trickle, NULL), 0);
	for (int i = 0; i < MANY; i++) {
		int fd = dial("127.0.0.1", serve_port(server));
		assert_true(fd >= 0);
		atomic_store(&crowd_fds[i], fd);
		atomic_fetch_add(&n_crowd, 1);
		if (i % 50 == 49)
			still_alive();
	}
	still_alive();
	atomic_store(&crowd_over, true);
	pthread_join(t, NULL);
	for (int i = 0; i < MANY; i++)
		close(atomic_load(&crowd_fds[i]));
	want_fds(before);
	still_alive();
}

/* Clients that leave at any moment. */
static void quitters(void **state)
{
	static const char request[] = "POST /sync HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789";
	const struct linger hard = { 1, 0 };
	size_t before = count_fds();

	(void)state;
	for (size_t n = 0; n <= strlen(request); n++) {
		int fd = dial("127.0.0.1", serve_port(server));
		assert_true(fd >= 0);
		assert_true(n == 0 || send(fd, request, n, MSG_NOSIGNAL) == (ssize_t)n);
		if (n % 2)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		close(fd);
	}
	still_alive();
	want_fds(before);
}

/* Half a request and then nothing: the server ends it. */
static void silence(void **state)
{
	int fd = dial("127.0.0.1", serve_port(server));

	(void)state;
	assert_true(fd >= 0);
	assert_true(send(fd, "GET /healthz HT", 15, MSG_NOSIGNAL) == 15);
	still_alive();
	assert_int_equal(read_all(fd, &reply), 0);
	close(fd);
	still_alive();
}

/* --- the thread --- */

/* What /proc says of the server's thread. */
static void thread_file(const char *name, struct buf *ret)
{
	char path[300], comm[64];
	DIR *d = opendir("/proc/self/task");
	bool found = false;

	assert_non_null(d);
	for (struct dirent *entry; !found && (entry = readdir(d));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		if (sys_read_file(AT_FDCWD, path, ret))
			continue;
		snprintf(comm, sizeof(comm), "%s", buf_cstr(ret));
		if (strncmp(comm, "MHD-", 4) != 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/%s", entry->d_name, name);
		assert_int_equal(sys_read_file(AT_FDCWD, path, ret), 0);
		found = true;
	}
	closedir(d);
	assert_true(found);
}

static void sleeps_while_nobody_asks(void **state)
{
	static struct buf a = BUF_INIT(16384), b = BUF_INIT(16384);

	(void)state;
	still_alive();
	sys_sleep_ms(300);	/* the connection's end */
	thread_file("status", &a);
	assert_non_null(strstr(a.data, "State:\tS"));
	sys_sleep_ms(1500);
	thread_file("status", &b);
	const char *x = strstr(a.data, "voluntary_ctxt_switches"), *y = strstr(b.data, "voluntary_ctxt_switches");
	assert_non_null(x);
	assert_string_equal(x, y);
	buf_release(&a);
	buf_release(&b);
}

static void signals_stay_blocked(void **state)
{
	static struct buf b = BUF_INIT(16384);
	uint64_t mask = 0;

	(void)state;
	thread_file("status", &b);
	const char *p = strstr(b.data, "SigBlk:\t");
	assert_non_null(p);
	for (p += 8; *p != '\n'; p++)
		mask = mask << 4 | (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
	assert_true(mask >> (SIGTERM - 1) & 1);
	assert_true(mask >> (SIGINT - 1) & 1);
	assert_true(mask >> (SIGHUP - 1) & 1);
	buf_release(&b);
}

/* Hooks are started while the server runs: they inherit nothing of it. */
static void nothing_to_inherit(void **state)
{
	int client = dial("127.0.0.1", serve_port(server)), looked_at = 0;

	(void)state;
	assert_true(client >= 0);
	still_alive();		/* so the other one was accepted, too */
	for (int fd = 3; fd < (int)ARRAY_SIZE(had_fd); fd++) {
		int flags = fcntl(fd, F_GETFD), type;
		if (had_fd[fd] || fd == client)
			continue;
		socklen_t n = sizeof(type);
		char path[64], to[128] = "";
		if (flags < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, to, sizeof(to) - 1) < 0)
			continue;
		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 && !strstr(to, "eventfd") && !strstr(to, "pipe"))
			continue;
		looked_at++;
		if (!(flags & FD_CLOEXEC))
			fail_msg("%s would be inherited", to);
	}
	assert_true(looked_at >= 3);	/* listening, accepted, the one that wakes the thread */
	close(client);
}

static atomic_bool enough;

static void *busy(void *arg)
{
	(void)arg;
	for (uint64_t i = 0; !atomic_load(&enough); i++) {
		metrics_begin("ref", "/dest");
		metrics_plan("sha256:x", 1000, 10);
		metrics_progress(i % 1000, i % 1000, i % 10);
		metrics_notified("webhook", i % 2);
		metrics_published("sha256:x", "sha256:y", i, 1, 1, "2026-01-02T03:04:05Z");
		metrics_end(METRICS_PUBLISHED, NULL, 1);
		if (i % 100 == 0)
			sys_sleep_ms(1);
	}
	return NULL;
}

static void asked_while_it_changes(void **state)
{
	struct json_doc d;
	struct err e = { 0 };
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, busy, NULL), 0);
	for (int i = 0; i < 100; i++) {
		const char *answer = ask("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
		assert_null(prometheus_check(body_of(answer)));
		answer = ask("GET /status HTTP/1.1\r\nHost: h\r\n\r\n");
		assert_int_equal(json_parse(body_of(answer), strlen(body_of(answer)), "s", &d, &e), 0);
		json_release(&d);
	}
	atomic_store(&enough, true);
	pthread_join(t, NULL);
}

/* --- starting and stopping --- */

static void addresses(void **state)
{
	static const char *const bad[] = {
		"", ":", "x", "65536", ":65536", "-1", ":-1", "+1", "080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "localhost:80",
		"::1:80", "[::1]", "[::1]80", "[::1:80", "::1]:80", "[]:80", "[127.0.0.1]:80", "127.1:80", "127.0.0.256:80",
		"1.2.3.4.5:80", "http://127.0.0.1:80", "127.0.0.1:80 ", " 127.0.0.1:80", "*:80", "[fe80::1%lo]:80",
		"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:80",
	};
	static const char *const good[] = { "0", ":0", "127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0" };
	struct serve_options o = { .ready = on_ready };
	struct serve *s = NULL;
	struct err e = { 0 };
	char taken[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		o.bind = bad[i];
		if (serve_start(&s, &o, &e) == 0)
			fail_msg("accepted: %s", bad[i]);
		if (e.code != CODE_USAGE)
			fail_msg("code %d for %s", e.code, bad[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		o.bind = good[i];
		if (serve_start(&s, &o, &e)) {
			if (!strchr(good[i], '['))
				fail_msg("%s: %s", good[i], e.msg);
			continue;	/* no IPv6 here */
		}
		serve_stop(s);
		s = NULL;
	}
	snprintf(taken, sizeof(taken), ":%u", serve_port(server));
	o.bind = taken;
	assert_int_equal(serve_start(&s, &o, &e), -1);
	assert_int_equal(e.code, CODE_LOCAL);
	assert_int_equal(e.sys_errno, EADDRINUSE);
	assert_non_null(strstr(e.msg, taken));
	o.bind = "192.0.2.1:0";		/* TEST-NET: nobody's */
	assert_int_equal(serve_start(&s, &o, &e), -1);
	assert_int_equal(e.code, CODE_LOCAL);
	assert_null(s);
	serve_stop(NULL);
}

static void start_and_stop(void **state)
{
	struct serve *first = server;
	size_t before = count_fds();
	char again[32] = "127.0.0.1:0";

	(void)state;
	for (int i = 0; i < 30; i++) {
		server = start(again, true);
		snprintf(again, sizeof(again), "127.0.0.1:%u", serve_port(server));
		int fd = dial("127.0.0.1", serve_port(server));
		assert_true(fd >= 0);
		if (i % 2)
			still_alive();
		serve_stop(server);
		assert_int_equal(read_all(fd, &reply), 0);	/* closed by the stop */
		close(fd);
	}
	server = first;
	want_fds(before);
	still_alive();
}

/* As fetcher does: before any thread. */
static int before_all(void **state)
{
	sigset_t set;

	(void)state;
	for (int fd = 0; fd < (int)ARRAY_SIZE(had_fd); fd++)
		had_fd[fd] = fcntl(fd, F_GETFD) >= 0;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	server = start(":0", true);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);	/* only the server's thread keeps them out */
	return 0;
}

static int after_all(void **state)
{
	(void)state;
	serve_stop(server);
	buf_release(&reply);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages),
		cmocka_unit_test(head_is_get_without_body),
		cmocka_unit_test(stalled_is_unhealthy),
		cmocka_unit_test(what_there_is_not),
		cmocka_unit_test(other_methods),
		cmocka_unit_test(sync_from_loopback),
		cmocka_unit_test(sync_from_elsewhere),
		cmocka_unit_test(bodies),
		cmocka_unit_test(no_sync_without_callback),
		cmocka_unit_test(broken_requests),
		cmocka_unit_test(giants),
		cmocka_unit_test(just_fitting),
		cmocka_unit_test(crowd),
		cmocka_unit_test(quitters),
		cmocka_unit_test(silence),
		cmocka_unit_test(sleeps_while_nobody_asks),
		cmocka_unit_test(signals_stay_blocked),
		cmocka_unit_test(nothing_to_inherit),
		cmocka_unit_test(asked_while_it_changes),
		cmocka_unit_test(addresses),
		cmocka_unit_test(start_and_stop),
	};

	return cmocka_run_group_tests(tests, before_all, after_all);
}
