/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Somebody's programs on hooks that Carnet uses too. The tests compile them, and attach those that they want. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define EHOSTDOWN 112

SEC("cgroup/connect4")
int lb_connect4(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("cgroup/connect4")
int deny_connect4(struct bpf_sock_addr *ctx)
{
	bpf_set_retval(-EHOSTDOWN);
	return 0;
}

SEC("cgroup/getsockname4")
int own_sockname4(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("cgroup/getsockopt")
int own_getsockopt(struct bpf_sockopt *ctx)
{
	return 1;
}

SEC("cgroup_skb/egress")
int own_egress(struct __sk_buff *skb)
{
	return 1;
}

struct seq_file;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct cgroup;

struct bpf_iter__cgroup {
	struct bpf_iter_meta *meta;
	struct cgroup        *cgroup;
};

#pragma clang attribute pop

/* As many bytes for each cgroup. */
SEC("iter/cgroup")
int own_listing(struct bpf_iter__cgroup *ctx)
{
	char bytes[64] = {};

	if (ctx->cgroup)
		bpf_seq_write(ctx->meta->seq, bytes, sizeof(bytes));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
