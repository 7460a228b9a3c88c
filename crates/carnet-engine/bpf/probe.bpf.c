// SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only
/*
 * What `carnet doctor` looks with. An object of its own, so that a kernel which refuses Carnet's programs can still be
 * asked about. Nothing in it is ever attached to a cgroup.
 *
 * carnet_attached lists the programs on a cgroup and on those above it: the iterator holds the kernel's own lock, so it
 * sees them as they are at one moment, those that have no link and the flags they were attached with among them.
 *
 * Each of the others needs one thing of the kernel. Whether that is there is the verifier's answer.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define MAX_PROGRAMS 64 /* on one hook of one cgroup; the kernel's own limit */

/* Each with only the fields that are read; the loader finds their places in the running kernel's BTF. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

typedef struct {
	__u32 val;
} kuid_t;

struct user_struct {
	kuid_t uid;
};

struct bpf_prog_aux {
	__u32               id;
	struct user_struct *user;
	char                name[BPF_OBJ_NAME_LEN];
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct bpf_link {
	__u32            id;
	struct bpf_prog *prog;
};

struct bpf_cgroup_link {
	struct bpf_link link;
};

struct bpf_prog_list {
	struct hlist_node       node;
	struct bpf_prog        *prog; /* NULL where there is a link */
	struct bpf_cgroup_link *link;
	__u32                   flags; /* newer kernels only */
};

struct kernfs_node {
	__u64 id;
};

struct cgroup_bpf {
	struct hlist_head progs[1]; /* one for each hook, as many as the kernel has */
	__u32             flags[1]; /* the same; a byte each in newer kernels */
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_bpf   bpf;
};

struct bpf_iter__cgroup {
	struct bpf_iter_meta *meta;
	struct cgroup        *cgroup;
};

struct task_struct {
	__u32 flags;
};

struct mptcp_sock;

/* Hooks have numbers of their own in here, which differ between kernels. The names do not. */
enum cgroup_bpf_attach_type {
	CGROUP_INET_EGRESS,
	CGROUP_INET_SOCK_CREATE,
	CGROUP_SOCK_OPS,
	CGROUP_INET4_CONNECT,
	CGROUP_INET6_CONNECT,
	CGROUP_UDP4_SENDMSG,
	CGROUP_UDP6_SENDMSG,
	CGROUP_UDP4_RECVMSG,
	CGROUP_UDP6_RECVMSG,
	CGROUP_GETSOCKOPT,
	CGROUP_SETSOCKOPT,
	CGROUP_INET4_GETPEERNAME,
	CGROUP_INET6_GETPEERNAME,
	CGROUP_INET4_GETSOCKNAME,
	CGROUP_INET6_GETSOCKNAME,
	CGROUP_INET_SOCK_RELEASE,
};

#pragma clang attribute pop

/* What is written, one for each program; `struct Entry` in src/probe/attached.rs is its twin. */
struct entry {
	__u64 cgroup;
	__u32 hook;  /* enum bpf_attach_type */
	__u32 mode;  /* BPF_F_ALLOW_MULTI, BPF_F_ALLOW_OVERRIDE or 0 */
	__u32 program;
	__u32 link;  /* 0: attached without one */
	__u32 flags; /* of this program, where the kernel keeps them */
	__u32 uid;   /* who loaded it; ~0: not known */
	char  name[BPF_OBJ_NAME_LEN];
};

static void write_hook(struct seq_file *to, struct cgroup *cgroup, __u32 hook, __u32 index)
{
	struct cgroup_bpf *bpf = &cgroup->bpf;
	__u32 width = bpf_core_field_size(bpf->flags[0]);
	struct entry entry = { .hook = hook };
	struct bpf_prog_list *list;
	struct hlist_node *node;
	__u8 narrow = 0;

	if (width == sizeof(narrow)) {
		bpf_probe_read_kernel(&narrow, sizeof(narrow), (void *)&bpf->flags[0] + index);
		entry.mode = narrow;
	} else {
		bpf_probe_read_kernel(&entry.mode, sizeof(entry.mode), (void *)&bpf->flags[0] + index * sizeof(__u32));
	}
	entry.cgroup = BPF_CORE_READ(cgroup, kn, id);
	bpf_probe_read_kernel(&node, sizeof(node), (void *)&bpf->progs[0] + index * sizeof(struct hlist_head));
	for (int i = 0; i < MAX_PROGRAMS && node; i++) {
		struct bpf_cgroup_link *link;
		struct user_struct *user;
		struct bpf_prog *program;

		list = (void *)node - bpf_core_field_offset(struct bpf_prog_list, node);
		link = BPF_CORE_READ(list, link);
		program = link ? BPF_CORE_READ(link, link.prog) : BPF_CORE_READ(list, prog);
		entry.program = BPF_CORE_READ(program, aux, id);
		entry.link = link ? BPF_CORE_READ(link, link.id) : 0;
		entry.flags = bpf_core_field_exists(list->flags) ? BPF_CORE_READ(list, flags) : 0;
		/* Read here, because asking for a program by its id takes CAP_SYS_ADMIN. */
		user = BPF_CORE_READ(program, aux, user);
		entry.uid = user ? BPF_CORE_READ(user, uid.val) : ~0U;
		BPF_CORE_READ_INTO(&entry.name, program, aux, name);
		bpf_seq_write(to, &entry, sizeof(entry));
		node = BPF_CORE_READ(node, next);
	}
}

#define WRITE(hook) \
	write_hook(seq, cgroup, BPF_##hook, bpf_core_enum_value(enum cgroup_bpf_attach_type, hook))

SEC("iter/cgroup")
int carnet_attached(struct bpf_iter__cgroup *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct cgroup *cgroup = ctx->cgroup;

	/* The last call, after all cgroups, has none. */
	if (!cgroup)
		return 0;
	WRITE(CGROUP_INET4_CONNECT);
	WRITE(CGROUP_INET6_CONNECT);
	WRITE(CGROUP_UDP4_SENDMSG);
	WRITE(CGROUP_UDP6_SENDMSG);
	WRITE(CGROUP_UDP4_RECVMSG);
	WRITE(CGROUP_UDP6_RECVMSG);
	WRITE(CGROUP_INET4_GETPEERNAME);
	WRITE(CGROUP_INET6_GETPEERNAME);
	WRITE(CGROUP_INET4_GETSOCKNAME);
	WRITE(CGROUP_INET6_GETSOCKNAME);
	WRITE(CGROUP_GETSOCKOPT);
	WRITE(CGROUP_SETSOCKOPT);
	WRITE(CGROUP_SOCK_OPS);
	WRITE(CGROUP_INET_SOCK_CREATE);
	WRITE(CGROUP_INET_SOCK_RELEASE);
	WRITE(CGROUP_INET_EGRESS);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} carnet_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} carnet_storage SEC(".maps");

SEC("cgroup/connect4")
int carnet_need_conn(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("sockops")
int carnet_need_ops(struct bpf_sock_ops *ctx)
{
	return 1;
}

SEC("cgroup/getsockopt")
int carnet_need_opt(struct bpf_sockopt *ctx)
{
	return 1;
}

SEC("cgroup/connect4")
int carnet_need_ring(struct bpf_sock_addr *ctx)
{
	__u64 *room = bpf_ringbuf_reserve(&carnet_ring, sizeof(*room), 0);

	if (room)
		bpf_ringbuf_discard(room, 0);
	return 1;
}

SEC("cgroup/connect4")
int carnet_need_stor(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		bpf_sk_storage_get(&carnet_storage, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}

SEC("cgroup/connect4")
int carnet_need_find(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);

	if (sk)
		bpf_sk_release(sk);
	return 1;
}

SEC("cgroup/connect4")
int carnet_need_ret(struct bpf_sock_addr *ctx)
{
	bpf_set_retval(-111);
	return 0;
}

SEC("cgroup/connect4")
int carnet_need_read(struct bpf_sock_addr *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 flags = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags), &task->flags);
	return flags != 1;
}

SEC("cgroup/connect4")
int carnet_need_mptcp(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return !sk || bpf_skc_to_mptcp_sock(sk) != (void *)1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
