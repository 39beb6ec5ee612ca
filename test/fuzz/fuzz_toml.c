// SPDX-License-Identifier: Apache-2.0
/* hosts.toml: whatever is accepted is a tree within the limits, with clean strings; a refusal says where. */
#include <stdlib.h>
#include <string.h>

#include "toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t walk(const struct toml *t, unsigned depth)
{
	size_t n = 1;

	if (depth > 2 * LIMIT_TOML_DEPTH + 2 || t->line == 0 || (t->type == TOML_STRING && !t->string) ||
	    (t->type != TOML_TABLE && t->type != TOML_ARRAY && t->first))
		abort();
	for (const struct toml *m = t->first; m; m = m->next) {
		if (!m->key != (t->type == TOML_ARRAY))
			abort();
		/* a key is there once, or the second one would decide unseen */
		if (m->key && toml_get(t, m->key) != m)
			abort();
		n += walk(m, depth + 1);
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct toml *t = NULL;
	struct err e = { 0 };

	if (size > LIMIT_HOSTS_FILE)
		return 0;
	/* a copy of the exact length: reading behind it is seen */
	char *text = malloc(size ? size : 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	if (toml_parse(text, size, "hosts.toml", &t, &e) == 0) {
		if (walk(t, 0) > LIMIT_TOML_NODES + 1)
			abort();
		toml_free(t);
	} else if (e.code != CODE_USAGE || !strstr(e.msg, "hosts.toml, line ")) {
		abort();
	}
	free(text);
	return 0;
}
