//! An application whose connections are redirected.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result};

/// Holds a connection to each until its service has closed it. What the last one says is printed.
pub fn connect(addresses: &[SocketAddr]) -> Result<()> {
    let connect = |address| TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"));
    let streams = addresses.iter().map(connect).collect::<Result<Vec<_>>>()?;
    let mut said = Vec::new();
    for mut stream in streams {
        said.clear();
        io::copy(&mut stream, &mut said).context("cannot read what the service says")?;
    }
    io::stdout().write_all(&said).context("cannot write to standard output")
}
