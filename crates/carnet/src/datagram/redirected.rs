use std::io;

use super::control;
use crate::{
    Error, ErrorKind, Flow, Records,
    flow::context,
    sys::Item,
    winsock::{IP_WFP_REDIRECT_CONTEXT as CONTEXT, IP_WFP_REDIRECT_RECORDS as RECORDS},
};

/// What the control data beside a datagram says of its redirect. Nothing, beside all but a flow's first one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Redirected {
    records: Option<Records>,
    context: Option<Box<[u8]>>,
}

impl Redirected {
    /// Reads the control data beside a datagram. Messages of other kinds are passed over, and so are ones without
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`](ErrorKind::Malformed) where records have a length that cannot be.
    pub fn from_control(control: &[u8]) -> Result<Self, Error> {
        let find = |kind| {
            control::messages(control)
                .filter(|message| LEVELS.contains(&message.level) && message.kind == kind)
                .map(|message| message.data)
                .find(|data| !data.is_empty())
        };
        Ok(Self { records: find(RECORDS).map(Records::from_bytes).transpose()?, context: find(CONTEXT).map(Box::from) })
    }

    /// The flow's record, to be sent with the first datagram that goes on. `None`: this datagram begins no redirected
    /// flow.
    pub fn records(&self) -> Option<&Records> {
        self.records.as_ref()
    }

    /// The filter's own bytes, as [`Redirect::context`](crate::Redirect::context) of a connection.
    ///
    /// # Errors
    ///
    /// [`Malformed`](ErrorKind::Malformed) where the context begins as one of Carnet's form and is none.
    pub fn context(&self) -> Result<Option<&[u8]>, Error> {
        let Some(context) = &self.context else { return Ok(None) };
        match context::split(context) {
            Ok((Some(_), [])) => Ok(None),
            Ok((_, own)) => Ok(Some(own)),
            Err(what) => Err(Error::malformed(Item::Context, what)),
        }
    }

    /// Where the datagram was going, who sent it, and which services have had its flow.
    ///
    /// # Errors
    ///
    /// [`NotRedirected`](ErrorKind::NotRedirected) beside a datagram that begins no redirected flow,
    /// [`NoFlow`](ErrorKind::NoFlow) where the context is another callout's or missing,
    /// [`Malformed`](ErrorKind::Malformed).
    pub fn flow(&self) -> Result<Flow, Error> {
        let missing = |kind, what| Err(Error::named(kind, "read the control data", io::Error::other(what)));
        match &self.context {
            Some(context) => match Flow::from_context(context)? {
                (Some(flow), _) => Ok(flow),
                (None, _) => missing(ErrorKind::NoFlow, "the redirect context does not begin with CARNETF1"),
            },
            None if self.records.is_some() => missing(ErrorKind::NoFlow, "there are records, and no context"),
            None => missing(ErrorKind::NotRedirected, "there are neither records nor context"),
        }
    }
}

/// IPv4 and IPv6.
const LEVELS: [i32; 2] = [0, 41];
