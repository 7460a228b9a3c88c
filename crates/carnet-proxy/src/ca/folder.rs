//! The folder of an authority: who may read and change what is in it, and that it is whole at any time.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, fsync, open, openat, renameat, statat, unlinkat},
    io::Errno,
    process::geteuid,
};

use super::{Certificate, Error, Problem, certificate::LONGEST};

/// A folder that is this user's alone, in which this process has its turn until this is dropped.
pub struct Folder {
    path: PathBuf,
    folder: OwnedFd,
    _turn: File,
}

impl Folder {
    /// Makes it, if it is not there.
    pub fn open_or_create(path: &Path) -> Result<Self, Error> {
        // Those above may be anybody's to read. What is there already stays as it is.
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            match DirBuilder::new().mode(0o755).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        });
        made.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Self::open(path)
    }

    /// Waits for its turn.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| match errno {
                Errno::NOTDIR | Errno::LOOP if path.is_symlink() => {
                    Error::Unsafe { path: path.to_owned(), problem: Problem::Link }
                }
                Errno::NOTDIR => Error::Unsafe { path: path.to_owned(), problem: Problem::Kind { expected: "folder" } },
                errno => Error::Read { path: path.to_owned(), source: errno.into() },
            })?;
        let folder = File::from(folder);
        let found = folder.metadata().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        is_ours(path, &found, 0o022)?;
        those_above_are_safe(path)?;
        let folder = OwnedFd::from(folder);
        let turn = turn(path, &folder)?;
        Ok(Self { path: path.to_owned(), folder, _turn: turn })
    }

    /// Where key and certificate are.
    pub fn secret_path(&self) -> PathBuf {
        self.path.join(SECRET)
    }

    /// Key and certificate, unless others could have read them. `None`: there are none.
    pub fn read_secret(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.secret_path();
        // Not to wait for whoever writes to a pipe of this name.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.folder, SECRET, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(Error::Unsafe { path, problem: Problem::Link }),
            Err(errno) => return Err(Error::Read { path, source: errno.into() }),
        };
        let mut bytes = Vec::new();
        let found = file.metadata().map_err(|source| Error::Read { path: path.clone(), source })?;
        if !found.is_file() {
            return Err(Error::Unsafe { path, problem: Problem::Kind { expected: "regular file" } });
        }
        is_ours(&path, &found, 0o077)?;
        file.take(LONGEST).read_to_end(&mut bytes).map_err(|source| Error::Read { path, source })?;
        Ok(Some(bytes))
    }

    /// Puts key and certificate in the place of those that are there.
    pub fn write_secret(&self, pem: &[u8]) -> Result<(), Error> {
        self.replace(SECRET, pem, Mode::from_raw_mode(0o600))
    }

    /// Sees that the certificate is there for everybody.
    pub fn write_certificate(&self, certificate: &Certificate) -> Result<(), Error> {
        if Certificate::read(&self.path).is_ok_and(|there| there == *certificate) {
            return Ok(());
        }
        self.replace(CERTIFICATE, certificate.pem().as_bytes(), PUBLIC)
    }

    /// Keeps a certificate that is about to be replaced, so that it can be taken out where it is trusted.
    pub fn retire(&self, certificate: &Certificate) -> Result<(), Error> {
        self.replace(&format!("{RETIRED}{}.crt", certificate.short()), certificate.pem().as_bytes(), PUBLIC)
    }

    /// Writes what is for everybody.
    pub fn write_public(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.replace(name, bytes, PUBLIC)
    }

    /// Another file of this name is there whole until this one is.
    fn replace(&self, name: &str, bytes: &[u8], mode: Mode) -> Result<(), Error> {
        let new = format!("{name}{NEW}");
        let written = || -> io::Result<()> {
            // Left by a process that was killed: this one has its turn, so nobody is writing it.
            match unlinkat(&self.folder, &new, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&self.folder, &new, flags, mode)?);
            // The mask of the process may have taken away more than is right.
            fchmod(&file, mode)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            renameat(&self.folder, &new, &self.folder, name)?;
            Ok(fsync(&self.folder)?)
        };
        written().map_err(|source| Error::Write { path: self.path.join(name), source })
    }
}

/// Removes what this module may have made, and says what was there.
pub fn remove(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_symlink() && !path.exists() {
        return Ok(Vec::new());
    }
    let opened = Folder::open(path)?;
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    // The key first: whatever happens then, nobody can sign any more.
    names.retain(|name| is_known(name));
    names.sort_by_key(|name| (name != SECRET, name == LOCK, name.clone()));
    let mut removed = Vec::new();
    for name in names {
        let path = path.join(&name);
        match unlinkat(&opened.folder, &name, AtFlags::empty()) {
            Ok(()) if name == LOCK => {}
            Ok(()) => removed.push(path),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::Write { path, source: errno.into() }),
        }
    }
    // What is not ours stays, and the folder with it.
    if fs::remove_dir(path).is_ok() {
        removed.push(path.to_owned());
    }
    Ok(removed)
}

fn is_known(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let name = name.strip_suffix(NEW).unwrap_or(name);
    [SECRET, CERTIFICATE, BUNDLE, LOCK].contains(&name) || name.starts_with(RETIRED) && name.ends_with(".crt")
}

/// Waits until no other process has it. Only the owner can open it, so others cannot hold it for ever.
fn turn(path: &Path, folder: &OwnedFd) -> Result<File, Error> {
    let path = path.join(LOCK);
    let failed = |errno: Errno| Error::Write { path: path.clone(), source: errno.into() };
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = match openat(folder, LOCK, flags, Mode::from_raw_mode(0o600)) {
            Ok(lock) => File::from(lock),
            Err(Errno::LOOP) => return Err(Error::Unsafe { path, problem: Problem::Link }),
            Err(errno) => return Err(failed(errno)),
        };
        flock(&lock, FlockOperation::LockExclusive).map_err(failed)?;
        let held = lock.metadata().map_err(|source| Error::Read { path: path.clone(), source })?;
        is_ours(&path, &held, 0o077)?;
        // Whoever had it before may have removed the authority, and this file too. Then others hold another one.
        match statat(folder, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if there.st_ino == held.ino() => return Ok(lock),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

/// Whether it belongs to this user, and gives others none of these rights. Access control lists show in the group's.
fn is_ours(path: &Path, found: &fs::Metadata, rights_of_others: u32) -> Result<(), Error> {
    let mode = found.mode() & 0o7777;
    let problem = if found.uid() != geteuid().as_raw() {
        Problem::Owner { uid: found.uid() }
    } else if mode & rights_of_others & 0o022 != 0 {
        Problem::Writable { mode }
    } else if mode & rights_of_others != 0 {
        Problem::Readable { mode }
    } else {
        return Ok(());
    };
    Err(Error::Unsafe { path: path.to_owned(), problem })
}

/// Whoever can write to a folder above can put another folder in the place of this one.
fn those_above_are_safe(path: &Path) -> Result<(), Error> {
    let real = path.canonicalize().map_err(|source| Error::Read { path: path.to_owned(), source })?;
    for above in real.ancestors().skip(1) {
        let found = above.metadata().map_err(|source| Error::Read { path: above.to_owned(), source })?;
        let mode = found.mode() & 0o7777;
        let problem = if ![0, geteuid().as_raw()].contains(&found.uid()) {
            Problem::Owner { uid: found.uid() }
        } else if mode & 0o022 != 0 && mode & STICKY == 0 {
            Problem::Writable { mode }
        } else {
            continue;
        };
        return Err(Error::Unsafe { path: above.to_owned(), problem });
    }
    Ok(())
}

/// Certificates that were replaced.
pub fn retired(path: &Path) -> Vec<Certificate> {
    let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = names.filter(|path| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(RETIRED) && name.ends_with(".crt"))
    });
    ours.filter_map(|path| Certificate::from_pem(&fs::read(path).ok()?)).collect()
}

/// Key and certificate.
const SECRET: &str = "authority.pem";
/// The certificate alone.
pub const CERTIFICATE: &str = "ca.crt";
/// What the system trusts, and the certificate.
pub const BUNDLE: &str = "bundle.crt";
const RETIRED: &str = "retired-";
const LOCK: &str = "lock";
/// Behind the name of what is being written.
const NEW: &str = ".new";
const PUBLIC: Mode = Mode::from_raw_mode(0o644);
/// In such a folder everybody may write, and replace what is their own only.
const STICKY: u32 = 0o1000;
