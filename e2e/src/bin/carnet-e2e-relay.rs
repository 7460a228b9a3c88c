//! A small service, well-behaved or not, as a process of its own. Listens on both loopback addresses, prints them on one
//! line, and serves until its standard input ends.
//!
//! `carnet-e2e-relay MODE [ADDRESS]`
//!
//! | mode | what it does with a connection |
//! | --- | --- |
//! | `aware` | carries it on to its destination, with its record |
//! | `unaware` | the same, knowing SO_ORIGINAL_DST only |
//! | `via ADDRESS` | sends it through the `helper` that listens there, as a proxy with an upstream proxy does |
//! | `helper` | reads one line, the destination, and carries the rest on |
//! | `silent` | accepts it and does nothing |
//! | `deaf` | never accepts; a few fit into the kernel's queue |
//! | `server` | no service: sends back what comes; closes first where that begins with `c` |
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;
use std::{env, process, thread};

use anyhow::{Context, Result, bail};
use carnet::Redirect;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy)]
enum Mode {
    Aware,
    Unaware,
    Via(SocketAddr),
    Helper,
    Silent,
    Deaf,
    Server,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mode = match arguments[..] {
        ["aware"] => Mode::Aware,
        ["unaware"] => Mode::Unaware,
        ["via", address] => Mode::Via(address.parse()?),
        ["helper"] => Mode::Helper,
        ["silent"] => Mode::Silent,
        ["deaf"] => Mode::Deaf,
        ["server"] => Mode::Server,
        _ => bail!("usage: carnet-e2e-relay MODE [ADDRESS]"),
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(carnet_e2e::sockets::listen);
    if let Mode::Deaf = mode {
        for listener in &listeners {
            SockRef::from(listener).listen(DEAF_BACKLOG)?;
        }
    }
    println!("{} {}", listeners[0].local_addr()?, listeners[1].local_addr()?);
    io::stdout().flush()?;
    thread::spawn(end_with_input);

    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let [v4, v6] = listeners.map(TcpListener::from_std);
        tokio::spawn(accept_all(v6?, mode));
        accept_all(v4?, mode).await;
        Ok(())
    })
}

/// Whatever happens to the test, its services do not outlive it.
fn end_with_input() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    process::exit(0);
}

async fn accept_all(listener: TcpListener, mode: Mode) {
    if let Mode::Deaf = mode {
        std::future::pending::<()>().await;
    }
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(serve(client, mode))),
            // Out of descriptors until other flows end.
            Err(error) => {
                eprintln!("relay: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(mut client: TcpStream, mode: Mode) {
    let server = match mode {
        Mode::Server => {
            if echo(&mut client).await.is_err() {
                reset_when_closed(&client);
            }
            return;
        }
        Mode::Silent | Mode::Deaf => return std::future::pending().await,
        Mode::Aware => carnet::tokio::dial(&client).await.map_err(Into::into),
        Mode::Unaware => straight(&client).await,
        Mode::Via(helper) => through(&client, helper).await,
        Mode::Helper => asked(&mut client).await,
    };
    let Ok(mut server) = server else { return reset_when_closed(&client) };
    if copy_bidirectional(&mut client, &mut server).await.is_err() {
        reset_when_closed(&client);
        reset_when_closed(&server);
    }
}

async fn straight(client: &TcpStream) -> Result<TcpStream> {
    Ok(TcpStream::connect(Redirect::of(client).original_destination()?).await?)
}

async fn through(client: &TcpStream, helper: SocketAddr) -> Result<TcpStream> {
    let destination = Redirect::of(client).original_destination()?;
    let mut server = TcpStream::connect(helper).await?;
    server.write_all(format!("{destination}\n").as_bytes()).await?;
    Ok(server)
}

async fn asked(client: &mut TcpStream) -> Result<TcpStream> {
    let mut line = Vec::new();
    loop {
        match client.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let destination: SocketAddr = std::str::from_utf8(&line)?.parse().context("not an address")?;
    Ok(TcpStream::connect(destination).await?)
}

async fn echo(client: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut closes_first = None;
    loop {
        let count = client.read(&mut buffer).await?;
        let closes_first = *closes_first.get_or_insert(buffer[0] == b'c');
        client.write_all(&buffer[..count]).await?;
        if count == 0 || closes_first {
            return client.shutdown().await;
        }
    }
}

fn reset_when_closed(socket: &TcpStream) {
    // Fails on a socket that is closed already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// One connection more than this fits.
const DEAF_BACKLOG: i32 = 16;
