//! The `carnet` command.
//!
//! One file per subcommand. The hidden ones are not for people: `carnet run` starts this same program again in other
//! roles, because what they do must be done in a process of its own. See `run.rs` for how the processes relate.
#![forbid(unsafe_code)]

mod child;
mod doctor;
mod exec;
mod guardian;
mod inspect;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Doctor(arguments) => doctor::doctor(arguments),
        Command::Guardian => guardian::guard(),
        Command::Exec(arguments) => exec::exec(arguments),
        Command::Inspect(arguments) => inspect::inspect(arguments),
    };
    result.unwrap_or_else(|error| {
        run::complain(&one_line(&error));
        ExitCode::from(EXIT_SYSTEM)
    })
}

/// What failed, with the causes behind it, unless an error has said its cause itself.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Sends connections through inspecting services, each exactly once.
#[derive(Parser)]
#[command(name = "carnet", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Doctor(doctor::Arguments),
    #[command(name = guardian::NAME, hide = true)]
    Guardian,
    #[command(name = exec::NAME, hide = true)]
    Exec(exec::Arguments),
    #[command(name = inspect::NAME, hide = true)]
    Inspect(inspect::Arguments),
}

/// The system refused something, or something that is needed is missing.
const EXIT_SYSTEM: u8 = 3;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::Error::msg("c").context("b: c. Do this").context("a");
        assert_eq!(one_line(&error), "a: b: c. Do this");
        assert_eq!(one_line(&anyhow::Error::msg("b").context("a")), "a: b");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert_eq!(Cli::command().render_version(), concat!("carnet ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}
