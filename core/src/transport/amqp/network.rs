//! The network as lapin gets to see it: Tokio's, with [`Guarded`] in between.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::AsyncTcpStream;

use super::nesting::Guarded;

/// A stream to the server, TLS included.
type Connected = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// A runtime whose streams are guarded.
pub(super) type Kit = RuntimeParts<Tokio, Network>;

/// The runtime that this is called on.
pub(super) fn runtime() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Network(Tokio::current())))
}

/// `stream` as lapin takes it.
pub(super) fn guarded(stream: Connected) -> AsyncTcpStream<Guarded<Connected>> {
    AsyncTcpStream::Plain(Guarded::new(stream))
}

/// Tokio's network.
#[derive(Debug, Clone)]
pub(super) struct Network(Tokio);

impl Reactor for Network {
    type TcpStream = Guarded<Connected>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Nobody asks for it.
    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(addr);
        async move { Ok(Guarded::new(AsyncTcpStream::Plain(connecting.await?))) }
    }
}
