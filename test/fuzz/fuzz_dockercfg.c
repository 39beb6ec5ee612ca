// SPDX-License-Identifier: Apache-2.0
/* docker configuration files, and the Basic value that comes of their entries. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dockercfg.h"
#include "token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lookup(const char *text, size_t n, const char *registry, const char *repo)
{
	struct buf notes = BUF_INIT(DOCKERCFG_NOTES_MAX), basic = BUF_INIT(LIMIT_TOKEN * 2);
	struct credential c = { 0 };
	struct err e = { 0 };
	int rc = dockercfg_lookup(text, n, "/cfg", registry, repo, &c, &notes, &e);

	if (rc > 0) {
		bool secret = c.username || c.identity_token || c.registry_token;

		/* either a credential or the name of a helper */
		if (!c.source || secret == !!c.helper)
			abort();
		if (token_basic(&c, &basic, &e) == 0 && !token_clean(buf_cstr(&basic) + 6))
			abort();
		credential_release(&c);
	} else if (c.source || c.username || c.helper || (rc < 0 && e.code != CODE_USAGE && e.code != CODE_INTERNAL)) {
		abort();
	}
	buf_release(&notes);
	buf_release(&basic);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	lookup((const char *)data, size, "r.io", "team/model");
	lookup((const char *)data, size, "docker.io", "library/x");
	lookup((const char *)data, size, "[::1]:5000", "a");
	return 0;
}
