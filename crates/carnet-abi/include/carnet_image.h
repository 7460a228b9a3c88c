/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the engine and its kernel program say to each other: configuration and policy (user writes, kernel reads),
 * events and counters (kernel writes, user reads). Private to one build of Carnet, unlike carnet_abi.h.
 */
#ifndef CARNET_IMAGE_H
#define CARNET_IMAGE_H

#include "carnet_abi.h"

/*
 * Of what is written here and in the engine's maps. It goes up where the same bytes come to mean something else; that
 * they are other bytes is seen without it. A pinned engine of another version is not adopted.
 */
enum carnet_image_version {
	CARNET_IMAGE_VERSION = 1,
};

#define CARNET_MAX_PROVIDERS 255
#define CARNET_MAX_RULES     4096
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
	__u32 flight_seed;     /* random: where in its table a flight is looked for is a secret */
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
	__u32               first_rule;      /* its rules are first_rule <= index < end_rule; perhaps none */
	__u32               end_rule;
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
 * What one filter does. Rules are in the order of the decision: the host's, then each provider's by rank; within each
 * by falling weight. What a rule matches is not here, see carnet_class. 16 bytes.
 */
struct carnet_rule {
	__u32 provider; /* index, CARNET_NONE: the host's */
	__u32 action;
	__u32 filter;   /* id, from 1: index + 1 */
	__u32 context;  /* key of the context map, 0: none */
};

/*
 * How a decision finds its rules in constant time. Each dimension of a connection (its address, its port, its user...)
 * is cut into ranges in which the same rules match. What is looked up in a dimension is a class: the bitmap of the
 * rules whose conditions on that dimension hold. A rule matches where all dimensions' classes have its bit.
 *
 * Classes are counted over all dimensions. The first two are always there: 0 has no rule, 1 has all of them.
 */
#define CARNET_CLASS_NOTHING    0
#define CARNET_CLASS_EVERYTHING 1
#define CARNET_MAX_CLASSES      65536
#define CARNET_CLASS_WORDS      (CARNET_MAX_RULES / 64)

/* 520 bytes. */
struct carnet_class {
	__u64 words;                    /* bit w: word w is not zero */
	__u64 word[CARNET_CLASS_WORDS]; /* bit i of word w: rule 64 * w + i */
};

/*
 * Ranges are found in trees of nodes with 64 children. Such a tree has no pointers: its nodes lie level by level, and
 * child c of node n of a level is node 64 * n + c of the next. A node knows the last value of each child, rising; the
 * last child of a level's last node has the highest value there is, and so have children that are not used.
 */
#define CARNET_TREE_FAN    64
#define CARNET_TREE_GROUPS 8
#define CARNET_TREE_LEVELS 4

/* Ranges of 32-bit values. 416 bytes. */
struct carnet_node32 {
	__u32 group[CARNET_TREE_GROUPS]; /* last[7], last[15]...: lying together, they take one line of a cache */
	__u32 last[CARNET_TREE_FAN];
	__u16 class_of[CARNET_TREE_FAN]; /* on the lowest level; CARNET_CLASS_NOTHING on others */
};

/* 16 bytes. Ordered by hi, then lo. */
struct carnet_value128 {
	__u64 hi, lo;
};

/* Ranges of 128-bit values. 1280 bytes. */
struct carnet_node128 {
	struct carnet_value128 group[CARNET_TREE_GROUPS];
	struct carnet_value128 last[CARNET_TREE_FAN];
	__u16                  class_of[CARNET_TREE_FAN];
};

/* Where a tree's nodes are, in the array of nodes of its kind. levels is 1..CARNET_TREE_LEVELS. 24 bytes. */
struct carnet_tree {
	__u32 level[CARNET_TREE_LEVELS]; /* index of each level's first node, the root's first */
	__u32 levels;
	__u32 pad;
};

/*
 * What is not a range is a value, whose class is in a hash table: executables, cgroups, network namespaces, and users
 * and groups where no condition has a range of them. 16 bytes.
 */
struct carnet_value_key {
	__u64 lo;        /* inode, cgroup id, cookie, uid or gid */
	__u32 hi;        /* device */
	__u16 dimension; /* CARNET_BY_UID to CARNET_BY_NETNS */
	__u16 slot;      /* policy image */
};

#define CARNET_MAX_VALUES 32768

/* What conditions are about: the trees, and the bits of carnet_policy.dimensions. Without its bit, nothing is asked. */
enum carnet_dimension {
	CARNET_BY_V4 = 0,     /* tree, 32: IPv4 destination, in host byte order */
	CARNET_BY_V6 = 1,     /* tree, 128: IPv6 destination, its first half and its second half in host byte order */
	CARNET_BY_PORT = 2,   /* tree, 32: IPPROTO_* << 16 | port: conditions on protocol and port */
	CARNET_BY_UID = 3,    /* tree, 32, or value: from here to CARNET_BY_NETNS of the identity */
	CARNET_BY_GID = 4,    /* tree, 32, or value */
	CARNET_TREES = 5,
	CARNET_BY_EXE = 5,    /* value; of a process without executable both halves 0 */
	CARNET_BY_CGROUP = 6, /* value: the deepest of a line that is named counts those above it in */
	CARNET_BY_NETNS = 7,  /* value */
	CARNET_BY_VIA = 8,    /* carnet_policy.via */
};

#define CARNET_IDENTITY_FIRST CARNET_BY_UID
#define CARNET_IDENTITIES     5 /* dimensions of the identity */

/* The classes of who connects, of CARNET_BY_UID to CARNET_BY_NETNS. 16 bytes. */
struct carnet_identity {
	__u16 class_of[CARNET_IDENTITIES];
	__u16 pad[3];
};

/* carnet_policy.flags */
#define CARNET_POLICY_BLOCK_QUIC 0x1 /* applications' UDP to port 443 is refused, so that they use TCP */
#define CARNET_POLICY_STRICT     0x2 /* sockets that no hook sees cannot be made */
#define CARNET_POLICY_JUDGES_UDP 0x4 /* a rule or the default may block UDP */

/* 58,032 bytes. */
struct carnet_policy {
	__u64                  generation;
	__u32                  default_action; /* CARNET_ACTION_PERMIT or CARNET_ACTION_BLOCK */
	__u32                  providers;
	__u32                  rules;
	__u32                  host_rules;   /* the first so many rules are the host's */
	__u32                  flags;        /* CARNET_POLICY_* */
	__u32                  dimensions;   /* bit d: enum carnet_dimension d */
	__u32                  lets_through; /* class: rules that permit or skip and have conditions on the identity */
	__u32                  stops;        /* class: providers' rules that redirect or block, likewise */
	__u16                  otherwise[CARNET_IDENTITIES]; /* classes of values that are not named */
	__u16                  pad[3];
	struct carnet_tree     tree[CARNET_TREES];
	__u16                  via[CARNET_MAX_PROVIDERS + 1]; /* class by the dialer's index; the last: nobody's */
	struct carnet_provider provider[CARNET_MAX_PROVIDERS + 1]; /* one too many: every byte is an index */
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
	CARNET_REASON_SPECIAL = 12,      /* broadcast, multicast or link-local destination: left alone */
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
	CARNET_REASON_ELSEWHERE = 24,    /* the application's loopback, dialled in another network: ENETUNREACH */
};

/* What is known of who connects: the bits of carnet_question.knowledge. Identity[0] is the origin's. */
enum carnet_knowledge {
	CARNET_KNOWN = 0,     /* neither of these */
	CARNET_STRAYED = 1,   /* a service in the origin's name dials elsewhere: identity[1] is that service's */
	CARNET_AMBIGUOUS = 2, /* the origin is not all: it is a service with several flows, or one has strayed before */
};

/* One question to the decision and its answer. 64 bytes. */
struct carnet_question {
	struct carnet_addr remote;
	__u16 slot;       /* policy image */
	__u16 protocol;   /* IPPROTO_* */
	__s32 floor;      /* of the record, -1: none */
	__u32 dialer;     /* index of the provider whose owner makes the connection, CARNET_NONE */
	__u32 listener;   /* index of the provider whose listener `remote` is, CARNET_NONE */
	__u16 has_record;
	__u16 knowledge;  /* enum carnet_knowledge */
	__u32 from;       /* rules before this one have been asked already; 0 at first */
	__u16 verdict;    /* answers from here on */
	__u16 reason;
	__u32 provider;   /* index, CARNET_NONE */
	__u32 rule;       /* index, CARNET_NONE */
	__u32 pad;
};

/* A question by itself, for tests and benchmarks. Nothing of it is read where connections are decided. 536 bytes. */
struct carnet_asked {
	struct carnet_question question;
	__u64                  dead[4];   /* bit i: provider i has nobody of its own listening */
	__u32                  depth;     /* of the record */
	__u32                  pad;
	struct carnet_origin   origin[2]; /* whose identities: see enum carnet_knowledge */
	__u64                  line[2][CARNET_LINE]; /* their cgroups */
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

/* 672 bytes. */
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
CARNET_STATIC_ASSERT(sizeof(struct carnet_rule) == 16, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_class) == 520, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_node32) == 416, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_node128) == 1280, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_tree) == 24, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_identity) == 16, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_value_key) == 16, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_policy) == 56 + 5 * 24 + 512 + 256 * 224, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_route_key) == 24, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_routing) == 16, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_claim) == 48, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_context) == 2056, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_question) == 64, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_asked) == 64 + 32 + 8 + 2 * 128 + 2 * 88, "image");
CARNET_STATIC_ASSERT(sizeof(struct carnet_event) == 672, "image");

#endif /* CARNET_IMAGE_H */
