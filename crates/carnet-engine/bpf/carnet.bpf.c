// SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only
/*
 * Carnet's kernel program. One header per layer, in the order in which a flow meets them; ARCHITECTURE.md tells the
 * life of a flow through them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/types.h>

#include "kernel.h"
#include "carnet_abi.h"
#include "carnet_image.h"

#include "maps.h"
#include "address.h"
#include "siphash.h"
#include "owner.h"
#include "decide.h"
#include "record.h"
#include "flight.h"
#include "event.h"
#include "handover.h"

#include "create.h"
#include "datagram.h"
#include "listener.h"
#include "attempt.h"
#include "connect.h"
#include "sockops.h"
#include "unwatched.h"
#include "sockopt.h"
#include "peername.h"
#include "sockname.h"
#include "count.h"
#include "netns.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* What no map holds would be missing from the BTF, with which a test compares the Rust twins. */
struct carnet_layouts {
	struct carnet_flow     flow;
	struct carnet_event    event;
	struct carnet_claim    claim;
	enum carnet_state      state;
	enum carnet_action     action;
	enum carnet_verdict    verdict;
	enum carnet_reason     reason;
	enum carnet_event_kind kind;
	enum carnet_how        how;
	enum carnet_counter    counter;
};

const struct carnet_layouts *carnet_layouts;

/* The decision by itself, for the test that compares it with carnet_policy::decide(). Not loaded otherwise. */
SEC("syscall")
int carnet_ask(struct carnet_question *question)
{
	struct carnet_question copy = *question;

	carnet_decide(&copy);
	question->verdict = copy.verdict;
	question->reason = copy.reason;
	question->provider = copy.provider;
	question->rule = copy.rule;
	return 0;
}
