//! Whether a connection is what the model says, in everything that a client, a service or a server can see of it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context, Result, anyhow, ensure};
use carnet::Redirect;
use carnet_e2e::sockets::{canonical, connect_on, stream};

use super::attempt::Attempt;
use super::cell::{Cell, Kind, Place};
use super::door::{Door, Doors};

/// How a connect() ended: with this address of its own, or with an errno.
pub type Outcome = Result<IpAddr, i32>;

/// Who the service is to be told that connected.
pub struct Who {
    pub uid: u32,
    pub cgroup: u64,
}

/// It went straight to its destination, or failed. Returns which.
pub fn direct(attempt: &mut Attempt, servers: &mut Doors) -> Result<Outcome> {
    if let Err(errno) = attempt.result {
        return Ok(Err(errno));
    }
    let own = own_address(attempt)?;
    let server = &mut server_of(attempt, servers)?.fetch(own)?;
    let client = attempt.result.as_mut().map_err(|_| anyhow!("it is connected"))?;
    let word = attempt.cell.to_string();
    pass(&word, client, server).context("to the server")?;
    pass(&word, server, client).context("to the client")?;
    Ok(Ok(own.ip()))
}

/// It came to this listener, and the service takes it to its destination. Returns the flow's id.
pub fn redirected(attempt: &mut Attempt, listener: &mut Door, servers: &mut Doors, who: &Who) -> Result<u128> {
    let own = own_address(attempt)?;
    if attempt.bound.is_none_or(|bound| bound.ip().is_unspecified()) {
        ensure!(own.ip() == listener.address.ip(), "a local address is reached from itself, and not from {own}");
    }
    let destination = canonical(attempt.asked);
    let accepted = &mut listener.fetch(own).context("at the service")?;
    let redirect = Redirect::of(accepted);
    ensure!(redirect.original_destination()? == destination, "SO_ORIGINAL_DST");
    let flow = redirect.flow()?;
    ensure!(flow.destination() == destination, "CARNET_FLOW: {}", flow.destination());
    let origin = flow.origin();
    ensure!(origin.destination == destination, "the origin's destination: {}", origin.destination);
    ensure!(origin.source == Some(own), "the origin's source: {:?}", origin.source);
    ensure!((origin.uid, origin.gid) == (who.uid, who.uid), "uid {}, gid {}", origin.uid, origin.gid);
    ensure!((origin.pid, origin.cgroup_id) == (std::process::id(), who.cgroup), "the process: {origin:?}");
    let family = if attempt.cell.kind == Kind::V4 { carnet::Family::V4 } else { carnet::Family::V6 };
    ensure!(origin.family == family, "the socket's family: {:?}", origin.family);
    ensure!(flow.depth() == 1 && !origin.inferred && !origin.ambiguous, "{flow:?}");

    let server = server_of(attempt, servers)?;
    let onward = match attempt.cell.place {
        Place::Nowhere => go_on_to(server.address, redirect),
        _ => carnet::dial(accepted).map_err(Into::into),
    };
    let onward = &mut onward.context("the service's own connection")?;
    let server = &mut server.fetch(canonical(onward.local_addr()?))?;
    let client = attempt.result.as_mut().map_err(|_| anyhow!("it is connected"))?;
    let word = attempt.cell.to_string();
    pass(&word, client, accepted).context("to the service")?;
    pass(&word, onward, server).context("to the server")?;
    pass(&word, server, onward).context("back to the service")?;
    pass(&word, accepted, client).context("back to the client")?;
    Ok(flow.id())
}

/// connect() failed with this errno.
pub fn refused(attempt: &Attempt, errno: i32) -> Result<()> {
    let failed = attempt.result.as_ref().err();
    ensure!(failed == Some(&errno), "it is to fail with {errno}: {failed:?}");
    Ok(())
}

/// It fared as it did without Carnet.
pub fn as_without(attempt: &mut Attempt, servers: &mut Doors, without: &Outcome) -> Result<()> {
    let outcome = direct(attempt, servers)?;
    ensure!(outcome == *without, "{outcome:?}; without Carnet {without:?}");
    Ok(())
}

/// The client's own address: what it was bound to. And its peer is, as far as it can see, whom it asked for.
fn own_address(attempt: &Attempt) -> Result<SocketAddr> {
    let client = attempt.result.as_ref().map_err(|&errno| io::Error::from_raw_os_error(errno));
    let client = client.context("connect()")?;
    let peer = client.peer_addr().context("getpeername()")?;
    ensure!(peer == attempt.asked, "getpeername() answers {peer}, it asked for {}", attempt.asked);
    let own = canonical(client.local_addr().context("getsockname()")?);
    if let Some(bound) = attempt.bound {
        ensure!(own.port() == bound.port(), "bound to {bound}, and is {own}");
        ensure!(own.ip() == bound.ip() || bound.ip().is_unspecified(), "bound to {bound}, and is {own}");
    }
    Ok(own)
}

fn server_of<'s>(attempt: &Attempt, servers: &'s mut Doors) -> Result<&'s mut Door> {
    let Cell { family, place, .. } = attempt.cell;
    let served = if place == Place::Nowhere { Place::Other } else { place };
    servers.get_mut(&(family, served)).context("every family and place has a server")
}

/// The service chooses where to go on to.
fn go_on_to(destination: SocketAddr, redirect: Redirect<'_>) -> Result<TcpStream> {
    let socket = stream(destination);
    redirect.records()?.apply_to(&socket)?;
    connect_on(socket, &destination.into()).map_err(|errno| io::Error::from_raw_os_error(errno).into())
}

/// A word goes in at one end and comes out at the other.
fn pass(word: &str, from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    from.write_all(word.as_bytes())?;
    let mut came = vec![0; word.len()];
    to.read_exact(&mut came)?;
    ensure!(came == word.as_bytes(), "{:?} came", String::from_utf8_lossy(&came));
    Ok(())
}
