//! `carnet flows`: the lines of `carnet run`'s log, of what the daemon governs.

pub mod told;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result};
use carnet_control::FlowLine;
use clap::Args;

use crate::control::asking::Asking;
use crate::control::lines::{Next, each, lost};
use crate::control::{Daemon, json, print};
use crate::run::output::{Clock, Format, Log};
use crate::run::wants_colour;

/// List the flows that are open, or follow them
///
/// One line for each, as in the log of carnet run (docs/flow-log.md). With --follow first those that are open, then each
/// that ends, until this command is interrupted.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Go on with flows that end from now on
    #[arg(long, short)]
    follow: bool,

    #[command(flatten)]
    daemon: Daemon,

    /// Write one JSON object for each
    #[arg(long)]
    json: bool,
}

/// Asks, and writes what comes.
pub fn flows(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { follow, daemon, json: as_json } = arguments;
    let asking = Asking::of(&daemon)?;
    let lines = match asking.ask(async |client| client.flows(follow).await) {
        Ok(lines) => lines,
        Err(unanswered) => return unanswered.tell(),
    };
    if as_json {
        return each(&asking, lines, !follow, |line| match line {
            FlowLine::Closing { reason } => Ok(Next::Closed(reason)),
            line => Ok(print(&json(&line))?.into()),
        });
    }
    let is_terminal = io::stdout().is_terminal();
    let format = Format::Text { colour: wants_colour(is_terminal), columns: is_terminal };
    let clock = Clock::of_told();
    let mut log = Log::new(format, clock.clone(), io::stdout());
    let code = each(&asking, lines, !follow, |line| {
        match line {
            FlowLine::Flow(flow) => match told::flow(&flow, &clock) {
                Some(flow) => log.flow(&flow),
                None => log.warning(&format!("there is a flow that this version cannot show: {}", flow.flow)),
            },
            FlowLine::Socket(socket) => log.socket(&told::socket(&socket, &clock)),
            FlowLine::Warning { message } => log.warning(&message),
            FlowLine::Lost { lost: count } => log.warning(&lost(count)),
            FlowLine::Closing { reason } => return Ok(Next::Closed(reason)),
            _ => log.warning("there is a line that this version cannot show"),
        }
        Ok(if log.is_open() { Next::More } else { Next::Enough })
    })?;
    log.into_error().map_or(Ok(code), |error| Err(error).context("cannot write"))
}
