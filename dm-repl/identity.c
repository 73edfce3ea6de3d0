// SPDX-License-Identifier: GPL-2.0-only
/* Identity: see identity.h. */

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/uuid.h>

#include "identity.h"

static const char * const role_names[REPL_NR_ROLES] = {
	[REPL_ROLE_NONE]	= "none",
	[REPL_ROLE_SECONDARY]	= "secondary",
	[REPL_ROLE_PRIMARY]	= "primary",
};

/**
 * repl_lineage_is_known() - is there one?
 * @lineage: lineage or parent
 */
bool repl_lineage_is_known(const u8 *lineage)
{
	return memchr_inv(lineage, 0, REPL_UUID_SIZE);
}

static unsigned int show_lineage(const u8 *lineage, char *result,
				 unsigned int maxlen)
{
	if (!repl_lineage_is_known(lineage))
		return scnprintf(result, maxlen, "- ");
	return scnprintf(result, maxlen, "%pUb ", lineage);
}

/**
 * repl_identity_show() - answer to the message identity
 * @id: identity
 * @checkpoint: id of the last one
 * @dirty: regions that another copy may lack
 * @pending: id of one that the peer may have, or that is prepared; 0: none
 * @result: for the answer
 * @maxlen: its size
 *
 * <role> <lineage> <parent> <parent checkpoint> <checkpoint> <dirty regions>
 * <pending>
 *
 * Return: 1.
 */
int repl_identity_show(const struct repl_identity *id, u64 checkpoint,
		       u64 dirty, u64 pending, char *result,
		       unsigned int maxlen)
{
	unsigned int sz = scnprintf(result, maxlen, "%s ",
				    role_names[id->role]);

	sz += show_lineage(id->lineage, result + sz, maxlen - sz);
	sz += show_lineage(id->parent, result + sz, maxlen - sz);
	scnprintf(result + sz, maxlen - sz, "%llu %llu %llu %llu",
		  id->parent_checkpoint, checkpoint, dirty, pending);
	return 1;
}

/**
 * repl_lineage_parse() - a UUID, but not that of zeroes
 * @word: word
 * @lineage: result
 *
 * Return: 0 or -EINVAL.
 */
int repl_lineage_parse(const char *word, u8 *lineage)
{
	uuid_t uuid;

	if (uuid_parse(word, &uuid) || uuid_is_null(&uuid))
		return -EINVAL;
	memcpy(lineage, &uuid, REPL_UUID_SIZE);
	return 0;
}

/**
 * repl_identity_set_lineage() - it is of this lineage now
 * @id: identity
 * @lineage: lineage; the parent of another is forgotten
 *
 * Return: whether something has changed.
 */
bool repl_identity_set_lineage(struct repl_identity *id, const u8 *lineage)
{
	if (!memcmp(id->lineage, lineage, REPL_UUID_SIZE))
		return false;
	memcpy(id->lineage, lineage, REPL_UUID_SIZE);
	memset(id->parent, 0, REPL_UUID_SIZE);
	id->parent_checkpoint = 0;
	return true;
}

/**
 * repl_identity_leave() - begin a new lineage
 * @id: identity
 * @checkpoint: the last one of the old lineage
 */
void repl_identity_leave(struct repl_identity *id, u64 checkpoint)
{
	memcpy(id->parent, id->lineage, REPL_UUID_SIZE);
	id->parent_checkpoint = checkpoint;
	generate_random_uuid(id->lineage);
}
