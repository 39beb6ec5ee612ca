// SPDX-License-Identifier: Apache-2.0
/*
 * Whether written pages may stay in the page cache (design D5.8). Row 0; calls buf, sys.
 */
#ifndef FETCHER_MEMORY_H
#define FETCHER_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* The container's memory limit (cgroup v2 memory.max, v1 memory.limit_in_bytes) in bytes, UINT64_MAX = none. */
uint64_t memory_limit(void);
/*
 * After how many bytes written data of a pull of `total` bytes to the file system of fd should be flushed and dropped: 0 = keep it
 * warm for the model server. Dropped on network file systems, whose dirty pages have OOM-killed small
 * containers, and where the data would not fit the container's limit anyway. Never on tmpfs: the cache is the file there.
 */
uint64_t memory_drop_window(int fd, uint64_t total);

/* The page cache of such a file system may lose what a server refused later, also while the machine runs. */
bool memory_is_network_fs(int fd);

#endif
