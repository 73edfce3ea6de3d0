// SPDX-License-Identifier: GPL-2.0-only
/* Identity: see the table in identity.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "identity.h"

static const uint8_t no_lineage[LINEAGE_SIZE];

struct row {
	enum repl_decision decision;
	const char *why;
};

/* The table of identity.h. What is not there for a kinship is the same for all positions. */
static const struct row table[KIN_NR][POSITION_NR] = {
	[KIN_NONE] = {
		[POSITION_BEHIND] = { DECIDE_FULL, "the secondary's disk is new" },
		[POSITION_EQUAL] = { DECIDE_FULL, "the secondary's disk is new" },
		[POSITION_PENDING] = { DECIDE_FULL, "the secondary's disk is new" },
		[POSITION_AHEAD] = { DECIDE_FULL, "the secondary's disk is new" },
	},
	[KIN_SAME] = {
		[POSITION_BEHIND] = { DECIDE_FULL,
			"the secondary has lost a checkpoint that it had acknowledged: an older image" },
		[POSITION_EQUAL] = { DECIDE_IN_SYNC, "the same history" },
		[POSITION_PENDING] = { DECIDE_IN_SYNC,
			"the same history; its last acknowledgement was lost" },
		[POSITION_AHEAD] = { DECIDE_REFUSE,
			"the primary has an older image than the secondary" },
	},
	[KIN_PRIMARY_LEFT] = {
		[POSITION_BEHIND] = { DECIDE_FULL,
			"the old primary has an older image: nobody knows what has changed since" },
		[POSITION_EQUAL] = { DECIDE_INCREMENTAL, "the old primary returns" },
		[POSITION_PENDING] = { DECIDE_INCREMENTAL,
			"the old primary returns; its last acknowledgement was lost" },
		[POSITION_AHEAD] = { DECIDE_FULL,
			"the old primary has a checkpoint that was lost by the failover" },
	},
	[KIN_SECONDARY_LEFT] = {
		[POSITION_BEHIND] = { DECIDE_REFUSE, "the secondary has failed over" },
		[POSITION_EQUAL] = { DECIDE_REFUSE, "the secondary has failed over" },
		[POSITION_PENDING] = { DECIDE_REFUSE, "the secondary has failed over" },
		[POSITION_AHEAD] = { DECIDE_REFUSE, "the secondary has failed over" },
	},
	[KIN_BOTH_LEFT] = {
		[POSITION_BEHIND] = { DECIDE_REFUSE, "split brain: both sides have failed over" },
		[POSITION_EQUAL] = { DECIDE_REFUSE, "split brain: both sides have failed over" },
		[POSITION_PENDING] = { DECIDE_REFUSE, "split brain: both sides have failed over" },
		[POSITION_AHEAD] = { DECIDE_REFUSE, "split brain: both sides have failed over" },
	},
	[KIN_STRANGERS] = {
		[POSITION_BEHIND] = { DECIDE_REFUSE, "the disks have no history in common" },
		[POSITION_EQUAL] = { DECIDE_REFUSE, "the disks have no history in common" },
		[POSITION_PENDING] = { DECIDE_REFUSE, "the disks have no history in common" },
		[POSITION_AHEAD] = { DECIDE_REFUSE, "the disks have no history in common" },
	},
};

static bool same(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, no_lineage, LINEAGE_SIZE) && !memcmp(a, b, LINEAGE_SIZE);
}

static enum repl_kinship kinship(const struct repl_side *primary,
				 const struct repl_side *secondary)
{
	if (!memcmp(secondary->lineage, no_lineage, LINEAGE_SIZE))
		return KIN_NONE;
	if (same(primary->lineage, secondary->lineage))
		return KIN_SAME;
	if (same(primary->parent, secondary->lineage))
		return KIN_PRIMARY_LEFT;
	if (same(secondary->parent, primary->lineage))
		return KIN_SECONDARY_LEFT;
	if (same(primary->parent, secondary->parent))
		return KIN_BOTH_LEFT;
	return KIN_STRANGERS;
}

/* Where @has stands to @known; all up to @pending was asked for, too. */
static enum repl_position position(uint64_t has, uint64_t known, uint64_t pending)
{
	if (has == known)
		return POSITION_EQUAL;
	if (has < known)
		return POSITION_BEHIND;
	return has <= pending ? POSITION_PENDING : POSITION_AHEAD;
}

/*
 * Of one lineage: where is the secondary, seen from what it has acknowledged? With an
 * old primary that returns it is the other way round: the fork is the checkpoint that
 * was taken, seen from what the old primary knows of. And the changes since the fork are
 * all known only until the first checkpoint that somebody has acknowledged.
 */
static enum repl_position where(enum repl_kinship kin, const struct repl_side *primary,
				const struct repl_side *secondary)
{
	enum repl_position at;

	if (kin != KIN_PRIMARY_LEFT)
		return position(secondary->checkpoint, primary->checkpoint,
				primary->pending);
	if (primary->checkpoint > primary->fork)
		return POSITION_BEHIND;
	at = position(primary->fork, secondary->checkpoint, secondary->pending);
	return at == POSITION_BEHIND ? POSITION_AHEAD : at == POSITION_AHEAD ?
	       POSITION_BEHIND : at;
}

void identity_decide(const struct repl_side *primary,
		     const struct repl_side *secondary, struct repl_verdict *verdict)
{
	enum repl_kinship kin = kinship(primary, secondary);
	enum repl_position at = where(kin, primary, secondary);
	const struct row *row = &table[kin][at];

	verdict->kinship = kin;
	verdict->position = at;
	verdict->decision = row->decision;
	verdict->why = row->why;
	if (row->decision == DECIDE_IN_SYNC && (primary->dirty || secondary->dirty))
		verdict->decision = DECIDE_INCREMENTAL;
	/* What would be lost is the secondary's own. */
	verdict->needs_discard = !secondary->discard &&
		((verdict->decision == DECIDE_INCREMENTAL && secondary->dirty) ||
		 (verdict->decision == DECIDE_FULL && kin != KIN_NONE));
}

bool identity_restored(const struct repl_verdict *verdict)
{
	return (verdict->kinship == KIN_SAME || verdict->kinship == KIN_PRIMARY_LEFT) &&
	       verdict->position != POSITION_EQUAL && verdict->position != POSITION_PENDING;
}

bool identity_foreign(const struct repl_side *primary, const struct repl_verdict *verdict)
{
	return memcmp(primary->lineage, no_lineage, LINEAGE_SIZE) &&
	       (verdict->kinship == KIN_SECONDARY_LEFT || verdict->kinship == KIN_BOTH_LEFT ||
		verdict->kinship == KIN_STRANGERS);
}

bool identity_diverged(const struct repl_side *primary, const struct repl_side *secondary,
		       const struct repl_verdict *verdict)
{
	switch (verdict->kinship) {
	case KIN_SAME:
		return verdict->position == POSITION_AHEAD;
	case KIN_PRIMARY_LEFT:
		return secondary->checkpoint > primary->fork || secondary->dirty;
	default:
		return identity_foreign(primary, verdict);
	}
}

bool identity_may_full(const struct repl_side *primary, const struct repl_side *secondary,
		       const struct repl_verdict *verdict, bool running)
{
	return secondary->discard ||
	       (running ? !identity_diverged(primary, secondary, verdict) :
		identity_may(verdict, true, false) != DECIDE_REFUSE);
}

static const char * const decision_names[DECIDE_NR] = {
	[DECIDE_REFUSE]		= "refuse",
	[DECIDE_IN_SYNC]	= "in-sync",
	[DECIDE_INCREMENTAL]	= "incremental",
	[DECIDE_FULL]		= "full",
};

const char *identity_decision_name(enum repl_decision decision)
{
	return decision_names[decision];
}

static const char * const kinship_names[KIN_NR] = {
	[KIN_NONE]		= "none",
	[KIN_SAME]		= "same",
	[KIN_PRIMARY_LEFT]	= "primary-left",
	[KIN_SECONDARY_LEFT]	= "secondary-left",
	[KIN_BOTH_LEFT]		= "both-left",
	[KIN_STRANGERS]		= "strangers",
};

const char *identity_kinship_name(enum repl_kinship kin)
{
	return kinship_names[kin];
}

enum repl_decision identity_may(const struct repl_verdict *verdict, bool full, bool discard)
{
	bool blank = verdict->kinship == KIN_NONE;

	switch (verdict->decision) {
	case DECIDE_IN_SYNC:
	case DECIDE_INCREMENTAL:
		return verdict->needs_discard && !discard ? DECIDE_REFUSE :
		       full ? DECIDE_FULL : verdict->decision;
	default:
		return full && (blank || discard) ? DECIDE_FULL : DECIDE_REFUSE;
	}
}

/* What a person is told: appended to @text, cut at its end. */
static void add(char *text, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void add(char *text, size_t size, const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;

	va_start(args, format);
	if (used < size)
		vsnprintf(text + used, size - used, format, args);
	va_end(args);
}

/* @changed: bytes */
static void add_lineage(char *text, size_t size, const char *host,
			const struct repl_side *side, uint64_t changed)
{
	add(text, size, "\n%s: ", host);
	if (!memcmp(side->lineage, no_lineage, LINEAGE_SIZE)) {
		add(text, size, "no history");
		return;
	}
	add(text, size, "history %02x%02x%02x%02x, checkpoint %" PRIu64, side->lineage[0],
	    side->lineage[1], side->lineage[2], side->lineage[3], side->checkpoint);
	if (memcmp(side->parent, no_lineage, LINEAGE_SIZE))
		add(text, size, ", which left %02x%02x%02x%02x at checkpoint %" PRIu64,
		    side->parent[0], side->parent[1], side->parent[2], side->parent[3],
		    side->fork);
	add(text, size, ", %" PRIu64 " bytes changed since", changed);
}

/* What it takes to go on with what the primary has. */
static void add_keep_primary(char *text, size_t size, const struct repl_meeting *meeting,
			     const struct repl_side *primary, const struct repl_side *secondary,
			     const struct repl_verdict *verdict)
{
	const char *loser = meeting->secondary_host, *resource = meeting->resource;
	const char *then = "";

	add(text, size, "\nto keep what %s has: ", meeting->primary_host);
	if (meeting->over) {
		/* No demotion in the middle of a merge. */
		add(text, size, "on %s 'replctl wait %s merged' and 'replctl demote --discard-local %s'",
		    loser, resource, resource);
		then = ", then ";
	} else if (meeting->must_agree ||
		   !identity_may_full(primary, secondary, verdict, meeting->running)) {
		add(text, size, "on %s 'replctl demote --discard-local %s'", loser, resource);
		then = ", then ";
	}
	if (meeting->over || identity_may(verdict, false, true) == DECIDE_REFUSE)
		add(text, size, "%son %s 'replctl sync --full %s'", then,
		    meeting->primary_host, resource);
}

/* What it takes to go on with what the secondary has. */
static void add_keep_secondary(char *text, size_t size, const struct repl_meeting *meeting,
			       const struct repl_side *primary,
			       const struct repl_side *secondary)
{
	const char *keeper = meeting->secondary_host, *resource = meeting->resource;
	struct repl_verdict verdict;

	add(text, size, "\nto keep what %s has: on %s 'replctl demote --discard-local %s', then on %s 'replctl failover %s', 'replctl wait %s merged' and 'replctl promote %s'",
	    keeper, meeting->primary_host, resource, keeper, resource, resource, resource);
	identity_decide(secondary, primary, &verdict);
	if (identity_may(&verdict, false, true) == DECIDE_REFUSE)
		add(text, size, ", then on %s 'replctl sync --full %s'", keeper, resource);
}

void identity_explain(const struct repl_meeting *meeting, const struct repl_side *primary,
		      const struct repl_side *secondary,
		      const struct repl_verdict *verdict, char *text, size_t size)
{
	if (!size)
		return;
	text[0] = 0;
	add(text, size, "%s", meeting->over ? "the secondary has failed over" : verdict->why);
	add_lineage(text, size, meeting->primary_host, primary, meeting->primary_changed);
	add_lineage(text, size, meeting->secondary_host, secondary, meeting->secondary_changed);
	if (!meeting->over && identity_may(verdict, false, false) != DECIDE_REFUSE)
		return;
	add_keep_primary(text, size, meeting, primary, secondary, verdict);
	if (meeting->over || verdict->kinship != KIN_NONE)
		add_keep_secondary(text, size, meeting, primary, secondary);
}

static void add_demote(char *text, size_t size, const struct repl_meeting *meeting,
		       const char *keeper, const char *loser, const struct repl_side *kept,
		       const struct repl_side *lost)
{
	struct repl_verdict verdict;

	identity_decide(kept, lost, &verdict);
	add(text, size, "\nto keep what %s has: on %s 'replctl demote --discard-local %s'", keeper,
	    loser, meeting->resource);
	if (identity_may(&verdict, false, true) == DECIDE_REFUSE)
		add(text, size, ", then on %s 'replctl sync --full %s'", keeper,
		    meeting->resource);
}

void identity_explain_two(const struct repl_meeting *meeting, const struct repl_side *one,
			  const struct repl_side *other, char *text, size_t size)
{
	const char *a = meeting->primary_host, *b = meeting->secondary_host;
	enum repl_kinship kin = kinship(one, other);

	if (!size)
		return;
	text[0] = 0;
	add(text, size, "both hosts are primary: ");
	if (kin == KIN_PRIMARY_LEFT)
		add(text, size, "%s has taken over at checkpoint %" PRIu64, a, one->fork);
	else if (kin == KIN_SECONDARY_LEFT)
		add(text, size, "%s has taken over at checkpoint %" PRIu64, b, other->fork);
	else
		add(text, size, "neither has taken over from the other");
	add_lineage(text, size, a, one, meeting->primary_changed);
	add_lineage(text, size, b, other, meeting->secondary_changed);
	add_demote(text, size, meeting, a, b, one, other);
	add_demote(text, size, meeting, b, a, other, one);
}
