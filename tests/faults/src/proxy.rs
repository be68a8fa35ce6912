//! A TCP proxy between clients and a server: cuts, delays, throttles, goes silent, resets in the middle of a frame.

mod frames;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::frames::Frames;

/// What happens to the bytes that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Each piece is held up for so long.
    Slow(Duration),
    /// No more bytes per second, each way.
    Narrow(u64),
    /// Nothing passes, and nobody is told.
    Silent,
}

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    weather: Mutex<Weather>,
    /// Connections, each with the order to reset it within its next frame.
    lines: Mutex<Vec<Line>>,
    passed: AtomicU64,
    started: Instant,
    ended: AtomicBool,
}

#[derive(Clone)]
struct Line {
    client: Arc<TcpStream>,
    server: Arc<TcpStream>,
    reset: Arc<AtomicBool>,
}

impl Line {
    fn close(&self) {
        // Both fail only where the other side has closed already.
        let _closed = self.client.shutdown(Shutdown::Both);
        let _closed = self.server.shutdown(Shutdown::Both);
    }

    /// Has both sides find a connection that was reset, instead of one that was closed.
    fn abort(&self) {
        for side in [&self.client, &self.server] {
            let _gone = rustix::net::sockopt::set_socket_linger(&**side, Some(Duration::ZERO));
        }
        self.close();
    }
}

impl Proxy {
    /// Starts one before `upstream`, host and port.
    pub(crate) fn start(upstream: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            weather: Mutex::new(Weather::Fair),
            lines: Mutex::default(),
            passed: AtomicU64::new(0),
            started: Instant::now(),
            ended: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || theirs.accept(&listener));
        Ok(Self { port, shared })
    }

    /// The URL by which clients reach the server through it.
    pub(crate) fn before(url: &str) -> Result<(Self, String), String> {
        let bad =
            || format!("{}: no amqp:// URL, so nothing can stand before it", url.split(':').next().unwrap_or(url));
        let rest = url.strip_prefix("amqp://").ok_or_else(bad)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (login, host) = authority.rsplit_once('@').map_or(("", authority), |(login, host)| (login, host));
        let upstream = if host.rsplit_once(':').is_some() { host.to_owned() } else { format!("{host}:5672") };
        let proxy = Self::start(upstream).map_err(|e| e.to_string())?;
        let at = if login.is_empty() { "" } else { "@" };
        let url = format!("amqp://{login}{at}127.0.0.1:{}{path}", proxy.port);
        Ok((proxy, url))
    }

    /// From now on.
    pub(crate) fn weather(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// Half of what has passed per second so far, each way.
    pub(crate) fn half(&self) -> Weather {
        let seconds = self.shared.started.elapsed().as_secs().max(1);
        Weather::Narrow((self.shared.passed.load(Relaxed) / seconds / 4).max(1024))
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        lock(&self.shared.lines).drain(..).for_each(|line| line.close());
    }

    /// Resets every connection in the middle of its next frame.
    pub(crate) fn reset(&self) {
        lock(&self.shared.lines).drain(..).for_each(|line| line.reset.store(true, Relaxed));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        self.cut();
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.ended.load(Relaxed) {
                return;
            }
            // A server that is away looks to the client like one that closes at once.
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&self.upstream)) else { continue };
            let line =
                Line { client: Arc::new(client), server: Arc::new(server), reset: Arc::new(AtomicBool::new(false)) };
            for side in [&line.client, &line.server] {
                let _slower_then = side.set_nodelay(true);
            }
            lock(&self.lines).push(line.clone());
            for (from, to) in [(line.client.clone(), line.server.clone()), (line.server.clone(), line.client.clone())] {
                let (shared, line) = (self.clone(), line.clone());
                std::thread::spawn(move || {
                    let frames = Frames::new(Arc::ptr_eq(&from, &line.client));
                    // It ends when either side is gone.
                    let _ended = shared.pass(&from, &to, &line, frames);
                    line.close();
                });
            }
        }
    }

    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, line: &Line, mut frames: Frames) -> std::io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let piece = &buffer[..count];
            let inside = frames.inside(piece);
            if let Some(end) = inside.filter(|_| line.reset.load(Relaxed)) {
                to.write_all(&piece[..end])?;
                line.abort();
                return Ok(());
            }
            self.weather_permitting(count);
            to.write_all(piece)?;
            self.passed.fetch_add(count as u64, Relaxed);
        }
    }

    /// Waits as long as the weather has it.
    fn weather_permitting(&self, count: usize) {
        loop {
            let weather = *lock(&self.weather);
            match weather {
                Weather::Fair => return,
                Weather::Slow(by) => return std::thread::sleep(by),
                Weather::Narrow(rate) => {
                    return std::thread::sleep(Duration::from_micros(count as u64 * 1_000_000 / rate));
                }
                Weather::Silent if self.ended.load(Relaxed) => return,
                Weather::Silent => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
