/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * Flights by {provider, destination}. A key may come to stand in two slots of its probe window (two CPUs at once), so
 * readers sum and compare over the whole window; a socket remembers its slot, so what it added it takes away there.
 */
#ifndef CARNET_FLIGHT_H
#define CARNET_FLIGHT_H

#include "record.h"

/* Seeded, or a user could choose destinations that take all the places where another one is looked for. */
static __always_inline __u32 flight_home(__u32 handle, const struct carnet_addr *remote)
{
	const struct carnet_config *config = carnet_config_now();
	struct ip_words words = ip_words(remote->ip);
	__u32 hash = handle * 0x9e3779b1U ^ (config ? config->flight_seed : 0);

	for (int i = 0; i < 4; i++)
		hash = (hash ^ words.w[i]) * 0x85ebca6bU, hash ^= hash >> 15;
	hash = (hash ^ remote->port) * 0xc2b2ae35U;
	return hash ^ (hash >> 16);
}

static __always_inline struct carnet_flight *flight_at(__u32 index)
{
	__u32 i = index & (CARNET_FLIGHTS - 1);

	return bpf_map_lookup_elem(&carnet_flights, &i);
}

static __always_inline bool flight_is(const struct carnet_flight *flight, __u32 handle,
				      const struct carnet_addr *remote)
{
	return (flight->clients || flight->held) && flight->handle == handle && addr_equal(&flight->remote, remote);
}

/* Redirected connections under way from this provider to this destination. */
__noinline int carnet_flight_clients(__u32 handle, const struct carnet_addr *remote)
{
	__u32 home, clients = 0;

	if (!remote)
		return 0;
	home = flight_home(handle, remote);
	for (__u32 i = 0; i < CARNET_FLIGHT_PROBE; i++) {
		struct carnet_flight *flight = flight_at(home + i);

		/* No lock: a count that is one behind does no harm. */
		if (flight && flight_is(flight, handle, remote))
			clients += flight->clients;
	}
	return clients;
}

/*
 * Counts one more client, or with a record one more held flow, in this slot if it is the flight's, or with `free` if it
 * is nobody's. Returns whether it did. Global, so that it is verified once and not at every step of the search: inline
 * it takes Linux 6.1 a third of the million instructions that it is willing to look at.
 */
__noinline int carnet_flight_take(__u32 index, __u32 handle, const struct carnet_addr *remote,
				  const struct carnet_records *record, bool free)
{
	struct carnet_flight *flight = flight_at(index);
	bool taken = false;

	if (!flight || !remote)
		return 0;
	bpf_spin_lock(&flight->lock);
	if (flight_is(flight, handle, remote)) {
		taken = true;
	} else if (free && !flight->clients && !flight->held) {
		flight->handle = handle;
		flight->remote = *remote;
		flight->ambiguous = 0;
		taken = true;
	}
	if (taken && record) {
		if (flight->held && !record_same_identity(&flight->record, record))
			flight->ambiguous = 1;
		else if (!flight->held)
			flight->ambiguous = 0;
		flight->record = *record;
		flight->held++;
	} else if (taken) {
		flight->clients++;
	}
	bpf_spin_unlock(&flight->lock);
	return taken;
}

/* Counts one more client, or with a record one more held flow. Returns the slot's index + 1, or 0: no room. */
__noinline int carnet_flight_begin(__u32 handle, const struct carnet_addr *remote, const struct carnet_records *record)
{
	__u32 home;

	if (!remote)
		return 0;
	home = flight_home(handle, remote);

	for (__u32 step = 0; step < 2 * CARNET_FLIGHT_PROBE; step++) {
		/* First round: a slot that is ours already. Second: a free one. */
		bool free = step >= CARNET_FLIGHT_PROBE;
		__u32 index = (home + (step & (CARNET_FLIGHT_PROBE - 1))) & (CARNET_FLIGHTS - 1);

		if (carnet_flight_take(index, handle, remote, record, free))
			return index + 1;
	}
	carnet_count(CARNET_COUNT_NOT_INFERRED);
	return 0;
}

/* The socket has left its flight. */
static __always_inline void flight_end(struct carnet_sock *sock)
{
	bool held = sock->flags & SOCK_ACCEPTED;
	__u32 slot = sock->flight;
	struct carnet_flight *flight;

	if (!slot)
		return;
	sock->flight = 0;
	flight = flight_at(slot - 1);
	if (!flight)
		return;
	bpf_spin_lock(&flight->lock);
	if (held && flight->held)
		flight->held--;
	if (!held && flight->clients)
		flight->clients--;
	bpf_spin_unlock(&flight->lock);
}

#define FLIGHT_NONE      0
#define FLIGHT_INFERRED  1
#define FLIGHT_AMBIGUOUS 2

/* Copies the record which an unaware service's connection to `remote` inherits, where there is one. */
__noinline int carnet_flight_infer(__u32 handle, const struct carnet_addr *remote, struct carnet_records *record)
{
	int found = FLIGHT_NONE;
	__u32 home;

	if (!remote || !record)
		return found;
	home = flight_home(handle, remote);

	for (__u32 i = 0; i < CARNET_FLIGHT_PROBE; i++) {
		struct carnet_flight *flight = flight_at(home + i);

		if (!flight)
			continue;
		bpf_spin_lock(&flight->lock);
		if (flight_is(flight, handle, remote) && flight->held) {
			if (flight->ambiguous ||
			    (found == FLIGHT_INFERRED && !record_same_identity(record, &flight->record))) {
				found = FLIGHT_AMBIGUOUS;
			} else if (found == FLIGHT_NONE) {
				*record = flight->record;
				found = FLIGHT_INFERRED;
			}
		}
		bpf_spin_unlock(&flight->lock);
	}
	return found;
}

#endif /* CARNET_FLIGHT_H */
