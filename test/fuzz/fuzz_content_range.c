// SPDX-License-Identifier: Apache-2.0
/* Content-Range and Retry-After: whatever is accepted must make sense. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct content_range r;
	char *s = malloc(size + 1);

	if (!s)
		return 0;
	memcpy(s, data, size);
	s[size] = '\0';
	if (http_parse_content_range(s, &r) && (r.start > r.end || r.end >= r.total))
		abort();
	if (http_retry_after_ms(s, 1700000000) > LIMIT_RETRY_AFTER_MS)
		abort();
	free(s);
	return 0;
}
