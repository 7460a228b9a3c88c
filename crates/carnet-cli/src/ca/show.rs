//! What is told of an authority.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use carnet_proxy::ca::{Certificate, ENVIRONMENT, NEAR_THE_END, Trusts};
use jiff::Timestamp;

use super::store::{Found, Store};

/// Everything, a line each.
pub fn all(folder: &Path, certificate: &Certificate, found: Found, store: &Store) -> String {
    let (begin, end, now) = (certificate.not_before(), certificate.not_after(), SystemTime::now());
    let valid = if end <= now {
        ", which is over; the next use makes a new one"
    } else if end <= now + NEAR_THE_END {
        ", which is soon; the next use makes a new one"
    } else {
        ""
    };
    let system = match found {
        Found::Trusted => format!("by this system, for {} is there", store.path(certificate).display()),
        Found::Half => "by this system in part; `carnet ca install` or `carnet ca remove` makes it whole".to_owned(),
        Found::Nowhere => "not by this system; `carnet ca install` changes that".to_owned(),
    };
    let bundle = Trusts::Bundle.path(folder);
    let commands = if bundle.exists() {
        format!("by commands whose environment names {}", bundle.display())
    } else {
        "by no command; `carnet ca show --env` changes that".to_owned()
    };
    format!(
        "authority:   {}\nsubject:     {}\nfingerprint: SHA-256 {}\nvalid:       {} to {}{valid}\ntrusted:     {system}\n             \
         {commands}\n",
        folder.display(),
        certificate.subject(),
        certificate.fingerprint(),
        date(begin),
        date(end),
    )
}

/// Lines for a shell.
pub fn environment(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for (variable, trusts) in ENVIRONMENT {
        let path = trusts.path(folder);
        let path =
            path.to_str().context("the folder's name is no text that a shell could be told; give another one")?;
        let quoted = shlex::try_quote(path).context("the folder's name cannot be told to a shell; give another one")?;
        text += &format!("export {variable}={quoted}\n");
    }
    text += "# Java reads none of these: keytool -importcert -cacerts -alias carnet -file ca.crt, or `carnet ca install`\n\
             # where ca-certificates-java is installed.\n";
    Ok(text)
}

/// The day and the second, for all time zones.
pub fn date(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "a time beyond all calendars".to_owned(), |time| format!("{time:.0}"))
}

/// Said when the system trusts it.
pub const MEANING: &str = "\
Programs on this host that use the system's list of authorities now accept any
certificate that this one signs, for any server. Whoever has its key can pretend
to be any server to them. `carnet ca remove` undoes it.
Programs with a list of their own (Firefox, Java without ca-certificates-java,
Node, what is in containers) are as they were.
";

/// Said when only some commands do.
pub const MEANING_FOR_A_COMMAND: &str = "\
The system is as it was. Commands accept any certificate that this authority signs,
for any server, if they are started with what `carnet ca show --env` prints.
";
