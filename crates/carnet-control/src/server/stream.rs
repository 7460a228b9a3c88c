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

/// Why a stream is over.
#[derive(Clone, Debug)]
pub(super) enum Over {
    /// There is nobody to be told.
    Gone,
    /// The caller has said something where it has nothing to say.
    SpokenTo(&'static str),
    RoleTaken,
    Closing,
    /// There is nothing more to tell, or the backend says why.
    Told(Arc<str>),
}

impl Ends {
    async fn wait(mut self) -> Over {
        let Self { caller, role, .. } = self;
        tokio::select! {
            said = self.channel.hung_up() => said.map_or(Over::Gone, Over::SpokenTo),
            _ = self.closing.wait_for(|closing| *closing) => Over::Closing,
            _ = self.access.wait_for(|access| caller.role_by(access) < Some(role)) => Over::RoleTaken,
        }
    }
}

impl Over {
    pub(super) fn nothing_more() -> Self {
        Self::Told("there is nothing more to tell".into())
    }

    /// Says why, where there is somebody to be told.
    pub(super) async fn say<L: Line>(&self, out: &mpsc::Sender<Bytes>) {
        let reason = match self {
            Self::Gone => return,
            Self::SpokenTo(reason) => reason,
            Self::RoleTaken => "the caller's role was taken away",
            Self::Closing => "the daemon is ending",
            Self::Told(reason) => reason,
        };
        let _ = timeout(LAST_WORDS, out.send(line(&L::closing(reason)))).await;
    }
}

/// Sends what `telling` tells until that or something else is over.
pub(super) async fn until(out: &mpsc::Sender<Bytes>, ends: Ends, telling: impl Future<Output = Over>) -> Over {
    tokio::select! {
        biased;
        over = ends.wait() => over,
        () = out.closed() => Over::Gone,
        over = telling => over,
    }
}

/// Tells `lines`, which there are already.
pub(super) async fn tell<T: Serialize>(
    out: &mpsc::Sender<Bytes>,
    lines: impl IntoIterator<Item = T>,
) -> Result<(), Over> {
    for item in lines {
        out.send(line(&item)).await.map_err(|_| Over::Gone)?;
    }
    Ok(())
}

/// Tells what comes `from` somewhere, each as `as_line` has it.
pub(super) async fn follow<T, L: Line>(
    out: &mpsc::Sender<Bytes>,
    mut from: broadcast::Receiver<Arc<T>>,
    as_line: impl Fn(&T) -> Bytes,
) -> Over {
    loop {
        let next = match from.recv().await {
            Ok(item) => as_line(&item),
            Err(RecvError::Lagged(lost)) => line(&L::lost(lost)),
            Err(RecvError::Closed) => return Over::nothing_more(),
        };
        if out.send(next).await.is_err() {
            return Over::Gone;
        }
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
