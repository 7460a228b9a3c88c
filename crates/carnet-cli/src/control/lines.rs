//! Answers that come line by line.

use std::process::ExitCode;

use anyhow::Result;
use carnet_control::Lines;
use serde::de::DeserializeOwned;

use crate::control::asking::{Asking, Unanswered};
use crate::run::complain;
use crate::stdout::Reader;

/// What a line means for those that follow.
pub enum Next {
    /// There may be more.
    More,
    /// Nobody reads.
    Enough,
    /// The daemon has said why there are no more.
    Closed(String),
}

impl From<Reader> for Next {
    fn from(reader: Reader) -> Self {
        match reader {
            Reader::There => Self::More,
            Reader::Gone => Self::Enough,
        }
    }
}

/// Gives each line. An answer that has an end (`is_bounded`) is done with it; any other is cut off.
pub fn each<T: DeserializeOwned>(
    asking: &Asking,
    mut lines: Lines<T>,
    is_bounded: bool,
    mut write: impl FnMut(T) -> Result<Next>,
) -> Result<ExitCode> {
    loop {
        let Some(line) = asking.wait(lines.next()).map_err(|error| Unanswered::Client(error).into_error())? else {
            if !is_bounded {
                complain("the daemon has ended the answer");
            }
            return Ok(ExitCode::from(if is_bounded { 0 } else { crate::EXIT_SYSTEM }));
        };
        match write(line)? {
            Next::More => {}
            Next::Enough => return Ok(ExitCode::SUCCESS),
            Next::Closed(reason) => {
                complain(&format!("the daemon has ended the answer: {reason}"));
                return Ok(ExitCode::from(crate::EXIT_SYSTEM));
            }
        }
    }
}

/// What is said where a reader was too slow.
pub fn lost(lost: u64) -> String {
    format!("{lost} lines were left out here: this reader was too slow")
}
