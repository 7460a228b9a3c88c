/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* The caller's network namespace, as the programs know it: user space has no safe way to ask for its cookie. */
#ifndef CARNET_NETNS_H
#define CARNET_NETNS_H

#include "kernel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	__u64 net_cookie;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct___nsproxy {
	struct nsproxy *nsproxy;
};

#pragma clang attribute pop

SEC("syscall")
int carnet_netns(__u64 *cookie)
{
	struct task_struct___nsproxy *task = (void *)bpf_get_current_task();

	*cookie = BPF_CORE_READ(task, nsproxy, net_ns, net_cookie);
	return 0;
}

#endif /* CARNET_NETNS_H */
