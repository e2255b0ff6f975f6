//! Items and money under random histories: two owners that take, end, extend, pay, forget everything (a crash) or come too late, while
//! items are retried and the job is closed or cancelled; a third of the histories with items of several targets, which are parted and halved. After every step all rows are what a model in memory says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use emberd_model::UnixNanos;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::jobs::{new_job, prepared, scored, targets};
use super::on_both;
use crate::jobs::*;
use crate::sql::binds;

on_both!(any_history_ends_each_item_once_and_keeps_the_books);

/// Histories on each database.
const HISTORIES: u32 = 36;
const LEASE: Duration = Duration::from_secs(60);
const BUDGET: i64 = 100;
const TARGETS: i64 = 7;
/// Of an item, in histories with ranges.
const WIDTH: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Take {
        owner: usize,
        step: i64,
        limit: u32,
        ranges: u32,
    },
    /// The n-th of what was ever taken and not forgotten, whoever has it by now.
    End {
        hand: usize,
        /// Of each of its targets.
        how: [How; WIDTH as usize],
    },
    Extend {
        hand: usize,
    },
    Reserve {
        hand: usize,
        price: i64,
    },
    /// The n-th call ever made; what it cost in percent of what was reserved.
    Settle {
        call: usize,
        percent: i64,
    },
    Pass {
        seconds: u64,
    },
    Crash {
        owner: usize,
    },
    Release {
        owner: usize,
    },
    Stale,
    Retry {
        class: Option<&'static str>,
    },
    Close,
    Cancel,
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Done,
    Failed(&'static str),
    Again,
}

fn op() -> impl Strategy<Value = Op> {
    let class = || prop::sample::select(vec!["timeout", "refused"]);
    let how = || prop_oneof![4 => Just(How::Done), 2 => class().prop_map(How::Failed), 1 => Just(How::Again)];
    let take = (0..2usize, 0..3i64, 1..5u32, 1..5u32);
    prop_oneof![
        24 => take.prop_map(|(owner, step, limit, ranges)| Op::Take { owner, step, limit, ranges }),
        30 => (0..64usize, [how(), how(), how()]).prop_map(|(hand, how)| Op::End { hand, how }),
        4 => (0..64usize).prop_map(|hand| Op::Extend { hand }),
        14 => (0..64usize, 0..30i64).prop_map(|(hand, price)| Op::Reserve { hand, price }),
        12 => (0..64usize, 0..101i64).prop_map(|(call, percent)| Op::Settle { call, percent }),
        8 => prop::sample::select(vec![1, 20, 61]).prop_map(|seconds| Op::Pass { seconds }),
        3 => (0..2usize).prop_map(|owner| Op::Crash { owner }),
        2 => (0..2usize).prop_map(|owner| Op::Release { owner }),
        4 => Just(Op::Stale),
        3 => prop::option::of(class()).prop_map(|class| Op::Retry { class }),
        3 => Just(Op::Close),
        1 => Just(Op::Cancel),
        1 => Just(Op::Restart),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Item {
    /// Its last target's number.
    upto: i64,
    state: &'static str,
    attempts: i64,
    due: i64,
    owner: Option<String>,
    until: i64,
    fence: i64,
}

#[derive(Clone, Debug, PartialEq)]
struct Call {
    reserved: i64,
    spent: Option<i64>,
    fence: i64,
}

/// What must stand in the tables.
struct Model {
    job: Uuid,
    items: BTreeMap<(i64, i64), Item>,
    /// (nr, step, name): the fence that wrote it, or the class of the error.
    results: BTreeMap<(i64, i64, String), Result<i64, &'static str>>,
    calls: BTreeMap<(i64, i64, i64), Call>,
    has_ranges: bool,
    phase: &'static str,
    status: &'static str,
    now: i64,
    /// What each owner believes it has: item, fence, targets.
    hands: Vec<(usize, ItemKey, i64, i64)>,
    made: Vec<CallKey>,
    /// By how much calls that were settled a second time became dearer: that money may have been set aside for another meanwhile.
    dearer: i64,
    /// How often each target's step went to an end, and was put back.
    ends: BTreeMap<(i64, i64), (u32, u32)>,
    /// What happened, so that the test can say that all of it did.
    seen: BTreeSet<&'static str>,
}

const LIVE: [&str; 3] = ["blocked", "waiting", "leased"];

impl Model {
    fn left(&self) -> i64 {
        let live = self.items.iter().filter(|(_, item)| LIVE.contains(&item.state));
        live.map(|((nr, _), item)| item.upto - nr + 1).sum()
    }

    fn progress(&self) -> Progress {
        let of = |state: &str| {
            let of = self.items.iter().filter(|(_, item)| item.state == state);
            of.map(|((nr, _), item)| item.upto - nr + 1).sum()
        };
        Progress {
            blocked: of("blocked"),
            waiting: of("waiting"),
            leased: of("leased"),
            done: of("done"),
            failed: of("failed"),
            cancelled: of("cancelled"),
        }
    }

    fn money(&self) -> (i64, i64) {
        let reserved = self.calls.values().filter(|call| call.spent.is_none()).map(|call| call.reserved).sum();
        (reserved, self.calls.values().filter_map(|call| call.spent).sum())
    }

    fn holds(&self, key: ItemKey, fence: i64) -> bool {
        let item = &self.items[&(key.nr, key.step)];
        item.state == "leased" && item.fence == fence
    }

    /// Gives (nr, fence, attempts, targets) of each.
    fn take(&mut self, owner: usize, step: i64, limit: u32, ranges: u32) -> Vec<(i64, i64, i64, i64)> {
        if self.phase != "open" {
            return Vec::new();
        }
        let of = |state: &str, at: fn(&Item) -> i64| {
            let mut found: Vec<(i64, i64)> = self
                .items
                .iter()
                .filter(|((_, of), item)| *of == step && item.state == state && at(item) <= self.now)
                .map(|((nr, _), item)| (at(item), *nr))
                .collect();
            found.sort();
            found
        };
        let mut targets = 0;
        let picked: Vec<i64> = of("leased", |item| item.until)
            .into_iter()
            .chain(of("waiting", |item| item.due))
            .map(|(_, nr)| nr)
            .take(ranges as usize)
            .enumerate()
            .take_while(|(place, nr)| {
                targets += self.items[&(*nr, step)].upto - nr + 1;
                *place == 0 || targets <= i64::from(limit)
            })
            .map(|(_, nr)| nr)
            .collect();
        let mut taken = Vec::new();
        for nr in picked {
            let until = self.now + LEASE.as_micros() as i64;
            let item = self.items.get_mut(&(nr, step)).unwrap();
            if item.state == "leased" {
                self.seen.insert(if item.upto > nr { "a range taken over" } else { "an item taken over" });
            }
            let before = item.clone();
            (item.state, item.owner, item.until) = ("leased", Some(name(self.job, owner)), until);
            (item.fence, item.attempts) = (item.fence + 1, item.attempts + 1);
            if item.upto > nr && item.attempts > 2 {
                self.seen.insert("a range halved");
                item.upto = nr + (item.upto - nr) / 2;
                let rest =
                    Item { state: "waiting", attempts: 1, due: 0, owner: None, until: 0, fence: item.fence, ..before };
                let (from, item) = (item.upto + 1, item.clone());
                self.items.insert((from, step), rest);
                self.items.insert((nr, step), item);
            }
            let item = &self.items[&(nr, step)];
            self.hands.push((owner, ItemKey { job: self.job, nr, step }, item.fence, item.upto - nr + 1));
            taken.push((nr, item.fence, item.attempts, item.upto - nr + 1));
        }
        taken.sort();
        taken
    }

    fn end(&mut self, key: ItemKey, fence: i64, hows: &[How]) -> bool {
        if !self.holds(key, fence) {
            self.seen.insert("an end too late");
            return false;
        }
        let whole = self.items.remove(&(key.nr, key.step)).unwrap();
        assert_eq!(whole.upto - key.nr + 1, hows.len() as i64);
        let mut done_before = None;
        for (nr, how) in (key.nr..).zip(hows) {
            let state = self.end_one(ItemKey { nr, ..key }, fence, *how);
            let due = if state == "waiting" { self.now + 5_000_000 } else { 0 };
            match done_before {
                Some(first) if state == "done" => self.items.get_mut(&(first, key.step)).unwrap().upto = nr,
                _ => {
                    let part = Item { upto: nr, state, due, owner: None, until: 0, ..whole.clone() };
                    self.items.insert((nr, key.step), part);
                    done_before = (state == "done").then_some(nr);
                }
            }
        }
        if whole.upto > key.nr {
            let is_parted = self.items[&(key.nr, key.step)].upto < whole.upto;
            self.seen.insert(if is_parted { "a range parted" } else { "a range done whole" });
        }
        if self.phase == "open" && self.left() == 0 {
            self.phase = "closing";
        }
        true
    }

    /// Ends one target; gives the state of its item.
    fn end_one(&mut self, key: ItemKey, fence: i64, how: How) -> &'static str {
        let at = (key.nr, key.step);
        match how {
            How::Done => {
                self.ends.entry(at).or_default().0 += 1;
                for name in ["quality", "tone"] {
                    self.results.insert((key.nr, key.step, name.to_owned()), Ok(fence));
                }
            }
            How::Failed(class) => {
                self.ends.entry(at).or_default().0 += 1;
                self.results.insert((key.nr, key.step, "quality".to_owned()), Err(class));
            }
            How::Again => {}
        }
        if key.step == 0 {
            self.ran(key.nr, how);
        }
        match how {
            How::Done => "done",
            How::Failed(_) => "failed",
            How::Again if self.phase == "closed" => {
                self.seen.insert("an item given up after its job");
                "cancelled"
            }
            How::Again => "waiting",
        }
    }

    /// What waited for a run.
    fn ran(&mut self, nr: i64, how: How) {
        let blocked: Vec<_> =
            self.items.iter().filter(|(of, item)| of.0 == nr && item.state == "blocked").map(|(of, _)| *of).collect();
        for of in blocked {
            let item = self.items.get_mut(&of).unwrap();
            match how {
                How::Done => (item.state, item.due) = ("waiting", self.now),
                How::Failed(_) => {
                    item.state = "failed";
                    self.seen.insert("a failed run");
                    self.ends.entry(of).or_default().0 += 1;
                    self.results.insert((of.0, of.1, "quality".to_owned()), Err("no_output"));
                }
                How::Again => {}
            }
        }
    }

    fn retry(&mut self, class: Option<&str>) -> u64 {
        if self.status == "cancelled" {
            return 0;
        }
        let meant = |model: &Self, at: &(i64, i64)| {
            class.is_none()
                || model.results.iter().any(|((nr, step, _), got)| (*nr, *step) == *at && got.err() == class)
        };
        let failed: Vec<_> = self.items.iter().filter(|(_, item)| item.state == "failed").map(|(at, _)| *at).collect();
        let run = |nr: i64| (nr, 0);
        let runs: BTreeSet<i64> = failed.iter().filter(|at| at.1 == 0 && meant(self, at)).map(|at| at.0).collect();
        let mut back = Vec::new();
        for at in failed {
            let state = match at.1 {
                0 if runs.contains(&at.0) => "waiting",
                0 => continue,
                _ if runs.contains(&at.0) => {
                    self.seen.insert("an evaluator blocked again");
                    "blocked"
                }
                _ if meant(self, &at) && self.items.get(&run(at.0)).is_none_or(|run| run.state == "done") => "waiting",
                _ => continue,
            };
            back.push((at, state));
        }
        for (at, state) in &back {
            let item = self.items.get_mut(at).unwrap();
            (item.state, item.attempts) = (*state, 0);
            if *state == "waiting" {
                item.due = self.now;
            }
            self.ends.entry(*at).or_default().1 += 1;
            self.results.retain(|of, _| (of.0, of.1) != *at);
            if self.has_ranges && at.1 == 1 {
                self.seen.insert("a target of a range tried again");
            }
        }
        if !back.is_empty() {
            if self.phase == "closed" {
                self.seen.insert("a closed job opened again");
            }
            (self.phase, self.status) = ("open", "running");
        }
        back.len() as u64
    }

    fn stale(&mut self) {
        if self.phase == "closed" {
            for item in self.items.values_mut().filter(|item| item.state == "leased" && item.until <= self.now) {
                (item.state, item.owner, item.until) = ("cancelled", None, 0);
            }
        }
        let (items, now) = (&self.items, self.now);
        for ((nr, step, _), call) in &mut self.calls {
            let item = &items[&(*nr, *step)];
            let held = item.state == "leased" && item.fence == call.fence && item.until > now;
            if call.spent.is_none() && !held {
                call.spent = Some(call.reserved);
                self.seen.insert("a call cut off");
            }
        }
    }
}

fn name(job: Uuid, owner: usize) -> String {
    format!("owner {owner} of {job}")
}

async fn any_history_ends_each_item_once_and_keeps_the_books(mut db: Db) {
    let prompt = db.prompt("faq").await;
    let mut seen = BTreeSet::new();
    for history in 0..HISTORIES {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&history.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let mut ops = proptest::collection::vec(op(), 120).new_tree(&mut runner).unwrap().current();
        ops.extend([How::Failed("timeout"), How::Done].into_iter().flat_map(to_the_end));
        if history + 1 == HISTORIES {
            ops.splice(0..0, given_up());
        }
        let has_run = history % 3 != 0;
        let mut model = begin(&db, prompt, has_run).await;
        for (at, op) in ops.iter().enumerate() {
            perform(&mut db, &mut model, op).await;
            compare(&db, &model, &format!("history {history}, step {at}: {op:?}")).await;
        }
        for (at, (ends, backs)) in &model.ends {
            assert!(*ends <= backs + 1, "{at:?} ended {ends} times and was put back {backs} times");
        }
        seen.extend(model.seen);
    }
    assert_eq!(seen.len(), 18, "{seen:?}");
}

/// What wants another try after its job was cancelled, which chance seldom brings about.
fn given_up() -> [Op; 3] {
    let take = Op::Take { owner: 0, step: 0, limit: 1, ranges: 1 };
    [take, Op::Cancel, Op::End { hand: 1, how: [How::Again; WIDTH as usize] }]
}

/// Takes and ends all that is left, closes the job, and opens it again if something failed.
fn to_the_end(how: How) -> Vec<Op> {
    let mut ops = vec![Op::Pass { seconds: 61 }];
    for step in 0..3 {
        ops.push(Op::Take { owner: 0, step, limit: 9, ranges: 9 });
        let how = if step == 0 { How::Done } else { how };
        ops.extend((0..9).map(|_| Op::End { hand: 1, how: [how; WIDTH as usize] }));
    }
    ops.extend([Op::Close, Op::Retry { class: None }]);
    ops
}

async fn begin(db: &Db, prompt: Uuid, has_run: bool) -> Model {
    let new = NewJob { budget: Some(Money(BUDGET)), ..new_job(prompt) };
    let job = new.id;
    // Without a run, the first evaluator's items are ranges.
    let width = |step| if step == 1 && !has_run { WIDTH } else { 1 };
    let evaluators = (1..3).map(|step| Step { step, blocked: has_run, width: width(step) });
    let run = has_run.then_some(Step { step: 0, blocked: false, width: 1 });
    let steps: Vec<Step> = run.into_iter().chain(evaluators).collect();
    prepared(db, new, targets(0..TARGETS), &steps).await;
    let item = |state, upto| Item { upto, state, attempts: 0, due: 0, owner: None, until: 0, fence: 0 };
    let of = |step: Step| {
        let width = i64::from(step.width);
        let state = if step.blocked { "blocked" } else { "waiting" };
        let numbers = (0..TARGETS).step_by(width as usize);
        numbers.map(move |nr| ((nr, step.step), item(state, (nr + width).min(TARGETS) - 1)))
    };
    let items = steps.iter().flat_map(|step| of(*step)).collect();
    Model {
        job,
        items,
        results: BTreeMap::new(),
        calls: BTreeMap::new(),
        has_ranges: !has_run,
        phase: "open",
        status: "running",
        now: NOW.micros(),
        hands: Vec::new(),
        made: Vec::new(),
        dearer: 0,
        ends: BTreeMap::new(),
        seen: BTreeSet::new(),
    }
}

async fn perform(db: &mut Db, model: &mut Model, op: &Op) {
    let now = UnixNanos(model.now as u64 * 1_000);
    // Mostly what is still held; sometimes what someone only believes to hold.
    let hand = |model: &Model, hand: usize| {
        let held: Vec<_> = model.hands.iter().copied().filter(|(_, key, fence, _)| model.holds(*key, *fence)).collect();
        let hands = if held.is_empty() || hand.is_multiple_of(4) { &model.hands } else { &held };
        (!hands.is_empty()).then(|| hands[hand % hands.len()])
    };
    match op {
        Op::Take { owner, step, limit, ranges } => {
            let owner_name = name(model.job, *owner);
            let want = Want {
                job: model.job,
                step: *step,
                limit: *limit,
                ranges: *ranges,
                owner: owner_name,
                lease: LEASE,
                now,
            };
            let mut taken: Vec<_> = db
                .store
                .take(want)
                .await
                .unwrap()
                .iter()
                .map(|leased| {
                    for (nr, given) in (leased.key.nr..).zip(&leased.targets) {
                        assert_eq!(given.target, format!("example {nr}"));
                    }
                    (leased.key.nr, leased.fence, leased.attempt, leased.targets.len() as i64)
                })
                .collect();
            taken.sort();
            assert_eq!(taken, model.take(*owner, *step, *limit, *ranges));
        }
        Op::End { hand: at, how } => {
            let Some((_, key, fence, targets)) = hand(model, *at) else { return };
            let how = &how[..targets as usize];
            let ends: Vec<End> = how.iter().map(|how| end(*how, key, fence, now)).collect();
            // Ends of more targets than it has are none of its own.
            let more = Ended { key, fence, ends: [ends.clone(), vec![End::Again { due: now }]].concat() };
            assert_eq!(db.store.end(vec![more], now).await.unwrap(), [false]);
            // Beside one that never was: it takes nothing along.
            let never = Ended { key: ItemKey { nr: 99, ..key }, fence, ends: vec![End::Again { due: now }] };
            let held = db.store.end(vec![never, Ended { key, fence, ends }], now).await.unwrap();
            assert_eq!(held, [false, model.end(key, fence, how)]);
        }
        Op::Extend { hand: at } => {
            let Some((_, key, fence, _)) = hand(model, *at) else { return };
            let held = db.store.extend(vec![Holding { key, fence }], LEASE, now).await.unwrap();
            assert_eq!(held, [model.holds(key, fence)]);
            if held[0] {
                model.items.get_mut(&(key.nr, key.step)).unwrap().until = model.now + LEASE.as_micros() as i64;
            }
        }
        Op::Reserve { hand: at, price } => {
            let Some((_, key, fence, _)) = hand(model, *at) else { return };
            let (reserved, spent) = model.money();
            let got = db.store.reserve_call(key, fence, Money(*price), now).await.unwrap();
            if model.phase != "open" || !model.holds(key, fence) {
                model.seen.insert("no lease for a call");
                assert_eq!(got, Reserved::Lost);
            } else if reserved + spent + price > BUDGET {
                model.seen.insert("no budget");
                assert_eq!(got, Reserved::NoBudget);
            } else {
                let call = model.calls.keys().filter(|of| (of.0, of.1) == (key.nr, key.step)).count() as i64 + 1;
                assert_eq!(got, Reserved::Call(call));
                model.calls.insert((key.nr, key.step, call), Call { reserved: *price, spent: None, fence });
                model.made.push(CallKey { item: key, fence, call });
            }
        }
        Op::Settle { call, percent } => {
            if model.made.is_empty() {
                return;
            }
            let key = model.made[call % model.made.len()];
            let entry = model.calls.get_mut(&(key.item.nr, key.item.step, key.call)).unwrap();
            let money = entry.reserved * percent / 100;
            model.dearer += entry.spent.map_or(0, |before| (money - before).max(0));
            entry.spent = Some(money);
            let body = format!("{key:?}");
            let answer = Answer { digest: body.as_bytes().to_vec(), body: body.clone() };
            let spent = Spent { money: Money(money), tokens: 7, answer: Some(answer) };
            let settled = db.store.settle_call(key, spent, now).await.unwrap();
            model.seen.insert(if settled == Settled::Held { "a call settled" } else { "a call settled too late" });
            assert_eq!(settled, if model.holds(key.item, key.fence) { Settled::Held } else { Settled::Lost });
            // Whoever comes next does not ask again, even if this owner is gone before it ends the item.
            assert_eq!(db.store.answer(body.as_bytes()).await.unwrap().unwrap().0, body);
        }
        Op::Pass { seconds } => model.now += *seconds as i64 * 1_000_000,
        Op::Crash { owner } => model.hands.retain(|hand| hand.0 != *owner),
        Op::Release { owner } => {
            let owner = name(model.job, *owner);
            let state = if model.phase == "closed" { "cancelled" } else { "waiting" };
            let mut released = 0;
            for ((nr, _), item) in model.items.iter_mut().filter(|(_, item)| item.owner.as_ref() == Some(&owner)) {
                (item.state, item.owner, item.until, item.attempts) = (state, None, 0, item.attempts - 1);
                released += (item.upto - nr + 1) as u64;
            }
            if released > 0 {
                model.seen.insert("a clean stop");
            }
            assert_eq!(db.store.release(&owner).await.unwrap(), released);
        }
        Op::Stale => {
            while db.store.release_stale(2, now).await.unwrap() > 1 {}
            model.stale();
        }
        Op::Retry { class } => {
            let classes = class.iter().map(|class| (*class).to_owned()).collect();
            assert_eq!(db.store.retry_failed(model.job, classes, now).await.unwrap(), model.retry(*class));
        }
        Op::Close => close(db, model, now).await,
        Op::Cancel => {
            let was_open = model.phase != "closed";
            assert_eq!(db.store.cancel_job(model.job, now).await.unwrap(), was_open);
            if was_open {
                (model.phase, model.status) = ("closed", "cancelled");
                for item in model.items.values_mut().filter(|item| ["blocked", "waiting"].contains(&item.state)) {
                    item.state = "cancelled";
                }
            }
        }
        Op::Restart => db.restart().await,
    }
}

/// What became of a target.
fn end(how: How, key: ItemKey, fence: i64, now: UnixNanos) -> End {
    match how {
        How::Done => End::Done {
            // The second of a name does not count.
            scores: vec![
                scored("quality", Ok(fence as f64)),
                scored("tone", Ok(fence as f64)),
                scored("tone", Ok(-1.0)),
            ],
            output: (key.step == 0).then(|| json!({"fence": fence})),
        },
        How::Failed(class) => End::Failed {
            errors: vec![scored("quality", Err(class))],
            dependants: (1..3).map(|step| (step, scored("quality", Err("no_output")))).collect(),
        },
        How::Again => End::Again { due: UnixNanos(now.0 + 5_000_000_000) },
    }
}

async fn close(db: &Db, model: &mut Model, now: UnixNanos) {
    let held = db.store.hold_job(Phase::Closing, "closer", LEASE, now).await.unwrap();
    assert_eq!(held.as_ref().map(|held| held.job.id), (model.phase == "closing").then_some(model.job));
    let Some(held) = held else { return };
    assert_eq!(db.store.hold_job(Phase::Closing, "other", LEASE, now).await.unwrap(), None);
    let closed = Closed { outcome: Outcome::Completed, results: Some(json!({"n": 1})), metrics: None, error: None };
    assert!(!db.store.close_job(model.job, held.fence - 1, closed.clone(), now).await.unwrap());
    assert!(db.store.close_job(model.job, held.fence, closed, now).await.unwrap());
    (model.phase, model.status) = ("closed", "completed");
    model.seen.insert("a job closed");
}

/// Each target is in one item of each step, and in no other.
fn covers(model: &Model, step: &str) {
    for of in model.items.keys().map(|(_, step)| *step).collect::<BTreeSet<i64>>() {
        let items = model.items.iter().filter(|(at, _)| at.1 == of);
        let targets: Vec<i64> = items.flat_map(|((nr, _), item)| *nr..=item.upto).collect();
        assert_eq!(targets, (0..TARGETS).collect::<Vec<_>>(), "{step}: step {of}");
    }
}

/// All rows are what the model says.
async fn compare(db: &Db, model: &Model, step: &str) {
    let sql = "SELECT nr, step, state, attempts, due_at, owner, lease_until, fence, upto FROM emberd.job_items WHERE job = $1";
    let lines = db.store.lines(sql, &binds![model.job]).await.unwrap();
    assert_eq!(lines.len(), model.items.len());
    for line in &lines {
        let item = &model.items[&(line.int(0).unwrap(), line.int(1).unwrap())];
        let found = (line.text(2).unwrap(), line.int(3).unwrap(), line.int(4).unwrap(), line.maybe_text(5).unwrap());
        let expected = (item.state.to_owned(), item.attempts, item.due, item.owner.clone());
        assert_eq!(found, expected, "{step}: item {line:?}");
        assert_eq!((line.int(6).unwrap(), line.int(7).unwrap()), (item.until, item.fence), "{step}: item {line:?}");
        assert_eq!(line.int(8).unwrap(), item.upto, "{step}: item {line:?}");
    }
    covers(model, step);
    assert_eq!(db.store.progress(model.job).await.unwrap(), model.progress(), "{step}");
    let sql =
        "SELECT nr, step, call, reserved, spent, fence FROM emberd.job_calls WHERE job = $1 ORDER BY nr, step, call";
    let calls: BTreeMap<_, _> = db
        .store
        .lines(sql, &binds![model.job])
        .await
        .unwrap()
        .iter()
        .map(|line| {
            let at = (line.int(0).unwrap(), line.int(1).unwrap(), line.int(2).unwrap());
            let (reserved, spent, fence) = (line.int(3).unwrap(), line.maybe_int(4).unwrap(), line.int(5).unwrap());
            (at, Call { reserved, spent, fence })
        })
        .collect();
    assert_eq!(calls, model.calls, "{step}");
    let job = db.store.job(model.job).await.unwrap().unwrap();
    assert_eq!((job.reserved.0, job.spent.0), model.money(), "{step}");
    assert!(job.reserved.0 + job.spent.0 <= BUDGET + model.dearer, "{step}");
    assert_eq!(
        (format!("{:?}", job.phase).to_lowercase(), job.items_left),
        (model.phase.to_owned(), model.left()),
        "{step}"
    );
    let row = db.store.evaluation(model.job).await.unwrap().unwrap();
    assert_eq!(row.status, model.status, "{step}");
    assert_eq!(row.completed_at.is_some(), model.phase == "closed", "{step}");
    let page = db.store.results(model.job, &ResultFilter::default(), None, 10_000).await.unwrap();
    let results: BTreeMap<_, _> = page
        .data
        .into_iter()
        .map(|result| {
            let outcome = match result.scored.outcome {
                Ok(score) => Ok(score.score.unwrap() as i64),
                Err(failure) => Err(failure.class),
            };
            ((result.nr, result.step, result.scored.name), outcome)
        })
        .collect();
    let expected: BTreeMap<_, _> =
        model.results.iter().map(|(at, outcome)| (at.clone(), outcome.map_err(str::to_owned))).collect();
    assert_eq!(results, expected, "{step}");
}
