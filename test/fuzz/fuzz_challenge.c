// SPDX-License-Identifier: Apache-2.0
/* WWW-Authenticate values, what is merged of their scopes, and where their realms lead. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "challenge.h"
#include "token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* "https://127.1.2.3:443": dotted decimal of a network that no token service may be in. */
static bool private_literal(const char *origin)
{
	static const char *const nets[] = { "127.", "10.", "192.168.", "169.254.", "0." };
	const char *host = origin + 8;

	if (strspn(host, "0123456789.") != strcspn(host, ":"))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(nets); i++)
		if (strncmp(host, nets[i], strlen(nets[i])) == 0)
			return true;
	return false;
}

static void check(const struct challenge *c, char **scopes, size_t *n_scopes)
{
	const char *values[] = { c->realm, c->service, c->scope, c->error };
	struct err e = { 0 };
	char *url = NULL, origin[512];

	must(c->scheme == CHALLENGE_BASIC || c->scheme == CHALLENGE_BEARER);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		for (const char *p = values[i]; p && *p; p++)
			must((unsigned char)*p >= 0x20 && *p != 0x7f);
	must(scopes_merge(scopes, n_scopes, "a/b", c->scope) == 0);
	must(*n_scopes > 0 && *n_scopes <= SCOPES_MAX);
	if (!c->realm || token_realm("https://r.example:443", "https://r.example/v2/", c->realm, false, &url, &e))
		return;
	/* never to plain HTTP, never to an obvious private address */
	must(http_origin(url, origin, sizeof(origin)) == 0);
	must(strncmp(origin, "https://", 8) == 0);
	must(!private_literal(origin) && strncmp(origin, "https://localhost:", 18) != 0);
	free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct challenge list[CHALLENGES_MAX];
	char *scopes[SCOPES_MAX] = { 0 };
	size_t n_scopes = 0, n;
	char *text = malloc(size + 1);

	must(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	n = challenge_parse(text, list, CHALLENGES_MAX);
	must(n <= CHALLENGES_MAX);
	while (n) {
		check(&list[n - 1], scopes, &n_scopes);
		challenge_release(&list[--n]);
	}
	while (n_scopes)
		free(scopes[--n_scopes]);
	free(text);
	return 0;
}
