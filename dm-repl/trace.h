/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dm_repl

#if !defined(DM_REPL_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DM_REPL_TRACE_H

#include <linux/tracepoint.h>

#include "chain.h"

/* Devices are named by the number of the secondary, which both targets have. */
DECLARE_EVENT_CLASS(repl_regions,
	TP_PROTO(struct repl_chain *chain, u64 begin, u64 end),
	TP_ARGS(chain, begin, end),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, begin)
		__field(u64, end)
	),
	TP_fast_assign(
		__entry->dev = chain->secondary->bd_dev;
		__entry->begin = begin;
		__entry->end = end;
	),
	TP_printk("%d,%d regions %llu+%llu", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->begin,
		  __entry->end - __entry->begin)
);

DEFINE_EVENT(repl_regions, repl_cbw_start,
	TP_PROTO(struct repl_chain *chain, u64 begin, u64 end),
	TP_ARGS(chain, begin, end)
);

DEFINE_EVENT(repl_regions, repl_backfill,
	TP_PROTO(struct repl_chain *chain, u64 begin, u64 end),
	TP_ARGS(chain, begin, end)
);

DEFINE_EVENT(repl_regions, repl_merge,
	TP_PROTO(struct repl_chain *chain, u64 begin, u64 end),
	TP_ARGS(chain, begin, end)
);

TRACE_EVENT(repl_cbw_done,
	TP_PROTO(struct repl_chain *chain, u64 begin, u64 end, int err),
	TP_ARGS(chain, begin, end, err),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, begin)
		__field(u64, end)
		__field(int, err)
	),
	TP_fast_assign(
		__entry->dev = chain->secondary->bd_dev;
		__entry->begin = begin;
		__entry->end = end;
		__entry->err = err;
	),
	TP_printk("%d,%d regions %llu+%llu err %d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->begin,
		  __entry->end - __entry->begin, __entry->err)
);

/* One for each gate that was closed: how long it took to drain. */
TRACE_EVENT(repl_gate_wait,
	TP_PROTO(struct repl_chain *chain, u64 ns),
	TP_ARGS(chain, ns),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->dev = chain->secondary->bd_dev;
		__entry->ns = ns;
	),
	TP_printk("%d,%d drained in %llu ns", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->ns)
);

TRACE_EVENT(repl_checkpoint,
	TP_PROTO(struct repl_chain *chain, u64 id, u64 hidden, u64 active),
	TP_ARGS(chain, id, hidden, active),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, id)
		__field(u64, hidden)
		__field(u64, active)
	),
	TP_fast_assign(
		__entry->dev = chain->secondary->bd_dev;
		__entry->id = id;
		__entry->hidden = hidden;
		__entry->active = active;
	),
	TP_printk("%d,%d id %llu dropped hidden %llu active %llu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->id,
		  __entry->hidden, __entry->active)
);

TRACE_EVENT(repl_stage,
	TP_PROTO(struct repl_chain *chain, int from, int to),
	TP_ARGS(chain, from, to),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(int, from)
		__field(int, to)
	),
	TP_fast_assign(
		__entry->dev = chain->secondary->bd_dev;
		__entry->from = from;
		__entry->to = to;
	),
	TP_printk("%d,%d stage %d -> %d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->from, __entry->to)
);

TRACE_EVENT(repl_error,
	TP_PROTO(struct repl_chain *chain, int error, int err, sector_t sector),
	TP_ARGS(chain, error, err, sector),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(int, error)
		__field(int, err)
		__field(u64, sector)
	),
	TP_fast_assign(
		__entry->dev = chain->secondary->bd_dev;
		__entry->error = error;
		__entry->err = err;
		__entry->sector = sector;
	),
	TP_printk("%d,%d class %d err %d sector %llu", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->error, __entry->err,
		  __entry->sector)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
