/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* UDP is not redirected. Where it goes is told, and QUIC is refused where the policy wants TCP in its place. */
#ifndef CARNET_DATAGRAM_H
#define CARNET_DATAGRAM_H

#include "event.h"
#include "owner.h"

#define QUIC_PORT 443

/* Tells of a destination, unless that has been done for this socket. */
static __always_inline void datagram_event(struct bpf_sock_addr *ctx, const struct carnet_config *config,
					   const struct carnet_destination *to, __u32 family, __u32 dialer,
					   __u32 verdict)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct carnet_event *event;
	__u8 told = 1;

	/* The one who makes the entry tells: two threads may send at once. */
	if (bpf_map_update_elem(&carnet_destinations, to, &told, BPF_NOEXIST))
		return;
	event = event_begin(CARNET_EVENT_DATAGRAM, now, to->cookie);
	if (!event)
		return;
	record_begin(&event->record, config, ctx, &to->remote, family, IPPROTO_UDP, 0, now);
	event->remote = to->remote;
	event->verdict = verdict;
	event->reason = verdict == CARNET_VERDICT_REFUSE ? CARNET_REASON_QUIC : CARNET_REASON_UDP;
	event->error = verdict == CARNET_VERDICT_REFUSE ? ECONNREFUSED : 0;
	event->dialer = dialer;
	event->pid = event->record.origin.pid;
	event->uid = event->record.origin.uid;
	event_submit(event);
}

/* connect() or sendto() of a UDP socket, whose destination is in `to`. Returns 0, or the errno with which it fails. */
static __always_inline int carnet_datagram(struct bpf_sock_addr *ctx, struct carnet_destination *to, __u32 family)
{
	const struct carnet_config *config = carnet_config_now();
	const struct carnet_policy *policy;
	__u32 owned, i, dialer = 0, verdict = CARNET_VERDICT_PASS;

	if (!config)
		return 0;
	policy = carnet_policy_at(config->policy_slot);
	if (!policy)
		return 0;
	owned = carnet_owned_by_caller(config->policy_slot);
	if (!(owned & OWNED_GOVERNED))
		return 0;
	i = owning_provider(owned);
	if (i < CARNET_MAX_PROVIDERS)
		dialer = policy->provider[i].handle;
	else if (policy->flags & CARNET_POLICY_BLOCK_QUIC && to->remote.port == QUIC_PORT)
		verdict = CARNET_VERDICT_REFUSE;
	to->cookie = bpf_get_socket_cookie(ctx);
	datagram_event(ctx, config, to, family, dialer, verdict);
	return verdict == CARNET_VERDICT_REFUSE ? ECONNREFUSED : 0;
}

/* The hooks share these. Frames of their own, because the connect hooks have none to spare. */
static __noinline int datagram_v4(struct bpf_sock_addr *ctx)
{
	struct carnet_destination to = { .remote.port = bpf_ntohs(ctx->user_port) };

	ip_from_v4(to.remote.ip, ctx->user_ip4);
	return carnet_datagram(ctx, &to, AF_INET);
}

static __noinline int datagram_v6(struct bpf_sock_addr *ctx)
{
	struct carnet_destination to = { .remote.port = bpf_ntohs(ctx->user_port) };

	ip_from_v6(to.remote.ip, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	return carnet_datagram(ctx, &to, AF_INET6);
}

static __always_inline bool is_udp(__u32 type, __u32 protocol)
{
	return type == SOCK_DGRAM && protocol == IPPROTO_UDP;
}

SEC("cgroup/sendmsg4")
int carnet_sendmsg4(struct bpf_sock_addr *ctx)
{
	return is_udp(ctx->type, ctx->protocol) ? hook_return(datagram_v4(ctx)) : 1;
}

SEC("cgroup/sendmsg6")
int carnet_sendmsg6(struct bpf_sock_addr *ctx)
{
	return is_udp(ctx->type, ctx->protocol) ? hook_return(datagram_v6(ctx)) : 1;
}

#endif /* CARNET_DATAGRAM_H */
