/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* connect(): decide, look the listener up, lengthen the record, rewrite the address. */
#ifndef CARNET_CONNECT_H
#define CARNET_CONNECT_H

#include "datagram.h"
#include "decide.h"
#include "event.h"
#include "flight.h"
#include "handover.h"
#include "owner.h"

#define LISTENER_ALIVE    0
#define LISTENER_DEAD     1
#define LISTENER_STRANGER 2
#define LISTENER_FAMILY   3 /* no address this socket could reach */
#define LISTENER_DEVICE   4 /* the socket is bound to an interface, and its caller may not unbind it */

#define NOBODY_LISTENS 0x40000000

/* Who listens at an address of the connecting socket's network namespace: its owners, or NOBODY_LISTENS. */
__noinline int carnet_listener_at(struct bpf_sock_addr *ctx, const struct carnet_addr *at, __u32 slot)
{
	struct bpf_sock_tuple tuple = {};
	struct ip_words words;
	struct bpf_sock *sk;
	int found = NOBODY_LISTENS;

	if (!at)
		return found;
	words = ip_words(at->ip);

	if (ip_is_v4(at->ip)) {
		tuple.ipv4.daddr = words.w[3];
		tuple.ipv4.dport = bpf_htons(at->port);
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, &words, sizeof(words));
		tuple.ipv6.dport = bpf_htons(at->port);
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return found;
	if (sk->state == BPF_TCP_LISTEN)
		found = owned_listener(sk, slot);
	bpf_sk_release(sk);
	return found;
}

/* Everything a connect() is decided with. One per call, on the stack; bpf_loop() passes it on. */
struct attempt {
	struct bpf_sock_addr       *ctx;
	const struct carnet_policy *policy;
	struct carnet_sock         *sock;
	struct carnet_question      question;
	struct carnet_addr          target;
	__u16                       family;
	__u16                       trouble; /* what was wrong with the last dead provider: LISTENER_* */
	__u32                       error;   /* with which a refused connect() fails; 0: the reason's own */
};

/* Can this socket reach such a listener at all? IPv6 sockets reach IPv4 unless v6-only or bound to an IPv6 address. */
static __always_inline bool reaches(struct bpf_sock_addr *ctx, __u32 family, bool v4)
{
	struct bpf_sock *sk = ctx->sk;
	struct sock *sock;
	__u8 source[16] __attribute__((aligned(4)));
	bool bound, bound_v4;

	if (family == AF_INET)
		return v4;
	if (!sk)
		return false;
	ip_from_v6(source, sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]);
	bound = !ip_is_unspecified(source);
	bound_v4 = ip_is_v4(source);
	if (!v4)
		return !bound_v4;
	if (bound && !bound_v4)
		return false;
	sock = kernel_sock(sk);
	return sock && !BPF_CORE_READ_BITFIELD_PROBED(sock, __sk_common.skc_ipv6only);
}

/*
 * A search for a provider's listener. Plain data, so that the function below is verified once and not at every call;
 * short fields, because stack is scarce (see carnet_connect()).
 */
struct search {
	__u16              slot;
	__u16              provider;
	__u16              family; /* of the socket */
	__u16              v4;     /* the destination is IPv4 */
	struct carnet_addr found;
};

/* Looks for a listener of the provider which is alive, its owner's, and can be reached. Returns LISTENER_*. */
__noinline int carnet_listener_of(struct bpf_sock_addr *ctx, struct search *search)
{
	const struct carnet_provider *provider;
	const struct carnet_policy *policy;
	int worst = LISTENER_FAMILY;
	__u32 index;

	if (!search)
		return worst;
	index = search->provider;
	policy = carnet_policy_at(search->slot);
	if (!policy || index >= CARNET_MAX_PROVIDERS)
		return worst;
	provider = &policy->provider[index];
	/* Two rounds: listeners of the destination's own family first, they need no v4-mapped address. */
	for (__u32 i = 0; i < 2 * CARNET_MAX_LISTENERS; i++) {
		__u32 at = i & (CARNET_MAX_LISTENERS - 1);
		__u32 owned, v4;

		if (at >= provider->listeners)
			continue;
		/* SO_ORIGINAL_DST answers in the socket's own family, and an unaware service asks nothing else. */
		if (i >= CARNET_MAX_LISTENERS && provider->flags & CARNET_PROVIDER_UNAWARE)
			break;
		search->found = provider->listener[at];
		v4 = ip_is_v4(search->found.ip);
		if ((v4 == search->v4) != (i < CARNET_MAX_LISTENERS) || !reaches(ctx, search->family, v4))
			continue;
		owned = carnet_listener_at(ctx, &search->found, search->slot);
		if (owned == NOBODY_LISTENS) {
			if (worst == LISTENER_FAMILY)
				worst = LISTENER_DEAD;
			continue;
		}
		if (owned & (1U << index))
			return LISTENER_ALIVE;
		worst = LISTENER_STRANGER;
	}
	return worst;
}

/* Puts in what the kernel takes an unspecified destination for: 0.0.0.0 is the address to which the socket is bound. */
static __always_inline void unspecified_means(struct bpf_sock_addr *ctx, __u8 ip[16])
{
	__be32 loopback = bpf_htonl(0x7f000001), bound = 0;
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		bound = sk->src_ip4;
	if (ip_is_v4(ip))
		ip_from_v4(ip, bound ? bound : loopback);
	else if (sk && !sk->src_ip6[0] && !sk->src_ip6[1] && sk->src_ip6[2] == V4_MAPPED_WORD)
		ip_from_v4(ip, loopback);
	else
		ip_from_v6(ip, 0, 0, 0, bpf_htonl(1));
}

/* Does the provider itself listen where its explicit proxy was dialled? Else the connection is refused. */
static __always_inline bool dialled_owner(struct attempt *attempt, __u32 provider)
{
	struct carnet_question *question = &attempt->question;
	__u32 owned;

	attempt->target = question->remote;
	if (ip_is_unspecified(attempt->target.ip))
		unspecified_means(attempt->ctx, attempt->target.ip);
	owned = carnet_listener_at(attempt->ctx, &attempt->target, question->slot);
	if (owned & (1U << provider))
		return true;
	answer(question, CARNET_VERDICT_REFUSE, owned == NOBODY_LISTENS ? CARNET_REASON_DEAD : CARNET_REASON_STRANGER);
	return false;
}

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
 * A connection that is not redirected goes by the interface which was asked for: that to which the program has bound the
 * socket, where an earlier redirect has undone it; or on a flow's last hop that of the flow's application.
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

/* Asks the decision; where it names a provider that turns out dead, marks it so and asks again. 1 ends the loop. */
static long attempt_once(__u32 round, void *data)
{
	struct attempt *attempt = data;
	struct carnet_question *question = &attempt->question;
	const struct carnet_provider *provider;
	struct search search;
	__u32 i;

	carnet_decide(question);
	i = question->provider;
	if (i >= CARNET_MAX_PROVIDERS || question->verdict == CARNET_VERDICT_REFUSE)
		return 1;
	if (question->verdict == CARNET_VERDICT_REDIRECT) {
		search = (struct search){
			.slot = question->slot,
			.provider = i,
			.family = attempt->family,
			.v4 = ip_is_v4(question->remote.ip),
		};
		attempt->trouble = carnet_listener_of(attempt->ctx, &search);
		attempt->target = search.found;
		if (attempt->trouble == LISTENER_ALIVE)
			attempt->trouble = attempt_unbind(attempt);
		if (attempt->trouble != LISTENER_ALIVE) {
			question->dead |= 1U << i;
			return 0;
		}
	}
	if (question->verdict == CARNET_VERDICT_DIRECT && !dialled_owner(attempt, i))
		return 1;
	/* The runaway guard: a process outside every owner may carry a flow round and round. */
	provider = &attempt->policy->provider[i];
	if (provider->in_flight_limit &&
	    (__u32)carnet_flight_clients(provider->handle, &question->remote) >= provider->in_flight_limit)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_RUNAWAY);
	return 1;
}

/* Is this address one of this host's, so that a wildcard listener answers there? */
static __always_inline bool is_local(const struct carnet_addr *addr)
{
	return ip_is_loopback(addr->ip) || bpf_map_lookup_elem(&carnet_local, addr->ip);
}

/* Who owns the socket that listens at this address of the host's own, by whatever name it is dialled; 0: nobody. */
__noinline int carnet_local_listener(struct bpf_sock_addr *ctx, const struct carnet_addr *remote, __u32 slot)
{
	struct carnet_addr at;
	int owned;

	if (!remote)
		return 0;
	/* A copy, because Linux 6.1 takes no map key out of a global function's argument. */
	at = *remote;
	if (ip_is_unspecified(at.ip))
		unspecified_means(ctx, at.ip);
	if (!is_local(&at))
		return 0;
	owned = carnet_listener_at(ctx, &at, slot);
	return owned == NOBODY_LISTENS ? 0 : owned;
}

/* Index of the provider whose listener the application dialled itself, by whatever local address, or CARNET_NONE. */
__noinline int carnet_dialled_listener(struct bpf_sock_addr *ctx, const struct carnet_addr *remote, __u32 slot)
{
	struct carnet_listener_key key = { .slot = slot };
	__u32 on_port, *exact;

	if (!remote)
		return CARNET_NONE;
	on_port = carnet_listeners_on(remote->port, slot);
	if (!on_port)
		return CARNET_NONE;
	key.at = *remote;
	if (ip_is_unspecified(key.at.ip))
		unspecified_means(ctx, key.at.ip);
	exact = bpf_map_lookup_elem(&carnet_listeners, &key);
	if (exact)
		return owning_provider(*exact);
	return owning_provider(carnet_local_listener(ctx, remote, slot) & on_port);
}

/* Whose socket: fills the dialer, and says whether this connection is ours to decide on without a record. */
static __always_inline bool attempt_whose(struct attempt *attempt)
{
	struct carnet_question *question = &attempt->question;
	void *sk = attempt->ctx->sk;
	__u32 owned = owned_sock(sk, question->slot);

	question->dialer = owning_provider(owned);
	/* A socket may have been made elsewhere and passed on. */
	if (made_elsewhere(sk)) {
		owned |= carnet_owned_by_caller(question->slot);
		if (question->dialer == CARNET_NONE)
			question->dialer = owning_provider(owned);
	}
	return owned & OWNED_GOVERNED;
}

/* A service's connection to another socket of its own, such as a helper's: no flow, and nobody else's business. */
static __always_inline bool is_internal(struct attempt *attempt)
{
	struct carnet_question *question = &attempt->question;
	__u32 dialer = question->dialer;

	if (dialer >= CARNET_MAX_PROVIDERS || question->listener != CARNET_NONE)
		return false;
	return carnet_local_listener(attempt->ctx, &question->remote, question->slot) & (1U << dialer);
}

/* Provides the record this connection starts from. False: there is none, and it is not ours. */
static __noinline bool attempt_record(struct attempt *attempt, const struct carnet_config *config, bool governed,
					   __u64 now)
{
	struct carnet_question *question = &attempt->question;
	struct carnet_sock *sock = attempt->sock;
	struct carnet_records *record = &sock->flow.record;
	int found = FLIGHT_NONE;
	__u32 ifindex;

	sock->cookie = bpf_get_socket_cookie(attempt->ctx);
	if (sock->flags & SOCK_RECORD) {
		record_rewind(record, sock->base, sock->base_floor);
		return true;
	}
	if (question->dialer < CARNET_MAX_PROVIDERS) {
		const struct carnet_provider *dialer = &attempt->policy->provider[question->dialer];

		if (dialer->flags & CARNET_PROVIDER_UNAWARE)
			found = carnet_flight_infer(dialer->handle, &question->remote, record);
	}
	if (found == FLIGHT_INFERRED) {
		record->origin.flags |= CARNET_ORIGIN_INFERRED;
		sock->flags |= SOCK_RECORD | SOCK_INFERRED;
		sock->base = record->depth;
		sock->base_floor = record_floor(record);
		return true;
	}
	if (found == FLIGHT_NONE && (!governed || is_internal(attempt)))
		return false;
	ifindex = attempt->ctx->sk->bound_dev_if;
	if (!ifindex || ifindex == NOWHERE_IFINDEX)
		ifindex = sock->ifindex;
	record_begin(record, config, attempt->ctx, &question->remote, attempt->family, IPPROTO_TCP, ifindex, now);
	if (found == FLIGHT_AMBIGUOUS)
		record->origin.flags |= CARNET_ORIGIN_AMBIGUOUS;
	sock->base = 0;
	sock->base_floor = -1;
	return true;
}

static __always_inline void attempt_event(struct attempt *attempt, __u64 now, int error)
{
	struct carnet_question *question = &attempt->question;
	const struct carnet_policy *policy = attempt->policy;
	struct carnet_event *event = event_begin(CARNET_EVENT_CONNECT, now, bpf_get_socket_cookie(attempt->ctx));

	if (!event)
		return;
	if (attempt->sock) {
		event_record(event, &attempt->sock->flow.record);
		event->base = attempt->sock->base;
		event->dialer = attempt->sock->dialer;
	}
	event->remote = question->remote;
	event->verdict = question->verdict;
	event->reason = question->reason;
	if (question->provider < CARNET_MAX_PROVIDERS)
		event->handle = policy->provider[question->provider].handle;
	if (question->rule < CARNET_MAX_RULES)
		event->filter = policy->rule[question->rule].filter;
	event->error = error;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	event_submit(event);
}

/*
 * A connection of the kernel's own: a kernel thread's (NFS, a further subflow of an MPTCP connection), or one that it
 * makes in the context of a mount or the like, which only CAP_SYS_ADMIN can ask for. Other sockets of the kernel's that
 * a process connects are that process's: an AF_SMC socket has a TCP socket inside.
 */
__noinline int carnet_is_kernels(struct bpf_sock_addr *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct mptcp_sock *connection = NULL;
	const struct cred *cred;
	__u64 caps = 0; /* before Linux 6.3 two words, the lower one first */
	struct sock *sock;

	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 1;
	if (!ctx->sk)
		return 0;
	sock = kernel_sock(ctx->sk);
	if (bpf_core_type_exists(struct mptcp_sock))
		connection = bpf_skc_to_mptcp_sock(ctx->sk);
	if (connection)
		return BPF_CORE_READ(connection, first) != sock;
	if (!sock || !BPF_CORE_READ_BITFIELD_PROBED(sock, sk_kern_sock))
		return 0;
	cred = BPF_CORE_READ(task, cred);
	bpf_core_read(&caps, sizeof(caps), &cred->cap_effective);
	return caps >> CAP_SYS_ADMIN & 1 && !BPF_CORE_READ(cred, user_ns, level);
}

/* Tells of a connection that goes its way without a decision. Nothing is kept, and its end is not told. */
static __noinline void attempt_left_alone(struct attempt *attempt, const struct carnet_config *config, __u32 reason,
					  __u64 now)
{
	struct carnet_event *event =
		event_begin(CARNET_EVENT_CONNECT, now, bpf_get_socket_cookie(attempt->ctx));

	if (!event)
		return;
	if (attempt->sock && attempt->sock->flags & SOCK_DECIDED)
		event_record(event, &attempt->sock->flow.record);
	else
		record_begin(&event->record, config, attempt->ctx, &attempt->question.remote, attempt->family,
			     IPPROTO_TCP, 0, now);
	event->remote = attempt->question.remote;
	event->verdict = CARNET_VERDICT_PASS;
	event->reason = reason;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	event_submit(event);
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

/* What is known of an earlier connect() goes, but for the record that a service has set. */
static __always_inline void sock_restart(struct carnet_sock *sock, __u64 now)
{
	sock_end_unsent(sock, now);
	if (sock->flags & SOCK_INFERRED)
		sock->flags = 0;
	sock->flags &= SOCK_RECORD;
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
	    !(attempt->policy->provider[i].flags & CARNET_PROVIDER_ROUTES))
		return;
	netns = bpf_get_netns_cookie(attempt->ctx);
	attempt->error = refused_lately(&question->remote, netns, now);
	if (attempt->error)
		return answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_LATELY);
	attempt->error = no_route(&question->remote, netns);
	if (attempt->error)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NO_ROUTE);
}

/* Has another engine redirected this very connect() to where it leads now? */
static __noinline bool attempt_is_claimed(struct attempt *attempt, const struct carnet_config *config)
{
	const struct carnet_claim *claim = bpf_sk_storage_get(&carnet_claims, attempt->ctx->sk, NULL, 0);

	return claim && claim->engine && claim->engine != config->engine &&
	       addr_equal(&claim->at, &attempt->question.remote);
}

/* Tells other engines whether this connect() was redirected. False: there is no memory for it. */
static __noinline bool attempt_claim(struct attempt *attempt, const struct carnet_config *config)
{
	bool redirected = attempt->question.verdict == CARNET_VERDICT_REDIRECT;
	struct carnet_claim *claim = bpf_sk_storage_get(&carnet_claims, attempt->ctx->sk, NULL,
							redirected ? BPF_SK_STORAGE_GET_F_CREATE : 0);

	if (claim && redirected) {
		claim->engine = config->engine;
		claim->at = attempt->target;
	} else if (claim && claim->engine == config->engine) {
		claim->engine = 0;
	}
	return claim || !redirected;
}

/* Carries out what was decided. Returns 0, or the errno with which connect() fails. */
static __always_inline int attempt_finish(struct attempt *attempt, const struct carnet_config *config, __u64 now)
{
	struct carnet_question *question = &attempt->question;
	struct carnet_sock *sock = attempt->sock;
	__u32 i = question->provider, filter = 0;

	if (question->verdict != CARNET_VERDICT_REDIRECT && !attempt_bind(attempt) &&
	    question->verdict != CARNET_VERDICT_REFUSE)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_DEVICE);
	if (!attempt_claim(attempt, config)) {
		carnet_count(CARNET_COUNT_NO_ROOM);
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NO_ROOM);
	}
	sock->verdict = question->verdict;
	if (question->verdict == CARNET_VERDICT_REFUSE)
		return attempt->error ? (int)attempt->error : carnet_errno(question->reason);
	sock->flags |= SOCK_DECIDED;
	if (question->verdict == CARNET_VERDICT_PASS || i >= CARNET_MAX_PROVIDERS)
		return 0;
	sock->flags |= SOCK_HANDS_OVER;
	if (question->verdict == CARNET_VERDICT_REDIRECT) {
		sock->flags |= SOCK_REDIRECTED;
		if (question->rule < CARNET_MAX_RULES) {
			filter = attempt->policy->rule[question->rule].filter;
			sock->flow.context = attempt->policy->rule[question->rule].context;
		}
		carnet_count(CARNET_COUNT_REDIRECTED);
	}
	sock->flow.handle = attempt->policy->provider[i].handle;
	record_add_hop(&sock->flow.record, &attempt->policy->provider[i], filter, now);
	return 0;
}

/*
 * Decides on one connect(); the caller has filled the context, the family and the remote address. Returns 0, or the
 * errno with which it fails.
 *
 * Stack is scarce here. The longest chain of calls is this, attempt_once(), carnet_listener_of(), carnet_listener_at(),
 * carnet_owned_by_group(), carnet_owned_by_cgroup(), and together they have 512 bytes, where Linux 6.1 rounds each
 * frame up to 32 bytes. So nothing is held twice, and what is needed only for a while has a frame of its own
 * (__noinline).
 */
static __always_inline int carnet_connect(struct attempt *attempt)
{
	const struct carnet_config *config = carnet_config_now();
	struct carnet_question *question = &attempt->question;
	const struct carnet_addr *remote = &question->remote;
	struct bpf_sock_addr *ctx = attempt->ctx;
	struct carnet_sock *sock;
	bool governed, special;
	__u64 now;
	int err;

	/* A program before this one has refused it. */
	if (!config || !ctx->sk || bpf_get_retval())
		return 0;
	attempt->policy = carnet_policy_at(config->policy_slot);
	if (!attempt->policy)
		return 0;
	question->slot = config->policy_slot;
	question->provider = CARNET_NONE;
	question->rule = CARNET_NONE;
	question->listener = CARNET_NONE;
	governed = attempt_whose(attempt);
	sock = sock_known(ctx->sk, 0);
	if (!governed && question->dialer == CARNET_NONE && !(sock && sock->flags & SOCK_RECORD))
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (carnet_is_kernels(ctx)) {
		attempt->sock = sock;
		attempt_left_alone(attempt, config, CARNET_REASON_KERNEL, now);
		return 0;
	}
	if (attempt_is_claimed(attempt, config)) {
		if (sock)
			sock_restart(sock, now);
		attempt_left_alone(attempt, config, CARNET_REASON_OTHER_ENGINE, now);
		return 0;
	}
	if (!sock)
		sock = sock_known(ctx->sk, BPF_SK_STORAGE_GET_F_CREATE);
	if (!sock) {
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NO_ROOM);
		carnet_count(CARNET_COUNT_NO_ROOM);
		attempt_event(attempt, now, ENOBUFS);
		return ENOBUFS;
	}
	attempt->sock = sock;
	sock_restart(sock, now);
	question->listener = carnet_dialled_listener(ctx, remote, question->slot);
	/* An outside service's connection without a record is ours only if it leads to a listener: it could go on. */
	if (!attempt_record(attempt, config, governed || question->listener != CARNET_NONE, now))
		return 0;
	sock->flow.remote = *remote;
	sock->flow.handle = 0;
	sock->flow.context = 0;
	sock->flow.uid = sock_uid(ctx->sk);
	sock->decided_at = now;
	sock->dialer = 0;
	if (question->dialer < CARNET_MAX_PROVIDERS)
		sock->dialer = attempt->policy->provider[question->dialer].handle;
	question->has_record = !!(sock->flags & SOCK_RECORD);
	question->depth = sock->base;
	question->floor = record_floor(&sock->flow.record);

	/* The host's filters and the default hold for special destinations too; no provider gets them. */
	special = question->listener == CARNET_NONE && ip_is_special(remote->ip);
	if (special)
		question->floor = CARNET_ABOVE_ALL;
	bpf_loop(CARNET_MAX_PROVIDERS + 1, attempt_once, attempt, 0);
	if (question->verdict == CARNET_VERDICT_REFUSE && question->reason == CARNET_REASON_DEAD) {
		if (attempt->trouble == LISTENER_STRANGER)
			question->reason = CARNET_REASON_STRANGER;
		else if (attempt->trouble == LISTENER_FAMILY)
			question->reason = CARNET_REASON_FAMILY;
		else if (attempt->trouble == LISTENER_DEVICE)
			question->reason = CARNET_REASON_DEVICE;
	}
	if (special && question->reason == CARNET_REASON_DEFAULT)
		question->reason = CARNET_REASON_SPECIAL;
	if (question->verdict != CARNET_VERDICT_REFUSE)
		attempt_foresee(attempt, config, now);
	err = attempt_finish(attempt, config, now);
	attempt_event(attempt, now, err);
	return err;
}

/* Whether the hook is to rewrite the address. */
static __always_inline bool is_redirected(const struct attempt *attempt, int err)
{
	return !err && attempt->question.verdict == CARNET_VERDICT_REDIRECT;
}

SEC("cgroup/connect4")
int carnet_connect4(struct bpf_sock_addr *ctx)
{
	__u32 type = ctx->type, protocol = ctx->protocol;
	__be32 ip = ctx->user_ip4;
	__u32 port = ctx->user_port;
	struct attempt attempt = { .ctx = ctx, .family = AF_INET };
	struct carnet_addr *remote = &attempt.question.remote;
	int err;

	if (is_udp(type, protocol))
		return hook_return(datagram_v4(ctx));
	if (type != SOCK_STREAM || protocol != IPPROTO_TCP)
		return 1;
	ip_from_v4(remote->ip, ip);
	remote->port = bpf_ntohs(port);
	err = carnet_connect(&attempt);
	if (is_redirected(&attempt, err)) {
		ctx->user_ip4 = ip_words(attempt.target.ip).w[3];
		ctx->user_port = bpf_htons(attempt.target.port);
	}
	return hook_return(err);
}

SEC("cgroup/connect6")
int carnet_connect6(struct bpf_sock_addr *ctx)
{
	__u32 type = ctx->type, protocol = ctx->protocol;
	__be32 a = ctx->user_ip6[0], b = ctx->user_ip6[1], c = ctx->user_ip6[2], d = ctx->user_ip6[3];
	__u32 port = ctx->user_port;
	struct attempt attempt = { .ctx = ctx, .family = AF_INET6 };
	struct carnet_addr *remote = &attempt.question.remote;
	int err;

	if (is_udp(type, protocol))
		return hook_return(datagram_v6(ctx));
	if (type != SOCK_STREAM || protocol != IPPROTO_TCP)
		return 1;
	ip_from_v6(remote->ip, a, b, c, d);
	remote->port = bpf_ntohs(port);
	err = carnet_connect(&attempt);
	if (is_redirected(&attempt, err)) {
		struct ip_words words = ip_words(attempt.target.ip);

		ctx->user_ip6[0] = words.w[0];
		ctx->user_ip6[1] = words.w[1];
		ctx->user_ip6[2] = words.w[2];
		ctx->user_ip6[3] = words.w[3];
		ctx->user_port = bpf_htons(attempt.target.port);
	}
	return hook_return(err);
}

/* A socket that goes without ever having sent anything: its connect() failed in routing or for want of a port. */
SEC("cgroup/sock_release")
int carnet_sock_release(struct bpf_sock *ctx)
{
	struct carnet_sock *sock = bpf_sk_storage_get(&carnet_socks, ctx, NULL, 0);

	if (sock)
		sock_end_unsent(sock, bpf_ktime_get_boot_ns());
	return 1;
}

#endif /* CARNET_CONNECT_H */
