/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* connect(): decide, look the listener up, lengthen the record, rewrite the address. */
#ifndef CARNET_CONNECT_H
#define CARNET_CONNECT_H

#include "attempt.h"
#include "datagram.h"
#include "flight.h"

/* Does the provider itself listen where its explicit proxy was dialled? Else the connection is refused. */
static __always_inline bool dialled_owner(struct attempt *attempt, __u32 provider)
{
	struct carnet_question *question = &attempt->question;
	__u32 owned;

	attempt->search.found = question->remote;
	if (ip_is_unspecified(attempt->search.found.ip))
		unspecified_means(attempt->ctx, attempt->search.found.ip);
	owned = carnet_listener_at(attempt->ctx, &attempt->search.found, provider, question->slot);
	if (owned & OWNED_WANTED)
		return true;
	answer(question, CARNET_VERDICT_REFUSE, owned == NOBODY_LISTENS ? CARNET_REASON_DEAD : CARNET_REASON_STRANGER);
	return false;
}

/* Looks the provider's listener up. False: it is dead, to be passed over, or the connection is refused for it. */
static __always_inline bool attempt_reaches(struct attempt *attempt, __u32 i, const struct carnet_provider *provider)
{
	struct carnet_question *question = &attempt->question;

	attempt->search.slot = question->slot;
	attempt->search.provider = i;
	attempt->search.family = attempt->family;
	attempt->search.v4 = ip_is_v4(question->remote.ip);
	attempt->trouble = carnet_listener_of(attempt->ctx, &attempt->search);
	if (attempt->trouble == LISTENER_ALIVE)
		attempt->trouble = attempt_unbind(attempt);
	if (attempt->trouble == LISTENER_ALIVE)
		return true;
	if (provider->flags & CARNET_PROVIDER_OPEN)
		question->from = provider->end_rule;
	else
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_DEAD);
	return false;
}

/* Asks the decision; where it names a provider that is dead and open, asks on from there. 1 ends the loop. */
static long attempt_once(__u32 round, void *data)
{
	struct attempt *attempt = data;
	struct carnet_question *question = &attempt->question;
	const struct carnet_provider *provider;
	__u32 i;

	carnet_decide(question, &attempt->sock->who);
	i = question->provider;
	if (i >= CARNET_MAX_PROVIDERS || question->verdict == CARNET_VERDICT_REFUSE)
		return 1;
	provider = provider_at(attempt->policy, i);
	/* It has come to be above the flow's floor since it had it: ranks have changed. */
	if (question->verdict == CARNET_VERDICT_REDIRECT && record_has(&attempt->sock->flow.record, provider->handle)) {
		question->from = provider->end_rule;
		return 0;
	}
	if (question->verdict == CARNET_VERDICT_REDIRECT && !attempt_reaches(attempt, i, provider))
		return question->verdict == CARNET_VERDICT_REFUSE;
	if (attempt->sock->base >= CARNET_MAX_HOPS) {
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_TOO_DEEP);
		return 1;
	}
	if (question->verdict == CARNET_VERDICT_DIRECT && !dialled_owner(attempt, i))
		return 1;
	/* The runaway guard: a process outside every owner may carry a flow round and round. */
	if (provider->in_flight_limit &&
	    (__u32)carnet_flight_clients(provider->handle, &question->remote) >= provider->in_flight_limit)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_RUNAWAY);
	return 1;
}

/* Whose socket: fills the dialer, and says whether this connection is ours to decide on without a record. */
static __always_inline bool attempt_whose(struct attempt *attempt)
{
	struct carnet_question *question = &attempt->question;
	void *sk = attempt->ctx->sk;
	__u32 owned = owned_sock(sk, OWNED_ANY, question->slot);

	question->dialer = owning_provider(owned);
	/* A socket may have been made elsewhere and passed on. */
	if (made_elsewhere(sk)) {
		__u32 caller = carnet_owned_by_caller(OWNED_ANY, question->slot);

		owned |= caller & OWNED_GOVERNED;
		if (question->dialer == CARNET_NONE)
			question->dialer = owning_provider(caller);
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
	return carnet_local_listener(attempt->ctx, &question->remote, dialer, question->slot) & OWNED_WANTED;
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
		record_rewind(record, sock->base, sock->base_floor, sock->base_flags);
		return true;
	}
	if (question->dialer < CARNET_MAX_PROVIDERS) {
		const struct carnet_provider *dialer = provider_at(attempt->policy, question->dialer);

		if (dialer->flags & CARNET_PROVIDER_UNAWARE)
			found = carnet_flight_infer(dialer->handle, &question->remote, record);
	}
	if (found == FLIGHT_INFERRED) {
		record->origin.flags |= CARNET_ORIGIN_INFERRED;
		sock->flags |= SOCK_RECORD | SOCK_INFERRED;
		sock->base = record->depth;
		sock->base_floor = record_floor(record);
		sock->base_flags = record->origin.flags;
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
	const struct carnet_rule *rule;

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
	event->handle = provider_handle(policy, question->provider);
	rule = carnet_rule_at(question->slot, question->rule);
	if (rule)
		event->filter = rule->filter;
	event->error = error;
	event_caller(event);
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

/* Carries out what was decided. Returns 0, or the errno with which connect() fails. */
static __always_inline int attempt_finish(struct attempt *attempt, const struct carnet_config *config, __u64 now)
{
	struct carnet_question *question = &attempt->question;
	struct carnet_sock *sock = attempt->sock;
	__u32 i = question->provider, filter = 0;
	const struct carnet_rule *rule;

	if (!attempt_claim(attempt, config)) {
		carnet_count(CARNET_COUNT_NO_ROOM);
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NO_ROOM);
	}
	if (question->verdict != CARNET_VERDICT_REDIRECT && !attempt_bind(attempt) &&
	    question->verdict != CARNET_VERDICT_REFUSE)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_DEVICE);
	sock->verdict = question->verdict;
	if (question->verdict == CARNET_VERDICT_REFUSE)
		return attempt->error ? (int)attempt->error : carnet_errno(question->reason);
	sock->flags |= SOCK_DECIDED;
	if (question->verdict == CARNET_VERDICT_PASS || i >= CARNET_MAX_PROVIDERS)
		return 0;
	sock->flags |= SOCK_HANDS_OVER;
	if (question->verdict == CARNET_VERDICT_REDIRECT) {
		sock->flags |= SOCK_REDIRECTED;
		rule = carnet_rule_at(question->slot, question->rule);
		if (rule) {
			filter = rule->filter;
			sock->flow.context = rule->context;
		}
		carnet_count(CARNET_COUNT_REDIRECTED);
	}
	sock->flow.handle = provider_at(attempt->policy, i)->handle;
	record_add_hop(&sock->flow.record, provider_at(attempt->policy, i), filter, now);
	/* The record does not say who this service is. */
	if (question->knowledge & CARNET_STRAYED)
		sock->flow.record.origin.flags |= CARNET_ORIGIN_STRAYED;
	return 0;
}

/* Who connects, as far as the policy asks: the flow's origin, and a service that dials elsewhere in its name. */
static __noinline void attempt_identify(struct attempt *attempt)
{
	struct carnet_question *question = &attempt->question;
	struct carnet_sock *sock = attempt->sock;
	const struct carnet_origin *origin = &sock->flow.record.origin;

	carnet_identify(&sock->who.of[0], origin, (struct carnet_line *)sock->flow.record.line, question->slot);
	if (origin->flags & ORIGIN_UNCERTAIN)
		question->knowledge = CARNET_AMBIGUOUS;
	if (question->has_record && !addr_equal(&origin->remote, &question->remote)) {
		question->knowledge |= CARNET_STRAYED;
		carnet_identify_caller(&sock->who.of[1], bpf_get_netns_cookie(attempt->ctx), question->slot);
	}
}

/*
 * Decides on one connect(); the caller has filled the context, the family and the remote address. Returns 0, or the
 * errno with which it fails.
 *
 * Stack is scarce here. The longest chain of calls is this, attempt_once(), carnet_listener_of(), carnet_listener_at(),
 * carnet_owns_group(), carnet_owned_by_cgroup(), and together they have 512 bytes, where Linux 6.1 rounds each
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
	question->slot = policy_slot_now(config);
	attempt->policy = carnet_policy_at(question->slot);
	if (!attempt->policy)
		return 0;
	question->provider = CARNET_NONE;
	question->rule = CARNET_NONE;
	question->listener = CARNET_NONE;
	governed = attempt_whose(attempt);
	sock = sock_known(ctx->sk, 0);
	now = bpf_ktime_get_boot_ns();
	if (!governed && question->dialer == CARNET_NONE && !(sock && sock->flags & SOCK_RECORD)) {
		if (sock)
			sock_restart(sock, now);
		return 0;
	}
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
	/* Judged as what the kernel takes it for: it is a name of this host. */
	if (ip_is_unspecified(question->remote.ip))
		unspecified_means(ctx, question->remote.ip);
	question->listener = carnet_dialled_listener(ctx, remote, question->slot);
	/* An outside service's connection without a record is ours only if it leads to a listener: it could go on. */
	if (!attempt_record(attempt, config, governed || question->listener != CARNET_NONE, now))
		return 0;
	sock->flow.remote = *remote;
	sock->flow.handle = 0;
	sock->flow.context = 0;
	sock->flow.uid = sock_uid(ctx->sk);
	sock->decided_at = now;
	sock->dialer = provider_handle(attempt->policy, question->dialer);
	question->protocol = IPPROTO_TCP;
	question->has_record = !!(sock->flags & SOCK_RECORD);
	question->floor = record_floor(&sock->flow.record);
	attempt_identify(attempt);

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
	if (question->verdict == CARNET_VERDICT_PASS && attempt_is_elsewhere(attempt))
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_ELSEWHERE);
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
		return hook_return(datagram_connect_v4(ctx));
	if (type != SOCK_STREAM || protocol != IPPROTO_TCP)
		return 1;
	ip_from_v4(remote->ip, ip);
	remote->port = bpf_ntohs(port);
	err = carnet_connect(&attempt);
	if (is_redirected(&attempt, err))
		rewrite_v4(ctx, &attempt.search.found);
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
		return hook_return(datagram_connect_v6(ctx));
	if (type != SOCK_STREAM || protocol != IPPROTO_TCP)
		return 1;
	ip_from_v6(remote->ip, a, b, c, d);
	remote->port = bpf_ntohs(port);
	err = carnet_connect(&attempt);
	if (is_redirected(&attempt, err))
		rewrite_v6(ctx, &attempt.search.found);
	return hook_return(err);
}

#endif /* CARNET_CONNECT_H */
