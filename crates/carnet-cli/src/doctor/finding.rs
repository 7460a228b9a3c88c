use serde::Serialize;
use serde_json::{Map, Value};

/// One thing that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it is called; never changes its meaning.
    pub id: Id,
    /// What it means for Carnet.
    pub level: Level,
    /// Where it was found.
    pub area: Area,
    /// What was found, with the names of things.
    pub what: String,
    /// What to do; empty where nothing is to be done.
    #[serde(rename = "do")]
    pub action: String,
    /// The same for programs.
    pub details: Map<String, Value>,
}

impl Finding {
    /// Nothing to do.
    pub fn ok(id: Id, what: impl Into<String>) -> Self {
        Self::new(id, Level::Ok, what, "")
    }

    /// Something to know.
    pub fn note(id: Id, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(id, Level::Note, what, action)
    }

    /// Something that changes what Carnet's answers mean, or may stop it one day.
    pub fn warning(id: Id, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(id, Level::Warning, what, action)
    }

    /// Carnet cannot work.
    pub fn problem(id: Id, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(id, Level::Problem, what, action)
    }

    /// Of a level that depends.
    pub fn new(id: Id, level: Level, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self { id, level, area: id.area(), what: what.into(), action: action.into(), details: Map::new() }
    }

    /// Adds a detail.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }
}

/// From nothing to do to nothing goes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Note,
    Warning,
    Problem,
}

impl Level {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// All ids, by area: the enums, and what they are called.
macro_rules! ids {
    ($($area:ident $area_name:literal { $($id:ident $name:literal)* })*) => {
        /// Part of the host.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
        pub enum Area {
            $(#[serde(rename = $area_name)] $area,)*
        }

        impl Area {
            /// In the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$area,)*];

            /// As it is written.
            pub fn name(self) -> &'static str {
                match self { $(Self::$area => $area_name,)* }
            }
        }

        /// What was found.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
        pub enum Id {
            $($(#[serde(rename = $name)] $id,)*)*
        }

        impl Id {
            /// Every one.
            #[cfg(test)]
            pub const ALL: &[(Self, &str)] = &[$($((Self::$id, $name),)*)*];

            /// Where it is found.
            pub fn area(self) -> Area {
                match self { $($(Self::$id => Area::$area,)*)* }
            }
        }
    };
}

ids! {
    Kernel "kernel" {
        ProgramsLoad "programs-load"
        ProgramsRefused "programs-refused"
        ProgramsUntried "programs-untried"
        FeaturesUntried "features-untried"
        FeatureMissing "feature-missing"
        TypesMissing "types-missing"
        Lockdown "lockdown"
        MptcpOn "mptcp-on"
        MptcpOff "mptcp-off"
        MptcpMissing "mptcp-missing"
    }
    Privileges "privileges" {
        Capabilities "capabilities"
        CapabilitiesMissing "capabilities-missing"
        UserNamespace "user-namespace"
        NoNewPrivileges "no-new-privileges"
        Seccomp "seccomp"
        UnprivilegedBpf "unprivileged-bpf"
    }
    Cgroups "cgroups" {
        Cgroup2 "cgroup2"
        Cgroup2Missing "cgroup2-missing"
        Cgroup2Hybrid "cgroup2-hybrid"
        CgroupOwn "cgroup-own"
        CgroupOutside "cgroup-outside"
        CgroupsCreatable "cgroups-creatable"
        CgroupsNotCreatable "cgroups-not-creatable"
        RunActive "run-active"
        RunLeftover "run-leftover"
    }
    Programs "programs" {
        ProgramsNone "programs-none"
        ProgramsHidden "programs-hidden"
        EnginesHidden "engines-hidden"
        AttachBlocked "attach-blocked"
        AttachOverrides "attach-overrides"
        OtherEngine "other-engine"
        EngineLeft "engine-left"
        ConnectBefore "connect-before"
        ConnectAfter "connect-after"
        OptionsShared "options-shared"
        PeernameShared "peername-shared"
        SocknameShared "sockname-shared"
        TcpEventsShared "tcp-events-shared"
        SocketsShared "sockets-shared"
        DatagramsShared "datagrams-shared"
        EgressFilter "egress-filter"
        ProgramsLeft "programs-left"
    }
    Pins "pins" {
        PinsNone "pins-none"
        PinsHidden "pins-hidden"
        PinsHalfMade "pins-half-made"
        BpffsMissing "bpffs-missing"
        EngineServed "engine-served"
        EngineUnattended "engine-unattended"
        EngineStopped "engine-stopped"
    }
    Netfilter "netfilter" {
        NatNone "nat-none"
        NatHidden "nat-hidden"
        NatOutput "nat-output"
        NatPrerouting "nat-prerouting"
        Tproxy "tproxy"
        MarkRouting "mark-routing"
        MarksHidden "marks-hidden"
    }
    Routes "routes" {
        Routes "routes"
        Ipv4NoRoute "ipv4-no-route"
        Ipv6NoRoute "ipv6-no-route"
        Ipv4NoLoopback "ipv4-no-loopback"
        Ipv6NoLoopback "ipv6-no-loopback"
    }
    Limits "limits" {
        OpenFiles "open-files"
        Backlog "backlog"
        SocketMemory "socket-memory"
        PortRange "port-range"
        Conntrack "conntrack"
    }
}
