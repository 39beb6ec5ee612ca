// SPDX-License-Identifier: Apache-2.0
/* Which server an item is asked for at, mirrors that give way, and what each host bears. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transfer_internal.h"

/* --- hosts --- */

struct host *host_of(struct transfer *t, const char *url)
{
	struct host *others = &t->hosts[LIMIT_HOSTS - 1];
	char origin[512];

	if (http_origin(url, origin, sizeof(origin)))
		return others;
	for (size_t i = 0; i < t->n_hosts; i++)
		if (strcmp(t->hosts[i].origin, origin) == 0)
			return &t->hosts[i];
	char *own = t->n_hosts < LIMIT_HOSTS - 1 ? strdup(origin) : NULL;
	if (!own)
		return others;
	t->hosts[t->n_hosts].origin = own;
	return &t->hosts[t->n_hosts++];
}

struct host *item_host(const struct transfer *t, const struct item *it)
{
	return it->target ? it->target_host : t->servers[it->server].host;
}

/*
 * Each lane has its share, since each has connections of its own, and keeps those open that it used: so no more than the limit
 * are ever open.
 */
bool host_has_room(const struct transfer *t, const struct lane *l, const struct host *host, uint64_t now)
{
	unsigned most = t->o->max_per_host, n = 0;

	if (host->not_before_ms > now)
		return false;
	if (!most)
		return true;
	for (size_t i = 0; i < l->n_parts; i++)
		n += l->parts[i].it && l->parts[i].host == host;
	return n < most / t->n_lanes + (l->index < most % t->n_lanes);
}

/* --- servers --- */

int servers_init(struct transfer *t, struct err *e)
{
	size_t n = t->o->n_servers;

	if (n == 0 || n > LIMIT_SERVERS)
		return err_set(e, CODE_USAGE, "%zu servers for one pull, but at most %d are possible", n, LIMIT_SERVERS);
	t->servers = calloc(n, sizeof(*t->servers));
	t->hosts = calloc(LIMIT_HOSTS, sizeof(*t->hosts));
	if (!t->servers || !t->hosts)
		return err_oom(e);
	for (size_t i = 0; i < n; i++) {
		struct blob_server *s = t->o->servers[i];
		_cleanup_free_ char *url = s->blob_url(s->arg, &t->items[0].in->digest);
		if (!url)
			return err_oom(e);
		t->servers[i].s = s;
		t->servers[i].host = host_of(t, url);
	}
	return 0;
}

void servers_release(struct transfer *t)
{
	for (size_t i = 0; t->hosts && i < t->n_hosts; i++)
		free(t->hosts[i].origin);
	free(t->hosts);
	free(t->servers);
}

static size_t first_good(const struct transfer *t, size_t from)
{
	while (server_gives_way(t, from) && atomic_load(&t->o->servers[from]->bad))
		from++;
	return from;
}

struct host *first_host(const struct transfer *t)
{
	return t->servers[first_good(t, 0)].host;
}

/*
 * What was learned of the old server says nothing of the new one. Answers of the old one that still come leave the item's mode
 * alone.
 */
static int use_server(struct transfer *t, struct item *it, size_t server, struct err *e)
{
	const struct blob_server *s = t->o->servers[server];
	char *url = s->blob_url(s->arg, &it->in->digest);

	if (!url)
		return err_oom(e);
	free(it->url);
	free(it->target);
	it->url = url;
	it->target = NULL;
	it->server = server;
	it->mode = MODE_UNKNOWN;
	it->hops = it->resolves = it->refusals = it->attempt = it->bad_answers = 0;
	it->no_range = false;
	it->not_before_ms = 0;
	for (unsigned l = 0; l < t->n_lanes; l++)
		for (size_t i = 0; i < t->lanes[l].n_parts; i++)
			if (t->lanes[l].parts[i].it == it)
				t->lanes[l].parts[i].probe = false;
	return 0;
}

int item_seek_server(struct transfer *t, struct item *it, struct err *e)
{
	size_t server = first_good(t, it->server);

	if (it->url && server == it->server)
		return 0;
	if (it->url)
		atomic_fetch_add(&t->o->servers[it->server]->fallbacks, 1);
	return use_server(t, it, server, e);
}

bool item_give_way(struct transfer *t, const struct part *p, bool miss, const struct err *why, char *line, size_t n)
{
	struct blob_server *s = part_server(t, p);
	struct item *it = p->it;
	struct err e;
	bool news = !miss && !atomic_exchange(&s->bad, true);

	if (news && p->crawls)
		atomic_store(&s->left_at, p->crawls);
	if (it->server == p->server && it->state == ITEM_ACTIVE) {
		atomic_fetch_add(miss ? &s->misses : &s->fallbacks, 1);
		/* no time of the retry budget was spent on it */
		t->progress_ms = sys_now_ms();
		item_cancel_parts(t, it, p);
		if (use_server(t, it, first_good(t, p->server + 1), &e))
			transfer_fail_locked(t, &e);
	}
	if (news)
		snprintf(line, n, "mirror %s: %s; it is not asked again in this run, %s is", s->name, why->msg,
			 t->o->servers[first_good(t, p->server + 1)]->name);
	return news;
}

bool server_crawls(const struct transfer *t, struct part *p, uint64_t now)
{
	const struct blob_server *s = part_server(t, p);
	uint64_t least = 0, ms = now - p->window_ms;

	/* where our own limit binds, nobody is slow */
	if (p->state != PART_BODY || !ms || (t->limit.limit && atomic_load(&t->throttled_ms) >= p->window_ms))
		return false;
	if (server_gives_way(t, p->server))
		least = atomic_load(&s->kept) ? 0 : s->speed_limit;
	else
		for (size_t i = 0; i < p->server; i++)
			least = MAX(least, (uint64_t)atomic_load(&t->o->servers[i]->left_at));
	if (t->limit.limit)
		least = MIN(least, t->o->rate_limit / 2);
	uint64_t rate = (atomic_load(&s->bytes) - p->window_total) * 1000 / ms;
	p->crawls = rate < least ? MAX(rate, 1u) : 0;
	return p->crawls;
}

/* Also one that another item went back to. */
static bool was_left_for_speed(const struct blob_server *s)
{
	return atomic_load(&s->left_at) || (atomic_load(&s->kept) && !atomic_load(&s->bad));
}

bool item_go_back(struct transfer *t, const struct part *p, bool final, const struct err *why, char *line, size_t n)
{
	struct item *it = p->it;
	struct err e;
	size_t i = 0;

	line[0] = '\0';
	if (server_gives_way(t, p->server) || it->server != p->server || it->state != ITEM_ACTIVE || it->again || it->went_back)
		return false;
	/* who brought bytes before is only having a moment */
	if (!final && !p->crawls && atomic_load(&part_server(t, p)->bytes))
		return false;
	while (i < p->server && !was_left_for_speed(t->o->servers[i]))
		i++;
	if (i == p->server)
		return false;
	struct blob_server *s = t->o->servers[i];
	if (atomic_exchange(&s->left_at, 0))
		snprintf(line, n, "%s; mirror %s is asked again", why->msg, s->name);
	atomic_store(&s->kept, true);
	atomic_store(&s->bad, false);
	it->went_back = true;
	t->progress_ms = sys_now_ms();
	item_cancel_parts(t, it, p);
	if (use_server(t, it, i, &e))
		transfer_fail_locked(t, &e);
	return true;
}

/* Whatever else is under way there is not worth waiting for. */
static void cancel_parts_at(struct transfer *t, size_t server)
{
	for (unsigned l = 0; l < t->n_lanes; l++)
		for (size_t i = 0; i < t->lanes[l].n_parts; i++)
			if (t->lanes[l].parts[i].it && t->lanes[l].parts[i].server == server)
				atomic_store(&t->lanes[l].parts[i].cancel, true);
}

bool item_blame_mirrors(struct transfer *t, struct item *it, const struct err *why, char *line, size_t n)
{
	const char *and = "";
	bool blamed = false;
	struct err e;
	size_t len = 0;

	line[0] = '\0';
	for (size_t i = 0; i < t->o->n_servers; i++) {
		struct blob_server *s = t->o->servers[i];
		if (!(it->from & (uint32_t)1 << i) || !server_gives_way(t, i))
			continue;
		blamed = true;
		atomic_store(&s->bad, true);
		atomic_store(&s->left_at, 0);
		cancel_parts_at(t, i);
		if (!t->servers[i].lied && len < n) {
			len += (size_t)snprintf(line + len, n - len, "%s%s", *and ? and : "mirror ", s->name);
			and = ", ";
		}
		t->servers[i].lied = true;
	}
	if (!blamed)
		return false;
	size_t next = first_good(t, it->server);
	atomic_fetch_add(&t->o->servers[it->server]->fallbacks, next != it->server);
	if (use_server(t, it, next, &e))
		transfer_fail_locked(t, &e);
	if (*line && len < n)
		snprintf(line + len, n - len, ": %s; not asked again in this run, the blob is fetched once more from %s", why->msg,
			 item_server(t, it)->name);
	return true;
}
