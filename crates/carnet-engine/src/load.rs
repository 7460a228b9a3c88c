mod claims;
mod resume;

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use carnet_abi::{Asked, COUNTERS, Config, Key};
use libbpf_rs::{
    Iter, Map, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramInput, ProgramMut,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::apply::Tables;
use crate::attach::Attached;
use crate::cgroup::Cgroup;
use crate::pin::Folder;
use crate::{Error, ErrorKind, EventReader};

pub(crate) use self::resume::generation_of;

/// What can be chosen before the programs are loaded.
///
/// There will be more of it. Name what you choose, and take the rest as it is:
///
/// ```
/// use std::time::Duration;
///
/// let options = carnet_engine::Options { refused_for: Duration::ZERO, ..carnet_engine::Options::default() };
/// assert_eq!(options.engine_id, None);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Instance id; `None`: random. Only tests choose one.
    pub engine_id: Option<u64>,
    /// For how long a queried records blob may be set.
    pub stamp_ttl: Duration,
    /// Most redirected connections at once between their SYN and the listener's taking them.
    pub handover_entries: u32,
    /// Most of them that one uid may have; the rest is for others. `None`: a quarter of `handover_entries`.
    pub handover_share: Option<u32>,
    /// For how long a destination that has refused a flow is refused at once. Zero: never.
    pub refused_for: Duration,
    /// Size of the ring buffer for events: a power of two, at least a page.
    pub event_bytes: u32,
    /// Loads the programs for [`Engine::ask`] and [`Engine::open_sockets`] too.
    pub for_test: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine_id: None,
            stamp_ttl: Duration::from_secs(60),
            handover_entries: 65536,
            handover_share: None,
            refused_for: Duration::from_secs(2),
            event_bytes: 4 * 1024 * 1024,
            for_test: false,
        }
    }
}

/// A loaded kernel program with its maps and links. Dropping it detaches everything whose links nobody else holds, be it a
/// process or a file: see [`Engine::pin`].
pub struct Engine {
    pub(crate) object: Object,
    pub(crate) links: Vec<Attached>,
    pub(crate) config: Config,
    /// Keys of the contexts of each policy slot.
    pub(crate) contexts: [Vec<u32>; 2],
    pub(crate) tables: Tables,
    /// See [`Engine::knows_other_engines`].
    knows_others: bool,
    /// Where it is pinned, and the lock on that place.
    pub(crate) pins: Option<Folder>,
}

/// Programs that are loaded for tests only.
const ASK: &str = "carnet_ask";
const COUNT_SOCKS: &str = "carnet_count_socks";

/// Questions for which [`Engine::ask_many`] has room.
const MOST_ASKED: u32 = 8192;
/// Maps whose number of entries is the caller's choice: [`Options`].
pub(crate) const SIZED_BY_OPTIONS: [&str; 3] = [HANDOVERS, EVENTS, ASKED];
const HANDOVERS: &str = "carnet_handovers";
const EVENTS: &str = "carnet_events";
const ASKED: &str = "carnet_asked";

/// The object that build.rs made. Aligned, because libbpf reads its headers in place.
pub(crate) static OBJECT: &[u8] = {
    #[repr(align(8))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/carnet.bpf.o")));
    &ALIGNED.0
};

impl Engine {
    /// Loads the programs. Connections without a record are decided on only below `governed`.
    ///
    /// Nothing is attached yet, and no policy is in force: see [`Engine::apply`] and the `attach_` methods.
    pub fn load(governed: &Cgroup, options: &Options) -> Result<Self, Error> {
        let mut open = open(options)?;
        for mut map in open.maps_mut() {
            let entries = match map.name().to_str() {
                Some(HANDOVERS) => options.handover_entries,
                Some(EVENTS) => options.event_bytes,
                Some(ASKED) if options.for_test => MOST_ASKED,
                _ => continue,
            };
            map.set_max_entries(entries).map_err(|error| Error::bpf("cannot size a BPF map", error))?;
        }
        // Held until the map is there, so that two engines that start at once do not make one each.
        let _turn = claims::share(&mut open)?;
        let knows_others = claims::may_look();
        let config = Config {
            engine: options.engine_id.map_or_else(random, Ok)?,
            flow_seed: random()?,
            flight_seed: random()? as u32,
            governed_cgroup: governed.id(),
            ..Config::default()
        };
        let mut engine = Self {
            object: load(open)?,
            links: Vec::new(),
            config,
            contexts: Default::default(),
            tables: Tables::default(),
            knows_others,
            pins: None,
        };
        engine.write_key(0, 1)?;
        engine.begin(options)?;
        Ok(engine)
    }

    /// Writes what is the caller's choice, and what is true of the host now.
    fn begin(&mut self, options: &Options) -> Result<(), Error> {
        let entries = self.map(HANDOVERS)?.max_entries();
        self.config.stamp_ttl = u64::try_from(options.stamp_ttl.as_nanos()).unwrap_or(u64::MAX);
        self.config.refused_for = u64::try_from(options.refused_for.as_nanos()).unwrap_or(u64::MAX);
        self.config.handover_share = options.handover_share.unwrap_or((entries / 4).max(1));
        self.write_config()?;
        self.update_local_addresses()?;
        Ok(())
    }

    /// Instance id, the `engine` field of every record.
    pub fn id(&self) -> u64 {
        self.config.engine
    }

    /// Id of the cgroup below which connections without a record are decided on.
    pub fn governed(&self) -> u64 {
        self.config.governed_cgroup
    }

    /// From now on connections without a record are decided on below this cgroup. Attach to it first, and detach from the
    /// one before afterwards.
    pub fn govern(&mut self, cgroup: &Cgroup) -> Result<(), Error> {
        self.config.governed_cgroup = cgroup.id();
        self.write_config()
    }

    /// Whether this engine could look for those that were on the host before it. If not, and there is one that governs
    /// the same connections, each takes the other's redirects for an application's connections, and both break them.
    /// It takes `CAP_SYS_ADMIN`. Nor can those that are loaded later count on finding this one: there may be two maps then.
    pub fn knows_other_engines(&self) -> bool {
        self.knows_others
    }

    /// New records are tagged with a new key; those made with the one before are accepted as long as they are fresh.
    pub fn rotate_key(&mut self) -> Result<(), Error> {
        let slot = 1 - self.config.key_slot;
        let current = self.lookup::<Key>("carnet_keys", &self.config.key_slot.to_ne_bytes())?;
        let id = current.map_or(1, |key| key.id.checked_add(1).unwrap_or(1));
        self.write_key(slot, id)?;
        self.config.key_slot = slot;
        self.write_config()
    }

    /// Reads events, from where the reader before has ended; one at a time. The reader may be moved to a thread of its own.
    pub fn events(&self) -> Result<EventReader, Error> {
        EventReader::new(&self.map(EVENTS)?)
    }

    /// The kernel program's counters, indexed by `carnet_abi::COUNT_*`.
    pub fn counters(&self) -> Result<[u64; COUNTERS], Error> {
        let mut counters = [0; COUNTERS];
        for (index, value) in (0_u32..).zip(&mut counters) {
            *value = self.lookup("carnet_counters", &index.to_ne_bytes())?.unwrap_or_default();
        }
        Ok(counters)
    }

    /// Redirected connections between their SYN and the listener's taking them. 0 when no handshake is in flight.
    pub fn open_handovers(&self) -> Result<usize, Error> {
        Ok(self.map(HANDOVERS)?.keys().count())
    }

    /// Hand-overs in flight as the uids' shares of them count them: as many as [`Engine::open_handovers`].
    #[doc(hidden)]
    pub fn shared_handovers(&self) -> Result<usize, Error> {
        let mut sum = 0;
        for place in 0..self.map("carnet_shares")?.max_entries() {
            sum += self.lookup::<u32>("carnet_shares", &place.to_ne_bytes())?.unwrap_or_default() as usize;
        }
        Ok(sum)
    }

    /// Flights in use, by {provider, destination}. 0 when no redirected connection is open.
    pub fn open_flights(&self) -> Result<usize, Error> {
        let map = self.map("carnet_flights")?;
        let mut open = 0;
        for index in 0..map.max_entries() {
            let value = map
                .lookup(&index.to_ne_bytes(), MapFlags::ANY)
                .map_err(|error| Error::bpf("cannot read a flight", error))?;
            let counts = value.as_deref().and_then(|value| value.get(FLIGHT_COUNTS..FLIGHT_COUNTS + 8));
            open += usize::from(counts.is_some_and(|counts| counts.iter().any(|&byte| byte != 0)));
        }
        Ok(open)
    }

    /// Sockets of which the engine knows anything; 0 when none is open. Needs [`Options::for_test`].
    #[doc(hidden)]
    pub fn open_sockets(&self) -> Result<usize, Error> {
        let program = program(&self.object, COUNT_SOCKS)?;
        let failed = |error| Error::bpf("cannot walk the sockets' storage", error);
        let link = program.attach_iter(self.map("carnet_socks")?.as_fd()).map_err(failed)?;
        let mut walk = Iter::new(&link).map_err(failed)?;
        // The program writes one byte for each.
        let read = walk.read_to_end(&mut Vec::new());
        read.map_err(|error| Error::io("cannot walk the sockets' storage", error))
    }

    /// Asks the decision by itself, in the kernel. Needs [`Options::for_test`].
    #[doc(hidden)]
    pub fn ask(&self, question: &Asked) -> Result<Asked, Error> {
        let mut asked = [*question];
        self.ask_many(&mut asked, 1)?;
        Ok(asked[0])
    }

    /// Asks these questions so many times over, one after the other, and tells how long that took in all. At most 8,192
    /// questions. Needs [`Options::for_test`].
    #[doc(hidden)]
    pub fn ask_many(&self, asked: &mut [Asked], rounds: u32) -> Result<Duration, Error> {
        for (index, question) in (0_u32..).zip(&*asked) {
            self.update("carnet_asked", index.as_bytes(), question.as_bytes())?;
        }
        let mut asking = [asked.len() as u64 | u64::from(rounds) << 32, 0];
        let input = ProgramInput { context_in: Some(asking.as_mut_bytes()), ..ProgramInput::default() };
        let program = program(&self.object, ASK)?;
        program.test_run(input).map_err(|error| Error::bpf("cannot run the decision", error))?;
        for (index, question) in (0_u32..).zip(asked) {
            *question = self.lookup("carnet_asked", index.as_bytes())?.unwrap_or_default();
        }
        Ok(Duration::from_nanos(asking[1]))
    }

    /// Duplicates of the maps' descriptors, for tests that look into them.
    #[doc(hidden)]
    pub fn map_handle(&self, name: &str) -> Result<MapHandle, Error> {
        MapHandle::try_from(&self.map(name)?).map_err(|error| Error::bpf(format!("cannot open the map {name}"), error))
    }

    pub(crate) fn map(&self, name: &str) -> Result<Map<'_>, Error> {
        let map = self.object.maps().find(|map| map.name() == name);
        map.ok_or_else(|| Error::new(ErrorKind::Io, format!("the kernel object has no map {name}")))
    }

    pub(crate) fn write_config(&self) -> Result<(), Error> {
        self.update("carnet_config", &0_u32.to_ne_bytes(), self.config.as_bytes())
    }

    pub(crate) fn update(&self, map: &str, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.map(map)?
            .update(key, value, MapFlags::ANY)
            .map_err(|error| Error::bpf(format!("cannot write to the map {map}"), error))
    }

    fn lookup<T: FromBytes>(&self, map: &str, key: &[u8]) -> Result<Option<T>, Error> {
        let value = self
            .map(map)?
            .lookup(key, MapFlags::ANY)
            .map_err(|error| Error::bpf(format!("cannot read the map {map}"), error))?;
        Ok(value.and_then(|value| T::read_from_bytes(&value).ok()))
    }

    fn write_key(&self, slot: u32, id: u32) -> Result<(), Error> {
        let key = Key { id, k0: random()?, k1: random()?, ..Key::default() };
        self.update("carnet_keys", &slot.to_ne_bytes(), key.as_bytes())
    }
}

/// Offset of the two counts in `struct carnet_flight`, behind lock, handle and address; the layout test checks it.
#[doc(hidden)]
pub const FLIGHT_COUNTS: usize = 4 + 4 + 24;

pub(crate) fn program<'o>(object: &'o Object, name: &str) -> Result<ProgramMut<'o>, Error> {
    let program = object.progs_mut().find(|program| program.name() == name);
    program.ok_or_else(|| Error::new(ErrorKind::Io, format!("the kernel object has no program {name}")))
}

fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::io("cannot get random numbers", std::io::Error::other(error)))
}

pub(crate) fn open(options: &Options) -> Result<OpenObject, Error> {
    collect_log();
    let mut open = ObjectBuilder::default()
        .open_memory(OBJECT)
        .map_err(|error| Error::bpf("cannot read the kernel object", error))?;
    for mut program in open.progs_mut() {
        if program.name() == ASK || program.name() == COUNT_SOCKS {
            program.set_autoload(options.for_test);
        }
    }
    Ok(open)
}

pub(crate) fn load(open: OpenObject) -> Result<Object, Error> {
    open.load().map_err(|error| {
        let what = "cannot load the kernel program";
        match missing_capabilities() {
            Some(missing) => Error::bpf(format!("{what}: the process lacks {missing}"), error).without_privilege(),
            // What it has is over what is of that namespace, and the kernel's programs are of the first one.
            None if is_in_a_user_namespace() => {
                let lacks = "the process lacks CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF outside its user namespace";
                Error::bpf(format!("{what}: {lacks}"), error).without_privilege()
            }
            None => Error::missing(what, cause_in_log().unwrap_or_else(|| "the kernel gave no reason".into()), error),
        }
    })
}

/// Those of the capabilities the engine needs which this process does not have. In a container root may lack them, and
/// the loader then reports a missing feature, because its probes fail too.
pub fn missing_capabilities() -> Option<String> {
    const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
    const CAP_SYS_ADMIN: u32 = 21; // stands for the last two
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let has = |bit: u32| effective >> bit & 1 == 1;
    let missing = NEEDED.iter().filter(|&&(_, bit)| !has(bit) && (bit < 38 || !has(CAP_SYS_ADMIN)));
    let names = missing.map(|&(name, _)| name).collect::<Vec<_>>();
    (!names.is_empty()).then(|| names.join(", "))
}

fn is_in_a_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether an engine of this process's would know of those there are: see [`Engine::knows_other_engines`].
pub fn knows_other_engines() -> bool {
    claims::may_look()
}

/// libbpf writes its reasons to a callback, never into its errors. The callback is process-wide and has no argument, so
/// the lines are kept here until a failure asks for them.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(crate) fn collect_log() {
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, line| {
        if let Ok(mut log) = LOG.lock() {
            log.push(line);
        }
    })));
    if let Ok(mut log) = LOG.lock() {
        log.clear();
    }
}

/// The one line of the log that says most: the verifier's last words before its statistics, or libbpf's last line.
pub(crate) fn cause_in_log() -> Option<String> {
    let log = LOG.lock().ok()?;
    let lines: Vec<&str> =
        log.iter().flat_map(|entry| entry.lines()).map(str::trim).filter(|line| !line.is_empty()).collect();
    let statistics = lines.iter().position(|line| line.starts_with("processed ") && line.contains(" insns"));
    let at = statistics.and_then(|at| at.checked_sub(1)).or_else(|| lines.len().checked_sub(1))?;
    Some(lines[at].to_owned())
}
