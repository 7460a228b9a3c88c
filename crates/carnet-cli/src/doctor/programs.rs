//! Programs of others on the hooks that Carnet uses, and what each means for Carnet.
//!
//! The kernel runs the programs of a socket's own cgroup first and then those of the cgroups above it, one after the
//! other up to the root. Programs of one cgroup run in the order in which they were attached.

use std::collections::BTreeMap;
use std::path::Path;

use carnet_engine::cgroup::Hierarchy;
use carnet_engine::probe::{Attached, Holder, Hook, Mode, Program, attached, holders, knows_other_engines};
use serde_json::{Value, json};

use crate::doctor::finding::{Finding, Id, Level};
use crate::doctor::kernel::Bpf;
use crate::doctor::report::Report;
use crate::run::place::{above, own_cgroup};

/// Programs on the caller's cgroup and those above it. Of these, the ones above the place where `carnet run` makes its
/// cgroup meet Carnet's, and the others are left by its command. With a `chosen` cgroup, to which an engine may be
/// attached: the programs on that one and those above it.
pub fn look(report: &mut Report, hierarchy: &Hierarchy, chosen: Option<&Path>, bpf: Bpf) {
    if bpf == Bpf::Refused {
        let what = "which programs others have on Carnet's hooks is not known: this process may not look";
        report.add(Finding::warning(Id::ProgramsHidden, what, "Run it as root, outside of containers"));
        return;
    }
    if !knows_other_engines() {
        report.add(Finding::warning(
            Id::EnginesHidden,
            "an engine of this process's may not look for other engines of Carnet's: where one governs the same connections, \
             as where a run is started in a run, both break them",
            "If there may be another one, give it CAP_SYS_ADMIN: docker run --cap-add SYS_ADMIN, CapabilityBoundingSet= in a \
             systemd unit",
        ));
    }
    let own = own_cgroup(hierarchy).ok().filter(|own| own.is_dir());
    let place = chosen.or(own.as_deref()).unwrap_or(hierarchy.mount());
    // Where carnet run would make its cgroup.
    let run = above(hierarchy).ok().filter(|above| above.is_dir()).unwrap_or_else(|| hierarchy.mount().into());
    let groups = match attached(hierarchy, place) {
        Ok(groups) => groups,
        Err(error) => {
            let what = format!("which programs others have on Carnet's hooks is not known: {error}");
            report.add(Finding::warning(Id::ProgramsHidden, what, "Look yourself: bpftool cgroup tree"));
            return;
        }
    };
    let findings = findings(&groups, &run, chosen, &holders());
    if findings.is_empty() {
        report.add(Finding::ok(
            Id::ProgramsNone,
            format!("nobody has programs on Carnet's hooks, from the root to {}", place.display()),
        ));
    }
    for finding in findings {
        report.add(finding);
    }
}

/// One finding for each cgroup and each thing that its programs mean.
fn findings(
    groups: &[Attached],
    run: &Path,
    chosen: Option<&Path>,
    holders: &BTreeMap<u32, Vec<Holder>>,
) -> Vec<Finding> {
    let mut together: Vec<Together<'_>> = Vec::new();
    for group in groups {
        let place = group.cgroup.as_deref().unwrap_or(Path::new(ABOVE));
        let relation = match chosen {
            Some(chosen) if place == chosen => Relation::Here,
            None if group.cgroup.is_some() && !run.starts_with(place) => Relation::Left,
            _ => Relation::Above,
        };
        for program in &group.programs {
            let meaning = Meaning::of(group, program, relation);
            match together.iter_mut().find(|other| other.meaning == meaning && other.place == place) {
                Some(other) => other.programs.push((group, program)),
                None => together.push(Together { meaning, place, programs: vec![(group, program)] }),
            }
        }
    }
    together.iter().map(|together| together.finding(holders)).collect()
}

/// Programs of one cgroup that mean the same.
struct Together<'a> {
    meaning: Meaning,
    place: &'a Path,
    programs: Vec<(&'a Attached, &'a Program)>,
}

impl Together<'_> {
    fn finding(&self, holders: &BTreeMap<u32, Vec<Holder>>) -> Finding {
        let place = self.place.display().to_string();
        let described = self.programs.iter().map(|(group, program)| described(group, program, holders));
        let details = self.programs.iter().map(|(group, program)| detail(group, program, holders)).collect::<Vec<_>>();
        let (id, level, means, action) = self.meaning.words();
        let what = format!("{} on {place}: {means}", described.collect::<Vec<_>>().join(", "));
        Finding::new(id, level, what, action).with("cgroup", place).with("programs", details)
    }
}

/// Where programs are, seen from the place of Carnet's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Relation {
    Above,
    Here,
    /// On the caller's cgroup, which a command of `carnet run` leaves.
    Left,
}

/// What a program means for Carnet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Meaning {
    Blocks,
    IsOverridden,
    IsCarnet,
    IsCarnetLeft,
    IsLeft,
    ConnectsBefore,
    ConnectsAfter,
    Options,
    Peername,
    Sockname,
    TcpEvents,
    Sockets,
    Datagrams,
    Egress,
}

impl Meaning {
    fn of(group: &Attached, program: &Program, relation: Relation) -> Self {
        let is_carnets_hook = !matches!(group.hook, Hook::Recvmsg4 | Hook::Recvmsg6);
        match (group.mode, relation) {
            (_, Relation::Left) if program.name.starts_with("carnet_") => return Self::IsCarnetLeft,
            _ if program.name.starts_with("carnet_") => return Self::IsCarnet,
            (_, Relation::Left) => return Self::IsLeft,
            (Mode::Exclusive, _) | (Mode::Override, Relation::Here) if is_carnets_hook => return Self::Blocks,
            (Mode::Override, _) if is_carnets_hook => return Self::IsOverridden,
            _ => {}
        }
        match group.hook {
            Hook::Connect4 | Hook::Connect6 if relation == Relation::Here || program.preorder => Self::ConnectsBefore,
            Hook::Connect4 | Hook::Connect6 => Self::ConnectsAfter,
            Hook::Sendmsg4 | Hook::Sendmsg6 | Hook::Recvmsg4 | Hook::Recvmsg6 => Self::Datagrams,
            Hook::Getpeername4 | Hook::Getpeername6 => Self::Peername,
            Hook::Getsockname4 | Hook::Getsockname6 => Self::Sockname,
            Hook::Getsockopt | Hook::Setsockopt => Self::Options,
            Hook::SockOps => Self::TcpEvents,
            Hook::SockCreate | Hook::SockRelease => Self::Sockets,
            // Packets; and what the engine may come to list.
            _ => Self::Egress,
        }
    }

    fn words(self) -> (Id, Level, &'static str, &'static str) {
        match self {
            Self::Blocks => (
                Id::AttachBlocked,
                Level::Problem,
                "attached so that nobody else may attach there or below, so attaching Carnet fails with EPERM",
                "Have its owner attach it with a link or with BPF_F_ALLOW_MULTI (bpftool cgroup attach ... multi), or take it \
                 off: bpftool cgroup detach CGROUP HOOK id ID",
            ),
            Self::IsOverridden => (
                Id::AttachOverrides,
                Level::Warning,
                "attached so that programs below take its place: it does not run for sockets of cgroups that Carnet is \
                 attached to",
                "Have its owner attach it with a link or with BPF_F_ALLOW_MULTI, if it must see those sockets too",
            ),
            Self::IsCarnet => (
                Id::OtherEngine,
                Level::Note,
                "another engine of Carnet's. What it redirects, other engines leave alone (reason other-engine), and so on; \
                 of two above each other the inner one has a connection",
                "Nothing, if that is wanted: what the inner one redirects, the outer one does not see",
            ),
            Self::IsCarnetLeft => (
                Id::EngineLeft,
                Level::Warning,
                "another engine of Carnet's governs this cgroup, and a command of carnet run leaves it: that engine's services \
                 do not have the command's connections",
                "If they must, start the run where this cgroup is the top of what it sees: in a container, or with \
                 unshare --cgroup --mount and the hierarchy mounted again",
            ),
            Self::IsLeft => (
                Id::ProgramsLeft,
                Level::Note,
                "a command of carnet run leaves this cgroup, and with it these programs",
                "If they must hold for the command, have them attached to the root of the hierarchy",
            ),
            Self::ConnectsBefore => (
                Id::ConnectBefore,
                Level::Warning,
                "runs before Carnet at connect(). If it rewrites addresses, Carnet sees what it has rewritten them to: \
                 filters are matched with that, and it is the destination in records and logs",
                "Attach it to a cgroup above Carnet's: then Carnet has the address that the application asked for",
            ),
            Self::ConnectsAfter => (
                Id::ConnectAfter,
                Level::Note,
                "runs after Carnet at connect(). Of a redirected connection it sees the service's listener on loopback; \
                 it sees the destination when the last service connects to it, and may rewrite or refuse it then",
                "Nothing for a load balancer such as Cilium's. One that judges who connects where must let loopback pass, and \
                 sees the service as the one who connects",
            ),
            Self::Options => (
                Id::OptionsShared,
                Level::Warning,
                "sees socket options, too. It may answer or change Carnet's (level 0x4341) and SO_ORIGINAL_DST; Carnet leaves \
                 alone what another program has answered",
                "If services get no record, or a wrong destination, take it off their cgroups",
            ),
            Self::Peername => (
                Id::PeernameShared,
                Level::Note,
                "answers getpeername(), too: on redirected connections, whichever runs last has the last word",
                "Nothing, unless applications see a peer they did not ask for",
            ),
            Self::Sockname => (
                Id::SocknameShared,
                Level::Note,
                "answers getsockname(), too: where a service is to see the destination there, whichever runs last has the \
                 last word",
                "Nothing, unless such a service goes on to a wrong destination: then take it off the service's cgroup",
            ),
            Self::TcpEvents => (
                Id::TcpEventsShared,
                Level::Note,
                "sees TCP's events, too. Carnet adds the events it wants to those wanted already",
                "Nothing. If it sets sock_ops_cb_flags without those set before, ends of flows are missing in the log",
            ),
            Self::Sockets => (
                Id::SocketsShared,
                Level::Note,
                "runs when sockets are made or released, too, and may refuse to have one made",
                "Nothing, unless socket() fails",
            ),
            Self::Datagrams => (
                Id::DatagramsShared,
                Level::Note,
                "sees UDP's datagrams, too, and may rewrite where they go; Carnet redirects no UDP",
                "Nothing. Destinations of UDP in the log may be what it has rewritten them to",
            ),
            Self::Egress => (
                Id::EgressFilter,
                Level::Note,
                "judges packets that leave. Those of redirected connections go to loopback; to the destination go those of the \
                 last service",
                "If connections hang that go on without Carnet, let it pass loopback (systemd: IPAddressAllow=localhost)",
            ),
        }
    }
}

/// `cil_sock4_connect (connect4, id 12, cilium-agent[345])`.
fn described(group: &Attached, program: &Program, holders: &BTreeMap<u32, Vec<Holder>>) -> String {
    let name = if program.name.is_empty() { "a program without a name" } else { &program.name };
    let held: Vec<_> = holders.get(&program.id).into_iter().flatten().collect();
    let held = match &held[..] {
        [] => String::new(),
        [first] => format!(", {}[{}]", first.name, first.pid),
        [first, rest @ ..] => format!(", {}[{}] and {} more", first.name, first.pid, rest.len()),
    };
    let whose = whose(&program.name).map_or_else(String::new, |whose| format!("{whose}'s "));
    format!("{whose}{name} ({}, id {}{held})", group.hook.name(), program.id)
}

/// Whose program it is, as far as names tell.
fn whose(name: &str) -> Option<&'static str> {
    const PREFIXES: [(&str, &str); 5] =
        [("cil_", "Cilium"), ("sd_", "systemd"), ("cali_", "Calico"), ("tg_", "Tetragon"), ("carnet_", "Carnet")];
    PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, whose)| *whose)
}

fn detail(group: &Attached, program: &Program, holders: &BTreeMap<u32, Vec<Holder>>) -> Value {
    let held = holders.get(&program.id).into_iter().flatten();
    json!({
        "id": program.id,
        "name": program.name,
        "hook": group.hook.name(),
        "mode": group.mode.name(),
        "link": program.link,
        "uid": program.uid,
        "held_by": held.map(|holder| json!({"pid": holder.pid, "name": holder.name})).collect::<Vec<_>>(),
    })
}

const ABOVE: &str = "a cgroup above the mount, outside of this container";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_means_depends_on_where_it_is() {
        let on = |cgroup: &str, hook, mode, name: &str| {
            let mut attached = Attached::new(1, hook, vec![program(7, name)]);
            attached.cgroup = Some(cgroup.into());
            attached.mode = mode;
            attached
        };
        let mount = Path::new("/c");
        let here = Path::new("/c/a");
        let cases = [
            (on("/c", Hook::Connect4, Mode::Multi, "cil_sock4_connect"), None, Id::ConnectAfter, Level::Note),
            (on("/c/a", Hook::Connect4, Mode::Multi, "x"), None, Id::ProgramsLeft, Level::Note),
            (on("/c/a", Hook::Connect4, Mode::Multi, "carnet_connect4"), None, Id::EngineLeft, Level::Warning),
            (on("/c", Hook::Getsockname6, Mode::Multi, "x"), None, Id::SocknameShared, Level::Note),
            (on("/c/a", Hook::Connect4, Mode::Multi, "x"), Some(here), Id::ConnectBefore, Level::Warning),
            (on("/c", Hook::Connect6, Mode::Multi, "x"), Some(here), Id::ConnectAfter, Level::Note),
            (on("/c", Hook::Connect6, Mode::Exclusive, "x"), Some(here), Id::AttachBlocked, Level::Problem),
            (on("/c", Hook::Setsockopt, Mode::Override, "x"), Some(here), Id::AttachOverrides, Level::Warning),
            (on("/c/a", Hook::Setsockopt, Mode::Override, "x"), Some(here), Id::AttachBlocked, Level::Problem),
            (on("/c", Hook::Egress, Mode::Multi, "sd_fw_egress"), None, Id::EgressFilter, Level::Note),
            (on("/c", Hook::Egress, Mode::Exclusive, "sd_fw_egress"), None, Id::AttachBlocked, Level::Problem),
            (on("/c/a", Hook::SockOps, Mode::Multi, "carnet_sockops"), Some(here), Id::OtherEngine, Level::Note),
            (on("/c", Hook::Getsockopt, Mode::Multi, "x"), None, Id::OptionsShared, Level::Warning),
        ];
        for (group, chosen, id, level) in cases {
            let [finding] = &findings(std::slice::from_ref(&group), mount, chosen, &BTreeMap::new())[..] else {
                panic!("one program, one finding: {group:?}")
            };
            assert_eq!((finding.id, finding.level), (id, level), "{group:?}");
            assert!(finding.what.contains("id 7") && !finding.action.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn programs_of_one_owner_are_one_finding() {
        let programs = |hook, id| {
            let mut attached = Attached::new(1, hook, vec![program(id, &format!("cil_{id}"))]);
            attached.cgroup = Some("/c".into());
            attached
        };
        let groups = [programs(Hook::Connect4, 5), programs(Hook::Connect6, 6)];
        let mut holder = Holder::default();
        (holder.pid, holder.name) = (9, "cilium-agent".into());
        let holders = BTreeMap::from([(5, vec![holder])]);
        let [finding] = &findings(&groups, Path::new("/c"), None, &holders)[..] else { panic!("one finding") };
        let expected = "Cilium's cil_5 (connect4, id 5, cilium-agent[9]), Cilium's cil_6 (connect6, id 6) on /c: ";
        assert!(finding.what.starts_with(expected), "{}", finding.what);
        assert_eq!(finding.details["programs"][0]["held_by"][0]["pid"], 9);
    }

    fn program(id: u32, name: &str) -> Program {
        let mut program = Program::default();
        (program.id, program.name) = (id, name.into());
        program
    }
}
