/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* What a connect() is decided with, and what is done around the decision: interfaces, routes, other engines. */
#ifndef CARNET_ATTEMPT_H
#define CARNET_ATTEMPT_H

#include "decide.h"
#include "event.h"
#include "handover.h"
#include "listener.h"
#include "owner.h"

/* Everything a connect() is decided with. One per call, on the stack; bpf_loop() passes it on. */
struct attempt {
	struct bpf_sock_addr       *ctx;
	const struct carnet_policy *policy;
	struct carnet_sock         *sock;
	struct carnet_question      question;
	struct search               search; /* for a listener; what it has found is where a redirect leads */
	__u16                       family;
	__u16                       trouble; /* what was wrong with the last dead provider: LISTENER_* */
	__u32                       error;   /* with which a refused connect() fails; 0: the reason's own */
};

/*
 * Only loopback leads to a listener. A socket bound to an interface is unbound, be it to loopback: one that cannot be
 * could not be cut off either, see sockops_cut_off(). Returns LISTENER_ALIVE, or LISTENER_DEVICE where the caller may
 * not do that. A frame of its own, see carnet_connect().
 */
static __noinline int attempt_unbind(struct attempt *attempt)
{
	__u32 bound = attempt->ctx->sk->bound_dev_if;
	int nothing = 0;

	if (!bound)
		return LISTENER_ALIVE;
	if (bpf_setsockopt(attempt->ctx, SOL_SOCKET, SO_BINDTOIFINDEX, &nothing, sizeof(nothing)))
		return LISTENER_DEVICE;
	if (bound != NOWHERE_IFINDEX)
		attempt->sock->ifindex = bound;
	return LISTENER_ALIVE;
}

/*
 * A connection that is not redirected goes by the interface which was asked for: that to which the program has bound
 * the socket, where an earlier redirect has undone it; or on a flow's last hop that of the flow's application.
 */
static __noinline bool attempt_bind(struct attempt *attempt)
{
	const struct carnet_origin *origin = &attempt->sock->flow.record.origin;
	__u32 bound = attempt->ctx->sk->bound_dev_if;
	__u32 wanted = attempt->sock->ifindex;

	if (bound && bound != NOWHERE_IFINDEX)
		return true;
	if (!wanted && attempt->question.verdict == CARNET_VERDICT_PASS && attempt->sock->base &&
	    addr_equal(&origin->remote, &attempt->question.remote) &&
	    origin->netns_cookie == bpf_get_netns_cookie(attempt->ctx))
		wanted = origin->ifindex;
	attempt->sock->ifindex = 0;
	if (wanted == bound)
		return true;
	return !bpf_setsockopt(attempt->ctx, SOL_SOCKET, SO_BINDTOIFINDEX, &wanted, sizeof(wanted));
}

/*
 * Is this the last hop of a flow to its application's own loopback, dialled in another network namespace? There the
 * address is another machine's: a service on the host would lead a container to what listens on the host's loopback.
 */
static __noinline bool attempt_is_elsewhere(struct attempt *attempt)
{
	const struct carnet_origin *origin = &attempt->sock->flow.record.origin;
	const struct carnet_addr *remote = &attempt->question.remote;

	return attempt->sock->base && ip_is_loopback(remote->ip) && addr_equal(remote, &origin->remote) &&
	       origin->netns_cookie != bpf_get_netns_cookie(attempt->ctx);
}

/* The errno with which the destination has just refused a flow, or 0. */
static __always_inline __u32 refused_lately(const struct carnet_addr *remote, __u64 netns, __u64 now)
{
	struct carnet_refused_key key = { .netns = netns, .remote = *remote };
	const struct carnet_refusal *refusal = bpf_map_lookup_elem(&carnet_refused, &key);

	return refusal && refusal->until > now ? refusal->error : 0;
}

/* The errno of a destination without a route, or 0. */
static __always_inline __u32 no_route(const struct carnet_addr *remote, __u64 netns)
{
	struct carnet_route_key key = { .prefix_len = 32 + 128 };
	const struct carnet_routing *routing;
	__u32 zero = 0, *error;

	routing = bpf_map_lookup_elem(&carnet_routing, &zero);
	if (!routing || routing->netns != netns)
		return 0;
	key.slot = routing->slot;
	__builtin_memcpy(key.prefix, remote->ip, sizeof(key.prefix));
	error = bpf_map_lookup_elem(&carnet_routes, &key);
	return error ? *error : 0;
}

/*
 * connect() to a listener succeeds, whatever becomes of the flow. So what is known to fail is refused before: where the
 * kernel has no route, where nobody was a moment ago, where the uid's share of the hand-over is used up.
 */
static __noinline void attempt_foresee(struct attempt *attempt, const struct carnet_config *config, __u64 now)
{
	struct carnet_question *question = &attempt->question;
	const struct carnet_sock *sock = attempt->sock;
	__u32 i = question->provider;
	__u64 netns;

	if (i >= CARNET_MAX_PROVIDERS)
		return;
	if (handover_share_used(sock->flow.uid, config)) {
		carnet_count(CARNET_COUNT_OVER_SHARE);
		return answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_SHARE);
	}
	/* A way by an interface that was asked for is not in the table of routes. */
	if (question->verdict != CARNET_VERDICT_REDIRECT || sock->ifindex || sock->flow.record.origin.ifindex ||
	    !(provider_at(attempt->policy, i)->flags & CARNET_PROVIDER_ROUTES))
		return;
	netns = bpf_get_netns_cookie(attempt->ctx);
	attempt->error = refused_lately(&question->remote, netns, now);
	if (attempt->error)
		return answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_LATELY);
	attempt->error = no_route(&question->remote, netns);
	if (attempt->error)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NO_ROUTE);
}

#define CLAIM_LIFE 1000000000ULL /* ns; programs of one call follow each other at once */

/* Has another engine redirected this very connect() to where it leads now? */
static __noinline bool attempt_is_claimed(struct attempt *attempt, const struct carnet_config *config)
{
	const struct carnet_claim *claim = bpf_sk_storage_get(&carnet_claims, attempt->ctx->sk, NULL, 0);

	/* It was in this call: an old one, perhaps of an engine that has gone, says nothing. */
	return claim && claim->engine && claim->engine != config->engine &&
	       addr_equal(&claim->at, &attempt->question.remote) && claim->caller == bpf_get_current_pid_tgid() &&
	       bpf_ktime_get_boot_ns() - claim->time < CLAIM_LIFE;
}

/* Tells other engines whether this connect() was redirected. False: there is no memory for it. */
static __noinline bool attempt_claim(struct attempt *attempt, const struct carnet_config *config)
{
	bool redirected = attempt->question.verdict == CARNET_VERDICT_REDIRECT;
	struct carnet_claim *claim = bpf_sk_storage_get(&carnet_claims, attempt->ctx->sk, NULL,
							redirected ? BPF_SK_STORAGE_GET_F_CREATE : 0);

	if (claim && redirected) {
		claim->engine = config->engine;
		claim->at = attempt->search.found;
		claim->caller = bpf_get_current_pid_tgid();
		claim->time = bpf_ktime_get_boot_ns();
	} else if (claim && claim->engine == config->engine) {
		claim->engine = 0;
	}
	return claim || !redirected;
}

/*
 * A connection of the kernel's own: a kernel thread's (NFS, a further subflow of an MPTCP connection), or one that it
 * makes in the context of a mount or the like, which only CAP_SYS_ADMIN can ask for. Other sockets of the kernel's that
 * a process connects are that process's.
 */
__noinline int carnet_is_kernels(struct bpf_sock_addr *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct mptcp_sock *connection;
	const struct cred *cred;
	__u64 caps = 0; /* before Linux 6.3 two words, the lower one first */
	struct sock *sock;

	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 1;
	if (!ctx->sk)
		return 0;
	sock = kernel_sock(ctx->sk);
	connection = mptcp_connection(ctx->sk);
	if (connection)
		return BPF_CORE_READ(connection, first) != sock;
	if (!sock || !BPF_CORE_READ_BITFIELD_PROBED(sock, sk_kern_sock))
		return 0;
	/* The TCP socket inside an AF_SMC one, or the one that it has fallen back to, which has the file then. */
	if (BPF_CORE_READ(sock, sk_socket, file))
		return 0;
	if (bpf_core_field_exists(((struct tcp_sock *)sock)->syn_smc) &&
	    BPF_CORE_READ_BITFIELD_PROBED((struct tcp_sock *)sock, syn_smc))
		return 0;
	cred = BPF_CORE_READ(task, cred);
	bpf_core_read(&caps, sizeof(caps), &cred->cap_effective);
	return caps >> CAP_SYS_ADMIN & 1 && !BPF_CORE_READ(cred, user_ns, level);
}

/* Tells of a connection that goes its way without a decision. Nothing is kept, and its end is not told. */
static __noinline void attempt_left_alone(struct attempt *attempt, const struct carnet_config *config, __u32 reason,
					  __u64 now)
{
	const struct carnet_sock *sock = attempt->sock;
	struct carnet_event *event =
		event_begin(CARNET_EVENT_CONNECT, now, bpf_get_socket_cookie(attempt->ctx));

	if (!event)
		return;
	/* A further subflow is of its connection's flow, also where the first one has ended. */
	if (sock && (sock->flags & SOCK_DECIDED || (reason == CARNET_REASON_KERNEL && sock->flow.record.version)))
		event_record(event, &sock->flow.record);
	else
		record_begin(&event->record, config, attempt->ctx, &attempt->question.remote, attempt->family,
			     IPPROTO_TCP, 0, now);
	event->remote = attempt->question.remote;
	event->verdict = CARNET_VERDICT_PASS;
	event->reason = reason;
	event_caller(event);
	event_submit(event);
}

#endif /* CARNET_ATTEMPT_H */
