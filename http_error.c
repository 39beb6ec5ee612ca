// SPDX-License-Identifier: Apache-2.0
/* What failures mean and what is said about them: libcurl's codes, statuses, the registry's own words. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "http.h"
#include "json.h"

static int network_error(struct err *e, enum code code, bool retryable, const char *what,
			 const char *why, const char *fix)
{
	err_set(e, code, "%s: %s%s%s", what, why, *fix ? "; " : "", fix);
	if (e)
		e->retryable = retryable;
	return -1;
}

int http_curl_error(struct http *h, CURL *c, CURLcode rc, const char *errbuf, const char *what,
		    struct err *e)
{
	char why[CURL_ERROR_SIZE + 128], fix[256] = "";
	long oserr = 0;

	snprintf(why, sizeof(why), "%s", errbuf && *errbuf ? errbuf : curl_easy_strerror(rc));
	if (c)
		curl_easy_getinfo(c, CURLINFO_OS_ERRNO, &oserr);
	switch (rc) {
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
		snprintf(fix, sizeof(fix), "CAs come from %.160s; name your registry's CA with --ca-file",
			 http_ca_source(h));
		return network_error(e, CODE_NETWORK, false, what, why, fix);
	case CURLE_SSL_CONNECT_ERROR:
		/* A plain-HTTP answer is no passing trouble: waiting for it to go away helps nobody */
		if (strstr(why, "invalid SSL record") || strstr(why, "7200"))
			return network_error(e, CODE_NETWORK, false, what, "the server does not speak TLS",
					     "if the registry serves plain HTTP, say --plain-http");
		/* nor does a certificate that is not one for a server */
		if (strstr(why, "Certificate") || strstr(why, "certificate"))
			return network_error(e, CODE_NETWORK, false, what, why,
					     "the server's certificate cannot be used");
		network_error(e, CODE_NETWORK, true, what, why,
			      "if the registry serves plain HTTP, say --plain-http");
		if (e)
			e->sys_errno = EPROTO; /* http_get gives up on these after a few tries */
		return -1;
	case CURLE_URL_MALFORMAT:
		return network_error(e, CODE_USAGE, false, what, why, "");
	case CURLE_OUT_OF_MEMORY:
		return err_oom(e);
	case CURLE_OPERATION_TIMEDOUT:
		return network_error(e, CODE_DEADLINE, true, what, why, "");
	case CURLE_UNSUPPORTED_PROTOCOL: /* "HTTP/0.9": no status line at all */
	case CURLE_WEIRD_SERVER_REPLY:
		return network_error(e, CODE_NETWORK, false, what, why, "is this an HTTP server?");
	case CURLE_WRITE_ERROR:
		return network_error(e, CODE_NETWORK, false, what, "the answer was not acceptable", "");
	default:
		network_error(e, CODE_NETWORK, true, what, why, "");
		if (e)
			e->sys_errno = (int)oserr;
		return -1;
	}
}

/* The registry's own words: errors[0].code and message (distribution spec "Error Codes"). */
static void error_words(const struct buf *body, char *ret, size_t n)
{
	struct json_doc doc;
	yyjson_val *errors, *first;
	struct str code = { "", 0 }, message = { "", 0 };

	*ret = '\0';
	if (!body || !body->len || json_parse(body->data, body->len, "error", &doc, NULL))
		return;
	if (json_arr(doc.root, "errors", &errors) == 1 && (first = yyjson_arr_get_first(errors))) {
		json_str(first, "code", &code);
		json_str(first, "message", &message);
		if (code.n || message.n)
			snprintf(ret, n, " (%.*s%s%.*s)", (int)MIN(code.n, (size_t)80), code.p,
				 code.n && message.n ? ": " : "", (int)MIN(message.n, (size_t)400),
				 message.p);
	}
	json_release(&doc);
}

bool http_status_retryable(long status)
{
	return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

int http_status_error(long status, const char *what, const struct buf *body, struct err *e)
{
	char words[512];

	error_words(body, words, sizeof(words));
	switch (status) {
	case 401:
		err_set(e, CODE_AUTH, "%s: not authorised, 401%s; check the credentials for this registry",
			what, words);
		break;
	case 403:
		err_set(e, CODE_AUTH, "%s: forbidden, 403%s; these credentials may not read it", what, words);
		break;
	case 407:
		err_set(e, CODE_AUTH, "%s: the proxy wants credentials, 407%s", what, words);
		break;
	case 412: /* Harbor's policy violations */
		err_set(e, CODE_AUTH, "%s: refused by a policy of the registry, 412%s", what, words);
		break;
	case 404:
	case 410:
		err_set(e, CODE_NOT_FOUND, "%s: not found, %ld%s; check repository, tag and digest", what,
			status, words);
		break;
	default:
		err_set(e, CODE_NETWORK, "%s: the server answered %ld%s", what, status, words);
	}
	if (e) {
		e->http_status = (int)status;
		e->retryable = http_status_retryable(status);
	}
	return -1;
}
