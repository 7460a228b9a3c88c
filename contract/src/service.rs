//! The redirect service: takes the connections that come, asks the cases, and tells the report to who has connected.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::{
    Arguments, exit_code, put_out,
    stage::{Facts, Stage},
};

pub fn serve(port: u16, mut stage: Stage, arguments: &Arguments) -> Result<ExitCode> {
    let (sender, accepted) = mpsc::channel();
    let listener = listen(port, &sender)?;
    eprintln!("carnet-contract: listening on port {}", listener.local_addr()?.port());
    stage.listener = Some(listener);
    take(&mut stage, arguments.connections, &accepted)?;
    stage.facts = Facts::now()?;

    let stage = Arc::new(stage);
    let report = arguments.asked("service", &stage)?;
    let code = exit_code(report.has_failed());
    let text = arguments.show(report)?;
    put_out(&text)?;
    for stream in [&stage.with_context, &stage.without_context, &stage.lost].into_iter().flatten() {
        tell(stream, &text);
    }
    if arguments.once {
        return Ok(code);
    }
    // Whoever started it ends it.
    for stream in accepted {
        tell(&stream, &text);
    }
    Ok(code)
}

/// Waits for the first connection as long as it takes, and for each of the others a while.
fn take(stage: &mut Stage, count: usize, accepted: &Receiver<TcpStream>) -> Result<()> {
    for index in 0..count {
        let stream = match index {
            0 => accepted.recv().context("the listener is gone")?,
            _ => match accepted.recv_timeout(PATIENCE) {
                Ok(stream) => stream,
                Err(_) => {
                    eprintln!("carnet-contract: {index} of {count} connections have come; going on with those");
                    return Ok(());
                }
            },
        };
        if !stage.take(stream) {
            eprintln!("carnet-contract: a connection like one before, closed");
        }
    }
    Ok(())
}

/// On both loopback addresses; on Windows on all, for what is redirected there may come to any. Returns the one for IPv4.
fn listen(port: u16, accepted: &Sender<TcpStream>) -> Result<TcpListener> {
    let (v4, v6) = match cfg!(windows) {
        true => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        false => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
    };
    let listener = bind((v4, port).into()).with_context(|| format!("cannot listen on {v4}, port {port}"))?;
    let port = listener.local_addr()?.port();
    let second = bind((v6, port).into()).with_context(|| format!("cannot listen on {v6}, port {port}"))?;
    for listener in [listener.try_clone()?, second] {
        let accepted = accepted.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepted.send(stream).is_err() {
                    return;
                }
            }
        });
    }
    Ok(listener)
}

fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// The client may have gone.
fn tell(mut stream: &TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(b"\n"));
    let _ = stream.shutdown(Shutdown::Both);
}

const PATIENCE: Duration = Duration::from_secs(10);
