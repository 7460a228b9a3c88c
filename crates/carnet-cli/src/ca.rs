//! `carnet ca`: the local certificate authority, and who trusts it.

mod place;
mod show;
mod store;

use std::path::{PathBuf, absolute};
use std::process::ExitCode;

use anyhow::{Result, bail};
use carnet_proxy::ca::{self, Authority, Certificate, Origin};
use clap::{Args, Subcommand};

pub use self::place::default_folder;
use self::store::{Found, Store};
use crate::stdout::write_out;

/// Show, trust and remove the certificate authority with which TLS is opened
///
/// To read what is encrypted, the built-in service answers TLS itself, with certificates that it signs with a key of
/// this host. Programs that trust the authority accept whatever it signs. So whoever has the key can pretend to be any
/// server to them: it is in a file that only its owner can read, and `carnet ca remove` takes it out of use.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Show(ShowArguments),
    Install(InstallArguments),
    Remove(RemoveArguments),
}

/// Tell which authority there is, how long it is valid, and who trusts it
#[derive(Args, Debug)]
struct ShowArguments {
    #[command(flatten)]
    place: Place,

    /// Print the certificate alone
    #[arg(long, conflicts_with = "env")]
    pem: bool,

    /// Print shell lines that make commands trust it: eval "$(carnet ca show --env)"
    #[arg(long)]
    env: bool,
}

/// Make this system trust the authority, which is made if there is none
///
/// From then on every program that uses the system's list of authorities accepts any certificate that this one signs,
/// for any server. Where an old authority was replaced, it is taken out.
#[derive(Args, Debug)]
struct InstallArguments {
    #[command(flatten)]
    place: Place,

    /// Change nothing on the system: only make what `carnet ca show --env` names
    #[arg(long)]
    for_command: bool,
}

/// Make nobody trust the authority any more, and delete it with its key
///
/// Whatever is there is removed, also where half of it is gone. The next use makes a new authority, which nobody trusts.
#[derive(Args, Debug)]
struct RemoveArguments {
    #[command(flatten)]
    place: Place,

    /// Take out other authorities of Carnet's as well, whose folders may be gone
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
struct Place {
    /// Folder of the authority [default: /var/lib/carnet/ca for root, else
    /// $XDG_DATA_HOME/carnet/ca]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Another folder instead of / in which the system's trust is kept, to try things out
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Does what is asked for.
pub fn ca(arguments: Arguments) -> Result<ExitCode> {
    let text = match arguments.what {
        What::Show(arguments) => show(&arguments)?,
        What::Install(arguments) => install(&arguments)?,
        What::Remove(arguments) => remove(&arguments)?,
    };
    write_out(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: &ShowArguments) -> Result<String> {
    let (folder, store) = arguments.place.open()?;
    let certificate = Certificate::read(&folder)?;
    if arguments.pem {
        return Ok(certificate.pem());
    }
    if arguments.env {
        ca::write_bundle(&folder, &store.system_bundle()?)?;
        return show::environment(&folder);
    }
    Ok(show::all(&folder, &certificate, store.find(&certificate), &store))
}

fn install(arguments: &InstallArguments) -> Result<String> {
    let (folder, store) = arguments.place.open()?;
    let mut text = String::new();
    if !arguments.for_command {
        // Before an authority is made, which would be for nothing.
        store.is_usable()?;
    }
    let authority = Authority::open_or_create(&folder)?;
    let certificate = authority.certificate();
    match authority.origin() {
        Origin::Made => text += &format!("made:      a certificate authority in {}\n", folder.display()),
        Origin::MadeInsteadOf(old) => {
            text += &format!(
                "made:      a new certificate authority in {}, for the old one ended at {}\n",
                folder.display(),
                show::date(old.not_after())
            );
        }
        _ => text += &format!("kept:      the certificate authority in {}\n", folder.display()),
    }
    if arguments.for_command {
        let bundle = ca::write_bundle(&folder, &store.system_bundle()?)?;
        text += &format!("written:   {}\n\n{}", bundle.display(), show::MEANING_FOR_A_COMMAND);
        return Ok(text);
    }
    let mut stale = false;
    for old in ca::retired(&folder) {
        stale |= store.find(&old) != Found::Nowhere;
        if let Some(path) = store.forget(&old)? {
            text += &format!("removed:   {} (it was replaced)\n", path.display());
        }
    }
    if store.find(certificate) == Found::Trusted && !stale {
        text += "trusted:   by this system already\n";
    } else {
        let path = store.add(certificate)?;
        store.update(stale)?;
        text += &format!("installed: {}\n", path.display());
    }
    ca::write_bundle(&folder, &store.system_bundle()?)?;
    text += &format!("\n{}", show::MEANING);
    Ok(text)
}

fn remove(arguments: &RemoveArguments) -> Result<String> {
    let (folder, store) = arguments.place.open()?;
    let mut wanted = ca::retired(&folder);
    wanted.extend(Certificate::read(&folder).ok());
    let (more, others): (Vec<_>, Vec<_>) = store
        .of_carnet()
        .into_iter()
        .filter(|(_, certificate)| !wanted.contains(certificate))
        .partition(|_| arguments.all);
    wanted.extend(more.into_iter().map(|(_, certificate)| certificate));

    let mut text = String::new();
    let distrusted = distrust(&wanted, &store, &mut text);
    // Whatever the system does, nobody is to sign with the key any more.
    for path in ca::remove(&folder)? {
        text += &format!("removed: {}\n", path.display());
    }
    if let Err(error) = distrusted {
        write_out(text.as_bytes())?;
        return Err(error.context("this system may trust it still; run `carnet ca remove --all` as root"));
    }
    if text.is_empty() {
        text = format!("There is no certificate authority in {}, and nothing to remove.\n", folder.display());
    }
    for (path, _) in others {
        text += &format!("{} is of another authority; `carnet ca remove --all` takes it out.\n", path.display());
    }
    Ok(text)
}

/// Takes them out of what the system trusts, and adds to the text what it did.
fn distrust(certificates: &[Certificate], store: &Store, text: &mut String) -> Result<()> {
    if certificates.iter().all(|certificate| store.find(certificate) == Found::Nowhere) {
        return Ok(());
    }
    for certificate in certificates {
        if let Some(path) = store.forget(certificate)? {
            *text += &format!("removed: {}\n", path.display());
        }
    }
    store.update(true)?;
    if let Some(left) = certificates.iter().find(|certificate| store.find(certificate) != Found::Nowhere) {
        bail!("update-ca-certificates ran, but {} is still in the list of what is trusted", left.subject());
    }
    *text += "This system does not trust it any more. Programs that are running may until they end.\n";
    Ok(())
}

impl Place {
    fn open(&self) -> Result<(PathBuf, Store)> {
        let folder = match &self.dir {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        if !self.root.is_dir() {
            bail!("{} is no folder; give one with --root that is there", self.root.display());
        }
        Ok((absolute(folder)?, Store::below(&absolute(&self.root)?)))
    }
}
