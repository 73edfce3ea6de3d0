// SPDX-License-Identifier: GPL-2.0-only
/* Job: see the essay in job.h. */

#include <linux/errno.h>
#include <linux/math64.h>

#include "job.h"

/* Pieces in flight at a time. */
#define REPL_JOB_DEPTH 32
/* A bucket that was idle holds this much time's worth, in ns. */
#define REPL_JOB_BURST_NS (100 * NSEC_PER_MSEC)

static const char * const job_states[] = {
	[REPL_JOB_NONE]		= "-",
	[REPL_JOB_RUNNING]	= "running",
	[REPL_JOB_PAUSED]	= "paused",
	[REPL_JOB_DONE]		= "done",
	[REPL_JOB_FAILED]	= "failed",
	[REPL_JOB_CANCELLED]	= "cancelled",
};

/* Fill the bucket for the time that has passed. */
static void job_refill(struct repl_job *job)
{
	ktime_t now = ktime_get();
	u64 ns = min_t(u64, ktime_to_ns(ktime_sub(now, job->refilled)),
		       NSEC_PER_SEC);
	u64 add = mul_u64_u64_div_u64(job->speed, ns, NSEC_PER_SEC);
	s64 most = mul_u64_u64_div_u64(job->speed, REPL_JOB_BURST_NS,
				       NSEC_PER_SEC);

	/* Less than a byte: let the time add up. */
	if (!add)
		return;
	job->refilled = now;
	job->tokens = min_t(s64, job->tokens + add, most);
}

/* Jiffies until a piece may start: the bucket is out of debt. 0: now. */
static unsigned long job_delay(struct repl_job *job)
{
	u64 ns;

	if (time_before(jiffies, job->not_before))
		return job->not_before - jiffies;
	if (!job->speed)
		return 0;
	job_refill(job);
	if (job->tokens >= 0)
		return 0;
	ns = mul_u64_u64_div_u64(-job->tokens, NSEC_PER_SEC, job->speed);
	return clamp_t(u64, nsecs_to_jiffies(ns), 1, HZ);
}

/* Start pieces until there is a reason to stop. True: nothing left to start. */
static bool job_run(struct repl_job *job)
{
	while (atomic_read(&job->in_flight) < REPL_JOB_DEPTH) {
		unsigned long delay = job_delay(job);
		sector_t sectors;

		if (delay) {
			mod_delayed_work(job->wq, &job->work, delay);
			return false;
		}

		/* Counted before it can end. */
		atomic_inc(&job->in_flight);
		sectors = job->type->step(job);
		if (!sectors) {
			if (atomic_dec_and_test(&job->in_flight))
				wake_up_all(&job->idle);
			return true;
		}
		if (job->speed)
			job->tokens -= (u64)sectors << SECTOR_SHIFT;
	}
	return false;
}

static bool job_active(struct repl_job *job)
{
	return job->state == REPL_JOB_RUNNING || job->state == REPL_JOB_PAUSED;
}

/*
 * Nothing is in flight and there is nothing left to start, or it failed. Job
 * @run may be over meanwhile, and another one on its way: that is not ours.
 */
static void job_end(struct repl_job *job, const struct repl_job_type *type,
		    unsigned int run, bool error)
{
	bool ended = false;
	int r = -EIO;

	if (!error) {
		WRITE_ONCE(job->waiting, true);
		smp_mb();	/* pairs with the one in repl_job_poke() */
		r = type->finish(job);
		if (r == -EAGAIN)
			return;
		WRITE_ONCE(job->waiting, false);
	}

	mutex_lock(&job->lock);
	/* One that was paused meanwhile is done when it is resumed. */
	if (job->run == run && job_active(job) &&
	    (r || job->state == REPL_JOB_RUNNING)) {
		job->state = r ? REPL_JOB_FAILED : REPL_JOB_DONE;
		ended = true;
	}
	mutex_unlock(&job->lock);
	if (ended)
		type->ended(job, !r);
}

static void job_work(struct work_struct *work)
{
	struct repl_job *job = container_of(to_delayed_work(work),
					    struct repl_job, work);
	const struct repl_job_type *type;
	unsigned int run;
	bool over = false;
	bool error;

	mutex_lock(&job->lock);
	type = job->type;
	run = job->run;
	error = READ_ONCE(job->error);
	if (job_active(job)) {
		over = error;
		if (!over && !job->held && job->state == REPL_JOB_RUNNING)
			over = job_run(job);
		/* The last piece to end calls again. */
		if (atomic_read(&job->in_flight))
			over = false;
	}
	mutex_unlock(&job->lock);

	if (over)
		job_end(job, type, run, error);
}

/**
 * repl_job_init() - no job
 * @job: job
 * @wq: queue its work runs on
 * @context: the type's
 */
void repl_job_init(struct repl_job *job, struct workqueue_struct *wq,
		   void *context)
{
	job->wq = wq;
	job->context = context;
	job->state = REPL_JOB_NONE;
	atomic_set(&job->in_flight, 0);
	init_waitqueue_head(&job->idle);
	mutex_init(&job->lock);
	INIT_DELAYED_WORK(&job->work, job_work);
}

/**
 * repl_job_exit() - stop for good and wait for what is in flight
 * @job: job
 *
 * Context: process.
 */
void repl_job_exit(struct repl_job *job)
{
	repl_job_hold(job, true);
	cancel_delayed_work_sync(&job->work);
}

/**
 * repl_job_settle() - wait until the job's work stands still
 * @job: job, held
 *
 * An end that was being dealt with has been dealt with.
 *
 * Context: process; none of the locks that the type's functions take.
 */
void repl_job_settle(struct repl_job *job)
{
	flush_delayed_work(&job->work);
}

/**
 * repl_job_start() - begin a job
 * @job: job, none or over
 * @type: what it does
 *
 * Context: process.
 */
void repl_job_start(struct repl_job *job, const struct repl_job_type *type)
{
	mutex_lock(&job->lock);
	job->type = type;
	job->run++;
	job->state = REPL_JOB_RUNNING;
	job->error = false;
	job->cursor = 0;
	job->tokens = 0;
	job->refilled = ktime_get();
	/* Whoever started it gets his answer first. */
	job->not_before = jiffies + 1;
	mutex_unlock(&job->lock);
	repl_job_kick(job);
}

static int job_switch(struct repl_job *job, enum repl_job_state from,
		      enum repl_job_state to)
{
	int r = -EBUSY;

	mutex_lock(&job->lock);
	if (job->state == from) {
		job->state = to;
		r = 0;
	}
	mutex_unlock(&job->lock);
	return r;
}

/**
 * repl_job_pause() - start no more pieces for now
 * @job: job
 *
 * Return: 0, or -EBUSY unless it is running. Context: process.
 */
int repl_job_pause(struct repl_job *job)
{
	return job_switch(job, REPL_JOB_RUNNING, REPL_JOB_PAUSED);
}

/**
 * repl_job_resume() - go on after a pause
 * @job: job
 *
 * Return: 0, or -EBUSY unless it is paused. Context: process.
 */
int repl_job_resume(struct repl_job *job)
{
	int r = job_switch(job, REPL_JOB_PAUSED, REPL_JOB_RUNNING);

	if (!r)
		repl_job_kick(job);
	return r;
}

/**
 * repl_job_cancel() - end a job before it is done
 * @job: job
 *
 * Waits for the pieces in flight.
 *
 * Return: 0, -EBUSY if there is none, -EOPNOTSUPP if this one must run to its
 * end, -ERESTARTSYS if the caller was killed while it waited. Context: process.
 */
int repl_job_cancel(struct repl_job *job)
{
	int r = 0;

	mutex_lock(&job->lock);
	if (!job_active(job))
		r = -EBUSY;
	else if (!job->type->may_cancel)
		r = -EOPNOTSUPP;
	else
		job->state = REPL_JOB_CANCELLED;
	mutex_unlock(&job->lock);

	if (!r)
		r = wait_event_killable(job->idle,
					!atomic_read(&job->in_flight));
	return r;
}

/**
 * repl_job_set_speed() - limit the pace of this job and later ones
 * @job: job
 * @speed: bytes per second, 0 for no limit
 *
 * Context: process.
 */
void repl_job_set_speed(struct repl_job *job, u64 speed)
{
	mutex_lock(&job->lock);
	job->speed = speed;
	job->tokens = 0;
	job->refilled = ktime_get();
	mutex_unlock(&job->lock);
	/* Do not sleep out the delay that the old speed asked for. */
	repl_job_kick(job);
}

/**
 * repl_job_hold() - stand still, or go on, whatever the user says
 * @job: job
 * @hold: true: start no more pieces and wait until none is in flight; holds
 *	add up
 *
 * Context: process.
 */
void repl_job_hold(struct repl_job *job, bool hold)
{
	mutex_lock(&job->lock);
	job->held += hold ? 1 : -1;
	mutex_unlock(&job->lock);
	if (hold)
		wait_event(job->idle, !atomic_read(&job->in_flight));
	else
		repl_job_kick(job);
}

/**
 * repl_job_kick() - there may be something to do
 * @job: job
 *
 * Context: any.
 */
void repl_job_kick(struct repl_job *job)
{
	mod_delayed_work(job->wq, &job->work, 0);
}

/**
 * repl_job_poke() - something has ended that the job may be waiting for
 * @job: job
 *
 * Context: any; cheap when it is not waiting.
 */
void repl_job_poke(struct repl_job *job)
{
	smp_mb();	/* what has ended, before waiting; see job_end() */
	if (likely(!READ_ONCE(job->waiting)))
		return;
	WRITE_ONCE(job->waiting, false);
	repl_job_kick(job);
}

/**
 * repl_job_done() - a piece that ->step started has ended
 * @job: job
 * @error: it failed
 *
 * Context: any; the caller keeps the job from being freed meanwhile.
 */
void repl_job_done(struct repl_job *job, bool error)
{
	int left;

	if (error)
		WRITE_ONCE(job->error, true);
	left = atomic_dec_return(&job->in_flight);
	if (!left)
		wake_up_all(&job->idle);
	/* Start the next in batches: a switch of context costs more than a piece. */
	if (left <= REPL_JOB_DEPTH / 2 || error)
		repl_job_kick(job);
}

/**
 * repl_job_fail() - end the job as failed, for a reason outside its pieces
 * @job: job
 *
 * Context: any.
 */
void repl_job_fail(struct repl_job *job)
{
	WRITE_ONCE(job->error, true);
	repl_job_kick(job);
}

/**
 * repl_job_is_active() - is there a job that is not over?
 * @job: job
 *
 * Context: process.
 */
bool repl_job_is_active(struct repl_job *job)
{
	bool active;

	mutex_lock(&job->lock);
	active = job_active(job);
	mutex_unlock(&job->lock);
	return active;
}

/**
 * repl_job_state_name() - word for the status line
 * @job: job
 */
const char *repl_job_state_name(const struct repl_job *job)
{
	return job_states[READ_ONCE(job->state)];
}
