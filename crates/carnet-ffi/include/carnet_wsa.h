/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Windows' calls on redirect records, on Linux, under names of ours: arguments, results and error numbers are Windows'.
 * A source that was written for Windows includes carnet_winsock.h, which gives them the names that it knows.
 *
 * Generated from crates/carnet-ffi/src/wsa.rs; docs/c-api.md is the reference. For new code there is carnet.h.
 */

#ifndef CARNET_WSA_H
#define CARNET_WSA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** One operation. All zero, or with an event, when it begins; not to be touched, nor moved, until it has ended. */
typedef struct {
	/** Carnet's. */
	size_t Internal;
	/** Carnet's. */
	size_t InternalHigh;
	/** Not used by sockets. */
	uint32_t Offset;
	/** Not used by sockets. */
	uint32_t OffsetHigh;
	/** Signalled when the operation has ended; NULL: none. */
	void *hEvent;
} carnet_wsa_overlapped_t;

/**
 * Told of an operation's end, by the thread that began it, when that waits alertably: an error number or 0, and
 * bytes.
 */
typedef void (*carnet_wsa_routine_t)(uint32_t error,
				     uint32_t transferred,
				     carnet_wsa_overlapped_t *overlapped,
				     uint32_t flags);

/** A thread that runs completion routines. */
typedef struct {
	/** Names it. */
	void *ThreadHandle;
	/** Not used. */
	size_t Reserved;
} carnet_wsa_thread_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Performs one of the three operations on redirect records, or begins it; the codes are in carnet_winsock.h. 0, or
 * -1 and carnet_wsa_last_error() says why. An output buffer and an OVERLAPPED of an operation that has begun (997)
 * stay where they are until it has ended.
 */
int32_t carnet_wsa_ioctl(size_t socket,
			 uint32_t code,
			 const void *input,
			 uint32_t input_size,
			 void *output,
			 uint32_t output_size,
			 uint32_t *returned,
			 carnet_wsa_overlapped_t *overlapped,
			 carnet_wsa_routine_t routine);

/**
 * The same as a service provider has it: the error goes to *error, and the routine is run by the thread which
 * carnet_wsa_open_current_thread() has named.
 */
int32_t carnet_wsa_provider_ioctl(size_t socket,
				  uint32_t code,
				  const void *input,
				  uint32_t input_size,
				  void *output,
				  uint32_t output_size,
				  uint32_t *returned,
				  carnet_wsa_overlapped_t *overlapped,
				  carnet_wsa_routine_t routine,
				  const carnet_wsa_thread_t *thread,
				  int32_t *error);

/** Names the calling thread. 0, or -1 and *error says why. */
int32_t carnet_wsa_open_current_thread(carnet_wsa_thread_t *thread, int32_t *error);

/** Ends what carnet_wsa_open_current_thread() has begun. 0, or -1 and *error says why. */
int32_t carnet_wsa_close_thread(carnet_wsa_thread_t *thread, int32_t *error);

/**
 * Why this thread's last call of those in this header failed. It knows nothing of the system's own calls, such as
 * connect(): for those there is errno.
 */
int32_t carnet_wsa_last_error(void);

/** Sets what carnet_wsa_last_error() answers. */
void carnet_wsa_set_last_error(int32_t error);

/** How an operation has ended. 1: well. 0: carnet_wsa_last_error() says why; 996 where it goes on and wait is 0. */
int32_t carnet_wsa_overlapped_result(size_t socket,
				     const carnet_wsa_overlapped_t *overlapped,
				     uint32_t *transferred,
				     int32_t wait,
				     uint32_t *flags);

/** An event that is not signalled, and stays signalled once it is. NULL where there is no memory. */
void *carnet_wsa_create_event(void);

/** Closes an event. 1, or 0 and carnet_wsa_last_error() says why. */
int32_t carnet_wsa_close_event(void *event);

/** Signals an event. 1, or 0 and carnet_wsa_last_error() says why. */
int32_t carnet_wsa_set_event(void *event);

/** Makes an event not signalled. 1, or 0 and carnet_wsa_last_error() says why. */
int32_t carnet_wsa_reset_event(void *event);

/**
 * Waits for one of the events, or for all; an alertable wait ends, too, when completion routines have run. Index of
 * the event, 0xC0 (routines), 258 (the time is over) or 0xFFFFFFFF (carnet_wsa_last_error() says why).
 */
uint32_t carnet_wsa_wait_for_events(uint32_t count,
				    void *const *events,
				    int32_t all,
				    uint32_t milliseconds,
				    int32_t alertable);

/** Sleeps; alertably, until completion routines have run. 0, or 0xC0 where some have. */
uint32_t carnet_wsa_sleep(uint32_t milliseconds, int32_t alertable);

/**
 * Cancels the operation of overlapped, or, where that is NULL, all of the socket's. 1, or 0 where there is none that
 * can be cancelled (1168). A cancelled one ends with 995.
 */
int32_t carnet_wsa_cancel(void *socket, const carnet_wsa_overlapped_t *overlapped);

/** Closes a socket; its operations end with 995. 0, or -1 and carnet_wsa_last_error() says why. */
int32_t carnet_wsa_close_socket(size_t socket);

/**
 * A socket, as socket() makes them. One without WSA_FLAG_OVERLAPPED (1) among its flags takes no overlapped
 * operations. SIZE_MAX, which is INVALID_SOCKET, and carnet_wsa_last_error() says why.
 */
size_t carnet_wsa_socket(int32_t family,
			 int32_t kind,
			 int32_t protocol,
			 const void *protocol_information,
			 uint32_t group,
			 uint32_t flags);

/**
 * Makes a completion port (socket is -1 and port NULL), or attaches a socket to one: the ends of its operations are
 * told there, with this key. NULL and carnet_wsa_last_error() says why.
 */
void *carnet_wsa_completion_port(void *socket, void *port, size_t key, uint32_t threads);

/**
 * The oldest end at a port. 1: that operation went well. 0 and *overlapped is not NULL: it did not. 0 and
 * *overlapped is NULL: none came. carnet_wsa_last_error() says why.
 */
int32_t carnet_wsa_dequeue(void *port,
			   uint32_t *transferred,
			   size_t *key,
			   carnet_wsa_overlapped_t **overlapped,
			   uint32_t milliseconds);

/** Closes an event, a completion port or a thread's name. 1, or 0 and carnet_wsa_last_error() says why. */
int32_t carnet_wsa_close_handle(void *handle);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CARNET_WSA_H */
