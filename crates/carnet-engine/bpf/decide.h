/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The decision. Touches no context and no socket, so that a test can ask it anything; carnet_policy::decide() is the
 * same in Rust, and a property test in the kernel compares the two.
 *
 * Why every way ends: a redirect goes only to a provider whose rank is above the connection's floor, and the floor is
 * the highest rank the flow has had, known from its record or from whose socket it is. So every hop raises the rank.
 *
 * Why it takes the same time with ten filters and with thousands: the class of each dimension is the set of rules whose
 * conditions on that dimension hold, and only rules that are in all of them are looked at, 64 at a time.
 */
#ifndef CARNET_DECIDE_H
#define CARNET_DECIDE_H

#include "class.h"

#define CARNET_ABOVE_ALL 0x7fffffff /* a floor above every rank */

enum {
	BY_ADDRESS,
	BY_PORT,
	BY_VIA,
	BY_IDENTITY,
	DECIDED_BY = BY_IDENTITY + CARNET_IDENTITIES,
};

struct rule_walk {
	const struct carnet_policy     *policy;
	struct carnet_question         *question;
	const struct carnet_identities *who;
	const struct carnet_class      *by[DECIDED_BY]; /* of identities only where the origin is known */
	__u64                           words;          /* that may have a bit */
	__u32                           next;           /* rules before this one have been looked at */
	__u32                           above;          /* the first rule of a provider above the floor */
};

static __always_inline void answer(struct carnet_question *question, __u32 verdict, __u32 reason)
{
	question->verdict = verdict;
	question->reason = reason;
}

static __always_inline const struct carnet_class *class_at(void *classes, __u32 class_of)
{
	return bpf_map_lookup_elem(classes, &class_of);
}

static __always_inline __u64 class_word(void *classes, __u32 class_of, __u32 w)
{
	const struct carnet_class *found = class_at(classes, class_of);

	return found ? found->word[w & (CARNET_CLASS_WORDS - 1)] : 0;
}

static __always_inline __u64 identity_word(void *classes, const struct carnet_identity *identity, __u32 w)
{
	__u64 word = ~0ULL;

	for (int i = 0; i < CARNET_IDENTITIES; i++)
		word &= class_word(classes, identity->class_of[i], w);
	return word;
}

/*
 * Rules that match by identity, where the origin is not simply who connects. What lets through because of who somebody
 * is holds for nobody else. What stops holds for a service that dials elsewhere as well as for the origin in whose name
 * it does; and where the origin is one of several, for any of them, so far as they have not been asked already: that
 * is, what a provider's filter would do.
 */
__noinline __u64 carnet_uncertain_word(const struct carnet_identities *who, __u32 knowledge, __u32 w, __u32 slot)
{
	const struct carnet_policy *policy = carnet_policy_at(slot);
	void *classes = bpf_map_lookup_elem(&carnet_classes, &slot);
	__u64 word;

	if (!policy || !classes || !who)
		return 0;
	word = identity_word(classes, &who->of[0], w);
	if (knowledge & CARNET_STRAYED)
		word |= identity_word(classes, &who->of[1], w);
	word &= ~class_word(classes, policy->lets_through, w);
	if (knowledge & CARNET_AMBIGUOUS)
		word |= class_word(classes, policy->stops, w);
	return word;
}

static __always_inline __u64 matching_word(const struct rule_walk *walk, __u32 w)
{
	const struct carnet_question *question = walk->question;
	__u64 word = walk->by[BY_ADDRESS]->word[w] & walk->by[BY_PORT]->word[w] & walk->by[BY_VIA]->word[w];

	if (!word)
		return 0;
	if (question->knowledge != CARNET_KNOWN)
		return word & carnet_uncertain_word(walk->who, question->knowledge, w, question->slot);
	for (int i = BY_IDENTITY; i < DECIDED_BY; i++)
		word &= walk->by[i]->word[w];
	return word;
}

/*
 * Number of the lowest bit that is set: how many are below it, counted in parallel. Clang 14 cannot compile its own
 * built-in for it; the empty asm keeps it from finding that one here.
 */
static __always_inline __u32 lowest_bit(__u64 word)
{
	__u64 below = (word & -word) - 1;

	asm volatile("" : "+r"(below));
	below -= below >> 1 & 0x5555555555555555ULL;
	below = (below & 0x3333333333333333ULL) + (below >> 2 & 0x3333333333333333ULL);
	below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return below * 0x0101010101010101ULL >> 56;
}

/* This rule matches, and is the first to do so. 1: it decides. */
static __always_inline long rule_decides(struct rule_walk *walk, __u32 index)
{
	struct carnet_question *question = walk->question;
	const struct carnet_policy *policy = walk->policy;
	const struct carnet_rule *rule = carnet_rule_at(question->slot, index);
	__u32 i;

	if (!rule)
		return 1;
	i = rule->provider;
	if (rule->action == CARNET_ACTION_SKIP && i < CARNET_MAX_PROVIDERS) {
		__u32 end = provider_at(policy, i)->end_rule;

		walk->next = end > index ? end : index + 1;
		return 0;
	}
	question->provider = i;
	question->rule = index;
	if (rule->action == CARNET_ACTION_PERMIT)
		answer(question, CARNET_VERDICT_PASS, CARNET_REASON_RULE);
	else if (rule->action == CARNET_ACTION_REDIRECT)
		answer(question, CARNET_VERDICT_REDIRECT, CARNET_REASON_RULE);
	else
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_BLOCKED);
	return 1;
}

/* One word of the bitmaps, or one rule. 1 ends the walk. */
static long walk_rules(__u32 round, void *data)
{
	struct rule_walk *walk = data;
	__u32 next = walk->next, w = next / 64;
	__u64 left, word;

	if (w >= CARNET_CLASS_WORDS)
		return 1;
	left = walk->words & ~0ULL << w;
	if (!left)
		return 1;
	if (!(left >> w & 1)) {
		w = lowest_bit(left) & (CARNET_CLASS_WORDS - 1);
		next = w * 64;
	}
	word = matching_word(walk, w) & ~0ULL << (next % 64);
	if (!word) {
		walk->next = (w + 1) * 64;
		return 0;
	}
	next = w * 64 + lowest_bit(word);
	if (next >= walk->policy->host_rules && next < walk->above) {
		walk->next = walk->above;
		return 0;
	}
	return rule_decides(walk, next);
}

#define WALK_ROUNDS (CARNET_CLASS_WORDS + CARNET_MAX_PROVIDERS + 2)

/* Index of the first rule of a provider above the floor. */
static __always_inline __u32 first_rule_above(const struct carnet_policy *policy, __s32 floor)
{
	__u32 i = 0;

	if (floor < 0)
		return policy->host_rules;
	/* The number of providers at or below it, found by halves. */
	for (__u32 step = 128; step; step /= 2) {
		__u32 last = i + step - 1;

		if (last < CARNET_MAX_PROVIDERS && last < policy->providers &&
		    (__s32)provider_at(policy, last)->rank <= floor)
			i += step;
	}
	return i < policy->providers && i < CARNET_MAX_PROVIDERS ? provider_at(policy, i)->first_rule : policy->rules;
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
	else if (!(provider_at(policy, i)->flags & CARNET_PROVIDER_DIRECT))
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_NOT_DIRECT);
	else if ((__s32)provider_at(policy, i)->rank <= floor)
		answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_OWN_LISTENER);
	else
		answer(question, CARNET_VERDICT_DIRECT, CARNET_REASON_RULE);
}

/* Class of the destination's address. */
static __always_inline __u32 address_class(const struct carnet_policy *policy, const struct carnet_addr *remote,
					   __u32 slot)
{
	struct ip_words ip = ip_words(remote->ip);
	__u64 hi, lo;

	if (ip_is_v4(remote->ip))
		return class_if32(policy, CARNET_BY_V4, bpf_ntohl(ip.w[3]), slot);
	hi = (__u64)bpf_ntohl(ip.w[0]) << 32 | bpf_ntohl(ip.w[1]);
	lo = (__u64)bpf_ntohl(ip.w[2]) << 32 | bpf_ntohl(ip.w[3]);
	return has_dimension(policy, CARNET_BY_V6) ? carnet_class_of_v6(hi, lo, slot) : CARNET_CLASS_EVERYTHING;
}

/* Looks the sets of rules up. False: there are none, or they cannot be read. */
static __always_inline bool walk_begin(struct rule_walk *walk, const struct carnet_policy *policy,
				       struct carnet_question *question, const struct carnet_identities *who)
{
	__u32 slot = question->slot, dialer = question->dialer, via = CARNET_CLASS_EVERYTHING;
	__u32 key = slot, port = question->protocol << 16 | question->remote.port;
	void *classes = bpf_map_lookup_elem(&carnet_classes, &key);

	if (!classes)
		return false;
	if (has_dimension(policy, CARNET_BY_VIA))
		via = policy->via[dialer < CARNET_MAX_PROVIDERS ? dialer : CARNET_MAX_PROVIDERS];
	walk->by[BY_ADDRESS] = class_at(classes, address_class(policy, &question->remote, slot));
	walk->by[BY_PORT] = class_at(classes, class_if32(policy, CARNET_BY_PORT, port, slot));
	walk->by[BY_VIA] = class_at(classes, via);
	if (!walk->by[BY_ADDRESS] || !walk->by[BY_PORT] || !walk->by[BY_VIA])
		return false;
	walk->words = walk->by[BY_ADDRESS]->words & walk->by[BY_PORT]->words & walk->by[BY_VIA]->words;
	for (int i = 0; i < CARNET_IDENTITIES; i++) {
		const struct carnet_class *found = walk->by[BY_VIA];

		if (question->knowledge == CARNET_KNOWN)
			found = class_at(classes, who->of[0].class_of[i]);
		if (!found)
			return false;
		walk->by[BY_IDENTITY + i] = found;
		walk->words &= found->words;
	}
	return true;
}

__noinline int carnet_decide(struct carnet_question *question, const struct carnet_identities *who)
{
	const struct carnet_policy *policy;
	struct rule_walk walk = {};
	bool terminal = false;
	__s32 floor;

	if (!question || !who)
		return 0;
	policy = carnet_policy_at(question->slot);
	floor = question->floor;
	question->provider = CARNET_NONE;
	question->rule = CARNET_NONE;
	answer(question, CARNET_VERDICT_REFUSE, CARNET_REASON_BLOCKED);
	if (!policy)
		return 0;
	if (question->dialer < CARNET_MAX_PROVIDERS) {
		const struct carnet_provider *dialer = provider_at(policy, question->dialer);

		if ((__s32)dialer->rank > floor)
			floor = dialer->rank;
		terminal = dialer->flags & CARNET_PROVIDER_DIRECT && !question->has_record;
	}
	if (question->listener != CARNET_NONE) {
		decide_dialled(policy, question, floor);
		return 0;
	}
	if (policy->rules && !walk_begin(&walk, policy, question, who))
		return 0;
	if (policy->default_action != CARNET_ACTION_BLOCK)
		answer(question, CARNET_VERDICT_PASS, terminal ? CARNET_REASON_TERMINAL : CARNET_REASON_DEFAULT);
	if (!policy->rules)
		return 0;
	walk.policy = policy;
	walk.question = question;
	walk.who = who;
	walk.next = question->from;
	/* An explicit proxy that forgets the record: the host's filters hold, no provider gets it. */
	walk.above = first_rule_above(policy, terminal ? CARNET_ABOVE_ALL : floor);
	bpf_loop(WALK_ROUNDS, walk_rules, &walk, 0);
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
	case CARNET_REASON_ELSEWHERE:
		return ENETUNREACH;
	default:
		return ECONNREFUSED;
	}
}

#endif /* CARNET_DECIDE_H */
