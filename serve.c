// SPDX-License-Identifier: Apache-2.0
#include "serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "metrics.h"
#include "sys.h"

#define CONNECTIONS 64		/* at once */
#define CROWDED 48		/* from so many on, the oldest one makes room for the next */
#define TIMEOUT_S 10		/* without a byte from or to the client */
#define REQUEST_MEMORY (16 * KIB)	/* of one connection: request line, headers, reply headers */
#define BODY_MAX (4 * KIB)
#define ANSWER_MAX (256 * KIB)

struct serve {
	struct MHD_Daemon *daemon;
	struct serve_options o;
	unsigned port;
	/* The open connections, the oldest first. Only the server's thread looks at them. */
	struct {
		struct MHD_Connection *connection;
		int fd;
	} open[CONNECTIONS];
	size_t n_open;
};

/* A request whose body is being read: what con_cls of its connection points to. */
struct request {
	size_t body;
};

static const char TEXT[] = "text/plain; charset=utf-8";
static const char JSON[] = "application/json";
static const char PROMETHEUS[] = "text/plain; version=0.0.4; charset=utf-8";

struct answer {
	unsigned status;
	const char *type;
	const char *allow;	/* for 405 */
	struct buf body;
};

/* --- answers --- */

static void say(struct answer *a, unsigned status, const char *text)
{
	a->status = status;
	a->type = TEXT;
	buf_clear(&a->body);
	buf_adds(&a->body, text);
}

static void answer_ready(struct serve *s, struct answer *a)
{
	bool ready = s->o.ready(s->o.arg, &a->body) == 1;

	a->status = ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
	a->type = ready ? JSON : TEXT;
	if (a->body.len && a->body.data[a->body.len - 1] != '\n')
		buf_addc(&a->body, '\n');
}

static void answer_health(struct serve *s, struct answer *a)
{
	(void)s;
	if (metrics_stalled())
		say(a, MHD_HTTP_SERVICE_UNAVAILABLE, "the loop is stalled\n");
	else
		say(a, MHD_HTTP_OK, "ok\n");
}

static void answer_status(struct serve *s, struct answer *a)
{
	(void)s;
	a->status = MHD_HTTP_OK;
	a->type = JSON;
	metrics_status(&a->body);
}

static void answer_metrics(struct serve *s, struct answer *a)
{
	(void)s;
	a->status = MHD_HTTP_OK;
	a->type = PROMETHEUS;
	metrics_prometheus(&a->body);
}

/* Called after the check that the client is near. */
static void answer_sync(struct serve *s, struct answer *a)
{
	s->o.sync(s->o.sync_arg);
	say(a, MHD_HTTP_ACCEPTED, "accepted\n");
}

static const struct page {
	const char *path;
	void (*answer)(struct serve *s, struct answer *a);
	bool post;		/* POST from loopback only; else GET and HEAD from everywhere */
} pages[] = {
	{ "/", answer_ready, false },
	{ "/readyz", answer_ready, false },
	{ "/healthz", answer_health, false },
	{ "/status", answer_status, false },
	{ "/metrics", answer_metrics, false },
	{ "/sync", answer_sync, true },
};

/* 127.0.0.0/8, ::1, ::ffff:127.0.0.0/104 */
static bool from_loopback(struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *sa = info ? info->client_addr : NULL;

	if (sa && sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
	if (sa && sa->sa_family == AF_INET6) {
		const struct in6_addr *in6 = &((const struct sockaddr_in6 *)sa)->sin6_addr;
		return IN6_IS_ADDR_LOOPBACK(in6) ||
		       (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
	}
	return false;
}

static void decide(struct serve *s, struct MHD_Connection *c, const char *path, const char *method,
		   struct answer *a)
{
	const struct page *page = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
		if (strcmp(pages[i].path, path) == 0)
			page = &pages[i];
	if (!page || (page->answer == answer_sync && !s->o.sync)) {
		say(a, MHD_HTTP_NOT_FOUND, "no such page\n");
		return;
	}
	bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
	if (page->post ? strcmp(method, "POST") != 0 : !get) {
		say(a, MHD_HTTP_METHOD_NOT_ALLOWED, "not this method\n");
		a->allow = page->post ? "POST" : "GET, HEAD";
	} else if (page->post && !from_loopback(c)) {
		say(a, MHD_HTTP_FORBIDDEN, "from loopback only\n");
	} else {
		page->answer(s, a);
	}
	if (a->body.failed)
		say(a, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
}

/*
 * One answer a connection: whoever asks, asks seldom, and an idle connection would hold a place. All header values are
 * constants of this file.
 */
static enum MHD_Result send_answer(struct MHD_Connection *c, struct answer *a)
{
	size_t n = a->body.len;
	char *p = buf_steal(&a->body);
	struct MHD_Response *r = p ? MHD_create_response_from_buffer(n, p, MHD_RESPMEM_MUST_FREE) : NULL;

	if (!r) {
		free(p);
		return MHD_NO;
	}
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
	MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
	if (a->allow)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, a->allow);
	enum MHD_Result result = MHD_queue_response(c, a->status, r);
	MHD_destroy_response(r);
	return result;
}

/* --- requests --- */

/* A body whose length is not told, or too large: it is not even begun. */
static bool body_refused(struct MHD_Connection *c)
{
	const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
	uint64_t n;

	if (MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING))
		return true;
	return length && (!str_u64(str_of(length), &n) || n > BODY_MAX);
}

/*
 * Called with the headers, with each piece of the body, and at the end. A small body is read and dropped before the answer:
 * closing a connection with unread bytes would reset it, and the client might lose the answer.
 */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *path,
				  const char *method, const char *version, const char *body,
				  size_t *body_size, void **con_cls)
{
	struct answer a = { .type = TEXT, .body = BUF_INIT(ANSWER_MAX) };
	struct request *q = *con_cls;
	enum MHD_Result result;

	(void)version;
	(void)body;
	if (!q && !body_refused(c)) {
		*con_cls = calloc(1, sizeof(*q));
		return *con_cls ? MHD_YES : MHD_NO;
	}
	if (q && *body_size) {
		q->body += *body_size;
		*body_size = 0;
		return q->body <= BODY_MAX ? MHD_YES : MHD_NO;
	}
	if (!q)
		say(&a, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large\n");
	else
		decide(arg, c, path, method, &a);
	result = send_answer(c, &a);
	buf_release(&a.body);
	return result;
}

static void on_completed(void *arg, struct MHD_Connection *c, void **con_cls,
			 enum MHD_RequestTerminationCode why)
{
	(void)arg;
	(void)c;
	(void)why;
	free(*con_cls);
	*con_cls = NULL;
}

/* Paths are compared as they came. */
static size_t no_unescape(void *arg, struct MHD_Connection *c, char *s)
{
	(void)arg;
	(void)c;
	return strlen(s);
}

/* --- connections --- */

/*
 * A client that sends a byte now and then never runs into the timeout. So that nobody can take all places for long, the
 * oldest connection ends when it gets crowded: its owner had time to ask what it wanted.
 */
static enum MHD_Result on_accept(void *arg, const struct sockaddr *addr, socklen_t n)
{
	struct serve *s = arg;

	(void)addr;
	(void)n;
	if (s->n_open < CROWDED)
		return MHD_YES;
	for (size_t i = 0; i < s->n_open; i++) {
		if (s->open[i].fd < 0)
			continue;
		shutdown(s->open[i].fd, SHUT_RDWR);	/* the thread finds it at its end and closes it */
		s->open[i].fd = -1;
		break;
	}
	return MHD_YES;
}

static void on_connection(void *arg, struct MHD_Connection *c, void **socket_context,
			  enum MHD_ConnectionNotificationCode what)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct serve *s = arg;
	size_t i = 0;

	(void)socket_context;
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		if (s->n_open < CONNECTIONS && info) {
			s->open[s->n_open].connection = c;
			s->open[s->n_open++].fd = info->connect_fd;
		}
		return;
	}
	while (i < s->n_open && s->open[i].connection != c)
		i++;
	if (i == s->n_open)
		return;
	s->n_open--;
	memmove(&s->open[i], &s->open[i + 1], (s->n_open - i) * sizeof(s->open[0]));
}

/* --- the listening socket --- */

struct address {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
	socklen_t len;
	bool any;	/* no address was given: both families */
};

static void set_v4(struct address *a, uint16_t port)
{
	a->in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	a->len = sizeof(a->in);
}

static void set_v6(struct address *a, uint16_t port)
{
	a->in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
	a->len = sizeof(a->in6);
}

static bool parse_address(const char *bind, struct address *ret)
{
	const char *colon = strrchr(bind, ':'), *port = colon ? colon + 1 : bind;
	size_t n = colon ? (size_t)(colon - bind) : 0;
	char host[INET6_ADDRSTRLEN];
	uint64_t number;

	if (!str_u64(str_of(port), &number) || number > UINT16_MAX)
		return false;
	*ret = (struct address){ .any = n == 0 };
	set_v6(ret, (uint16_t)number);
	if (ret->any)
		return true;
	bool brackets = n >= 2 && bind[0] == '[' && colon[-1] == ']';
	if (brackets)
		bind++, n -= 2;
	if (n >= sizeof(host))
		return false;
	memcpy(host, bind, n);
	host[n] = '\0';
	if (brackets)
		return inet_pton(AF_INET6, host, &ret->in6.sin6_addr) == 1;
	set_v4(ret, (uint16_t)number);
	return inet_pton(AF_INET, host, &ret->in.sin_addr) == 1;
}

/* A listening socket, or -1 with errno. */
static int listen_at(const struct address *a)
{
	_cleanup_close_ int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int on = 1, off = 0;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->any && a->sa.sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		return -1;
	if (bind(fd, &a->sa, a->len) < 0 || listen(fd, CONNECTIONS) < 0)
		return -1;
	return steal_fd(&fd);
}

static int open_listener(const struct address *wanted)
{
	struct address a = *wanted;
	int fd = listen_at(&a);

	if (fd < 0 && a.any && errno != EADDRINUSE && errno != EACCES) {
		set_v4(&a, ntohs(wanted->in6.sin6_port));
		fd = listen_at(&a);
	}
	return fd;
}

static unsigned port_of(int fd)
{
	struct address a = { .len = sizeof(a.in6) };

	if (getsockname(fd, &a.sa, &a.len) < 0)
		return 0;
	return ntohs(a.sa.sa_family == AF_INET ? a.in.sin_port : a.in6.sin6_port);
}

/* --- the interface --- */

/* The daemon takes fd over, also when it cannot be started. */
static struct MHD_Daemon *start_daemon(struct serve *s, int fd)
{
	return MHD_start_daemon(MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC, 0, on_accept, s, on_request, s,
				MHD_OPTION_LISTEN_SOCKET, fd,
				MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
				MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_MEMORY,
				MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
				MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
				MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, s,
				MHD_OPTION_END);
}

int serve_start(struct serve **ret, const struct serve_options *o, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct address address;

	if (!parse_address(o->bind, &address))
		return err_set(e, CODE_USAGE,
			       "cannot listen at \"%.64s\": write ADDRESS:PORT, [ADDRESS]:PORT for IPv6, or :PORT, "
			       "all in numbers", o->bind);
	fd = open_listener(&address);
	if (fd < 0)
		return err_errno(e, CODE_LOCAL, errno, "cannot listen at %s", o->bind);
	struct serve *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->o = *o;
	s->port = port_of(fd);
	s->daemon = start_daemon(s, steal_fd(&fd));
	if (!s->daemon) {
		free(s);
		return err_set(e, CODE_LOCAL, "cannot start a thread that listens at %s", o->bind);
	}
	*ret = s;
	return 0;
}

void serve_stop(struct serve *s)
{
	if (!s)
		return;
	MHD_stop_daemon(s->daemon);
	free(s);
}

unsigned serve_port(const struct serve *s)
{
	return s->port;
}
