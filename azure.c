// SPDX-License-Identifier: Apache-2.0
/*
 * Azure's registries: a token of Entra ID, by workload identity or managed identity, exchanged at the registry for a refresh token
 * of its own (Azure/acr, docs/AAD-OAuth.md), which goes the way of any identity token. See cloud.h.
 */
#include "cloud_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define AUDIENCE "https://containerregistry.azure.net"
#define IMDS "http://169.254.169.254"
#define ASSERTION_TYPE "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#define REFRESH_LIFE_MS (60 * 60 * 1000) /* the registry says three hours inside of the token, which is not ours to read */
#define FORM_MAX (4 * LIMIT_TOKEN)

static const char *const form_headers[] = { "Accept: application/json", "Content-Type: application/x-www-form-urlencoded", NULL };

static void add_field(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, "%s%s=", b->len ? "&" : "", name);
	buf_add_urlencoded(b, value, "");
}

static int post_form(const struct cloud *c, const char *url, const struct buf *form, struct http_response *ret, struct err *e)
{
	if (form->failed)
		return err_set(e, CODE_AUTH, "the request for a token is too long");
	return cloud_fetch(c, (struct http_request){ .method = "POST", .url = url, .headers = form_headers,
						     .body = buf_cstr(form), .body_len = form->len }, false, ret, e);
}

static int take_access_token(const struct http_response *r, const char *who, char **ret, struct err *e)
{
	_cleanup_secret_json_ struct json_doc doc = { 0 };

	if (cloud_json(r, who, &doc, e) < 0 || cloud_json_secret(doc.root, "access_token", who, ret, e) < 0)
		return -1;
	return 1;
}

/* --- workload identity --- */

static const char *default_authority(const char *registry)
{
	size_t n = strcspn(registry, ":");

	if (n > 11 && strncasecmp(registry + n - 11, ".azurecr.cn", 11) == 0)
		return "https://login.chinacloudapi.cn";
	if (n > 11 && strncasecmp(registry + n - 11, ".azurecr.us", 11) == 0)
		return "https://login.microsoftonline.us";
	return "https://login.microsoftonline.com";
}

static int token_url(const struct cloud *c, const char *tenant, struct buf *ret, struct err *e)
{
	const char *authority = cloud_env(c, "AZURE_AUTHORITY_HOST");

	if (!authority)
		authority = default_authority(c->registry);
	if (cloud_base_url("AZURE_AUTHORITY_HOST", authority, ret, e) < 0)
		return -1;
	/* as Azure's own libraries have it: the assertion is a secret */
	if (!cloud_safe(authority))
		return err_set(e, CODE_USAGE, "AZURE_AUTHORITY_HOST must be an https:// URL");
	if (!cloud_plain(tenant, "-."))
		return err_set(e, CODE_USAGE, "AZURE_TENANT_ID is not a tenant's id or domain");
	buf_addf(ret, "/%s/oauth2/v2.0/token", tenant);
	return ret->failed ? err_oom(e) : 0;
}

static int workload_identity(const struct cloud *c, const char *tenant, const char *client, const char *path, char **ret,
			     struct err *e)
{
	_cleanup_secret_ char *assertion = NULL;
	_cleanup_secret_buf_ struct buf form = BUF_INIT(FORM_MAX);
	_cleanup_buf_ struct buf url = BUF_INIT(2048);
	_cleanup_response_ struct http_response r = { 0 };
	char what[512];

	if (token_url(c, tenant, &url, e) < 0 || cloud_read_file(path, "AZURE_FEDERATED_TOKEN_FILE", &assertion, e) < 0)
		return -1;
	add_field(&form, "grant_type", "client_credentials");
	add_field(&form, "client_id", client);
	add_field(&form, "scope", AUDIENCE "/.default");
	add_field(&form, "client_assertion_type", ASSERTION_TYPE);
	add_field(&form, "client_assertion", assertion);
	if (post_form(c, buf_cstr(&url), &form, &r, e) < 0)
		return err_wrap(e, "workload identity");
	snprintf(what, sizeof(what), "workload identity: %s", buf_cstr(&url));
	if (r.status == 200)
		return take_access_token(&r, what, ret, e);
	return cloud_refused(&r, what, "error", "error_description", (const char *[]){ assertion, NULL }, e);
}

/* --- managed identity --- */

static int imds_url(const struct cloud *c, struct buf *base, struct buf *ret, struct err *e)
{
	const char *host = cloud_env(c, "AZURE_POD_IDENTITY_AUTHORITY_HOST");
	const char *client = cloud_env(c, "AZURE_CLIENT_ID");

	if (cloud_base_url("AZURE_POD_IDENTITY_AUTHORITY_HOST", host ? host : IMDS, base, e) < 0)
		return -1;
	buf_addf(ret, "%s/metadata/identity/oauth2/token?api-version=2018-02-01&resource=", buf_cstr(base));
	buf_add_urlencoded(ret, AUDIENCE, "");
	if (client) {
		buf_adds(ret, "&client_id=");
		buf_add_urlencoded(ret, client, "");
	}
	return ret->failed ? err_set(e, CODE_USAGE, "AZURE_CLIENT_ID is too long") : 0;
}

static int managed_identity(const struct cloud *c, char **ret, struct buf *note, struct err *e)
{
	static const char *const headers[] = { "Metadata: true", NULL };
	_cleanup_buf_ struct buf base = BUF_INIT(1200), url = BUF_INIT(2048);
	_cleanup_response_ struct http_response r = { 0 };
	struct err own = { 0 };
	char why[300];

	if (imds_url(c, &base, &url, e) < 0)
		return -1;
	for (unsigned tries = 0;; tries++) {
		if (cloud_fetch(c, (struct http_request){ .method = "GET", .url = buf_cstr(&url), .headers = headers }, true, &r,
				&own) == 0)
			break;
		if (cloud_is_over(&own)) {
			*e = own;
			return -1;
		}
		if (tries == 1) {
			buf_addf(note, "IMDS at %s: %s", buf_cstr(&base), cloud_why(&own, why, sizeof(why)));
			return 0;
		}
	}
	if (r.status == 200)
		return take_access_token(&r, "IMDS", ret, e);
	/* 400: no identity is assigned to this machine, or none with that client id */
	cloud_refused(&r, "IMDS", "error", "error_description", NULL, &own);
	if (own.retryable) {
		*e = own;
		return -1;
	}
	buf_addf(note, "managed identity: %.250s", own.msg);
	return 0;
}

/* --- the registry's own token --- */

static int exchange(const struct cloud *c, const char *token, struct credential *ret, struct err *e)
{
	const char *tenant = cloud_env(c, "AZURE_TENANT_ID");
	_cleanup_secret_buf_ struct buf form = BUF_INIT(FORM_MAX);
	_cleanup_secret_json_ struct json_doc doc = { 0 };
	_cleanup_response_ struct http_response r = { 0 };
	char url[600];

	snprintf(url, sizeof(url), "%s/oauth2/exchange", c->origin);
	add_field(&form, "grant_type", "access_token");
	add_field(&form, "service", c->service ? c->service : c->registry);
	if (tenant)
		add_field(&form, "tenant", tenant);
	add_field(&form, "access_token", token);
	if (post_form(c, url, &form, &r, e) < 0)
		return err_wrap(e, "exchange of the Azure token");
	if (r.status != 200)
		return cloud_refused(&r, url, "error", "error_description", (const char *[]){ token, NULL }, e);
	if (cloud_json(&r, url, &doc, e) < 0)
		return -1;
	return cloud_json_secret(doc.root, "refresh_token", url, &ret->identity_token, e);
}

int azure_login(const struct cloud *c, struct credential *ret, struct buf *note, struct err *e)
{
	const char *tenant = cloud_env(c, "AZURE_TENANT_ID"), *client = cloud_env(c, "AZURE_CLIENT_ID");
	const char *path = cloud_env(c, "AZURE_FEDERATED_TOKEN_FILE"), *source;
	__attribute__((cleanup(credential_release))) struct credential cred = { .life_ms = REFRESH_LIFE_MS };
	_cleanup_secret_ char *token = NULL;
	int rc;

	if (path && (!tenant || !client))
		return err_set(e, CODE_USAGE, "AZURE_FEDERATED_TOKEN_FILE is set, %s is not",
			       tenant ? "AZURE_CLIENT_ID" : "AZURE_TENANT_ID");
	if (path) {
		source = "workload identity";
		rc = workload_identity(c, tenant, client, path, &token, e);
	} else {
		source = "managed identity";
		buf_adds(note, "no workload identity: AZURE_FEDERATED_TOKEN_FILE is not set; ");
		rc = managed_identity(c, &token, note, e);
	}
	if (rc <= 0)
		return rc;
	if (exchange(c, token, &cred, e) < 0)
		return -1;
	if (asprintf(&cred.source, "the Azure login (%s)", source) < 0) {
		cred.source = NULL;
		return err_oom(e);
	}
	*ret = cred;
	cred = (struct credential){ 0 };
	return 1;
}
