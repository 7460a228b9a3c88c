//! The other end of a greeting: it reads exactly what it expects, and answers.

use std::time::Duration;

use carnet_proxy::upstream::{Credentials, Error, Kind, Target, Upstream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// What is expected, and what is answered to it.
pub type Line<'a> = (&'a [u8], &'a [u8]);

/// What the destination says behind the upstream's answer, in one piece with it.
pub const FIRST_WORDS: &[u8] = b"220 ready\r\n\r\n\x05\x00";

pub fn upstream(kind: Kind, at: &TcpListener, credentials: Option<Credentials>) -> Upstream {
    Upstream::new(kind, at.local_addr().unwrap(), credentials).unwrap()
}

pub async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Greets an upstream that goes by the script, whose answers come in pieces of `piece` bytes. Where it goes well,
/// the destination's first words are there untouched, and the other way is open.
pub async fn play(
    kind: Kind,
    credentials: Option<Credentials>,
    by_name: bool,
    to: &Target<'_>,
    script: &[Line<'_>],
    piece: usize,
) -> Result<(), Error> {
    let listener = listen().await;
    let upstream = upstream(kind, &listener, credentials).by_name(by_name);
    let client = async {
        let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
        upstream.greet(&mut stream, to).await?;
        let mut words = vec![0; FIRST_WORDS.len()];
        stream.read_exact(&mut words).await.unwrap();
        assert_eq!(words, FIRST_WORDS);
        stream.write_all(b"thanks").await.unwrap();
        Ok(())
    };
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        for (place, (expected, answer)) in script.iter().enumerate() {
            let mut said = vec![0; expected.len()];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(said.escape_ascii().to_string(), expected.escape_ascii().to_string());
            let last = place + 1 == script.len();
            let answer = if last { [answer, FIRST_WORDS].concat() } else { answer.to_vec() };
            for piece in answer.chunks(piece) {
                if stream.write_all(piece).await.is_err() {
                    return; // it has heard enough
                }
                tokio::task::yield_now().await;
            }
        }
        let mut rest = Vec::new();
        // A reset where the client has not read everything.
        if stream.read_to_end(&mut rest).await.is_ok() {
            assert!(rest.is_empty() || rest == b"thanks", "{:?}", rest.escape_ascii().to_string());
        }
    };
    let (result, ()) = within(async { tokio::join!(client, server) }).await;
    result
}

/// The same, at once and by single bytes, which makes no difference.
pub async fn play_in_pieces(
    kind: Kind,
    credentials: Option<Credentials>,
    by_name: bool,
    to: &Target<'_>,
    script: &[Line<'_>],
) -> Result<(), Error> {
    let whole = play(kind, credentials.clone(), by_name, to, script, usize::MAX).await;
    let pieces = play(kind, credentials, by_name, to, script, 1).await;
    let told = |result: &Result<(), Error>| result.as_ref().map_err(|error| error.io_kind()).copied();
    assert_eq!(told(&whole), told(&pieces));
    whole
}

/// A hang is a failure.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), work).await.expect("no end in 30 s")
}
