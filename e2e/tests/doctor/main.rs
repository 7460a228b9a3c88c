//! `carnet doctor` as its users see it: on hosts where something stands in the way, and what it says then.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod caller;
mod cgroups;
mod foreign;
mod network;
mod output;
mod programs;

use std::process::Command;

use carnet_e2e::command::{Ended, carnet, finish, undisturbed};
use serde_json::Value;

/// What one said: its exit code and its object.
struct Answer {
    code: i32,
    report: Value,
}

impl Answer {
    /// Its findings with this id.
    fn all(&self, id: &str) -> Vec<&Value> {
        let findings = self.report["findings"].as_array().unwrap();
        findings.iter().filter(|finding| finding["id"] == id).collect()
    }

    /// The one finding with this id.
    fn one(&self, id: &str) -> &Value {
        let [finding] = self.all(id)[..] else { panic!("there is to be one {id}: {:#}", self.report) };
        finding
    }

    /// Whether there is one, and of this level.
    fn has(&self, id: &str, level: &str) -> bool {
        self.all(id).iter().any(|finding| finding["level"] == level)
    }

    /// The one with this id is of this level, says all these words, and what to do.
    fn assert_says(&self, id: &str, level: &str, words: &[&str]) -> &Value {
        let finding = self.one(id);
        assert_eq!(finding["level"], level, "{finding:#}");
        let what = finding["what"].as_str().unwrap();
        for word in words {
            assert!(what.contains(word), "{word}: {finding:#}");
        }
        assert_eq!(finding["do"].as_str().unwrap().is_empty(), level == "ok", "{finding:#}");
        finding
    }
}

/// Asks it as root, in the calling thread's network namespace.
fn doctor(arguments: &[&str]) -> Answer {
    asked(Command::new(carnet()).arg("doctor").args(arguments))
}

/// Asks it with a command that ends in `carnet doctor`.
fn asked(command: &mut Command) -> Answer {
    let ended = finish(undisturbed(command.arg("--json")));
    let report = serde_json::from_str(&ended.output).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let Ended { code, errors, .. } = ended;
    assert_eq!(errors, "", "findings are no errors");
    Answer { code, report }
}
