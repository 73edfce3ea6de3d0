/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pair: the checkpoint protocol of one resource, as seen from one host.
 *
 * A pure state machine: events go in, actions come out, and nothing else happens.
 * It does no I/O, reads no clock, allocates nothing, and holds no pointer, so that
 * the daemon runs it and the explorer (tests/unit/tools/explore.c) runs through all
 * that two of them can do, from the same source.
 *
 * An action that takes time ("async" below) is answered by the event PAIR_DONE with
 * its kind and how it ended. At most one of each kind is under way. The end of the
 * save hook and STATE_END on its way to the peer are one step.
 *
 *	primary				secondary
 *	-------				---------
 *	            <- READY		idle
 *	REQUEST id  ->			takes it, or says no (FAILED)
 *	hold the workload
 *	flush the data leg
 *	STATE_SEND id ->		prepare all volumes (the cut)
 *	save hook: STATE_DATA... ->	collected, bounded
 *	STATE_END (size, crc) ->	compared
 *	            <- STATE_RECEIVED	prepared, and all of the state is here
 *					load hook, commit all volumes
 *	            <- STATE_LOADED id	committed: the acknowledgement
 *	release the workload
 *
 * The primary does not wait for a yes to REQUEST: a secondary that was READY has no reason
 * to say no, and if it does, it ignores what follows.
 *
 * The secondary can ask for one (WANT): the primary takes it for a trigger of its own,
 * or says no (FAILED, with no id). The workload is held as soon as REQUEST is out, so
 * one that crosses WANT may be of before the wish. Each wish has a number, therefore,
 * and REQUEST has the newest that the primary had heard.
 *
 * Between STATE_END and STATE_RECEIVED the secondary may or may not have made the cut.
 * If the peer is lost then, what the workload writes once it is released must not
 * reach it: the primary detaches the data leg first. At any other time it goes on as
 * it is: before STATE_END the secondary cannot commit.
 *
 * What the peer has acknowledged since the last checkpoint may be in the cache of its
 * host only, and a host that was rebooted has lost that. The kernel does not see it if
 * nothing was on its way, or if the data leg connects anew by itself. So HELLO says
 * which boot it is, and after another one than before all that was written since the
 * last checkpoint is sent again.
 *
 * Each daemon keeps one number where a killed one leaves it to the next (the journal):
 * the primary the id whose STATE_END is on its way, from before it is sent until the
 * workload has been released; the secondary the id whose load hook has succeeded,
 * from before PAIR_DONE.
 *
 * From STATE_RECEIVED on the checkpoint is complete on the secondary, and it commits
 * whatever happens to the connection. Whether it did is settled by the id in HELLO.
 */
#ifndef REPLCTL_PAIR_H
#define REPLCTL_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

enum pair_role { PAIR_NO_ROLE, PAIR_PRIMARY, PAIR_SECONDARY };

/* Where a checkpoint is. The first group is the primary's. */
enum pair_phase {
	PAIR_IDLE,
	PAIR_HOLDING,		/* REQUEST is out, and the workload is being held */
	PAIR_FLUSHING,		/* its writes go to the peer's disk */
	PAIR_SAVING,		/* STATE_SEND is out, the state follows */
	PAIR_SENT,		/* all of it is out */
	PAIR_RECEIVED,		/* the peer has the cut and the state */
	PAIR_DETACHING,		/* the peer was lost at the wrong moment */
	PAIR_RELEASING,
	PAIR_REQUESTED,		/* secondary: REQUEST has come */
	PAIR_COLLECTING,	/* prepares, and collects the state */
	PAIR_LOADING,
	PAIR_COMMITTING,
	PAIR_ABORTING,
	PAIR_NR_PHASES,
};

/* What a volume's kernel target says, summed over all volumes. */
struct pair_kernel {
	uint64_t checkpoint;	/* the newest that any volume has committed */
	uint64_t oldest;	/* the oldest that any volume has */
	uint64_t prepared;	/* that any volume has prepared; 0: none */
	bool running;		/* secondary: stage running */
	bool blank;		/* secondary: not, but a prepare can make it so: stage none */
	bool over;		/* secondary: all volumes have failed over */
	bool partly_over;	/* secondary: some have */
	bool attached;		/* primary: all data legs work, and miss nothing */
	bool never;		/* primary: none has ever been attached */
	bool lost;		/* primary: one was lost, or waits for its resync */
	bool coming;		/* primary: what the peer misses, if anything, is on its way */
	bool held;		/* primary: a device is suspended, or has a cut */
};

enum pair_event_type {
	PAIR_START,		/* the daemon is up: kernel, journal */
	PAIR_OPENED,		/* connected, handshake done */
	PAIR_CLOSED,		/* connection lost, or silent for too long */
	PAIR_FRAME,		/* frame, id, ...; the daemon has checked its form */
	PAIR_DONE,		/* an async action has ended: done, good */
	PAIR_TRIGGER,		/* a checkpoint is wanted */
	PAIR_ASK_FAILOVER,	/* the operator, or the policy after fencing */
	PAIR_TIMEOUT,		/* the checkpoint has taken too long */
	PAIR_KERNEL,		/* the targets' state has changed: kernel */
	PAIR_RESYNCED,		/* the kernel has been told all that a reboot may have cost */
};

enum pair_action_type {
	PAIR_SEND,		/* frame, id; REQUEST: pair.told; HELLO: what the kernel says now */
	PAIR_HOLD,		/* async: stop the workload */
	PAIR_FLUSH,		/* async: forwarded writes to the peer's disk */
	PAIR_SAVE,		/* async: save hook; its output as STATE_DATA; then STATE_END */
	PAIR_DETACH,		/* async: no more writes to the peer */
	PAIR_RELEASE,		/* async: let the workload go on */
	PAIR_PREPARE,		/* async: id, on all volumes; badly: on some, perhaps */
	PAIR_LOAD,		/* async: load hook with the state */
	PAIR_COMMIT,		/* async: id, on all volumes that have prepared it */
	PAIR_ABORT,		/* async: on all volumes that have prepared */
	PAIR_FAILOVER,		/* async: on all volumes, fence first */
	PAIR_DROP_STATE,	/* forget what was collected */
	PAIR_CANCEL,		/* end the hook that runs (save or load) */
	PAIR_CLOSE,		/* the connection; PAIR_CLOSED follows in any case */
	PAIR_RESULT,		/* tell who asked: checkpoint id, good, why */
	PAIR_NR_ACTIONS,
};

/* What a frame of the peer says that the machine has to know. */
struct pair_hello {
	enum pair_role role;
	bool running;
	bool over;		/* it has failed over */
	bool blank;		/* no checkpoint of this life, and may have one: its first */
	bool rebooted;		/* its host has been, since it last had all of our writes */
	bool restored;		/* its image, or ours, is an older one than the other knows */
	bool foreign;		/* it goes on with somebody else's history */
	uint64_t checkpoint;	/* blank: the newest that either side knows */
	uint64_t floor;		/* primary: the newest that our disks know of: no id up to it */
};

struct pair_event {
	enum pair_event_type type;
	enum pair_action_type done;
	bool good;
	enum repl_frame_type frame;
	uint64_t id;		/* WANT: of the wish */
	uint64_t wish;		/* REQUEST: the newest that it answers */
	struct pair_hello hello;
	struct pair_kernel kernel;
	uint64_t journal;	/* PAIR_START: see below; 0: none */
};

struct pair_action {
	enum pair_action_type type;
	enum repl_frame_type frame;
	uint64_t id;
	bool good;
	const char *why;	/* fixed text, or NULL */
};

#define PAIR_MAX_ACTIONS 8

struct pair_actions {
	unsigned int nr;
	struct pair_action action[PAIR_MAX_ACTIONS];
};

struct pair {
	enum pair_role role;
	enum pair_phase phase;
	bool connected;		/* HELLO has come, and the two fit */
	bool opened;		/* a connection is there */
	bool greeted;		/* our HELLO is out on it */
	bool running;		/* all volumes of the secondary can take a checkpoint */
	bool blank;		/* ... the first of this life */
	bool stale;		/* primary: the peer has lost what it had acknowledged */
	bool foreign;		/* primary: the peer of this connection has another history */
	bool peer_ready;	/* primary: READY has come; secondary: is out */
	bool peer_wants;	/* primary: WANT has come, and waits for its turn */
	bool wanted;		/* primary: a trigger waits for its turn */
	bool fail_over;		/* asked for, when the load has ended */
	bool over;		/* this side has failed over */
	bool diverged;		/* the peer has, as it said last: nothing is sent to it */
	bool degraded;		/* primary: the peer has not got all writes: resync */
	bool coming;		/* primary: and gets them, by itself: a trigger waits for that */
	bool rebooted;		/* primary: for more than the kernel knows of */
	bool ambiguous;		/* primary: may have been committed: HELLO tells */
	bool prepared;		/* secondary */
	bool collected;		/* secondary: all of the state is here */
	bool failed;		/* this checkpoint has failed; on its way out */
	uint64_t id;		/* of the checkpoint under way */
	uint64_t last;		/* primary: last one acknowledged; secondary: committed */
	uint64_t floor;		/* primary: the next id is above this, too */
	uint64_t wish;		/* secondary: the newest one */
	uint64_t told;		/* the newest of which WANT has gone over this connection */
	uint64_t answered;	/* secondary: the newest that a REQUEST or a no has answered */
	uint32_t busy;		/* async actions under way, bits of action_type */
};

void pair_init(struct pair *pair, enum pair_role role);
void pair_event(struct pair *pair, const struct pair_event *event,
		struct pair_actions *actions);
const char *pair_phase_name(enum pair_phase phase);

/**
 * pair_apart() - is what the two differ by in nobody's map?
 * @pair: of a primary
 *
 * Then there is no checkpoint before somebody has had all of the disks sent over.
 */
static inline bool pair_apart(const struct pair *pair)
{
	return pair->stale || pair->foreign;
}

#endif
