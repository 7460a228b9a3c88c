//! An application: takes on ids, connects from its second thread, prints its own address, and stays until its standard
//! input ends.
//!
//! `carnet-e2e-client UID GID DESTINATION [alone]`: the real ids; the effective ones are one more. `alone`: the second
//! thread waits until the first one has ended.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek};
use std::net::{SocketAddr, TcpStream};
use std::{env, io, thread};

use anyhow::{Context, Result, bail};
use carnet_e2e::raw;
use carnet_e2e::sockets::until;
use nix::unistd::{Gid, Uid, setresgid, setresuid};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (uid, gid, destination, alone) = match &arguments[..] {
        [uid, gid, destination] => (uid, gid, destination, false),
        [uid, gid, destination, alone] if alone == "alone" => (uid, gid, destination, true),
        _ => bail!("usage: carnet-e2e-client UID GID DESTINATION [alone]"),
    };
    let (uid, gid): (u32, u32) = (uid.parse()?, gid.parse()?);
    let destination: SocketAddr = destination.parse()?;
    // Opened while it may be: on Linux 6.1 it may not when the ids have changed.
    let state = File::open("/proc/self/stat")?;
    let effective = Gid::from_raw(gid + 1);
    setresgid(Gid::from_raw(gid), effective, effective)?;
    let effective = Uid::from_raw(uid + 1);
    setresuid(Uid::from_raw(uid), effective, effective)?;

    let second = thread::Builder::new().name("second-thread".into()).spawn(move || {
        if alone {
            until("the first thread's end", || first_thread_has_ended(&state).then_some(()));
        }
        connect_and_stay(destination)
    })?;
    if alone {
        raw::end_thread();
    }
    let Ok(result) = second.join() else { bail!("the second thread panicked") };
    result
}

fn connect_and_stay(destination: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(destination).with_context(|| format!("connect to {destination}"))?;
    println!("{}", stream.local_addr()?);
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// A process's state is its first thread's.
fn first_thread_has_ended(mut state: &File) -> bool {
    let mut stat = String::new();
    state.rewind().and_then(|()| state.read_to_string(&mut stat)).expect("/proc/self/stat is readable");
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}
