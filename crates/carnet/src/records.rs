use std::fmt;

use crate::{
    Error, RECORDS_MAX,
    sys::{self, AsSocket, Item},
};

/// A flow's record as the kernel gave it: opaque bytes, authenticated, at most [`RECORDS_MAX`] of them.
///
/// Read it just before it is set: the engine accepts it for a limited time after it was read (60 s by default), from
/// the service to which the newest redirect went, on any number of sockets. [`Redirect::flow`](crate::Redirect::flow)
/// gives what can be read from it.
#[derive(Clone, Eq, PartialEq)]
pub struct Records {
    bytes: Box<[u8]>,
}

impl Records {
    /// Records which this or another process of the same service has read.
    ///
    /// Looks at the length alone (and its copy in the header): the contents are the kernel's business, which checks
    /// them when they are set.
    ///
    /// # Errors
    ///
    /// [`Malformed`](crate::ErrorKind::Malformed) where no kernel can have given bytes of this length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::malformed(Item::Records, "0 bytes".into()));
        }
        if bytes.len() > RECORDS_MAX {
            let what = format!("{} bytes, the most is {RECORDS_MAX}", bytes.len());
            return Err(Error::malformed(Item::Records, what));
        }
        if sys::RECORDS_HAVE_A_HEADER {
            check_header(bytes).map_err(|what| Error::malformed(Item::Records, what))?;
        }
        Ok(Self { bytes: bytes.into() })
    }

    /// The bytes, to be handed to another process of the service or set by other means.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts the record on an outgoing socket, which must not have connected yet. A second call replaces the first.
    ///
    /// # Errors
    ///
    /// [`AlreadyConnected`](crate::ErrorKind::AlreadyConnected), [`Forged`](crate::ErrorKind::Forged),
    /// [`Stale`](crate::ErrorKind::Stale), [`NotOwner`](crate::ErrorKind::NotOwner),
    /// [`Malformed`](crate::ErrorKind::Malformed) (also on a listener),
    /// [`NotTcp`](crate::ErrorKind::NotTcp), [`NoEngine`](crate::ErrorKind::NoEngine). Where it fails do not connect: a
    /// connection without its record looks like a new one of the service's own.
    #[doc(alias = "SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS")]
    pub fn apply_to(&self, socket: &impl AsSocket) -> Result<(), Error> {
        let socket = sys::borrow(socket);
        sys::apply(socket, &self.bytes).map_err(|source| Error::apply(socket, source))
    }
}

/// Version and size, both u16, begin every version.
fn check_header(bytes: &[u8]) -> Result<(), String> {
    let &[_, _, low, high, ..] = bytes else {
        return Err(format!("{} bytes, shorter than the header", bytes.len()));
    };
    match u16::from_ne_bytes([low, high]) {
        size if usize::from(size) == bytes.len() => Ok(()),
        size => Err(format!("{} bytes, but the header says {size}", bytes.len())),
    }
}

impl fmt::Debug for Records {
    /// The length alone: the bytes say nothing to a reader, and a log is no place for them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({} bytes)", self.bytes.len())
    }
}
