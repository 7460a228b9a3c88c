//! One line for each flow.

use std::fmt::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use nix::errno::Errno;

use super::sockets::{family, kind, protocol};
use super::{Clock, Summary, reason};
use crate::run::flows::{Decision, End, Flow, Place, Protocol, UnseenSocket};

pub(super) fn flow(flow: &Flow, clock: &Clock, colour: bool, columns: bool) -> String {
    let time = clock.timestamp(flow.begun).to_zoned(clock.zone.clone()).strftime("%H:%M:%S%.3f").to_string();
    let who = format!("{}[{}]", printable(&flow.program), flow.pid);
    let is_address = |name: &str| name.trim_matches(['[', ']']).parse() == Ok(flow.destination.ip());
    let destination = match &flow.name {
        Some(name) if !is_address(&name.text) => format!("{} {}", printable(&name.text), flow.destination),
        _ => flow.destination.to_string(),
    };
    let bytes =
        flow.bytes.map_or_else(|| "-".into(), |of| format!("{} up, {} down", Bytes(of.sent), Bytes(of.received)));
    let duration = flow.duration.map_or_else(|| "-".into(), milliseconds);
    let end = end(flow);
    let chain = chain(flow);

    let widths = if columns { [12, 18, 34, 22, 9, 8] } else { [0; 6] };
    let mut line = String::new();
    let fields = [
        (&time, TIME),
        (&who, WHO),
        (&destination, PLAIN),
        (&bytes, PLAIN),
        (&duration, PLAIN),
        (&end, end_style(flow)),
    ];
    for ((text, style), width) in fields.into_iter().zip(widths) {
        push(&mut line, text, style, width, colour);
        line.push_str("  ");
    }
    push(&mut line, &chain, if flow.chain.is_empty() { TIME } else { CHAIN }, 0, colour);
    line
}

pub(super) fn warning(warning: &str, colour: bool) -> String {
    let mut line = String::new();
    push(&mut line, "carnet:", WARNING, 0, colour);
    let _ = write!(line, " {}", printable(warning));
    line
}

pub(super) fn socket(socket: &UnseenSocket, colour: bool) -> String {
    let UnseenSocket { pid, program, kind: of, refused, .. } = socket;
    let what = format!("{} {}, {}", family(of).1, kind(of).1, protocol(of));
    let text = match refused {
        Some(_) => format!("{program}[{pid}] was refused a socket that cannot be inspected ({what})"),
        None => format!("{program}[{pid}] made a socket that cannot be inspected ({what}); `strict` refuses these"),
    };
    warning(&text, colour)
}

pub(super) fn summary(summary: &Summary, colour: bool) -> String {
    let count = |count: u64, word: &str| if count > 0 { format!(", {count} {word}") } else { String::new() };
    let flows = if summary.flows == 1 { "flow" } else { "flows" };
    let text = format!(
        "carnet: {} {flows}, {} up, {} down{}{}{}{}",
        summary.flows,
        Bytes(summary.sent),
        Bytes(summary.received),
        count(summary.refused, "refused"),
        count(summary.failed, "failed or broken off"),
        count(summary.open, "still open"),
        count(summary.not_inspected, "not inspected"),
    );
    let mut line = String::new();
    push(&mut line, &text, if colour { TIME } else { PLAIN }, 0, colour);
    if summary.events_lost > 0 {
        let lost = format!(". {} events were lost, flows may be missing here", summary.events_lost);
        push(&mut line, &lost, WARNING, 0, colour);
    }
    line
}

fn chain(flow: &Flow) -> String {
    if flow.chain.is_empty() {
        return match flow.decision {
            Decision::LeftAlone(why) => format!("direct ({})", reason(why).1),
            Decision::NotInspected => "not inspected".into(),
            Decision::Refused => "-".into(),
            Decision::Direct | Decision::Redirected => "direct".into(),
        };
    }
    let mut text = String::new();
    for (place, link) in flow.chain.iter().enumerate() {
        let arrow = if place > 0 { " > " } else { "" };
        let inferred = if link.inferred { " (inferred)" } else { "" };
        let _ = write!(text, "{arrow}{}{inferred}", printable(&link.service));
    }
    if flow.ambiguous {
        text.push_str(" (whose is ambiguous)");
    }
    text
}

fn end(flow: &Flow) -> String {
    match &flow.end {
        End::Closed => "closed".into(),
        End::Aborted => "aborted".into(),
        End::Reset(place, error) => match Errno::from_raw(*error) {
            Errno::ECONNRESET | Errno::EPIPE => format!("reset{}", at(place)),
            _ => format!("{}{}", failure(*error), at(place)),
        },
        End::Failed(place, error) => format!("{}{}", failure(*error), at(place)),
        End::Refused { reason: why, service, .. } => match service {
            Some(service) => format!("refused by carnet ({}: {})", printable(service), reason(*why).1),
            None => format!("refused by carnet ({})", reason(*why).1),
        },
        End::Open => "open".into(),
        End::Untold => match flow.protocol {
            Protocol::Udp => "udp".into(),
            Protocol::Tcp => "-".into(),
        },
    }
}

/// Only what is not obvious: the destination is the usual place.
fn at(place: &Place) -> String {
    match place {
        Place::Destination => String::new(),
        Place::Service(service) => format!(" by {}", printable(service)),
    }
}

fn failure(error: i32) -> String {
    match Errno::from_raw(error) {
        _ if error == 0 => "failed".into(),
        Errno::ECONNREFUSED => "refused".into(),
        Errno::ETIMEDOUT => "timed out".into(),
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => "unreachable".into(),
        errno => errno.desc().to_lowercase(),
    }
}

fn milliseconds(duration: Duration) -> String {
    match duration.as_secs_f64() * 1000.0 {
        short @ ..10.0 => format!("{short:.1} ms"),
        middle @ ..10_000.0 => format!("{middle:.0} ms"),
        long => format!("{:.1} s", long / 1000.0),
    }
}

/// Exact where it is short, else three digits.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        for unit in ["kB", "MB", "GB"] {
            value /= 1000.0;
            if value < 999.5 {
                let decimals = usize::from(value < 99.95);
                return write!(f, "{value:.decimals$} {unit}");
            }
        }
        write!(f, "{:.1} TB", value / 1000.0)
    }
}

/// What others have chosen must not steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() || is_invisible(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Characters that change the direction of what follows, or take no room.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Padding is outside the colour, and counts characters.
fn push(line: &mut String, text: &str, style: Style, width: usize, colour: bool) {
    if colour {
        let _ = write!(line, "{}{text}{}", style.render(), style.render_reset());
    } else {
        line.push_str(text);
    }
    let padding = width.saturating_sub(text.chars().count());
    line.extend(std::iter::repeat_n(' ', padding));
}

fn end_style(flow: &Flow) -> Style {
    match flow.end {
        End::Closed => AnsiColor::Green.on_default(),
        End::Refused { .. } | End::Failed(..) => AnsiColor::Red.on_default(),
        End::Aborted | End::Reset(..) | End::Open | End::Untold => AnsiColor::Yellow.on_default(),
    }
}

const PLAIN: Style = Style::new();
const TIME: Style = Style::new().dimmed();
const WHO: Style = Style::new().bold();
const CHAIN: Style = AnsiColor::Cyan.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
