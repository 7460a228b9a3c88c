/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The few kernel structures that are read here, each with only the fields that are used: the loader finds their real
 * places in the running kernel's BTF (CO-RE). Program contexts are not among them: they come from <linux/bpf.h> and
 * must keep their fixed layout.
 */
#ifndef CARNET_KERNEL_H
#define CARNET_KERNEL_H

#include <linux/bpf.h>
#include <linux/in6.h>
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET         2
#define AF_INET6        10
#define SOCK_STREAM     1
#define SOCK_DGRAM      2
#define SOL_IP          0
#define SOL_SOCKET      1
#define SOL_IPV6        41
#define SO_ORIGINAL_DST 80
#define SO_BINDTOIFINDEX 62

#define LOOPBACK_IFINDEX 1 /* in every network namespace */
#define NOWHERE_IFINDEX 0x7fffffff /* no interface has it: what is bound to it can send nothing */

#define PF_KTHREAD    0x00200000 /* task_struct.flags */
#define CAP_SYS_ADMIN 21
#define SOCK_DONE  1          /* bit of sock_common.skc_flags: the peer's FIN has come */

#define EPERM        1
#define ENOENT       2
#define EEXIST       17
#define EINVAL       22
#define EACCES       13
#define ELOOP        40
#define EIDRM        43
#define ENODATA      61
#define EBADMSG      74
#define EMSGSIZE     90
#define ENOPROTOOPT  92
#define EOPNOTSUPP   95
#define ENETUNREACH  101
#define ENOBUFS      105
#define EISCONN      106
#define ECONNREFUSED 111
#define EHOSTUNREACH 113
#define ESTALE       116

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	int                 level;
	struct kernfs_node *kn;
	struct cgroup      *ancestors[];
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock_common {
	unsigned short         skc_family;
	volatile unsigned char skc_state;
	unsigned char          skc_ipv6only : 1;
	unsigned long          skc_flags;
	__be32                 skc_daddr;
	__be32                 skc_rcv_saddr;
	__be16                 skc_dport;
	__u16                  skc_num;
	struct in6_addr        skc_v6_daddr;
	struct in6_addr        skc_v6_rcv_saddr;
};

typedef struct {
	__u32 val;
} kuid_t;

struct sock_reuseport;

struct file;

struct socket {
	struct file *file;
};

struct sock {
	struct sock_common      __sk_common;
	struct sock_cgroup_data sk_cgrp_data;
	struct sock_reuseport  *sk_reuseport_cb;
	unsigned char           sk_kern_sock : 1;
	struct socket          *sk_socket;
	int                     sk_err;
	kuid_t                  sk_uid;
};

struct sock_reuseport {
	__u16        num_socks;
	struct sock *socks[];
};

struct tcp_sock {
	__u32 write_seq;
	__u32 snd_una;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u8  bpf_sock_ops_cb_flags;
	__u8  syn_smc : 1; /* with CONFIG_SMC */
};

/* An MPTCP connection. Its subflows are TCP sockets; bpf_skc_to_mptcp_sock() leads from one to it. */
struct mptcp_sock {
	struct sock *first; /* the subflow with which it began */
};

struct super_block {
	__u32 s_dev;
};

struct inode {
	struct super_block *i_sb;
	unsigned long       i_ino;
};

struct file {
	struct inode *f_inode;
};

struct mm_struct {
	struct file *exe_file;
};

struct user_namespace {
	int level; /* 0: the initial one */
};

typedef struct {
} kernel_cap_t;

struct cred {
	kernel_cap_t           cap_effective;
	struct user_namespace *user_ns;
};

struct task_struct {
	unsigned int        flags;
	const struct cred  *cred;
	struct task_struct *group_leader;
	struct mm_struct   *mm;
	__u64               start_boottime;
	char                comm[16];
};

#pragma clang attribute pop

/* What connect, sendmsg and sock_create programs return: 1 lets the call go on, 0 fails it with the errno set. */
static __always_inline int hook_return(int err)
{
	if (!err)
		return 1;
	bpf_set_retval(-err);
	return 0;
}

#endif /* CARNET_KERNEL_H */
