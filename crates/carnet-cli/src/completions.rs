//! `carnet completions`: what a shell needs to complete this command, made of the same definition as its help.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use crate::stdout::write_out;

/// Write what a shell needs to complete carnet's options
///
/// For bash: carnet completions bash > /etc/bash_completion.d/carnet. For zsh: into a file _carnet in a folder of
/// $fpath. For fish: into ~/.config/fish/completions/carnet.fish.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes a script for the shell.
pub fn completions(arguments: Arguments) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut public(), "carnet", &mut script);
    write_out(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The command without what is not for people.
pub fn public() -> Command {
    let whole = crate::Cli::command();
    let subcommands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let about = whole.get_about().cloned().unwrap_or_default();
    Command::new("carnet").version(env!("CARGO_PKG_VERSION")).about(about).subcommands(subcommands)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_with_every_public_subcommand_and_no_other() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut public(), "carnet", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in ["run", "check", "explain", "doctor", "completions", "man"] {
                assert!(script.contains(command), "{shell}: {command}");
            }
            assert!(!script.contains(crate::exec::NAME), "{shell}");
        }
    }
}
