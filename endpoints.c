// SPDX-License-Identifier: Apache-2.0
#include "endpoints.h"

#include <stdio.h>

#include "metrics.h"
#include "serve.h"
#include "store.h"
#include "sys.h"

#define MARKER_PATH ".fetcher/ready.json"

struct endpoints {
	struct serve *serve;
	const char *const *dests;
	size_t n;
};

/* As probe: marker, link and directory, without hashing. */
static int one_ready(const char *dest, struct buf *ret)
{
	struct store_marker m = { 0 };
	struct store *s = NULL;
	struct err e = { 0 };
	int rc = store_open(&s, dest, false, &e);

	if (rc == 0)
		rc = store_read_marker(s, &m, &e);
	if (rc == 0)
		err_set(&e, CODE_NOT_FOUND, "%s holds no complete published version", dest);
	if (rc == 1)
		rc = store_check(s, &m, NULL, true, &e);
	if (rc == 1) {
		_cleanup_buf_ struct buf marker = BUF_INIT(LIMIT_MARKER);
		rc = sys_read_file(store_dirfd(s), MARKER_PATH, &marker) == 0;
		buf_add(ret, marker.data, marker.len);
	}
	store_marker_release(&m);
	store_close(s);
	if (rc != 1)
		buf_addf(ret, "%s\n", e.msg);
	return rc == 1;
}

static int ready(void *arg, struct buf *ret)
{
	const struct endpoints *p = arg;

	for (size_t i = 0; i < p->n; i++) {
		if (one_ready(p->dests[i], ret))
			continue;
		return 0;
	}
	if (!p->n)
		buf_adds(ret, "nothing that could be ready\n");
	return p->n > 0;
}

int endpoints_new(struct endpoints **ret, const struct config *cfg, const char *const *dests, size_t n,
		  void (*sync)(void *arg), void *arg, struct err *e)
{
	struct endpoints *p;

	*ret = NULL;
	if (!cfg->http_bind)
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_oom(e);
	p->dests = dests;
	p->n = n;
	struct serve_options o = {
		.bind = cfg->http_bind, .ready = ready, .arg = p, .sync = sync, .sync_arg = arg,
	};
	if (serve_start(&p->serve, &o, e)) {
		free(p);
		return err_wrap(e, "--http-bind");
	}
	*ret = p;
	return 0;
}

void endpoints_free(struct endpoints *p)
{
	if (!p)
		return;
	serve_stop(p->serve);
	free(p);
}
