/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The socket options. docs/socket-options.md is their reference. Two rules for everything else that passes here: an
 * option that is not ours is left exactly as the kernel answered it, and so is one of ours that somebody before us has
 * answered.
 */
#ifndef CARNET_SOCKOPT_H
#define CARNET_SOCKOPT_H

#include "event.h"
#include "owner.h"

#define CONTEXT_BLOCK 64
#define SOCKOPT_PAGE  4096 /* what a program can see and return of an option's value */

struct sockaddr_v4 {
	__u16  family;
	__be16 port;
	__be32 ip;
	__u8   zero[8];
};

struct sockaddr_v6 {
	__u16           family;
	__be16          port;
	__be32          flow_info;
	struct ip_words ip;
	__u32           scope;
};

/* What a get hook does: fail with an errno, answer with so many bytes, or return 1 to leave the option alone. */
static __always_inline int get_fail(int err)
{
	bpf_set_retval(-err);
	return 0;
}

/* Two stores the compiler must not merge: the verifier wants each field written by itself. */
static __always_inline int get_answer(struct bpf_sockopt *ctx, int size)
{
	*(volatile int *)&ctx->optlen = size;
	*(volatile int *)&ctx->retval = 0;
	return 1;
}

static __always_inline bool is_tcp(struct bpf_sockopt *ctx)
{
	return ctx->sk && ctx->sk->type == SOCK_STREAM &&
	       (ctx->sk->protocol == IPPROTO_TCP || ctx->sk->protocol == IPPROTO_MPTCP);
}

/* The caller's provider handle, or 0. */
static __always_inline __u32 caller_handle(const struct carnet_config *config)
{
	__u32 slot = policy_slot_now(config);
	const struct carnet_policy *policy = carnet_policy_at(slot);
	__u32 i = owning_provider(carnet_owned_by_caller(OWNED_ANY, slot));

	return policy ? provider_handle(policy, i) : 0;
}

static __always_inline int get_records(struct bpf_sockopt *ctx, struct carnet_sock *sock,
				       const struct carnet_config *config)
{
	void *value = ctx->optval, *end = ctx->optval_end;
	int err;

	if (value + sizeof(sock->flow.record) > end)
		return get_fail(EMSGSIZE);
	err = record_stamp(&sock->flow.record, config, bpf_ktime_get_boot_ns());
	if (err)
		return get_fail(err);
	__builtin_memcpy(value, &sock->flow.record, sizeof(sock->flow.record));
	return get_answer(ctx, sizeof(sock->flow.record));
}

/*
 * The structure grows at its end, so an old caller's shorter buffer gets what fits of it. `sock` holds the same fields
 * in another order; each goes to its place if the buffer has room for it whole.
 */
#define GET_FLOW_FIELD(field, source)                                                \
	do {                                                                         \
		if ((void *)&flow->field + sizeof(flow->field) > end)                \
			return get_answer(ctx, __builtin_offsetof(struct carnet_flow, field)); \
		__builtin_memcpy(&flow->field, source, sizeof(flow->field));         \
	} while (0)

static __always_inline int get_flow(struct bpf_sockopt *ctx, struct carnet_sock *sock)
{
	const struct carnet_records *record = &sock->flow.record;
	struct carnet_flow *flow = ctx->optval;
	void *end = ctx->optval_end;
	__u16 version = CARNET_ABI_VERSION, size = sizeof(*flow);

	if ((void *)&flow->flow > end)
		return get_fail(EMSGSIZE);
	GET_FLOW_FIELD(version, &version);
	GET_FLOW_FIELD(size, &size);
	GET_FLOW_FIELD(depth, &record->depth);
	GET_FLOW_FIELD(flow, record->flow);
	GET_FLOW_FIELD(origin, &record->origin);
	GET_FLOW_FIELD(remote, &sock->flow.remote);
	GET_FLOW_FIELD(chain, record->chain);
	return get_answer(ctx, sizeof(*flow));
}

/*
 * A filter without a context is an errno of its own: an answer of 0 bytes cannot be given, because the kernel takes
 * optlen 0 for "leave the caller's length as it is".
 */
static __always_inline int get_context(struct bpf_sockopt *ctx, struct carnet_sock *sock)
{
	__u8 *value = ctx->optval, *end = ctx->optval_end;
	__u32 id = sock->flow.context, size, done = 0;
	const struct carnet_context *context;

	if (!id)
		return get_fail(ENOENT);
	context = bpf_map_lookup_elem(&carnet_contexts, &id);
	if (!context)
		return get_fail(EIDRM); /* redirected by a policy of long ago */
	size = context->size;
	if (size > CARNET_CONTEXT_MAX)
		size = CARNET_CONTEXT_MAX;
	/* In blocks, then byte by byte: one long loop of bytes takes the verifier half a second. */
	for (__u32 i = 0; i < CARNET_CONTEXT_MAX / CONTEXT_BLOCK && (i + 1) * CONTEXT_BLOCK <= size; i++) {
		done = i * CONTEXT_BLOCK;
		if (value + done + CONTEXT_BLOCK > end)
			return get_fail(EMSGSIZE);
		__builtin_memcpy(value + done, &context->bytes[done], CONTEXT_BLOCK);
		done += CONTEXT_BLOCK;
	}
	for (__u32 i = 0; i < CONTEXT_BLOCK && done < size && done < CARNET_CONTEXT_MAX; i++, done++) {
		if (value + done + 1 > end)
			return get_fail(EMSGSIZE);
		value[done] = context->bytes[done];
	}
	return get_answer(ctx, size);
}

static __always_inline int get_state(struct bpf_sockopt *ctx, struct carnet_sock *sock,
				     const struct carnet_config *config)
{
	__u32 *value = ctx->optval;
	void *end = ctx->optval_end;
	__u32 state = CARNET_NOT_REDIRECTED;

	if ((void *)(value + 1) > end)
		return get_fail(EMSGSIZE);
	/* Another engine has answered. Where that knows nothing of the socket, this one may. */
	if (ctx->retval == 0 && *value != CARNET_NOT_REDIRECTED)
		return 1;
	if (sock && sock->flags & (SOCK_ACCEPTED | SOCK_RECORD))
		state = record_state(&sock->flow.record, caller_handle(config));
	*value = state;
	return get_answer(ctx, sizeof(*value));
}

/* For bpf_loop(): ends it when the subflow's handshake is over. */
static long handshake_is_over(__u32 turn, struct sock **subflow)
{
	return BPF_CORE_READ(*subflow, __sk_common.skc_state) != BPF_TCP_SYN_RECV;
}

#define HANDSHAKE_TURNS (1 << 20) /* some ten milliseconds; what is waited for takes microseconds */

/*
 * What is known of the socket that is asked, or NULL. accept() gives an MPTCP connection away before the kernel, on
 * another processor, has come to the end of its first subflow's handshake, where the record passes: that is waited for.
 * A plain TCP socket needs no wait here: the kernel asks with the socket's lock taken.
 */
static __noinline struct carnet_sock *sock_asked(struct bpf_sockopt *ctx)
{
	struct carnet_sock *sock = bpf_sk_storage_get(&carnet_socks, ctx->sk, NULL, 0);
	struct bpf_sock *asked = ctx->sk;
	struct mptcp_sock *connection = NULL;
	struct sock *subflow;

	/* The flags are written last. */
	if ((sock && sock->flags) || asked->protocol != IPPROTO_MPTCP || !bpf_core_type_exists(struct mptcp_sock))
		return sock;
	/* By way of the stack: no helper turns what options are asked of into a pointer to the kernel's structure. */
	bpf_probe_read_kernel(&connection, sizeof(connection), &asked);
	subflow = BPF_CORE_READ(connection, first);
	if (!subflow || BPF_CORE_READ(subflow, __sk_common.skc_state) != BPF_TCP_SYN_RECV)
		return sock;
	bpf_loop(HANDSHAKE_TURNS, handshake_is_over, &subflow, 0);
	return bpf_sk_storage_get(&carnet_socks, ctx->sk, NULL, 0);
}

static __always_inline int get_carnet(struct bpf_sockopt *ctx, int optname)
{
	const struct carnet_config *config = carnet_config_now();
	int before = ctx->retval;
	struct carnet_sock *sock;
	bool known;

	if (optname < CARNET_RECORDS || optname > CARNET_STATE || !config)
		return 1;
	/* Answered already: another engine's socket. But a state is answered by every engine. */
	if (before == 0 && optname != CARNET_STATE)
		return 1;
	if (!is_tcp(ctx))
		return get_fail(EOPNOTSUPP);
	sock = sock_asked(ctx);
	known = sock && sock->flags & (SOCK_ACCEPTED | SOCK_LOST | SOCK_RECORD);
	/* Answered or refused by another engine. The two errors are the kernel's own, where nobody has done so. */
	if (!known && before != -EOPNOTSUPP && before != -ENOPROTOOPT)
		return 1;
	if (optname == CARNET_STATE)
		return get_state(ctx, sock, config);
	if (sock && sock->flags & SOCK_LOST)
		return get_fail(EIDRM);
	if (!sock || !(sock->flags & SOCK_ACCEPTED))
		return get_fail(ENODATA);
	if (optname == CARNET_RECORDS)
		return get_records(ctx, sock, config);
	if (optname == CARNET_FLOW)
		return get_flow(ctx, sock);
	return get_context(ctx, sock);
}

static __always_inline int answer_original_v4(struct bpf_sockopt *ctx, const struct carnet_addr *remote)
{
	struct sockaddr_v4 *addr = ctx->optval;
	void *end = ctx->optval_end;
	int optlen = ctx->optlen;

	if ((void *)(addr + 1) > end)
		return get_fail(EINVAL);
	if (!remote)
		return get_fail(ENOENT);
	addr->family = AF_INET;
	addr->port = bpf_htons(remote->port);
	addr->ip = ip_words(remote->ip).w[3];
	__builtin_memset(addr->zero, 0, sizeof(addr->zero));
	return get_answer(ctx, optlen <= SOCKOPT_PAGE ? optlen : (int)sizeof(*addr));
}

static __always_inline int answer_original_v6(struct bpf_sockopt *ctx, const struct carnet_addr *remote)
{
	struct sockaddr_v6 *addr = ctx->optval;
	void *end = ctx->optval_end;
	int optlen = ctx->optlen;

	if ((void *)(addr + 1) > end)
		return get_fail(EINVAL);
	if (!remote)
		return get_fail(ENOENT);
	addr->family = AF_INET6;
	addr->port = bpf_htons(remote->port);
	addr->flow_info = 0;
	addr->ip = ip_words(remote->ip);
	addr->scope = remote->scope;
	return get_answer(ctx, optlen <= SOCKOPT_PAGE ? optlen : (int)sizeof(*addr));
}

/*
 * SO_ORIGINAL_DST as netfilter answers it: a sockaddr of the level's family, EINVAL where it does not fit, ENOENT where
 * there is nothing; the length the caller gave is not changed.
 */
static __always_inline int get_original_dst(struct bpf_sockopt *ctx, int level)
{
	const struct carnet_addr *remote = NULL;
	struct carnet_sock *sock;
	bool v4 = false;

	if (ctx->retval == 0 || !is_tcp(ctx))
		return 1;
	sock = sock_asked(ctx);
	if (!sock || !(sock->flags & (SOCK_ACCEPTED | SOCK_LOST)))
		return 1;
	/* In one branch: the verifier of Linux 6.1 would not see that the address is there where the flag is not. */
	if (!(sock->flags & SOCK_LOST)) {
		remote = &sock->flow.remote;
		v4 = ip_is_v4(remote->ip);
	}
	if (level == SOL_IP)
		return answer_original_v4(ctx, v4 ? remote : NULL);
	if (v4)
		remote = NULL;
	/* IPv4 sockets do not have this level, unless a flow to an IPv6 destination came to one. */
	if (!remote && ctx->sk->family == AF_INET)
		return 1;
	return answer_original_v6(ctx, remote);
}

SEC("cgroup/getsockopt")
int carnet_getsockopt(struct bpf_sockopt *ctx)
{
	int level = ctx->level, optname = ctx->optname;

	if (level == SOL_CARNET)
		return get_carnet(ctx, optname);
	if (optname == SO_ORIGINAL_DST && (level == SOL_IP || level == SOL_IPV6))
		return get_original_dst(ctx, level);
	return 1;
}

/* May the caller set this record: is it the owner of the newest provider? */
static __always_inline bool caller_owns_newest(const struct carnet_records *blob, const struct carnet_config *config)
{
	__u32 slot = policy_slot_now(config);
	__u32 i = provider_with_handle(record_newest(blob), slot);

	if (i >= CARNET_MAX_PROVIDERS) {
		slot = slot_before(slot);
		i = provider_with_handle(record_newest(blob), slot);
	}
	return i < CARNET_MAX_PROVIDERS && carnet_owned_by_caller(i, slot) & OWNED_WANTED;
}

static __always_inline void set_event(struct bpf_sockopt *ctx, struct carnet_sock *sock, __u32 handle, int err)
{
	struct carnet_event *event = event_begin(CARNET_EVENT_SET, bpf_ktime_get_boot_ns(), 0);

	if (!event)
		return;
	if (sock)
		event_record(event, &sock->flow.record);
	event->handle = handle;
	event->error = err;
	event_caller(event);
	event_submit(event);
}

/* 0, or why not. `taken` is the socket's storage where the record was taken. */
static __always_inline int set_records(struct bpf_sockopt *ctx, const struct carnet_config *config,
				       struct carnet_sock **taken)
{
	const struct carnet_records *blob = ctx->optval;
	void *end = ctx->optval_end;
	int optlen = ctx->optlen;
	struct carnet_sock *sock;
	__u32 state;
	int err;

	if (!is_tcp(ctx))
		return EOPNOTSUPP;
	state = ctx->sk->state;
	if (state == BPF_TCP_LISTEN)
		return EINVAL;
	if (state != BPF_TCP_CLOSE)
		return EISCONN;
	if (optlen != sizeof(*blob) || (void *)(blob + 1) > end)
		return EINVAL;
	err = record_check(blob, config, bpf_ktime_get_boot_ns());
	if (err)
		return err;
	if (!caller_owns_newest(blob, config))
		return EACCES;
	sock = bpf_sk_storage_get(&carnet_socks, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!sock)
		return ENOBUFS;
	/* Accepted, and reset since: its own record must stay. */
	if (sock->flags & (SOCK_ACCEPTED | SOCK_LOST))
		return EISCONN;
	/* A connect() that failed in routing is still to be told of, and its record is about to go. */
	sock_end_unsent(sock, bpf_ktime_get_boot_ns());
	sock->flow.record = *blob;
	sock->base = blob->depth;
	sock->base_floor = record_floor(blob);
	sock->base_flags = blob->origin.flags;
	sock->flags = (sock->flags & ~SOCK_INFERRED) | SOCK_RECORD;
	*taken = sock;
	return 0;
}

SEC("cgroup/setsockopt")
int carnet_setsockopt(struct bpf_sockopt *ctx)
{
	int level = ctx->level, optname = ctx->optname, optlen = ctx->optlen;
	const struct carnet_config *config;
	struct carnet_sock *taken = NULL;
	int err, before;

	if (level != SOL_CARNET || optname != CARNET_RECORDS)
		return 1;
	/* Taken by another engine already, or refused by a program. But an engine's ESTALE may be for our record. */
	before = bpf_get_retval();
	if (optlen == -1 || (before && before != -ESTALE))
		return 1;
	config = carnet_config_now();
	if (!config)
		return 1;
	err = set_records(ctx, config, &taken);
	set_event(ctx, taken, taken ? record_newest(&taken->flow.record) : 0, err);
	if (err) {
		bpf_set_retval(-err);
		return 0;
	}
	if (before)
		bpf_set_retval(0);
	*(volatile int *)&ctx->optlen = -1;
	return 1;
}

#endif /* CARNET_SOCKOPT_H */
