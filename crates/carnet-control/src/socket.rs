//! The socket's file: made as one, replaced where it is stale, removed at the end.

mod folder;

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};
use tokio::net::UnixListener;

/// A Unix socket that listens at a path of its own.
#[derive(Debug)]
pub struct ControlSocket {
    pub(crate) listener: UnixListener,
    place: Option<Place>,
}

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Its folder is not there, or cannot be looked at.
    #[error("{} is needed for the control socket: make it, owned by root and with mode 0755", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else could put a socket of his own in its place.
    #[error(
        "others could replace the control socket by way of {} (owner {owner}, mode {mode:04o}): it has to belong to root \
         or to the daemon's user, and only the owner may write to it (chmod go-w)",
        folder.display()
    )]
    Exposed {
        /// The folder, or one above it, or a link on the way.
        folder: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// A daemon listens there.
    #[error(
        "a daemon serves {} already: end it first, or give another path for the socket",
        path.display()
    )]
    Served {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is there and is no socket: remove it, or give another path", path.display())]
    Occupied {
        /// What is there.
        path: PathBuf,
    },
    /// A call failed.
    #[error("cannot listen on {}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Where the socket's file is. Dropped, the file is removed.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Device and inode of the file we made.
    identity: (u64, u64),
    /// Held locked for as long as the socket is there: two daemons that begin at the same moment do not replace each
    /// other's. The file stays.
    _lock: File,
}

impl ControlSocket {
    /// Listens at `path`. Everybody may connect: what they may do is decided by who they are.
    ///
    /// # Errors
    ///
    /// All of [`BindError`]. The socket of a daemon that has died is replaced and is no error.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, BindError> {
        let path = path.into();
        folder::check(&path)?;
        let lock = lock(&path)?;
        check_place(&path)?;
        let failed = |source| BindError::Failed { path: path.clone(), source };
        let (listener, identity) = make(&path).map_err(failed)?;
        let place = Place { path: path.clone(), identity, _lock: lock };
        Ok(Self { place: Some(place), ..Self::from_listener(listener).map_err(failed)? })
    }

    /// Takes a socket that somebody else has made, as socket activation does. Its file is left alone.
    ///
    /// # Errors
    ///
    /// Those of `fcntl`; none is usual.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn from_listener(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, place: None })
    }

    /// The path it was bound to.
    pub fn path(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.path.as_path())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours = self.path.symlink_metadata().is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path) -> Result<File, BindError> {
    let failed = |source| BindError::Failed { path: path.into(), source };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(beside(path, "lock"));
    let file = file.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(BindError::Served { path: path.into() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Nothing may be there but a socket that nobody listens on.
fn check_place(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Failed { path: path.into(), source };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::Occupied { path: path.into() }),
        Ok(_) => {}
    }
    // Without waiting: a daemon that is stopped has a full queue at some time.
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
    let connected = socket.and_then(|socket| SocketAddrUnix::new(path).and_then(|address| connect(&socket, &address)));
    match connected {
        Err(Errno::CONNREFUSED) => Ok(()),
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::Served { path: path.into() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Under another name first: nobody sees a socket that does not listen yet, or has another mode.
fn make(path: &Path) -> io::Result<(StdListener, (u64, u64))> {
    let new = beside(path, "new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(&new)?;
    let named = std::fs::set_permissions(&new, Permissions::from_mode(0o666))
        .and_then(|()| new.symlink_metadata())
        .and_then(|made| std::fs::rename(&new, path).map(|()| (made.dev(), made.ino())));
    match named {
        Ok(identity) => Ok((listener, identity)),
        Err(error) => {
            let _ = std::fs::remove_file(&new);
            Err(error)
        }
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}
