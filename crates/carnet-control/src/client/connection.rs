use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use tokio::{
    net::UnixStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::ClientError;
use crate::{
    Problem,
    wire::{Channel, Takes, Wire},
};

/// A connection to the daemon. Dropped, the daemon sees its end at once.
#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
    channel: Arc<Channel>,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// One request.
#[derive(Debug)]
pub(super) struct Question<'a> {
    method: Method,
    path: String,
    body: Option<(&'static str, Bytes)>,
    expected: Option<u64>,
    descriptors: &'a [BorrowedFd<'a>],
}

impl<'a> Question<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, expected: None, descriptors: &[] }
    }

    pub(super) fn with_body(self, media_type: &'static str, body: Bytes) -> Self {
        Self { body: Some((media_type, body)), ..self }
    }

    /// Only where the policy in force has this generation.
    pub(super) fn expecting(self, expected: Option<u64>) -> Self {
        Self { expected, ..self }
    }

    /// They go with the request's first bytes.
    pub(super) fn with_descriptors(self, descriptors: &'a [BorrowedFd<'a>]) -> Self {
        Self { descriptors, ..self }
    }
}

impl Connection {
    pub(super) async fn open(path: &Path) -> Result<Self, ClientError> {
        let stream = connect(path).await?;
        let channel = Channel::new(stream, Takes::Descriptors, None);
        let broken = |source: hyper::Error| ClientError::Broken { path: path.into(), source: source.into() };
        let (sender, connection) = http1::handshake::<Wire, _>(channel.wire(STALL)).await.map_err(broken)?;
        // What goes wrong there is told to whoever waits for an answer.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { path: path.into(), channel, sender, driver })
    }

    /// The body of the answer, where that is no refusal.
    pub(super) async fn ask(&mut self, question: Question<'_>, patience: Duration) -> Result<Incoming, ClientError> {
        let broken = |source| ClientError::Broken { path: self.path.clone(), source };
        let descriptors: io::Result<Vec<OwnedFd>> =
            question.descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect();
        self.channel.send_along(descriptors.map_err(|error| broken(error.into()))?);

        let mut request = Request::builder().method(question.method).uri(question.path).header(header::HOST, "carnet");
        let mut body = Bytes::new();
        if let Some((media_type, bytes)) = question.body {
            request = request.header(header::CONTENT_TYPE, media_type);
            body = bytes;
        }
        if let Some(generation) = question.expected {
            request = request.header(header::IF_MATCH, format!("\"{generation}\""));
        }
        let request = request.body(Full::new(body)).map_err(|error| broken(error.into()))?;
        let Ok(answer) = timeout(patience, self.sender.send_request(request)).await else {
            return Err(ClientError::Silent { path: self.path.clone(), waited: patience });
        };
        let answer: Response<Incoming> = answer.map_err(|error| broken(error.into()))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let refusal = self.read_all(answer.into_body()).await?;
        let problem: Problem = serde_json::from_slice(&refusal)
            .map_err(|source| ClientError::Strange { path: self.path.clone(), source: Some(source) })?;
        Err(ClientError::Refused(problem.into()))
    }

    pub(super) async fn read_all(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let collected = body.collect().await.map_err(|error| self.broken(error))?;
        Ok(collected.to_bytes())
    }

    pub(super) fn take_received(&self) -> Vec<OwnedFd> {
        self.channel.take_received()
    }

    pub(super) fn broken(&self, error: hyper::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), source: error.into() }
    }

    pub(super) fn strange(&self, source: Option<serde_json::Error>) -> ClientError {
        ClientError::Strange { path: self.path.clone(), source }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.channel.hang_up();
        self.driver.abort();
    }
}

async fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    let path = path.to_path_buf();
    let deadline = Instant::now() + BUSY;
    loop {
        let source = match UnixStream::connect(&path).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match source.kind() {
            // The queue of the daemon's socket is full; nothing tells when it is not.
            io::ErrorKind::WouldBlock if Instant::now() < deadline => sleep(BUSY_PAUSE).await,
            io::ErrorKind::WouldBlock => return Err(ClientError::Busy { path }),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                return Err(ClientError::NoDaemon { path, source });
            }
            io::ErrorKind::PermissionDenied => return Err(ClientError::Denied { path, source }),
            _ => return Err(ClientError::Broken { path, source: source.into() }),
        }
    }
}

const BUSY: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// How long the daemon may read nothing of a request.
const STALL: Duration = Duration::from_secs(60);
