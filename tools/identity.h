/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Identity: whose history a disk holds, and what may be done with two of them.
 *
 * A lineage is the name of a history. It begins with a primary, goes with its
 * checkpoints to the secondary, and ends when a secondary fails over: that one begins
 * a lineage of its own and remembers its parent, and at which checkpoint it left it.
 * Within a lineage checkpoint ids only grow. Each side keeps, beside that, which
 * regions the other may not have. So when two meet again:
 *
 *	lineages		checkpoints			then
 *	--------		-----------			----
 *	the same		secondary has the primary's last	in sync, or incremental
 *				... or one it has no answer to yet	the same
 *				... an older one			full: a restored image
 *				... a newer one				refuse: the primary's is
 *	primary left the	old primary's last is where it left	incremental, both maps
 *	secondary's		... or it has no answer to that one	the same
 *				... anything else			full: a restored image
 *				primary has had a checkpoint since	full: the same
 *	secondary left the	any				refuse: it has failed over
 *	primary's
 *	both left the same	any				refuse: split brain
 *	secondary has none	none				full: a new disk
 *	strangers		any				refuse: full, if told so
 *
 * Incremental where the secondary has regions of its own that nobody else has, and full
 * over a disk that has a lineage, destroy data: only with --discard-local, given on the
 * side whose data it is. Full is never done but when it was asked for.
 *
 * A secondary in stage running or behind it (failed over, stopped) takes no part in that
 * by itself. Full over it needs the same word if it has anything that the primary has not
 * had: identity_diverged().
 *
 * Pure: no I/O, no clock, no allocation.
 */
#ifndef REPLCTL_IDENTITY_H
#define REPLCTL_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINEAGE_SIZE	16

/* What a side says of itself, of one volume. */
struct repl_side {
	uint8_t lineage[LINEAGE_SIZE];	/* all 0: none, or nobody knows */
	uint8_t parent[LINEAGE_SIZE];	/* all 0: none */
	uint64_t fork;			/* checkpoint at which it left its parent */
	uint64_t checkpoint;		/* primary: the last one acknowledged; secondary: committed */
	uint64_t pending;		/* asked for as primary, without an answer; 0: none */
	uint64_t dirty;			/* regions that the other may not have */
	bool discard;			/* secondary: what only it has may go */
};

enum repl_kinship {
	KIN_NONE,		/* the secondary has no lineage */
	KIN_SAME,
	KIN_PRIMARY_LEFT,	/* the primary was promoted from the secondary's lineage */
	KIN_SECONDARY_LEFT,	/* the secondary has failed over from the primary's */
	KIN_BOTH_LEFT,		/* two promotions */
	KIN_STRANGERS,
	KIN_NR,
};

enum repl_position {
	POSITION_BEHIND,
	POSITION_EQUAL,
	POSITION_PENDING,	/* one more than is known to be, and that was asked for */
	POSITION_AHEAD,
	POSITION_NR,
};

enum repl_decision {
	DECIDE_REFUSE,
	DECIDE_IN_SYNC,
	DECIDE_INCREMENTAL,
	DECIDE_FULL,		/* if it was asked for */
	DECIDE_NR,
};

struct repl_verdict {
	enum repl_kinship kinship;
	enum repl_position position;
	enum repl_decision decision;
	bool needs_discard;	/* and that was not given: it is refused for now */
	const char *why;	/* fixed words */
};

/**
 * identity_decide() - what may be done with the two
 * @primary: the side that is to be primary
 * @secondary: the other
 * @verdict: out
 *
 * Both sides come to the same verdict from the same two.
 */
void identity_decide(const struct repl_side *primary,
		     const struct repl_side *secondary, struct repl_verdict *verdict);

/**
 * identity_restored() - is one of the two an older image than the other knows it to be?
 * @verdict: of identity_decide(), with a secondary in stage running
 *
 * Such a secondary is not asked for checkpoints: what has changed between is in nobody's
 * map.
 */
bool identity_restored(const struct repl_verdict *verdict);

/**
 * identity_foreign() - does it go on with somebody else's history?
 * @primary: side
 * @verdict: of identity_decide(), with a secondary in stage running
 *
 * A secondary with which somebody has begun by hand has no lineage, and a primary without
 * metadata has none. Who says that both disks are the same has the data leg attached: such
 * a primary believes it.
 */
bool identity_foreign(const struct repl_side *primary, const struct repl_verdict *verdict);

/**
 * identity_diverged() - has the secondary anything that the primary has not had?
 * @primary: side
 * @secondary: side
 * @verdict: of the two
 *
 * An older image of the primary's own history is none, and nobody knows it of a side that
 * has no history (a new disk, or no metadata).
 *
 * Return: true if so: it is lost when all of the primary's disk is sent over.
 */
bool identity_diverged(const struct repl_side *primary, const struct repl_side *secondary,
		       const struct repl_verdict *verdict);

/**
 * identity_may_full() - may all of the primary's disk be sent over, if that is asked for?
 * @primary: side
 * @secondary: side
 * @verdict: of the two
 * @running: the secondary has a checkpoint, which it keeps until the next one
 *
 * Return: false: not before 'replctl demote --discard-local' on the secondary's host.
 */
bool identity_may_full(const struct repl_side *primary, const struct repl_side *secondary,
		       const struct repl_verdict *verdict, bool running);

/* For identity_explain(): what it is about. */
struct repl_meeting {
	const char *resource;
	const char *primary_host, *secondary_host;
	uint64_t primary_changed;	/* bytes, of all volumes */
	uint64_t secondary_changed;
	bool running;			/* the secondary keeps its checkpoint until the next one */
	bool over;			/* it has failed over, some volume at least */
	bool must_agree;		/* some volume of it: identity_may_full() is false */
};

/**
 * identity_may() - may replication begin?
 * @verdict: of identity_decide()
 * @full: a full copy was asked for
 * @discard: the secondary's own changes may go
 *
 * What is refused can be had by a full copy, if both words were given.
 *
 * Return: DECIDE_REFUSE, or what is to be done.
 */
enum repl_decision identity_may(const struct repl_verdict *verdict, bool full, bool discard);

/**
 * identity_explain() - a verdict for a person: what diverged, how much, what to type
 * @meeting: names
 * @primary: as above
 * @secondary: as above
 * @verdict: of the two
 * @text: out, one line for each thing to know
 * @size: of @text; what does not fit is cut
 */
void identity_explain(const struct repl_meeting *meeting, const struct repl_side *primary,
		      const struct repl_side *secondary,
		      const struct repl_verdict *verdict, char *text, size_t size);

/**
 * identity_explain_two() - two primaries, for a person
 * @meeting: names; one is called primary there, the other secondary
 * @one: what the first says
 * @other: what the second says
 * @text: out, as by identity_explain()
 * @size: of @text
 */
void identity_explain_two(const struct repl_meeting *meeting, const struct repl_side *one,
			  const struct repl_side *other, char *text, size_t size);

const char *identity_decision_name(enum repl_decision decision);
const char *identity_kinship_name(enum repl_kinship kinship);

#endif
