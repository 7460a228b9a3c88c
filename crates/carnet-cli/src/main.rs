//! The `carnet` command.
//!
//! One file per subcommand. The hidden ones are not for people: `carnet run` starts this same program again in other
//! roles, because what they do must be done in a process of its own. See `run.rs` for how the processes relate.
#![forbid(unsafe_code)]

mod ca;
mod check;
mod child;
mod completions;
mod control;
mod doctor;
mod exec;
mod explain;
mod guardian;
mod host;
mod inspect;
mod man;
mod policy_file;
mod proxy;
mod run;
mod serve;
mod stdout;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(arguments) => run::run(arguments).map_err(point_to_doctor),
        Command::Check(arguments) => check::check(arguments),
        Command::Explain(arguments) => explain::explain(arguments),
        Command::Doctor(arguments) => doctor::doctor(arguments),
        Command::Serve(arguments) => serve::serve(arguments).map_err(point_to_doctor),
        Command::Proxy(arguments) => proxy::proxy(arguments),
        Command::Ca(arguments) => ca::ca(arguments),
        Command::Apply(arguments) => control::apply::apply(arguments),
        Command::Reload(arguments) => control::reload::reload(arguments),
        Command::Policy(arguments) => control::policy::policy(arguments),
        Command::Status(arguments) => control::status::status(arguments),
        Command::Providers(arguments) => control::providers::providers(arguments),
        Command::Flows(arguments) => control::flows::flows(arguments),
        Command::Events(arguments) => control::events::events(arguments),
        Command::Down(arguments) => control::down::down(arguments).map_err(point_to_doctor),
        Command::Completions(arguments) => completions::completions(arguments),
        Command::Man(arguments) => man::man(arguments),
        Command::Guardian => guardian::guard(),
        Command::Exec(arguments) => exec::exec(arguments),
        Command::Inspect(arguments) => inspect::inspect(arguments),
    };
    result.unwrap_or_else(|error| {
        run::complain(&one_line(&error));
        ExitCode::from(EXIT_SYSTEM)
    })
}

/// Whatever the system refuses the engine, `carnet doctor` knows more of than the error.
fn point_to_doctor(error: anyhow::Error) -> anyhow::Error {
    if !error.chain().any(|cause| cause.is::<carnet_engine::Error>()) {
        return error;
    }
    anyhow::Error::msg(format!("{}. `carnet doctor` looks for what stands in the way", one_line(&error)))
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
#[command(name = "carnet", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Serve(serve::Arguments),
    Proxy(proxy::Arguments),
    Ca(ca::Arguments),
    Apply(control::apply::Arguments),
    Reload(control::reload::Arguments),
    Policy(control::policy::Arguments),
    Status(control::status::Arguments),
    Providers(control::providers::Arguments),
    Flows(control::flows::Arguments),
    Events(control::events::Arguments),
    Down(control::down::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
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
    use std::path::Path;

    use carnet_engine::cgroup::{Cgroup, Hierarchy};
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_the_engine_failed_at_is_the_doctors() {
        let nowhere = Hierarchy::find().and_then(|hierarchy| Cgroup::open(&hierarchy, Path::new("/nowhere")));
        let failed = anyhow::Error::new(nowhere.unwrap_err()).context("cannot begin");
        let expected = format!("{}. `carnet doctor` looks for what stands in the way", one_line(&failed));
        assert_eq!(one_line(&point_to_doctor(failed)), expected);

        let other = anyhow::Error::msg("it does not listen").context("service a");
        assert_eq!(one_line(&point_to_doctor(other)), "service a: it does not listen");
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        let all = Cli::command();
        for name in all.get_subcommands().filter(|command| !command.is_hide_set()).map(clap::Command::get_name) {
            let mut command = Cli::command().term_width(80);
            command.build();
            let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            assert!(help.contains("Examples:") == (name == "run"));
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
        }
    }

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
