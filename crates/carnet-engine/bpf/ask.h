/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The decision by itself, asked many times: for the test that compares it with carnet_policy::decide(), and for
 * benchmarks. Loaded for these only.
 */
#ifndef CARNET_ASK_H
#define CARNET_ASK_H

#include "decide.h"

/* Questions; the kernel writes the answers into them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct carnet_asked);
} carnet_asked SEC(".maps");

/* What is to be done, and how long it took: the context of the program. */
struct carnet_asking {
	__u32 questions; /* how many of them */
	__u32 rounds;    /* through all of them */
	__u64 duration;  /* ns in all, told */
};

/* Who asks, in the stead of a socket's storage. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct carnet_identities);
} carnet_asking_who SEC(".maps");

struct ask {
	struct carnet_asked       *asked;
	const struct carnet_policy *policy;
	struct carnet_identities  *who;
	struct carnet_question     question;
};

static long ask_once(__u32 round, void *data)
{
	struct ask *ask = data;
	const struct carnet_provider *provider;
	__u32 i;

	carnet_decide(&ask->question, ask->who);
	i = ask->question.provider;
	if (i >= CARNET_MAX_PROVIDERS || ask->question.verdict == CARNET_VERDICT_REFUSE)
		return 1;
	provider = provider_at(ask->policy, i);
	if (ask->question.verdict == CARNET_VERDICT_REDIRECT && ask->asked->dead[i >> 6 & 3] >> (i & 63) & 1) {
		if (provider->flags & CARNET_PROVIDER_OPEN) {
			ask->question.from = provider->end_rule;
			return 0;
		}
		answer(&ask->question, CARNET_VERDICT_REFUSE, CARNET_REASON_DEAD);
	} else if (ask->asked->depth >= CARNET_MAX_HOPS) {
		answer(&ask->question, CARNET_VERDICT_REFUSE, CARNET_REASON_TOO_DEEP);
	}
	return 1;
}

__noinline int carnet_ask_one(__u32 index)
{
	struct carnet_asked *asked = bpf_map_lookup_elem(&carnet_asked, &index);
	struct ask ask = {};
	__u32 zero = 0;

	if (!asked)
		return 0;
	ask.asked = asked;
	ask.question = asked->question;
	ask.policy = carnet_policy_at(ask.question.slot);
	ask.who = bpf_map_lookup_elem(&carnet_asking_who, &zero);
	if (!ask.policy || !ask.who)
		return 0;
	carnet_identify(&ask.who->of[0], &asked->origin[0], (struct carnet_line *)asked->line[0], ask.question.slot);
	if (ask.question.knowledge & CARNET_STRAYED)
		carnet_identify(&ask.who->of[1], &asked->origin[1], (struct carnet_line *)asked->line[1],
				ask.question.slot);
	bpf_loop(CARNET_MAX_PROVIDERS + 1, ask_once, &ask, 0);
	asked->question.verdict = ask.question.verdict;
	asked->question.reason = ask.question.reason;
	asked->question.provider = ask.question.provider;
	asked->question.rule = ask.question.rule;
	return 0;
}

static long ask_next(__u32 round, void *data)
{
	__u32 *questions = data;

	if (!*questions)
		return 1;
	carnet_ask_one(round % *questions);
	return 0;
}

SEC("syscall")
int carnet_ask(struct carnet_asking *asking)
{
	__u32 questions = asking->questions, rounds = asking->rounds;
	__u64 begin = bpf_ktime_get_ns();

	bpf_loop(questions * rounds, ask_next, &questions, 0);
	asking->duration = bpf_ktime_get_ns() - begin;
	return 0;
}

#endif /* CARNET_ASK_H */
