/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * Connections whose state changes are not told any more: a program of somebody else's on sockops has set callback flags
 * of its own and not kept Carnet's. The end of their descriptors is the last that is seen of them.
 */
#ifndef CARNET_UNWATCHED_H
#define CARNET_UNWATCHED_H

#include "sockops.h"

static __always_inline void sock_ends(struct sock *sk, struct ends *ends)
{
	struct ip_words local, remote;

	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		bpf_core_read(&local, sizeof(local), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&remote, sizeof(remote), &sk->__sk_common.skc_v6_daddr);
		ip_from_v6(ends->local.ip, local.w[0], local.w[1], local.w[2], local.w[3]);
		ip_from_v6(ends->remote.ip, remote.w[0], remote.w[1], remote.w[2], remote.w[3]);
	} else {
		ip_from_v4(ends->local.ip, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		ip_from_v4(ends->remote.ip, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	}
	ends->local.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	ends->remote.port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

/* What is known of how it ended, now that nobody tells. */
static __always_inline void unwatched_counts(struct sock *sk, struct carnet_event *event)
{
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	bool fin_came = end_payload(sk, event, state == BPF_TCP_CLOSE || state == BPF_TCP_FIN_WAIT2);

	if (state == BPF_TCP_SYN_SENT)
		event->how = CARNET_HOW_FAILED;
	else if (event->error || (state == BPF_TCP_CLOSE && !fin_came))
		event->how = CARNET_HOW_RESET;
	else
		event->how = CARNET_HOW_CLOSED;
}

/* The context of these programs is the kernel's own structure, and no helper leads to that. */
static __always_inline void sock_end_unwatched(struct bpf_sock *ctx, struct carnet_sock *sock)
{
	bool tcp = ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP;
	struct sock *sk = (struct sock *)ctx;
	struct carnet_event *event;
	struct ends ends = {};

	if (!tcp || BPF_CORE_READ((struct tcp_sock *)sk, bpf_sock_ops_cb_flags) & BPF_SOCK_OPS_STATE_CB_FLAG)
		return;
	flight_end(sock);
	if (!(sock->flags & SOCK_DECIDED) || !(sock->flags & SOCK_SENT))
		return;
	sock_ends(sk, &ends);
	event = sock_end(sock, bpf_get_netns_cookie(ctx), &ends);
	if (!event)
		return;
	unwatched_counts(sk, event);
	event_submit(event);
}

/* A socket that goes: it may never have sent anything, for its connect() failed in routing or for want of a port. */
SEC("cgroup/sock_release")
int carnet_sock_release(struct bpf_sock *ctx)
{
	struct carnet_sock *sock = bpf_sk_storage_get(&carnet_socks, ctx, NULL, 0);

	if (!sock)
		return 1;
	sock_end_unsent(sock, bpf_ktime_get_boot_ns());
	sock_end_unwatched(ctx, sock);
	return 1;
}

#endif /* CARNET_UNWATCHED_H */
