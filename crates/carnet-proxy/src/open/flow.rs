//! One flow that is opened, from its server's handshake on.

use std::{
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::client::TlsStream;

use super::{
    Dialled, Event, Inside, OpenReport, Opener, Why,
    http::{self, serve_page},
    inside::First,
    pins::Pin,
    prefixed::{Client, Prefixed},
    tapped::Tapped,
    tls::{Accepted, is_distrust},
    tunnel::tunnel,
};
use crate::{
    Report, Reporter,
    rules::{Protocol, Refusal, Unread},
    tap::TapFlow,
};

/// A flow, as far as opening it needs to know.
pub(crate) struct Subject {
    pub(crate) opener: Arc<Opener>,
    pub(crate) flow_id: u128,
    pub(crate) destination: SocketAddr,
    /// What the client speaks; `None`: nothing that is known.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) name: Option<String>,
    pub(crate) alpn: Vec<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) pid: Option<u32>,
    pub(crate) comm: Option<String>,
    pub(crate) exe: Option<PathBuf>,
    /// Services that have had the flow, in order.
    pub(crate) chain: Vec<String>,
    pub(crate) unread: Unread,
    pub(crate) judge: Judge,
}

/// What the rules say of a request for another host than the flow's: `Some` where they block it.
pub(crate) type Judge = Box<dyn Fn(&str) -> Option<Refusal> + Send + Sync>;

/// A flow whose server has been asked.
pub(crate) struct OpenFlow {
    pub(crate) subject: Arc<Subject>,
    pub(crate) begun: Begun,
    /// What records what is inside.
    pub(crate) tap: Option<Box<TapFlow>>,
}

/// How far it has come.
pub(crate) enum Begun {
    /// The server's handshake has ended.
    Tls(Box<TlsStream<TcpStream>>),
    /// HTTP in clear text.
    Clear(TcpStream),
    /// There is no TLS with the server: the client is to be told.
    Untrusted(String),
}

/// Where a flow's events go to.
#[derive(Clone)]
pub(super) struct Teller {
    flow_id: u128,
    destination: SocketAddr,
    name: Option<String>,
    reports: mpsc::Sender<OpenReport>,
}

impl Subject {
    /// Why it is not to be opened, as far as that is known before.
    pub(crate) fn why_not(&self) -> Option<Why> {
        match self.protocol {
            Some(Protocol::Tls) => match self.opener.pins.why(&self.pin()) {
                // It may have changed its mind by now, and nothing is lost by trying.
                Some(Why::Pinned | Why::Incompatible) if self.unread == Unread::Block => None,
                why => why,
            },
            Some(Protocol::Http1 | Protocol::Http2) => None,
            _ => Some(Why::Unknown),
        }
    }

    /// A handshake with its server.
    pub(crate) async fn dial(&self, server: TcpStream) -> Dialled {
        let _ = server.set_nodelay(true);
        let dialled = self.opener.tls.dial(server, self.name.as_deref(), &self.alpn, self.destination.ip()).await;
        if matches!(dialled, Dialled::AsksForCertificate) {
            self.opener.pins.remember(self.pin(), Why::ClientCertificate);
        }
        dialled
    }

    /// What is to be said of it.
    pub(crate) fn report(&self, event: Event) -> Report {
        let Self { flow_id, destination, ref name, .. } = *self;
        Report::Open(Box::new(OpenReport { flow_id, destination, name: name.clone(), event }))
    }

    fn pin(&self) -> Pin {
        let name = self.name.clone().unwrap_or_else(|| self.destination.to_string());
        Pin { name, uid: self.uid, exe: self.exe.clone() }
    }

    /// The client has not accepted the certificate.
    fn pinned(&self, teller: &Teller) {
        self.opener.pins.remember(self.pin(), Why::Pinned);
        teller.say(Event::Pinned);
    }

    fn refuses(&self, why: Why, teller: &Teller) -> bool {
        let passed = self.unread == Unread::Pass;
        teller.say(Event::Unread { why, passed });
        !passed
    }
}

impl Teller {
    /// A flow that has more to say than anybody reads says less.
    pub(super) fn say(&self, event: Event) {
        let Self { flow_id, destination, ref name, .. } = *self;
        let _ = self.reports.try_send(OpenReport { flow_id, destination, name: name.clone(), event });
    }
}

impl OpenFlow {
    /// Serves the flow to its end. `early` is what its client has sent already.
    pub(crate) async fn run(self, client: TcpStream, early: Vec<u8>, reporter: &impl Reporter) {
        let (reports, mut said) = mpsc::channel(EVENTS);
        let Subject { flow_id, destination, ref name, .. } = *self.subject;
        let teller = Teller { flow_id, destination, name: name.clone(), reports };
        let work = self.work(client, early, teller);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(report) = said.recv() => reporter.report(Report::Open(Box::new(report))),
                () = &mut work => break,
            }
        }
        while let Ok(report) = said.try_recv() {
            reporter.report(Report::Open(Box::new(report)));
        }
    }

    async fn work(self, client: TcpStream, early: Vec<u8>, teller: Teller) {
        let Self { subject, begun, tap } = self;
        if has_ended(&client) {
            // Before it has seen any certificate: that says nothing about what it thinks of ours.
            return;
        }
        let client = Prefixed::new(early, Client::new(client));
        let (tls, name, to) = (&subject.opener.tls, subject.name.as_deref(), subject.destination.ip());
        match begun {
            Begun::Clear(server) => {
                let inside = if subject.protocol == Some(Protocol::Http2) { Inside::Http2 } else { Inside::Http1 };
                teller.say(Event::Opened { inside });
                let _ = server.set_nodelay(true);
                http::serve(&subject, &teller, inside, false, Tapped::new(client, tap), server).await;
            }
            Begun::Untrusted(error) => {
                let words = format!("no connection to {}: {error}", name.unwrap_or("the server"));
                teller.say(Event::Untrusted { error });
                let alpn = subject.alpn.iter().find(|alpn| inside_of(alpn.as_bytes()) != Some(Inside::Bytes));
                let alpn = alpn.map(String::as_bytes);
                if let Accepted::Trusts(mut client) = tls.accept(client, name, alpn, to).await {
                    let (mut first, (mut silent, _silent)) = (First::default(), tokio::io::duplex(1));
                    if let Ok(inside) = first.wait(alpn.and_then(inside_of), &mut client, &mut silent).await {
                        serve_page(inside, Prefixed::new(first.of_client, *client), words).await;
                    }
                }
            }
            Begun::Tls(server) => {
                let alpn = server.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                match tls.accept(client, name, alpn.as_deref(), to).await {
                    Accepted::Trusts(client) => {
                        let client = Tapped::new(*client, tap);
                        opened(&subject, &teller, alpn.as_deref().and_then(inside_of), client, *server).await;
                    }
                    Accepted::Distrusts => subject.pinned(&teller),
                    Accepted::Incompatible(error) => {
                        subject.opener.pins.remember(subject.pin(), Why::Incompatible);
                        teller.say(Event::Failed { error });
                    }
                    Accepted::Failed(error) => teller.say(Event::Failed { error }),
                }
            }
        }
    }
}

/// Both sides have ended their handshakes.
async fn opened<C, S>(subject: &Arc<Subject>, teller: &Teller, settled: Option<Inside>, mut client: C, mut server: S)
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut first, begun) = (First::default(), Instant::now());
    let inside = match first.wait(settled, &mut client, &mut server).await {
        Ok(inside) => inside,
        Err(error) if is_distrust(&error) && begun.elapsed() < AT_ONCE => return subject.pinned(teller),
        Err(_) => return,
    };
    // Programs that compare keys do so when the handshake has ended, and go away without a word.
    if first.is_over && first.of_client.is_empty() && begun.elapsed() < AT_ONCE {
        return subject.pinned(teller);
    }
    let (client, server) = (Prefixed::new(first.of_client, client), Prefixed::new(first.of_server, server));
    match inside {
        Inside::Http1 | Inside::Http2 => {
            teller.say(Event::Opened { inside });
            http::serve(subject, teller, inside, true, client, server).await;
        }
        Inside::Bytes => {
            if !subject.refuses(Why::NotHttp, teller) {
                teller.say(Event::Opened { inside });
                tunnel(client, server).await;
            }
        }
    }
}

/// Whether a client that waits for an answer has ended its data, or has gone.
fn has_ended(client: &TcpStream) -> bool {
    match SockRef::from(client).peek(&mut [MaybeUninit::uninit()]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// What a protocol of ALPN settles.
fn inside_of(alpn: &[u8]) -> Option<Inside> {
    match alpn {
        b"h2" => Some(Inside::Http2),
        b"http/1.1" => Some(Inside::Http1),
        _ => Some(Inside::Bytes),
    }
}

/// Events of a flow that may wait.
const EVENTS: usize = 64;

/// Who goes away within this time without a word has not liked the certificate.
const AT_ONCE: Duration = Duration::from_secs(2);
