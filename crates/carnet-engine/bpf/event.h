/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Events to user space. What does not fit is counted, so a loss is never silent. */
#ifndef CARNET_EVENT_H
#define CARNET_EVENT_H

#include "record.h"

/* Room for one event, all but its header zero. The caller submits it. */
static __always_inline struct carnet_event *event_begin(__u16 kind, __u64 now, __u64 cookie)
{
	struct carnet_event *event = bpf_ringbuf_reserve(&carnet_events, sizeof(*event), 0);

	if (!event) {
		carnet_count(CARNET_COUNT_EVENTS_LOST);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->version = CARNET_ABI_VERSION;
	event->kind = kind;
	event->size = sizeof(*event);
	event->time = now;
	event->cookie = cookie;
	return event;
}

/* Who called. */
static __always_inline void event_caller(struct carnet_event *event)
{
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
}

/* A record as an event shows it: nothing with which it could be set again. */
static __always_inline void event_record(struct carnet_event *event, const struct carnet_records *record)
{
	event->record = *record;
	event->record.stamp = 0;
	event->record.tag = 0;
	event->record.key_id = 0;
}

/* The end of a connection, all but how it ended. */
static __always_inline struct carnet_event *event_of_end(const struct carnet_sock *sock, __u64 now)
{
	struct carnet_event *event = event_begin(CARNET_EVENT_END, now, sock->cookie);

	if (!event)
		return NULL;
	event_record(event, &sock->flow.record);
	event->remote = sock->flow.remote;
	event->verdict = sock->verdict;
	event->handle = sock->flow.handle;
	event->dialer = sock->dialer;
	event->base = sock->base;
	event->duration = now - sock->decided_at;
	return event;
}

static __always_inline void event_submit(struct carnet_event *event)
{
	bpf_ringbuf_submit(event, 0);
}

/* The end of a connection of which the kernel never sent anything, so that no state change tells of it. */
static __noinline void sock_end_unsent(struct carnet_sock *sock, __u64 now)
{
	struct carnet_event *event;

	if (!(sock->flags & SOCK_DECIDED) || sock->flags & SOCK_SENT)
		return;
	sock->flags &= ~SOCK_DECIDED;
	event = event_of_end(sock, now);
	if (!event)
		return;
	event->how = CARNET_HOW_FAILED;
	event_submit(event);
}

#endif /* CARNET_EVENT_H */
