/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a redirect service and Carnet's kernel program say to each other: socket options and the bytes they carry.
 *
 * This header is the source of truth. The Rust twins are in carnet-abi/src, and a test compares every offset with the
 * BTF of the built kernel object. All integers are in host byte order unless the name or the comment says otherwise;
 * nothing here leaves the host. Times are CLOCK_BOOTTIME nanoseconds; ids (pid, uid, gid) are those of the initial
 * namespaces. docs/socket-options.md lists every answer and every error.
 */
#ifndef CARNET_ABI_H
#define CARNET_ABI_H

#include <linux/types.h>

#define SOL_CARNET 0x4341 /* "CA" */

/* Option names of level SOL_CARNET. 0x40000000-0x7fffffff is reserved for keys of datagram flows. */
#define CARNET_RECORDS 1 /* get on an accepted socket, set on one that has not connected: struct carnet_records */
#define CARNET_CONTEXT 2 /* get: what the filter gives to this hop's provider, at most CARNET_CONTEXT_MAX; or ENOENT */
#define CARNET_FLOW    3 /* get: struct carnet_flow, which grows at its end as struct tcp_info does */
#define CARNET_STATE   4 /* get: __u32, one of enum carnet_state, for the provider that owns the caller */

#define CARNET_ABI_VERSION 1
#define CARNET_MAX_HOPS    16
#define CARNET_LINE        11 /* cgroups of a record's line: those of levels 1 to 11 below the root */
#define CARNET_RECORDS_MAX 640  /* no version of struct carnet_records is larger */
#define CARNET_CONTEXT_MAX 2048

/* State of (record, provider): see docs/socket-options.md. The numbers are those of FWPS_CONNECTION_REDIRECT_STATE. */
enum carnet_state {
	CARNET_NOT_REDIRECTED = 0,
	CARNET_REDIRECTED_BY_SELF = 1,
	CARNET_REDIRECTED_BY_OTHER = 2,
	CARNET_PREVIOUSLY_REDIRECTED_BY_SELF = 3,
};

/* An address and port in Carnet's one normal form: IPv4 is stored as ::ffff:a.b.c.d. 24 bytes. */
struct carnet_addr {
	__u8  ip[16];
	__u32 scope; /* sin6_scope_id, 0 where there is none */
	__u16 port;  /* host byte order */
	__u16 pad;   /* zero */
};

/* carnet_origin.flags */
#define CARNET_ORIGIN_INFERRED  0x1 /* the service set no record; this is that of the flows it holds to there */
#define CARNET_ORIGIN_AMBIGUOUS 0x2 /* ... they do not share one identity, so the one below is the service's */
#define CARNET_ORIGIN_STRAYED   0x4 /* a service before this one has gone elsewhere with the record */

/* The first application's connect(), the same at every hop. 128 bytes. */
struct carnet_origin {
	struct carnet_addr remote;       /* where the application asked to go */
	struct carnet_addr local;        /* its own address; all zero where the kernel had not chosen one */
	__u64              time;         /* of the connect() */
	__u64              start_time;   /* of the process */
	__u64              cgroup_id;    /* cgroup2 id of the process */
	__u64              netns_cookie; /* of the socket */
	__u64              exe_ino;      /* inode of the running executable */
	__u32              exe_dev;      /* its device in the kernel's encoding: major << 20 | minor */
	__u32              pid;          /* thread group id */
	__u32              uid;          /* real uid */
	__u32              gid;          /* real gid */
	__u32              ifindex;      /* interface the socket was bound to, or 0 */
	__u8               family;       /* AF_INET or AF_INET6, of the socket */
	__u8               protocol;     /* IPPROTO_TCP */
	__u16              flags;        /* CARNET_ORIGIN_* */
	__u8               comm[16];     /* of the process (its first thread), NUL-padded */
};

/* One redirect. 16 bytes. */
struct carnet_hop {
	__u64 time;
	__u32 handle; /* the provider's redirect handle, never reused within an engine instance */
	__u32 filter; /* id of the filter that redirected; 0 for a connection dialled straight to the provider */
};

/* The records blob. Opaque to services: they carry it. A blob is exactly `size` bytes long. 528 bytes. */
struct carnet_records {
	__u16                version; /* CARNET_ABI_VERSION */
	__u16                size;    /* sizeof(struct carnet_records) of the writer */
	__u32                key_id;  /* of the key the tag was made with */
	__u64                engine;  /* instance id of the engine */
	__u64                flow[2]; /* flow id, low half first */
	__u64                stamp;   /* when it was queried; a blob is accepted for a while after it */
	struct carnet_origin origin;
	__u32                floor;   /* highest rank among the providers of the chain */
	__u32                depth;   /* hops in use */
	struct carnet_hop    chain[CARNET_MAX_HOPS]; /* oldest first, the rest zero */
	__u64                line[CARNET_LINE]; /* the origin's cgroups by their ids, the highest first */
	__u64                tag;     /* SipHash-2-4 of all bytes before it */
};

/* Answer of CARNET_FLOW. A shorter buffer gets a prefix of it. 432 bytes. */
struct carnet_flow {
	__u16                version; /* CARNET_ABI_VERSION */
	__u16                size;    /* sizeof(struct carnet_flow) of the kernel program */
	__u32                depth;   /* hops in use, this one included */
	__u64                flow[2];
	struct carnet_origin origin;
	struct carnet_addr   remote;  /* where this hop was going: origin.remote unless a service changed it */
	struct carnet_hop    chain[CARNET_MAX_HOPS];
};

#ifdef __cplusplus
#define CARNET_STATIC_ASSERT static_assert
#else
#define CARNET_STATIC_ASSERT _Static_assert
#endif
CARNET_STATIC_ASSERT(sizeof(struct carnet_addr) == 24, "abi");
CARNET_STATIC_ASSERT(sizeof(struct carnet_origin) == 128, "abi");
CARNET_STATIC_ASSERT(sizeof(struct carnet_hop) == 16, "abi");
CARNET_STATIC_ASSERT(sizeof(struct carnet_records) == 528, "abi");
CARNET_STATIC_ASSERT(sizeof(struct carnet_records) <= CARNET_RECORDS_MAX, "abi");
CARNET_STATIC_ASSERT(sizeof(struct carnet_flow) == 432, "abi");

#endif /* CARNET_ABI_H */
