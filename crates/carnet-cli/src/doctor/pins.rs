//! What `carnet serve` has pinned, and who has it.

use std::fs;
use std::io;
use std::path::Path;

use carnet_engine::ErrorKind;
use carnet_engine::pin::{self, Found, State};

use crate::control::is_stopped;
use crate::doctor::finding::{Finding, Id};
use crate::doctor::report::Report;

/// At the place that was asked about, else where it is by default.
pub fn look(report: &mut Report, chosen: Option<&Path>) {
    let folder = match chosen {
        Some(folder) => Ok(folder.to_owned()),
        None => pin::default_folder(),
    };
    let folder = match folder {
        Ok(folder) => folder,
        Err(error) => return report.add(unknown(error)),
    };
    // What may not be looked at is not absent.
    let hidden = fs::symlink_metadata(&folder).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let finding = match pin::inspect(&folder) {
        _ if hidden => {
            let what =
                format!("whether an engine is pinned at {} is not known: this process may not look", folder.display());
            Finding::warning(Id::PinsHidden, what, "sudo carnet doctor")
        }
        Ok(state) => of_state(&folder, state, |pid| is_stopped(pid.cast_signed())),
        Err(error) => unknown(error),
    };
    report.add(finding.with("folder", folder.to_string_lossy()));
}

fn of_state(folder: &Path, state: State, is_stopped: impl Fn(u32) -> bool) -> Finding {
    let shown = folder.display();
    let (half_made, held_by, what) = match &state {
        State::Absent => return Finding::ok(Id::PinsNone, format!("no engine is pinned at {shown}")),
        State::Whole(found) => (false, found.held_by, format!("{found}, pinned at {shown}")),
        State::HalfMade { held_by } => (true, *held_by, format!("half of an engine is pinned at {shown}")),
        _ => return Finding::note(Id::PinsHidden, format!("what is pinned at {shown} is of another version"), ""),
    };
    let finding = match (held_by, half_made) {
        (Some(pid), _) if is_stopped(pid) => Finding::warning(
            Id::EngineStopped,
            format!(
                "{what}: process {pid} has it, and is stopped. What is in force stays in force, and nobody tends it"
            ),
            format!(
                "kill -CONT {pid} has it go on; kill -KILL {pid} ends it, and carnet serve then takes over what it leaves"
            ),
        ),
        (Some(pid), false) => Finding::ok(Id::EngineServed, format!("{what}: process {pid} has it")),
        (Some(pid), true) => Finding::note(
            Id::PinsHalfMade,
            format!("{what}: process {pid} is making or removing it"),
            "Nothing, unless that lasts: it takes seconds",
        ),
        (None, false) => Finding::warning(
            Id::EngineUnattended,
            format!("{what}: no daemon has it. What is in force stays in force, and nobody tends it"),
            "carnet serve goes on with it, carnet down removes it",
        ),
        (None, true) => Finding::warning(
            Id::PinsHalfMade,
            format!("{what}: a process ended while it made or removed it"),
            "Nothing: the next carnet serve removes it, and so does carnet down",
        ),
    };
    let finding = if let State::Whole(found) = &state { described(finding, found) } else { finding };
    finding.with("held_by", held_by)
}

/// The same for programs.
fn described(finding: Finding, found: &Found) -> Finding {
    finding
        .with("engine", found.engine.map(|engine| format!("{engine:016x}")))
        .with("version", &*found.version)
        .with("policy", found.generation)
}

fn unknown(error: carnet_engine::Error) -> Finding {
    match error.kind() {
        ErrorKind::NoBpffs => Finding::note(
            Id::BpffsMissing,
            format!("{error}: carnet serve has nowhere to pin its programs. carnet run needs no such place"),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
        _ => {
            let what = format!("whether an engine is pinned is not known: {error}");
            Finding::warning(Id::PinsHidden, what, "Look yourself, as root: ls /sys/fs/bpf")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn what_is_half_made_depends_on_who_has_it() {
        for (held_by, stopped, id, level) in [
            (None, false, Id::PinsHalfMade, Level::Warning),
            (Some(7), false, Id::PinsHalfMade, Level::Note),
            (Some(7), true, Id::EngineStopped, Level::Warning),
        ] {
            let finding = of_state(Path::new("/b/carnet"), State::HalfMade { held_by }, |_| stopped);
            assert_eq!((finding.id, finding.level), (id, level), "{finding:?}");
            assert_eq!(finding.details["held_by"], serde_json::json!(held_by));
            assert!(finding.what.contains("/b/carnet") && !finding.action.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn nothing_is_fine() {
        let finding = of_state(Path::new("/b/carnet"), State::Absent, |_| true);
        assert_eq!((finding.id, finding.level), (Id::PinsNone, Level::Ok));
    }

    #[test]
    fn what_is_no_bpf_file_system_is_told_so() {
        let mut report = Report::new();
        look(&mut report, Some(Path::new("/proc/carnet")));
        assert!(report.text(80).contains("nowhere to pin"), "{}", report.text(80));
    }
}
