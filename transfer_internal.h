// SPDX-License-Identifier: Apache-2.0
/*
 * What the files of the engine share: transfer.c (the run), transfer_claim.c (who fetches what), transfer_lane.c (one
 * thread's connections), transfer_outcome.c (what an answer means), transfer_server.c (which server an item is asked for at, and
 * what each host bears), transfer_item.c (where an item's bytes go: a blob or a stream), transfer_stream.c (a stream: window,
 * hash, consumer).
 *
 * Locking: everything in struct transfer, struct item and the fields of struct part marked [T] belongs to t->lock. A part's other
 * fields belong to its lane's thread. No network, disk or callback happens under the lock.
 */
#ifndef FETCHER_TRANSFER_INTERNAL_H
#define FETCHER_TRANSFER_INTERNAL_H

#include <pthread.h>

#include "transfer.h"
#include "window.h"

enum item_state {
	ITEM_WAITING = 0,
	ITEM_ACTIVE,		/* its blob or stream is open */
	ITEM_FINISHING,		/* a lane, or its consumer, judges and publishes it */
	ITEM_DONE,
};

/* What is known of the server's ranges for this blob. */
enum item_mode {
	MODE_UNKNOWN = 0,	/* the next request is the probe, alone */
	MODE_PROBING,		/* it is under way */
	MODE_RANGES,		/* 206 with the exact Content-Range was seen */
	MODE_STREAM,		/* one whole-body stream, no Range (small, or the server cannot) */
};

struct part;
struct stream;

/* A scheme, host and port that is asked: of the registry, a mirror, or where one of them redirects to. */
struct host {
	char *origin;		/* NULL = of all that have no entry of their own; else fixed */
	uint64_t not_before_ms;	/* it asked to be left alone until then (Retry-After) */
};

struct server {
	struct blob_server *s;
	struct host *host;
	bool lied;		/* it was said that its bytes were wrong */
};

struct item {
	const struct transfer_item *in;
	size_t index;
	size_t server;		/* index of the one that is asked */
	char *url;		/* of the blob there; NULL = it was not asked for yet */
	uint32_t from;		/* bits of the servers that answered with some of it, since it began anew */
	enum item_state state;
	enum item_mode mode;
	struct blob *blob;	/* one of them, see transfer_item.c */
	struct stream *stream;
	size_t window;		/* of the stream, bytes */
	unsigned refs;		/* users of blob or stream: state machine, parts, upkeep; the last one closes it */
	bool opening;		/* a lane opens blob or stream outside the lock: they are its own until then */
	struct spans taken;	/* on disk or in the window, or promised to a part */
	unsigned n_parts;
	char *target;		/* where the redirect led; NULL = ask the origin */
	struct host *target_host;
	unsigned hops, resolves, refusals; /* redirects, new targets, 401s since the last good answer */
	unsigned attempt;	/* failures since the last good byte */
	uint64_t failed_ms;	/* the last one: what was asked for before it is the same trouble */
	unsigned bad_answers;	/* wrong ranges and lengths, whole run */
	bool no_range;		/* Range requests confuse this server */
	bool again;		/* the registry's digest was wrong once: last chance, one stream */
	bool went_back;		/* to a mirror that had been left; once is enough */
	unsigned round;		/* how often it began anew */
	uint64_t not_before_ms;
	struct item *next_active;
	struct item *next_ended;
};

/* Waiting items: those from `next` on of t->items. */
struct queue {
	size_t next, end;
};

enum part_state {
	PART_IDLE = 0,
	PART_SENT,		/* headers not judged yet */
	PART_BODY,		/* bytes go to the blob */
	PART_DROP,		/* the body of a refusal: kept for the message, else ignored */
};

enum part_result {
	RESULT_NONE = 0,
	RESULT_REDIRECT,
	RESULT_STATUS,		/* a refusal; judged when the exchange ends */
	RESULT_BAD,		/* wrong range, length or encoding */
	RESULT_LOCAL,		/* disk or internal error: in err */
	RESULT_CANCELLED,	/* the bytes are not needed any more */
	RESULT_STALLED,
	RESULT_AUTH,		/* no credentials to ask with: in err */
};

struct part {
	struct lane *lane;
	CURL *c;
	struct http *http;	/* that c was made with */
	struct item *it;	/* [T] NULL = not in use */
	size_t server;		/* [T] to write; that is asked, the item may have gone on to another one */
	struct host *host;	/* [T] */
	enum part_state state;
	enum part_result result;
	bool progressed;	/* brought bytes that were not there before */
	bool ranged;		/* a Range was asked for */
	unsigned round;		/* [T] of the item */
	bool paused;		/* the window was full, or the rate limit reached */
	uint64_t start, asked_end;
	uint64_t claimed_ms;	/* [T] */
	atomic_uint_fast64_t end;	/* [T] to write; shrinks when the tail is split off */
	atomic_uint_fast64_t pos;	/* next byte of the blob */
	atomic_bool cancel;
	bool probe;		/* [T] it is why the item's mode is MODE_PROBING */
	struct part *twin;	/* [T] asks for the same bytes: whoever is last gives them back */
	char *url;
	bool redirected;	/* url is not the server's own for the blob */
	bool at_origin;		/* but it may be there */
	unsigned generation;	/* of the credentials used */
	bool with_credentials;
	struct curl_slist *headers;
	char range[64];
	char errbuf[CURL_ERROR_SIZE];
	uint64_t sent_ms, last_byte_ms;
	bool slow;		/* RESULT_STALLED, though bytes came */
	uint64_t window_ms, window_pos;	/* slow-speed check */
	uint64_t window_total;	/* bytes of its server then */
	uint64_t crawls;	/* RESULT_STALLED, since its server brings no more than this a second */
	struct err err;
	/* of the response */
	long status;
	bool has_range_header;
	struct content_range content_range;
	uint64_t content_length;	/* UINT64_MAX = absent */
	bool encoded;
	bool hit;		/* a proxy says that it had the blob at hand */
	struct http_response resp;	/* the headers that matter later, and an error body */
	size_t header_bytes;
};

struct lane {
	struct transfer *t;
	unsigned index;
	pthread_t thread;
	bool running;
	CURLM *m;
	struct part *parts;
	size_t n_parts;		/* room */
	size_t busy;
	uint8_t *scratch;
	uint64_t last_check_ms;
	size_t turn;		/* which part may go on first */
	atomic_bool idle;	/* waits with room to spare */
	atomic_uint paused;	/* connections that wait for room in a window */
};

struct transfer {
	pthread_mutex_t lock;
	pthread_cond_t cond;	/* something ended */
	struct http *h;
	const struct transfer_options *o;
	struct transfer_stats *stats;
	struct server *servers;	/* n_servers of o; the last one is the registry */
	struct host *hosts;	/* LIMIT_HOSTS; the last one is for all others */
	size_t n_hosts;
	struct item *items;	/* files, then streams, each smallest first */
	size_t n_items, n_done;
	struct queue files, streams;
	struct item *active;	/* list */
	size_t n_active;
	unsigned n_streams, max_streams;	/* with a window, ended ones included */
	uint64_t window_bytes, window_budget;	/* of all windows */
	struct item *ended;	/* list: streams that nobody uses any more; reap */
	struct lane *lanes;
	unsigned n_lanes;
	unsigned max_connections;
	uint64_t range_size;
	struct plan_control control;
	uint64_t rate;		/* new bytes per second, smoothed */
	uint64_t rate_ms, rate_done;
	atomic_uint_fast64_t idle_us;	/* that lanes spent waiting, all together */
	uint64_t tick_us, tick_idle_us;	/* at the last tick */
	atomic_uint target;	/* connections wanted now */
	struct plan_rate limit;
	atomic_uint_fast64_t throttled_ms; /* when the limit made a connection wait last */
	uint64_t progress_ms;	/* last good byte, updated by the ticker */
	struct err err;		/* first fatal error */
	struct err last;	/* last one that was retried */
	uint64_t last_ms;
	pthread_t keeper;
	bool keeper_running;
	atomic_bool over;	/* done or failed: lanes end */
	bool failed;
};

#define LANE_SCRATCH (256 * KIB)
#define WINDOW_MIN (4 * MIB)	/* of a stream that is not smaller itself */
#define WINDOW_MAX (256 * MIB)

static inline struct blob_server *item_server(const struct transfer *t, const struct item *it)
{
	return t->o->servers[it->server];
}

static inline struct blob_server *part_server(const struct transfer *t, const struct part *p)
{
	return t->o->servers[p->server];
}

/* The registry never does, whatever it is called. */
static inline bool server_gives_way(const struct transfer *t, size_t server)
{
	return server + 1 < t->o->n_servers && t->o->servers[server]->mirror;
}

/* The rate limit, not a server, is why bytes come slowly. */
static inline bool transfer_throttled(const struct transfer *t, uint64_t now)
{
	return t->limit.limit && now - atomic_load(&t->throttled_ms) < 1000;
}

/* --- transfer.c --- */

/* Judges and publishes the item if it is complete. consumed: its consumer says that it will not be more. */
void transfer_try_finish(struct transfer *t, struct item *it, bool consumed);
/* A slice of hashing on any active blob. >0 = bytes of backlog left, 0 = nothing to do, or others are at it. */
uint64_t transfer_hash_round(struct transfer *t, struct lane *l);
void transfer_wake(struct transfer *t);
unsigned transfer_quota(const struct transfer *t, unsigned lane);
/* The rest with the lock held. The first failure counts; it ends the transfer. */
void transfer_fail_locked(struct transfer *t, const struct err *e);
void item_leave_active(struct transfer *t, struct item *it);
bool item_is_small(const struct transfer *t, const struct item *it);	/* fetched without ranges and journal */
void item_cancel_parts(struct transfer *t, const struct item *it, const struct part *but);

/*
 * --- transfer_item.c ---
 * An item's bytes go to a blob or through a stream; who fetches them need not know which. An item is used under the lock, by
 * who holds a reference, or by who opens it.
 */

/* Without the lock, by who set it->opening. */
int item_open(struct transfer *t, struct item *it, struct err *e);
/* Lock held: others may use it now. */
int item_opened(struct transfer *t, struct item *it, struct err *e);
bool item_in_use(const struct item *it);	/* lock held: active, and open */
/*
 * Lock held. The last user gets the blob: item_close, without the lock. A stream goes to t->ended instead, since its own consumer may
 * be the last.
 */
struct blob *item_drop_ref(struct transfer *t, struct item *it);
/* Without the lock: closing may flush. b may be NULL. */
void item_close(const struct item *it, struct blob *b);
/* Without the lock: frees the streams that ended. */
void item_reap(struct transfer *t);
/* At the end, when nothing else runs: closes what is still open. */
void item_abandon(struct transfer *t, struct item *it);

#define ITEM_FULL 1
/* Bytes from p's answer: 0, -1, or ITEM_FULL: nothing was taken, wait until item_has_room. */
int item_write(struct item *it, const struct part *p, const void *s, size_t n, uint64_t *ret_new, struct err *e);
bool item_has_room(struct item *it, const struct part *p);
bool item_gap(struct item *it, uint64_t from, struct span *ret);	/* first one at or after from */
uint64_t item_done_bytes(struct item *it);
bool item_complete(struct item *it);		/* all on disk and hashed; a stream's consumer knows it by itself */
uint64_t item_backlog(struct item *it);		/* bytes that a lane could hash */
bool item_consuming(struct item *it);		/* what came keeps somebody busy that is not the network */
/* p has the byte that the consumer waits for, at least since then. */
bool item_waits_for(struct item *it, const struct part *p, uint64_t since_ms);
/* All is there: 1 = right, 0 = not all, -1 = not right; *ret_wrong: the bytes are to blame. */
int item_verdict(struct item *it, bool *ret_wrong, struct err *e);
int item_reset(struct item *it, struct err *e);		/* from byte 0, once more */
void item_discard(struct item *it);			/* nothing of it is any good, also for the next run */
int item_maintain(struct item *it, uint64_t now, struct err *e);

/*
 * --- transfer_stream.c ---
 * Threads: all but open, start and close may be called from several; verdict and reset by the consumer's thread only.
 */
int stream_open(struct stream **ret, struct transfer *t, struct item *it, struct err *e);
int stream_start(struct stream *s, struct err *e);	/* its consumer begins */
void stream_stop(struct stream *s, const struct err *why);
void stream_close(struct stream *s);	/* stops it, and waits for the consumer. NULL is fine */
struct window *stream_window(struct stream *s);
int stream_verdict(struct stream *s, bool *ret_wrong, struct err *e);
int stream_reset(struct stream *s, struct err *e);
int stream_discard(struct stream *s, struct err *e);

/* --- transfer_server.c --- */

int servers_init(struct transfer *t, struct err *e);
void servers_release(struct transfer *t);

/*
 * By p's lane, without the lock: while p waited for its body its mirror brought too little in all, or the registry less than a mirror
 * did that was left for that; p->crawls says how much. All connections count: on a slow line many share little.
 */
bool server_crawls(const struct transfer *t, struct part *p, uint64_t now);

/* The rest with the lock held. */

/* The entry of the URL's scheme, host and port. */
struct host *host_of(struct transfer *t, const char *url);
struct host *item_host(const struct transfer *t, const struct item *it);
/* One more request of this lane may go there now. */
bool host_has_room(const struct transfer *t, const struct lane *l, const struct host *host, uint64_t now);
struct host *first_host(const struct transfer *t);	/* where items that wait will be asked for */
/* The item is asked for at a server that is not bad, from the present one on. -1: out of memory. */
int item_seek_server(struct transfer *t, struct item *it, struct err *e);
/*
 * p's mirror is in trouble, or lacks the blob (miss): its item goes on to the next server. true: `line` is worth telling.
 */
bool item_give_way(struct transfer *t, const struct part *p, bool miss, const struct err *why, char *line, size_t n);
/*
 * p fails (final: for good) at who comes after the mirrors, or crawls: its item goes back to a mirror that was left for its speed alone.
 * false: there is none, or the server has shown that it can do better. line is "" where that was told before.
 */
bool item_go_back(struct transfer *t, const struct part *p, bool final, const struct err *why, char *line, size_t n);
/*
 * The item's bytes are wrong. false: the registry alone brought them. Else whichever mirrors did are bad now, and it will be asked
 * for at the next server; line is "" where that was told before.
 */
bool item_blame_mirrors(struct transfer *t, struct item *it, const struct err *why, char *line, size_t n);

/* --- transfer_claim.c --- */

/* Fills p with the next thing to fetch; false when there is nothing for now. */
bool transfer_claim(struct transfer *t, struct part *p);

/* --- transfer_outcome.c --- */

/* Headers of p say 206 as asked, or 200. Returns false when the body must not be used. */
bool transfer_headers_ok(struct transfer *t, struct part *p);
/* The part's exchange ended: books the outcome, gives undone bytes back, schedules retries. */
void transfer_part_ended(struct transfer *t, struct part *p, CURLcode rc);

/*
 * --- transfer_lane.c ---
 * All lanes are initialised before one starts, and joined before one is released: they wake each other.
 */
int lane_init(struct lane *l, struct transfer *t, unsigned index, size_t room, struct err *e);
int lane_start(struct lane *l, struct err *e);
void lane_join(struct lane *l);
void lane_release(struct lane *l);

#endif
