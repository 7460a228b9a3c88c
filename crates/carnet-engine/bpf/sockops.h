/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* The hand-over from the connecting to the accepted socket, and the end of connections. */
#ifndef CARNET_SOCKOPS_H
#define CARNET_SOCKOPS_H

#include "event.h"
#include "flight.h"
#include "handover.h"
#include "owner.h"

/* A connection's two ends as the callback's socket sees them, in the normal form. */
struct ends {
	struct carnet_addr local;
	struct carnet_addr remote;
};

/* All context fields are read before any branch: the verifier knows no context pointer that was modified by one. */
static __always_inline void sockops_ends(struct bpf_sock_ops *ctx, struct ends *ends)
{
	volatile struct bpf_sock_ops *fields = ctx;
	__u32 family = fields->family;
	__be32 l4 = fields->local_ip4, r4 = fields->remote_ip4;
	__be32 l0 = fields->local_ip6[0], l1 = fields->local_ip6[1], l2 = fields->local_ip6[2],
	       l3 = fields->local_ip6[3];
	__be32 r0 = fields->remote_ip6[0], r1 = fields->remote_ip6[1], r2 = fields->remote_ip6[2],
	       r3 = fields->remote_ip6[3];
	__u32 local_port = fields->local_port;          /* host byte order */
	__u32 remote_port = bpf_ntohl(fields->remote_port); /* network byte order */

	if (family == AF_INET6) {
		ip_from_v6(ends->local.ip, l0, l1, l2, l3);
		ip_from_v6(ends->remote.ip, r0, r1, r2, r3);
	} else {
		ip_from_v4(ends->local.ip, l4);
		ip_from_v4(ends->remote.ip, r4);
	}
	ends->local.port = local_port;
	ends->remote.port = remote_port;
}

static __always_inline void tuple_of(struct carnet_tuple *tuple, __u64 netns, const struct carnet_addr *client,
				     const struct carnet_addr *listener, __u32 isn)
{
	tuple->netns = netns;
	__builtin_memcpy(tuple->client, client->ip, sizeof(tuple->client));
	__builtin_memcpy(tuple->listener, listener->ip, sizeof(tuple->listener));
	tuple->client_port = client->port;
	tuple->listener_port = listener->port;
	tuple->isn = isn;
}

/*
 * Makes a connection impossible from a callback that has no way to refuse it: a socket bound to an interface that does
 * not exist has no route. A connecting one fails with EHOSTUNREACH before its SYN; an accepted one answers nothing.
 */
static __always_inline void sockops_cut_off(struct bpf_sock_ops *ctx)
{
	int nowhere = NOWHERE_IFINDEX;

	bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTOIFINDEX, &nowhere, sizeof(nowhere));
}

static __always_inline void sockops_watch(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* The SYN is about to leave and the local port is known. */
static __always_inline void sockops_connecting(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct carnet_sock *sock)
{
	struct sock *kernel = kernel_sock(sk);
	struct carnet_handover *flow = &sock->flow;
	struct carnet_tuple tuple = {};
	struct ends ends = {};

	/* Sent already: a further subflow of an MPTCP connection. It goes where the connection has gone. */
	if (!(sock->flags & SOCK_DECIDED) || sock->flags & SOCK_SENT)
		return;
	sockops_ends(ctx, &ends);
	sock->flags |= SOCK_SENT;
	if (!sock->base)
		flow->record.origin.local = ends.local;
	sockops_watch(ctx);
	if (!(sock->flags & SOCK_HANDS_OVER))
		return;
	if (kernel)
		sock->isn = BPF_CORE_READ((struct tcp_sock *)kernel, write_seq);
	tuple_of(&tuple, bpf_get_netns_cookie(ctx), &ends.local, &ends.remote, sock->isn);
	if (!kernel || !handover_insert(&tuple, flow)) {
		carnet_count(CARNET_COUNT_HELD_BACK);
		sockops_cut_off(ctx);
		return;
	}
	if (!sock->flight)
		sock->flight = carnet_flight_begin(flow->handle, &flow->remote, NULL);
}

/* Another program may have set callback flags of its own since then, and not kept ours. See also unwatched.h. */
static __always_inline void sockops_connected(struct bpf_sock_ops *ctx, struct carnet_sock *sock)
{
	if (sock->flags & SOCK_SENT && sock->cookie == bpf_get_socket_cookie(ctx))
		sockops_watch(ctx);
}

static __always_inline void accepted_event(__u16 kind, __u64 cookie, const struct carnet_handover *flow, __u32 handle,
					   const struct ends *ends)
{
	struct carnet_event *event = event_begin(kind, bpf_ktime_get_boot_ns(), cookie);

	if (!event)
		return;
	if (flow) {
		event_record(event, &flow->record);
		event->remote = flow->remote;
	} else {
		event->remote = ends->remote;
	}
	event->local = ends->local;
	event->handle = handle;
	event_submit(event);
}

/* A connection that was not redirected arrived. On a provider's listener that means its record is missing. */
static __always_inline void sockops_unannounced(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
						const struct carnet_policy *policy, __u32 slot,
						const struct ends *ends)
{
	struct carnet_sock *sock;
	__u32 i;

	if (!providers_on(ends->local.port, slot))
		return;
	i = owning_provider(owned_arrivals(sk, OWNED_ON(ends->local.port), slot));
	if (i >= CARNET_MAX_PROVIDERS)
		return;
	sock = sock_known(sk, BPF_SK_STORAGE_GET_F_CREATE);
	if (sock)
		sock->flags = SOCK_LOST;
	carnet_count(CARNET_COUNT_LOST_CONTEXT);
	accepted_event(CARNET_EVENT_LOST, bpf_get_socket_cookie(ctx), NULL, provider_at(policy, i)->handle, ends);
}

/* The index of the provider with this handle, where the socket came from a listener of its; or CARNET_NONE. */
static __noinline __u32 provider_reached(struct bpf_sock *sk, __u32 handle, __u32 slot)
{
	__u32 i = provider_with_handle(handle, slot);

	return i < CARNET_MAX_PROVIDERS && owned_arrivals(sk, i, slot) & OWNED_WANTED ? i : CARNET_NONE;
}

/* A listener's new socket. The only place where a record passes from one socket to another. */
static __always_inline void sockops_accepted(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	const struct carnet_config *config = carnet_config_now();
	const struct carnet_policy *policy;
	const struct carnet_provider *provider;
	struct carnet_handover *flow;
	struct carnet_tuple tuple = {};
	struct carnet_sock *sock;
	struct ends ends = {};
	__u32 rcv_nxt = ((volatile struct bpf_sock_ops *)ctx)->rcv_nxt; /* nothing has come yet but the SYN */
	__u32 slot, i;

	if (!config)
		return;
	slot = policy_slot_now(config);
	policy = carnet_policy_at(slot);
	if (!policy)
		return;
	/* Known already, so it is a further subflow of an MPTCP connection. */
	sock = sock_known(sk, 0);
	if (sock && sock->flags & (SOCK_ACCEPTED | SOCK_LOST))
		return;
	sockops_ends(ctx, &ends);
	tuple_of(&tuple, bpf_get_netns_cookie(ctx), &ends.remote, &ends.local, rcv_nxt - 1);
	flow = bpf_map_lookup_elem(&carnet_handovers, &tuple);
	if (!flow)
		return sockops_unannounced(ctx, sk, policy, slot, &ends);
	i = provider_reached(sk, flow->handle, slot);
	if (i >= CARNET_MAX_PROVIDERS) {
		slot = slot_before(slot);
		policy = carnet_policy_at(slot);
		i = provider_reached(sk, flow->handle, slot);
	}
	if (i >= CARNET_MAX_PROVIDERS || !policy) {
		/* SO_REUSEPORT or a quick successor: somebody else got it. Neither connection nor record. */
		carnet_count(CARNET_COUNT_STRANGERS);
		accepted_event(CARNET_EVENT_STRANGER, bpf_get_socket_cookie(ctx), flow, flow->handle, &ends);
		handover_delete(&tuple);
		sockops_cut_off(ctx);
		return;
	}
	provider = provider_at(policy, i);
	sock = sock_known(sk, BPF_SK_STORAGE_GET_F_CREATE);
	if (!sock) {
		carnet_count(CARNET_COUNT_NO_ROOM);
		accepted_event(CARNET_EVENT_LOST, bpf_get_socket_cookie(ctx), flow, flow->handle, &ends);
		handover_delete(&tuple);
		sockops_cut_off(ctx);
		return;
	}
	sock->flow = *flow;
	/* Where the client ends at this moment, the entry's memory may have become another's while it was copied. */
	if (bpf_map_delete_elem(&carnet_handovers, &tuple))
		return sockops_unannounced(ctx, sk, policy, slot, &ends);
	handover_count(sock->flow.uid, -1);
	sock->cookie = bpf_get_socket_cookie(ctx);
	*(volatile __u32 *)&sock->flags = SOCK_ACCEPTED; /* last: see sock_asked() */
	carnet_count(CARNET_COUNT_HANDED_OVER);
	if (provider->flags & CARNET_PROVIDER_UNAWARE) {
		sock->flight = carnet_flight_begin(sock->flow.handle, &sock->flow.remote, &sock->flow.record);
		if (sock->flight)
			sockops_watch(ctx);
	}
}

/*
 * A connection that was decided on is over: nothing of it is in flight any more. Returns the event, which the caller
 * completes, or NULL.
 */
static __always_inline struct carnet_event *sock_end(struct carnet_sock *sock, __u64 netns, const struct ends *ends)
{
	struct carnet_tuple tuple = {};
	struct carnet_event *event;

	if (sock->flags & SOCK_HANDS_OVER) {
		tuple_of(&tuple, netns, &ends->local, &ends->remote, sock->isn);
		handover_delete(&tuple);
	}
	sock->flags &= ~(SOCK_DECIDED | SOCK_SENT | SOCK_HANDS_OVER);
	event = event_of_end(sock, bpf_ktime_get_boot_ns());
	if (event)
		event->local = ends->local;
	return event;
}

/*
 * What both ends counted, without the SYN and FINs that the kernel's counters include: our SYN and our FIN among the
 * acknowledged bytes, the peer's FIN among the received ones. Returns whether the peer's FIN has come.
 */
static __always_inline bool end_payload(struct sock *sk, struct carnet_event *event, bool closing)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;
	__u64 acked = BPF_CORE_READ(tcp, bytes_acked), received = BPF_CORE_READ(tcp, bytes_received);
	bool fin_came = BPF_CORE_READ(sk, __sk_common.skc_flags) & (1UL << SOCK_DONE);
	bool fin_acked = closing && BPF_CORE_READ(tcp, write_seq) == BPF_CORE_READ(tcp, snd_una);

	event->error = BPF_CORE_READ(sk, sk_err);
	event->sent = acked > 1 ? acked - 1 - fin_acked : 0;
	event->received = received >= fin_came ? received - fin_came : 0;
	return fin_came;
}

static __always_inline void end_counts(struct sock *sk, struct carnet_event *event, __u32 old_state)
{
	bool closing = old_state == BPF_TCP_FIN_WAIT2 || old_state == BPF_TCP_CLOSING ||
		       old_state == BPF_TCP_LAST_ACK ||
		       old_state == BPF_TCP_TIME_WAIT;

	end_payload(sk, event, closing);
	if (old_state == BPF_TCP_SYN_SENT) {
		event->how = CARNET_HOW_FAILED;
		event->sent = 0;
		event->received = 0;
	} else if (event->error) {
		event->how = CARNET_HOW_RESET;
	} else if (closing) {
		event->how = CARNET_HOW_CLOSED;
	} else {
		event->how = CARNET_HOW_ABORTED;
	}
}

/*
 * A flow's last hop found nobody at the destination. The application has been connected to a service all along, so it
 * could not go elsewhere; the next connect() there fails at once, for a while.
 */
static __always_inline void refused_remember(const struct carnet_sock *sock, int error, __u32 bound)
{
	const struct carnet_origin *origin = &sock->flow.record.origin;
	const struct carnet_config *config = carnet_config_now();
	struct carnet_refused_key key = { .netns = origin->netns_cookie, .remote = origin->remote };
	struct carnet_refusal refusal = { .error = error };

	if (!config || !config->refused_for || !sock->base || sock->verdict != CARNET_VERDICT_PASS ||
	    !addr_equal(&origin->remote, &sock->flow.remote))
		return;
	/* By an interface that was asked for there may be nobody where there is somebody by another. */
	if (origin->ifindex || sock->ifindex || bound)
		return;
	if (error != ECONNREFUSED && error != EHOSTUNREACH && error != ENETUNREACH)
		return;
	refusal.until = bpf_ktime_get_boot_ns() + config->refused_for;
	bpf_map_update_elem(&carnet_refused, &key, &refusal, BPF_ANY);
}

static __always_inline void sockops_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct carnet_sock *sock,
					   __u32 old_state)
{
	struct sock *kernel = kernel_sock(sk);
	struct carnet_event *event;
	struct ends ends = {};

	/* Another subflow's end is not the connection's. */
	if (sock->cookie != bpf_get_socket_cookie(ctx))
		return;
	flight_end(sock);
	if (!(sock->flags & SOCK_DECIDED))
		return;
	sockops_ends(ctx, &ends);
	if (kernel && old_state == BPF_TCP_SYN_SENT)
		refused_remember(sock, BPF_CORE_READ(kernel, sk_err), sk->bound_dev_if);
	event = sock_end(sock, bpf_get_netns_cookie(ctx), &ends);
	if (!event)
		return;
	if (kernel)
		end_counts(kernel, event, old_state);
	event_submit(event);
}

SEC("sockops")
int carnet_sockops(struct bpf_sock_ops *ctx)
{
	__u32 op = ctx->op, old_state = ctx->args[0], new_state = ctx->args[1];
	struct bpf_sock *sk;
	struct carnet_sock *sock;

	if (op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && op != BPF_SOCK_OPS_TCP_CONNECT_CB &&
	    op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	/* Loaded once: each load is a new, unchecked pointer to the verifier. */
	sk = ctx->sk;
	if (!sk)
		return 1;
	if (op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		sockops_accepted(ctx, sk);
		return 1;
	}
	sock = sock_known(sk, 0);
	if (!sock)
		return 1;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		sockops_connecting(ctx, sk, sock);
	else if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		sockops_connected(ctx, sock);
	else if (new_state == BPF_TCP_CLOSE)
		sockops_closed(ctx, sk, sock, old_state);
	return 1;
}

#endif /* CARNET_SOCKOPS_H */
