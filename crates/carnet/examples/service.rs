//! A complete redirect service: says who goes where, and carries every connection on as it is.
//!
//! carnet run --through 'target/debug/examples/service {port}' -- curl https://example.org/
use std::net::{Shutdown, TcpListener, TcpStream};
use std::{env, io, thread, time::Duration};

use carnet::Redirect;
use socket2::SockRef;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = env::args().nth(1).ok_or("usage: service PORT")?.parse()?;
    // Both families, for an IPv6-only socket cannot be sent to an IPv4 listener. Not every host has IPv6.
    let (v4, v6) = (TcpListener::bind(("127.0.0.1", port))?, TcpListener::bind(("::1", port)));
    thread::spawn(move || v6.map(|v6| accept_all(&v6)));
    accept_all(&v4)
}

fn accept_all(listener: &TcpListener) -> ! {
    loop {
        let client = listener.accept().map(|(client, _)| client);
        if let Err(error) = client.and_then(|client| thread::Builder::new().spawn(move || serve(&client))) {
            eprintln!("service: accept: {error}");
            thread::sleep(Duration::from_millis(100)); // out of files or threads until other flows end
        }
    }
}

fn serve(client: &TcpStream) {
    match go_on(client) {
        Ok(server) => thread::scope(|scope| {
            scope.spawn(|| copy(&server, client));
            copy(client, &server);
        }),
        Err(error) => {
            eprintln!("service: connection closed: {error:#}");
            reset_when_closed(client); // a plain close would look like an empty answer
        }
    }
}

fn go_on(client: &TcpStream) -> Result<TcpStream, carnet::Error> {
    let redirect = Redirect::of(client);
    let flow = redirect.flow()?; // fails for "not redirected" and "context lost": no destination, nothing to go on to
    let comm = flow.origin().comm.replace(|c: char| !c.is_ascii_graphic(), "?"); // its own choice: show no escapes
    println!("{} {comm} {} {}", flow.origin().pid, flow.destination(), flow.depth());
    redirect.dial() // sets the record on a new socket and connects it
}

/// One direction, to its end; the other goes on, for a client may close its half and still wait for the answer.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    match io::copy(&mut from, &mut to) {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => [from, to].into_iter().for_each(reset_when_closed),
    }
}

/// Ends the reads of the other direction, without a word to the peer; closing then sends a reset.
fn reset_when_closed(socket: &TcpStream) {
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)).and_then(|()| socket.shutdown(Shutdown::Read)));
}
