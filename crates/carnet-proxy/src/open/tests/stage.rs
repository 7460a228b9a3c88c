use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::super::{Begun, Dialled, Event, OpenFlow, Opener, Subject, Why};
use crate::{
    Report,
    ca::Authority,
    channel,
    har::Har,
    rules::{Protocol, Refusal, Unread},
    scan::Scan,
};

pub const NAME: &str = "site.example";

pub type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// What opens flows, and an authority that vouches for servers.
pub struct Stage {
    pub opener: Arc<Opener>,
    pub root: Root,
    pub authority: Arc<Authority>,
    pub name: Option<&'static str>,
    pub unread: Unread,
    pub blocked_host: Option<&'static str>,
    pub _folder: TempDir,
}

/// Vouches for the tests' servers.
pub struct Root {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
}

/// A flow that was begun, with its client's end.
pub struct Opened {
    pub client: TcpStream,
    pub reports: mpsc::Receiver<Report>,
    pub over: JoinHandle<()>,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(None, None)
    }

    pub fn with(scan: Option<Arc<dyn Scan>>, har: Option<Har>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open_or_create(&folder.path().join("ca")).unwrap());
        let root = Root::new("a root");
        let mut opener = Opener::new(Arc::clone(&authority), store(&root.certificate)).unwrap();
        if let Some(scan) = scan {
            opener = opener.scanning(scan);
        }
        if let Some(har) = har {
            opener = opener.recording(har);
        }
        let opener = Arc::new(opener);
        Self { opener, root, authority, name: Some(NAME), unread: Unread::Pass, blocked_host: None, _folder: folder }
    }

    /// A flow, as rules see it.
    pub fn subject(&self, destination: SocketAddr, alpn: &[&str], protocol: Option<Protocol>) -> Arc<Subject> {
        let blocked = self.blocked_host;
        Arc::new(Subject {
            opener: Arc::clone(&self.opener),
            flow_id: 7,
            destination,
            protocol,
            name: self.name.map(str::to_owned),
            alpn: alpn.iter().map(ToString::to_string).collect(),
            uid: Some(1000),
            pid: Some(4711),
            comm: Some("client".into()),
            exe: Some("/usr/bin/client".into()),
            chain: vec!["#1".into()],
            unread: self.unread,
            judge: Box::new(move |host| (Some(host) == blocked).then(Refusal::default)),
        })
    }

    /// Opens a flow to this server, for a client that offers these protocols; `Err`: it is known before that it cannot be.
    pub async fn open(&self, server: SocketAddr, alpn: &[&str]) -> Result<Opened, Why> {
        let subject = self.subject(server, alpn, Some(Protocol::Tls));
        if let Some(why) = subject.why_not() {
            return Err(why);
        }
        let begun = match subject.dial(TcpStream::connect(server).await.unwrap()).await {
            Dialled::Verified(stream) => Begun::Tls(stream),
            Dialled::Untrusted(error) => Begun::Untrusted(error.to_string()),
            Dialled::AsksForCertificate => return Err(Why::ClientCertificate),
        };
        Ok(Opened::begin(OpenFlow { subject, begun, tap: None }).await)
    }

    /// A client's handshake, which trusts the authority.
    pub async fn handshake(&self, client: TcpStream, alpn: &[&str]) -> std::io::Result<client::TlsStream<TcpStream>> {
        handshake(client, self.authority.certificate().der(), alpn).await
    }

    /// Both at once.
    pub async fn client(
        &self,
        server: SocketAddr,
        alpn: &[&str],
    ) -> (client::TlsStream<TcpStream>, mpsc::Receiver<Report>) {
        let opened = self.open(server, alpn).await.unwrap();
        (self.handshake(opened.client, alpn).await.unwrap(), opened.reports)
    }
}

impl Opened {
    pub async fn begin(flow: OpenFlow) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (reporter, reports) = channel(100);
        let over = tokio::spawn(async move { flow.run(accepted, Vec::new(), &reporter).await });
        Self { client, reports, over }
    }
}

impl Root {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// A server's side, for a name.
    pub fn server(&self, name: &str, alpn: &[&str]) -> ServerConfig {
        self.config(name, alpn, false)
    }

    /// The same, which asks for a certificate of the client.
    pub fn server_that_asks(&self, alpn: &[&str]) -> ServerConfig {
        self.config(NAME, alpn, true)
    }

    fn config(&self, name: &str, alpn: &[&str], asks: bool) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = match asks {
            true => {
                let roots = Arc::new(store(&self.certificate));
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).allow_unauthenticated();
                builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
            }
            false => builder.unwrap().with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(vec![leaf.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        config
    }
}

/// A server that does this with each connection.
pub async fn serve<F: Future<Output = ()> + Send>(
    config: ServerConfig,
    act: impl Fn(server::TlsStream<TcpStream>) -> F + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, act) = (acceptor.clone(), act.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    act(stream).await;
                }
            });
        }
    });
    address
}

/// A server of HTTP, of the version that was agreed on.
pub async fn serve_http<F>(
    config: ServerConfig,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = Result<Answer, hyper::Error>> + Send + 'static,
{
    serve(config, move |stream| {
        let answer = answer.clone();
        async move {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let (stream, service) = (TokioIo::new(stream), service_fn(answer));
            if is_http2 {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(stream, service).await;
            } else {
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(stream, service).with_upgrades().await;
            }
        }
    })
    .await
}

pub async fn handshake(
    client: TcpStream,
    trusts: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<client::TlsStream<TcpStream>> {
    handshake_for(NAME, client, trusts, alpn).await
}

pub async fn handshake_for(
    server: &'static str,
    client: TcpStream,
    trusts: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(store(trusts)).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(server).unwrap(), client).await
}

fn store(certificate: &CertificateDer<'static>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add(certificate.clone()).unwrap();
    store
}

/// The next thing that is said of an opened flow.
pub async fn event(reports: &mut mpsc::Receiver<Report>) -> Event {
    match within(reports.recv()).await {
        Some(Report::Open(report)) => {
            assert_eq!((report.flow_id, report.name.as_deref()), (7, Some(NAME)));
            report.event
        }
        report => panic!("{report:?}"),
    }
}

pub fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, std::io::Error> {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub async fn text(response: Response<Incoming>) -> String {
    let bytes = within(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A client of HTTP/1 on a connection.
pub async fn http1(
    stream: client::TlsStream<TcpStream>,
) -> hyper::client::conn::http1::SendRequest<BoxBody<Bytes, std::io::Error>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

/// The same of HTTP/2.
pub async fn http2(
    stream: client::TlsStream<TcpStream>,
) -> hyper::client::conn::http2::SendRequest<BoxBody<Bytes, std::io::Error>> {
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub fn har(path: &Path) -> Har {
    Har::create(path, crate::har::Options::default(), |error| panic!("{error}")).unwrap()
}

/// A hang is a failure.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), work).await.expect("no end in 30 s")
}
