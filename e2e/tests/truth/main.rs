//! connect() tells the truth: what fails without Carnet fails through it, at once and with the same errno.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod addresses;
mod changes;
mod lately;
mod routes;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use carnet_e2e::Sandbox;
use carnet_e2e::sockets::{stream, until};
use carnet_engine::{RouteNotice, RouteWatch};
use socket2::Socket;

/// A mirror of the calling thread's network namespace, and what it has told.
struct Mirror {
    watch: RouteWatch,
    notices: Receiver<RouteNotice>,
}

impl Mirror {
    /// Everything there is now is known when this returns.
    fn of(sandbox: &Sandbox) -> Self {
        let (told, notices) = channel();
        let watch = sandbox.engine.routes().unwrap().watch(move |notice| told.send(notice).unwrap()).unwrap();
        Self { watch, notices }
    }

    /// Ends it. What it has told that was not asked for before.
    fn end(self) -> Vec<RouteNotice> {
        drop(self.watch);
        self.notices.try_iter().collect()
    }
}

/// The errno with which connect() fails before it waits for anybody.
fn errno_of(to: SocketAddr) -> Result<(), i32> {
    errno_on(&stream(to), to)
}

fn errno_on(socket: &Socket, to: SocketAddr) -> Result<(), i32> {
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&to.into()).map_err(|error| error.raw_os_error()) {
        Ok(()) | Err(Some(libc::EINPROGRESS)) => Ok(()),
        Err(errno) => Err(errno.unwrap()),
    }
}

/// Waits until connect() does this both without Carnet and through it: the mirror knows nothing for a moment after any
/// change in the network namespace, and such come by themselves.
fn until_both(sandbox: &Sandbox, to: SocketAddr, expected: Result<(), i32>) {
    let what = format!("{expected:?} of connect() to {to}, with Carnet and without");
    until(&what, || {
        let (plain, through) = (errno_of(to), sandbox.in_app(|| errno_of(to)));
        (plain == expected && through == expected).then_some(())
    });
}
