//! Upstreams that do not answer, or not to the end.

use std::time::Duration;

use carnet_proxy::upstream::{Error, Kind, Target};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::script::{listen, upstream, within};

fn to() -> Target<'static> {
    Target::to("198.51.100.7:443".parse().unwrap())
}

#[tokio::test]
async fn one_that_says_nothing_is_given_up() {
    for kind in [Kind::Socks5, Kind::HttpConnect] {
        let listener = listen().await;
        let upstream = upstream(kind, &listener, None).timeout(Duration::from_millis(50));
        let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
        let error = within(upstream.greet(&mut stream, &to())).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert!(error.to_string().contains("did not answer for 198.51.100.7:443 within 50ms"), "{error}");
    }
}

/// A limit for each read would be none.
#[tokio::test]
async fn one_that_goes_on_for_ever_is_given_up() {
    let listener = listen().await;
    let upstream = upstream(Kind::HttpConnect, &listener, None).timeout(Duration::from_millis(300));
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let drip = async {
        server.write_all(b"HTTP/1.1 200 OK\r\nX: ").await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if server.write_all(b"y").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let to = to();
    let error = tokio::select! {
        result = within(upstream.greet(&mut stream, &to)) => result.unwrap_err(),
        () = drip => unreachable!("it does not end"),
    };
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn one_that_ends_the_connection_is_told_from_one_that_breaks_it() {
    let beginnings: [(Kind, &[u8]); 5] = [
        (Kind::Socks5, b""),
        (Kind::Socks5, b"\x05"),
        (Kind::Socks5, b"\x05\x00\x05\x00\x00\x01\x7f"),
        (Kind::HttpConnect, b""),
        (Kind::HttpConnect, b"HTTP/1.1 200 OK\r\n"),
    ];
    for (kind, beginning) in beginnings {
        for breaks in [false, true] {
            let listener = listen().await;
            let upstream = upstream(kind, &listener, None);
            let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let answer = async {
                server.write_all(beginning).await.unwrap();
                if breaks {
                    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
                    assert!(server.read(&mut [0; 1000]).await.unwrap() > 0);
                    return drop(server);
                }
                server.shutdown().await.unwrap();
                // Closing with something unread would be a reset.
                let _ = server.read_to_end(&mut Vec::new()).await;
            };
            let to = to();
            let greeting = async {
                let result = upstream.greet(&mut stream, &to).await;
                drop(stream);
                result
            };
            let (result, ()) = within(async { tokio::join!(greeting, answer) }).await;
            let error = result.unwrap_err();
            match error {
                Error::Ended { .. } => assert!(!breaks, "{kind} {beginning:?}"),
                Error::Broken { .. } => assert!(breaks, "{kind} {beginning:?}"),
                error => panic!("{error}"),
            }
        }
    }
}
