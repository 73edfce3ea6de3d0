/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Job: a throttled background walk over a map.
 *
 * A job knows its pace and its state, not what it moves: the type's ->step
 * starts one piece and says how large it is; repl_job_done() tells when a
 * piece has ended. The pace is a token bucket, refilled by the clock, that
 * may go into debt by one piece; a new speed takes effect at once.
 *
 *	state		pause	resume	cancel		last piece	error
 *	running		paused	-	cancelled	done		failed
 *	paused		-	running	cancelled
 *	done, failed, cancelled: over; all refused
 */
#ifndef DM_REPL_JOB_H
#define DM_REPL_JOB_H

#include <linux/atomic.h>
#include <linux/blk_types.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

struct repl_job;

enum repl_job_state {
	REPL_JOB_NONE,
	REPL_JOB_RUNNING,
	REPL_JOB_PAUSED,
	REPL_JOB_DONE,
	REPL_JOB_FAILED,
	REPL_JOB_CANCELLED,
};

/**
 * struct repl_job_type - what a job does
 * @name: word for the status line
 * @may_cancel: whether ``job cancel`` is allowed
 * @step: start one piece; return its size in sectors, 0 if there is nothing
 *	to start now. Process context.
 * @finish: called when ->step had nothing and no piece is in flight; return
 *	0 if the job is done, -EAGAIN if it waits for what others are doing
 *	and goes on at the next repl_job_poke(), else it has failed. Process
 *	context.
 * @ended: called once when the job is done or failed and its state says so,
 *	with no piece in flight and no lock held. Process context.
 */
struct repl_job_type {
	const char *name;
	bool may_cancel;
	sector_t (*step)(struct repl_job *job);
	int (*finish)(struct repl_job *job);
	void (*ended)(struct repl_job *job, bool done);
};

struct repl_job {
	const struct repl_job_type *type;
	void *context;
	struct workqueue_struct *wq;
	struct delayed_work work;
	struct mutex lock;		/* state, held, cursor */
	enum repl_job_state state;
	unsigned int held;		/* > 0: like paused */
	unsigned int run;		/* which job this is */
	bool waiting;			/* for somebody else's piece: poke */
	bool error;			/* a piece failed */
	atomic_t in_flight;
	wait_queue_head_t idle;
	u64 cursor;			/* the type's */
	u64 speed;			/* bytes per second, 0: unlimited */
	s64 tokens;			/* bytes */
	ktime_t refilled;
	unsigned long not_before;	/* jiffies */
};

void repl_job_init(struct repl_job *job, struct workqueue_struct *wq,
		   void *context);
void repl_job_exit(struct repl_job *job);
void repl_job_settle(struct repl_job *job);
void repl_job_start(struct repl_job *job, const struct repl_job_type *type);
int repl_job_pause(struct repl_job *job);
int repl_job_resume(struct repl_job *job);
int repl_job_cancel(struct repl_job *job);
void repl_job_set_speed(struct repl_job *job, u64 speed);
void repl_job_hold(struct repl_job *job, bool hold);
void repl_job_kick(struct repl_job *job);
void repl_job_poke(struct repl_job *job);
void repl_job_done(struct repl_job *job, bool error);
void repl_job_fail(struct repl_job *job);
bool repl_job_is_active(struct repl_job *job);
const char *repl_job_state_name(const struct repl_job *job);

#endif
