//! Stopping: those inside get their true answer, nobody else an untrue one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use emberd_intake::Doors;
use emberd_model::clock::Still;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::{Client, Pipe, Version, framed, grpc, post, whole};
use crate::export::spans;
use crate::house::{House, NOW, config, in_time};
use crate::shelf::Shelf;

/// Requests that wait for the log when the doors are told to stop are answered as the log decides, and then the doors are closed.
#[tokio::test]
async fn those_inside_get_their_true_answer() {
    let shelf = Shelf::closed();
    let house = House::open(shelf.clone());
    let counters = house.counters.clone();
    let at = house.at;
    let mut inside = JoinSet::new();
    let mut clients = Vec::new();
    for (address, version) in [(at.grpc, Version::Two), (at.http, Version::One), (at.http, Version::Two)] {
        let mut client = Client::connect(address, version).await;
        let request = match address == at.grpc {
            true => grpc(whole(framed(0, &spans(2)))),
            false => post("/v1/traces", "application/x-protobuf", whole(spans(2))),
        };
        inside.spawn(client.begin(request));
        clients.push(client);
    }
    in_time(shelf.came(3)).await;
    house.ask_to_stop();
    in_time(async {
        while TcpStream::connect(at.grpc).await.is_ok() || TcpStream::connect(at.http).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(inside.try_join_next().is_none(), "an answer came before the log's");
    shelf.let_go();
    while let Some(answer) = in_time(inside.join_next()).await {
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.headers.get("grpc-status").is_none(), "{answer:?}");
    }
    house.stop().await.unwrap();
    let counted = counters.snapshot();
    assert_eq!((counted.accepted_spans(), counted.connections_open), (6, 0));
}

/// A request whose body is still coming is taken to its end; one that the log never decides on is cut off at the deadline,
/// which the doors say.
#[tokio::test]
async fn the_deadline_holds() {
    let mut config = config();
    config.close_timeout = Duration::from_millis(100);
    let shelf = Shelf::closed();
    let house = House::with(config, shelf.clone());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let (pipe, body) = Pipe::new();
    let message = framed(0, &spans(1));
    pipe.send(message[..10].to_vec());
    let mut inside = JoinSet::new();
    inside.spawn(client.begin(grpc(body)));
    in_time(async {
        while house.counters.snapshot().requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    house.ask_to_stop();
    pipe.send(message[10..].to_vec());
    drop(pipe);
    in_time(shelf.came(1)).await;
    let unclosed = house.stop().await.unwrap_err();
    assert_eq!((unclosed.connections, unclosed.after), (1, Duration::from_millis(100)));
    assert!(unclosed.to_string().contains("1 connections"), "{unclosed}");
    let answer = in_time(inside.join_next()).await.unwrap().unwrap();
    assert!(answer.is_err(), "no answer is better than an untrue one: {answer:?}");
}

/// Doors with nobody inside close at once, whatever idle connections there are.
#[tokio::test]
async fn idle_connections_do_not_keep_the_doors() {
    let house = House::open(Shelf::open());
    let mut clients = Vec::new();
    for (address, version) in
        [(house.at.grpc, Version::Two), (house.at.http, Version::One), (house.at.http, Version::Two)]
    {
        clients.push(Client::connect(address, version).await);
    }
    assert_eq!(clients[0].call(&spans(1)).await.code(), 0);
    let silent = TcpStream::connect(house.at.http).await.unwrap();
    in_time(async {
        while house.counters.snapshot().connections < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    house.stop().await.unwrap();
    drop(silent);
}

/// A port that is taken is said at once, with its name, before anything runs.
#[tokio::test]
async fn a_port_in_use_is_said_at_once() {
    let taken = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut config = config();
    config.http = taken.local_addr().unwrap();
    let error = Doors::bind(config, Shelf::open(), Arc::new(Still::at(NOW))).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
}
