//! What `carnet proxy` needs to open TLS, made when rules ask for it the first time, and what it says of opened flows.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use carnet_proxy::Inspection;
use carnet_proxy::ca::{Authority, Origin};
use carnet_proxy::har::{self, Har};
use carnet_proxy::open::{Event, OpenReport, Opener, roots};
use carnet_proxy::rules::Rules;
use carnet_proxy::scan::{Direction, Scan};
use clap::Args;
use serde_json::{Value, json};

use super::told::{Told, with_cause};
use crate::ca::default_folder;

/// For rules with `action = "open"` (docs/open.md).
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Arguments {
    /// Folder of the authority with which TLS is opened, made if there is none (see `carnet ca`) [default:
    /// /var/lib/carnet/ca for root, else $XDG_DATA_HOME/carnet/ca]
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,

    /// Trust servers whose certificates these authorities have signed, in PEM, besides those that the system trusts
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<PathBuf>,

    /// Write what is said in opened flows to this file, which must not be there, in HAR 1.2. It has passwords and
    /// cookies as they are
    #[arg(long, value_name = "FILE")]
    har: Option<PathBuf>,
}

/// What opens flows, once rules ask for it.
pub struct Opening {
    arguments: Arguments,
    har: Mutex<Option<Har>>,
    scan: Option<Arc<dyn Scan>>,
    told: Told,
}

impl Opening {
    pub fn new(arguments: &Arguments, scan: Option<Arc<dyn Scan>>, told: &Told) -> Result<Self> {
        let har = match &arguments.har {
            Some(path) => {
                let told = told.clone();
                Some(Har::create(path, har::Options::default(), move |error| told.warn(&with_cause(&error)))?)
            }
            None => None,
        };
        Ok(Self { arguments: arguments.clone(), har: Mutex::new(har), scan, told: told.clone() })
    }

    /// Sees that flows can be opened where these rules say so.
    pub fn prepare(&self, rules: &Rules, inspection: &Inspection) -> Result<()> {
        if !rules.open() || inspection.opener().is_some() {
            return Ok(());
        }
        let folder = match &self.arguments.ca {
            Some(folder) => folder.clone(),
            None => default_folder().context("say with --ca where the authority is")?,
        };
        let authority = Authority::open_or_create(&folder)?;
        if *authority.origin() != Origin::Existed {
            let folder = folder.display();
            self.told.warn(&format!(
                "made a certificate authority in {folder}, which nobody trusts yet: see carnet ca show --dir {folder}"
            ));
        }
        let mut opener = Opener::new(Arc::new(authority), roots(self.arguments.upstream_ca.as_deref())?)?;
        if let Some(scan) = &self.scan {
            opener = opener.scanning(Arc::clone(scan));
        }
        let har = self.har.lock().unwrap_or_else(PoisonError::into_inner).take();
        inspection.open_with(Arc::new(match har {
            Some(har) => opener.recording(har),
            None => opener,
        }));
        Ok(())
    }
}

/// `opened tls example.org -> 192.0.2.7:443  h2`
pub fn words_of(report: &OpenReport) -> String {
    let whom = match &report.name {
        Some(name) => format!("{name} -> {}", report.destination),
        None => format!("-> {}", report.destination),
    };
    match &report.event {
        Event::Opened { inside } => format!("opened  {whom}  {}", inside.name()),
        Event::Pinned => format!("pinned  {whom}  the client does not accept the certificate"),
        Event::Failed { error } => format!("failed  {whom}  no TLS with the client: {error}"),
        Event::Unread { why, passed: true } => format!("unread  {whom}  {}, passed on as it is", why.name()),
        Event::Unread { why, passed: false } => format!("unread  {whom}  {}, refused", why.name()),
        Event::Untrusted { error } => format!("untrusted  {whom}  {error}"),
        Event::Refused { url, reason } => format!("refused  {whom}  {url}: {reason}"),
        Event::Stopped { direction, url, reason } => {
            format!("stopped  {whom}  {} of {url}: {reason}", part(*direction))
        }
        other => format!("open  {whom}  {other:?}"),
    }
}

/// Fields that do not apply to an event are null.
pub fn json_of(report: &OpenReport) -> Value {
    let mut inside = None;
    let (mut why, mut passed, mut url, mut reason, mut body) = (None, None, None, None, None);
    let event = match &report.event {
        Event::Opened { inside: what } => {
            inside = Some(what.name());
            "opened"
        }
        Event::Pinned => "pinned",
        Event::Unread { why: what, passed: whether } => {
            (why, passed) = (Some(what.name()), Some(*whether));
            "unread"
        }
        Event::Failed { error } => {
            reason = Some(error);
            "failed"
        }
        Event::Untrusted { error } => {
            reason = Some(error);
            "untrusted"
        }
        Event::Refused { url: of, reason: what } => {
            (url, reason) = (Some(of), Some(what));
            "refused"
        }
        Event::Stopped { direction, url: of, reason: what } => {
            (url, reason, body) = (Some(of), Some(what), Some(part(*direction)));
            "stopped"
        }
        _ => "other",
    };
    json!({
        "type": "open",
        "flow": format!("{:032x}", report.flow_id),
        "destination": report.destination.to_string(),
        "name": report.name,
        "event": event,
        "inside": inside,
        "why": why,
        "passed": passed,
        "url": url,
        "body": body,
        "reason": reason,
    })
}

fn part(direction: Direction) -> &'static str {
    match direction {
        Direction::Request => "request",
        Direction::Response => "response",
    }
}
