use std::{
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{ClientError, connection::Connection};

/// An answer that comes line by line. Dropped, the daemon tells no more.
#[derive(Debug)]
pub struct Lines<T> {
    connection: Connection,
    body: Incoming,
    /// What came after the last whole line that was returned.
    buffer: Vec<u8>,
    /// In this much of it there is no end of a line.
    searched: usize,
    line: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(connection: Connection, body: Incoming) -> Self {
        Self { connection, body, buffer: Vec::new(), searched: 0, line: PhantomData }
    }

    /// The next line; `None`: that was all. May be cancelled: nothing is lost.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`] where the daemon is gone, [`ClientError::Strange`].
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                let parsed = serde_json::from_slice(&line).map_err(|error| self.connection.strange(Some(error)))?;
                return Ok(Some(parsed));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST {
                return Err(self.connection.strange(None));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(self.connection.broken(error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.connection.strange(None)),
            }
        }
    }
}

impl<T> AsFd for Lines<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Bytes of a line; the daemon's are much shorter.
const LONGEST: usize = 16 << 20;
