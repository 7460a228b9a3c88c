//! `carnet status`: how the daemon does.

use std::process::ExitCode;

use anyhow::Result;
use carnet_control::{ClientError, Provider, ProviderState, Status};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::control::asking::{Asking, Unanswered};
use crate::control::terminal::{BAD, BOLD, Terminal, UNSURE};
use crate::control::{Question, json, print};

/// Say how the daemon does: what it governs, which policy is in force, and how its providers are
///
/// The exit code is 0 where the daemon answers, however it does; 3 where there is none or it may not be asked, 2 for a
/// wrong command line.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    question: Question,
}

/// Asks and writes.
pub fn status(arguments: Arguments) -> Result<ExitCode> {
    let asking = Asking::of(&arguments.question.daemon)?;
    let asked = asking.ask(async |client| {
        let status = client.status().await?;
        // Both questions need the same role. One with a role that has been taken in between is told of the status alone.
        let providers = client.providers().await;
        Ok::<_, ClientError>((status, providers.unwrap_or_default()))
    });
    let (status, providers) = match asked {
        Ok(answer) => answer,
        Err(unanswered) => return nobody(unanswered),
    };
    let text = if arguments.question.json {
        json(&status)
    } else {
        text(&status, &providers, Timestamp::now(), &TimeZone::system(), Terminal::of_output())
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// An engine goes on without a daemon, and whoever asks for the daemon should know.
fn nobody(unanswered: Unanswered) -> Result<ExitCode> {
    let no_daemon = matches!(&unanswered, Unanswered::Client(ClientError::NoDaemon { .. }));
    let pinned = carnet_engine::pin::default_folder().and_then(|folder| carnet_engine::pin::inspect(&folder));
    match pinned {
        Ok(carnet_engine::pin::State::Whole(found)) if no_daemon => Err(anyhow::Error::msg(format!(
            "{}. Without it, this is in force: {found}. `carnet serve` takes that over, `carnet down` removes it",
            unanswered.into_error()
        ))),
        _ => unanswered.tell(),
    }
}

fn text(status: &Status, providers: &[Provider], now: Timestamp, zone: &TimeZone, terminal: Terminal) -> String {
    let policy = &status.policy;
    let since = |time: &str| since(time, now, zone);
    let taken_over = if status.adopted { ", taken over from a daemon before" } else { "" };
    let from = if policy.source.is_empty() { String::new() } else { format!(", from {}", policy.source) };
    let in_force = match &policy.since {
        Some(time) => format!("{}{from}, {}", policy.generation, since(time)),
        None => "none is in force".to_owned(),
    };
    let default = match &policy.default[..] {
        "permit" => "; what no filter decides is permitted".to_owned(),
        "block" => "; what no filter decides is blocked".to_owned(),
        "" => String::new(),
        other => format!("; what no filter decides: {other}"),
    };

    let mut text = terminal
        .row("daemon", &format!("process {}, version {}, {}", status.pid, status.version, since(&status.since)));
    text += &terminal.row("engine", &format!("{}{taken_over}", status.instance));
    for (place, cgroup) in status.cgroups.iter().enumerate() {
        let whole = if cgroup == "/" { "/, the whole host" } else { cgroup };
        text += &terminal.row(if place == 0 { "governs" } else { "" }, whole);
    }
    text += &terminal.row("policy", &in_force);
    text += &terminal.row("", &format!("{}{default}", contents(policy)));
    text += &terminal.row("providers", &well(status, providers));
    for provider in providers.iter().filter(|provider| provider.state != ProviderState::Alive) {
        let line = terminal.row("", &format!("{}: {}", provider.name, state(provider.state).1));
        text += &line.replacen(&provider.name, &terminal.styled(&provider.name, BOLD), 1);
    }
    if status.sessions > 0 {
        text += &terminal.row("sessions", &status.sessions.to_string());
    }
    text += &terminal.row("flows", &format!("{} open", status.flows));
    if status.lost > 0 {
        let were = if status.lost == 1 { "was" } else { "were" };
        let lost = format!("{} {were} lost, so that flows may be missing in the log", counted(status.lost, "event"));
        text += &terminal.row("events", &lost);
    }
    text
}

fn well(status: &Status, providers: &[Provider]) -> String {
    let ill = providers.iter().filter(|provider| provider.state != ProviderState::Alive).count();
    match (status.providers, ill) {
        (0, _) => "none".to_owned(),
        (all, 0) if providers.is_empty() => all.to_string(),
        (1, 0) => "1, alive".to_owned(),
        (all, 0) => format!("{all}, all alive"),
        (all, ill) => format!("{all}, of which {ill} not alive"),
    }
}

/// `3 providers, 12 filters, 1000 prefixes`.
pub fn contents(policy: &carnet_control::PolicySummary) -> String {
    let providers = counted(policy.providers.into(), "provider");
    let filters = counted(policy.filters.into(), "filter");
    let prefixes = if policy.prefixes == 1 { "1 prefix".into() } else { format!("{} prefixes", policy.prefixes) };
    format!("{providers}, {filters}, {prefixes}")
}

/// One word for a table, and in words.
pub fn state(state: ProviderState) -> (&'static str, &'static str) {
    match state {
        ProviderState::Alive => ("alive", "its listener is there"),
        ProviderState::Dead => ("dead", "nobody listens"),
        ProviderState::Stranger => ("stranger", "another process has taken its port, and gets nothing"),
        ProviderState::Stopped => ("stopped", "it accepts nothing, and connections wait"),
        ProviderState::Held => ("held", "the daemon has its listeners while it restarts, and connections wait"),
        _ => ("unknown", "in a state that this version does not know"),
    }
}

/// How a state is shown.
pub fn style(state: ProviderState) -> anstyle::Style {
    match state {
        ProviderState::Alive => crate::control::terminal::GOOD,
        ProviderState::Dead | ProviderState::Stranger => BAD,
        _ => UNSURE,
    }
}

/// The time for people, and how long that is ago. What is no time stays as it is.
fn since(time: &str, now: Timestamp, zone: &TimeZone) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return format!("since {time}") };
    let local = then.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S");
    format!("since {local} ({})", ago(now.as_second().saturating_sub(then.as_second())))
}

/// In the unit that says most.
fn ago(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use carnet_control::PolicySummary;
    use serde_json::json;

    use super::*;

    fn status() -> Status {
        serde_json::from_value(json!({"version": "0.1.0", "instance": "00000000000000aa", "pid": 4242,
            "since": "2026-01-01T08:00:00Z", "adopted": true, "cgroups": ["/"], "policy": {"generation": 7,
            "since": "2026-01-01T09:59:00Z", "source": "/etc/carnet/policy.toml", "providers": 2, "filters": 12,
            "prefixes": 1000, "default": "permit"}, "providers": 2, "sessions": 0, "flows": 12, "lost": 0}))
        .unwrap()
    }

    fn provider(name: &str, state: &str) -> Provider {
        serde_json::from_value(json!({"name": name, "rank": 10, "handle": 1, "listen": [], "records": "aware",
            "on-dead": "closed", "direct": false, "owner": [], "filters": 3, "state": state, "session": null, "flows": 0}))
        .unwrap()
    }

    fn said(status: &Status, providers: &[Provider]) -> String {
        let now = "2026-01-01T10:00:00Z".parse().unwrap();
        text(status, providers, now, &TimeZone::UTC, Terminal { colour: false, width: 80 })
    }

    #[test]
    fn all_is_well() {
        let expected = "\
daemon     process 4242, version 0.1.0, since 2026-01-01 08:00:00 (2 h)
engine     00000000000000aa, taken over from a daemon before
governs    /, the whole host
policy     7, from /etc/carnet/policy.toml, since 2026-01-01 09:59:00 (60 s)
           2 providers, 12 filters, 1000 prefixes; what no filter decides is
           permitted
providers  2, all alive
flows      12 open
";
        assert_eq!(said(&status(), &[provider("a", "alive"), provider("b", "alive")]), expected);
    }

    #[test]
    fn what_is_not_well_is_told() {
        let status = Status { lost: 1, sessions: 3, ..status() };
        let text = said(&status, &[provider("a", "dead"), provider("b", "stranger")]);
        let expected = "\
providers  2, of which 2 not alive
           a: nobody listens
           b: another process has taken its port, and gets nothing
sessions   3
flows      12 open
events     1 event was lost, so that flows may be missing in the log
";
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn no_policy_and_no_time_are_told_as_they_are() {
        let mut status = status();
        (status.policy, status.since) = (PolicySummary::default(), "later".into());
        let text = said(&status, &[]);
        assert!(text.contains("since later\n") && text.contains("policy     none is in force\n"), "{text}");
    }

    #[test]
    fn ages_are_in_the_unit_that_says_most() {
        for (seconds, expected) in
            [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days")]
        {
            assert_eq!(ago(seconds), expected);
        }
    }

    #[test]
    fn one_is_not_many() {
        let policy = PolicySummary { providers: 1, filters: 1, prefixes: 1, ..PolicySummary::default() };
        assert_eq!(contents(&policy), "1 provider, 1 filter, 1 prefix");
        assert_eq!(contents(&PolicySummary::default()), "0 providers, 0 filters, 0 prefixes");
    }
}
