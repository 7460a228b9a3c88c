//! `carnet events`: what happens to the daemon, its providers and sessions.

use std::process::ExitCode;

use anstyle::Style;
use anyhow::Result;
use carnet_control::{Event, EventKind, EventLine, ProviderState};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::control::asking::Asking;
use crate::control::lines::{Next, each, lost};
use crate::control::status::style;
use crate::control::terminal::{DIM, Terminal, UNSURE, printable};
use crate::control::{Daemon, json, print};

/// Follow what happens: policies that come into force, providers that die and come back, sessions
///
/// One line for each, from now on, until this command is interrupted.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    daemon: Daemon,

    /// Write one JSON object for each
    #[arg(long)]
    json: bool,
}

/// Asks, and writes what comes.
pub fn events(arguments: Arguments) -> Result<ExitCode> {
    let asking = Asking::of(&arguments.daemon)?;
    let lines = match asking.ask(async |client| client.events().await) {
        Ok(lines) => lines,
        Err(unanswered) => return unanswered.tell(),
    };
    let (zone, terminal) = (TimeZone::system(), Terminal::of_output());
    each(&asking, lines, false, |line| {
        let text = match &line {
            EventLine::Closing { reason } => return Ok(Next::Closed(reason.clone())),
            _ if arguments.json => json(&line),
            EventLine::Event(event) => text(event, &zone, terminal),
            EventLine::Lost { lost: count } => terminal.styled("carnet:", UNSURE) + &format!(" {}\n", lost(*count)),
            _ => return Ok(Next::More),
        };
        Ok(print(&text)?.into())
    })
}

/// `22:13:21  provider         dlp is dead: nobody listens on 127.0.0.1:15001`
fn text(event: &Event, zone: &TimeZone, terminal: Terminal) -> String {
    let time = match event.time.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string(),
        Err(_) => printable(&event.time),
    };
    let (kind, mut kind_style) = kind(event.event);
    if let Some(state) = event.state.filter(|state| *state != ProviderState::Alive) {
        kind_style = style(state);
    }
    let kind = terminal.styled(&format!("{kind:13}"), kind_style);
    format!("{}  {kind}  {}\n", terminal.styled(&time, DIM), printable(&event.message))
}

fn kind(kind: EventKind) -> (String, Style) {
    let style = match kind {
        EventKind::Warning | EventKind::EventsLost => UNSURE,
        _ => Style::new(),
    };
    // As it is in JSON.
    let name = serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned));
    (name.unwrap_or_default(), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_kind_and_message() {
        let event: Event = serde_json::from_value(serde_json::json!({"time": "2026-01-01T22:13:21.5Z",
            "event": "session-ended", "message": "session 7 is over\u{1b}"}))
        .unwrap();
        let terminal = Terminal { colour: false, width: 80 };
        let line = |event: &Event| text(event, &TimeZone::UTC, terminal);
        assert_eq!(line(&event), "22:13:21  session-ended  session 7 is over\\u{1b}\n");
        assert!(line(&Event { time: "x".into(), ..event }).starts_with("x  session-ended"));
    }

    #[test]
    fn a_provider_that_is_not_alive_stands_out() {
        let event: Event =
            serde_json::from_value(serde_json::json!({"time": "2026-01-01T22:13:21Z", "event": "provider",
            "provider": "dlp", "state": "dead", "message": "dlp is dead"}))
            .unwrap();
        let line = text(&event, &TimeZone::UTC, Terminal { colour: true, width: 80 });
        assert_eq!(line, "\u{1b}[2m22:13:21\u{1b}[0m  \u{1b}[31mprovider     \u{1b}[0m  dlp is dead\n");
    }
}
