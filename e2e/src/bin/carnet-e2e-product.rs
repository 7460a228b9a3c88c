//! A product on a served host, as a process of its own: takes each connection that has its record, and answers it with `y`.
//!
//! `carnet-e2e-product SOCKET NAME COMMAND`
//!
//! | command | what it does |
//! | --- | --- |
//! | `starts ADDRESS` | listens there; prints `ready` |
//! | `returns` | takes back the listener which the daemon holds; prints `ready` |
//! | `registers PORT` | listens anywhere, and registers itself with that listener for this remote port, again when the daemon has gone; prints `registered HANDLE` each time |
//! | `comes-back PORT` | the same with the listener which the daemon holds |
//!
//! On a line of its standard input it hands its listener to the daemon, prints `held` and ends.
#![forbid(unsafe_code)]

use std::future::pending;
use std::io::{self, BufRead, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, process, thread};

use anyhow::{Context, Result, bail, ensure};
use carnet::Redirect;
use carnet_control::{Client, ClientError, Session, SessionRequest};
use serde_json::json;
use tokio::sync::oneshot;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [socket, name, ref command @ ..] = arguments[..] else {
        bail!("usage: carnet-e2e-product SOCKET NAME COMMAND")
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(socket, name, command))
}

async fn run(socket: &str, name: &str, command: &[&str]) -> Result<()> {
    let client = Client::connect(socket).await?;
    let (listener, port) = match *command {
        ["starts", at] => (TcpListener::bind(at)?, None),
        ["returns"] => (released(&client, name).await?, None),
        ["registers", port] => (TcpListener::bind("127.0.0.1:0")?, Some(port.parse()?)),
        ["comes-back", port] => (released(&client, name).await?, Some(port.parse()?)),
        _ => bail!("no such command: {command:?}"),
    };
    listener.set_nonblocking(true)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let serving = {
        let (listener, is_over) = (listener.try_clone()?, is_over.clone());
        thread::spawn(move || serve(&listener, &is_over))
    };
    let mut told = next_line();
    let mut staying = pin!(async {
        match port {
            Some(port) => stay_registered(&client, name, &listener, port).await,
            None => {
                say("ready")?;
                pending().await
            }
        }
    });
    tokio::select! {
        told = &mut told => told?,
        error = &mut staying => return error,
    }
    // It is registered still.
    client.hold(name, &[listener.as_fd()], HOLD).await?;
    is_over.store(true, Ordering::Relaxed);
    serving.join().expect("it does not panic")?;
    say("held")
}

async fn released(client: &Client, name: &str) -> Result<TcpListener> {
    let mut listeners = client.release(name).await?;
    ensure!(listeners.len() == 1, "{} listeners", listeners.len());
    Ok(listeners.remove(0).into())
}

async fn stay_registered(client: &Client, name: &str, listener: &TcpListener, port: u16) -> Result<()> {
    loop {
        let mut session = match register(client, name, listener, port).await {
            Ok(session) => session,
            Err(ClientError::Refused(problem)) => return Err((*problem).into()),
            // The daemon is not there yet.
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        say(&format!("registered {}", session.registered().providers[0].handle))?;
        while let Ok(Some(_)) = session.next().await {}
    }
}

async fn register(client: &Client, name: &str, listener: &TcpListener, port: u16) -> Result<Session, ClientError> {
    let filters = json!([{"match": {"remote-port": port}, "action": "redirect"}]);
    let request = json!({"providers": [{"name": name, "listeners": [{"fd": 0}], "filters": filters}]});
    let request: SessionRequest = serde_json::from_value(request).expect("a registration");
    client.session(&request, &[listener.as_fd()]).await
}

/// Comes when there is one. Where the input ends first, so does the process.
fn next_line() -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    thread::spawn(move || match io::stdin().lock().read_line(&mut String::new()) {
        Ok(1..) => tell.send(()),
        _ => process::exit(0),
    });
    told
}

/// Until it is over; what has been accepted by then is answered.
fn serve(listener: &TcpListener, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => {
                if let Err(error) = answer(client) {
                    eprintln!("product: {error:#}");
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> Result<()> {
    Redirect::of(&client).flow().context("no record")?;
    // It may be gone.
    let _ = client.write_all(b"y");
    Ok(())
}

fn say(word: &str) -> Result<()> {
    println!("{word}");
    Ok(io::stdout().flush()?)
}

const HOLD: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
