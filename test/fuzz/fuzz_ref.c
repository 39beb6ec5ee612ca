// SPDX-License-Identifier: Apache-2.0
/* References: what is accepted is written canonically, and reads back as the same. */
#include <stdlib.h>
#include <string.h>

#include "ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ref r, again;
	struct err e;
	struct buf b = BUF_INIT(4096);
	char target[DIGEST_STR_MAX];

	char *text = malloc(size + 1);
	if (!text)
		return 0;
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	if (ref_parse(text, &r, &e) == 0) {
		if (ref_format(&r, &b) || ref_parse(buf_cstr(&b), &again, &e) ||
		    memcmp(&r, &again, sizeof(r)) != 0)
			abort();
		if (strpbrk(ref_target(&r, target), "/?#% ") || strpbrk(r.host, "/?#%@ ") ||
		    strpbrk(r.repo, ":?#%@ ") || strstr(r.repo, ".."))
			abort(); /* these become parts of a URL as they are */
	} else if (e.code != CODE_USAGE || e.msg[0] == '\0') {
		abort();
	}
	buf_release(&b);
	free(text);
	return 0;
}
