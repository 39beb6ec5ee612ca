// SPDX-License-Identifier: Apache-2.0
#include "aws.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "cloud_internal.h"
#include "token.h"

#define ECR_LIFE_MS (12 * 60 * 60 * 1000) /* when the answer does not say */
#define LIFE_LEAST_MS 1000	/* a clock that is a little off must not make us ask without a pause */
#define SKEW_S 60		/* a clock that far off explains a refused signature */
#define IMDS_TRIES 2
#define IMDS_TOKEN_TTL "300"

void aws_keys_release(struct aws_keys *k)
{
	secret_free(k->id);
	secret_free(k->secret);
	secret_free(k->token);
	*k = (struct aws_keys){ 0 };
}

/* --- names --- */

static bool take_prefix(struct str *s, const char *prefix)
{
	size_t n = strlen(prefix);

	if (s->n < n || strncasecmp(s->p, prefix, n) != 0)
		return false;
	s->p += n;
	s->n -= n;
	return true;
}

static bool take_region(struct str *s, char ret[static 64])
{
	size_t n = 0;

	for (; n < s->n && s->p[n] != '.'; n++) {
		char c = s->p[n];

		if (c >= 'A' && c <= 'Z')
			c = (char)(c | 0x20);
		if (n >= 63 || !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (n && (c == '-' || c == '_'))))
			return false;
		ret[n] = c;
	}
	if (!n || n == s->n)
		return false;
	ret[n] = '\0';
	s->p += n + 1;
	s->n -= n + 1;
	return true;
}

bool aws_registry_parse(struct str host, struct aws_registry *ret)
{
	static const struct {
		const char *tail, *suffix;
		bool dual_stack;
	} tails[] = {
		{ "amazonaws.com", "amazonaws.com", false },
		{ "amazonaws.com.cn", "amazonaws.com.cn", false },
		{ "amazonaws.eu", "amazonaws.eu", false },
		{ "on.aws", "api.aws", true },
		{ "on.amazonwebservices.com.cn", "api.amazonwebservices.com.cn", true },
		{ "sc2s.sgov.gov", "sc2s.sgov.gov", false },
		{ "c2s.ic.gov", "c2s.ic.gov", false },
		{ "cloud.adc-e.uk", "cloud.adc-e.uk", false },
		{ "csp.hci.ic.gov", "csp.hci.ic.gov", false },
	};
	struct aws_registry r = { 0 };

	for (unsigned i = 0; i < 12; i++, host.p++, host.n--)
		if (!host.n || *host.p < '0' || *host.p > '9')
			return false;
	if (!take_prefix(&host, ".dkr.ecr") && !take_prefix(&host, ".dkr-ecr"))
		return false;
	r.fips = take_prefix(&host, "-fips");
	if (!take_prefix(&host, ".") || !take_region(&host, r.region))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		if (!str_caseeq(host, tails[i].tail))
			continue;
		r.suffix = tails[i].suffix;
		r.dual_stack = tails[i].dual_stack;
		*ret = r;
		return true;
	}
	return false;
}

const char *aws_suffix(const char *region)
{
	static const struct {
		const char *prefix, *suffix;
	} partitions[] = {
		{ "cn-", "amazonaws.com.cn" },	  { "eusc-", "amazonaws.eu" },	   { "us-isob-", "sc2s.sgov.gov" },
		{ "us-isof-", "csp.hci.ic.gov" }, { "eu-isoe-", "cloud.adc-e.uk" }, { "us-iso-", "c2s.ic.gov" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(partitions); i++)
		if (strncmp(region, partitions[i].prefix, strlen(partitions[i].prefix)) == 0)
			return partitions[i].suffix;
	return "amazonaws.com";
}

static const char *env_region(const struct cloud *c)
{
	const char *region = cloud_env(c, "AWS_REGION");

	return region ? region : cloud_env(c, "AWS_DEFAULT_REGION");
}

static int check_region(const char *region, struct err *e)
{
	if (strlen(region) < 64 && cloud_plain(region, "-_"))
		return 0;
	return err_set(e, CODE_USAGE, "AWS_REGION is not the name of a region");
}

/* The address of a service: the variable's, that of all services, or fallback. */
static int endpoint(const struct cloud *c, const char *variable, const char *fallback, struct buf *ret, struct err *e)
{
	const char *value = cloud_env(c, variable);

	if (!value) {
		variable = "AWS_ENDPOINT_URL";
		value = cloud_env(c, variable);
	}
	return cloud_base_url(variable, value ? value : fallback, ret, e);
}

/* --- credentials: one function for each place; 1, 0 and a note, -1 --- */

static int from_environment(const struct cloud *c, struct aws_keys *ret, struct buf *note, struct err *e)
{
	const char *id = cloud_env(c, "AWS_ACCESS_KEY_ID"), *secret = cloud_env(c, "AWS_SECRET_ACCESS_KEY");
	const char *token = cloud_env(c, "AWS_SESSION_TOKEN");
	struct aws_keys k = { .source = "the environment" };

	if (!id || !secret) {
		buf_addf(note, "%s not set, ", id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
		return 0;
	}
	if (!token_clean(id) || (token && !token_clean(token)))
		return err_set(e, CODE_USAGE, "%s holds characters that no header can carry",
			       token_clean(id) ? "AWS_SESSION_TOKEN" : "AWS_ACCESS_KEY_ID");
	k.id = strdup(id);
	k.secret = strdup(secret);
	k.token = token ? strdup(token) : NULL;
	if (!k.id || !k.secret || (token && !k.token)) {
		aws_keys_release(&k);
		return err_oom(e);
	}
	*ret = k;
	return 1;
}

bool aws_xml_text(struct str doc, const char *within, const char *name, struct str *ret)
{
	char open[64], close[64];
	const char *end = doc.p + doc.n, *p, *q;

	snprintf(open, sizeof(open), "<%s>", within);
	p = memmem(doc.p, doc.n, open, strlen(open));
	if (!p)
		return false;
	p += strlen(open);
	snprintf(open, sizeof(open), "<%s>", name);
	snprintf(close, sizeof(close), "</%s>", name);
	p = memmem(p, (size_t)(end - p), open, strlen(open));
	if (!p)
		return false;
	p += strlen(open);
	q = memmem(p, (size_t)(end - p), close, strlen(close));
	if (!q || q == p)
		return false;
	for (const char *s = p; s < q; s++)
		if (*s == '<' || *s == '&' || !*s)
			return false;
	*ret = (struct str){ p, (size_t)(q - p) };
	return true;
}

static int xml_secret(struct str doc, const char *name, char **ret, struct err *e)
{
	struct str s;
	char *copy = aws_xml_text(doc, "Credentials", name, &s) ? strndup(s.p, s.n) : NULL;

	if (!copy || !token_clean(copy)) {
		secret_free(copy);
		return err_set(e, CODE_AUTH, "STS: the answer has no usable %s", name);
	}
	*ret = copy;
	return 0;
}

static int sts_refused(const struct http_response *r, const char *url, const char *jwt, struct err *e)
{
	struct str doc = { buf_cstr(&r->body), r->body.len }, code = { "", 0 }, message = { "", 0 };
	char shown_code[96], shown[400];

	aws_xml_text(doc, "Error", "Code", &code);
	aws_xml_text(doc, "Error", "Message", &message);
	cloud_mask(code, (const char *[]){ jwt, NULL });
	cloud_mask(message, (const char *[]){ jwt, NULL });
	/* the identity provider could not be reached by STS */
	bool passing = http_status_retryable(r->status) || str_eq(code, "IDPCommunicationError");
	err_set(e, passing ? CODE_NETWORK : CODE_AUTH, "web identity: %s: refused with %ld (%s: %s)", url, r->status,
		json_show(code, shown_code, sizeof(shown_code)), json_show(message, shown, sizeof(shown)));
	if (e) {
		e->http_status = (int)r->status;
		e->retryable = passing;
	}
	return -1;
}

static int ask_sts(const struct cloud *c, const char *region, const char *role, const char *jwt, struct http_response *ret,
		   struct buf *url, struct err *e)
{
	static const char *const headers[] = { "Accept: application/xml", "Content-Type: application/x-www-form-urlencoded",
					       NULL };
	_cleanup_secret_buf_ struct buf form = BUF_INIT(LIMIT_TOKEN * 4);
	const char *session = cloud_env(c, "AWS_ROLE_SESSION_NAME");
	char fallback[256];

	snprintf(fallback, sizeof(fallback), "https://sts.%s.%s", region, aws_suffix(region));
	if (endpoint(c, "AWS_ENDPOINT_URL_STS", fallback, url, e) < 0)
		return -1;
	buf_addc(url, '/');
	buf_adds(&form, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=");
	buf_add_urlencoded(&form, role, "");
	buf_adds(&form, "&RoleSessionName=");
	if (session)
		buf_add_urlencoded(&form, session, "");
	else
		buf_addf(&form, "fetcher-%lld", (long long)time(NULL));
	buf_adds(&form, "&WebIdentityToken=");
	buf_add_urlencoded(&form, jwt, "");
	if (form.failed || url->failed)
		return err_set(e, CODE_USAGE, "the request to STS is too long");
	return cloud_fetch(c, (struct http_request){ .method = "POST", .url = buf_cstr(url), .headers = headers,
						     .body = buf_cstr(&form), .body_len = form.len }, false, ret, e);
}

static int from_web_identity(const struct cloud *c, const char *region, struct aws_keys *ret, struct buf *note, struct err *e)
{
	const char *role = cloud_env(c, "AWS_ROLE_ARN"), *path = cloud_env(c, "AWS_WEB_IDENTITY_TOKEN_FILE");
	_cleanup_secret_ char *jwt = NULL;
	_cleanup_buf_ struct buf url = BUF_INIT(2048);
	_cleanup_response_ struct http_response r = { 0 };
	struct aws_keys k = { .source = "the web identity" };

	if (!path || !role) {
		buf_addf(note, "no web identity (%s not set), ", path ? "AWS_ROLE_ARN" : "AWS_WEB_IDENTITY_TOKEN_FILE");
		return 0;
	}
	/* the Pod's own region, where its STS is; the registry may be elsewhere */
	if (env_region(c))
		region = env_region(c);
	if (check_region(region, e) < 0 || cloud_read_file(path, "AWS_WEB_IDENTITY_TOKEN_FILE", &jwt, e) < 0)
		return -1;
	if (ask_sts(c, region, role, jwt, &r, &url, e) < 0)
		return err_wrap(e, "web identity");
	if (r.status != 200)
		return sts_refused(&r, buf_cstr(&url), jwt, e);
	struct str doc = { buf_cstr(&r.body), r.body.len };
	if (xml_secret(doc, "AccessKeyId", &k.id, e) < 0 || xml_secret(doc, "SecretAccessKey", &k.secret, e) < 0 ||
	    xml_secret(doc, "SessionToken", &k.token, e) < 0) {
		aws_keys_release(&k);
		return -1;
	}
	*ret = k;
	return 1;
}

/* What the container's and the instance's services answer. */
static int keys_of_json(const struct http_response *r, const char *who, struct aws_keys *ret, struct err *e)
{
	_cleanup_secret_json_ struct json_doc doc = { 0 };
	struct aws_keys k = { .source = who };
	struct str code;

	if (cloud_json(r, who, &doc, e) < 0)
		return -1;
	if (json_str(doc.root, "Code", &code) > 0 && !str_eq(code, "Success"))
		return err_set(e, CODE_AUTH, "%s: answered with Code other than Success", who);
	if (cloud_json_secret(doc.root, "AccessKeyId", who, &k.id, e) < 0 ||
	    cloud_json_secret(doc.root, "SecretAccessKey", who, &k.secret, e) < 0 ||
	    cloud_json_secret(doc.root, "Token", who, &k.token, e) < 0) {
		aws_keys_release(&k);
		return -1;
	}
	*ret = k;
	return 1;
}

/* Plain HTTP only to the machine itself and to the addresses that ECS and EKS document. */
static int container_url(const struct cloud *c, struct buf *ret, struct err *e)
{
	static const char *const plain[] = { "127.0.0.1", "localhost", "[::1]", "169.254.170.2", "169.254.170.23",
					     "[fd00:ec2::23]" };
	const char *full = cloud_env(c, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const char *relative = cloud_env(c, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	char origin[512];

	if (relative) {
		if (*relative != '/' || !token_clean(relative) || strlen(relative) > 1024)
			return err_set(e, CODE_USAGE, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path");
		buf_addf(ret, "http://169.254.170.2%s", relative);
		return 1;
	}
	if (!full)
		return 0;
	if (strlen(full) > 1024 || !token_clean(full) || http_origin(full, origin, sizeof(origin)) < 0)
		return err_set(e, CODE_USAGE, "AWS_CONTAINER_CREDENTIALS_FULL_URI is not a plain http(s) URL");
	bool good = strncmp(origin, "https:", 6) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		size_t n = strlen(plain[i]);

		good |= strncmp(origin + 7, plain[i], n) == 0 && origin[7 + n] == ':';
	}
	if (!good)
		return err_set(e, CODE_USAGE, "AWS_CONTAINER_CREDENTIALS_FULL_URI: http:// is for loopback and the addresses of "
			       "ECS and EKS Pod Identity only");
	buf_adds(ret, full);
	return 1;
}

static int container_token(const struct cloud *c, char **ret, struct err *e)
{
	const char *path = cloud_env(c, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *value = cloud_env(c, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
	char *s = NULL;

	if (path && cloud_read_file(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &s, e) < 0)
		return -1;
	if (!path && value) {
		s = strdup(value);
		if (!s)
			return err_oom(e);
	}
	for (const char *p = s; p && *p; p++) {
		if (*p >= 0x20 && *p < 0x7f)
			continue;
		secret_free(s);
		return err_set(e, CODE_USAGE, "%s holds characters that no header can carry",
			       path ? path : "AWS_CONTAINER_AUTHORIZATION_TOKEN");
	}
	*ret = s;
	return 0;
}

static int from_container(const struct cloud *c, struct aws_keys *ret, struct buf *note, struct err *e)
{
	_cleanup_buf_ struct buf url = BUF_INIT(2048);
	_cleanup_secret_ char *token = NULL;
	_cleanup_response_ struct http_response r = { 0 };
	int rc = container_url(c, &url, e);

	if (rc == 0)
		buf_adds(note, "no container credentials, ");
	if (rc <= 0)
		return rc;
	if (container_token(c, &token, e) < 0)
		return -1;
	if (cloud_fetch(c, (struct http_request){ .method = "GET", .url = buf_cstr(&url), .authorization = token,
						  .timeout_ms = 5000 }, true, &r, e) < 0)
		return err_wrap(e, "container credentials");
	if (r.status == 200)
		return keys_of_json(&r, "the container credentials", ret, e);
	return cloud_refused(&r, "container credentials", "code", "message", (const char *[]){ token, NULL }, e);
}

/* --- the instance --- */

struct imds {
	const struct cloud *c;
	const char *base;
	struct buf token_line;	/* "X-aws-ec2-metadata-token: ..." */
};

/* One question, asked again once. 1 with a 200, 0 with a note, -1 passing trouble of a server that is there, or it is all over. */
static int imds_ask(const struct imds *m, const char *method, const char *path, struct http_response *ret, struct buf *note,
		    struct err *e)
{
	const char *headers[] = { m->token_line.len ? buf_cstr(&m->token_line) :
						      "X-aws-ec2-metadata-token-ttl-seconds: " IMDS_TOKEN_TTL, NULL };
	struct err own = { 0 };
	char url[2048], why[200];
	int rc = -1;

	if ((size_t)snprintf(url, sizeof(url), "%s%s", m->base, path) >= sizeof(url))
		return err_set(e, CODE_AUTH, "IMDS: the name of the role is too long");
	for (unsigned i = 0; i < IMDS_TRIES && rc < 0; i++) {
		rc = cloud_fetch(m->c, (struct http_request){ .method = method, .url = url, .headers = headers }, true, ret, &own);
		if (rc < 0 && cloud_is_over(&own)) {
			*e = own;
			return -1;
		}
	}
	if (rc < 0) {
		buf_addf(note, "IMDS at %s: %s", m->base, cloud_why(&own, why, sizeof(why)));
		return 0;
	}
	if (ret->status == 200)
		return 1;
	if (http_status_retryable(ret->status))
		return cloud_refused(ret, "IMDS", NULL, NULL, NULL, e);
	buf_addf(note, "IMDS at %s: %ld%s", m->base, ret->status, ret->status == 404 ? ", no role here" : "");
	return 0;
}

static int imds_token(struct imds *m, struct buf *note, struct err *e)
{
	_cleanup_response_ struct http_response r = { 0 };
	int rc = imds_ask(m, "PUT", "/latest/api/token", &r, note, e);

	if (rc <= 0)
		return rc;
	if (!token_clean(buf_cstr(&r.body)) || strlen(buf_cstr(&r.body)) != r.body.len)
		return err_set(e, CODE_AUTH, "IMDS: the answer is no token");
	buf_addf(&m->token_line, "X-aws-ec2-metadata-token: %s", buf_cstr(&r.body));
	return m->token_line.failed ? err_oom(e) : 1;
}

#define ROLES_PATH "/latest/meta-data/iam/security-credentials/"

static int imds_keys(struct imds *m, struct aws_keys *ret, struct buf *note, struct err *e)
{
	_cleanup_response_ struct http_response roles = { 0 }, r = { 0 };
	char path[1200];
	int rc = imds_token(m, note, e);

	if (rc > 0)
		rc = imds_ask(m, "GET", ROLES_PATH, &roles, note, e);
	if (rc <= 0)
		return rc;
	char *role = roles.body.data;
	if (role)
		role[strcspn(role, "\r\n")] = '\0';
	if (!role || strlen(role) > 1024 || !cloud_plain(role, "+=,.@-_")) {
		buf_addf(note, "IMDS at %s: no role here", m->base);
		return 0;
	}
	snprintf(path, sizeof(path), ROLES_PATH "%s", role);
	rc = imds_ask(m, "GET", path, &r, note, e);
	return rc > 0 ? keys_of_json(&r, "the instance's role", ret, e) : rc;
}

static int from_instance(const struct cloud *c, struct aws_keys *ret, struct buf *note, struct err *e)
{
	const char *base = cloud_env(c, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
	const char *mode = cloud_env(c, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
	const char *disabled = cloud_env(c, "AWS_EC2_METADATA_DISABLED");
	_cleanup_buf_ struct buf url = BUF_INIT(1200);
	struct imds m = { .c = c, .token_line = BUF_INIT(LIMIT_TOKEN) };

	if (disabled && strcasecmp(disabled, "true") == 0) {
		buf_adds(note, "IMDS disabled");
		return 0;
	}
	if (!base)
		base = mode && strcasecmp(mode, "ipv6") == 0 ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
	if (cloud_base_url("AWS_EC2_METADATA_SERVICE_ENDPOINT", base, &url, e) < 0)
		return -1;
	m.base = buf_cstr(&url);
	int rc = imds_keys(&m, ret, note, e);
	secret_buf_release(&m.token_line);
	return rc;
}

static int find_keys(const struct cloud *c, const char *region, struct aws_keys *ret, struct buf *note, struct err *e)
{
	int rc;

	buf_adds(note, "no AWS credentials (files below ~/.aws are not read): ");
	rc = from_environment(c, ret, note, e);
	if (rc == 0)
		rc = from_web_identity(c, region, ret, note, e);
	if (rc == 0)
		rc = from_container(c, ret, note, e);
	if (rc == 0)
		rc = from_instance(c, ret, note, e);
	return rc;
}

/* --- ECR --- */

struct ecr {
	const struct cloud *c;
	bool public;
	struct aws_registry reg;
	struct aws_keys keys;
	char url[1300];		/* with the path "/" or below it */
};

static int ecr_target(struct ecr *x, struct err *e)
{
	struct str host = { x->c->registry, strcspn(x->c->registry, ":") };
	const char *region = env_region(x->c);
	struct aws_registry *reg = &x->reg;
	_cleanup_buf_ struct buf base = BUF_INIT(1200);
	char fallback[256];

	if (x->public) {
		region = "us-east-1";	/* the only one that has it */
		reg->suffix = "amazonaws.com";
	} else if (aws_registry_parse(host, reg)) {
		region = reg->region;
	} else if (!region) {
		return err_set(e, CODE_USAGE, "the name of the registry does not tell the region, and AWS_REGION is not set");
	} else if (check_region(region, e) < 0) {
		return -1;
	} else {
		reg->suffix = aws_suffix(region);
	}
	if (region != reg->region)
		snprintf(reg->region, sizeof(reg->region), "%s", region);
	if (x->public)
		snprintf(fallback, sizeof(fallback), "https://api.ecr-public.us-east-1.amazonaws.com");
	else if (reg->fips || reg->dual_stack)
		snprintf(fallback, sizeof(fallback), "https://ecr%s.%s.%s", reg->fips ? "-fips" : "", region, reg->suffix);
	else
		snprintf(fallback, sizeof(fallback), "https://api.ecr.%s.%s", region, reg->suffix);
	if (endpoint(x->c, x->public ? "AWS_ENDPOINT_URL_ECR_PUBLIC" : "AWS_ENDPOINT_URL_ECR", fallback, &base, e) < 0)
		return -1;
	snprintf(x->url, sizeof(x->url), "%s/", buf_cstr(&base));
	return 0;
}

/* The Host that libcurl sends: without the default port. */
static void host_header(const char *url, char *ret, size_t n)
{
	const char *host = strstr(url, "://") + 3;
	size_t len = strcspn(host, "/");
	const char *port = strncasecmp(url, "https:", 6) == 0 ? ":443" : ":80";
	size_t tail = strlen(port);

	if (len > tail && memcmp(host + len - tail, port, tail) == 0)
		len -= tail;
	snprintf(ret, n, "%.*s", (int)len, host);
}

static int ecr_ask(const struct ecr *x, int64_t now, struct http_response *ret, struct err *e)
{
	static const char type[] = "application/x-amz-json-1.1", body[] = "{}";
	const char *target = x->public ? "SpencerFrontendService.GetAuthorizationToken" :
					 "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
	_cleanup_secret_buf_ struct buf authorization = BUF_INIT(LIMIT_TOKEN), token_line = BUF_INIT(LIMIT_TOKEN);
	char host[1200], date[AWS_DATE_MAX], date_line[64], target_line[128];

	host_header(x->url, host, sizeof(host));
	aws_date(now, date);
	struct aws_header signed_headers[] = { { "content-type", type }, { "host", host }, { "x-amz-date", date },
					       { "x-amz-target", target }, { "x-amz-security-token", x->keys.token } };
	struct aws_call call = { .method = "POST", .path = strchr(strstr(x->url, "://") + 3, '/'), .headers = signed_headers,
				 .n_headers = x->keys.token ? 5 : 4, .body = body, .body_len = sizeof(body) - 1,
				 .region = x->reg.region, .service = x->public ? "ecr-public" : "ecr", .date = date };
	snprintf(date_line, sizeof(date_line), "X-Amz-Date: %s", date);
	snprintf(target_line, sizeof(target_line), "X-Amz-Target: %s", target);
	if (x->keys.token)
		buf_addf(&token_line, "X-Amz-Security-Token: %s", x->keys.token);
	if (aws_sign(&x->keys, &call, &authorization) < 0 || token_line.failed)
		return err_set(e, CODE_AUTH, "the AWS credentials are too long");
	const char *headers[] = { "Content-Type: application/x-amz-json-1.1", date_line, target_line,
				  x->keys.token ? buf_cstr(&token_line) : NULL, NULL };
	return cloud_fetch(x->c, (struct http_request){ .method = "POST", .url = x->url, .headers = headers,
							.authorization = buf_cstr(&authorization), .body = body,
							.body_len = sizeof(body) - 1 }, false, ret, e);
}

/* A refusal that a wrong clock of ours explains: *ret is the server's. */
static bool clock_is_wrong(const struct http_response *r, int64_t now, int64_t *ret)
{
	static const char *const types[] = { "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired",
					     "RequestTimeTooSkewed", "RequestInTheFuture" };
	const char *date = http_response_header(r, "Date", 0);
	time_t server = date ? curl_getdate(date, NULL) : (time_t)-1;
	bool told = false;

	if (r->status != 400 && r->status != 403)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		told |= strstr(buf_cstr(&r->body), types[i]) != NULL;
	if (!told || server == (time_t)-1 || ((int64_t)server - now < SKEW_S && now - (int64_t)server < SKEW_S))
		return false;
	*ret = server;
	return true;
}

static uint64_t life_of(yyjson_val *data, int64_t now)
{
	yyjson_val *v = yyjson_obj_get(data, "expiresAt");
	double at = yyjson_is_num(v) ? yyjson_get_num(v) : 0;

	/* seconds since 1970, perhaps with a fraction and an exponent; what cannot be is left out */
	if (!(at > (double)now) || at > (double)now + 30 * 86400)
		return ECR_LIFE_MS;
	return MAX((uint64_t)((at - (double)now) * 1000), (uint64_t)LIFE_LEAST_MS);
}

static int ecr_take(const struct ecr *x, const struct http_response *r, int64_t now, struct credential *ret, struct err *e)
{
	_cleanup_secret_json_ struct json_doc doc = { 0 };
	_cleanup_secret_ char *encoded = NULL;
	_cleanup_secret_buf_ struct buf plain = BUF_INIT(LIMIT_SECRET_FILE);
	__attribute__((cleanup(credential_release))) struct credential cred = { 0 };
	yyjson_val *data;

	if (cloud_json(r, x->url, &doc, e) < 0)
		return -1;
	/* ECR answers with a list, ECR Public with an object */
	data = yyjson_obj_get(doc.root, "authorizationData");
	if (yyjson_is_arr(data))
		data = yyjson_arr_get_first(data);
	if (cloud_json_secret(data, "authorizationToken", x->url, &encoded, e) < 0)
		return -1;
	if (base64_decode(encoded, strlen(encoded), &plain) < 0 || memchr(buf_cstr(&plain), '\0', plain.len) ||
	    !strchr(buf_cstr(&plain), ':'))
		return err_set(e, CODE_AUTH, "%s: the answer has no usable authorizationToken", x->url);
	const char *colon = strchr(plain.data, ':');
	cred.username = strndup(plain.data, (size_t)(colon - plain.data));
	cred.password = strdup(colon + 1);
	cred.life_ms = life_of(data, now);
	if (!cred.username || !cred.password ||
	    asprintf(&cred.source, "the %s login (AWS credentials of %s, region %s)", x->public ? "ECR Public" : "ECR",
		     x->keys.source, x->reg.region) < 0) {
		cred.source = NULL;
		return err_oom(e);
	}
	*ret = cred;
	cred = (struct credential){ 0 };
	return 1;
}

static int ecr_login(const struct ecr *x, struct credential *ret, struct err *e)
{
	_cleanup_response_ struct http_response r = { 0 };
	int64_t now = time(NULL);
	char what[1500];

	if (ecr_ask(x, now, &r, e) < 0)
		return -1;
	if (clock_is_wrong(&r, now, &now)) {
		cloud_response_release(&r);
		if (ecr_ask(x, now, &r, e) < 0)
			return -1;
	}
	if (r.status == 200)
		return ecr_take(x, &r, now, ret, e);
	snprintf(what, sizeof(what), "AWS credentials of %s: %s", x->keys.source, x->url);
	return cloud_refused(&r, what, "__type", "message", (const char *[]){ x->keys.secret, x->keys.token, NULL }, e);
}

int aws_login(const struct cloud *c, bool public, struct credential *ret, struct buf *note, struct err *e)
{
	struct ecr x = { .c = c, .public = public };
	int rc;

	if (ecr_target(&x, e) < 0)
		return -1;
	rc = find_keys(c, x.reg.region, &x.keys, note, e);
	if (rc > 0)
		rc = ecr_login(&x, ret, e);
	aws_keys_release(&x.keys);
	return rc;
}
