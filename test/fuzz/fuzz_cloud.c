// SPDX-License-Identifier: Apache-2.0
/* Answers of STS, names of registries, and what is signed about anything. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "aws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "AccessKeyId", "SecretAccessKey", "SessionToken" };
	struct str doc = { (const char *)data, size }, s;
	struct aws_registry reg;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!aws_xml_text(doc, "Credentials", names[i], &s))
			continue;
		must(s.n && s.p > doc.p && s.p + s.n < doc.p + doc.n);
		must(!memchr(s.p, '<', s.n) && !memchr(s.p, '&', s.n) && !memchr(s.p, '\0', s.n));
	}
	if (aws_registry_parse(doc, &reg)) {
		/* it becomes part of a host name */
		must(*reg.region && strspn(reg.region, "abcdefghijklmnopqrstuvwxyz0123456789-_") == strlen(reg.region));
		must(reg.suffix != NULL);
	}
	char *name = malloc(size + 1);
	must(name != NULL);
	memcpy(name, data, size);
	name[size] = '\0';
	enum cloud_kind kind = cloud_of_registry(name);
	must(kind == CLOUD_NONE || strchr(name, '.'));
	free(name);
	return 0;
}
