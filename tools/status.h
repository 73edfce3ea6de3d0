/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Status: what the targets' status lines say (Documentation/dm-repl.rst), as
 * structs, as JSON and as words.
 *
 * The parser takes a line from the kernel for what it is: foreign input. What is
 * not exactly of the documented form is an error, but for more words at the end:
 * those are of a newer module.
 */
#ifndef REPLCTL_STATUS_H
#define REPLCTL_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

struct json_object;

enum repl_role { REPL_SECONDARY, REPL_INGEST, REPL_PRIMARY };

enum repl_stage {
	REPL_STAGE_NONE,
	REPL_STAGE_RUNNING,
	REPL_STAGE_FAILOVER,
	REPL_STAGE_FAILOVER_FAILED,
	REPL_STAGE_DONE,
};

enum repl_job_type { REPL_JOB_NONE, REPL_JOB_MERGE, REPL_JOB_FILL, REPL_JOB_PUSH };

enum repl_job_state {
	REPL_JOB_IDLE,
	REPL_JOB_RUNNING,
	REPL_JOB_PAUSED,
	REPL_JOB_DONE,
	REPL_JOB_FAILED,
	REPL_JOB_CANCELLED,
};

enum repl_mode { REPL_MODE_SYNC, REPL_MODE_ASYNC };

enum repl_peer {
	REPL_PEER_NONE,
	REPL_PEER_ATTACHED,
	REPL_PEER_DETACHED,
	REPL_PEER_FAILED,
};

/* Of the primary's cut, the point in time that a checkpoint is made of. */
enum repl_cut {
	REPL_CUT_NONE,
	REPL_CUT_HELD,			/* made, and I/O waits for the other volumes' */
	REPL_CUT_MADE,			/* not all before it is on the peer */
	REPL_CUT_DRAINED,
	REPL_CUT_BROKEN,		/* the peer was lost meanwhile */
};

/* Classes of latched errors; bit numbers in struct repl_latched. */
enum repl_class {
	REPL_CBW_READ,		/* of repl-secondary, in the order of the line */
	REPL_CBW_WRITE,
	REPL_SECONDARY_WRITE,
	REPL_FLUSH,
	REPL_VIEW_READ,
	REPL_VIEW_WRITE,
	REPL_MERGE_READ,
	REPL_MERGE_WRITE,
	REPL_MERGE_FLUSH,
	REPL_METADATA,
	REPL_PEER_WRITE,	/* of repl-primary */
	REPL_PEER_FLUSH,
	REPL_PEER_TIMEOUT,
	REPL_PUSH_READ,
	REPL_PRIMARY_METADATA,
	REPL_NR_CLASSES,
};

/* A resync, then clear_error, before the next start or checkpoint. */
#define REPL_CLASSES_STOP_CHECKPOINTS					\
	(1u << REPL_CBW_READ | 1u << REPL_CBW_WRITE |			\
	 1u << REPL_SECONDARY_WRITE | 1u << REPL_FLUSH | 1u << REPL_METADATA)

struct repl_latched {
	unsigned int classes;		/* 1u << enum repl_class */
	unsigned int first_errno;	/* 0 if there is none */
	bool has_first_sector;		/* false too where only flushes failed */
	uint64_t first_sector;
};

struct repl_job_status {
	enum repl_job_type type;
	enum repl_job_state state;
	uint64_t done, total;		/* regions; done <= total */
	uint64_t speed;			/* KiB/s, 0 = unlimited */
};

struct repl_secondary_status {
	uint64_t checkpoint;		/* 0 before the first */
	bool is_prepared;
	uint64_t prepared;
	uint64_t region_size;		/* sectors */
	uint64_t regions, hidden, active;
	uint64_t ops;
	bool has_metadata;		/* a device; else maps are in memory only */
	uint64_t log_used, log_blocks;	/* of its log; used <= blocks */
};

struct repl_ingest_status {
	bool is_bound, is_fenced;
};

struct repl_primary_status {
	enum repl_mode mode;
	enum repl_peer peer;
	uint64_t writes, forwarded, missed;
	uint64_t window_used, window;	/* KiB; used <= window; 0 in mode sync */
	uint64_t regions;
	uint64_t dirty;			/* regions that the peer's disk has not got */
	uint64_t newer;			/* regions that the peer's checkpoint has not got */
	enum repl_cut cut;
	uint64_t cut_id;		/* 0: none */
	bool has_metadata;
	uint64_t log_used, log_blocks;	/* as of a secondary */
};

struct repl_status {
	enum repl_role role;
	enum repl_stage stage;
	struct repl_latched latched;	/* not of an ingest */
	struct repl_job_status job;	/* not of an ingest */
	union {
		struct repl_secondary_status secondary;
		struct repl_ingest_status ingest;
		struct repl_primary_status primary;
	};
};

/**
 * status_parse() - read a status line
 * @line: as dm_status() gives it, without the target's type
 * @status: out; of no use on -1
 * @error: filled in on -1: which field is wrong
 *
 * Return: 0 or -1.
 */
int status_parse(const char *line, struct repl_status *status, struct repl_error *error);

/* "secondary", "failover-failed", "merge", "running", "detached", "cbw-read"... */
const char *status_role_name(enum repl_role role);
const char *status_stage_name(enum repl_stage stage);
const char *status_job_name(enum repl_job_type job);
const char *status_job_state_name(enum repl_job_state state);
const char *status_peer_name(enum repl_peer peer);
const char *status_cut_name(enum repl_cut cut);
const char *status_class_name(enum repl_class class);

/*
 * Rate: how fast something goes, from its last two samples. Zeroed is empty.
 */
struct repl_rate {
	unsigned int nr;		/* samples: 0, 1, 2 */
	uint64_t time[2];		/* nanoseconds, CLOCK_MONOTONIC */
	uint64_t done[2];
};

/**
 * rate_add() - add a sample
 * @rate: rate
 * @time: nanoseconds; a sample that is not later than the last one is ignored
 * @done: units that are done; fewer than before: something new has begun
 */
void rate_add(struct repl_rate *rate, uint64_t time, uint64_t done);

/**
 * rate_get() - units per second
 * @rate: rate, or NULL
 * @per_second: out, never negative
 *
 * Return: false while nobody knows.
 */
bool rate_get(const struct repl_rate *rate, double *per_second);

/**
 * rate_eta() - seconds until all is done
 * @rate: rate, or NULL
 * @total: units in all
 * @seconds: out, rounded up
 *
 * Return: false if nobody knows: fewer than two samples, or it does not move.
 */
bool rate_eta(const struct repl_rate *rate, uint64_t total, uint64_t *seconds);

/* A volume as this host knows it. */
struct repl_report {
	const char *resource;			/* for the commands in words */
	const char *volume;			/* "data-0" */
	uint64_t sectors;			/* its length, 0 if unknown */
	uint64_t region_size;			/* sectors; of a primary; 0 if unknown */
	const struct repl_status *status;	/* of secondary or primary */
	const struct repl_status *ingest;	/* or NULL */
	const struct repl_rate *rate;		/* of the job, in regions; or NULL */
};

/**
 * status_json() - a volume as a JSON object
 * @report: volume
 *
 * Keys are snake_case and always all present, sizes are bytes, and what is
 * unknown or not there is null.
 *
 * Return: an object that the caller puts, or NULL without memory.
 */
struct json_object *status_json(const struct repl_report *report);

/**
 * status_words() - a volume as lines of text
 * @report: volume
 * @width: columns of the terminal; 0: no progress bar
 * @to: stream to print to
 *
 * A first line with the volume's name, and indented ones with details; for each
 * latched class what it means and what to do.
 */
void status_words(const struct repl_report *report, unsigned int width, FILE *to);

/**
 * status_bar() - a progress bar
 * @text: out, for example "[=====>    ]  54.3 %"
 * @size: of @text, bytes
 * @width: columns for all of it; too few: the percentage only
 * @done: units
 * @total: units; 100 % only when all are done, never more
 */
void status_bar(char *text, size_t size, unsigned int width, uint64_t done,
		uint64_t total);

/**
 * status_what_to_do() - advice
 * @report: volume
 * @text: out, "" if there is nothing to do
 * @size: of @text, bytes
 *
 * Return: whether there is something to do.
 */
bool status_what_to_do(const struct repl_report *report, char *text, size_t size);

#endif
