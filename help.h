// SPDX-License-Identifier: Apache-2.0
/*
 * What the tables of options.h look like to people: help texts, man page, README's tables. Pure.
 * Row 1; calls buf; peers: config, options. Nothing here fails but through b->failed.
 */
#ifndef FETCHER_HELP_H
#define FETCHER_HELP_H

#include "config.h"

/* Help of one command, the overview (CMD_COUNT), or a topic (HELP_AUTH). */
void help_text(enum config_command topic, struct buf *ret);
/* fetcher(1), with the macros of man(7). */
void help_man(struct buf *ret);
/* README's tables of options and exit codes, each between its markers. */
void help_markdown(struct buf *ret);

#endif
