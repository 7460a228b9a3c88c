use std::io;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

/// Passes bytes both ways until both sides have ended, or one of them is broken: then neither is ended, but dropped.
pub(super) async fn tunnel<C, S>(mut client: C, mut server: S)
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _: io::Result<_> = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
}

/// One for each direction.
const BUFFER: usize = 16 << 10;
