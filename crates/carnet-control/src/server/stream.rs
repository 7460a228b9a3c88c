//! Lines as they come: bounded, and told what was left out.

use std::{future::Future, sync::Arc, time::Duration};

use hyper::body::Bytes;
use serde::Serialize;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    time::timeout,
};

use crate::{Access, Caller, Role, types::Line, wire::Channel};

/// What ends a stream that would have more to tell.
pub(super) struct Ends {
    pub(super) channel: Arc<Channel>,
    pub(super) access: watch::Receiver<Access>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) caller: Caller,
    /// What it needs.
    pub(super) role: Role,
}

/// Why a stream is over; `None`: there is nobody to be told.
pub(super) type Reason = Option<&'static str>;

impl Ends {
    async fn wait(mut self) -> Reason {
        let Self { caller, role, .. } = self;
        tokio::select! {
            reason = self.channel.hung_up() => reason,
            _ = self.closing.wait_for(|closing| *closing) => Some("the daemon is ending"),
            _ = self.access.wait_for(|access| caller.by(access).role < Some(role)) => {
                Some("the caller's role was taken away")
            }
        }
    }
}

/// Sends what `telling` tells until that or something else is over, and then says why.
pub(super) async fn until<L: Line>(out: &mpsc::Sender<Bytes>, ends: Ends, telling: impl Future<Output = Reason>) {
    let reason = tokio::select! {
        biased;
        reason = ends.wait() => reason,
        () = out.closed() => None,
        reason = telling => reason,
    };
    if let Some(reason) = reason {
        let _ = timeout(LAST_WORDS, out.send(line(&L::closing(reason)))).await;
    }
}

/// Tells `lines`, which there are already.
pub(super) async fn tell<T: Serialize>(out: &mpsc::Sender<Bytes>, lines: impl IntoIterator<Item = T>) -> Option<()> {
    for item in lines {
        out.send(line(&item)).await.ok()?;
    }
    Some(())
}

/// Tells what comes `from` somewhere, each as `as_line` has it.
pub(super) async fn follow<T: Clone, L: Line>(
    out: &mpsc::Sender<Bytes>,
    mut from: broadcast::Receiver<Arc<T>>,
    as_line: impl Fn(&T) -> Bytes,
) -> Reason {
    loop {
        let next = match from.recv().await {
            Ok(item) => as_line(&item),
            Err(RecvError::Lagged(lost)) => line(&L::lost(lost)),
            Err(RecvError::Closed) => return Some("there is nothing more to tell"),
        };
        out.send(next).await.ok()?;
    }
}

pub(super) fn line(item: &impl Serialize) -> Bytes {
    // Only maps with keys that are not strings fail, and there are none.
    let mut text = serde_json::to_vec(item).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// Lines between a stream and its connection.
pub(super) const AHEAD: usize = 16;

/// For the last line, where the reader is slow.
const LAST_WORDS: Duration = Duration::from_secs(1);
