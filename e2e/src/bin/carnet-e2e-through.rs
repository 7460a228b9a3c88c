//! A service as people have them: told its port, knows SO_ORIGINAL_DST and nothing of Carnet. Serves until it is killed.
//!
//! `carnet-e2e-through PORT [MARK]`: a mark is sent ahead of what the client sends, so that the destination sees in which
//! order services had the connection: the last one's is first.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::{env, thread};

use anyhow::{Context, Result, bail};
use carnet::Redirect;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (port, mark): (u16, &str) = match &arguments[..] {
        [port] => (port.parse()?, ""),
        [port, mark] => (port.parse()?, mark),
        _ => bail!("usage: carnet-e2e-through PORT [MARK]"),
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
    eprintln!("listening on {}", listener.local_addr()?);
    thread::scope(|scope| {
        for client in listener.incoming() {
            let client = client?;
            scope.spawn(move || {
                if let Err(error) = carry_on(&client, mark) {
                    eprintln!("{error:#}");
                }
            });
        }
        Ok(())
    })
}

fn carry_on(client: &TcpStream, mark: &str) -> Result<()> {
    let mut server = TcpStream::connect(Redirect::of(client).original_destination()?)?;
    server.write_all(mark.as_bytes())?;
    thread::scope(|scope| {
        scope.spawn(|| copy(&server, client));
        copy(client, &server);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // A broken connection ends the other direction too; the process's own end is what tests are about.
    if io::copy(&mut from, &mut to).is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    let _ = to.shutdown(Shutdown::Write);
}
