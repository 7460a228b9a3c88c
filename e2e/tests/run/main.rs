//! `carnet run` as its users see it: services, the flow log, exit codes, signals, the terminal, and whose it is.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod ending;
mod log;
mod services;
mod terminal;
mod uninspected;
mod users;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use carnet_e2e::Relay;
use carnet_e2e::command::{Ended, carnet_run, finish};
use serde_json::Value;

/// A client, see `carnet-e2e-load`.
const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");
/// A service to start, see `carnet-e2e-through`.
const THROUGH: &str = env!("CARGO_BIN_EXE_carnet-e2e-through");

/// A process outside of the run that sends back what it gets.
fn echo_server() -> Relay {
    Relay::start(0, Command::new(env!("CARGO_BIN_EXE_carnet-e2e-relay")).arg("server"))
}

/// Runs it to its end.
fn run(arguments: &[&str]) -> Ended {
    finish(&mut carnet_run(arguments))
}

/// Runs it with a log of JSON objects, and returns those, the summary last.
fn run_logged(arguments: &[&str]) -> (Ended, Vec<Value>) {
    let log = Scratch::new();
    let ended = run(&[&["--json", "--log", log.path()], arguments].concat());
    (ended, objects(&log.text()))
}

/// The objects of a log, one a line.
fn objects(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Those of them that are flows.
fn flows(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|object| object["type"] == "flow").collect()
}

/// Names of the services that had a flow.
fn chain(flow: &Value) -> Vec<&str> {
    flow["chain"].as_array().unwrap().iter().map(|link| link["service"].as_str().unwrap()).collect()
}

/// The name of a file, and whatever is made there until this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("carnet-test.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test that failed early has not made it.
        let _ = fs::remove_file(&self.0);
    }
}
