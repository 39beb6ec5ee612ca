// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes that come in order: what transfer gives and unpack takes. A data type only. Row 1; calls log.
 */
#ifndef FETCHER_SOURCE_H
#define FETCHER_SOURCE_H

#include "log.h"

struct unpack_source {
	/*
	 * The next bytes of the layer in order; 0 and *ret_n 0 = the end; -1 = the transfer failed or was stopped. Blocks.
	 * They stay valid until the next call. Whoever implements it hashes the layer.
	 */
	int (*read)(void *arg, const void **ret, size_t *ret_n, struct err *e);
	void *arg;
};

#endif
