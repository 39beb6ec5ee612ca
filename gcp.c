// SPDX-License-Identifier: Apache-2.0
/* Google's registries: the access token of the instance's service account, from the metadata server. See cloud.h. */
#include "cloud_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sys.h"

#define TOKEN_PATH "/computeMetadata/v1/instance/service-accounts/default/token"
#define TIMEOUT_MS 1500
#define REFUSED_TRIES 6		/* GKE's metadata server may start a few seconds after the Pod */
#define REFUSED_PAUSE_MS 500
#define USER "oauth2accesstoken"

/* The answer to one question. 1 the token server spoke, 0 not there (note), 2 not there yet, -1 error. */
static int ask(const struct cloud *c, const char *url, const char *host, struct http_response *ret, struct buf *note,
	       struct err *e)
{
	static const char *const headers[] = { "Metadata-Flavor: Google", NULL };
	struct err own = { 0 };
	char why[160];

	buf_clear(note);
	if (cloud_fetch(c, (struct http_request){ .method = "GET", .url = url, .headers = headers, .timeout_ms = TIMEOUT_MS },
			true, ret, &own) < 0) {
		if (cloud_is_over(&own)) {
			*e = own;
			return -1;
		}
		buf_addf(note, "metadata server %s: %s", host, cloud_why(&own, why, sizeof(why)));
		return own.sys_errno == ECONNREFUSED ? 2 : 0;
	}
	const char *flavor = http_response_header(ret, "Metadata-Flavor", 0);
	if (!flavor || strcmp(flavor, "Google") != 0) {
		buf_addf(note, "%s is not a Google metadata server: no Metadata-Flavor in its answer", host);
		return 0;
	}
	if (ret->status == 200)
		return 1;
	buf_addf(note, "metadata server %s: %ld%s", host, ret->status,
		 ret->status == 404 ? ", no service account here" : "");
	return ret->status >= 500 ? 2 : 0;
}

static int take(const struct http_response *r, const char *host, struct credential *ret, struct err *e)
{
	_cleanup_secret_json_ struct json_doc doc = { 0 };
	__attribute__((cleanup(credential_release))) struct credential cred = { 0 };
	uint64_t expires_in = 0;

	if (cloud_json(r, "the metadata server", &doc, e) < 0 ||
	    cloud_json_secret(doc.root, "access_token", "the metadata server", &cred.password, e) < 0)
		return -1;
	json_u64(doc.root, "expires_in", &expires_in);
	cred.life_ms = MIN(MAX(expires_in, (uint64_t)60), (uint64_t)86400) * 1000;
	cred.username = strdup(USER);
	if (!cred.username || asprintf(&cred.source, "the Google login (service account of metadata server %s)", host) < 0) {
		cred.source = NULL;
		return err_oom(e);
	}
	*ret = cred;
	cred = (struct credential){ 0 };
	return 1;
}

int gcp_login(const struct cloud *c, struct credential *ret, struct buf *note, struct err *e)
{
	const char *host = cloud_env(c, "GCE_METADATA_HOST");
	char url[512];

	if (!host)
		host = "metadata.google.internal";
	if (strlen(host) > 255 || !cloud_plain(host, "-._:[]"))
		return err_set(e, CODE_USAGE, "GCE_METADATA_HOST is not a host[:port]");
	snprintf(url, sizeof(url), "http://%s%s", host, TOKEN_PATH);
	for (unsigned tries = 1;; tries++) {
		_cleanup_response_ struct http_response r = { 0 };

		int rc = ask(c, url, host, &r, note, e);
		if (rc == 1)
			return take(&r, host, ret, e);
		if (rc != 2 || tries == REFUSED_TRIES)
			return rc < 0 ? -1 : 0;
		sys_sleep_ms(REFUSED_PAUSE_MS);
	}
}
