//! Running out of file descriptors, in a process of its own.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use bytes::Bytes;
use emberd_intake::{Config, Doors};
use emberd_log::{Appender, Appending, Entry};
use emberd_model::{Offset, UnixNanos, clock::Still};
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct Nothing;

impl Appender for Nothing {
    fn append(&self, _: Entry) -> Appending {
        Box::pin(async { Ok(Offset(0)) })
    }
}

/// Without file descriptors the doors accept nobody, end nothing, and go on as soon as there are some again.
#[tokio::test]
async fn running_out_of_descriptors_ends_nothing() {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let clock = Arc::new(Still::at(UnixNanos(1)));
    let doors = Doors::bind(Config::new(anywhere, anywhere), Arc::new(Nothing), clock).unwrap();
    let (at, counters) = (doors.addresses().http, doors.counters());
    // Bound, not yet open: connections wait in the listen queue, and take descriptors on our side only.
    let waiting: Vec<_> = (0..8).map(|_| TcpStream::connect(at).unwrap()).collect();
    let last = tokio::net::TcpStream::connect(at).await.unwrap();
    let before = getrlimit(Resource::Nofile);
    // The next descriptor would be the lowest free number: from now on there is none.
    let lowest_free = File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free), ..before }).unwrap();

    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(doors.run(stop.clone()));
    while counters.snapshot().accept_errors < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(counters.snapshot().connections, 0);

    setrlimit(Resource::Nofile, before).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(last)).await.unwrap();
    running.spawn(async {
        drop(connection.await);
        Ok(())
    });
    let request = Request::post("/v1/traces").header("host", "x").header("content-type", "application/x-protobuf");
    let answer = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(counters.snapshot().connections_open, 9);
    drop((waiting, sender));
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.unwrap().unwrap();
    }
}
