//! The network as lapin gets to see it: Tokio's, TLS included, with [`Guarded`] in between.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::AsyncTcpStream;
use rustls::pki_types::ServerName;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::TlsError;
use super::nesting::Guarded;

/// A runtime whose streams are guarded.
pub(super) type Kit = RuntimeParts<Tokio, Network>;

/// The runtime that this is called on.
pub(super) fn runtime() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Network(Tokio::current())))
}

/// Connects to host and port, by TLS where there is a `connector`; each of the two has `time`.
pub(super) async fn connect(
    address: &(String, u16),
    connector: Option<&TlsConnector>,
    time: Duration,
) -> io::Result<AsyncTcpStream<Guarded<Connected>>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {time:?}"));
    let tcp = timeout(time, TcpStream::connect((address.0.as_str(), address.1))).await.map_err(late)??;
    tcp.set_nodelay(true)?;
    let connected = match connector {
        None => Connected::Plain(tcp),
        Some(connector) => {
            let failed = |e| io::Error::other(TlsError(e));
            let name = ServerName::try_from(address.0.clone()).map_err(|e| failed(io::Error::other(e)))?;
            let handshake = timeout(time, connector.connect(name, tcp)).await.map_err(late);
            Connected::Tls(Box::new(handshake.flatten().map_err(failed)?))
        }
    };
    Ok(AsyncTcpStream::Plain(Guarded::new(connected)))
}

/// A stream to the server.
pub(super) enum Connected {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Calls a method of Tokio's traits on the stream.
macro_rules! stream {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Connected::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Connected::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connected {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        use tokio::io::AsyncRead as _;
        let mut buf = ReadBuf::new(buf);
        ready!(stream!(self.poll_read(cx, &mut buf)))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl AsyncWrite for Connected {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        use tokio::io::AsyncWrite as _;
        stream!(self.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        use tokio::io::AsyncWrite as _;
        stream!(self.poll_write_vectored(cx, bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        use tokio::io::AsyncWrite as _;
        stream!(self.poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        use tokio::io::AsyncWrite as _;
        stream!(self.poll_shutdown(cx))
    }
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

    /// Nobody asks for it: connections come from [`connect`].
    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
