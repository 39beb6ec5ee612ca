// SPDX-License-Identifier: Apache-2.0
/* What servers say: bodies of refusals, the value of a Warning header. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_response r = { .body = BUF_INIT(LIMIT_ERROR_BODY) };
	struct err e = { 0 };
	char *text = malloc(size + 1), warning[64];
	const char *at = text, *before;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	(void)buf_add(&r.body, text, size);
	http_answer_error(403, &r, "https://r.example/v2/a", "/c.json, key auths.r.example", &e);
	if (strlen(e.msg) > LIMIT_ERR_MSG || !strstr(e.msg, "which may not read it"))
		abort();
	for (before = NULL; http_next_warning(&at, warning, sizeof(warning)); before = at) {
		if (at == before || strlen(warning) >= sizeof(warning))
			abort();
		for (const char *p = warning; *p; p++)
			if ((unsigned char)*p < ' ' || *p == 0x7f)
				abort();
	}
	buf_release(&r.body);
	free(text);
	return 0;
}
