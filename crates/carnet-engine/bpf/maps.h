/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Every map, its writer and its reader. The kernel writes and user space reads, or the other way round, never both. */
#ifndef CARNET_MAPS_H
#define CARNET_MAPS_H

#include "carnet_image.h"
#include "kernel.h"

/* Of the origin, and of a service that dials elsewhere in its name: see enum carnet_knowledge. */
struct carnet_identities {
	struct carnet_identity of[2];
};

/* Written by user space. ------------------------------------------------------------------------------------------ */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct carnet_config);
} carnet_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct carnet_key);
} carnet_keys SEC(".maps");

/* Two images; carnet_config.policy_slot says which is in force, so a new one is swapped in at once. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct carnet_policy);
} carnet_policies SEC(".maps");

/* Rules of both images: the slot's begin at slot * CARNET_MAX_RULES. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 2 * CARNET_MAX_RULES);
	__type(key, __u32);
	__type(value, struct carnet_rule);
} carnet_rules SEC(".maps");

/*
 * The rest of an image, by slot: as large as the policy needs, see apply.rs. Sizes, not types, since Linux 6.1 takes no
 * array without type information in the place of one with it.
 */
#define CARNET_TABLE(name, of)                                                  \
	struct {                                                                \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                       \
		__uint(max_entries, 2);                                         \
		__type(key, __u32);                                             \
		__array(values, struct {                                        \
			__uint(type, BPF_MAP_TYPE_ARRAY);                       \
			__uint(map_flags, BPF_F_INNER_MAP | BPF_F_RDONLY_PROG); \
			__uint(max_entries, 1);                                 \
			__uint(key_size, sizeof(__u32));                        \
			__uint(value_size, sizeof(of));                         \
		});                                                             \
	} name SEC(".maps")

CARNET_TABLE(carnet_classes, struct carnet_class);
CARNET_TABLE(carnet_nodes32, struct carnet_node32);
CARNET_TABLE(carnet_nodes128, struct carnet_node128);
CARNET_TABLE(carnet_grace, __u32); /* read by nobody: to wait for the programs that are running */

/* Classes of single values; the slot is in the key. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 2 * CARNET_MAX_VALUES);
	__type(key, struct carnet_value_key);
	__type(value, __u32);
} carnet_values SEC(".maps");

/* Who owns what, and whose a handle is, by policy slot: answers without a walk over the providers. */
#define OWNER_HANDLE 3 /* a redirect handle, beside CARNET_OWNER_CGROUP and CARNET_OWNER_UID */

struct carnet_owner_key {
	__u64 id;   /* cgroup id, uid or handle */
	__u32 kind; /* CARNET_OWNER_* or OWNER_HANDLE */
	__u32 slot;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 2 * CARNET_MAX_PROVIDERS * (CARNET_MAX_OWNERS + 1));
	__type(key, struct carnet_owner_key);
	__type(value, __u32); /* index of the provider */
} carnet_owners SEC(".maps");

/* Listeners' addresses, by policy slot. */
struct carnet_listener_key {
	struct carnet_addr at;
	__u32              slot;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 2 * CARNET_MAX_PROVIDERS * CARNET_MAX_LISTENERS);
	__type(key, struct carnet_listener_key);
	__type(value, __u32); /* index of the provider */
} carnet_listeners SEC(".maps");

/* Their ports alone. */
struct carnet_port_key {
	__u32 slot;
	__u32 port;
};

struct carnet_providers {
	__u64 bit[4]; /* bit i % 64 of word i / 64: provider i */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 2 * CARNET_MAX_PROVIDERS * CARNET_MAX_LISTENERS);
	__type(key, struct carnet_port_key);
	__type(value, struct carnet_providers);
} carnet_ports SEC(".maps");

/* Contexts are never changed once written: a flow keeps the one it was redirected with. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 2 * CARNET_MAX_RULES);
	__type(key, __u32);
	__type(value, struct carnet_context);
} carnet_contexts SEC(".maps");

/* This host's own addresses besides the loopback ranges: a wildcard listener can be dialled by any of them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 4096);
	__type(key, __u8[16]);
	__type(value, __u8);
} carnet_local SEC(".maps");

/* Which destinations have no route, by slot: the errno connect() would fail with, 0 where there is one. */
#define CARNET_ROUTES 65536

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, CARNET_ROUTES);
	__type(key, struct carnet_route_key);
	__type(value, __u32);
} carnet_routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct carnet_routing);
} carnet_routing SEC(".maps");

/*
 * Listeners that are a provider's whoever made them: its handle, by the listener's descriptor. An accepted socket has
 * its listener's. It goes with the socket. That of an MPTCP connection: see sock_mark().
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} carnet_marks SEC(".maps");

/* Written by the kernel. ------------------------------------------------------------------------------------------ */

/*
 * What goes from a redirected socket to the one that accepts it. The hand-over is the only map with an entry per flow,
 * from the SYN until the listener's socket takes it. Its key is the connection as the client sees it, with the SYN's
 * sequence number: where a port is used again at once, packets of the connection before it may still be on their way.
 */
struct carnet_tuple {
	__u64 netns;
	__u8  client[16]; /* v4-mapped form */
	__u8  listener[16];
	__u16 client_port; /* host byte order */
	__u16 listener_port;
	__u32 isn;
};

struct carnet_handover {
	struct carnet_records record;
	struct carnet_addr    remote;  /* where connect() asked to go */
	__u32                 handle;  /* of the provider */
	__u32                 context; /* key of the context map, 0: none */
	__u32                 uid;     /* of the connecting socket: whose share it is of */
	__u32                 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct carnet_tuple);
	__type(value, struct carnet_handover);
} carnet_handovers SEC(".maps");

/*
 * Hand-overs in flight by uid, so that nobody can take the whole table: a service that has stopped leaves half-open
 * connections behind for minutes. Uids are spread over a fixed array, since entries that come and go could be deleted
 * by one CPU while another counts them up; two uids in one place share.
 */
#define CARNET_SHARES 1024

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CARNET_SHARES);
	__type(key, __u32);
	__type(value, __u32);
} carnet_shares SEC(".maps");

/* carnet_sock.flags */
#define SOCK_RECORD     0x01 /* there is a record from before connect(): a service set it, or it was inferred */
#define SOCK_INFERRED   0x02 /* ... inferred, so it is dropped at the next connect() */
#define SOCK_DECIDED    0x04 /* connect() was decided on, and its end has not been told */
#define SOCK_SENT       0x08 /* ... and the kernel has begun the handshake */
#define SOCK_REDIRECTED 0x10 /* ... to another address than asked for */
#define SOCK_HANDS_OVER 0x20 /* ... and the accepting socket is to get the record */
#define SOCK_ACCEPTED   0x40 /* accepted by a provider, with a record */
#define SOCK_LOST       0x80 /* accepted by a provider, without one */

/*
 * What is known of a socket. It lives and dies with the socket, and is written under the socket's lock only. An MPTCP
 * connection has one, see sock_known().
 */
struct carnet_sock {
	struct carnet_handover flow;       /* connecting: what is handed over; accepted: what was */
	__u64                  decided_at;
	__u64                  cookie;     /* of the TCP socket; of an MPTCP connection, its first subflow's */
	__u32                  flags;      /* SOCK_* */
	__u16                  base;       /* depth of the record before this connection's own redirect, */
	__u16                  base_flags; /* ... the flags of its origin, */
	__s32                  base_floor; /* ... and its floor */
	__u32                  verdict;
	__u32                  dialer;     /* handle of the provider that made it */
	__u32                  flight;     /* index of its flight + 1, or 0 */
	__u32                  ifindex;    /* interface to which it was bound before a redirect, or 0 */
	__u32                  isn;        /* of the SYN that brings the record */
	struct carnet_identities who;      /* who connects, as the policy sees it */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct carnet_sock);
} carnet_socks SEC(".maps");

/* The MPTCP connection of a subflow, or NULL. */
static __always_inline struct mptcp_sock *mptcp_connection(struct bpf_sock *sk)
{
	return bpf_core_type_exists(struct mptcp_sock) ? bpf_skc_to_mptcp_sock(sk) : NULL;
}

/*
 * What is known of a socket, or NULL. Programs see an MPTCP connection's subflows, each a TCP socket, but the sockets
 * of processes are the connection: what is known is kept there.
 */
static __always_inline struct carnet_sock *sock_known(struct bpf_sock *sk, __u64 flags)
{
	struct mptcp_sock *connection = mptcp_connection(sk);

	if (connection)
		return bpf_sk_storage_get(&carnet_socks, connection, NULL, flags);
	return bpf_sk_storage_get(&carnet_socks, sk, NULL, flags);
}

/* Copies of the marks of MPTCP listeners, for the plain TCP connections that they accept: see sock_mark(). */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} carnet_subflow_marks SEC(".maps");

/*
 * Flights: what is under way from one provider to one destination. Serves two ends: the runaway guard counts clients,
 * and an unaware service's connection to that destination inherits the record of the flows the service holds. A plain
 * array with a lock in each slot, because a hash table's entry could be deleted by one CPU while another counts it up.
 */
#define CARNET_FLIGHTS      4096
#define CARNET_FLIGHT_PROBE 8

struct carnet_flight {
	struct bpf_spin_lock  lock;
	__u32                 handle;
	struct carnet_addr    remote;
	__u32                 clients;   /* redirected connections that are not over */
	__u32                 held;      /* accepted connections of an unaware service that are not over */
	__u32                 ambiguous; /* those do not share one identity */
	__u32                 pad;
	struct carnet_records record;    /* of the newest of them */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CARNET_FLIGHTS);
	__type(key, __u32);
	__type(value, struct carnet_flight);
} carnet_flights SEC(".maps");

/* Destinations that have just refused the last hop of a flow, and how. The oldest make room. */
struct carnet_refused_key {
	__u64              netns; /* of the application */
	struct carnet_addr remote;
};

struct carnet_refusal {
	__u64 until;
	__u32 error;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct carnet_refused_key);
	__type(value, struct carnet_refusal);
} carnet_refused SEC(".maps");

/* What engines tell each other of a socket. All engines on a host have this one map: see Engine::load(). */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct carnet_claim);
} carnet_claims SEC(".maps");

/* What there is to tell of a connected UDP socket's destination, once something is sent there. */
struct carnet_connected {
	struct carnet_records record; /* of the newest connect(): who, where to and when */
	__u32                 dialer; /* handle of the provider whose owner made it, or 0 */
	__u32                 told;
	__u32                 blocks_quic; /* who connected is refused port 443 */
	__u32                 turn;        /* counted up before and after all of this is written: odd meanwhile */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct carnet_connected);
} carnet_datagram_socks SEC(".maps");

/* Where UDP sockets have sent to, so that each destination of a socket is told once. The oldest make room. */
struct carnet_destination {
	__u64              cookie; /* of the socket */
	struct carnet_addr remote;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct carnet_destination);
	__type(value, __u8);
} carnet_destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} carnet_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CARNET_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} carnet_counters SEC(".maps");

static __always_inline void carnet_count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&carnet_counters, &counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline const struct carnet_config *carnet_config_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&carnet_config, &zero);
}

/* Which policy is in force. Asked once by each program: at the next asking it may be another one. */
static __always_inline __u32 policy_slot_now(const struct carnet_config *config)
{
	return *(const volatile __u32 *)&config->policy_slot;
}

static __always_inline const struct carnet_policy *carnet_policy_at(__u32 slot)
{
	return bpf_map_lookup_elem(&carnet_policies, &slot);
}

/* An entry that is not there yet. The errno is an int: as a long, Linux before 6.4 has no sign in its upper half. */
static __always_inline int map_insert(void *map, const void *key, const void *value)
{
	return bpf_map_update_elem(map, key, value, BPF_NOEXIST);
}

/* The rule with this index, or NULL. */
static __always_inline const struct carnet_rule *carnet_rule_at(__u32 slot, __u32 index)
{
	__u32 key = slot * CARNET_MAX_RULES + index;

	return index < CARNET_MAX_RULES ? bpf_map_lookup_elem(&carnet_rules, &key) : NULL;
}

/*
 * The provider with this index, below CARNET_MAX_PROVIDERS. It is masked behind the empty asm, because Linux 6.1
 * forgets the bounds of what was on the stack meanwhile.
 */
static __always_inline const struct carnet_provider *provider_at(const struct carnet_policy *policy, __u64 i)
{
	asm volatile("" : "+r"(i));
	return &policy->provider[i & 255];
}

/* The handle of the provider with this index, 0: there is none. */
static __always_inline __u32 provider_handle(const struct carnet_policy *policy, __u32 i)
{
	return i < CARNET_MAX_PROVIDERS ? provider_at(policy, i)->handle : 0;
}

/* Which providers have a listener on this port, or NULL: none. */
static __always_inline const struct carnet_providers *providers_on(__u16 port, __u32 slot)
{
	struct carnet_port_key key = { .slot = slot, .port = port };

	return bpf_map_lookup_elem(&carnet_ports, &key);
}

static __always_inline bool is_among(const struct carnet_providers *providers, __u32 i)
{
	return providers->bit[i >> 6 & 3] >> (i & 63) & 1;
}

#endif /* CARNET_MAPS_H */
