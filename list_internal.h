// SPDX-License-Identifier: Apache-2.0
/*
 * What list.c and list_prune.c share. Nobody else includes this page but their unit test.
 */
#ifndef FETCHER_LIST_INTERNAL_H
#define FETCHER_LIST_INTERNAL_H

#include "list.h"
#include "ref.h"
#include "store.h"

/* Appends HOST/REPO@TAG, the rule of list.h. -1: out of room. */
int list_rule(const struct ref *r, struct buf *ret);
/* Is this path (relative to --root) one that the rule makes for some reference? */
bool list_rule_fits(const char *path);

struct list_pruned {
	uint64_t versions, directories, bytes;
};
/* After all lines. Failures are logged. Returns early when stop is set. */
void list_prune(const struct config *cfg, const struct list *l, const atomic_int *stop,
		struct list_pruned *ret);

#endif
