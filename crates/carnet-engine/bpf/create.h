/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* socket(): kinds of sockets whose connections no hook sees are told, or refused where the policy is strict. */
#ifndef CARNET_CREATE_H
#define CARNET_CREATE_H

#include "event.h"
#include "owner.h"

/* Connections and datagrams of these pass the hooks. Not those of ping sockets, which can carry anything. */
static __always_inline bool is_seen(__u32 type, __u32 protocol)
{
	if (type == SOCK_STREAM)
		return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
	return type == SOCK_DGRAM && protocol == IPPROTO_UDP;
}

SEC("cgroup/sock_create")
int carnet_sock_create(struct bpf_sock *ctx)
{
	__u32 family = ctx->family, type = ctx->type, protocol = ctx->protocol;
	const struct carnet_config *config = carnet_config_now();
	const struct carnet_policy *policy;
	struct carnet_event *event;
	bool refused;
	__u64 now;
	__u32 i, slot;

	if (is_seen(type, protocol) || !config)
		return 1;
	slot = policy_slot_now(config);
	policy = carnet_policy_at(slot);
	if (!policy)
		return 1;
	if (!caller_is_governed(slot, &i))
		return 1;
	/* Services do as they like: what they have of a flow they have inspected. */
	refused = i >= CARNET_MAX_PROVIDERS && policy->flags & CARNET_POLICY_STRICT;
	now = bpf_ktime_get_boot_ns();
	event = event_begin(CARNET_EVENT_SOCKET, now, 0);
	if (event) {
		struct carnet_addr nowhere = {};

		record_begin(&event->record, config, ctx, &nowhere, family, protocol, 0, now);
		event->verdict = refused ? CARNET_VERDICT_REFUSE : CARNET_VERDICT_PASS;
		event->reason = CARNET_REASON_SOCKET;
		event->error = refused ? EACCES : 0;
		event->dialer = provider_handle(policy, i);
		event->family = family;
		event->sock_type = type;
		event->protocol = protocol;
		event_caller(event);
		event_submit(event);
	}
	return hook_return(refused ? EACCES : 0);
}

#endif /* CARNET_CREATE_H */
