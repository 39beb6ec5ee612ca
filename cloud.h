// SPDX-License-Identifier: Apache-2.0
/*
 * Logins of cloud registries without helper binaries: which login a registry or a credential helper's name means, and one
 * function that does it (cloud.c; gcp.c, azure.c, aws.h). Row 1; peers: aws, dockercfg, http, token.
 *
 * What is read, in this order; the first that is there decides, and nothing is asked unless the registry is of that cloud (or
 * credHelpers of a config file names its helper) and wants credentials:
 *
 *   ECR (N.dkr.ecr[-fips].REGION.amazonaws.com[.cn]|.eu, N.dkr-ecr[-fips].REGION.on.aws; helper ecr-login), ECR Public
 *     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *     AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE (IRSA), AWS_ROLE_SESSION_NAME; AWS_ENDPOINT_URL_STS
 *     AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI (Pod Identity, ECS), AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE or _TOKEN
 *     IMDSv2: AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE, AWS_EC2_METADATA_DISABLED
 *     The region comes from the registry's name, else AWS_REGION, AWS_DEFAULT_REGION. AWS_ENDPOINT_URL_ECR (_ECR_PUBLIC), then
 *     AWS_ENDPOINT_URL, replace the service's address. Profiles and shared files (~/.aws) are not read.
 *   Google (gcr.io, *.gcr.io, *.pkg.dev; helpers gcloud, gcr)
 *     the metadata server: GCE_METADATA_HOST, else metadata.google.internal; service account "default" (on GKE: workload identity)
 *   ACR (*.azurecr.io, .cn, .us; helpers acr-env, acr-login)
 *     AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE (workload identity); AZURE_AUTHORITY_HOST
 *     managed identity by IMDS: AZURE_CLIENT_ID selects one; AZURE_POD_IDENTITY_AUTHORITY_HOST replaces http://169.254.169.254
 *
 * Secrets travel over HTTPS, but for metadata addresses and endpoints that one of these variables names as http://; the exchange
 * of ACR goes to the registry's own origin alone. No redirect is followed. A registry that is reached over plain HTTP gets no login
 * (auth.c), since what a login brings is good for other registries as well.
 *
 * What a login brought is kept by the process until 80 % of its life, and that there was none for ten minutes. Thread safe.
 */
#ifndef FETCHER_CLOUD_H
#define FETCHER_CLOUD_H

#include "dockercfg.h"
#include "http.h"

enum cloud_kind { CLOUD_NONE = 0, CLOUD_ECR, CLOUD_ECR_PUBLIC, CLOUD_GCP, CLOUD_ACR };

#define CLOUD_NOTES_MAX 400

struct cloud {
	int (*fetch)(void *ctx, const struct http_request *q, struct http_response *ret, struct err *e); /* as http_fetch */
	void *ctx;
	const char *const *env;		/* "NAME=value", NULL-terminated; NULL = the process's */
	const char *registry;		/* host[:port] */
	const char *origin;		/* of the registry, see http_origin */
	const char *service;		/* of its challenge; NULL = the host */
	bool fresh;			/* what is kept was refused: log in anew */
};

/* Whose login the registry host[:port] means; CLOUD_NONE: nobody's. */
enum cloud_kind cloud_of_registry(const char *registry);
/* What docker-credential-NAME would do for that registry; CLOUD_NONE: not built in. */
enum cloud_kind cloud_of_helper(const char *name, const char *registry);

/* May an identity travel to an http(s) URL without user info? https:// or this machine itself. */
bool cloud_safe(const char *url);

/*
 * 1: *ret is filled (life_ms too). 0: no credentials of that cloud are here, or, but for ECR, they were refused; notes (may be
 * NULL) gets "ECR login (...)", which says what was looked for. -1: CODE_AUTH refused, CODE_USAGE a variable or file is wrong,
 * CODE_NETWORK and CODE_DEADLINE (retryable). Messages hold no secrets.
 */
int cloud_login(const struct cloud *c, enum cloud_kind kind, struct credential *ret, struct buf *notes, struct err *e);

/* The registry refused us for good: what is kept for it is overwritten and dropped. */
void cloud_drop(const char *registry);
/* Overwrites and drops all that is kept (tests). */
void cloud_forget(void);

#endif
