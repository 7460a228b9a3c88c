//! What an idle flow costs. One test, for memory is the process's.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{fs, io, net};

use carnet_proxy::{raise_file_limit, relay};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
};

/// Flows that have passed data both ways and now wait: their sockets, tasks and whatever else the relay keeps.
#[test]
fn an_idle_flow_holds_no_buffer() {
    assert!(
        raise_file_limit().unwrap() >= 4 * FLOWS as u64 + 100,
        "a hard limit of {} files is needed",
        4 * FLOWS + 100
    );
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut outside = Vec::new();
        let mut inside = Vec::new();
        for _ in 0..FLOWS + WARM_UP {
            let (client, accepted) = pair(&listener).await.unwrap();
            let (onward, origin) = pair(&listener).await.unwrap();
            outside.push((client, origin));
            inside.push((accepted, onward));
        }
        // The workers' buffers, and what the allocator takes beforehand.
        for _ in 0..WARM_UP {
            let (client, origin) = outside.pop().unwrap();
            spawn(inside.pop().unwrap());
            use_both_ways(client, origin).await.unwrap();
        }

        let before = resident();
        inside.drain(..).for_each(spawn);
        let mut idle = Vec::new();
        for (client, origin) in outside {
            idle.push(use_both_ways(client, origin).await.unwrap());
        }
        let each = (resident() - before) / FLOWS;
        println!("{each} bytes for an idle flow");
        // One buffer of the smallest size, for one direction alone, would be 16384.
        assert!(each < 8192, "{each} bytes for an idle flow");
    });
}

/// The relay's ends are given to tokio here, so that this is measured, too.
fn spawn((accepted, onward): (net::TcpStream, net::TcpStream)) {
    let [accepted, onward] = [accepted, onward].map(|socket| TcpStream::from_std(socket).unwrap());
    tokio::spawn(relay(accepted, onward, |_: &[u8]| {}));
}

async fn use_both_ways(client: net::TcpStream, origin: net::TcpStream) -> io::Result<(net::TcpStream, net::TcpStream)> {
    let (mut client, mut origin) = (TcpStream::from_std(client)?, TcpStream::from_std(origin)?);
    let (question, mut received) = (vec![1; 100_000], vec![0; 100_000]);
    let (sent, read) = tokio::join!(client.write_all(&question), origin.read_exact(&mut received));
    sent.and(read.map(drop))?;
    origin.write_all(b"answer").await?;
    client.read_exact(&mut received[..6]).await?;
    Ok((client.into_std()?, origin.into_std()?))
}

async fn pair(listener: &TcpListener) -> io::Result<(net::TcpStream, net::TcpStream)> {
    let (connected, accepted) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    Ok((connected?.into_std()?, accepted?.0.into_std()?))
}

/// Resident memory of the process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

const FLOWS: usize = 2000;
const WARM_UP: usize = 50;
