/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The decision. Touches no context and no socket, so that a test can ask it anything; carnet_policy::decide() is the
 * same in Rust, and a property test in the kernel compares the two.
 *
 * Why every way ends: a redirect goes only to a provider whose rank is above the connection's floor, and the floor is
 * the highest rank the flow has had, known from its record or from whose socket it is. So every hop raises the rank.
 */
#ifndef CARNET_DECIDE_H
#define CARNET_DECIDE_H

#include "address.h"
#include "maps.h"

static __always_inline bool rule_matches(const struct carnet_rule *rule, const struct carnet_addr *remote)
{
	struct ip_words prefix, ip;
	__u32 left = rule->prefix_len;

	if (remote->port < rule->port_min || remote->port > rule->port_max)
		return false;
	prefix = ip_words(rule->prefix);
	ip = ip_words(remote->ip);
	for (int i = 0; i < 4; i++) {
		__u32 bits = left < 32 ? left : 32;
		__u32 mask = bits ? ~0U << (32 - bits) : 0;

		if ((bpf_ntohl(prefix.w[i]) ^ bpf_ntohl(ip.w[i])) & mask)
			return false;
		left -= bits;
	}
	return true;
}

#define CARNET_ABOVE_ALL 0x7fffffff /* a floor above every rank */

struct rule_walk {
	const struct carnet_policy *policy;
	struct carnet_question     *question;
	__s32                       floor;
	__u32                       passed; /* bit i: provider i's turn is over */
};

static __always_inline void answer(struct carnet_question *question, __u32 verdict, __u32 reason)
{
	question->verdict = verdict;
	question->reason = reason;
}

/* One rule; 1 ends the walk. */
static long walk_rule(__u32 index, void *data)
{
	struct rule_walk *walk = data;
	struct carnet_question *question = walk->question;
	const struct carnet_policy *policy = walk->policy;
	const struct carnet_provider *provider;
	const struct carnet_rule *rule;
	__u32 i;

	if (index >= policy->rules || index >= CARNET_MAX_RULES)
		return 1;
	rule = &policy->rule[index];
	i = rule->provider;
	if (i == CARNET_NONE) {
		if (!rule_matches(rule, &question->remote))
			return 0;
		question->rule = index;
		if (rule->action == CARNET_ACTION_PERMIT)
			answer(question, CARNET_VERDICT_PASS, CARNET_REASON_RULE);
		else
			answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_BLOCKED);
		return 1;
	}
	if (i >= CARNET_MAX_PROVIDERS || walk->passed & (1U << i))
		return 0;
	provider = &policy->provider[i];
	if ((__s32)provider->rank <= walk->floor || !rule_matches(rule, &question->remote))
		return 0;
	if (rule->action == CARNET_ACTION_SKIP) {
		walk->passed |= 1U << i;
		return 0;
	}
	if (rule->action == CARNET_ACTION_REDIRECT && question->dead & (1U << i) &&
	    provider->flags & CARNET_PROVIDER_OPEN) {
		walk->passed |= 1U << i;
		return 0;
	}
	question->provider = i;
	question->rule = index;
	if (rule->action != CARNET_ACTION_REDIRECT)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_BLOCKED);
	else if (question->dead & (1U << i))
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_DEAD);
	else if (question->depth >= CARNET_MAX_HOPS)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_TOO_DEEP);
	else
		answer(question, CARNET_VERDICT_REDIRECT, CARNET_REASON_RULE);
	return 1;
}

/* The remote address is a provider's own listener. */
static __always_inline void decide_dialled(const struct carnet_policy *policy, struct carnet_question *question,
					   __s32 floor)
{
	__u32 i = question->listener;

	if (i >= CARNET_MAX_PROVIDERS)
		return answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NOT_DIRECT);
	question->provider = i;
	if (question->dialer == i)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_OWN_LISTENER);
	else if (!(policy->provider[i].flags & CARNET_PROVIDER_DIRECT))
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NOT_DIRECT);
	else if ((__s32)policy->provider[i].rank <= floor)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_OWN_LISTENER);
	else if (question->depth >= CARNET_MAX_HOPS)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_TOO_DEEP);
	else
		answer(question, CARNET_VERDICT_DIRECT, CARNET_REASON_RULE);
}

__noinline int carnet_decide(struct carnet_question *question)
{
	const struct carnet_policy *policy;
	struct rule_walk walk = {};
	bool terminal = false;
	__s32 floor;

	if (!question)
		return 0;
	policy = carnet_policy_at(question->slot);
	floor = question->floor;
	question->provider = CARNET_NONE;
	question->rule = CARNET_NONE;
	answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_BLOCKED);
	if (!policy)
		return 0;
	if (question->dialer < CARNET_MAX_PROVIDERS) {
		const struct carnet_provider *dialer = &policy->provider[question->dialer];

		if ((__s32)dialer->rank > floor)
			floor = dialer->rank;
		terminal = dialer->flags & CARNET_PROVIDER_DIRECT && !question->has_record;
	}
	if (question->listener != CARNET_NONE) {
		decide_dialled(policy, question, floor);
		return 0;
	}
	if (policy->default_action != CARNET_ACTION_BLOCK)
		answer(question, CARNET_VERDICT_PASS, terminal ? CARNET_REASON_TERMINAL : CARNET_REASON_DEFAULT);
	/* An explicit proxy that forgets the record: the host's filters hold, no provider gets it. */
	if (terminal)
		floor = CARNET_ABOVE_ALL;
	walk.policy = policy;
	walk.question = question;
	walk.floor = floor;
	bpf_loop(CARNET_MAX_RULES, walk_rule, &walk, 0);
	return 0;
}

static __always_inline int carnet_errno(__u32 reason)
{
	switch (reason) {
	case CARNET_REASON_BLOCKED:
		return EACCES;
	case CARNET_REASON_OWN_LISTENER:
	case CARNET_REASON_TOO_DEEP:
	case CARNET_REASON_RUNAWAY:
		return ELOOP;
	case CARNET_REASON_NO_ROOM:
	case CARNET_REASON_SHARE:
		return ENOBUFS;
	case CARNET_REASON_DEVICE:
		return ENETUNREACH;
	default:
		return ECONNREFUSED;
	}
}

#endif /* CARNET_DECIDE_H */
