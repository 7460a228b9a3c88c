//! The redirect context of Carnet's form, in which a flow travels where the system has no place of its own for it.

use super::Flow;
use crate::{Error, sys::Item};

impl Flow {
    /// What begins a redirect context of Carnet's form.
    pub const CONTEXT_MAGIC: [u8; 8] = *b"CARNETF1";

    /// Splits a redirect context into the flow that it begins with and the filter's own bytes.
    ///
    /// On Windows a context is all that a callout can tell a service. In Carnet's form it is [`Flow::CONTEXT_MAGIC`],
    /// then `struct carnet_flow` of `carnet_abi.h`, whose own field `size` says where it ends, then the filter's bytes,
    /// which may be none. A context that does not begin with the magic is another callout's: there is no flow, and all
    /// of its bytes are the filter's.
    ///
    /// ```
    /// let (flow, context) = carnet::Flow::from_context(b"somebody else's bytes")?;
    /// assert_eq!((flow, context), (None, &b"somebody else's bytes"[..]));
    /// # Ok::<(), carnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Malformed`](crate::ErrorKind::Malformed) where the magic is there, and no flow behind it.
    pub fn from_context(context: &[u8]) -> Result<(Option<Self>, &[u8]), Error> {
        let (flow, own) = split(context).map_err(|what| Error::malformed(Item::Flow, what))?;
        Ok((flow.map(Self::from_bytes).transpose()?, own))
    }
}

/// The flow's bytes, if the magic is there, and the filter's. Of the flow nothing but its size is looked at.
pub(crate) fn split(context: &[u8]) -> Result<(Option<&[u8]>, &[u8]), String> {
    let Some(bytes) = context.strip_prefix(&Flow::CONTEXT_MAGIC) else {
        return Ok((None, context));
    };
    // Version and size, both u16, begin every version.
    let &[_, _, low, high, ..] = bytes else {
        return Err(format!("{} bytes after the magic, shorter than a flow's header", bytes.len()));
    };
    let size = usize::from(u16::from_ne_bytes([low, high]));
    match bytes.split_at_checked(size) {
        Some((flow, own)) => Ok((Some(flow), own)),
        None => Err(format!("a flow of {size} bytes, and there are {} after the magic", bytes.len())),
    }
}
