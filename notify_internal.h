// SPDX-License-Identifier: Apache-2.0
/* What notify.c shares with notify_webhook.c and notify_signal.c. */
#ifndef FETCHER_NOTIFY_INTERNAL_H
#define FETCHER_NOTIFY_INTERNAL_H

#include "notify.h"

/* --- notify_webhook.c --- */

struct webhook {
	const struct notify_options *o;
	char *url;			/* with the path that the preset adds */
	const char *method, *body;	/* the preset's where the options say nothing */
	bool plain;			/* http:// */
	const atomic_int *stop;
};

/* CODE_USAGE names the option. o->webhook_url is set; o and stop are borrowed. */
int webhook_init(struct webhook *w, const struct notify_options *o, const atomic_int *stop, struct err *e);
void webhook_release(struct webhook *w);
/* One exchange. */
int webhook_call(const struct webhook *w, const struct notify_event *ev, struct err *e);

/* --- notify_signal.c --- */

struct signal_target {
	char name[256];
	int signal;
};

int signal_parse(const char *text, struct signal_target *ret, struct err *e);
/* To every process of that name but ourselves. -1 (CODE_LOCAL): not one of them took it. */
int signal_send(const struct signal_target *t, struct err *e);

#endif
