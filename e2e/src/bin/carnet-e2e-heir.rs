//! A process that uses sockets which others made, or makes some for others.
//!
//! ```text
//! carnet-e2e-heir connect ADDRESS      connects its standard input, a socket, and serves it
//! carnet-e2e-heir use                  serves its standard input, a connection
//! carnet-e2e-heir take ...             the same with a socket that comes by its standard input
//! carnet-e2e-heir give [ADDRESS]       makes a socket, connects it, and gives it away by its standard output
//! carnet-e2e-heir service              accepts at descriptor 3, as with socket activation, and relays an exchange
//! ```
//!
//! Serving a connection is one exchange as `carnet_e2e::sockets::assert_joined` has it. It ends then, without closing its
//! standard error, which tells why where it fails.
#![forbid(unsafe_code)]

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use carnet_e2e::passing::{give, take};
use carnet_e2e::raw::inherited;
use carnet_e2e::sockets::{PATIENCE, accept, stream};
use socket2::Socket;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["give", address @ ..] => give_one(address),
        ["service"] => serve_as_activated(),
        ["take", rest @ ..] => inherit(take(&standard(0)?)?, rest),
        rest => inherit(standard(0)?, rest),
    }
}

fn inherit(socket: OwnedFd, what: &[&str]) -> Result<()> {
    let socket = Socket::from(socket);
    match what {
        ["use"] => {}
        ["connect", address] => {
            let address: SocketAddr = address.parse()?;
            socket.connect(&address.into()).with_context(|| format!("connect to {address}"))?;
        }
        _ => bail!("usage: carnet-e2e-heir [take] connect ADDRESS | [take] use | give [ADDRESS] | service"),
    }
    serve(socket.into())
}

fn serve(mut connection: TcpStream) -> Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut came = [0; 5];
    connection.read_exact(&mut came).context("read")?;
    ensure!(&came == b"there", "{came:?}");
    connection.write_all(b"back.").context("write")
}

fn give_one(address: &[&str]) -> Result<()> {
    let to: Option<SocketAddr> = address.first().map(|address| address.parse()).transpose()?;
    let socket = stream(to.unwrap_or(([127, 0, 0, 1], 0).into()));
    if let Some(to) = to {
        socket.connect(&to.into()).with_context(|| format!("connect to {to}"))?;
    }
    give(&standard(1)?, &socket)
}

/// An aware service: what it dials has the record.
fn serve_as_activated() -> Result<()> {
    ensure!(env::var("LISTEN_FDS").as_deref() == Ok("1"), "LISTEN_FDS is not 1");
    ensure!(env::var("LISTEN_PID")? == std::process::id().to_string(), "LISTEN_PID is another's");
    let mut client = accept(&TcpListener::from(inherited(3)));
    let mut onward = carnet::dial(&client).map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes)?;
    onward.write_all(&bytes)?;
    onward.read_exact(&mut bytes)?;
    Ok(client.write_all(&bytes)?)
}

fn standard(number: i32) -> Result<OwnedFd> {
    Ok(match number {
        0 => std::io::stdin().as_fd().try_clone_to_owned()?,
        _ => std::io::stdout().as_fd().try_clone_to_owned()?,
    })
}
