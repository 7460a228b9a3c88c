/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* UDP is not redirected. Where it goes is told, and QUIC is refused where the policy wants TCP in its place. */
#ifndef CARNET_DATAGRAM_H
#define CARNET_DATAGRAM_H

#include "decide.h"
#include "event.h"
#include "owner.h"

#define QUIC_PORT  443
#define ETH_P_IPV6 0x86dd

/* Whether it has to be told. The one who makes the entry tells: two threads may send at once. */
static __always_inline bool datagram_is_first(const struct carnet_destination *to)
{
	__u8 told = 1;

	return map_insert(&carnet_destinations, to, &told) != -EEXIST;
}

/* Why a datagram is refused: CARNET_REASON_QUIC or CARNET_REASON_BLOCKED, or CARNET_REASON_UDP: it is not. */
static __always_inline int datagram_errno(__u32 reason)
{
	return reason == CARNET_REASON_QUIC ? ECONNREFUSED : reason == CARNET_REASON_BLOCKED ? EACCES : 0;
}

/* What the policy says of UDP from somebody to a destination. A frame of its own. */
static __noinline __u32 datagram_verdict(const struct carnet_policy *policy, const struct carnet_identities *who,
					 const struct carnet_addr *remote, __u32 dialer, __u32 slot)
{
	struct carnet_question question = {
		.remote = *remote,
		.slot = slot,
		.protocol = IPPROTO_UDP,
		.floor = -1,
		.dialer = dialer,
		.listener = CARNET_NONE,
	};

	carnet_decide(&question, who);
	return question.verdict;
}

/* Of an application, CARNET_NONE, or a provider's owner. */
static __always_inline __u32 quic_reason(const struct carnet_policy *policy, const struct carnet_addr *remote,
					 __u32 dialer)
{
	if (dialer >= CARNET_MAX_PROVIDERS && policy->flags & CARNET_POLICY_BLOCK_QUIC && remote->port == QUIC_PORT)
		return CARNET_REASON_QUIC;
	return CARNET_REASON_UDP;
}

/* Why a datagram to an address is refused to the calling process. */
static __noinline __u32 datagram_reason(struct bpf_sock_addr *ctx, const struct carnet_policy *policy,
					const struct carnet_addr *remote, __u32 dialer, __u32 slot)
{
	struct carnet_identities who = {};

	if (quic_reason(policy, remote, dialer) == CARNET_REASON_QUIC)
		return CARNET_REASON_QUIC;
	if (!(policy->flags & CARNET_POLICY_JUDGES_UDP))
		return CARNET_REASON_UDP;
	carnet_identify_caller(&who.of[0], bpf_get_netns_cookie(ctx), slot);
	return datagram_verdict(policy, &who, remote, dialer, slot) == CARNET_VERDICT_REFUSE ? CARNET_REASON_BLOCKED :
											       CARNET_REASON_UDP;
}

/* Tells where a datagram goes, or that it was refused; the event has its record already. */
static __always_inline void datagram_tell(struct carnet_event *event, const struct carnet_addr *remote, __u32 dialer,
					  __u32 reason, int error)
{
	event->remote = *remote;
	event->verdict = error ? CARNET_VERDICT_REFUSE : CARNET_VERDICT_PASS;
	event->reason = reason;
	event->error = error;
	event->dialer = dialer;
	event->pid = event->record.origin.pid;
	event->uid = event->record.origin.uid;
	event_submit(event);
}

/* sendto() with an address. Returns the errno with which it fails. */
static __always_inline int datagram_sent(struct bpf_sock_addr *ctx, const struct carnet_config *config,
					 const struct carnet_destination *to, __u32 family, __u32 dialer, __u32 reason)
{
	int error = datagram_errno(reason);
	struct carnet_event *event;

	if (!datagram_is_first(to))
		return error;
	event = event_begin(CARNET_EVENT_DATAGRAM, bpf_ktime_get_boot_ns(), to->cookie);
	if (!event)
		return error;
	record_begin(&event->record, config, ctx, &to->remote, family, IPPROTO_UDP, 0, event->time);
	datagram_tell(event, &to->remote, dialer, reason, error);
	return error;
}

/*
 * Packets leave without their socket's lock, and connect() may be writing what is known of it in another thread. What
 * was read while the turn was even and the same is whole. Atomic with a result, which is a barrier on every machine.
 */
static __always_inline __u32 turn_of(struct carnet_connected *connected, __u32 step)
{
	__u32 turn = __sync_fetch_and_add(&connected->turn, step);

	asm volatile("" : : "r"(turn));
	return turn;
}

/* A UDP socket's call to the destination `to`. Returns 0, or the errno with which the call fails. */
static __always_inline int carnet_datagram(struct bpf_sock_addr *ctx, struct carnet_destination *to, bool connect)
{
	const struct carnet_config *config = carnet_config_now();
	struct carnet_connected *connected = NULL;
	const struct carnet_policy *policy;
	struct bpf_sock *sk = ctx->sk;
	__u32 family = ctx->family; /* the socket's: an IPv6 one may send to IPv4 */
	__u32 i, dialer, slot;

	if (!config || !sk)
		return 0;
	slot = policy_slot_now(config);
	policy = carnet_policy_at(slot);
	if (!policy || !caller_is_governed(slot, &i))
		return 0;
	dialer = provider_handle(policy, i);
	to->cookie = bpf_get_socket_cookie(ctx);
	/*
	 * connect() sends nothing: getaddrinfo() connects a socket to each address of a name to see which it can reach,
	 * and would put those last that it is refused. So who connects is kept for carnet_egress(), which sees what is
	 * sent. Without memory for that it is told or refused too early, rather than not at all; the policy cannot be
	 * asked then, since the connect hooks have no stack to spare.
	 */
	if (connect)
		connected = bpf_sk_storage_get(&carnet_datagram_socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!connect)
		return datagram_sent(ctx, config, to, family, dialer,
				     datagram_reason(ctx, policy, &to->remote, i, slot));
	if (!connected && policy->flags & CARNET_POLICY_JUDGES_UDP)
		return ENOBUFS;
	if (!connected)
		return datagram_sent(ctx, config, to, family, dialer, quic_reason(policy, &to->remote, i));
	turn_of(connected, 1);
	record_begin(&connected->record, config, ctx, &to->remote, family, IPPROTO_UDP, 0, bpf_ktime_get_boot_ns());
	connected->dialer = dialer;
	connected->blocks_quic = !dialer && policy->flags & CARNET_POLICY_BLOCK_QUIC;
	connected->told = 0;
	turn_of(connected, 1);
	return 0;
}

static __always_inline int datagram_v4(struct bpf_sock_addr *ctx, bool connect)
{
	struct carnet_destination to = { .remote.port = bpf_ntohs(ctx->user_port) };

	ip_from_v4(to.remote.ip, ctx->user_ip4);
	return carnet_datagram(ctx, &to, connect);
}

static __always_inline int datagram_v6(struct bpf_sock_addr *ctx, bool connect)
{
	struct carnet_destination to = { .remote.port = bpf_ntohs(ctx->user_port) };

	ip_from_v6(to.remote.ip, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	return carnet_datagram(ctx, &to, connect);
}

/* Frames of their own, because the connect hooks have none to spare. */
static __noinline int datagram_connect_v4(struct bpf_sock_addr *ctx)
{
	return datagram_v4(ctx, true);
}

static __noinline int datagram_connect_v6(struct bpf_sock_addr *ctx)
{
	return datagram_v6(ctx, true);
}

/* Where a UDP packet goes; `to` is where its socket is connected to. Packets are not in fragments yet here. */
static __always_inline bool datagram_goes_to(struct __sk_buff *skb, struct carnet_addr *to)
{
	__u8 first, next;
	__be16 port;
	__be32 ip4;

	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return false;
	if (first >> 4 == 4) {
		if (bpf_skb_load_bytes(skb, 16, &ip4, 4) || bpf_skb_load_bytes(skb, (first & 15) * 4 + 2, &port, 2))
			return false;
		ip_from_v4(to->ip, ip4);
	} else {
		if (bpf_skb_load_bytes(skb, 24, to->ip, 16) || bpf_skb_load_bytes(skb, 6, &next, 1))
			return false;
		/* Behind an extension header: the port is taken to be the connection's. */
		if (next != IPPROTO_UDP)
			return true;
		if (bpf_skb_load_bytes(skb, 42, &port, 2))
			return false;
	}
	to->port = bpf_ntohs(port);
	return true;
}

/* A source route, for which a user needs no privilege: the packet goes elsewhere first than its socket says. */
static __always_inline bool is_source_routed(struct __sk_buff *skb)
{
	__u8 next;

	return skb->protocol == bpf_htons(ETH_P_IPV6) && !bpf_skb_load_bytes(skb, 6, &next, 1) &&
	       next == IPPROTO_ROUTING;
}

/*
 * The way to a listener is within this host. A socket that was bound to an interface after its connect(), for which a
 * user needs no privilege, would send its packets there, to whoever listens on the wire; and in a container its root
 * can have them translated and routed past the service.
 */
static __always_inline bool is_led_away(struct __sk_buff *skb, struct bpf_sock *sk)
{
	struct carnet_sock *sock;

	if (skb->ifindex == LOOPBACK_IFINDEX)
		return false;
	sock = sock_known(sk, 0);
	return sock && sock->flags & (SOCK_REDIRECTED | SOCK_HANDS_OVER);
}

/* Tells of a packet of a connected socket. Where a later connect() has failed, it still goes to the one before. */
static __always_inline void datagram_left(const struct carnet_connected *connected,
					  const struct carnet_destination *to, __u32 reason)
{
	struct carnet_event *event =
		event_begin(CARNET_EVENT_DATAGRAM, connected->record.origin.time, to->cookie);

	if (!event)
		return;
	event->record = connected->record;
	event->record.origin.remote = to->remote;
	datagram_tell(event, &to->remote, connected->dialer, reason, datagram_errno(reason) ? EPERM : 0);
}

/* Why a packet of a connected socket is refused. One that races with a connect() of its own program is, to be sure. */
static __always_inline __u32 packet_reason(struct carnet_connected *connected, const struct carnet_addr *to,
					   __u32 turn)
{
	const struct carnet_config *config = carnet_config_now();
	struct carnet_identities who = {};
	const struct carnet_policy *policy;
	__u32 slot, verdict;

	if (connected->blocks_quic && to->port == QUIC_PORT)
		return CARNET_REASON_QUIC;
	if (!config)
		return CARNET_REASON_UDP;
	slot = policy_slot_now(config);
	policy = carnet_policy_at(slot);
	if (!policy || !(policy->flags & CARNET_POLICY_JUDGES_UDP))
		return CARNET_REASON_UDP;
	carnet_identify(&who.of[0], &connected->record.origin, (struct carnet_line *)connected->record.line, slot);
	verdict = datagram_verdict(policy, &who, to, provider_with_handle(connected->dialer, slot), slot);
	if (turn & 1 || turn_of(connected, 0) != turn || verdict == CARNET_VERDICT_REFUSE)
		return CARNET_REASON_BLOCKED;
	return CARNET_REASON_UDP;
}

/*
 * Everything that leaves a socket. Judged by where the packet goes, not by what connect() was asked last: that may have
 * failed, and the socket is connected to where it was before; or it is being asked at this moment.
 */
SEC("cgroup_skb/egress")
int carnet_egress(struct __sk_buff *skb)
{
	struct carnet_connected *connected;
	struct carnet_destination to = {};
	struct bpf_sock *sk = skb->sk;
	__u32 reason, turn;
	bool newest;

	if (!sk)
		return 1;
	if (is_source_routed(skb))
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	if (sk->protocol != IPPROTO_UDP)
		return !is_led_away(skb, sk);
	connected = bpf_sk_storage_get(&carnet_datagram_socks, sk, NULL, 0);
	if (!connected)
		return 1;
	turn = turn_of(connected, 0);
	to.remote.port = connected->record.origin.remote.port;
	if (!datagram_goes_to(skb, &to.remote))
		return 1;
	newest = addr_equal(&to.remote, &connected->record.origin.remote);
	reason = packet_reason(connected, &to.remote, turn);
	if (!newest || !connected->told) {
		to.cookie = bpf_get_socket_cookie(skb);
		if (newest)
			connected->told = 1;
		if (datagram_is_first(&to))
			datagram_left(connected, &to, reason);
	}
	return !datagram_errno(reason);
}

static __always_inline bool is_udp(__u32 type, __u32 protocol)
{
	return type == SOCK_DGRAM && protocol == IPPROTO_UDP;
}

SEC("cgroup/sendmsg4")
int carnet_sendmsg4(struct bpf_sock_addr *ctx)
{
	return is_udp(ctx->type, ctx->protocol) ? hook_return(datagram_v4(ctx, false)) : 1;
}

SEC("cgroup/sendmsg6")
int carnet_sendmsg6(struct bpf_sock_addr *ctx)
{
	return is_udp(ctx->type, ctx->protocol) ? hook_return(datagram_v6(ctx, false)) : 1;
}

#endif /* CARNET_DATAGRAM_H */
