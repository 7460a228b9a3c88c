//! Twins of `include/carnet_image.h`; its comments are the reference. Private to one build of Carnet.

use crate::{Address, CONTEXT_MAX, LINE, Origin, Records};

/// Declares the numbers of a C enum.
macro_rules! numbers {
    ($type:ty: $($(#[$meta:meta])* $name:ident = $value:literal,)*) => {
        $($(#[$meta])* pub const $name: $type = $value;)*
    };
}

/// Most providers of a policy.
pub const MAX_PROVIDERS: usize = 255;
/// Most rules of a policy.
pub const MAX_RULES: usize = 4096;
/// Most listeners of a provider.
pub const MAX_LISTENERS: usize = 4;
/// Most owners of a provider.
pub const MAX_OWNERS: usize = 4;
/// "No provider", "no rule".
pub const NONE: u32 = u32::MAX;

/// The class that has no rule.
pub const CLASS_NOTHING: u16 = 0;
/// The class that has all rules.
pub const CLASS_EVERYTHING: u16 = 1;
/// Most classes of a policy.
pub const MAX_CLASSES: usize = 65536;
/// Words of a class's bitmap.
pub const CLASS_WORDS: usize = MAX_RULES / 64;
/// Children of a tree's node.
pub const TREE_FAN: usize = 64;
/// Groups of children in a node.
pub const TREE_GROUPS: usize = 8;
/// Most levels of a tree.
pub const TREE_LEVELS: usize = 4;
/// How many trees there are; the numbers are [`BY_V4`] to [`BY_GID`].
pub const TREES: usize = 5;
/// Most values that a policy can name: executables, cgroups, network namespaces, single users and groups.
pub const MAX_VALUES: usize = 32768;
/// Dimensions of the identity, from [`BY_UID`] to [`BY_NETNS`].
pub const IDENTITIES: usize = 5;

numbers! { usize:
    /// 32 bits: IPv4 destination.
    BY_V4 = 0,
    /// 128 bits: IPv6 destination.
    BY_V6 = 1,
    /// 32 bits: `IPPROTO_* << 16 | port`.
    BY_PORT = 2,
    /// 32 bits: real uid. A value where the tree has no levels.
    BY_UID = 3,
    /// 32 bits: real gid. A value where the tree has no levels.
    BY_GID = 4,
    /// Value: device, inode.
    BY_EXE = 5,
    /// Value: 0, cgroup id.
    BY_CGROUP = 6,
    /// Value: 0, cookie.
    BY_NETNS = 7,
    /// [`Policy::via`].
    BY_VIA = 8,
}

/// [`Owner::kind`]: everything below a cgroup.
pub const OWNER_CGROUP: u32 = 1;
/// [`Owner::kind`]: a real uid.
pub const OWNER_UID: u32 = 2;

/// [`Provider::flags`]: knows `SO_ORIGINAL_DST` only.
pub const PROVIDER_UNAWARE: u32 = 1;
/// [`Provider::flags`]: when dead, go to the next provider.
pub const PROVIDER_OPEN: u32 = 2;
/// [`Provider::flags`]: applications may dial its listener.
pub const PROVIDER_DIRECT: u32 = 4;
/// [`Provider::flags`]: it dials destinations itself, so one without a route here is not for it.
pub const PROVIDER_ROUTES: u32 = 8;
/// [`Provider::flags`]: `getsockname()` on what it accepts answers the destination.
pub const PROVIDER_SOCKNAME: u32 = 16;

/// [`Policy::flags`]: applications' UDP to port 443 is refused.
pub const POLICY_BLOCK_QUIC: u32 = 1;
/// [`Policy::flags`]: sockets that no hook sees cannot be made.
pub const POLICY_STRICT: u32 = 2;
/// [`Policy::flags`]: a rule or the default may block UDP.
pub const POLICY_JUDGES_UDP: u32 = 4;

crate::twins! {
    /// Configuration of one engine.
    struct Config: 56 {
        /// Instance id, random.
        engine: u64,
        /// High half of every flow id, random.
        flow_seed: u64,
        /// Nanoseconds for which a queried blob may be set.
        stamp_ttl: u64,
        /// Connections without a record are decided on below this cgroup only.
        governed_cgroup: u64,
        /// Which of the two policy images is in force.
        policy_slot: u32,
        /// Which of the two keys makes new tags.
        key_slot: u32,
        /// Nanoseconds for which a destination that refused a flow's last hop is refused at once.
        refused_for: u64,
        /// Most hand-overs in flight of one uid.
        handover_share: u32,
        /// Random: where in its table a flight is looked for is a secret.
        flight_seed: u32,
    }

    /// A SipHash key.
    struct Key: 24 {
        /// Never 0 in a slot in use.
        id: u32,
        /// Zero.
        pad: u32,
        /// Low half.
        k0: u64,
        /// High half.
        k1: u64,
    }

    /// Whose listeners and outgoing sockets are a provider's.
    struct Owner: 24 {
        /// With [`OWNER_CGROUP`].
        cgroup_id: u64,
        /// Depth of that cgroup below the root.
        cgroup_level: u32,
        /// With [`OWNER_UID`].
        uid: u32,
        /// `OWNER_*`.
        kind: u32,
        /// Zero.
        pad: u32,
    }

    /// One provider.
    struct Provider: 224 {
        /// 1, 2, 3 ...
        handle: u32,
        /// Unique, lower is earlier.
        rank: u32,
        /// `PROVIDER_*`.
        flags: u32,
        /// How many of `listener` are in use.
        listeners: u32,
        /// How many of `owner` are in use.
        owners: u32,
        /// Redirects at once per destination; 0: no limit.
        in_flight_limit: u32,
        /// Its rules are those from this index on,
        first_rule: u32,
        /// and before this one.
        end_rule: u32,
        /// Owners.
        owner: [Owner; MAX_OWNERS],
        /// Addresses to dial, never wildcards.
        listener: [Address; MAX_LISTENERS],
    }

    /// What one filter of the host or of a provider does.
    struct Rule: 16 {
        /// Index, or [`NONE`] for the host's.
        provider: u32,
        /// `ACTION_*`.
        action: u32,
        /// Id, from 1.
        filter: u32,
        /// Key of the context map, 0: none.
        context: u32,
    }

    /// A set of rules.
    struct Class: 520 {
        /// Bit w: word w is not zero.
        words: u64,
        /// Bit i of word w: rule 64 * w + i.
        word: [u64; CLASS_WORDS],
    }

    /// Node of a tree of 32-bit ranges.
    struct Node32: 416 {
        /// Last value of each group of eight children.
        group: [u32; TREE_GROUPS],
        /// Last value of each child, rising.
        last: [u32; TREE_FAN],
        /// Classes, on the lowest level.
        class_of: [u16; TREE_FAN],
    }

    /// A 128-bit value. Ordered by `hi`, then `lo`.
    struct Value128: 16 {
        /// First half.
        hi: u64,
        /// Second half.
        lo: u64,
    }

    /// Node of a tree of 128-bit ranges.
    struct Node128: 1280 {
        /// Last value of each group of eight children.
        group: [Value128; TREE_GROUPS],
        /// Last value of each child, rising.
        last: [Value128; TREE_FAN],
        /// Classes, on the lowest level.
        class_of: [u16; TREE_FAN],
    }

    /// Where a tree's nodes are.
    struct Tree: 24 {
        /// Index of each level's first node, the root's first.
        level: [u32; TREE_LEVELS],
        /// 1 to [`TREE_LEVELS`].
        levels: u32,
        /// Zero.
        pad: u32,
    }

    /// A value that conditions name: the key of its class.
    struct ValueKey: 16 {
        /// Inode, cgroup id, cookie, uid or gid.
        lo: u64,
        /// Device.
        hi: u32,
        /// [`BY_UID`] to [`BY_NETNS`].
        dimension: u16,
        /// Policy image.
        slot: u16,
    }

    /// The classes of who connects.
    struct Identity: 16 {
        /// Of [`BY_UID`] to [`BY_NETNS`].
        class_of: [u16; IDENTITIES],
        /// Zero.
        pad: [u16; 3],
    }

    /// A policy's head: all but its rules, classes and trees.
    struct Policy: 58032 {
        /// Counted up.
        generation: u64,
        /// [`ACTION_PERMIT`] or [`ACTION_BLOCK`].
        default_action: u32,
        /// How many of `provider` are in use.
        providers: u32,
        /// How many rules there are.
        rules: u32,
        /// The first so many rules are the host's.
        host_rules: u32,
        /// `POLICY_*`.
        flags: u32,
        /// Bit d: there are conditions on dimension d.
        dimensions: u32,
        /// Class: rules that permit or skip and have conditions on the identity.
        lets_through: u32,
        /// Class: providers' rules that redirect or block and have conditions on the identity.
        stops: u32,
        /// Classes of values that are not named, from [`BY_UID`] to [`BY_NETNS`].
        otherwise: [u16; IDENTITIES],
        /// Zero.
        pad: [u16; 3],
        /// By dimension.
        tree: [Tree; TREES],
        /// Classes by the index of the dialer; the last: nobody's.
        via: [u16; MAX_PROVIDERS + 1],
        /// By rising rank. One too many: every byte is an index.
        provider: [Provider; MAX_PROVIDERS + 1],
    }

    /// Key of a route: its value is the errno without a route, or 0.
    struct RouteKey: 24 {
        /// 32 + 0..=128.
        prefix_len: u32,
        /// Which of the two tables.
        slot: u32,
        /// In the v4-mapped form.
        prefix: [u8; 16],
    }

    /// Which of the two tables of routes is in force, and for which network namespace.
    struct Routing: 16 {
        /// Cookie; 0: no routes are known.
        netns: u64,
        /// 0 or 1.
        slot: u32,
        /// Zero.
        pad: u32,
    }

    /// What an engine says of a socket to the other engines on the host.
    struct Claim: 48 {
        /// Instance id; 0: nobody's.
        engine: u64,
        /// Where it has redirected the socket's `connect()` to.
        at: Address,
        /// Thread group and thread id of who called it.
        caller: u64,
        /// When.
        time: u64,
    }

    /// The bytes a filter gives to its provider.
    struct Context: 2056 {
        /// How many of `bytes` are in use.
        size: u32,
        /// Zero.
        pad: u32,
        /// The bytes.
        bytes: [u8; CONTEXT_MAX],
    }

    /// One question to the decision, and its answer.
    struct Question: 64 {
        /// Destination.
        remote: Address,
        /// Policy image.
        slot: u16,
        /// `IPPROTO_*`.
        protocol: u16,
        /// Of the record, -1: none.
        floor: i32,
        /// Index of the provider whose owner makes the connection, or [`NONE`].
        dialer: u32,
        /// Index of the provider whose listener `remote` is, or [`NONE`].
        listener: u32,
        /// 0 or 1.
        has_record: u16,
        /// [`KNOWN`], or bits: [`STRAYED`], [`AMBIGUOUS`].
        knowledge: u16,
        /// Rules before this one have been asked already.
        from: u32,
        /// Answer: `VERDICT_*`.
        verdict: u16,
        /// Answer: `REASON_*`.
        reason: u16,
        /// Answer: index or [`NONE`].
        provider: u32,
        /// Answer: index or [`NONE`].
        rule: u32,
        /// Zero.
        pad: u32,
    }

    /// A question by itself, for tests and benchmarks.
    struct Asked: 536 {
        /// The question.
        question: Question,
        /// Bit i: provider i has nobody of its own listening.
        dead: [u64; 4],
        /// Hops of the record.
        depth: u32,
        /// Zero.
        pad: u32,
        /// Whose identities.
        origin: [Origin; 2],
        /// Their cgroups.
        line: [[u64; LINE]; 2],
    }

    /// What the kernel program reports. All kinds have one layout; the header says which fields mean something.
    struct Event: 672 {
        /// [`crate::ABI_VERSION`].
        version: u16,
        /// `EVENT_*`.
        kind: u16,
        /// Size of this struct.
        size: u32,
        /// When.
        time: u64,
        /// Of the socket this is about.
        cookie: u64,
        /// Flow id, origin and chain; tag and stamp are zero.
        record: Records,
        /// Where this connection was going, before any redirect.
        remote: Address,
        /// `VERDICT_*`.
        verdict: u32,
        /// `REASON_*`.
        reason: u32,
        /// Provider concerned, or 0.
        handle: u32,
        /// Filter id, or 0.
        filter: u32,
        /// Provider whose owner made this connection, or 0.
        dialer: u32,
        /// Depth before this connection.
        base: u32,
        /// Positive errno, or 0.
        error: i32,
        /// `HOW_*`.
        how: u32,
        /// Payload bytes the other side acknowledged.
        sent: u64,
        /// Payload bytes received.
        received: u64,
        /// Nanoseconds since `connect()`.
        duration: u64,
        /// Own address.
        local: Address,
        /// Of the caller, where there is one.
        pid: u32,
        /// Of the caller, where there is one.
        uid: u32,
        /// `SOCKET`: address family asked for.
        family: u16,
        /// `SOCKET`: `SOCK_*`.
        sock_type: u16,
        /// `SOCKET`: `IPPROTO_*`.
        protocol: u32,
    }
}

numbers! { u32:
    /// A provider's filter only.
    ACTION_REDIRECT = 1,
    /// A provider's filter only: go to the next provider.
    ACTION_SKIP = 2,
    /// A host filter only: straight to the destination.
    ACTION_PERMIT = 3,
    /// Refused, final.
    ACTION_BLOCK = 4,

    /// To its destination.
    VERDICT_PASS = 1,
    /// To a provider's listener.
    VERDICT_REDIRECT = 2,
    /// Was dialled to a provider's listener, may go on, and gets a record.
    VERDICT_DIRECT = 3,
    /// `connect()` fails.
    VERDICT_REFUSE = 4,

    /// A filter said so.
    REASON_RULE = 1,
    /// No filter matched.
    REASON_DEFAULT = 2,
    /// Nobody listens there.
    REASON_DEAD = 3,
    /// Somebody who is not the owner listens there.
    REASON_STRANGER = 4,
    /// The provider has no listener this socket can reach.
    REASON_FAMILY = 5,
    /// A filter or the default said block.
    REASON_BLOCKED = 6,
    /// A service dialled its own listener, or one that is not above its floor.
    REASON_OWN_LISTENER = 7,
    /// A listener that may not be dialled directly.
    REASON_NOT_DIRECT = 8,
    /// An explicit proxy's connection without a record is not redirected.
    REASON_TERMINAL = 9,
    /// Too many redirects at once to one destination.
    REASON_RUNAWAY = 10,
    /// Hop 17.
    REASON_TOO_DEEP = 11,
    /// Broadcast, multicast or link-local destination.
    REASON_SPECIAL = 12,
    /// A kernel thread's connection.
    REASON_KERNEL = 13,
    /// No memory for the record.
    REASON_NO_ROOM = 14,
    /// Bound to a device, and the caller may not unbind it.
    REASON_DEVICE = 15,
    /// Not below the governed cgroup and no record.
    REASON_OUTSIDE = 16,
    /// This host has no route to it.
    REASON_NO_ROUTE = 17,
    /// The destination has just refused a flow.
    REASON_LATELY = 18,
    /// The uid has too many handshakes with services in flight.
    REASON_SHARE = 19,
    /// Another engine has redirected it already.
    REASON_OTHER_ENGINE = 20,
    /// UDP is not redirected.
    REASON_UDP = 21,
    /// UDP to port 443, and the policy wants TCP.
    REASON_QUIC = 22,
    /// A kind of socket that no hook sees.
    REASON_SOCKET = 23,
    /// The application's own loopback address, dialled in another network namespace than the application's.
    REASON_ELSEWHERE = 24,

    /// Both sides sent FIN.
    HOW_CLOSED = 1,
    /// The peer reset it, or it timed out.
    HOW_RESET = 2,
    /// This side reset it.
    HOW_ABORTED = 3,
    /// Never established.
    HOW_FAILED = 4,

    /// It is the origin that connects.
    KNOWN = 0,
    /// A bit: a service in the origin's name dials elsewhere.
    STRAYED = 1,
    /// A bit: the origin is a service with several flows, or a service before has strayed.
    AMBIGUOUS = 2,

    /// Of what the engine's maps hold; see the header.
    IMAGE_VERSION = 1,
}

numbers! { u16:
    /// A decision.
    EVENT_CONNECT = 1,
    /// A service set a record, or was refused it.
    EVENT_SET = 2,
    /// A connection that was decided on is over.
    EVENT_END = 3,
    /// A provider's listener accepted a connection that has no record.
    EVENT_LOST = 4,
    /// A redirected connection was accepted by a socket that is not the provider's.
    EVENT_STRANGER = 5,
    /// A UDP socket's first datagram to, or `connect()` with, a destination.
    EVENT_DATAGRAM = 6,
    /// A socket of a kind was made that no hook sees, or was refused.
    EVENT_SOCKET = 7,
}

numbers! { usize:
    /// Events for which the ring buffer had no room.
    COUNT_EVENTS_LOST = 0,
    /// Connections redirected.
    COUNT_REDIRECTED = 1,
    /// Records handed to accepted sockets.
    COUNT_HANDED_OVER = 2,
    /// Accepted connections of providers without a record.
    COUNT_LOST_CONTEXT = 3,
    /// Redirected connections accepted by somebody else.
    COUNT_STRANGERS = 4,
    /// Connections refused for want of memory.
    COUNT_NO_ROOM = 5,
    /// Redirected connections stopped before the SYN because the hand-over had no room.
    COUNT_HELD_BACK = 6,
    /// Flows of unaware services for which the inference table had no room.
    COUNT_NOT_INFERRED = 7,
    /// Connections refused because their uid's share of the hand-over was used up.
    COUNT_OVER_SHARE = 8,
    /// How many counters there are.
    COUNTERS = 9,
}
