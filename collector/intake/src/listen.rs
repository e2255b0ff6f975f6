//! Sockets, connections, and their ends.
//!
//! Promise: a port that cannot be bound is said at once; the number of connections is bounded, and those beyond wait in the
//! listen queue; running out of file descriptors slows accepting down and ends nothing; each connection has an owner, which
//! asks it to close, waits, and at the deadline says how many did not.
//! Not here: what is said on a connection (`grpc`, `http`). TLS: the handshake belongs into `converse`, before `Line::open`.
//! Kept by: `tests/it/stopping.rs`, `tests/it/bounds.rs`, `tests/it/floods.rs`, `tests/fds.rs`.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::counters::Counters;
use crate::line::Line;
use crate::reply::Reply;

const BACKLOG: u32 = 1024;
/// Clients that honour it send a request in one frame, which then is neither copied nor reassembled.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Two frames under way on each stream, four on each connection. What a client sends into them before its request is let in is
/// not among the bytes in flight, so they are no larger than they must be.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const STREAMS_MAX: u32 = 128;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// HTTP/1's read buffer; also bounds its headers.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// Rapid resets beyond this end the connection.
const RESET_STREAMS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 1024;
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting pauses after an error; doubled up to the second.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Binds and listens, without accepting yet; or takes over what listens already.
pub(crate) fn bind(address: SocketAddr, handed: Option<std::net::TcpListener>) -> io::Result<TcpListener> {
    if let Some(listener) = handed {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener);
    }
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// What all connections of both doors share.
#[derive(Clone)]
pub(crate) struct Lines {
    pub(crate) counters: Arc<Counters>,
    protocol: Arc<auto::Builder<Streams>>,
    places: Arc<Semaphore>,
    streams: TaskTracker,
    closing: CancellationToken,
    patience: Duration,
    age: Duration,
}

impl Lines {
    pub(crate) fn new(config: &Config, counters: Arc<Counters>) -> Self {
        let streams = TaskTracker::new();
        Self {
            counters,
            protocol: Arc::new(protocol(config.header_timeout, Streams(streams.clone()))),
            places: Arc::new(Semaphore::new(config.connections_max.clamp(1, Semaphore::MAX_PERMITS))),
            streams,
            closing: CancellationToken::new(),
            patience: config.header_timeout,
            age: config.connection_age,
        }
    }

    /// Accepts no more, and asks those inside to finish.
    pub(crate) fn close(&self) {
        self.closing.cancel();
        self.streams.close();
    }

    /// Waits for the requests that outlive their connections' tasks.
    pub(crate) async fn quiet(&self) {
        self.streams.wait().await;
    }

    /// Serves a door until [`Lines::close`]; gives back the connections that are still open then.
    pub(crate) async fn serve<S>(&self, listener: TcpListener, service: S) -> JoinSet<()>
    where
        S: Service<Request<Incoming>, Response = Response<Reply>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let mut open = JoinSet::new();
        while let Some((stream, place)) = self.closing.run_until_cancelled(self.accept(&listener)).await {
            while open.try_join_next().is_some() {}
            open.spawn(self.clone().converse(stream, place, service.clone()));
        }
        open
    }

    /// The next connection, once there is a place for it. A door takes a place only for someone who is there: both share them.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        let mut pause = PAUSE;
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => match Arc::clone(&self.places).acquire_owned().await {
                    Ok(place) => return (stream, place),
                    // Never closed; if it were, there would be no more places.
                    Err(_closed) => std::future::pending().await,
                },
                Err(error) => {
                    self.counters.accept_error();
                    if pause == PAUSE {
                        tracing::warn!(%error, "cannot accept a connection");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn converse<S>(self, stream: TcpStream, place: OwnedSemaphorePermit, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Reply>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let _open = Open::count(&self.counters, place);
        // Answers are small and complete: none waits for another.
        let _ = stream.set_nodelay(true);
        let line = TokioIo::new(Line::open(stream, self.patience));
        let mut connection = Box::pin(self.protocol.serve_connection(line, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.time_to_go() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "connection ended");
        }
    }

    async fn time_to_go(&self) {
        let _ = tokio::time::timeout(self.age, self.closing.cancelled()).await;
    }
}

/// Counts a connection for as long as it is open.
struct Open<'a> {
    counters: &'a Counters,
    _place: OwnedSemaphorePermit,
}

impl<'a> Open<'a> {
    fn count(counters: &'a Counters, place: OwnedSemaphorePermit) -> Self {
        counters.opened();
        Self { counters, _place: place }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.counters.closed();
    }
}

/// Runs HTTP/2 streams where someone knows of them.
#[derive(Clone)]
struct Streams(TaskTracker);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

fn protocol(header_timeout: Duration, streams: Streams) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}
