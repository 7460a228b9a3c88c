/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Programs of somebody else on the hooks that Carnet uses. The tests compile them, and attach those that they want. */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define EHOSTDOWN     112
#define FOREIGN_LEVEL 0x7777
#define FOREIGN_VALUE 0x5ca1ab1e

/* What foreign.rs tells: an address that is one of a service, behind which there is another. Host byte order. */
struct vip {
	__u32 port;
	__u32 real_ip;
	__u32 real_port;
	__u32 ip;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vip);
} vips SEC(".maps");

/* How often something happened; foreign.rs knows the places by the same names. */
enum place {
	CONNECTS,
	UNKNOWN,
	TRANSLATED,
	PEERS,
	NAMES,
	GETS,
	SETS,
	CONNECTING,
	STATES,
	RTTS,
	PLACES,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __always_inline void count(__u32 place)
{
	__u64 *value = bpf_map_lookup_elem(&seen, &place);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Looks on. */
SEC("cgroup/connect4")
int pass_connect4(struct bpf_sock_addr *ctx)
{
	count(CONNECTS);
	return 1;
}

SEC("cgroup/connect6")
int pass_connect6(struct bpf_sock_addr *ctx)
{
	count(CONNECTS);
	return 1;
}

/* Looks on, at the answers of getpeername(). */
SEC("cgroup/getpeername4")
int pass_peername4(struct bpf_sock_addr *ctx)
{
	count(PEERS);
	return 1;
}

SEC("cgroup/getpeername6")
int pass_peername6(struct bpf_sock_addr *ctx)
{
	count(PEERS);
	return 1;
}

/* Looks on, at the answers of getsockname(). */
SEC("cgroup/getsockname4")
int pass_sockname4(struct bpf_sock_addr *ctx)
{
	count(NAMES);
	return 1;
}

SEC("cgroup/getsockname6")
int pass_sockname6(struct bpf_sock_addr *ctx)
{
	count(NAMES);
	return 1;
}

/* Has an answer of its own: the virtual address. */
SEC("cgroup/getsockname4")
int vip_sockname4(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	struct vip *vip = bpf_map_lookup_elem(&vips, &zero);

	count(NAMES);
	if (vip && vip->port) {
		ctx->user_ip4 = bpf_htonl(vip->ip);
		ctx->user_port = bpf_htons(vip->port);
	}
	return 1;
}

/* Translates one address to another, as a load balancer in the socket layer does. */
SEC("cgroup/connect4")
int vip_connect4(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0, ip = bpf_ntohl(ctx->user_ip4), port = bpf_ntohs(ctx->user_port);
	struct vip *vip = bpf_map_lookup_elem(&vips, &zero);

	count(CONNECTS);
	if (!vip)
		return 1;
	if (ip != vip->ip || port != vip->port) {
		count(UNKNOWN);
		return 1;
	}
	count(TRANSLATED);
	ctx->user_ip4 = bpf_htonl(vip->real_ip);
	ctx->user_port = bpf_htons(vip->real_port);
	return 1;
}

/* ... and back, where it is asked who the peer is. */
SEC("cgroup/getpeername4")
int vip_peername4(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0, ip = bpf_ntohl(ctx->user_ip4), port = bpf_ntohs(ctx->user_port);
	struct vip *vip = bpf_map_lookup_elem(&vips, &zero);

	count(PEERS);
	if (vip && ip == vip->real_ip && port == vip->real_port) {
		ctx->user_ip4 = bpf_htonl(vip->ip);
		ctx->user_port = bpf_htons(vip->port);
	}
	return 1;
}

/* Refuses everything, with an errno that Carnet never gives. */
SEC("cgroup/connect4")
int refuse_connect4(struct bpf_sock_addr *ctx)
{
	count(CONNECTS);
	bpf_set_retval(-EHOSTDOWN);
	return 0;
}

/* Has an option of its own, and touches the answers of all others without changing them. */
SEC("cgroup/getsockopt")
int own_getsockopt(struct bpf_sockopt *ctx)
{
	__u32 *value = ctx->optval;
	void *end = ctx->optval_end;
	int optlen = ctx->optlen;

	count(GETS);
	if (ctx->level != FOREIGN_LEVEL) {
		*(volatile int *)&ctx->optlen = optlen;
		return 1;
	}
	if ((void *)(value + 1) > end) {
		bpf_set_retval(-90); /* EMSGSIZE */
		return 0;
	}
	*value = FOREIGN_VALUE;
	*(volatile int *)&ctx->optlen = sizeof(*value);
	*(volatile int *)&ctx->retval = 0;
	return 1;
}

SEC("cgroup/setsockopt")
int own_setsockopt(struct bpf_sockopt *ctx)
{
	count(SETS);
	if (ctx->level == FOREIGN_LEVEL)
		*(volatile int *)&ctx->optlen = -1;
	return 1;
}

static __always_inline void count_callback(__u32 op)
{
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		count(CONNECTING);
	if (op == BPF_SOCK_OPS_STATE_CB)
		count(STATES);
	if (op == BPF_SOCK_OPS_RTT_CB)
		count(RTTS);
}

/* Wants callbacks, and leaves to others what they want. */
SEC("sockops")
int polite_sockops(struct bpf_sock_ops *ctx)
{
	__u32 op = ctx->op, flags = ctx->bpf_sock_ops_cb_flags;

	count_callback(op);
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_sock_ops_cb_flags_set(ctx, flags | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
	return 1;
}

/* Wants callbacks, and takes them from everybody else. */
SEC("sockops")
int rude_sockops(struct bpf_sock_ops *ctx)
{
	__u32 op = ctx->op;

	count_callback(op);
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_RTT_CB_FLAG);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
