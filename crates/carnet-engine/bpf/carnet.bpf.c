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
#include "class.h"
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
#include "ask.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/*
 * What no map holds, or only an inner one, would be missing from the BTF, with which a test compares the Rust twins.
 */
struct carnet_layouts {
	struct carnet_flow     flow;
	struct carnet_event    event;
	struct carnet_claim    claim;
	struct carnet_class    class;
	struct carnet_node32   node32;
	struct carnet_node128  node128;
	struct carnet_asked    asked;
	enum carnet_state      state;
	enum carnet_action     action;
	enum carnet_verdict    verdict;
	enum carnet_reason     reason;
	enum carnet_event_kind kind;
	enum carnet_how        how;
	enum carnet_counter    counter;
	enum carnet_knowledge  knowledge;
	enum carnet_image_version version;
};

const struct carnet_layouts *carnet_layouts;
