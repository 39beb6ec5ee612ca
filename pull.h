// SPDX-License-Identifier: Apache-2.0
/*
 * One pull: resolve, plan, unpack, transfer, verify, publish. Row 3; calls everything below; peer: trees.
 * One of the three files that may write log lines: progress, warnings and the final "pulled"
 * line come from here. The failure itself is only returned; the caller logs it (log_fatal).
 */
#ifndef FETCHER_PULL_H
#define FETCHER_PULL_H

#include <stdatomic.h>

#include "config.h"
#include "http.h"
#include "layout.h"
#include "log.h"
#include "oci.h"
#include "ref.h"
#include "store.h"

struct pull_options {
	const struct config *cfg;	/* every option; borrowed */
	const char *ref;		/* as the user wrote it */
	const char *dest;
	/* Non-zero = stop now; the value is the code to return (CODE_SIGTERM, CODE_SIGINT). Not NULL. */
	const atomic_int *stop;
	/* How long to go on asking a registry that is away for the digest; 0 = --retry-timeout. */
	uint64_t check_budget_ms;
	uint64_t deadline_ms;		/* sys_now_ms clock, for the whole pull; 0 = --deadline from now */
	bool repeated;			/* watch: "up to date" is no news (debug), and /metrics counts it as noop */
	/*
	 * Asked when a new version is verified and before anybody sees it (store_publish.accept); path is absolute.
	 * -1: it is kept back, pull_run ends with *e. NULL = yes.
	 */
	int (*accept)(void *arg, const char *digest, const char *path, struct err *e);
	void *accept_arg;
};

/* What one server brought of the blobs (server.h has the meaning of each). */
struct pull_server {
	char *name;			/* host[:port] */
	bool mirror, bad;
	uint64_t bytes, requests, misses, fallbacks, hits;
};

/* What one pull did. Zero-initialise; pull_result_release frees. */
struct pull_result {
	struct store_marker marker;	/* the ready marker that now stands on the volume */
	bool up_to_date;		/* the marker already named this digest: nothing was published */
	uint64_t downloaded;		/* blob bytes that this run received over the network */
	uint64_t reused;		/* bytes that were on the volume before (earlier version, resumed partial files) */
	uint64_t duration_ms;		/* of this run, lock wait included */
	struct pull_server *servers;	/* in the order in which they were asked, the registry last; NULL where there is no mirror */
	size_t n_servers;
};

void pull_result_release(struct pull_result *r);

/*
 * Pulls o->ref to o->dest. 0: DEST holds the complete, verified artifact and *ret_result tells
 * what was done. -1: *e, the marker does not name this artifact, and what was fetched stays for
 * the next run. Call from one thread at a time (progress bar and log hook are process-wide).
 */
int pull_run(const struct pull_options *o, struct pull_result *ret_result, struct err *e);

/*
 * Repository of a reference, with its mirrors and HTTP clients, configured from cfg: for resolve and ls, and the first step of
 * pull_run. oci_repo_free frees it. cfg must live until then.
 */
int pull_open_repo(const struct config *cfg, const char *ref, const atomic_int *stop, struct oci_repo **ret_repo,
		   struct ref *ret_ref, struct err *e);

/*
 * The plan of a resolved artifact as cfg wants it, its config fetched where that says what the layers are. For ls, and pull_run itself.
 */
int pull_plan(const struct config *cfg, struct oci_repo *repo, const struct oci_manifest *m, struct layout *ret,
	      struct err *e);

#endif
