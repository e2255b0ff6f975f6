//! Everyone who was let in is answered once, and what waits is bounded.

use std::task::Poll;

use futures_util::future::join_all;
use futures_util::{FutureExt, poll};

use super::*;
use crate::tests::entry;

fn queued(n: u64, body_bytes: usize) -> Queued {
    Queued { entry: entry(n, body_bytes), crc: 0 }
}

fn group(queue: &Queue) -> Group {
    match queue.take(Some(Duration::ZERO)) {
        Taken::Group(group) => group,
        other => panic!("no group: {other:?}"),
    }
}

fn push(queue: &Queue, n: u64, body_bytes: usize) -> Pending {
    queue.try_push(queued(n, body_bytes)).unwrap().unwrap()
}

/// Answers reach those they belong to, in whatever order they are asked for.
#[tokio::test]
async fn answers_reach_their_appends() {
    let queue = Queue::new(1 << 20);
    let mut pending: Vec<Pending> = (0..5).map(|n| push(&queue, n, 10)).collect();
    assert!(poll!(&mut pending[3]).is_pending());
    let group = group(&queue);
    assert_eq!(group.entries().len(), 5);
    let answers = (0..5).map(|n| if n == 2 { Err(AppendError::Stopping) } else { Ok(Offset(n)) }).collect();
    queue.answer(group, answers);
    pending.reverse();
    let got: Vec<_> = join_all(pending).await.into_iter().map(Result::ok).collect();
    assert_eq!(got, [Some(4), Some(3), None, Some(1), Some(0)].map(|n| n.map(Offset)));
}

/// An append that is dropped while it waits takes nobody's answer, and leaves no room taken.
#[tokio::test]
async fn a_dropped_append_harms_nobody() {
    let queue = Queue::new(300);
    let (first, second) = (push(&queue, 1, 100), push(&queue, 2, 100));
    drop(first);
    queue.answer(group(&queue), vec![Ok(Offset(1)), Ok(Offset(2))]);
    assert_eq!(second.await.unwrap(), Offset(2));
    push(&queue, 3, 200);
}

/// Appends wait outside while the bytes inside are at their bound, go in in their order, and one larger than the bound goes
/// alone.
#[tokio::test]
async fn what_waits_inside_is_bounded() {
    let queue = Queue::new(1_000);
    let inside = push(&queue, 1, 900);
    assert!(queue.try_push(queued(2, 100)).is_err());
    let mut waits = Box::pin(queue.push_when_room(queued(2, 100)));
    let mut huge = Box::pin(queue.push_when_room(queued(3, 50_000)));
    assert!(poll!(&mut waits).is_pending() && poll!(&mut huge).is_pending());
    assert_eq!(group(&queue).entries().len(), 1, "what waits outside was let in");
    // The group was dropped unanswered: its append hears that the log stops.
    assert!(matches!(inside.await, Err(AppendError::Stopping)));
    queue.room.add_permits(940);
    assert!(matches!(poll!(&mut waits), Poll::Ready(Ok(_))) && poll!(&mut huge).is_pending());
    queue.answer(group(&queue), vec![Ok(Offset(0))]);
    assert!(huge.await.is_ok());
}

/// A group is closed before it becomes too large to be written as one.
#[test]
fn groups_are_bounded() {
    let queue = Queue::new(64 << 20);
    let _pending: Vec<_> = [5 << 20, 2 << 20, 3 << 20, 20 << 20, 10].map(|bytes| push(&queue, 1, bytes)).into();
    let groups: Vec<usize> = (0..4).map(|_| group(&queue).entries().len()).collect();
    assert_eq!(groups, [2, 1, 1, 1]);
    assert!(matches!(queue.take(Some(Duration::ZERO)), Taken::Idle));
}

/// A closed queue lets nobody in, whether they knock or wait outside, says why, and still gives what is inside.
#[tokio::test]
async fn a_closed_queue_says_why() {
    let queue = Queue::new(200);
    let inside = push(&queue, 1, 100);
    let mut waits = Box::pin(queue.push_when_room(queued(2, 100)));
    assert!(poll!(&mut waits).is_pending());
    let why = AppendError::TooLarge { bytes: 1, max_bytes: 0 };
    queue.close(why);
    queue.close(AppendError::Stopping);
    assert!(matches!(waits.await, Err(AppendError::TooLarge { .. })), "the first reason counts");
    assert!(matches!(queue.try_push(queued(3, 1)), Ok(Err(AppendError::TooLarge { .. }))));
    queue.answer(group(&queue), vec![Ok(Offset(7))]);
    assert_eq!(inside.now_or_never().unwrap().unwrap(), Offset(7));
    assert!(matches!(queue.take(None), Taken::Closed));
}
