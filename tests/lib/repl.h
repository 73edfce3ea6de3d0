/* SPDX-License-Identifier: GPL-2.0-only */
/* The words of dm-repl's status lines, and the set of devices most suites use. */
#ifndef TESTS_REPL_H
#define TESTS_REPL_H

#include "dm.h"
#include "io.h"
#include "tap.h"

#define REPL_WORDS 17
#define PRIMARY_WORDS 19

/* repl-secondary's status; Documentation/dm-repl.rst */
struct repl_status {
	char stage[24];
	uint64_t checkpoint;
	bool is_prepared;
	uint64_t prepared;
	uint64_t region_size, regions, hidden, active, ops;
	char job[16], job_state[16];
	uint64_t job_done, job_total, job_speed;
	char errors[128];
	unsigned int error;		/* positive errno */
	bool has_sector;
	uint64_t sector;
	bool has_log;			/* there is a metadata device */
	uint64_t log_used, log_blocks;
	char line[512];			/* all of it, as it was */
};

/* repl-primary's */
struct repl_primary_status {
	char stage[24], mode[16], peer[16];
	uint64_t writes, forwarded, missed;
	char errors[64];
	unsigned int error;
	bool has_sector;
	uint64_t sector;
	uint64_t window_used, window_size;	/* KiB */
	uint64_t dirty, regions;
	char cut[40], job[16], job_state[16];
	uint64_t job_done, job_total, job_speed;
	uint64_t checkpoint_regions;
	char line[512];
};

/* Both end the program if the line is not exactly of the documented form. */
void repl_status(const char *view, struct repl_status *st);
void repl_primary_status(const char *primary, struct repl_primary_status *st);

/* "ingest <stage> <bound> <fence>" */
bool ok_ingest(const char *ingest, const char *stage, const char *bound,
	       const char *fence);
bool ok_stage(const char *view, const char *stage);

/*
 * The latched errors. @errors "-": nothing is latched, @error and @sector must
 * say so too. @sector: the first one, or ANY_SECTOR.
 */
#define ANY_SECTOR UINT64_MAX
bool ok_latched(const char *view, const char *errors, int error, uint64_t sector);
bool ok_primary_latched(const char *primary, const char *errors, int error,
			uint64_t sector);

/*
 * Waits, by dm events, until the stage is @stage; false if that is past or
 * impossible (another stage that does not lead there). The caller has a
 * watchdog.
 */
bool wait_stage(const char *view, const char *stage);
/* The same for the state of the job. */
bool wait_job(const char *view, const char *state);
/* The same for that of the primary's push. */
bool wait_push(const char *primary, const char *state);
/* Waits until @words of the primary's peer field are @peer. */
bool wait_peer(const char *primary, const char *peer);

/*
 * A set: a view and an ingest over three legs (dm.h), on backing devices that
 * the caller brings and that are also open, to look past the targets.
 */
struct repl_set {
	char view[24], ingest[24];
	char secondary[24], hidden[24], active[24];	/* legs */
	char metadata[24];				/* one more, or "" */
	uint64_t sectors;
	unsigned int region;				/* sectors */
	int view_fd, ingest_fd;				/* O_DIRECT */
	int secondary_fd, hidden_fd, active_fd;		/* the backing devices */
};

/*
 * Names begin with @prefix. Stage none; the caller sends "start". Metadata is
 * on @set_metadata, whose first two blocks are blanked; NULL: in memory only.
 */
extern const char *set_metadata;
void set_make(struct repl_set *set, const char *prefix, uint64_t sectors,
	      unsigned int region, const char *secondary, const char *hidden,
	      const char *active);
void set_remove(struct repl_set *set);
/*
 * Only the view, or the view and the ingest: down, and up again as set_make()
 * made them. Returns what the constructor or the resume says.
 */
void set_take_down(struct repl_set *set);
int set_bring_up(struct repl_set *set);

#endif
