/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* getpeername() on a redirected socket answers where the application asked to go. */
#ifndef CARNET_PEERNAME_H
#define CARNET_PEERNAME_H

#include "address.h"
#include "maps.h"

static __always_inline struct carnet_sock *redirected_sock(struct bpf_sock_addr *ctx)
{
	struct carnet_sock *sock;

	if (!ctx->sk)
		return NULL;
	sock = bpf_sk_storage_get(&carnet_socks, ctx->sk, NULL, 0);
	return sock && sock->flags & SOCK_REDIRECTED ? sock : NULL;
}

SEC("cgroup/getpeername4")
int carnet_getpeername4(struct bpf_sock_addr *ctx)
{
	struct carnet_sock *sock = redirected_sock(ctx);

	/* IPV6_ADDRFORM makes an IPv4 socket of an IPv6 one, if only it leads to an IPv4 listener. */
	if (sock && ip_is_v4(sock->flow.remote.ip))
		rewrite_v4(ctx, &sock->flow.remote);
	return 1;
}

SEC("cgroup/getpeername6")
int carnet_getpeername6(struct bpf_sock_addr *ctx)
{
	struct carnet_sock *sock = redirected_sock(ctx);

	if (sock)
		rewrite_v6(ctx, &sock->flow.remote);
	return 1;
}

#endif /* CARNET_PEERNAME_H */
