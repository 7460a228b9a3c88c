/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the engine and its kernel program say to each other: configuration and policy (user writes, kernel reads),
 * events and counters (kernel writes, user reads). Private to one build of Carnet, unlike carnet_abi.h.
 */
#ifndef CARNET_IMAGE_H
#define CARNET_IMAGE_H

#include "carnet_abi.h"

#define CARNET_MAX_PROVIDERS 16
#define CARNET_MAX_RULES     256
#define CARNET_MAX_LISTENERS 4
#define CARNET_MAX_OWNERS    4
#define CARNET_NONE          0xffffffffU /* "no provider", "no rule" */

/* One per engine, written before anything is attached; policy_slot and key_slot change later. 56 bytes. */
struct carnet_config {
	__u64 engine;          /* instance id, random */
	__u64 flow_seed;       /* high half of every flow id, random */
	__u64 stamp_ttl;       /* ns for which a queried blob may be set */
	__u64 governed_cgroup; /* connections without a record are decided on below this cgroup only */
	__u32 policy_slot;     /* which of the two policy images is in force */
	__u32 key_slot;        /* which of the two keys makes new tags; either may check one */
	__u64 refused_for;     /* ns for which a destination that refused a flow's last hop is refused at once */
	__u32 handover_share;  /* most hand-overs in flight of one uid */
	__u32 pad;
};

/* 24 bytes. */
struct carnet_key {
	__u32 id; /* never 0 in a slot in use */
	__u32 pad;
	__u64 k0, k1;
};

/* carnet_owner.kind */
#define CARNET_OWNER_CGROUP 1
#define CARNET_OWNER_UID    2

/* 24 bytes. */
struct carnet_owner {
	__u64 cgroup_id;
	__u32 cgroup_level;
	__u32 uid;
	__u32 kind;
	__u32 pad;
};

/* carnet_provider.flags */
#define CARNET_PROVIDER_UNAWARE 0x1 /* knows SO_ORIGINAL_DST only: its connections may inherit a record */
#define CARNET_PROVIDER_OPEN    0x2 /* dead: go to the next provider, else refuse */
#define CARNET_PROVIDER_DIRECT  0x4 /* applications may dial its listener (an explicit proxy) */
#define CARNET_PROVIDER_ROUTES  0x8 /* it dials destinations itself, so one without a route here is not for it */
#define CARNET_PROVIDER_SOCKNAME 0x10 /* getsockname() on what it accepts answers the destination */

/* 224 bytes. */
struct carnet_provider {
	__u32               handle; /* 1, 2, 3 ... */
	__u32               rank;   /* unique, lower is earlier */
	__u32               flags;
	__u32               listeners;
	__u32               owners;
	__u32               in_flight_limit; /* redirects at once per destination; the runaway guard. 0: none */
	__u64               pad;
	struct carnet_owner owner[CARNET_MAX_OWNERS];
	struct carnet_addr  listener[CARNET_MAX_LISTENERS]; /* addresses to dial, never wildcards */
};

enum carnet_action {
	CARNET_ACTION_REDIRECT = 1, /* a provider's filter only */
	CARNET_ACTION_SKIP = 2,     /* a provider's filter only: go to the next provider */
	CARNET_ACTION_PERMIT = 3,   /* a host filter only: straight to the destination */
	CARNET_ACTION_BLOCK = 4,
};

/*
 * Rules are in the order of the decision: the host's, then each provider's by rank; within each by falling weight.
 * 40 bytes.
 */
struct carnet_rule {
	__u8  prefix[16];
	__u32 prefix_len; /* 0..128, in the v4-mapped form */
	__u16 port_min;   /* host byte order, inclusive */
	__u16 port_max;
	__u32 provider;   /* index, CARNET_NONE: the host's */
	__u32 action;
	__u32 filter;     /* id, from 1 */
	__u32 context;    /* key of the context map, 0: none */
};

/* carnet_policy.flags */
#define CARNET_POLICY_BLOCK_QUIC 0x1 /* applications' UDP to port 443 is refused, so that they use TCP */
#define CARNET_POLICY_STRICT     0x2 /* sockets that no hook sees cannot be made */

/* 13,856 bytes. */
struct carnet_policy {
	__u64                  generation;
	__u32                  default_action; /* CARNET_ACTION_PERMIT or CARNET_ACTION_BLOCK */
	__u32                  providers;
	__u32                  rules;
	__u32                  flags; /* CARNET_POLICY_* */
	__u64                  pad;
	struct carnet_provider provider[CARNET_MAX_PROVIDERS];
	struct carnet_rule     rule[CARNET_MAX_RULES];
};

/*
 * The routes of one network namespace, as far as they say that a destination has none: written by user space, by the
 * longest prefix. Two tables, as with policies.
 */
struct carnet_route_key {
	__u32 prefix_len; /* 32 + 0..128 */
	__u32 slot;
	__u8  prefix[16]; /* in the v4-mapped form */
};

/* Which of the two tables is in force, and for which namespace. 16 bytes. */
struct carnet_routing {
	__u64 netns; /* cookie; 0: no routes are known */
	__u32 slot;
	__u32 pad;
};

/*
 * What an engine says of a socket to the other engines on the host: it has redirected its connect() to this address.
 * One map for all of them, so this never changes. 48 bytes.
 */
struct carnet_claim {
	__u64              engine; /* instance id; 0: nobody's */
	struct carnet_addr at;
	__u64              caller; /* thread group and thread id of who called connect() */
	__u64              time;
};

/* 2056 bytes. */
struct carnet_context {
	__u32 size;
	__u32 pad;
	__u8  bytes[CARNET_CONTEXT_MAX];
};

enum carnet_verdict {
	CARNET_VERDICT_PASS = 1,     /* to its destination */
	CARNET_VERDICT_REDIRECT = 2, /* to a provider's listener */
	CARNET_VERDICT_DIRECT = 3,   /* was dialled to a provider's listener, may go on, and gets a record */
	CARNET_VERDICT_REFUSE = 4,   /* connect() fails; the errno is in the event */
};

/* Why. Every value has its row in docs/events.md. */
enum carnet_reason {
	CARNET_REASON_RULE = 1,          /* a filter said so */
	CARNET_REASON_DEFAULT = 2,       /* no filter matched */
	CARNET_REASON_DEAD = 3,          /* nobody listens there: ECONNREFUSED */
	CARNET_REASON_STRANGER = 4,      /* somebody who is not the owner listens there: ECONNREFUSED */
	CARNET_REASON_FAMILY = 5,        /* the provider has no listener this socket can reach: ECONNREFUSED */
	CARNET_REASON_BLOCKED = 6,       /* a filter or the default said block: EACCES */
	CARNET_REASON_OWN_LISTENER = 7,  /* a service dialled its own listener, or one not above its floor: ELOOP */
	CARNET_REASON_NOT_DIRECT = 8,    /* a listener that may not be dialled directly: ECONNREFUSED */
	CARNET_REASON_TERMINAL = 9,      /* an explicit proxy's connection without a record is not redirected */
	CARNET_REASON_RUNAWAY = 10,      /* too many redirects at once to one destination: ELOOP */
	CARNET_REASON_TOO_DEEP = 11,     /* hop 17: ELOOP */
	CARNET_REASON_SPECIAL = 12,      /* unspecified, broadcast, multicast or link-local destination: left alone */
	CARNET_REASON_KERNEL = 13,       /* a kernel thread's connection: left alone */
	CARNET_REASON_NO_ROOM = 14,      /* no memory for the record: ENOBUFS */
	CARNET_REASON_DEVICE = 15,       /* bound to a device, and the caller may not unbind it: ENETUNREACH */
	CARNET_REASON_OUTSIDE = 16,      /* not below the governed cgroup and no record: left alone */
	CARNET_REASON_NO_ROUTE = 17,     /* this host has no route to it: the errno connect() would have had */
	CARNET_REASON_LATELY = 18,       /* the destination has just refused a flow: the same errno at once */
	CARNET_REASON_SHARE = 19,        /* the uid has too many handshakes with services in flight: ENOBUFS */
	CARNET_REASON_OTHER_ENGINE = 20, /* another engine has redirected it already: left alone */
	CARNET_REASON_UDP = 21,          /* UDP is not redirected: left alone */
	CARNET_REASON_QUIC = 22,         /* UDP to port 443, and the policy wants TCP: ECONNREFUSED */
	CARNET_REASON_SOCKET = 23,       /* a kind of socket that no hook sees: left alone, or EACCES */
};

/* One question to the decision and its answer. SEC("syscall") programs take it as their context. 72 bytes. */
struct carnet_question {
	struct carnet_addr remote;
	__u32 slot;       /* policy image */
	__s32 floor;      /* of the record, -1: none */
	__u32 dialer;     /* index of the provider whose owner makes the connection, CARNET_NONE */
	__u32 listener;   /* index of the provider whose listener `remote` is, CARNET_NONE */
	__u32 has_record;
	__u32 depth;      /* of the record */
	__u32 dead;       /* bit i: provider i has nobody of its own listening */
	__u32 verdict;    /* answers from here on */
	__u32 reason;
	__u32 provider;   /* index, CARNET_NONE */
	__u32 rule;       /* index, CARNET_NONE */
	__u32 pad;
};

enum carnet_event_kind {
	CARNET_EVENT_CONNECT = 1, /* a decision, for every TCP connect() the hooks see */
	CARNET_EVENT_SET = 2,     /* a service set a record, or was refused it (error) */
	CARNET_EVENT_END = 3,     /* a connection that was decided on is over */
	CARNET_EVENT_LOST = 4,    /* a provider's listener accepted a connection that has no record */
	CARNET_EVENT_STRANGER = 5, /* a redirected connection was accepted by a socket that is not the provider's */
	CARNET_EVENT_DATAGRAM = 6, /* a UDP socket's first datagram to a destination */
	CARNET_EVENT_SOCKET = 7,   /* a socket of a kind was made that no hook sees, or was refused */
};

/* carnet_event.how, of CARNET_EVENT_END */
enum carnet_how {
	CARNET_HOW_CLOSED = 1,  /* both sides sent FIN */
	CARNET_HOW_RESET = 2,   /* the peer reset it, or it timed out: see error */
	CARNET_HOW_ABORTED = 3, /* this side reset it */
	CARNET_HOW_FAILED = 4,  /* never established: see error */
};

/* 584 bytes. */
struct carnet_event {
	__u16                 version;
	__u16                 kind;
	__u32                 size;
	__u64                 time;
	__u64                 cookie;  /* of the socket this is about */
	struct carnet_records record;  /* flow id, origin and chain; tag and stamp are zero */
	struct carnet_addr    remote;  /* where this connection was going, before any redirect */
	__u32                 verdict; /* CONNECT and END */
	__u32                 reason;  /* CONNECT */
	__u32                 handle;  /* CONNECT: redirected to; SET, LOST, STRANGER: concerned; or 0 */
	__u32                 filter;  /* CONNECT: the filter's id or 0 */
	__u32                 dialer;  /* handle of the provider whose owner made this connection, or 0 */
	__u32                 base;    /* depth before this connection: 0 is an application's own */
	__s32                 error;   /* positive errno, or 0 */
	__u32                 how;     /* END */
	__u64                 sent;    /* END: payload bytes the other side acknowledged */
	__u64                 received; /* END: payload bytes */
	__u64                 duration; /* END: ns since connect() */
	struct carnet_addr    local;   /* END */
	__u32                 pid;     /* of the caller, where there is one */
	__u32                 uid;
	__u16                 family;  /* SOCKET: what was asked for: AF_*, SOCK_*, IPPROTO_* */
	__u16                 sock_type;
	__u32                 protocol;
};

/* Counters, one __u64 each. */
enum carnet_counter {
	CARNET_COUNT_EVENTS_LOST = 0,
	CARNET_COUNT_REDIRECTED = 1,
	CARNET_COUNT_HANDED_OVER = 2,
	CARNET_COUNT_LOST_CONTEXT = 3,
	CARNET_COUNT_STRANGERS = 4,
	CARNET_COUNT_NO_ROOM = 5,
	CARNET_COUNT_HELD_BACK = 6, /* redirected, and stopped before the SYN: the hand-over had no room */
	CARNET_COUNT_NOT_INFERRED = 7, /* flows of unaware services for which the inference table had no room */
	CARNET_COUNT_OVER_SHARE = 8,   /* connections refused because their uid's share of the hand-over was used up */
	CARNET_COUNTERS = 9,
};

CARNET_STATIC_ASSERT(sizeof(struct carnet_config) == 56, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_key) == 24, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_owner) == 24, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_provider) == 224, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_rule) == 40, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_policy) == 32 + 16 * 224 + 256 * 40, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_route_key) == 24, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_routing) == 16, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_claim) == 48, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_context) == 2056, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_question) == 72, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_event) == 584, "image");

#endif /* CARNET_IMAGE_H */
