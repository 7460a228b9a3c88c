/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a redirect service links: where an accepted connection was going, who made it, and its record, for the socket
 * with which the service goes on.
 *
 *	cc service.c $(pkg-config --cflags --libs carnet)
 *
 * Generated from crates/carnet-ffi/src; docs/c-api.md is the reference. In short:
 *
 * - Functions that can fail give CARNET_OK or one of CARNET_ERROR_*, or -1 in the place of a descriptor. Where their
 *   last argument is not NULL, an error object is put there, or NULL when all went well. It is yours to free.
 * - A NULL that should be none is an error, and no crash. A pointer that points nowhere is the program's bug.
 * - What is given to you ends with the function that is named with it: carnet_flow_free(), carnet_error_free(),
 *   close().
 * - Every function may be called from any thread at any time. Objects may be shared, as long as nobody frees them.
 */

#ifndef CARNET_H
#define CARNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of this header; that of the library which is running: carnet_version(). */
#define CARNET_VERSION "0.1.0"
#define CARNET_VERSION_MAJOR 0
#define CARNET_VERSION_MINOR 1

/** No error. */
#define CARNET_OK 0

/** Something this version of carnet.h has no name for. The message says what. */
#define CARNET_ERROR_OTHER 1

/**
 * The operating system refused, and Carnet has no more to say: carnet_error_os_error() is its number. Refusals of a
 * dialled destination are here.
 */
#define CARNET_ERROR_IO 10

/** There is no record: the connection was not redirected. Close it. */
#define CARNET_ERROR_NOT_REDIRECTED 20

/** The connection came to a redirect service's listener, but its record is missing. Close it. */
#define CARNET_ERROR_CONTEXT_LOST 30

/** No engine answers on this socket: none is loaded, or the service runs outside the cgroups it covers. */
#define CARNET_ERROR_NO_ENGINE 40

/** Only sockets of TCP and MPTCP have records. */
#define CARNET_ERROR_NOT_TCP 50

/** Bytes of a length or version that cannot be records or an answer; or the socket listens. */
#define CARNET_ERROR_MALFORMED 60

/** The records are not as the engine gave them. */
#define CARNET_ERROR_FORGED 70

/** The records were read too long ago, or come from another engine. */
#define CARNET_ERROR_STALE 80

/** Records are accepted only from the service to which the newest redirect went. */
#define CARNET_ERROR_NOT_OWNER 90

/** The outgoing socket has connected, or was accepted: records are set before connect(). */
#define CARNET_ERROR_ALREADY_CONNECTED 100

/** An argument that cannot be: a null pointer, or a number that is no descriptor. */
#define CARNET_ERROR_ARGUMENT 200

/** The buffer is too small. What is needed is where its size was. */
#define CARNET_ERROR_BUFFER_TOO_SMALL 210

/** A bug of Carnet's, which has not harmed the program: please report the message. */
#define CARNET_ERROR_PANIC 220

#if !defined(_WIN32)
/** No records are larger. A buffer of this size fits them all. */
#define CARNET_RECORDS_MAX 640
#endif

#if defined(_WIN32)
/** The most that is asked for; Windows names no limit. */
#define CARNET_RECORDS_MAX 65536
#endif

#if !defined(_WIN32)
/** Longest context. */
#define CARNET_CONTEXT_MAX 2048
#endif

#if defined(_WIN32)
/** The most that is asked for; Windows names no limit. */
#define CARNET_CONTEXT_MAX 65536
#endif

/** No record. */
#define CARNET_STATE_NOT_REDIRECTED 0

/** The newest redirect was to the calling service. */
#define CARNET_STATE_REDIRECTED_BY_SELF 1

/** No redirect was to the calling service. */
#define CARNET_STATE_REDIRECTED_BY_OTHER 2

/** A redirect was to the calling service, but not the newest. */
#define CARNET_STATE_PREVIOUSLY_REDIRECTED_BY_SELF 3

/** An error. Free it with carnet_error_free(). */
typedef struct carnet_error_t carnet_error_t;

/**
 * One application connection, as a service on its way sees it. It does not change, so threads may share it. Free it
 * with carnet_flow_free(). Where a function that gives a number is given NULL, the number is 0.
 */
typedef struct carnet_flow_t carnet_flow_t;

#if !defined(_WIN32)
/** A socket: its descriptor. */
typedef int carnet_socket_t;
#endif

#if defined(_WIN32)
/** A SOCKET. */
typedef size_t carnet_socket_t;
#endif

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/** What a program can act on: one of CARNET_ERROR_*. CARNET_OK for NULL. */
int32_t carnet_error_kind(const carnet_error_t *error);

/** The operating system's error number, such as ECONNREFUSED of a dialled destination. 0 where there is none. */
int32_t carnet_error_os_error(const carnet_error_t *error);

/**
 * What failed, what to do next, and the operating system's reason: one line, in UTF-8. It lives as long as the
 * error. For NULL "no error".
 */
const char *carnet_error_message(const carnet_error_t *error);

/** Frees an error. Does nothing for NULL. */
void carnet_error_free(carnet_error_t *error);

/** The name of one of CARNET_ERROR_*, for logs: "not-redirected". "unknown" for any other number. */
const char *carnet_error_kind_name(int32_t kind);

/** The version of the library that is running: "0.1.0". CARNET_VERSION is that of the header. */
const char *carnet_version(void);

/**
 * The record of an accepted connection: opaque bytes, to be set on the socket with which the service goes on.
 *
 * *size is the size of the buffer, and then that of the records; CARNET_RECORDS_MAX bytes are always enough.
 */
int32_t carnet_records_query(carnet_socket_t socket, void *records, size_t *size, carnet_error_t **error);

/**
 * Puts a record on an outgoing socket that has not connected yet; a second call replaces the first. Where it fails
 * do not connect: a connection without its record looks like a new one of the service's own.
 */
int32_t carnet_records_set(carnet_socket_t socket, const void *records, size_t size, carnet_error_t **error);

/**
 * The bytes which the filter that redirected gives to this service, at most CARNET_CONTEXT_MAX. *size is 0 where
 * it gives none; that is no error.
 */
int32_t carnet_context_query(carnet_socket_t socket, void *context, size_t *size, carnet_error_t **error);

/**
 * Whether the calling service has had the flow: one of CARNET_STATE_*. A connection without a record is an answer
 * here, and no error.
 */
int32_t carnet_state_query(carnet_socket_t socket, uint32_t *state, carnet_error_t **error);

/**
 * Where this connection was going, by SO_ORIGINAL_DST: a sockaddr_in or sockaddr_in6. For a service that works
 * behind netfilter's REDIRECT, too; there, compare it with the socket's own address before dialling.
 */
int32_t carnet_original_destination(carnet_socket_t socket, void *address, size_t *size, carnet_error_t **error);

/**
 * Goes on: a new TCP socket with the record of the accepted connection on it, connected to where that was going. It
 * blocks, and is closed by exec(). The caller closes it. -1 (INVALID_SOCKET on Windows) where it fails; the
 * operating system's number in the error is then what to pass on to the client.
 */
carnet_socket_t carnet_dial(carnet_socket_t accepted, carnet_error_t **error);

/** As carnet_dial(), but gives up after so many milliseconds, at least 1: CARNET_ERROR_IO with ETIMEDOUT. */
carnet_socket_t carnet_dial_timeout(carnet_socket_t accepted, uint32_t milliseconds, carnet_error_t **error);

/** Asks an accepted socket where its connection was going, who made it, and which services have had it. */
int32_t carnet_flow_query(carnet_socket_t socket, carnet_flow_t **flow, carnet_error_t **error);

/** Frees a flow. Does nothing for NULL. */
void carnet_flow_free(carnet_flow_t *flow);

/** The lower half of the flow's id, which is the same at every hop and in the engine's events. */
uint64_t carnet_flow_id_low(const carnet_flow_t *flow);

/** The upper half of it. */
uint64_t carnet_flow_id_high(const carnet_flow_t *flow);

/**
 * Where this hop's connection was going: a sockaddr_in or sockaddr_in6, to be dialled. *size is the size of the
 * buffer, and then that of the address. A sockaddr_storage has room.
 */
int32_t carnet_flow_destination(const carnet_flow_t *flow, void *address, size_t *size, carnet_error_t **error);

/** The same as text, "192.0.2.7:443" or "[2001:db8::1]:443". It lives as long as the flow. "" for NULL. */
const char *carnet_flow_destination_text(const carnet_flow_t *flow);

/** Redirects so far, the one to this service included. */
uint32_t carnet_flow_depth(const carnet_flow_t *flow);

/**
 * The redirect handle of the service to which a redirect went, never used again within an engine's life. The oldest
 * hop has index 0, and the one to this service the index depth - 1. 0 where there is no such hop; no handle is 0.
 */
uint32_t carnet_flow_hop_handle(const carnet_flow_t *flow, uint32_t index);

/** Id of the filter that redirected; 0 where a client dialled the service itself, and where there is no such hop. */
uint32_t carnet_flow_hop_filter(const carnet_flow_t *flow, uint32_t index);

/** When it was redirected, in nanoseconds of CLOCK_BOOTTIME; 0 where there is no such hop. */
uint64_t carnet_flow_hop_time(const carnet_flow_t *flow, uint32_t index);

/** Where the application asked to go: a sockaddr_in or sockaddr_in6. A service on the way may have changed that. */
int32_t carnet_flow_origin_destination(const carnet_flow_t *flow,
				       void *address,
				       size_t *size,
				       carnet_error_t **error);

/** The application's own address. *size is 0 where it had none before it connected; that is no error. */
int32_t carnet_flow_origin_source(const carnet_flow_t *flow, void *address, size_t *size, carnet_error_t **error);

/**
 * Name of the process's first thread, at most 15 bytes before what is not UTF-8 was replaced. The process chooses
 * it: it proves nothing, and may hold what a terminal would obey. It lives as long as the flow. "" for NULL.
 */
const char *carnet_flow_comm(const carnet_flow_t *flow);

/**
 * Path of the running executable with its NUL, as seen by the caller now. *size is 0 where it cannot be told for
 * certain: the process is gone, runs another program now, or its file is not to be found; that is no error.
 */
int32_t carnet_flow_executable_path(const carnet_flow_t *flow, char *path, size_t *size, carnet_error_t **error);

/** Process id (thread group), in the initial namespace, as all ids here. */
uint32_t carnet_flow_pid(const carnet_flow_t *flow);

/**
 * When the process began, in nanoseconds of CLOCK_BOOTTIME: with the pid the only name of a process that is never
 * used again.
 */
uint64_t carnet_flow_start_time(const carnet_flow_t *flow);

/** Real user id. */
uint32_t carnet_flow_uid(const carnet_flow_t *flow);

/** Real group id. */
uint32_t carnet_flow_gid(const carnet_flow_t *flow);

/** When the application connected, in nanoseconds of CLOCK_BOOTTIME. */
uint64_t carnet_flow_time(const carnet_flow_t *flow);

/** Device of the running executable in the kernel's own encoding, major << 20 | minor; not what stat() reports. */
uint32_t carnet_flow_executable_device(const carnet_flow_t *flow);

/** Inode number of it on that device. */
uint64_t carnet_flow_executable_inode(const carnet_flow_t *flow);

/** cgroup2 id (inode) of the process. */
uint64_t carnet_flow_cgroup_id(const carnet_flow_t *flow);

/** Network namespace of the socket, as SO_NETNS_COOKIE tells it. */
uint64_t carnet_flow_netns_cookie(const carnet_flow_t *flow);

/** Index of the interface which the socket was bound to, or 0. */
uint32_t carnet_flow_bound_interface(const carnet_flow_t *flow);

/** Family of the application's socket: 4 or 6. One of 6 may have gone to an IPv4 destination. */
uint32_t carnet_flow_family(const carnet_flow_t *flow);

/**
 * Whether a service before this one set no record, so that the engine took this one from the flows which that
 * service holds to this destination.
 */
bool carnet_flow_is_inferred(const carnet_flow_t *flow);

/** Whether those flows are of several applications, so that the identity here is the service's own. */
bool carnet_flow_is_ambiguous(const carnet_flow_t *flow);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CARNET_H */
