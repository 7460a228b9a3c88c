//! A session: a registration that is in force for as long as it is told of.

use std::sync::Arc;

use hyper::body::Bytes;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};

use super::{
    Shared,
    stream::{self, Ends, Over},
};
use crate::{Backend, Begun, FlowLine, SessionEnd, SessionId, SessionLine, SessionNews, types::Line};

/// Ends a session when it is dropped, by whatever way that comes about.
pub(super) struct Lifetime<B: Backend> {
    session: SessionId,
    shared: Arc<Shared<B>>,
    end: Option<SessionEnd>,
}

impl<B: Backend> Lifetime<B> {
    pub(super) fn of(begun: &Begun, shared: Arc<Shared<B>>) -> Self {
        Self { session: begun.registered.session, shared, end: None }
    }
}

impl<B: Backend> Drop for Lifetime<B> {
    fn drop(&mut self) {
        // The server's end takes the connections along, which is not the callers' doing.
        let end = match self.end {
            None | Some(SessionEnd::ClientGone) if *self.shared.closing.borrow() => SessionEnd::DaemonEnding,
            None => SessionEnd::ClientGone,
            Some(end) => end,
        };
        self.shared.backend.end_session(self.session, end);
    }
}

/// Tells what concerns a session until it is over.
pub(super) async fn run<B: Backend>(mut lifetime: Lifetime<B>, begun: Begun, out: mpsc::Sender<Bytes>, ends: Ends) {
    let over = stream::until(&out, ends, tell(&out, begun)).await;
    lifetime.end = Some(match over {
        Over::Gone | Over::SpokenTo(_) => SessionEnd::ClientGone,
        Over::RoleTaken => SessionEnd::RoleTaken,
        Over::Closing => SessionEnd::DaemonEnding,
        Over::Told(_) => SessionEnd::Backend,
    });
    // Before anybody is told why, for that may take a while.
    drop(lifetime);
    over.say::<SessionLine>(&out).await;
}

async fn tell(out: &mpsc::Sender<Bytes>, Begun { registered, mut news, mut flows }: Begun) -> Over {
    let mut line = SessionLine::Registered { registered };
    loop {
        if let Err(over) = stream::tell(out, [line]).await {
            return over;
        }
        line = tokio::select! {
            biased;
            next = news.recv() => match next {
                Ok(SessionNews::Event(event)) => SessionLine::Event((*event).clone()),
                Ok(SessionNews::End(reason)) => return Over::Told(reason),
                Err(RecvError::Lagged(lost)) => SessionLine::lost(lost),
                Err(RecvError::Closed) => return Over::nothing_more(),
            },
            next = next_flow(&mut flows) => next,
        };
    }
}

/// Never ready where there are none, or no more of them.
async fn next_flow(flows: &mut Option<broadcast::Receiver<Arc<FlowLine>>>) -> SessionLine {
    if let Some(receiver) = flows {
        match receiver.recv().await {
            Ok(line) => return (*line).clone().into(),
            Err(RecvError::Lagged(lost)) => return SessionLine::lost(lost),
            Err(RecvError::Closed) => *flows = None,
        }
    }
    std::future::pending().await
}
