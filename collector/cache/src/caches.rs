//! All caches of a process, over one Redis or none.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use emberd_model::Clock;
use serde_json::{Map, Value as Json, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Limits, Value};
use crate::far::{BadUrl, Config, Far};
use crate::pattern::Pattern;
use crate::session::Heard;
use crate::stats::{Lookups, State};
use crate::wire::Seal;

/// Invalidations that a listener may be behind; one that is further behind is told so.
const SAID_MAX: usize = 1_024;

/// A cache, whatever it keeps.
pub(crate) trait Member: Send + Sync {
    fn name(&self) -> &'static str;
    fn hear(&self, pattern: &Pattern);
    fn lookups(&self) -> &Lookups;
    fn size(&self) -> (usize, usize);
}

/// What all caches have in common.
pub(crate) struct Shared {
    pub(crate) far: Option<Far>,
    pub(crate) seal: Option<Seal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) said: broadcast::Sender<Pattern>,
}

/// They, and the way to Redis.
pub struct Caches {
    shared: Arc<Shared>,
    members: Mutex<Vec<Weak<dyn Member>>>,
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Caches").field("redis", &self.state()).finish_non_exhaustive()
    }
}

impl Caches {
    /// None yet. The seal is made of a secret that all emberds of this Redis share.
    ///
    /// # Errors
    /// The address is none of a Redis. Whether one is there is not asked.
    pub fn new(redis: Option<Config>, seal: Option<Seal>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, BadUrl> {
        let far = redis.map(Far::new).transpose()?;
        let (said, _) = broadcast::channel(SAID_MAX);
        Ok(Arc::new(Self { shared: Arc::new(Shared { far, seal, clock, said }), members: Mutex::default() }))
    }

    /// Caches in memory alone.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Arc<Self> {
        let (said, _) = broadcast::channel(SAID_MAX);
        Arc::new(Self { shared: Arc::new(Shared { far: None, seal: None, clock, said }), members: Mutex::default() })
    }

    /// A new cache of this name, which is the same in every process that shares the Redis.
    pub fn add<V: Value>(&self, name: &'static str, limits: Limits) -> Arc<Cache<V>> {
        let cache = Arc::new(Cache::new(name, limits, Arc::clone(&self.shared)));
        let member: Weak<dyn Member> = Arc::downgrade(&(Arc::clone(&cache) as Arc<dyn Member>));
        self.members().push(member);
        cache
    }

    pub(crate) fn far(&self) -> Option<&Far> {
        self.shared.far.as_ref()
    }

    fn members(&self) -> MutexGuard<'_, Vec<Weak<dyn Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<dyn Member>> {
        self.members().iter().filter_map(Weak::upgrade).collect()
    }

    /// Keeps up the connection to Redis, where there is one, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(far) = &self.shared.far else { return stop.cancelled().await };
        let heard = |heard| match heard {
            Heard::Forget(pattern) => self.hear(&pattern),
            Heard::Missed => self.hear_all(),
        };
        far.run(&heard, &stop).await;
    }

    /// Tells every process that something counts no more, from one that keeps nothing itself and does not [`Caches::run`]. False where Redis did
    /// not confirm it in time; true where there is none.
    pub async fn tell(&self, pattern: Pattern, patience: Duration) -> bool {
        let Some(far) = &self.shared.far else { return true };
        far.say(pattern);
        let stop = CancellationToken::new();
        let said = async {
            while far.unsaid.count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            said = tokio::time::timeout(patience, said) => said.is_ok(),
            () = self.run(stop) => false,
        }
    }

    /// What is invalidated in this process, as it happens, for whoever can tell other processes of it; Redis is told without. One who lags
    /// behind must tell of everything.
    pub fn said(&self) -> broadcast::Receiver<Pattern> {
        self.shared.said.subscribe()
    }

    /// Another process invalidated this.
    pub fn hear(&self, pattern: &Pattern) {
        self.all().iter().filter(|member| member.name() == pattern.cache()).for_each(|member| member.hear(pattern));
    }

    /// Other processes may have invalidated anything.
    pub fn hear_all(&self) {
        self.all().iter().for_each(|member| member.hear(&Pattern::beginning(member.name(), "")));
    }

    /// How Redis is.
    pub fn state(&self) -> State {
        self.shared.far.as_ref().map_or(State::Absent, Far::state)
    }

    /// Hits, misses and ratios of each cache: all, of memory (`l1`) and of Redis (`l2`, among those that memory did not have).
    pub fn metrics(&self) -> Json {
        let ratio = |hits: u64, of: u64| (of > 0).then(|| hits as f64 / of as f64);
        let one = |member: &Arc<dyn Member>| {
            let lookups = member.lookups();
            let (near, far, misses) = (lookups.near.get(), lookups.far.get(), lookups.misses.get());
            let all = near + far + misses;
            let told = json!({
                "hits": near + far,
                "misses": misses,
                "ratio": ratio(near + far, all),
                "l1": { "hits": near, "ratio": ratio(near, all) },
                "l2": { "hits": far, "ratio": ratio(far, far + misses) },
            });
            (member.name().to_owned(), told)
        };
        Json::Object(self.all().iter().map(one).collect())
    }

    /// Entries, bytes and invalidations of each cache, and how Redis answers.
    pub fn stats(&self) -> Json {
        let mut all: Map<String, Json> = Map::new();
        for member in self.all() {
            let ((entries, bytes), lookups) = (member.size(), member.lookups());
            let told = json!({
                "entries": entries,
                "bytes": bytes,
                "refreshes": lookups.refreshes.get(),
                "invalidations": { "here": lookups.said.get(), "elsewhere": lookups.heard.get() },
            });
            all.insert(member.name().to_owned(), told);
        }
        all.insert("redis".to_owned(), self.redis());
        Json::Object(all)
    }

    fn redis(&self) -> Json {
        let Some(far) = &self.shared.far else { return json!({ "state": State::Absent.word() }) };
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        let times = far.calls.p50_p99();
        json!({
            "state": far.state().word(),
            "at": far.place(),
            "p50_ms": times.map(|(p50, _)| ms(p50)),
            "p99_ms": times.map(|(_, p99)| ms(p99)),
            "calls": {
                "answered": far.calls.answered.get(),
                "late": far.calls.late.get(),
                "failed": far.calls.failed.get(),
                "skipped": far.calls.skipped.get(),
            },
            "written": far.calls.written.get(),
            "dropped": far.calls.dropped.get(),
            "unsaid": far.unsaid.count(),
            "connections": far.calls.connections.get(),
        })
    }

    /// Appends all of it.
    pub fn write_prometheus(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = self.try_write(out);
    }

    fn try_write(&self, out: &mut String) -> std::fmt::Result {
        let all = self.all();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            writeln!(out, "# HELP emberd_cache_{name} {help}\n# TYPE emberd_cache_{name} {kind}")
        };
        head(out, "lookups_total", "counter", "Look-ups of the caches: found in memory (l1), in Redis (l2), or not.")?;
        for member in &all {
            let (name, lookups) = (member.name(), member.lookups());
            for (result, count) in [("l1", &lookups.near), ("l2", &lookups.far), ("miss", &lookups.misses)] {
                let count = count.get();
                writeln!(out, "emberd_cache_lookups_total{{cache=\"{name}\",result=\"{result}\"}} {count}")?;
            }
        }
        head(out, "invalidations_total", "counter", "What was let count no more, from this process or another.")?;
        for member in &all {
            let (name, lookups) = (member.name(), member.lookups());
            for (from, count) in [("here", &lookups.said), ("elsewhere", &lookups.heard)] {
                let count = count.get();
                writeln!(out, "emberd_cache_invalidations_total{{cache=\"{name}\",from=\"{from}\"}} {count}")?;
            }
        }
        head(out, "entries", "gauge", "Values in memory.")?;
        for member in &all {
            writeln!(out, "emberd_cache_entries{{cache=\"{}\"}} {}", member.name(), member.size().0)?;
        }
        head(out, "bytes", "gauge", "What the values in memory take, about.")?;
        for member in &all {
            writeln!(out, "emberd_cache_bytes{{cache=\"{}\"}} {}", member.name(), member.size().1)?;
        }
        let Some(far) = &self.shared.far else { return Ok(()) };
        head(out, "redis_up", "gauge", "Whether Redis is asked: 0 while it does not answer in time.")?;
        writeln!(out, "emberd_cache_redis_up {}", u8::from(far.state() == State::Up))?;
        head(out, "redis_calls_total", "counter", "Look-ups in Redis; skipped ones did not wait for it at all.")?;
        let calls = &far.calls;
        for (outcome, count) in [
            ("answered", &calls.answered),
            ("late", &calls.late),
            ("failed", &calls.failed),
            ("skipped", &calls.skipped),
        ] {
            writeln!(out, "emberd_cache_redis_calls_total{{outcome=\"{outcome}\"}} {}", count.get())?;
        }
        head(
            out,
            "redis_writes_total",
            "counter",
            "Values for Redis: written, or dropped because it was slow or gone.",
        )?;
        for (outcome, count) in [("written", &calls.written), ("dropped", &calls.dropped)] {
            writeln!(out, "emberd_cache_redis_writes_total{{outcome=\"{outcome}\"}} {}", count.get())?;
        }
        head(out, "redis_unsaid", "gauge", "Invalidations that Redis has not confirmed yet.")?;
        writeln!(out, "emberd_cache_redis_unsaid {}", far.unsaid.count())?;
        head(out, "redis_connections_total", "counter", "Connections to Redis that stood.")?;
        writeln!(out, "emberd_cache_redis_connections_total {}", calls.connections.get())?;
        if let Some((p50, p99)) = calls.p50_p99() {
            head(out, "redis_seconds", "gauge", "How long look-ups in Redis took in the last minutes.")?;
            writeln!(out, "emberd_cache_redis_seconds{{quantile=\"0.5\"}} {}", p50.as_secs_f64())?;
            writeln!(out, "emberd_cache_redis_seconds{{quantile=\"0.99\"}} {}", p99.as_secs_f64())?;
        }
        Ok(())
    }
}
