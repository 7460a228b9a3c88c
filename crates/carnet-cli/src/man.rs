//! `carnet man`: manual pages, made of the same definition as the help.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::completions::public;

/// Write manual pages into a folder
///
/// One for carnet, and one for each of its subcommands: carnet.1, carnet-run.1 and so on.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The folder, which has to be there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages.
pub fn man(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { folder } = arguments;
    clap_mangen::generate_to(public().disable_help_subcommand(true), &folder)
        .with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_public_subcommand_has_a_page() {
        let folder = std::env::temp_dir().join(format!("carnet-man-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let written = man(Arguments { folder: folder.clone() });
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let check = fs::read_to_string(folder.join("carnet-check.1"));
        fs::remove_dir_all(&folder).unwrap();

        written.unwrap();
        names.sort();
        let mut expected: Vec<_> = public().get_subcommands().flat_map(pages).collect();
        expected.push("carnet.1".into());
        expected.sort();
        assert_eq!(names, expected);
        assert!(check.unwrap().contains("deny\\-warnings"));
    }

    /// Of a subcommand and of those below it: carnet-ca.1, carnet-ca-show.1.
    fn pages(command: &clap::Command) -> Vec<String> {
        let name = command.get_name();
        let below = command.get_subcommands().map(|below| format!("carnet-{name}-{}.1", below.get_name()));
        below.chain([format!("carnet-{name}.1")]).collect()
    }
}
