// SPDX-License-Identifier: Apache-2.0
/*
 * AWS: credentials as its SDKs find them, Signature Version 4, the login of ECR. See cloud.h for what is read. Row 1;
 * calls secret; peers: cloud, cloud_internal, token, verify.
 */
#ifndef FETCHER_AWS_H
#define FETCHER_AWS_H

#include <stdint.h>

#include "cloud.h"

struct aws_keys {
	char *id, *secret;
	char *token;		/* of temporary credentials, or NULL */
	const char *source;	/* "the environment", ...; static */
};
void aws_keys_release(struct aws_keys *k);	/* overwrites, then frees */

/* What stands in the name of an ECR registry. */
struct aws_registry {
	char region[64];
	const char *suffix;	/* "amazonaws.com"; static */
	bool fips, dual_stack;
};
/* false: not a private ECR registry. host without port. The forms are those of kubernetes/cloud-provider-aws. */
bool aws_registry_parse(struct str host, struct aws_registry *ret);
/* The name below which a region's services are: "amazonaws.com", "amazonaws.com.cn", ... */
const char *aws_suffix(const char *region);

/*
 * Signature Version 4 ("AWS Signature Version 4 signing process" of the IAM user guide). Pure; no query, no body in chunks.
 */
struct aws_header {
	const char *name;	/* lower case */
	const char *value;	/* without blanks at the ends */
};
struct aws_call {
	const char *method;
	const char *path;	/* as it is sent: already encoded */
	const struct aws_header *headers; /* all that are signed, host and x-amz-date among them; in any order, at most 8 */
	size_t n_headers;
	const void *body;
	size_t body_len;
	const char *region, *service;
	const char *date;	/* "20150830T123600Z", the value of x-amz-date */
};
/* Appends the value of Authorization. -1: does not fit. */
int aws_sign(const struct aws_keys *k, const struct aws_call *c, struct buf *ret);
/* "20150830T123600Z" */
#define AWS_DATE_MAX 24
void aws_date(int64_t unix_time, char ret[static AWS_DATE_MAX]);

/*
 * The text of the first <name>...</name> behind the first <within>, if it has no markup and no references in it. Bounded, no XML
 * parser: for the flat answers of STS. false: not there.
 */
bool aws_xml_text(struct str doc, const char *within, const char *name, struct str *ret);

/* The login, as cloud_login. */
int aws_login(const struct cloud *c, bool public, struct credential *ret, struct buf *note, struct err *e);

#endif
