//! What `carnet proxy` says on standard output: a line for each flow, and for what people should know.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use carnet_proxy::rules::{Action, Protocol};
use carnet_proxy::{FlowReport, Limit, Report, Summary};
use serde_json::{Value, json};

use super::open;
use crate::run::print_line;

/// Standard output. A reader who goes away does not end the service.
#[derive(Clone)]
pub struct Told {
    json: bool,
    gone: Arc<AtomicBool>,
    turn: Arc<Mutex<()>>,
}

impl Told {
    pub fn new(json: bool) -> Self {
        Self { json, gone: Arc::default(), turn: Arc::default() }
    }

    /// It serves, and has taken over from this process.
    pub fn ready(&self, listen: &[SocketAddr], before: Option<i32>) {
        let listen: Vec<_> = listen.iter().map(ToString::to_string).collect();
        let words = || match before {
            Some(before) => format!("listening at {}, taken over from process {before}", listen.join(", ")),
            None => format!("listening at {}", listen.join(", ")),
        };
        self.say(words, || json!({ "type": "ready", "listen": listen, "taken_over_from": before }));
    }

    /// This process has taken over.
    pub fn handed_over(&self, next: i32) {
        let words = || format!("process {next} has taken over; open flows go on here");
        self.say(words, || json!({ "type": "handed-over", "to": next }));
    }

    /// Rules were read again, with these mistakes.
    pub fn rules(&self, mistakes: &[String]) {
        let in_force = mistakes.is_empty();
        let words = || match in_force {
            true => "new rules are in force".into(),
            false => format!("{}\nthe rules from before stay in force", mistakes.join("\n")),
        };
        self.say(words, || json!({ "type": "rules", "in_force": in_force, "mistakes": mistakes }));
    }

    /// Rules of YARA were read again: so many, or these mistakes.
    pub fn yara(&self, read: &Result<usize, String>) {
        let words = || match read {
            Ok(count) => format!("{count} YARA rules are in force"),
            Err(mistakes) => format!("{mistakes}\nthe YARA rules from before stay in force"),
        };
        let (count, mistakes) = (read.as_ref().ok(), read.as_ref().err());
        self.say(words, || json!({ "type": "yara", "in_force": read.is_ok(), "rules": count, "mistakes": mistakes }));
    }

    /// Something people should know.
    pub fn warn(&self, words: &str) {
        self.say(|| format!("warning: {words}"), || json!({ "type": "warning", "message": words }));
    }

    /// It has ended.
    pub fn ended(&self, summary: Summary) {
        let Summary { accepted, over_limits, cut_off, .. } = summary;
        let words = || {
            let limits = match over_limits {
                0 => String::new(),
                _ => format!("{over_limits} were reset because their users were over a limit, "),
            };
            format!("ended after {accepted} connections; {limits}{cut_off} were reset at the end")
        };
        let json = || json!({ "type": "ended", "accepted": accepted, "over_limits": over_limits, "cut_off": cut_off });
        self.say(words, json);
    }

    /// Reports that nobody has seen because they came faster than they were read.
    pub fn lost(&self, reports: u64) {
        if reports > 0 {
            self.warn(&format!("{reports} lines were lost: they came faster than they were read"));
        }
    }

    fn say(&self, words: impl FnOnce() -> String, json: impl FnOnce() -> Value) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        let line = if self.json { json().to_string() } else { words() } + "\n";
        // One line at a time: two writes of two threads may come mixed.
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let written = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
        drop(turn);
        if let Err(error) = written
            && !self.gone.swap(true, Ordering::Relaxed)
        {
            print_line(&format!("carnet proxy: cannot write to standard output, so flows are not told of: {error}"));
        }
    }
}

impl Told {
    /// What the service has to say.
    pub fn report(&self, report: Report) {
        match report {
            Report::Scan(scan) => self.say(|| super::scan::words_of(&scan), || super::scan::json_of(&scan)),
            Report::Flow(flow) => self.say(|| words_of(&flow), || json_of(&flow)),
            Report::Open(report) => self.say(|| open::words_of(&report), || open::json_of(&report)),
            Report::Refused { flow_id, destination, error, .. } => {
                let (flow, destination) = (format!("{flow_id:032x}"), destination.to_string());
                let error = with_cause(&error);
                self.say(
                    || format!("no connection to {destination}: {error}"),
                    || json!({ "type": "refused", "flow": flow, "destination": destination, "error": error }),
                );
            }
            Report::Unredirected { peer, error } => {
                self.warn(&format!("{peer} was not redirected here, and is reset: {error}"));
            }
            Report::Full { flows } => self.warn(&format!("{flows} connections are open, all there may be; more wait")),
            Report::OverLimit { limit, uid, connections } => {
                let limit = match limit {
                    Limit::FlowsPerUser => "flows-per-user",
                    _ => "rate-per-user",
                };
                let whose = uid.map_or("users that are not known".into(), |uid| format!("user {uid}"));
                self.say(
                    || format!("warning: {whose} is over --max-{limit}: {connections} connections were reset"),
                    || json!({ "type": "limit", "limit": limit, "uid": uid, "connections": connections }),
                );
            }
            Report::RateReached { rate } => {
                let seconds = rate.period.as_secs();
                self.say(
                    || format!("warning: --max-rate is reached, {} in {seconds} s: new connections wait", rate.flows),
                    || json!({ "type": "limit", "limit": "rate", "uid": null, "connections": null }),
                );
            }
            Report::AcceptFailed { flows, error } => {
                self.warn(&format!("cannot accept connections for now, {flows} are open: {error}"));
            }
            other => self.warn(&format!("{other:?}")),
        }
    }
}

/// `allow  curl[4711] uid 1000 -> 192.0.2.7:443  tls example.org  rule 3 (line 20)`
fn words_of(flow: &FlowReport) -> String {
    let mut words = action(flow.action).to_owned();
    if let Some(origin) = &flow.origin {
        words += &format!("  {}[{}] uid {}", origin.comm.escape_default(), origin.pid, origin.uid);
    }
    words += &format!(" -> {}", flow.destination);
    if let Some(found) = &flow.found {
        words += &format!("  {}", protocol(found.protocol));
        if let Some(name) = &found.name {
            words += &format!(" {}", name.as_str());
        }
    }
    if let Some(rule) = &flow.rule {
        words += &format!("  {rule}");
    }
    if flow.too_many {
        words += "  too many";
    }
    if let Some(reason) = flow.reason.as_ref().filter(|_| flow.action == Action::Block) {
        words += &format!(": {reason}");
    }
    words
}

fn json_of(flow: &FlowReport) -> Value {
    let found = flow.found.as_ref();
    let origin = flow.origin.as_ref();
    json!({
        "type": "flow",
        "flow": format!("{:032x}", flow.flow_id),
        "depth": flow.depth,
        "destination": flow.destination.to_string(),
        "uid": origin.map(|origin| origin.uid),
        "pid": origin.map(|origin| origin.pid),
        "comm": origin.map(|origin| &origin.comm),
        "protocol": found.map(|found| protocol(found.protocol)),
        "name": found.and_then(|found| found.name.as_ref()).map(|name| name.as_str()),
        "alpn": found.map(|found| &found.alpn),
        "ja4": found.and_then(|found| found.ja4.as_ref()),
        "ech": found.map(|found| found.ech),
        "action": action(flow.action),
        "too_many": flow.too_many,
        "rule": flow.rule,
        "reason": flow.reason,
    })
}

/// An error with all that is behind it.
pub fn with_cause(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        // An I/O error that wraps another says the same.
        if !words.contains(&behind.to_string()) {
            words += &format!(": {behind}");
        }
        cause = behind.source();
    }
    words
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Block => "block",
        Action::Open => "open",
        _ => "allow",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tls => "tls",
        Protocol::Http1 => "http",
        Protocol::Http2 => "http2",
        Protocol::Ssh => "ssh",
    }
}
