//! An application: takes on ids, connects from its second thread, prints its own address, and stays until its standard
//! input ends.
//!
//! `carnet-e2e-client UID GID DESTINATION`: the real ids; the effective ones are one more.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpStream};
use std::{env, io, thread};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, setresgid, setresuid};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [uid, gid, destination] = &arguments[..] else { bail!("usage: carnet-e2e-client UID GID DESTINATION") };
    let (uid, gid): (u32, u32) = (uid.parse()?, gid.parse()?);
    let destination: SocketAddr = destination.parse()?;
    let effective = Gid::from_raw(gid + 1);
    setresgid(Gid::from_raw(gid), effective, effective)?;
    let effective = Uid::from_raw(uid + 1);
    setresuid(Uid::from_raw(uid), effective, effective)?;

    let second = thread::Builder::new().name("second-thread".into()).spawn(move || TcpStream::connect(destination))?;
    let Ok(stream) = second.join() else { bail!("the second thread panicked") };
    println!("{}", stream.with_context(|| format!("connect to {destination}"))?.local_addr()?);
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
