/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * getsockname() on a connection that a service has accepted answers where the application asked to go, as it does on
 * one that a tproxy rule has brought. Only for providers that want it: to all others their own address is what it is.
 */
#ifndef CARNET_SOCKNAME_H
#define CARNET_SOCKNAME_H

#include "address.h"
#include "owner.h"

/* What is known of an accepted socket whose provider wants the destination for its own address, or NULL. */
static __always_inline struct carnet_sock *renamed_sock(struct bpf_sock_addr *ctx)
{
	const struct carnet_config *config = carnet_config_now();
	const struct carnet_policy *policy;
	struct bpf_sock *sk = ctx->sk;
	struct carnet_sock *sock;
	__u32 i, slot;

	if (!config || !sk)
		return NULL;
	sock = bpf_sk_storage_get(&carnet_socks, sk, NULL, 0);
	if (!sock || !(sock->flags & SOCK_ACCEPTED))
		return NULL;
	/* Disconnected since, with AF_UNSPEC, to be used again. After a reset the port is still there. */
	if (!sk->dst_port)
		return NULL;
	slot = policy_slot_now(config);
	policy = carnet_policy_at(slot);
	i = provider_with_handle(sock->flow.handle, slot);
	if (!policy || i >= CARNET_MAX_PROVIDERS)
		return NULL;
	return provider_at(policy, i)->flags & CARNET_PROVIDER_SOCKNAME ? sock : NULL;
}

SEC("cgroup/getsockname4")
int carnet_getsockname4(struct bpf_sock_addr *ctx)
{
	struct carnet_sock *sock = renamed_sock(ctx);

	/* An IPv4 socket has no way to say an IPv6 destination. */
	if (sock && ip_is_v4(sock->flow.remote.ip))
		rewrite_v4(ctx, &sock->flow.remote);
	return 1;
}

SEC("cgroup/getsockname6")
int carnet_getsockname6(struct bpf_sock_addr *ctx)
{
	struct carnet_sock *sock = renamed_sock(ctx);

	if (sock)
		rewrite_v6(ctx, &sock->flow.remote);
	return 1;
}

#endif /* CARNET_SOCKNAME_H */
