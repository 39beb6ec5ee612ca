// SPDX-License-Identifier: Apache-2.0
#include "pull.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "layout.h"
#include "memory.h"
#include "metrics.h"
#include "progress.h"
#include "sys.h"
#include "transfer.h"
#include "trees.h"
#include "units.h"

_Static_assert((int)CONFIG_FLAT == (int)STORE_FLAT && (int)CONFIG_VERSIONS == (int)STORE_VERSIONS,
	       "config.h and store.h agree on layouts");
_Static_assert((int)CONFIG_FSYNC_END == (int)STORE_FSYNC_END &&
	       (int)CONFIG_FSYNC_ALWAYS == (int)STORE_FSYNC_ALWAYS &&
	       (int)CONFIG_FSYNC_NEVER == (int)STORE_FSYNC_NEVER,
	       "config.h and store.h agree on fsync");

#define METRICS_MS 10000	/* pause between two writes of --metrics-file */
#define ANNOTATION_CREATED "org.opencontainers.image.created"

/* One blob to fetch and the files of the plan that get it. */
struct want {
	size_t first;		/* index into pull.files_by_digest */
	size_t n;
};

struct pull {
	const struct pull_options *o;
	const struct config *cfg;
	uint64_t started_ms;
	struct ref ref;
	struct oci_repo *repo;
	struct oci_platform *platform;	/* NULL = this machine's */
	struct oci_platform platform_store;
	struct digest digest;
	char *selection, *version;
	struct store *store;
	struct oci_resolved resolved;
	struct layout plan;
	/* blobs to fetch */
	size_t *files;		/* indexes of missing files, grouped by digest */
	size_t n_files;
	struct want *wants;
	struct transfer_item *items;
	size_t n_items;
	pthread_mutex_t place_lock; /* duplicates: found and placed one after the other */
	struct transfer_stats stats;
	uint64_t tree_wire;	/* bytes received for layers that were unpacked */
	atomic_uint_fast64_t files_done;
	uint64_t reused;	/* bytes that were on the volume before */
	uint64_t metrics_ms;	/* when --metrics-file was written last */
};

/* --- the registry side --- */

static void on_trace(void *arg, const char *line)
{
	(void)arg;
	log_line(LOG_DEBUG, line, NULL);
}

static void on_warn(void *arg, const char *line)
{
	(void)arg;
	log_line(LOG_WARN, line, NULL);
}

static int open_repo(const struct config *cfg, const char *ref, uint64_t budget_ms, uint64_t deadline_ms,
		     const atomic_int *stop, struct oci_repo **ret_repo, struct ref *ret_ref, struct err *e)
{
	const struct http_options ho = {
		.ca_file = cfg->ca_file,
		.cert_file = cfg->cert_file,
		.key_file = cfg->key_file,
		.insecure = cfg->insecure,
		.extra_ca_files = cfg->extra_ca_file.v,
		.proxy_ca_file = cfg->proxy_ca_file,
		.tls13 = cfg->tls_min == CONFIG_TLS13,
		.resolve = cfg->resolve.v,
		.dns_timeout_ms = (unsigned)cfg->dns_timeout_ms,
		.connect_timeout_ms = (unsigned)cfg->connect_timeout_ms,
		.stall_timeout_ms = (unsigned)cfg->stall_timeout_ms,
		.speed_limit = cfg->speed_limit,
		.speed_time_ms = (unsigned)cfg->speed_time_ms,
		.retry_budget_ms = (unsigned)budget_ms,
		.deadline_ms = deadline_ms ? deadline_ms : cfg->deadline_ms ? sys_now_ms() + cfg->deadline_ms : 0,
		.user_agent = FETCHER_USER_AGENT,
		.stop = stop,
		.trace = log_enabled(LOG_DEBUG) ? on_trace : NULL,
		.warn = on_warn,
	};
	struct oci_repo_options ro = {
		.plain_http = cfg->plain_http,
		.auth = {
			.config_files = cfg->registry_config.v,
			.username = cfg->username,
			.password_file = cfg->password_file,
			.token_file = cfg->token_file,
			/* an identity is not handed to servers that nobody verified */
			.no_cloud_login = cfg->cloud_login == CLOUD_LOGIN_OFF || cfg->insecure,
			.allow_private_realm = cfg->allow_private_realm,
		},
		.http = ho,
		.mirrors = cfg->mirror.v,
		.hosts_dir = cfg->hosts_dir,
		.mirror_timeout_ms = (unsigned)cfg->mirror_timeout_ms,
		.mirror_speed_limit = cfg->mirror_speed_limit,
	};
	struct ref r;

	if (ref_parse(ref, &r, e))
		return -1;
	if (cfg->insecure)
		log_line(LOG_WARN, "--insecure: the registry's certificate is not verified", "registry",
			 r.registry, NULL);
	if (oci_repo_new(ret_repo, &r, &ro, e))
		return -1;
	*ret_ref = r;
	return 0;
}

int pull_open_repo(const struct config *cfg, const char *ref, const atomic_int *stop, struct oci_repo **ret_repo,
		   struct ref *ret_ref, struct err *e)
{
	return open_repo(cfg, ref, cfg->retry_timeout_ms, 0, stop, ret_repo, ret_ref, e);
}

/* What makes this choice of files another version than the default one (store.h). */
static char *selection_text(const struct config *cfg)
{
	struct buf b = BUF_INIT(LIMIT_MARKER);

	if (cfg->platform)
		buf_addf(&b, "platform %s\n", cfg->platform);
	for (size_t i = 0; i < cfg->include.n; i++)
		buf_addf(&b, "include %s\n", cfg->include.v[i]);
	for (size_t i = 0; i < cfg->exclude.n; i++)
		buf_addf(&b, "exclude %s\n", cfg->exclude.v[i]);
	for (size_t i = 0; i < cfg->type.n; i++)
		buf_addf(&b, "type %s\n", cfg->type.v[i]);
	if (cfg->layout_as && strcmp(cfg->layout_as, "auto") != 0)
		buf_addf(&b, "as %s\n", cfg->layout_as);
	if (cfg->subdir)
		buf_addf(&b, "subdir %s\n", cfg->subdir);
	return buf_steal(&b);
}

static int prepare(struct pull *p, struct err *e)
{
	char text[DIGEST_STR_MAX];

	uint64_t budget = p->o->check_budget_ms ? p->o->check_budget_ms : p->cfg->retry_timeout_ms;

	if (open_repo(p->cfg, p->o->ref, budget, p->o->deadline_ms, p->o->stop, &p->repo, &p->ref, e))
		return -1;
	if (p->cfg->platform) {
		if (oci_platform_parse(p->cfg->platform, &p->platform_store, e))
			return -1;
		p->platform = &p->platform_store;
	}
	if (oci_resolve_digest(p->repo, &p->digest, e))
		return -1;
	p->selection = selection_text(p->cfg);
	p->version = p->selection ? store_version_name(&p->digest, p->selection) : NULL;
	if (!p->version)
		return err_oom(e);
	log_line(LOG_DEBUG, "resolved", "ref", p->o->ref, "digest",
		 digest_format(&p->digest, ':', text), NULL);
	return 0;
}

/* --- is there anything to do --- */

static enum store_layout wanted_layout(const struct pull *p)
{
	return (enum store_layout)p->cfg->layout;
}

/* 1: the volume holds this very version, complete and untouched; marker is handed over. */
static int up_to_date(struct pull *p, struct pull_result *r, bool locked, struct err *e)
{
	struct store_marker m = { 0 };
	struct store_meta meta = { 0 };
	struct err why = { 0 };

	int have = store_read_marker(p->store, &m, e);
	if (have != 1)
		return have;
	have = 0;
	if (strcmp(m.version, p->version) == 0 &&
	    strcmp(m.path, wanted_layout(p) == STORE_FLAT ? "." : "current") == 0 &&
	    store_read_meta(p->store, p->version, &meta, &why) == 1) {
		have = store_check(p->store, &m, &meta, false, &why);
		if (have == 0 && locked)
			log_line(LOG_WARN, "the published files were changed; mending", "reason", why.msg, NULL);
	}
	store_meta_release(&meta);
	if (have == 1) {
		r->marker = m;
		r->up_to_date = true;
		r->reused = m.bytes;
	} else {
		store_marker_release(&m);
	}
	return have == 1;
}

static void on_waiting(void *arg, const char *holder)
{
	(void)arg;
	log_line(LOG_INFO, "another fetcher is at work on this volume; waiting", "holder", holder, NULL);
}

/* Opens and locks DEST. 1: it is up to date already (without a lock, so that a read-only DEST will do). */
static int open_volume(struct pull *p, struct pull_result *r, struct err *e)
{
	struct err ignored;

	if (store_open(&p->store, p->o->dest, false, &ignored) == 0) {
		int done = up_to_date(p, r, false, &ignored);
		if (done == 1)
			return 1;
		store_close(p->store);
		p->store = NULL;
	}
	if (store_open(&p->store, p->o->dest, true, e) ||
	    store_lock(p->store, p->cfg->lock_timeout_ms, p->o->stop, on_waiting, NULL, e))
		return -1;
	/* whoever held the lock may have done the work */
	return up_to_date(p, r, true, e);
}

/* --- plan --- */

static int get_documents(struct pull *p, struct err *e)
{
	struct store_meta meta = { 0 };
	struct err ignored;
	int failed = -1;

	/* an earlier try or version left them on the volume: they are hashed, not trusted */
	if (store_read_meta(p->store, p->version, &meta, &ignored) == 1)
		failed = oci_resolve_cached(&p->digest, meta.media_type, meta.raw.data, meta.raw.len,
					    meta.manifest_raw.data, meta.manifest_raw.len,
					    p->platform, &p->resolved, &ignored);
	store_meta_release(&meta);
	if (failed)
		failed = oci_resolve(p->repo, &p->digest, p->platform, &p->resolved, e);
	return failed;
}

static struct layout_options layout_options_of(const struct config *cfg)
{
	return (struct layout_options){
		.include = cfg->include.v,
		.exclude = cfg->exclude.v,
		.types = cfg->type.v,
		.as = cfg->layout_as,
		.subdir = cfg->subdir,
		.strict = cfg->strict,
	};
}

int pull_plan(const struct config *cfg, struct oci_repo *repo, const struct oci_manifest *m, struct layout *ret,
	      struct err *e)
{
	struct layout_options o = layout_options_of(cfg);
	_cleanup_buf_ struct buf config = { 0 };

	if (layout_wants_config(m)) {
		if (oci_get_blob(repo, &m->config, LIMIT_MANIFEST, &config, e))
			return err_wrap(e, "config");
		o.config = config.data;
		o.config_len = config.len;
	}
	return layout_plan(m, &o, ret, e);
}

static int make_plan(struct pull *p, struct err *e)
{
	if (get_documents(p, e) || pull_plan(p->cfg, p->repo, &p->resolved.manifest, &p->plan, e))
		return -1;
	for (size_t i = 0; i < p->plan.n_warnings; i++)
		log_line(LOG_WARN, p->plan.warnings[i], NULL);
	return 0;
}

/* Seconds since 1970 of the annotation "created" of a document; false: it has none that can be read. */
static bool created_at(const struct buf *raw, int64_t *ret)
{
	struct oci_manifest m = { 0 };
	struct err ignored;
	const char *text;
	bool ok;

	if (!raw->len || oci_manifest_parse((const char *)raw->data, raw->len, NULL, &m, &ignored))
		return false;
	text = oci_annotation(m.annotations, m.n_annotations, ANNOTATION_CREATED);
	ok = text && units_rfc3339(str_of(text), ret);
	oci_manifest_release(&m);
	return ok;
}

static bool created(const struct buf *raw, const struct buf *manifest_raw, int64_t *ret)
{
	return created_at(raw, ret) || created_at(manifest_raw, ret);
}

/*
 * --deny-downgrade. The time of creation decides where both artifacts have one; else the version that the published one
 * replaced is a downgrade: somebody set the tag back.
 */
static bool is_downgrade(struct pull *p, const struct store_marker *now)
{
	struct store_meta meta = { 0 };
	struct err ignored;
	int64_t old_time, new_time;
	char digest[DIGEST_STR_MAX];
	bool known = store_read_meta(p->store, now->version, &meta, &ignored) == 1 &&
		     created(&meta.raw, &meta.manifest_raw, &old_time) &&
		     created(&p->resolved.raw, &p->resolved.manifest_raw, &new_time);

	store_meta_release(&meta);
	if (known)
		return new_time < old_time;
	return now->previous && strcmp(now->previous, digest_format(&p->digest, ':', digest)) == 0;
}

static int check_downgrade(struct pull *p, struct err *e)
{
	struct store_marker now = { 0 };
	struct err ignored;
	char a[DIGEST_STR_MAX], b[DIGEST_STR_MAX];
	int rc = 0;

	if (!p->cfg->deny_downgrade || store_read_marker(p->store, &now, &ignored) != 1)
		return 0;
	if (!digest_equal(&now.digest, &p->digest) && is_downgrade(p, &now))
		rc = err_set(e, CODE_POLICY, "%s is older than the published %s; --deny-downgrade keeps that one",
			     digest_format(&p->digest, ':', a), digest_format(&now.digest, ':', b));
	store_marker_release(&now);
	return rc;
}

/* Bytes of a half blob that an earlier run reserved: they are not needed again. */
static uint64_t reserved_bytes(struct pull *p, const struct digest *d)
{
	char name[DIGEST_STR_MAX];
	struct stat st;

	if (fstatat(store_partial_dirfd(p->store), digest_format(d, '-', name), &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

static int by_digest(const void *a, const void *b, void *arg)
{
	const struct pull *p = arg;
	const struct layout_file *x = &p->plan.files[*(const size_t *)a];
	const struct layout_file *y = &p->plan.files[*(const size_t *)b];
	int c = memcmp(&x->digest, &y->digest, sizeof(x->digest));

	return c ? c : (*(const size_t *)a > *(const size_t *)b) - (*(const size_t *)a < *(const size_t *)b);
}

/* Told before the first byte: the declared limit, and what the file system has (design D4, code 23). */
static int check_space(struct pull *p, struct err *e)
{
	uint64_t need = 0, free_bytes;

	if (p->cfg->max_bytes && p->plan.bytes > p->cfg->max_bytes)
		return err_set(e, CODE_SPACE, "the artifact has %" PRIu64 " bytes, --max-bytes allows %" PRIu64,
			       p->plan.bytes, p->cfg->max_bytes);
	if (sys_free_bytes(store_dirfd(p->store), &free_bytes))
		return err_errno(e, CODE_LOCAL, errno, "cannot ask %s for its free space", p->o->dest);
	if (p->plan.unique_bytes <= free_bytes)
		return 0;
	/* only a close look tells what is there already */
	for (size_t i = 0; i < p->n_files; i++) {
		const struct layout_file *f = &p->plan.files[p->files[i]];
		if (f->from || f->kind != LAYOUT_FILE ||
		    (i && digest_equal(&f->digest, &p->plan.files[p->files[i - 1]].digest)))
			continue;
		uint64_t have = reserved_bytes(p, &f->digest);
		char *path = NULL;
		if (have < f->size && store_find(p->store, &f->digest, f->size, &path, e) == 1)
			have = f->size;
		free(path);
		need += f->size - MIN(have, f->size);
	}
	if (need <= free_bytes)
		return 0;
	return err_set(e, CODE_SPACE, "%s has %" PRIu64 " bytes free, %" PRIu64 " more are needed; "
		       "use a larger volume or --include less", p->o->dest, free_bytes, need - free_bytes);
}

static int list_files(struct pull *p, struct err *e)
{
	p->files = calloc(p->plan.n_files + 1, sizeof(*p->files));
	p->wants = calloc(p->plan.n_files + 1, sizeof(*p->wants));
	p->items = calloc(p->plan.n_files + 1, sizeof(*p->items));
	if (!p->files || !p->wants || !p->items)
		return err_oom(e);
	for (size_t i = 0; i < p->plan.n_files; i++)
		p->files[p->n_files++] = i;
	qsort_r(p->files, p->n_files, sizeof(*p->files), by_digest, p);
	return 0;
}

static void file_done(struct pull *p, size_t file)
{
	atomic_fetch_add(&p->files_done, 1);
	progress_file_done(p->plan.files[file].path, p->plan.files[file].size);
}

/* Puts a file in place without the network, if that is possible. 1 done, 0 must be fetched, -1. */
static int place_local(struct pull *p, size_t i, struct err *e)
{
	const struct layout_file *f = &p->plan.files[i];
	char *path = NULL;

	int have = store_has(p->store, i, e);
	if (have == 1)
		p->reused += f->size;
	if (have)
		return have;
	if (f->size == 0 || f->data)
		return store_place_bytes(p->store, i, f->data, f->size, e) ? -1 : 1;
	if (f->from)
		return store_place(p->store, i, f->from, NULL, e) ? -1 : 1;
	have = store_find(p->store, &f->digest, f->size, &path, e);
	if (have == 1) {
		have = store_place(p->store, i, NULL, path, e) ? -1 : 1;
		p->reused += have == 1 ? f->size : 0;
	}
	free(path);
	return have;
}

/* Places what is here already and groups the rest by digest. */
static int sort_out(struct pull *p, struct err *e)
{
	size_t kept = 0;

	for (size_t k = 0; k < p->n_files; k++) {
		size_t i = p->files[k];
		int done = place_local(p, i, e);
		if (done < 0)
			return -1;
		if (done)
			file_done(p, i);
		else
			p->files[kept++] = i;
	}
	p->n_files = kept;
	for (size_t k = 0; k < kept; k++) {
		const struct layout_file *f = &p->plan.files[p->files[k]];
		if (k && digest_equal(&f->digest, &p->plan.files[p->files[k - 1]].digest)) {
			p->wants[p->n_items - 1].n++;
			continue;
		}
		struct transfer_item *it = &p->items[p->n_items];
		p->wants[p->n_items++] = (struct want){ .first = k, .n = 1 };
		it->digest = f->digest;
		it->size = f->size;
	}
	return 0;
}

/* --- transfer --- */

/* A lane verified a blob: every file that wants it gets it. */
static int on_verified(void *arg, size_t item, struct blob *b, struct err *e)
{
	struct pull *p = arg;
	const struct want *w = &p->wants[item];
	int failed = store_place(p->store, p->files[w->first], blob_name(b), NULL, e);

	if (!failed)
		file_done(p, p->files[w->first]);
	for (size_t k = 1; !failed && k < w->n; k++) {
		size_t i = p->files[w->first + k];
		const struct layout_file *f = &p->plan.files[i];
		char *path = NULL;
		pthread_mutex_lock(&p->place_lock);
		int found = store_find(p->store, &f->digest, f->size, &path, e);
		if (found == 0)
			err_set(e, CODE_INTERNAL, "%s: its twin is not on the volume", f->path);
		failed = found == 1 ? store_place(p->store, i, NULL, path, e) : -1;
		pthread_mutex_unlock(&p->place_lock);
		free(path);
		if (!failed)
			file_done(p, i);
	}
	return failed;
}

static void on_tick(void *arg)
{
	struct pull *p = arg;

	uint64_t done = p->reused + atomic_load(&p->stats.done);
	uint64_t wire = p->tree_wire + atomic_load(&p->stats.wire);

	progress_update(done, wire, atomic_load(&p->files_done));
	metrics_progress(done, wire, atomic_load(&p->files_done));
	if (p->cfg->metrics_file && sys_now_ms() - p->metrics_ms >= METRICS_MS) {
		struct err ignored; /* whoever runs the pull writes it at the end, and tells */
		metrics_write_file(p->cfg->metrics_file, &ignored);
		p->metrics_ms = sys_now_ms();
	}
}

static struct transfer_options transfer_options_of(struct pull *p)
{
	size_t n_servers;
	struct blob_server *const *servers = oci_repo_servers(p->repo, &n_servers);
	const struct config *c = p->cfg;
	int dirfd = store_partial_dirfd(p->store);

	return (struct transfer_options){
		.connections = (unsigned)c->concurrency,
		.max_per_host = (unsigned)c->max_connections_per_host,
		.rate_limit = c->rate_limit,
		.range_size = c->range_size,
		.memory_budget = c->memory_budget,
		.stall_timeout_ms = (unsigned)c->stall_timeout_ms,
		.speed_limit = c->speed_limit,
		.speed_time_ms = (unsigned)c->speed_time_ms,
		.retry_budget_ms = (unsigned)c->retry_timeout_ms,
		.deadline_ms = p->o->deadline_ms ? p->o->deadline_ms :
			       c->deadline_ms ? p->started_ms + c->deadline_ms : 0,
		.partial_dirfd = dirfd,
		.servers = servers,
		.n_servers = n_servers,
		.blob = {
			.journal = true,
			.sync = c->fsync != CONFIG_FSYNC_NEVER,
			.drop_behind = memory_drop_window(dirfd, p->plan.bytes),
		},
		.verified = on_verified,
		.tick = on_tick,
		.warn = on_warn,
		.arg = p,
	};
}

static int fetch(struct pull *p, struct err *e)
{
	struct transfer_options o = transfer_options_of(p);

	return transfer_run(oci_repo_http(p->repo), p->items, p->n_items, &o, &p->stats, e);
}

/* --- layers that become many files --- */

/* Unpacks what has to be: after it the plan knows files with digests, and nothing else. */
static int unpack(struct pull *p, struct err *e)
{
	struct layout_options lo = layout_options_of(p->cfg);
	struct transfer_options to = transfer_options_of(p);
	char digest[DIGEST_STR_MAX];
	const struct trees_options o = {
		.store = p->store,
		.http = oci_repo_http(p->repo),
		.transfer = &to,
		.tick = on_tick,
		.tick_arg = p,
		.globs = &lo,
		.max_bytes = p->cfg->max_bytes,
		.sync = p->cfg->fsync != CONFIG_FSYNC_NEVER,
	};
	uint64_t kept = 0;

	if (!p->plan.n_trees)
		return 0;
	metrics_plan(digest_format(&p->digest, ':', digest), p->plan.tree_bytes, p->plan.n_trees);
	progress_init(p->cfg->quiet ? PROGRESS_NEVER : p->cfg->progress, p->o->ref, p->plan.tree_bytes, p->plan.n_trees);
	int failed = trees_unpack(&p->plan, &o, &p->stats, &kept, e);
	on_tick(p);
	progress_end();
	p->tree_wire = atomic_load(&p->stats.wire);
	p->stats = (struct transfer_stats){ 0 };
	return failed;
}

/* --- publish --- */

static int on_accept(void *arg, const char *path, struct err *e)
{
	const struct pull *p = arg;
	char digest[DIGEST_STR_MAX];

	return p->o->accept(p->o->accept_arg, digest_format(&p->digest, ':', digest), path, e);
}

static int publish(struct pull *p, struct pull_result *r, struct err *e)
{
	struct store_publish sp = {
		.layout = wanted_layout(p),
		.fsync = (enum store_fsync)p->cfg->fsync,
		.version = p->version,
		.digest = &p->digest,
		.plan = &p->plan,
		.file_mode = 0644,
		.dir_mode = 0755,
		.accept = p->o->accept ? on_accept : NULL,
		.accept_arg = p,
	};
	struct store_marker m = { 0 };
	char digest[DIGEST_STR_MAX];

	if (check_space(p, e) || store_begin(p->store, &sp, e))
		return -1;
	metrics_plan(digest_format(&p->digest, ':', digest), p->plan.bytes, p->plan.n_files);
	progress_init(p->cfg->quiet ? PROGRESS_NEVER : p->cfg->progress, p->o->ref, p->plan.bytes,
		      p->plan.n_files);
	int failed = sort_out(p, e) || fetch(p, e) ? -1 : 0;
	on_tick(p);
	progress_end();
	if (failed)
		return -1;
	m.ref = strdup(p->o->ref);
	m.digest = p->digest;
	m.media_type = strdup(p->resolved.media_type);
	m.artifact_type = strdup(p->resolved.manifest.artifact_type);
	m.fetcher = strdup(FETCHER_VERSION);
	m.downloaded = p->tree_wire + atomic_load(&p->stats.wire);
	m.duration_ms = sys_now_ms() - p->started_ms;
	if (!m.ref || !m.media_type || !m.artifact_type || !m.fetcher)
		failed = err_oom(e);
	else
		failed = store_commit(p->store, &m, p->selection, &p->resolved.raw,
				      &p->resolved.manifest_raw, e);
	if (failed)
		store_marker_release(&m);
	else
		r->marker = m;
	return failed;
}

static void tell(const struct pull *p, const struct pull_result *r)
{
	char digest[DIGEST_STR_MAX], bytes[24], wire[24], files[24], ms[24];

	snprintf(bytes, sizeof(bytes), "%" PRIu64, r->marker.bytes);
	snprintf(wire, sizeof(wire), "%" PRIu64, r->downloaded);
	snprintf(files, sizeof(files), "%" PRIu64, r->marker.files);
	snprintf(ms, sizeof(ms), "%" PRIu64, r->duration_ms);
	log_line(r->up_to_date && p->o->repeated ? LOG_DEBUG : LOG_INFO, r->up_to_date ? "up to date" : "pulled", "ref", p->o->ref, "digest",
		 digest_format(&p->digest, ':', digest), "dest", p->o->dest, "files", files,
		 "bytes", bytes, "downloaded", wire, "ms", ms, NULL);
}

/* --- who brought it --- */

static int take_servers(struct pull *p, struct pull_result *r, struct err *e)
{
	size_t n;
	struct blob_server *const *v = oci_repo_servers(p->repo, &n);

	if (n < 2)
		return 0;
	r->servers = calloc(n, sizeof(*r->servers));
	if (!r->servers)
		return err_oom(e);
	for (; r->n_servers < n; r->n_servers++) {
		const struct blob_server *s = v[r->n_servers];
		r->servers[r->n_servers] = (struct pull_server){
			.name = strdup(s->name),
			.mirror = s->mirror,
			.bad = atomic_load(&s->bad),
			.bytes = atomic_load(&s->bytes),
			.requests = atomic_load(&s->requests),
			.misses = atomic_load(&s->misses),
			.fallbacks = atomic_load(&s->fallbacks),
			.hits = atomic_load(&s->hits),
		};
		if (!r->servers[r->n_servers].name)
			return err_oom(e);
	}
	return 0;
}

/* Where something came from: a mirror that brings nothing is one that nobody would miss. */
static void tell_servers(const struct pull *p, const struct pull_result *r)
{
	_cleanup_buf_ struct buf b = BUF_INIT(LIMIT_MARKER);

	for (size_t i = 0; i < r->n_servers; i++) {
		const struct pull_server *s = &r->servers[i];
		buf_addf(&b, "%s%s: %" PRIu64 " bytes", i ? ", " : "", s->name, s->bytes);
		if (s->misses)
			buf_addf(&b, ", %" PRIu64 " misses", s->misses);
		if (s->bad)
			buf_adds(&b, ", left");
	}
	if (r->n_servers && !r->up_to_date)
		log_line(LOG_INFO, "blobs came from", "ref", p->o->ref, "servers", buf_cstr(&b), NULL);
}

/* Also of a pull that failed: that is when somebody looks. */
static void count_servers(struct pull *p)
{
	size_t n = 0;
	struct blob_server *const *v = p->repo ? oci_repo_servers(p->repo, &n) : NULL;

	for (size_t i = 0; n > 1 && i < n; i++) {
		const struct metrics_server s = {
			.bytes = atomic_load(&v[i]->bytes),
			.requests = atomic_load(&v[i]->requests),
			.misses = atomic_load(&v[i]->misses),
			.fallbacks = atomic_load(&v[i]->fallbacks),
			.hits = atomic_load(&v[i]->hits),
		};
		metrics_served(v[i]->name, &s);
	}
}

static void count(const struct pull_result *r)
{
	const struct store_marker *m = &r->marker;
	char digest[DIGEST_STR_MAX];

	metrics_published(digest_format(&m->digest, ':', digest), m->previous, m->generation, m->bytes,
			  m->files, m->published_at);
	metrics_end(r->up_to_date ? METRICS_NOOP : METRICS_PUBLISHED, NULL, r->duration_ms);
}

static void release(struct pull *p)
{
	free(p->items);
	free(p->wants);
	free(p->files);
	layout_release(&p->plan);
	oci_resolved_release(&p->resolved);
	store_close(p->store);
	free(p->selection);
	free(p->version);
	oci_platform_release(&p->platform_store);
	oci_repo_free(p->repo);
	pthread_mutex_destroy(&p->place_lock);
}

void pull_result_release(struct pull_result *r)
{
	store_marker_release(&r->marker);
	for (size_t i = 0; i < r->n_servers; i++)
		free(r->servers[i].name);
	free(r->servers);
	*r = (struct pull_result){ 0 };
}

int pull_run(const struct pull_options *o, struct pull_result *ret_result, struct err *e)
{
	struct pull p = { .o = o, .cfg = o->cfg, .started_ms = sys_now_ms() };
	struct pull_result r = { 0 };

	pthread_mutex_init(&p.place_lock, NULL);
	metrics_begin(o->ref, o->dest);
	int done = prepare(&p, e) ? -1 : open_volume(&p, &r, e);
	if (done == 0)
		done = make_plan(&p, e) || check_downgrade(&p, e) || unpack(&p, e) || list_files(&p, e) ||
		       publish(&p, &r, e) ? -1 : 1;
	if (done == 1 && take_servers(&p, &r, e))
		done = -1;
	count_servers(&p);
	if (done == 1) {
		r.downloaded = p.tree_wire + atomic_load(&p.stats.wire);
		r.reused = r.up_to_date ? r.marker.bytes : p.reused;
		r.duration_ms = sys_now_ms() - p.started_ms;
		tell(&p, &r);
		tell_servers(&p, &r);
		count(&r);
		*ret_result = r;
	} else {
		pull_result_release(&r);
		metrics_end(atomic_load(o->stop) ? METRICS_STOPPED :
			    e->code == CODE_POLICY ? METRICS_VETOED : METRICS_FAILED, e,
			    sys_now_ms() - p.started_ms);
	}
	release(&p);
	return done == 1 ? 0 : -1;
}
