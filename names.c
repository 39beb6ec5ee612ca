// SPDX-License-Identifier: Apache-2.0
#include "names.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "sys.h"

#define GOOD_MS 60000		/* an answer is asked for anew after so long; getaddrinfo does not tell the TTL */
#define FAILED_MS 1000		/* a failed lookup is not repeated sooner */
#define AVOID_MS 60000
#define STACK (256 * KIB)	/* glibc's and musl's resolvers take less than 64 KiB */

struct address {
	char text[NAMES_ADDRESS_MAX];
	bool v6;
	uint64_t avoid_until_ms;
};

/* One getaddrinfo. Belongs to its thread and to the entry that wants it; the last one frees it. */
struct lookup {
	pthread_mutex_t lock;
	pthread_cond_t over;
	unsigned owners;	/* lock held */
	bool done;
	int failure;		/* EAI_*, 0 = addresses */
	struct address v[LIMIT_ADDRESSES];
	size_t n;
	char host[];
};

struct entry {
	struct entry *next;
	bool fixed;			/* of --resolve */
	unsigned port;			/* fixed: 0 = any; else unused */
	struct address v[LIMIT_ADDRESSES];
	size_t n;
	uint64_t learned_ms, failed_ms;	/* 0 = never */
	int failure;
	struct lookup *lookup;		/* under way */
	char host[];			/* fixed: "*" = any */
};

struct names {
	pthread_mutex_t lock;
	struct entry *entries;
	size_t n_entries;
	unsigned start;		/* so that a thousand Pods do not all begin with the first address */
};

/* --- lookups --- */

static void lookup_drop(struct lookup *l)
{
	pthread_mutex_lock(&l->lock);
	bool last = --l->owners == 0;
	pthread_mutex_unlock(&l->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->over);
	free(l);
}

static bool add_address(struct address *v, size_t *n, int family, const void *bytes)
{
	char text[NAMES_ADDRESS_MAX];

	if (!inet_ntop(family, bytes, text, sizeof(text)))
		return true;
	for (size_t i = 0; i < *n; i++)
		if (strcmp(v[i].text, text) == 0)
			return true;
	if (*n == LIMIT_ADDRESSES)
		return false;
	v[*n] = (struct address){ .v6 = family == AF_INET6 };
	memcpy(v[*n].text, text, sizeof(text));
	++*n;
	return true;
}

static void *lookup_main(void *arg)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct lookup *l = arg;
	struct addrinfo *found = NULL;
	int failure = getaddrinfo(l->host, NULL, &hints, &found);

	pthread_mutex_lock(&l->lock);
	for (struct addrinfo *a = failure ? NULL : found; a; a = a->ai_next) {
		const void *bytes = a->ai_family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr :
							       (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr;
		if ((a->ai_family == AF_INET || a->ai_family == AF_INET6) &&
		    !add_address(l->v, &l->n, a->ai_family, bytes))
			break;
	}
	l->failure = failure ? failure : l->n ? 0 : EAI_NONAME;
	l->done = true;
	pthread_cond_broadcast(&l->over);
	pthread_mutex_unlock(&l->lock);
	if (found)
		freeaddrinfo(found);
	lookup_drop(l);
	return NULL;
}

/* NULL: no memory or no thread; then libcurl has to do without us. */
static struct lookup *lookup_start(const char *host)
{
	size_t n = strlen(host) + 1;
	struct lookup *l = calloc(1, sizeof(*l) + n);
	pthread_condattr_t clock;
	pthread_attr_t attr;
	pthread_t thread;

	if (!l)
		return NULL;
	memcpy(l->host, host, n);
	l->owners = 2;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&l->over, &clock);
	pthread_condattr_destroy(&clock);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int rc = pthread_create(&thread, &attr, lookup_main, l);
	pthread_attr_destroy(&attr);
	if (!rc)
		return l;
	l->owners = 1;
	lookup_drop(l);
	return NULL;
}

/* --- entries (names' lock held) --- */

/* What --resolve says comes first, also where the same host was looked up for another port. */
static struct entry *find(const struct names *n, const char *host, unsigned port)
{
	struct entry *any = NULL, *looked_up = NULL;

	for (struct entry *x = n->entries; x; x = x->next) {
		if (x->fixed && x->port && x->port != port)
			continue;
		bool same = strcasecmp(x->host, host) == 0;
		if (same && x->fixed)
			return x;
		if (same)
			looked_up = x;
		else if (x->fixed && strcmp(x->host, "*") == 0)
			any = x;
	}
	return any ? any : looked_up;
}

static struct entry *add_entry(struct names *n, const char *host, size_t len)
{
	struct entry *x = calloc(1, sizeof(*x) + len + 1);

	if (!x)
		return NULL;
	memcpy(x->host, host, len);
	x->next = n->entries;
	n->entries = x;
	n->n_entries++;
	return x;
}

static bool is_address(const char *s)
{
	unsigned char bytes[16];

	return inet_pton(AF_INET, s, bytes) == 1 || inet_pton(AF_INET6, s, bytes) == 1;
}

/* Hosts that need no name server: libcurl itself maps localhost and what ends in it to loopback. */
static bool is_local(const char *host)
{
	static const char word[] = "localhost";
	size_t n = strlen(host), m = sizeof(word) - 1;

	return n == 0 || is_address(host) || strchr(host, ':') ||
	       (n >= m && strcasecmp(host + n - m, word) == 0 && (n == m || host[n - m - 1] == '.'));
}

/* What a lookup brought; addresses that were bad stay bad. */
static void take(struct entry *x, uint64_t now)
{
	struct lookup *l = x->lookup;

	pthread_mutex_lock(&l->lock);
	bool done = l->done;
	pthread_mutex_unlock(&l->lock);
	if (!done)
		return;
	x->failure = l->failure;
	x->failed_ms = l->failure ? now : 0;
	for (size_t i = 0; i < l->n; i++)
		for (size_t k = 0; k < x->n; k++)
			if (strcmp(l->v[i].text, x->v[k].text) == 0)
				l->v[i].avoid_until_ms = x->v[k].avoid_until_ms;
	if (!l->failure) {
		memcpy(x->v, l->v, sizeof(x->v));
		x->n = l->n;
		x->learned_ms = now;
	}
	x->lookup = NULL;
	lookup_drop(l);
}

/* The entry as it is now, its lookup started or taken in. NULL: none of our business. */
static struct entry *look(struct names *n, const char *host, unsigned port)
{
	struct entry *x = find(n, host, port);
	uint64_t now = sys_now_ms();

	if (x && x->fixed)
		return x;
	/* a trailing dot: libcurl's cache has another spelling of such a name */
	if (is_local(host) || host[strlen(host) - 1] == '.' || strlen(host) > LIMIT_HOST)
		return NULL;
	if (!x && n->n_entries < LIMIT_NAMES)
		x = add_entry(n, host, strlen(host));
	if (!x)
		return NULL;
	if (x->lookup)
		take(x, now);
	bool stale = !x->learned_ms || now - x->learned_ms > GOOD_MS;
	bool failed = x->failed_ms && now - x->failed_ms < FAILED_MS;
	if (!x->lookup && stale && !failed)
		x->lookup = lookup_start(host);
	return x;
}

static enum names_state state_of(const struct entry *x)
{
	if (!x)
		return NAMES_NONE;
	if (x->n)
		return NAMES_READY;
	return x->lookup ? NAMES_PENDING : x->failed_ms ? NAMES_FAILED : NAMES_NONE;
}

/* --- the order --- */

static void list_one(struct buf *list, const struct address *a)
{
	buf_addf(list, "%s%s%s%s", list->len ? "," : "", a->v6 ? "[" : "", a->text, a->v6 ? "]" : "");
}

/* 0: of the preferred family; 1: of the other one; 2: to be avoided. */
static int rank(const struct address *a, bool v6, uint64_t now)
{
	return a->avoid_until_ms > now ? 2 : a->v6 != v6;
}

/* By rank; those of the first rank turned by slot. */
static void order(const struct names *n, const struct entry *x, unsigned slot, struct buf *ret,
		  char first[static NAMES_ADDRESS_MAX])
{
	const struct address *sorted[LIMIT_ADDRESSES];
	uint64_t now = sys_now_ms();
	size_t m = 0, turning = 0;
	bool v6 = x->v[0].v6;

	for (size_t i = x->n; i-- > 0;)
		if (x->v[i].avoid_until_ms <= now)
			v6 = x->v[i].v6; /* of the first good one */
	for (int r = 0; r <= 2; r++) {
		for (size_t i = 0; i < x->n; i++)
			if (rank(&x->v[i], v6, now) == r)
				sorted[m++] = &x->v[i];
		turning = turning ? turning : m;
	}
	for (size_t i = 0; i < m; i++) {
		const struct address *a = i < turning ? sorted[(i + slot + n->start) % turning] : sorted[i];
		if (i == 0)
			memcpy(first, a->text, NAMES_ADDRESS_MAX);
		list_one(ret, a);
	}
}

enum names_state names_pick(struct names *n, const char *host, unsigned port, unsigned slot, struct buf *ret_list,
			    char ret_first[static NAMES_ADDRESS_MAX])
{
	pthread_mutex_lock(&n->lock);
	struct entry *x = look(n, host, port);
	enum names_state state = state_of(x);
	if (state == NAMES_READY)
		order(n, x, slot, ret_list, ret_first);
	pthread_mutex_unlock(&n->lock);
	return state;
}

enum names_state names_wait(struct names *n, const char *host, unsigned port, unsigned ms)
{
	struct timespec until;

	pthread_mutex_lock(&n->lock);
	struct entry *x = look(n, host, port);
	enum names_state state = state_of(x);
	struct lookup *l = state == NAMES_PENDING ? x->lookup : NULL;
	if (l) {
		pthread_mutex_lock(&l->lock);
		l->owners++;
		pthread_mutex_unlock(&l->lock);
	}
	pthread_mutex_unlock(&n->lock);
	if (!l)
		return state;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&l->lock);
	while (!l->done && pthread_cond_timedwait(&l->over, &l->lock, &until) == 0)
		;
	pthread_mutex_unlock(&l->lock);
	lookup_drop(l);
	pthread_mutex_lock(&n->lock);
	state = state_of(look(n, host, port));
	pthread_mutex_unlock(&n->lock);
	return state;
}

const char *names_failure(struct names *n, const char *host, char *ret, size_t size)
{
	*ret = '\0';
	pthread_mutex_lock(&n->lock);
	const struct entry *x = find(n, host, 0);
	int failure = x ? x->failure : 0;
	pthread_mutex_unlock(&n->lock);
	if (failure == EAI_NONAME)
		snprintf(ret, size, "no such host");
#ifdef EAI_NODATA
	else if (failure == EAI_NODATA)
		snprintf(ret, size, "the name has no address");
#endif
	else if (failure == EAI_AGAIN)
		snprintf(ret, size, "the name server does not answer, or failed");
	else if (failure)
		snprintf(ret, size, "%s", gai_strerror(failure));
	return ret;
}

void names_avoid(struct names *n, const char *host, unsigned port, const char *address)
{
	uint64_t now = sys_now_ms();
	bool any = false;

	pthread_mutex_lock(&n->lock);
	struct entry *x = find(n, host, port);
	for (size_t i = 0; x && i < x->n; i++) {
		if (strcmp(x->v[i].text, address) == 0)
			x->v[i].avoid_until_ms = now + AVOID_MS;
		any = any || x->v[i].avoid_until_ms <= now;
	}
	/* a Service that was made anew has other addresses than a minute ago */
	if (x && !any && x->learned_ms && now - x->learned_ms > FAILED_MS)
		x->learned_ms = 0;
	pthread_mutex_unlock(&n->lock);
}

/* --- --resolve --- */

/* An address with or without brackets; false: it is none. */
static bool plain_address(struct str s, struct address *v, size_t *n)
{
	char text[NAMES_ADDRESS_MAX];
	unsigned char bytes[16];
	int family;

	if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
		s.p++, s.n -= 2;
	if (s.n >= sizeof(text))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	family = inet_pton(AF_INET, text, bytes) == 1 ? AF_INET : inet_pton(AF_INET6, text, bytes) == 1 ? AF_INET6 : 0;
	return family && add_address(v, n, family, bytes);
}

static bool add_list(struct entry *x, const char *list)
{
	for (;;) {
		size_t len = strcspn(list, ",");
		if (!plain_address((struct str){ list, len }, x->v, &x->n))
			return false;
		if (!list[len])
			return true;
		list += len + 1;
	}
}

static int add_fixed(struct names *n, const char *text, struct err *e)
{
	const char *host = text + (*text == '+'), *colon = strchr(host, ':');
	const char *second = colon ? strchr(colon + 1, ':') : NULL;
	uint64_t port = 0;
	bool ok = second && colon > host && second[1] && (size_t)(colon - host) <= LIMIT_HOST;

	if (ok && !(second == colon + 2 && colon[1] == '*'))
		ok = str_u64((struct str){ colon + 1, (size_t)(second - colon - 1) }, &port) && port && port <= 65535;
	if (!ok)
		return err_set(e, CODE_USAGE, "--resolve: '%.100s' is not HOST:PORT:ADDRESS[,ADDRESS...]", text);
	struct entry *x = add_entry(n, host, (size_t)(colon - host));
	if (!x)
		return err_oom(e);
	x->fixed = true;
	x->port = (unsigned)port;
	if (!add_list(x, second + 1))
		return err_set(e, CODE_USAGE, "--resolve: '%.100s' names something that is no IP address, or more than %d",
			       text, LIMIT_ADDRESSES);
	return 0;
}

int names_new(struct names **ret, const char *const *resolve, struct err *e)
{
	struct names *n = calloc(1, sizeof(*n));
	int failed = 0;

	if (!n)
		return err_oom(e);
	pthread_mutex_init(&n->lock, NULL);
	n->start = (unsigned)(sys_random64() % 5040); /* a multiple of what counts of addresses there are */
	for (size_t i = 0; resolve && resolve[i] && !failed; i++) {
		struct address one[LIMIT_ADDRESSES];
		size_t count = 0;
		if (n->entries && plain_address(str_of(resolve[i]), one, &count))
			failed = add_list(n->entries, resolve[i]) ? 0 :
				 err_set(e, CODE_USAGE, "--resolve: more than %d addresses", LIMIT_ADDRESSES);
		else
			failed = add_fixed(n, resolve[i], e);
	}
	if (failed) {
		names_free(n);
		return -1;
	}
	*ret = n;
	return 0;
}

void names_free(struct names *n)
{
	if (!n)
		return;
	while (n->entries) {
		struct entry *x = n->entries;
		n->entries = x->next;
		if (x->lookup)
			lookup_drop(x->lookup);
		free(x);
	}
	pthread_mutex_destroy(&n->lock);
	free(n);
}
