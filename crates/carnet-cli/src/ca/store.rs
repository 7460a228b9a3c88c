//! The system's trust: a file for each authority, of which `update-ca-certificates` makes what programs read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use carnet_proxy::ca::{Certificate, Error, SYSTEM_BUNDLES};

/// That of Debian and its descendants, perhaps below another folder than `/`.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// How far a certificate is in it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Found {
    /// Not at all.
    Nowhere,
    /// There is a part: its file, or what was made of it.
    Half,
    /// Programs trust it, and will when the list is made again.
    Trusted,
}

impl Store {
    /// The system's is below `/`.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a certificate's file is.
    pub fn path(&self, certificate: &Certificate) -> PathBuf {
        self.root.join(LOCAL).join(format!("{}.crt", name(certificate)))
    }

    /// How far a certificate is in it.
    pub fn find(&self, certificate: &Certificate) -> Found {
        let pem = certificate.pem();
        let file = fs::read_to_string(self.path(certificate)).is_ok_and(|there| there == pem);
        let listed = fs::read(self.root.join(BUNDLE)).is_ok_and(|list| contains(&list, pem.as_bytes()));
        let link = self.root.join(LINKS).join(format!("{}.pem", name(certificate))).is_symlink();
        match (file, listed, link) {
            (true, true, true) => Found::Trusted,
            (false, false, false) => Found::Nowhere,
            _ => Found::Half,
        }
    }

    /// The authorities of Carnet's that have a file in it, whoever made them.
    pub fn of_carnet(&self) -> Vec<(PathBuf, Certificate)> {
        let entries = fs::read_dir(self.root.join(LOCAL)).into_iter().flatten().flatten();
        let read = entries.filter_map(|entry| {
            let certificate = Certificate::from_pem(&fs::read(entry.path()).ok()?)?;
            // Under another name it is somebody's own doing.
            (entry.path() == self.path(&certificate)).then(|| (entry.path(), certificate))
        });
        read.collect()
    }

    /// Fails where there is no such store, or this user may not change it.
    pub fn is_usable(&self) -> Result<()> {
        self.program()?;
        let local = self.root.join(LOCAL);
        fs::create_dir_all(&local).and_then(|()| can_write_to(&local)).with_context(|| {
            format!(
                "cannot write to {}; run this as root, or make one command trust the authority: `carnet ca install \
                 --for-command`",
                local.display()
            )
        })
    }

    /// Puts the certificate's file there.
    pub fn add(&self, certificate: &Certificate) -> Result<PathBuf> {
        let path = self.path(certificate);
        // Not named .crt until it is whole: update-ca-certificates may run at any time.
        let new = path.with_extension("new");
        let written = || -> io::Result<()> {
            forget_file(&new)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.write_all(certificate.pem().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        written().with_context(|| format!("cannot write {}; run this as root", path.display()))?;
        Ok(path)
    }

    /// Takes the certificate's file away, if it is there.
    pub fn forget(&self, certificate: &Certificate) -> Result<Option<PathBuf>> {
        let path = self.path(certificate);
        let there =
            forget_file(&path).with_context(|| format!("cannot remove {}; run this as root", path.display()))?;
        Ok(there.then_some(path))
    }

    /// Makes what programs read. With `fresh` also without what is gone.
    pub fn update(&self, fresh: bool) -> Result<()> {
        let mut command = Command::new(self.program()?);
        command.stdin(Stdio::null());
        if fresh {
            command.arg("--fresh");
        }
        if self.root != Path::new("/") {
            // Its hooks change this host, whatever the folder is.
            for (option, path) in [
                ("--certsconf", "etc/ca-certificates.conf"),
                ("--certsdir", "usr/share/ca-certificates"),
                ("--localcertsdir", LOCAL),
                ("--etccertsdir", LINKS),
                ("--hooksdir", "nowhere"),
            ] {
                command.arg(option).arg(self.root.join(path));
            }
        }
        let output = command.output().context("cannot start update-ca-certificates")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim();
            bail!("update-ca-certificates failed ({}): {said}; run it by hand, then this again", output.status);
        }
        Ok(())
    }

    /// The file of all that the system trusts.
    pub fn system_bundle(&self) -> Result<PathBuf> {
        let all = SYSTEM_BUNDLES.iter().map(|path| self.root.join(path.trim_start_matches('/')));
        Ok(all.into_iter().find(|path| path.exists()).ok_or(Error::NoSystemBundle)?)
    }

    /// Programs for administrators are not on everybody's path.
    fn program(&self) -> Result<&'static Path> {
        let all = ["/usr/sbin/update-ca-certificates", "/usr/bin/update-ca-certificates"].map(Path::new);
        all.into_iter().find(|path| path.exists()).context(
            "this system has no update-ca-certificates; install the package ca-certificates, or give what `carnet ca \
             show --pem` prints to whatever keeps the trust here",
        )
    }
}

fn name(certificate: &Certificate) -> String {
    format!("carnet-{}", certificate.short())
}

/// Whether it was there.
fn forget_file(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn contains(list: &[u8], pem: &[u8]) -> bool {
    String::from_utf8_lossy(list).contains(&*String::from_utf8_lossy(pem))
}

/// Whether a file can be made there.
fn can_write_to(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!("carnet-{}.new", std::process::id()));
    drop(File::create_new(&path)?);
    fs::remove_file(path)
}

const LOCAL: &str = "usr/local/share/ca-certificates";
const LINKS: &str = "etc/ssl/certs";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
